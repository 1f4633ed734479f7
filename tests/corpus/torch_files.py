"""Hostile files of PyTorch."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile

import numpy as np

from corpus.parts import COMMAND, DATA, Payload, W, listing, saved, zipped


def torch_file(content, **kwargs):
    """Save something with PyTorch."""
    import torch

    return saved(lambda file: torch.save(content, file, **kwargs))


def torch_members(pickled, **others):
    """Build a zip file as PyTorch's, of a pickle and of storages."""
    listed = {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", "data/0": DATA}
    return zipped([(f"archive/{name}", content) for name, content in (listed | others).items()])


def old_format(pickled):
    """Build a file as PyTorch's before version 1.6."""
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    keys = b"\x80\x02]" + short("0") + b"a."
    return magic + pickled + keys + struct.pack("<Q", 12) + DATA


def short(text):
    """Pickle a text."""
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def whole(number):
    """Pickle a whole number."""
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def parts(shape=(4, 3), stride=(3, 1), offset=0, numel=12, key="0", kind="DoubleStorage"):
    """Pickle a tensor by its parts."""
    stored = b"(" + short("storage") + f"ctorch\n{kind}\n".encode() + short(key) + short("cpu")
    sizes = b"".join(b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (shape, stride))
    rest = whole(offset) + sizes + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + whole(numel) + b"tQ" + rest


def state(**items):
    """Pickle a dictionary of pickled items."""
    listed = b"".join(short(name) + content for name, content in items.items())
    return b"\x80\x02}(" + listed + b"u."


def twice_each(first, join):
    """Pickle something of something twice, and so on."""
    content = b"\x80\x02" + first + b"q\x00"
    for level in range(60):
        content += join(b"h" + bytes([level])) + b"q" + bytes([level + 1])
    return content


def filled_late():
    """Pickle empty dictionaries, each of which then holds the one before it twice."""
    content = b"\x80\x02" + b"".join(b"}q" + bytes([n]) + b"0" for n in range(41))
    for n in range(40, 0, -1):
        get = b"h" + bytes([n - 1])
        content += b"h" + bytes([n]) + b"(" + short("a") + get + short("b") + get + b"u0"
    return content + b"h\x28."


def pickles():
    """List pickles, by name."""
    tensors = {
        "shape of 10**12 numbers, stored once": parts((10**6, 10**6), (0, 0)),
        "shape of 10**18 numbers": parts((10**9, 10**9), (0, 0)),
        "shape larger than the storage": parts((400, 3)),
        "storage larger than its bytes": parts((400, 300), (300, 1), numel=120_000),
        "storage of 2**60 numbers": parts(numel=2**60),
        "storage that there is not": parts(key="nowhere"),
        "storage of another folder": parts(key="../../../../etc/passwd"),
        "storage of another type": parts(kind="UntypedStorage"),
        "negative shape": parts((-4, -3)),
        "negative steps": parts(stride=(-3, -1)),
        "negative offset": parts(offset=-8),
        "offset of 2**62": parts(offset=2**62),
        "complex numbers": parts((2, 3), kind="ComplexDoubleStorage", numel=6),
        "good: a tensor": parts(),
    }
    b = short("b")
    pair = short("a") + b"%s" + b + b"%s"
    encodings = b"c_codecs\nencode\n(" * 41 + short("a") + short("latin1") + b"tR"
    methods = b"}(" + short("items") + b"K\x01" + short("keys") + b"K\x01ub."
    return {name: state(**{"0.weight": content}) for name, content in tensors.items()} | {
        "command": b"cos\nsystem\n(" + short(COMMAND) + b"tR.",
        "command of another protocol": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
        "eval": b"\x80\x02c__builtin__\neval\n" + short("1") + b"\x85R.",
        "gigabytes of zeros": b"\x80\x02c__builtin__\nbytearray\n" + whole(8 * 10**9) + b"\x85R.",
        "hexadecimal, forty times": b"\x80\x02" + encodings + (short("hex") + b"tR") * 40 + b".",
        "tuples of tuples": b"\x80\x02}"
        + twice_each(b")", lambda get: get + get + b"\x86")[2:]
        + b"K\x01s.",
        "dictionaries of dictionaries": twice_each(
            b"}", lambda get: b"}(" + pair % (get, get) + b"u"
        )
        + b".",
        "dictionaries filled late": filled_late(),
        "dictionary in itself": b"\x80\x02}q\x00" + b + b"h\x00s.",
        "dictionaries, five thousand deep": b"\x80\x02"
        + (b"}" + b) * 5000
        + b"}"
        + b"s" * 5000
        + b".",
        "memory of 2**32": b"\x80\x02}r\xff\xff\xff\xff.",
        "memory that there is not": b"\x80\x02h\x07.",
        "text of four gigabytes": b"\x80\x02X\xff\xff\xff\xffabc.",
        "a million entries": b"\x80\x02](" + b"N" * 1_100_000 + b"e.",
        "no end": b"\x80\x02}",
        "nothing on the stack": b"\x80\x02.",
        "mark that there is not": b"\x80\x02u.",
        "two names that become one": state(a=b"}" + b + parts() + b"s", **{"a.b": parts()}),
        "method that is a number": b"\x80\x02ccollections\nOrderedDict\n)R" + methods,
        "a number": b"\x80\x02K\x01.",
        "nothing": b"\x80\x02N.",
        "empty": b"\x80\x02}.",
        "no tensors": state(epoch=b"K\x01"),
        "name that is a number": b"\x80\x02}K\x01" + parts((12,), (1,)) + b"s.",
    }


def odd_tensor(kind):
    """Save a tensor that is not a plain array."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {
            "sparse": lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**9, 10**9)),
            "quantised": lambda: torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8),
            "of NaN": lambda: torch.tensor(W * np.nan),
            "of no values": lambda: torch.ones(4, 3, device="meta"),
            "that is text": lambda: "W",
        }
        return torch_file({"0.weight": made[kind]()})


def pickled_module():
    """Pickle a whole module of PyTorch's."""
    import torch

    return torch_file(torch.nn.Linear(2, 2))


def tar():
    """Build a file as PyTorch's before version 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../../escaped"):
            content = pickle.dumps(Payload())
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def torch_cases():
    """List PyTorch's files, by name."""
    odd = ("sparse", "quantised", "of NaN", "of no values", "that is text")
    large = state(**{"0.weight": parts((2**14, 2**14), (2**14, 1), numel=2**28)})
    members = [("archive/data.pkl", large), ("archive/version", b"3\n")]
    return {
        **{name: torch_members(content) for name, content in pickles().items()},
        **{
            f"old format: {name}": old_format(content)
            for name, content in pickles().items()
            if not name.startswith("good")
        },
        **{f"tensor {kind}": lambda _, kind=kind: odd_tensor(kind) for kind in odd},
        "pickled command": lambda _: torch_file({"W": Payload()}),
        "pickled command, old format": pickle.dumps({"W": Payload()}),
        "pickled module": lambda _: pickled_module(),
        "TorchScript": torch_members(
            state(), **{"constants.pkl": b"\x80\x02).", "code/a.py": b"1"}
        ),
        "tar": tar(),
        "no pickle": zipped([("archive/version", b"3\n")]),
        "version of 10**30": torch_members(state(a=parts()), version=b"9" * 30),
        "NumPy's file": saved(np.savez, W=W),
        "no zip file": b"PK\3\4" + bytes(100),
        "no file of PyTorch's": b"",
        "half a file": torch_members(state(a=parts()))[:300],
        "slow: bomb": lambda _: zipped(
            [*members, ("archive/data/0", bytes(2**31))], method=zipfile.ZIP_DEFLATED
        ),
        "slow: a million members": lambda _: listing([b"archive/%x" % n for n in range(10**6)]),
    }
