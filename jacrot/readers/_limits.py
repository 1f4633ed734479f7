"""Limits for untrusted files: which files are opened, and how large their arrays may be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from jacrot._utils.text import escape_control_characters

# Limit for the bytes of the arrays of a file, absolute or relative to the bytes of the file. Every
# number counts eight bytes, the most that layers use: 2**24 numbers from any file, and two numbers
# from every byte of a large one. Trained weights hardly compress, pruned weights a few times, while
# deflate can expand one byte to a thousand zeros, and a graph of a hundred bytes can ask for any
# size.
SMALL = 2**27
RATIO = 16
# Characters of an error message. Longer ones quote names from malicious files.
LONGEST_MESSAGE = 2000


def check_readable_file(path: Any, argument: str = "path") -> Path:
    """Check that a path leads to a regular file that can be read.

    Parameters
    ----------
    path : str or path-like
        The value that the user passed.
    argument : str, default="path"
        Its name in error messages.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    TypeError
        If `path` is not a path.
    FileNotFoundError
        If the file does not exist.
    PermissionError
        If the user has no permission to read the file.
    ValueError
        If it is a directory, a pipe or a device, which may never end.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{argument} is a {type(path).__name__}; pass the path of a file.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"path={str(path)!r} does not exist.")
    if not os.path.isfile(path):
        raise ValueError(
            f"path={str(path)!r} is a directory, a pipe or a device; pass the path of a file."
        )
    if not os.access(path, os.R_OK):
        raise PermissionError(
            f"path={str(path)!r} cannot be read by this user; change the permissions of the file."
        )
    return Path(path)


def count_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Compute the bytes of an array, with at least eight bytes for each entry.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    itemsize : int
        Bytes of an entry.

    Returns
    -------
    int
        The bytes, without overflow.
    """
    return prod(shape) * max(itemsize, 8)


def check_size(n_bytes: int, file_size: int, name: str) -> None:
    """Check that arrays are not much larger than the file that contains them.

    Parameters
    ----------
    n_bytes : int
        Bytes of the arrays.
    file_size : int
        Bytes of the file.
    name : str
        Name of the file in the error message.

    Raises
    ------
    ValueError
        If the arrays are too large.
    """
    if n_bytes > max(SMALL, RATIO * file_size):
        raise ValueError(
            f"{name} has {file_size:,} bytes and arrays of {n_bytes:,} bytes, more than the limit "
            f"of {max(SMALL, RATIO * file_size):,}; save the weights without compression, for "
            "instance with numpy.savez."
        )


@contextmanager
def prefix_errors(name: str) -> Iterator[None]:
    """Prefix the errors of a block with the name of the file that it reads.

    Parameters
    ----------
    name : str
        Name of the file in error messages.

    Raises
    ------
    TypeError, ValueError
        Errors of the block, with `name` in the message; RecursionError becomes a ValueError.
    """
    try:
        # Numbers that overflow are not finite, which raises an error later.
        with np.errstate(all="ignore"):
            yield
    except RecursionError as error:
        raise ValueError(f"{name} nests layers too deeply; save a flatter network.") from error
    except (TypeError, ValueError) as error:
        message = str(error).replace("\n", " ")
        message = message if name in message else f"{name}: {message}"
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]} ..."
        # Text from a file may contain control sequences of a terminal.
        message = escape_control_characters(message)
        if message == str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(message) from error
