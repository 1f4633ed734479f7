"""The pickles in PyTorch's files, looked at before they are read."""

from __future__ import annotations

import pickletools
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from jacrot.readers._npz import checked_members

# Operations, and entries of what they make: those of ten thousand tensors.
MOST = 2**19
# PyTorch allows these, which make any number of bytes of a few.
_REFUSED = frozenset({"__builtin__ bytearray", "builtins bytearray", "_codecs encode"})
_IN_PLACE = frozenset({"APPEND", "APPENDS", "BUILD", "SETITEM", "SETITEMS"})


def check_pickles(path: Path) -> None:
    """Check that a file of PyTorch's is one of tensors, and small ones.

    ``torch.load(weights_only=True)`` runs no code of a file, but it follows one that asks for more
    memory or time than there is. Before PyTorch 2.6 it did run code, that in TorchScript archives
    and in tar files.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    ValueError
        If it is a TorchScript archive, a tar file or a damaged zip file, or asks for too much.
    LookupError
        If it is no pickle.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if head[:4] != b"PK\3\4":
            try:
                tarfile.TarInfo.frombuf(head, "utf-8", "replace")
            except tarfile.HeaderError:
                file.seek(0)
                # A magic number, a version, the system, the tensors, the names of the storages.
                for _ in range(5):
                    _check(file)
                return
            raise ValueError("a tar file")
    with checked_members(path) as (archive, members):
        for name, member in members.items():
            if name.endswith("constants.pkl"):
                raise ValueError("a TorchScript archive")
            if name.endswith("data.pkl"):
                _check(BytesIO(archive.read(member)))


def _check(stream: Any) -> None:
    """Count what a pickle makes, shared parts as often as they are met when it is walked through.

    To hash a tuple of a tuple, twice, and so on, would take exponential time.
    """
    # The size of every object, which grows with what is put into it; where the marks are.
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
