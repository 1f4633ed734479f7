"""Hostile files: what the readers answer to files that are damaged, lie, or mean harm.

Threats that were thought out (declared sizes, bombs, pickles, paths, graphs that call themselves),
and random changes of good files: of their bytes, of the members of zip files whose check sums are
right again, of JSON headers, of protobuf messages. Each file is listed and loaded in another
process, in which an audit hook watches what is executed and what is opened outside of the
folder; it does not see native code. The answer must be a network, or an error of ours that names
the file, within 5 seconds and 1 GB for the whole process. Linux only.

    python benchmarks/hostile_files.py
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _common import machine, options, table

from jacrot import Network, layers
from jacrot.readers import list_arrays, load, metadata

SECONDS, MEGABYTES = 5, 1000
# Where the process is ended, whatever it is about to do.
CEILING = 2 * MEGABYTES
SUFFIXES = {
    "npz": ".npz",
    "saved network": ".npz",
    "safetensors": ".safetensors",
    "PyTorch": ".pt",
    "ONNX": ".onnx",
}
PACKAGES = {"safetensors": "safetensors", "PyTorch": "torch", "ONNX": "onnx"}
NUMBERS = (0, 1, -1, 2, 3, 255, 2**16, 10**9, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63))
W, B = np.arange(12.0).reshape(4, 3), np.arange(4.0)
DATA = W.tobytes()
# What must not be executed; the working folder is that of the files.
COMMAND = "touch executed"


class Payload:
    """What executes a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (COMMAND,)


def saved(writer, *args, **kwargs):
    """Call a function that writes a file; give the bytes."""
    file = io.BytesIO()
    writer(file, *args, **kwargs)
    return file.getvalue()


def zipped(members, method=zipfile.ZIP_STORED):
    """Make a zip file of names and bytes, in which names may come twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def listing(names, content=b"", declared=None, method=0, flags=0):
    """Make a zip file whose list has many entries of one member, with any declared size."""
    name = names[0]
    packed = content if method == 0 else zlib.compress(content, 1)[2:-4]
    declared = len(content) if declared is None else declared
    sizes = (zlib.crc32(content), len(packed), declared)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0, *sizes, len(name), 0)
    body = local + name + packed
    head = struct.pack("<4s6H3L", b"PK\1\2", 20, 20, flags, method, 0, 0, *sizes)
    listed = b"".join(head + struct.pack("<5H2L", len(n), *[0] * 6) + n for n in names)
    count = min(len(names), 2**16 - 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(listed), len(body), 0)
    return body + listed + end


# NumPy's files


def npy(shape=(4, 3), descr="<f8", data=DATA, header=None, version=b"\1\0"):
    """Make an array in NumPy's format, with any header."""
    text = header or f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text = f"{text}{' ' * (-(len(text) + 11) % 64)}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def one(content, **kwargs):
    """Make an ``.npz`` file of one member."""
    return zipped([("W.npy", content)], **kwargs)


def zeros_in_megabytes():
    """Make an ``.npz`` file of two gigabytes of zeros, which says so."""
    with io.BytesIO() as file:
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("W.npy", "w", force_zip64=True) as member,
        ):
            member.write(npy((2**14, 2**14), data=b""))
            for _ in range(2**7):
                member.write(bytes(2**24))
        return file.getvalue()


def lzma_of_gigabytes():
    """Make a member for which lzma is to take four gigabytes."""
    content = bytearray(one(npy(), method=zipfile.ZIP_LZMA))
    place = content.index(b"W.npy") + len("W.npy") + 5
    content[place : place + 4] = b"\xff\xff\xff\xf0"
    return bytes(content)


def long_list():
    """Make a zip file that says that its list of members has 2**63 bytes."""
    content = one(npy())
    place = content.rindex(b"PK\5\6")
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**63, place)
    return content[:place] + wide + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1) + content[place:]


def npz_threats():
    """List files of NumPy's, by name."""
    heads = {
        "shape of 10**18 numbers": {"shape": (10**9, 10**9)},
        "shape whose product overflows": {"shape": (2**32, 2**32), "data": b""},
        "negative shape": {"shape": (-4, -3)},
        "shape larger than the data": {"shape": (5, 3)},
        "shape smaller than the data": {"shape": (3, 3)},
        "shape of fractions": {"shape": (4.0, 3)},
        "shape of a hundred dimensions": {"shape": (1,) * 100, "data": DATA[:8]},
        "dtype of a gigabyte": {"descr": "|V1000000000", "shape": (1,)},
        "dtype that there is not": {"descr": "<q99"},
        "dtype of a hundred fields": {"descr": [(f"f{n}", "<f8") for n in range(100)]},
        "header of brackets": {"header": "(" * 5000},
        "header of signs": {"header": "-" * 9000 + "1"},
        "header of sums": {"header": "1+" * 4500 + "1j"},
        "header that calls": {"header": f"__import__('os').system({COMMAND!r})"},
        "header that is a list": {"header": "[1, 2]"},
        "header without an end": {"version": b"\2\0"},
        "version 9": {"version": b"\x09\0"},
    }
    arrays = {
        "objects": np.array([{"a": 1}], dtype=object),
        "pickled command": np.array([Payload()], dtype=object),
        "strings": np.array([["a", "b"]]),
        "bytes": np.array([[b"a", b"b"]]),
        "complex numbers": W + 1j,
        "dates": np.zeros((2, 2), "datetime64[s]"),
        "records": np.zeros((2, 2), [("a", "f8"), ("b", "i4")]),
        "void": np.zeros((2, 2), "V7"),
        "no dimensions": np.array(3.0),
        "three dimensions": np.zeros((2, 2, 2)),
        "no entries": np.zeros((0, 3)),
        "NaN": W * np.nan,
        "infinity": W + np.inf,
        "good: the other byte order": W.astype(">f8"),
        "good: Fortran's order": np.asfortranarray(W),
        "good: whole numbers": W.astype(np.int8),
        "good: truths": W > 3,
        "good: half precision": W.astype(np.float16),
        "good: zeros that compress a thousand times": np.zeros((2000, 2000)),
    }
    names = {
        "two members of one name": ["W.npy", "W.npy"],
        "two arrays of one name": ["W.npy", "W"],
        "name of the header": ["__jacrot__.npy"],
        "good: name of another folder": ["../../../tmp/W.npy"],
        "good: name of the root": ["/etc/W.npy"],
        "good: name with a line break": ["a\nb.npy"],
        "good: name of sixty thousand letters": ["n" * 60_000 + ".npy"],
        "good: name that is no English": ["Gewicht_\u00e4\u6743.npy"],
    }
    large = npy((2**12, 2**12), data=b"")
    return {
        **{name: one(npy(**head)) for name, head in heads.items()},
        **{name: saved(np.savez_compressed, W=array) for name, array in arrays.items()},
        **{name: zipped([(n, npy()) for n in listed]) for name, listed in names.items()},
        "good: name with a zero": listing([b"W\0.npy"], npy()),
        "pickle in place of an array": one(pickle.dumps(Payload())),
        "zip file in a zip file": one(one(one(npy(data=bytes(2**20)), method=8), method=8)),
        "a thousand members at one place": listing(
            [b"W.npy"] + [b"%x" % n for n in range(999)], npy((512, 512), data=bytes(2**21))
        ),
        "small member that says it is large": listing([b"W.npy"], large, 2**27 + 128, 8),
        "encrypted member": listing([b"W.npy"], npy(), flags=1),
        "other packing": one(npy(), method=zipfile.ZIP_BZIP2),
        "other packing of gigabytes": lzma_of_gigabytes(),
        "list of members of eight exabytes": long_list(),
        "nothing": b"",
        "no zip file": bytes(100),
        "only the end of a zip file": b"PK\5\6" + bytes(18),
        "half a file": one(npy())[:150],
        "slow: bomb": lambda _: zeros_in_megabytes(),
        "slow: bomb that says it is small": lambda _: listing(
            [b"W.npy"], large + bytes(2**27), 2000, 8
        ),
        "slow: a million members": lambda _: listing([b"%x" % n for n in range(10**6)], npy()),
    }


