"""Values and containers of which hostile files are made."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np

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
    """Build a zip file of names and bytes, in which names may come twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def listing(names, content=b"", declared=None, method=0, flags=0):
    """Build a zip file whose list has many entries of one member, with any declared size."""
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
