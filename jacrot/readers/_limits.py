"""What is believed of a file: which may be opened, and how much it may make of its bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from jacrot._utils.text import printable

# Bytes of the arrays of one file, and that over the bytes of the file, every number counted as
# eight bytes: layers compute with no more. So 2**24 numbers may come out of any file, and two out
# of every byte of a large one. Trained weights hardly compress, pruned ones a few times, while
# deflate makes a thousand zeros out of a byte, and a graph of a hundred bytes can ask for any size.
SMALL = 2**27
RATIO = 16
# A message with more is about names that nobody wrote.
LONGEST_MESSAGE = 2000


def existing(path: Any, argument: str = "path") -> Path:
    """Check that there is a file, and not a pipe or a device, which may never end.

    Parameters
    ----------
    path : str or path-like
        What the user gave.
    argument : str, default="path"
        Its name in error messages.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    TypeError
        If it is no path.
    FileNotFoundError
        If there is nothing.
    PermissionError
        If it may not be read.
    ValueError
        If it is a directory, a pipe or a device.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{argument} is a {type(path).__name__}; write the path of a file.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"path={str(path)!r} does not exist.")
    if not os.path.isfile(path):
        raise ValueError(
            f"path={str(path)!r} is a directory, a pipe or a device; write the path of a file."
        )
    if not os.access(path, os.R_OK):
        raise PermissionError(
            f"path={str(path)!r} may not be read by this user; change the permissions of the file."
        )
    return Path(path)


def size_of(shape: tuple[int, ...], itemsize: int) -> int:
    """Count the bytes of an array, of eight an entry at least.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    itemsize : int
        Bytes of an entry.

    Returns
    -------
    int
        The bytes, exactly, whatever is declared.
    """
    return prod(shape) * max(itemsize, 8)


def check_size(n_bytes: int, file_size: int, name: str) -> None:
    """Check that arrays are not much larger than the file that they come from.

    Parameters
    ----------
    n_bytes : int
        Bytes of the arrays.
    file_size : int
        Bytes of the file.
    name : str
        The file, for the error.

    Raises
    ------
    ValueError
        If they are.
    """
    if n_bytes > max(SMALL, RATIO * file_size):
        raise ValueError(
            f"{name} has {file_size:,} bytes and asks for arrays of {n_bytes:,}, of which "
            f"{max(SMALL, RATIO * file_size):,} are read; write the weights whole and "
            "uncompressed, with numpy.savez for instance."
        )


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the file in the errors that layers raise about its content.

    Parameters
    ----------
    name : str
        The file, as errors name it.

    Raises
    ------
    TypeError, ValueError
        As the block does, with `name` in the message; ValueError for RecursionError too.
    """
    try:
        # What overflows is refused later, as all that is not finite.
        with np.errstate(all="ignore"):
            yield
    except RecursionError as error:
        raise ValueError(f"{name} nests layers too deep; write a flatter network.") from error
    except (TypeError, ValueError) as error:
        message = str(error).replace("\n", " ")
        message = message if name in message else f"{name}: {message}"
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]} ..."
        # What a file says could command the terminal that shows it.
        message = printable(message)
        if message == str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(message) from error