# Network.save


def network_file(header):
    """Make what looks like the file of a saved network; the header may be text already."""
    text = header if isinstance(header, (str, np.ndarray)) else json.dumps(header)
    return saved(np.savez_compressed, **{"0.weight": W, "m": W > 1}, __jacrot__=text)


def described(*listed):
    """Describe a network of some layers."""
    return {"format": "jacrot.Network/1", "layers": list(listed)}


def layer(kind="Dense", **arguments):
    """Describe a layer."""
    weight = {"weight": {"array": "0.weight"}} if kind == "Dense" else {}
    return {"layer": kind, "arguments": weight | arguments}


def sums(depth):
    """Write sums in sums."""
    start = '{"layer": "Residual", "arguments": {"branch": ' * depth
    inner = start + '{"layer": "Activation", "arguments": {"activation": "relu"}}' + "}}" * depth
    return '{"format": "jacrot.Network/1", "layers": [' + inner + "]}"


def network_headers():
    """List headers as Network.save's, by name."""
    dense = json.dumps(described(layer()))
    kinds = ("Function", "BaseLayer", "Layer", "fused", "identity_tangents", "__class__")
    kinds += ("__builtins__", "attention", "os.system", "", None, 5, ["Dense"], {"a": 1})
    return {
        **{f"layer {kind}": described(layer(kind, x={"array": "0.weight"})) for kind in kinds},
        "layer that is none": described("relu"),
        "array in place of a layer": described({"array": "0.weight"}),
        "no layers": described(),
        "layers that are a number": described() | {"layers": 7},
        "layers that are text": described() | {"layers": "Dense"},
        "layers that are a dictionary": described() | {"layers": layer()},
        "header that is a number": "7",
        "header that is no JSON": f"import os; os.system({COMMAND!r})",
        "header of brackets": "[" * 100_000,
        "header of bytes": np.array(dense.encode()),
        "header of two texts": np.array([dense, dense]),
        "header of objects": np.array([{"a": 1}], dtype=object),
        "header of letters that there are not": np.frombuffer(b"\xff" * 400, "<U100").reshape(()),
        "header with a zero": "\0" + dense,
        "other format": described() | {"format": ["x"] * 10},
        "array that there is not": described(layer(weight={"array": "nowhere"})),
        "array named by a list": described(layer(weight={"array": ["0.weight"]})),
        "array two thousand times": described(*[layer()] * 2000),
        "argument that there is not": described(layer(shell=COMMAND)),
        "arguments that are a list": described({"layer": "Dense", "arguments": [1]}),
        "brackets for a name": dense.replace('"0.weight"', "[" * 90_000 + "]" * 90_000),
        "sums in sums, five thousand": sums(5000),
        "NaN": described(layer("LayerNorm", eps=float("nan"))),
        "infinity": json.dumps(described(layer("LayerNorm", eps=7.5))).replace("7.5", "1e999"),
        "number of five thousand digits": dense.replace('"0.weight"', "9" * 5000),
        "number too large for a float": described(layer("LayerNorm", eps=10**400)),
        "activation that is a layer": described(layer(activation=layer("Softmax"))),
        "activation that there is not": described(layer(activation="exec")),
        "activation that is a number": described(layer("Activation", activation=3)),
        "weight that is text": described(layer(weight="W")),
        "weight that is nothing": described(layer(weight=None)),
        "weight that is ragged": described(layer(weight=[[1, 2], [3]])),
        "bias that is a matrix": described(layer(bias={"array": "m"})),
        "eps that is text": described(layer("LayerNorm", eps="1e-5")),
        "count_padding that is text": described(layer("AvgPool2d", size=2, count_padding="no")),
        "window of zero": described(layer("MaxPool2d", size=0)),
        "window of a fraction": described(layer("MaxPool2d", size=2.5)),
        "window of three sides": described(layer("MaxPool2d", size=[2, 2, 2])),
        "layers that do not chain": described(layer(), layer(weight=[[1.0, 2.0]])),
        "branch that is an array": described(layer("Residual", branch={"array": "0.weight"})),
        "branch of nothing": described(layer("Residual", branch=[])),
        "sequence that is a number": described(layer("Sequential", layers=3)),
        "good: window of 10**9": described(layer("MaxPool2d", size=10**9)),
        "good: sums in sums, twenty": sums(20),
        "good: ten thousand layers": described(*[layer("Flatten")] * 10_000),
        "good: metadata that are a number": described(layer()) | {"metadata": 7},
        "good: dense": dense,
    }


