"""Checks of the pickles in PyTorch's files before they are read."""

from __future__ import annotations

import pickletools
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from jacrot.readers._npz import checked_members

# Limit for operations, and for entries of the objects that they build: ten thousand tensors.
MOST = 2**19
# PyTorch allows these functions, which build any number of bytes from a few.
_REFUSED = frozenset({"__builtin__ bytearray", "builtins bytearray", "_codecs encode"})
_IN_PLACE = frozenset({"APPEND", "APPENDS", "BUILD", "SETITEM", "SETITEMS"})


def check_pickles(path: Path) -> None:
    """Check that a file of PyTorch contains tensors, and not more than a limit.

    ``torch.load(weights_only=True)`` does not run code of a file, but a file can make it use
    unlimited memory or time. Before PyTorch 2.6 it also ran code in TorchScript archives and in tar
    files.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    ValueError
        If the file is a TorchScript archive, a tar file or a damaged zip file, or exceeds the
        limit.
    LookupError
        If the file is not a pickle.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if head[:4] != b"PK\3\4":
            try:
                tarfile.TarInfo.frombuf(head, "utf-8", "replace")
            except tarfile.HeaderError:
                file.seek(0)
                # Magic number, version, system, tensors, names of the storages.
                for _ in range(5):
                    _check_size(file)
                return
            raise ValueError("a tar file")
    with checked_members(path) as (archive, members):
        for name, member in members.items():
            if name.endswith("constants.pkl"):
                raise ValueError("a TorchScript archive")
            if name.endswith("data.pkl"):
                _check_size(BytesIO(archive.read(member)))


def _check_size(stream: Any) -> None:
    """Check the number of entries of the objects in a pickle, counting shared parts repeatedly.

    Hashing a tuple that contains another one twice, and so on, would take exponential time.
    """
    # Sizes of the objects on the stack, which grow when items are added; positions of the marks.
    number = [1]
    stack: list[list[int]] = []
    marks: list[int] = []
    memo: dict[Any, list[int]] = {}
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        name, before = operation.name, operation.stack_before
        size = 1
        if name == "GLOBAL" and argument in _REFUSED:
            raise ValueError(f"{argument} is not part of tensors")
        if name == "MARK":
            marks.append(len(stack))
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif not before:
            stack += [[1] if name.startswith("EMPTY") else number] * len(operation.stack_after)
        else:
            if pickletools.markobject in before:
                start = marks.pop() - before.index(pickletools.markobject)
            else:
                start = len(stack) - len(before)
            taken = stack[start:]
            del stack[start:]
            size += sum(item[0] for item in taken)
            if name in _IN_PLACE:
                taken[0][0] = size
                stack.append(taken[0])
            else:
                stack += [[size] for _ in operation.stack_after]
        if max(count, size) > MOST:
            raise ValueError(f"more than {MOST:,} entries")
