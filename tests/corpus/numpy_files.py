"""Hostile files of NumPy's format."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np

from corpus.parts import COMMAND, DATA, Payload, W, listing, saved, zipped


def npy(shape=(4, 3), descr="<f8", data=DATA, header=None, version=b"\1\0"):
    """Build an array in NumPy's format, with any header."""
    text = header or f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text = f"{text}{' ' * (-(len(text) + 11) % 64)}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def one(content, **kwargs):
    """Build an ``.npz`` file of one member."""
    return zipped([("W.npy", content)], **kwargs)


def zeros_in_megabytes():
    """Build an ``.npz`` file of two gigabytes of zeros, which says so."""
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
    """Build a member for which lzma is to take four gigabytes."""
    content = bytearray(one(npy(), method=zipfile.ZIP_LZMA))
    place = content.index(b"W.npy") + len("W.npy") + 5
    content[place : place + 4] = b"\xff\xff\xff\xf0"
    return bytes(content)


def long_list():
    """Build a zip file that says that its list of members has 2**63 bytes."""
    content = one(npy())
    place = content.rindex(b"PK\5\6")
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 2**63, place)
    return content[:place] + wide + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1) + content[place:]


def npz_cases():
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