def saved_network_threats():
    """List files of Network.save's, by name."""
    slow = "slow: header of a hundred megabytes"
    return {name: network_file(header) for name, header in network_headers().items()} | {
        slow: lambda _: network_file(np.array(" " * 25_000_000))
    }


# safetensors


def tensors_file(header, data=DATA, size=None):
    """Make a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def tensor(dtype="F64", shape=(4, 3), offsets=(0, 96)):
    """Describe a tensor, the only one of a safetensors file."""
    return {"W": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def saved_tensors(header):
    """Make a safetensors file that looks like that of a saved network."""
    text = header if isinstance(header, str) else json.dumps(header)
    return tensors_file({"__metadata__": {"__jacrot__": text}, "0.weight": tensor()["W"]})


def safetensors_threats():
    """List safetensors files, by name."""
    networks = {
        f"{name}, saved": saved_tensors(header)
        for name, header in network_headers().items()
        if not isinstance(header, np.ndarray)
    }
    many = {f"t{n}": tensor(shape=[0], offsets=[0, 0])["W"] for n in range(100_000)}
    headers = {
        "header of nothing": b"",
        "header that is no JSON": b"import os",
        "header that is a list": [1],
        "header of brackets": b"[" * 100_000,
        "header of brackets inside": b'{"W":' + b"[" * 100_000,
        "header that is no Unicode": b'{"\xff\xfe": {}}',
        "offsets out of the file": tensor(shape=(125_000,), offsets=(0, 10**6)),
        "offsets of 2**63": tensor(offsets=(2**63, 2**63 + 96)),
        "offsets that go back": tensor(offsets=(96, 0)),
        "offsets below zero": tensor(offsets=(-96, 0)),
        "offsets that overlap": tensor() | {"A": tensor()["W"]},
        "offsets with a gap": tensor(shape=(2, 3), offsets=(48, 96)),
        "bytes that belong to nothing": tensor(shape=(2, 3), offsets=(0, 48)),
        "shape of 10**18 numbers": tensor(shape=(10**9, 10**9)),
        "shape whose product overflows": tensor(shape=(2**32, 2**32)),
        "negative shape": tensor(shape=(-4, -3)),
        "shape of fractions": tensor(shape=(4.0, 3.0)),
        "dtype that there is not": tensor("__import__"),
        "dtype that NumPy has not": tensor("F8_E4M3", (12, 8)),
        "complex numbers": tensor("C64"),
        "a tensor that is a number": {"W": 5},
        "metadata that are no text": tensor() | {"__metadata__": {"a": 1}},
        "name of five thousand digits": {"9" * 5000: tensor(shape=(12,))["W"]},
        "good: name of another folder": {"../../W\n": tensor()["W"]},
        "good: truths": tensor("BOOL", (12, 8)),
    }
    return {name: tensors_file(header) for name, header in headers.items()} | {
        **networks,
        "nothing": b"",
        "header of 2**63 bytes": tensors_file({}, size=2**63),
        "header longer than the file": tensors_file(tensor(), size=10**6),
        "header of a hundred thousand tensors": tensors_file(many, b""),
        "shape of nothing and much": tensors_file(tensor(shape=(0, 10**18), offsets=(0, 0)), b""),
        "no dimensions": tensors_file(tensor(shape=(), offsets=(0, 8)), DATA[:8]),
        "no tensors": tensors_file({}, b""),
        "NaN": tensors_file(tensor(), b"\xff" * 96),
        "NaN of half a float": tensors_file(tensor("BF16", (12, 4)), b"\xff" * 96),
        "good: half of a float": tensors_file(tensor("BF16", (12, 4)), bytes(96)),
        "half a file": tensors_file(tensor())[:100],
        "slow: header of twenty megabytes": lambda _: tensors_file(
            b"{" + b" " * 20_000_000 + b"}", b""
        ),
    }


# PyTorch's files, in the operations of pickle


def torch_file(content, **kwargs):
    """Save something with PyTorch."""
    import torch

    return saved(lambda file: torch.save(content, file, **kwargs))


def torch_members(pickled, **others):
    """Make a zip file as PyTorch's, of a pickle and of storages."""
    listed = {"data.pkl": pickled, "version": b"3\n", "byteorder": b"little", "data/0": DATA}
    return zipped([(f"archive/{name}", content) for name, content in (listed | others).items()])


def old_format(pickled):
    """Make a file as PyTorch's before version 1.6."""
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
    """Save a tensor that is no plain array."""
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
    """Make a file as PyTorch's before version 0.1.10."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../../escaped"):
            content = pickle.dumps(Payload())
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def torch_threats():
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


# ONNX


def graph(nodes, stored=(), x=("n", 3), y=("n", None), opset=17, functions=()):
    """Make a model of lines ``operator inputs > outputs``, of nodes, and of stored arrays."""
    from onnx import TensorProto, helper, numpy_helper

    made = []
    for line in nodes:
        if isinstance(line, str):
            (kind, *inputs), outputs = (side.split() for side in line.split(">"))
            line = helper.make_node(kind, inputs, outputs)
        made.append(line)
    tensors = [
        item if hasattr(item, "dims") else numpy_helper.from_array(np.asarray(item), name)
        for name, item in dict(stored).items()
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)]
        for name, shape in (("x", x), ("y", y))
    ]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("f", 1)]
    content = helper.make_graph(made, "g", *ends, tensors)
    return helper.make_model(content, opset_imports=opsets, functions=functions, ir_version=8)


def node(kind, inputs="x", outputs="y", **attributes):
    """Make a node with attributes."""
    from onnx import helper

    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def function(name, called, times=1):
    """Make a function of a model that calls another one several times."""
    from onnx import helper

    domain = "" if called == "Relu" else "f"
    inner = [
        helper.make_node(called, [f"a{n}"], [f"a{n + 1}"], domain=domain) for n in range(times)
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a0"], [f"a{times}"], inner, opsets)


def calling(*functions):
    """Make a model that calls a function A."""
    return graph([node("A", domain="f")], functions=[function(*given) for given in functions])


def images(*args, **attributes):
    """Make a model of one node that reads images."""
    kernel = {"W": np.ones((4, 3, 3, 3))}
    return graph([node(*args, **attributes)], kernel, ("n", 3, 8, 8), ("n", "c", "h", "w"))


def times(kind=11, dims=(3, 4), raw=DATA, **fields):
    """Make a product with a stored tensor of any kind and content."""
    from onnx import TensorProto

    fields |= {} if raw is None else {"raw_data": raw}
    weights = TensorProto(name="W", dims=dims, data_type=kind, **fields)
    return graph(["MatMul x W > y"], {"W": weights})


def folded(operator, *arrays, **attributes):
    """Make a sum of the input and of what an operator makes of stored arrays."""
    names = [f"c{n}" for n in range(len(arrays))]
    made = node(operator, " ".join(names), "c", **attributes)
    return graph([made, "Add x c > y"], zip(names, arrays, strict=True))


def chain(kind, length):
    """Write a chain of one operator."""
    names = ["x", *(f"t{n}" for n in range(1, length)), "y"]
    return [f"{kind} {names[n]} > {names[n + 1]}" for n in range(length)]


def numbers(*values):
    """Make an array of whole numbers."""
    return np.array(values, np.int64)


def sums_of_sums(length):
    """Write sums that share one product of weights, through an activation each."""
    nodes = ["MatMul x W > t", "Relu x > s0"]
    for k in range(length):
        nodes += [f"Elu t > u{k}", f"Add x u{k} > v{k}", f"Add s{k} v{k} > s{k + 1}"]
    return graph([*nodes, f"Relu s{length} > y"], {"W": np.ones((300, 300))}, ("n", 300))


def onnx_graphs():
    """List functions that make a model, by name."""
    dense, wide = "MatMul x W > a", {"W": np.ones((300, 300))}
    nested = [n for k in range(900) for n in (f"Tanh t{k} > u{k}", f"Add x u{k} > t{k + 1}")]
    residual = [n for k in range(300) for n in (f"Tanh t{k} > u{k}", f"Add t{k} u{k} > t{k + 1}")]
    before = [f"Add t{n} t{n + 1} > t{n + 2}" for n in range(60)]
    again = [f"MatMul t{n} W > t{n + 1}" for n in range(1000)]
    negated = [f"Neg c{n} > c{n + 1}" for n in range(5000)]
    norm = "BatchNormalization a s s s v > y"
    tall, flat = np.ones((10**5, 1)), np.ones((1, 10**5))
    many = numbers(10**6, 10**6)
    fan = [("A", "B0", 10), *((f"B{n}", f"B{n + 1}", 10) for n in range(12)), ("B12", "Relu", 1)]
    return {
        "cycle": lambda: graph(["Add x b > a", "Relu a > b", "Relu b > y"]),
        "input that there is not": lambda: graph(["Add x nowhere > y"]),
        "output that there is not": lambda: graph(["Relu x > z"]),
        "one output twice": lambda: graph(["Relu x > y", "Tanh x > y"]),
        "no nodes": lambda: graph([]),
        "operator that there is not": lambda: graph(["Shell x > y"]),
        "domain that there is not": lambda: graph([node("Relu", domain="os")]),
        "operator set -1": lambda: graph(["Relu x > y"], opset=-1),
        "function of itself": lambda: calling(("A", "A")),
        "functions of each other": lambda: calling(("A", "B"), ("B", "A")),
        "functions of functions": lambda: calling(*fan),
        "sums of the two before": lambda: graph(
            ["Relu x > t0", "Tanh x > t1", *before, "Relu t61 > y"]
        ),
        "sums in sums": lambda: graph(["Relu x > t0", *nested, "Relu t900 > y"]),
        "weights in a thousand sums": lambda: sums_of_sums(1000),
        "weights a thousand times": lambda: graph(
            ["Relu x > t0", *again, "Relu t1000 > y"], wide, ("n", 300)
        ),
        "thirty thousand nodes": lambda: graph(chain("Tanh", 30_000)),
        "a thousand operators without a name": lambda: graph(chain("Exp", 1000)),
        "five thousand on stored tensors": lambda: graph(
            [*negated, "Add x c5000 > y"], {"c0": B[:3]}
        ),
        "sum of a row and a column": lambda: folded("Add", tall, flat),
        "squares of squares": lambda: graph(
            [*(f"Mul c{n} r > c{n + 1}" for n in range(40)), "Add x c40 > y"],
            {"c0": np.ones((3000, 1)), "r": np.ones((1, 3000))},
        ),
        "ConstantOfShape": lambda: folded("ConstantOfShape", many),
        "Range": lambda: folded("Range", numbers(0)[0], numbers(10**12)[0], numbers(1)[0]),
        "Expand": lambda: folded("Expand", B[:1], many),
        "Tile": lambda: folded("Tile", B[:1], numbers(10**12)),
        "Pad": lambda: folded("Pad", B[:1], many),
        "Cast to text": lambda: folded("Cast", B[:3], to=8),
        "Cast to nothing": lambda: folded("Cast", B[:3], to=99),
        "Reshape to what does not fit": lambda: folded("Reshape", B[:3], numbers(-1, -1)),
        "Reshape to a hundred dimensions": lambda: folded("Reshape", B[:1], numbers(*[1] * 100)),
        "division by zero": lambda: folded("Div", B[:3], np.zeros(3)),
        "Constant of text": lambda: graph(
            [node("Constant", "", "c", value_string="a"), "Add x c > y"]
        ),
        "Constant in another file": lambda: graph(
            [node("Constant", "", "c", value=outside(location="/etc/passwd")), "Add x c > y"]
        ),
        "stride of zero": lambda: images("MaxPool", kernel_shape=[2, 2], strides=[0, 0]),
        "stride of zero, same padding": lambda: images(
            "Conv", "x W", strides=[0, 0], auto_pad="SAME_UPPER"
        ),
        "one stride": lambda: images("Conv", "x W", strides=[1]),
        "three pads": lambda: images("Conv", "x W", pads=[1, 1, 1]),
        "negative pads": lambda: images("Conv", "x W", pads=[-1, -1, -1, -1]),
        "padding that there is not": lambda: images("Conv", "x W", auto_pad="SAME"),
        "groups of zero": lambda: images("Conv", "x W", group=0),
        "window of zero": lambda: images("AveragePool", kernel_shape=[0, 0]),
        "axis 10**9": lambda: images("Softmax", axis=10**9),
        "axis 10**9 + 1": lambda: images("Softmax", axis=10**9 + 1),
        "axis of a number": lambda: graph([node("Flatten", axis=1)], x=(), y=("n", "k")),
        "Gemm of NaN": lambda: graph([node("Gemm", "x W", alpha=float("nan"))], {"W": W.T}),
        "Gemm without weights": lambda: graph([node("Gemm", "x")]),
        "Gemm of images": lambda: graph([node("Gemm", "x W")], {"W": np.ones((1, 3, 4))}),
        "norm of other features": lambda: graph(
            [dense, norm], {"W": W.T, "s": np.ones(7), "v": np.ones(7)}
        ),
        "norm of negative variance": lambda: graph([dense, norm], {"W": W.T, "s": B, "v": -B}),
        "products that are no gate": lambda: graph(
            ["MatMul x W > a", "Tanh x > b", "Mul a b > y"], {"W": np.ones((3, 3))}
        ),
        "weights of text": lambda: times(8, raw=None, string_data=[b"1"] * 12),
        "weights of complex numbers": lambda: graph(["MatMul x W > y"], {"W": W.T + 1j}),
        "weights of NaN": lambda: graph(["MatMul x W > y"], {"W": W.T * np.nan}),
        "weights of 10**18 numbers": lambda: times(dims=(10**9, 10**9)),
        "weights whose product overflows": lambda: times(dims=(2**32, 2**32), raw=b""),
        "weights of negative size": lambda: times(dims=(-3, -4)),
        "weights of more bytes": lambda: times(dims=(3, 3)),
        "weights of another type": lambda: times(77),
        "weights of two kinds": lambda: times(double_data=[1.0]),
        "good: number added to 10**12 features": lambda: graph(
            ["Add x c > y"], {"c": B[1:2]}, ("n", 10**12), ("n", 10**12)
        ),
        "good: three hundred residual sums": lambda: graph(
            ["Relu x > t0", *residual, "Relu t300 > y"]
        ),
        "window of 2**62": lambda: images("MaxPool", kernel_shape=[2**62, 2**62]),
        "good: window of 10**9": lambda: images("MaxPool", kernel_shape=[10**9, 10**9]),
        "blocks of 2**32": lambda: images("DepthToSpace", blocksize=2**32),
        "shape of three bytes": lambda: graph(
            [
                node("Constant", "", "s", value=times(7, (1,), b"abc").graph.initializer[0]),
                "Reshape x s > y",
            ]
        ),
        "good: dense": lambda: times(),
    }


def outside(**entries):
    """Make a stored tensor in another file."""
    from onnx import TensorProto

    stored = TensorProto(name="W", dims=[3, 4], data_type=11, data_location=TensorProto.EXTERNAL)
    for key, value in {"offset": 0, "length": 96, **entries}.items():
        stored.external_data.add(key=key, value=str(value))
    return stored


def beside(path, entries, n_tensors=1):
    """Make a model whose weights are in another file, and files of all kinds beside it."""
    folder = path.parent
    (folder / "weights").write_bytes(DATA * 10**5)
    (folder.parent / "secret").write_bytes(DATA)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zeros").symlink_to("/dev/zero")
    (folder / "link").symlink_to("../secret")
    stored = {f"W{n}": outside(**entries) for n in range(n_tensors)}
    for name, item in stored.items():
        item.name = name
    return graph(["MatMul x W0 > y"], stored).SerializeToString()


def field(number, content):
    """Write a field of a protobuf message."""
    size, header = len(content), bytes([number << 3 | 2])
    while size >= 128:
        header, size = header + bytes([size & 127 | 128]), size >> 7
    return header + bytes([size]) + content


def onnx_threats():
    """List models, by name."""
    places = {
        "/etc/passwd": {"location": "/etc/passwd"},
        "another folder": {"location": "../secret"},
        "another folder by a detour": {"location": "folder/../../secret"},
        "a file behind a link": {"location": "link"},
        "a folder": {"location": "folder"},
        "a pipe": {"location": "pipe"},
        "a device": {"location": "zeros"},
        "no file": {"location": "nowhere"},
        "a name with a zero": {"location": "a\0b"},
        "a name of ten thousand letters": {"location": "n" * 10_000},
        "10**15 bytes": {"location": "weights", "length": 10**15},
        "2**64 bytes": {"location": "weights", "length": 2**64},
        "fewer than no bytes": {"location": "weights", "length": -1},
        "bytes before the first": {"location": "weights", "offset": -96},
        "many bytes": {"location": "weights", "length": "many"},
    }
    deep = b""
    for _ in range(400):
        deep = field(1, field(5, field(6, deep)))
    graphs = {
        "no graph": b"",
        "zeros": bytes(100),
        "text": b"import os",
        "a million nodes": field(7, field(1, b"") * 10**6),
        "a million attributes": field(7, field(1, field(5, b"") * 10**6)),
        "a million stored tensors": field(7, field(5, b"") * 10**6),
        "names that are no Unicode": field(7, field(2, b"\xff\xfe") + field(1, field(1, b"\xff"))),
        "branches in branches": field(7, deep),
    }
    whole_file = {"location": "weights", "length": 96 * 10**5}
    return {
        **{
            name: lambda _, make=make: make().SerializeToString()
            for name, make in onnx_graphs().items()
        },
        **{
            f"weights in {name}": lambda path, entries=entries: beside(path, entries)
            for name, entries in places.items()
        },
        **{name: b"\x08\x08" + content for name, content in graphs.items()},
        "one file for a thousand tensors": lambda path: beside(path, whole_file, 1000),
        "good: weights beside the model": lambda path: beside(path, {"location": "weights"}),
        "half a file": lambda _: times().SerializeToString()[:100],
    }


def no_file(path, what):
    """Put something else than a file."""
    match what:
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a link to nothing":
            path.symlink_to("nowhere")
        case _:
            path.touch()
            os.truncate(path, 2**40)


def threats(kind):
    """List the threats of a format: bytes by name, or a function that is given the path.

    Those that begin with "good" must be read, the others refused; "slow" ones take a second or
    more to make.
    """
    listed = {
        "npz": npz_threats,
        "saved network": saved_network_threats,
        "safetensors": safetensors_threats,
        "PyTorch": torch_threats,
        "ONNX": onnx_threats,
    }[kind]()
    others = ("a folder", "a pipe", "a device", "a link to nothing", "a terabyte of nothing")
    return listed | {what: lambda path, what=what: no_file(path, what) for what in others}


def write(threat, path):
    """Write the file of a threat."""
    content = threat(path) if callable(threat) else threat
    if content is not None:
        path.write_bytes(content)


# Good files, and how they are spoilt


def network_saved(listed, suffix):
    """Save a network; give the bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"network{suffix}")
        Network(listed).save(path, metadata={"epochs": 3})
        return path.read_bytes()


def good_files(kind):
    """Make good files of a format."""
    rng = np.random.default_rng(0)
    square, kernel = rng.normal(size=(4, 4)), rng.normal(size=(4, 3, 3, 3))
    arrays = {"0.weight": W, "0.bias": B, "2.weight": rng.normal(size=(2, 4)), "2.bias": B[:2]}
    if kind == "npz":
        return [saved(np.savez, **arrays), saved(np.savez_compressed, **arrays)]
    if kind == "saved network":
        branch = [layers.Dense(square), layers.RMSNorm(B)]
        pool = [layers.MaxPool2d(2), layers.AvgPool2d(), layers.Flatten()]
        attention = layers.Attention(*[square] * 4, n_heads=2, mask="causal")
        networks = [
            [layers.Dense(W, B), layers.LayerNorm(B, B), layers.Residual(branch)],
            [layers.Conv2d(kernel, padding=1), layers.BatchNorm(B, B + 1), *pool],
            [attention, layers.GatedDense(square, square), layers.Activation("gelu")],
        ]
        return [network_saved(listed, ".npz") for listed in networks]
    if kind == "safetensors":
        from safetensors.numpy import save

        halves = {name: array.astype(np.float16) for name, array in arrays.items()}
        return [save(arrays), save(halves), network_saved([layers.Dense(W, B)], ".safetensors")]
    if kind == "PyTorch":
        import torch

        weights = {name: torch.tensor(array) for name, array in arrays.items()}
        nested = {"model": weights, "epoch": 3, "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}}
        old = torch_file(weights, _use_new_zipfile_serialization=False)
        return [torch_file(weights), torch_file(nested), old]
    gated = ["MatMul x W > a", "Add a b > c", "Sigmoid c > s", "Mul c s > d", "Add d a > e"]
    convolution = [
        node("Conv", "x K", "a", pads=[1, 1, 1, 1]),
        "BatchNormalization a b b b v > c",
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
        "GlobalAveragePool d > e",
        node("Constant", "", "two", value_float=2.0),
        node("Cast", "two", "double", to=11),
        "Flatten e > f",
        "Mul f double > g",
        node("Gemm", "g V b", "y", transB=1),
    ]
    stored = {"K": kernel, "V": square, "b": B, "v": B + 1}
    models = [
        graph([*gated, "Relu e > y"], {"W": W.T, "b": B}),
        graph(convolution, stored, ("n", 3, 8, 8)),
        calling(("A", "Relu", 3)),
    ]
    return [model.SerializeToString() for model in models]


def spoilt_bytes(content, others, rng):
    """Change some bytes."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place, size = int(rng.integers(len(content) + 1)), int(2 ** rng.integers(0, 8))
        other = others[rng.integers(len(others))]
        match rng.integers(8):
            case 0 if place < len(content):
                content[place] ^= 1 << rng.integers(8)
            case 1 if place < len(content):
                content[place] = rng.choice([0, 1, 127, 128, 255])
            case 2:
                content[place:place] = rng.bytes(size)
            case 3:
                del content[place : place + size]
            case 4:
                content[place:place] = content[place : place + size]
            case 5:
                width = int(rng.choice([2, 4, 8]))
                number = NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * width)
                content[place : place + width] = number.to_bytes(width, "little")
            case 6 if rng.integers(4) == 0:
                del content[place:]
            case _:
                start = rng.integers(len(other) + 1)
                content[place : place + size] = other[start : start + size]
    return bytes(content)


def spoilt_member(content, others, rng):
    """Change a member of a zip file, mostly its bytes; the file is then whole again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        listed = [(name, archive.read(name)) for name in archive.namelist()]
    # The last member is the header of a saved network, the first the pickle of PyTorch's file.
    place = int(rng.choice([0, -1, rng.integers(len(listed))]))
    name, member = listed[place]
    match rng.integers(10):
        case 0:
            del listed[place]
        case 1:
            listed.append((name, listed[rng.integers(len(listed))][1]))
        case 2:
            other = spoilt_bytes(name.encode(), [b"../__jacrot__.npy"], rng)
            listed[place] = other.decode("latin1").replace("\0", "0") or "empty", member
        case _:
            listed[place] = name, spoilt_bytes(member, [other for _, other in listed], rng)
    return zipped(listed)


def spoilt_json(value, rng, odds):
    """Change some parts of what JSON holds."""
    if rng.random() < odds:
        texts = ["", "relu", "0.weight", "Dense", "Sequential", "Function", "identity", "causal"]
        choices = [None, True, *texts, [], {}, [value] * 2, {"array": "0.bias"}, {"layer": "Dense"}]
        choices += [0.5, -1.0, 1e308, float("nan"), float("inf"), "9" * 400, 10**400, *NUMBERS]
        return choices[rng.integers(len(choices))]
    if isinstance(value, list):
        items = [spoilt_json(item, rng, odds) for item in value]
        return items[::-1] if rng.random() < odds else items
    if isinstance(value, dict):
        items = {key: spoilt_json(item, rng, odds) for key, item in value.items()}
        if items and rng.random() < odds:
            name = str(rng.choice(list(items)))
            items[name] = items.pop(next(iter(items)))
        return items
    return value


def spoilt_network(content, others, rng):
    """Change the header of a saved network."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    text = json.dumps(spoilt_json(json.loads(str(arrays["__jacrot__"])), rng, 0.04))
    if rng.random() < 0.2:
        text = spoilt_bytes(text.encode(), [text.encode()], rng).decode("latin1")
    return saved(np.savez, **arrays | {"__jacrot__": text})


def spoilt_header(content, others, rng):
    """Change the header of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header and rng.integers(2):
        text = header["__metadata__"]["__jacrot__"]
        header["__metadata__"]["__jacrot__"] = json.dumps(spoilt_json(json.loads(text), rng, 0.04))
        return tensors_file(header, content[end:])
    return tensors_file(spoilt_json(header, rng, 0.05), content[end:])


def spoilt_message(content, others, rng):
    """Change some fields of a protobuf message."""
    import onnx

    model = onnx.load_model_from_string(content)
    for _ in range(rng.integers(1, 4)):
        spoil_field(model.graph, rng)
    return model.SerializeToString()


def spoil_field(message, rng):
    """Change a field of a message, or of one inside it."""
    fields = message.ListFields()
    if not fields:
        return
    descriptor, value = fields[rng.integers(len(fields))]
    repeated = hasattr(value, "append")
    place = int(rng.integers(len(value))) if repeated else 0
    if descriptor.message_type is None:
        words = "x y a W Add Cast Reshape MatMul Mul Softmax Transpose Flatten Clip SAME_UPPER"
        old = value[place] if repeated else value
        new = NUMBERS[rng.integers(len(NUMBERS))]
        if isinstance(old, str):
            new = str(rng.choice([*words.split(), "ReduceMean", "AveragePool", ""]))
        elif isinstance(old, bytes):
            new = spoilt_bytes(old, [DATA], rng)
        elif descriptor.enum_type is not None:
            new = int(rng.choice(list(descriptor.enum_type.values_by_number)))
        elif descriptor.cpp_type != descriptor.CPPTYPE_INT64:
            new = new % 2**31
        if repeated:
            value[place] = new
        else:
            setattr(message, descriptor.name, new)
    elif repeated and rng.random() < 0.2:
        value.append(value[place])
        del value[int(rng.integers(len(value)))]
    else:
        spoil_field(value[place] if repeated else value, rng)


SPOILERS = {
    "npz": (spoilt_bytes, spoilt_member, spoilt_member),
    "saved network": (spoilt_bytes, spoilt_member, spoilt_network, spoilt_network),
    "safetensors": (spoilt_bytes, spoilt_header, spoilt_header),
    "PyTorch": (spoilt_bytes, spoilt_member, spoilt_member),
    "ONNX": (spoilt_bytes, spoilt_message, spoilt_message),
}


def spoilt(kind, goods, rng):
    """Make a good file into one that may be bad."""
    content = goods[rng.integers(len(goods))]
    spoiler = SPOILERS[kind][rng.integers(len(SPOILERS[kind]))]
    if spoiler is spoilt_member and content[:2] != b"PK":
        spoiler = spoilt_bytes
    return spoiler(content, goods, rng)


# The process that reads

OURS = (ValueError, TypeError, FileNotFoundError)
WATCHED = ("os.", "subprocess.", "socket.", "shutil.", "pickle.find_class", "pty.")
# A link is looked at, and so is whether something is a file.
HARMLESS = ("os.listdir", "os.scandir")


def answer(function, *args, **kwargs):
    """Call a reader; say whether it read, refused, or raised another error, and what it gave."""
    try:
        return "read", function(*args, **kwargs)
    except Exception as error:
        if type(error) in OURS and repr(str(args[0])) in str(error):
            return "refused", str(error)
        place = traceback.extract_tb(error.__traceback__)[-1]
        return type(error).__name__, f"{Path(place.filename).name}:{place.lineno}: {error!s:.300}"


def read_file(path):
    """List and load a file; give the answer to the latter, or an error that is not ours."""
    listed, loaded = answer(list_arrays, path), answer(load, path)
    answers = [listed, loaded]
    if path.suffix in (".npz", ".safetensors"):
        answers.append(answer(metadata, path))
    if (listed[0], loaded[0]) == ("read", "refused") and path.suffix != ".onnx":
        answers.append(answer(load, path, names=list(listed[1])[:2]))
    foreign = [given for given in answers if given[0] not in ("read", "refused")]
    return [*foreign, loaded][0]


def work(folder):
    """Read the files whose paths come in, one a line; answer each with a line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    os.chdir(folder)
    events, watching = [], False
    code = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), "/proc/self")

    def watch(event, args):
        if not watching:
            return
        if event == "open":
            path, mode, flags = args[0], args[1] or "", args[2] or 0
            writes = set("wax+") & set(mode) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            known = isinstance(path, int) or os.path.realpath(path).startswith((folder, *code))
            if writes or not known:
                events.append(f"open {path!r} {mode}")
        elif event.startswith(WATCHED) and event not in HARMLESS:
            events.append(f"{event} {args!r}"[:200])

    sys.addaudithook(watch)
    # Native code may print.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        path = Path(json.loads(line))
        # The largest resident size starts again at the present one.
        Path("/proc/self/clear_refs").write_text("5")
        events.clear()
        begin, watching = time.perf_counter(), True
        outcome, given = read_file(path)
        seconds, watching = time.perf_counter() - begin, False
        peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
        answers.write(json.dumps([outcome, f"{given!s:.400}", seconds, int(peak) / 1e3, events]))
        answers.write("\n")


class Worker:
    """The process that reads, as seen from here."""

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        """Start the process."""
        settings = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | settings,
        )

    def prepare(self, kind):
        """Have the process import what a format needs."""
        path = self.folder / f"first{SUFFIXES[kind]}"
        path.write_bytes(good_files(kind)[0])
        outcome, given, *_ = self.ask(path, limit=120)
        if outcome != "read":
            raise RuntimeError(f"a good file of {kind} gives {outcome}: {given}")

    def ask(self, path, limit=SECONDS):
        """Have a file read; give what the process answers, or why it does not."""
        self.process.stdin.write(f"{json.dumps(str(path))}\n".encode())
        self.process.stdin.flush()
        begin, statm = time.perf_counter(), Path(f"/proc/{self.process.pid}/statm")
        while not select.select([self.process.stdout], [], [], 0.02)[0]:
            taken = int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6
            seconds = time.perf_counter() - begin
            if taken > CEILING or seconds > limit:
                self.end()
                return ["memory" if taken > CEILING else "hang", "", seconds, taken, []]
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.end()
        return ["crash", signal.Signals(-code).name if code < 0 else str(code), 0.0, 0.0, []]

    def end(self):
        """End the process."""
        self.process.stdin.close()
        self.process.kill()
        self.process.stdout.close()
        return self.process.wait()


def cases(kind, n_files, quick, rng):
    """Yield names and contents: every threat, then spoilt files."""
    listed = list(threats(kind).items())
    if quick:
        listed = [(name, threat) for name, threat in listed if not name.startswith("slow")]
        chosen = rng.choice(len(listed), min(n_files, len(listed)), replace=False)
        listed = [listed[place] for place in sorted(chosen)]
    yield from listed
    goods = good_files(kind)
    for number in range(n_files - len(listed)):
        yield f"spoilt {number}", spoilt(kind, goods, rng)


def run(worker, kind, n_files, quick, seed, keep):
    """Have many files of a format read; give the row of the table and what went wrong."""
    folder = worker.folder
    rng = np.random.default_rng([seed, list(SUFFIXES).index(kind)])
    counts, foreign, wrong, slowest, highest = Counter(), Counter(), [], 0.0, 0.0
    worker.prepare(kind)
    for number, (name, threat) in enumerate(cases(kind, n_files, quick, rng)):
        place = folder / str(number)
        place.mkdir()
        path = place / f"model{SUFFIXES[kind]}"
        write(threat, path)
        outcome, given, seconds, megabytes, events = worker.ask(path)
        slowest, highest = max(slowest, seconds), max(highest, megabytes)
        if outcome in ("read", "refused", "crash", "hang", "memory"):
            counts[outcome] += 1
        else:
            foreign[outcome] += 1
        expected = "read" if name.startswith("good") else "refused"
        failures = {
            "unexpected": outcome != expected and not name.startswith("spoilt"),
            "hang": outcome == "read" and seconds > SECONDS,
            "memory": outcome in ("read", "refused") and megabytes > MEGABYTES,
            "executed": bool(events) or (folder / "executed").exists(),
        }
        counts.update(failure for failure, there in failures.items() if there)
        if any(failures.values()) or outcome not in ("read", "refused"):
            facts = f"{seconds:.1f} s, {megabytes:.0f} MB, {events}"
            wrong.append(f"{kind}, {number}, {name}: {outcome}, {facts}: {given}")
            if keep is not None and path.is_file():
                keep.mkdir(exist_ok=True)
                shutil.copy(path, keep / f"{kind} {number}{path.suffix}")
        if outcome in ("crash", "hang", "memory"):
            worker.start()
            worker.prepare(kind)
        shutil.rmtree(place)
    errors = ", ".join(f"{count} {error}" for error, count in foreign.items())
    failures = [counts[name] for name in ("unexpected", "crash", "hang", "memory", "executed")]
    row = [kind, number + 1, counts["read"], counts["refused"], errors or 0, *failures]
    return [*row, f"{slowest:.2f}", f"{highest:.0f}"], wrong


def main(argv=None):
    """Print the table; leave with status 1 if anything went wrong."""
    arguments = options(
        __doc__.splitlines()[0],
        argv,
        files={"type": int, "default": 10_000, "help": "how many, of all formats together"},
        seed={"type": int, "default": 0, "help": "of the random changes"},
        formats={"nargs": "+", "choices": list(SUFFIXES), "default": list(SUFFIXES)},
        keep={"type": Path, "help": "folder for the files that went wrong"},
        work={"help": "folder of files to read, as the process does that this script starts"},
    )
    if arguments.work is not None:
        work(arguments.work)
        return
    rows, wrong = [], []
    quick, keep = arguments.quick, arguments.keep
    n_files = (100 if quick else arguments.files) // len(arguments.formats)
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder).resolve())
        for kind in arguments.formats:
            package = PACKAGES.get(kind, "numpy")
            if find_spec(package) is None:
                rows.append([kind, f"{package} is not installed", *[""] * 9, "-"])
                continue
            row, failures = run(worker, kind, n_files, quick, arguments.seed, keep)
            rows.append(row)
            wrong += failures
        worker.end()
    print(machine())
    header = ["format", "files", "read", "refused", "foreign errors", "not as expected", "crashes"]
    header += [f"> {SECONDS} s", f"> {MEGABYTES} MB", "executed", "slowest s", "peak MB"]
    table("Hostile files, and what the readers answer", header, rows)
    for line in wrong[:100]:
        print(line)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
