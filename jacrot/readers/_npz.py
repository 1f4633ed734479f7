"""Reading ``.npz`` files, never with pickle."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._io.archive import HEADER
from jacrot.readers._limits import check_size, count_bytes
from jacrot.readers._names import select_names

# Limit for the bytes that are read in one piece, for which Python needs ten times the memory: the
# list of members (here of twenty thousand arrays) and the description of a saved network (here of
# three thousand layers).
LONGEST = 2**21
# Errors of zipfile, zlib and numpy for damaged, encrypted, unusually packed and pickled content.
# Python's parser raises MemoryError and RecursionError, a RuntimeError, for too many brackets.
UNREADABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read(
    path: Path, names: Sequence[str] | None = None
) -> tuple[str | None, dict[str, NDArray[Any]]]:
    """Read an ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str, default=None
        Arrays to read, ``None`` for all.

    Returns
    -------
    header : str or None
        Description of a saved object, ``None`` for a file of plain arrays.
    arrays : dict of ndarray
        The arrays by name.

    Raises
    ------
    ValueError
        If the file is not an ``.npz`` file, is damaged, or contains pickled objects.
    """
    with _open_npz(path) as (file, members):
        description = members.pop(HEADER, None)
        arrays = {
            name: _read_array(file, members[name], path)
            for name in select_names(names, members, path)
        }
        header = None
        if description is not None:
            if description.file_size > LONGEST:
                raise _unreadable_error(path, f"a header of {description.file_size:,} bytes")
            header = _decode_text(_read_array(file, description, path), path)
    n_bytes = sum(count_bytes(array.shape, array.itemsize) for array in arrays.values())
    check_size(n_bytes, path.stat().st_size, f"path={str(path)!r}")
    return header, arrays


def list_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """List the shapes and dtypes in an ``.npz`` file, from the header of every array.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to (tuple of int, str)
        Shape and dtype by name.

    Raises
    ------
    ValueError
        If the file is not an ``.npz`` file or is damaged.
    """
    listed = {}
    with _open_npz(path) as (file, members):
        members.pop(HEADER, None)
        for name, member in members.items():
            try:
                with file.open(member) as stream:
                    shape, _, dtype = read_array_header(stream, member.file_size, member.filename)
            except UNREADABLE as error:
                raise _unreadable_error(path, error) from error
            listed[name] = shape, str(dtype)
    return listed


@contextmanager
def checked_members(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open a zip file, and check that its members can be read safely.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    file : ZipFile
        The file.
    members : dict of str to ZipInfo
        Its members by name.

    Raises
    ------
    ValueError
        If the file is damaged; if two members have the same name, or one is encrypted or packed
        with another method than those of NumPy and PyTorch; if the members are much larger than
        the file.
    """
    with _Bounded(path) as raw:
        try:
            file = zipfile.ZipFile(raw)
        except UNREADABLE as error:
            raise _unreadable_error(path, error) from error
        members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
        if len(members) < len(file.infolist()):
            raise _unreadable_error(path, "two members have one name")
        # Other methods, and encryption, may take unlimited memory or time.
        for name, member in members.items():
            stored = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not stored or member.flag_bits & 1:
                raise _unreadable_error(
                    path, f"{name!r} is encrypted or packed by an unusual method"
                )
        n_bytes = sum(member.file_size for member in members.values())
        check_size(n_bytes, path.stat().st_size, f"path={str(path)!r}")
        yield file, members


class _Bounded(io.FileIO):
    """A file that refuses to read long pieces at once, such as a huge list of members."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LONGEST:
            raise ValueError(f"{size:,} bytes in one piece, more than the limit of {LONGEST:,}")
        # zipfile reads without a size only the end of the file, which is short.
        return super().read(LONGEST if size is None or size < 0 else size)


@contextmanager
def _open_npz(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"path={str(path)!r} is not an .npz file; save one with numpy.savez or Network.save."
        )
    with checked_members(path) as opened:
        yield opened


def read_array_header(
    stream: Any, size: int, name: str
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array in NumPy's format.

    Parameters
    ----------
    stream : file
        File at the begin of the array.
    size : int
        Bytes from there to the end.
    name : str
        Name of the array in the error message.

    Returns
    -------
    shape : tuple of int
        Shape of the array.
    fortran_order : bool
        Whether the first index changes fastest.
    dtype : dtype
        Dtype of the array.

    Raises
    ------
    Exception
        One of `UNREADABLE`, also if the number of remaining bytes is not the declared one.
    """
    formats = np.lib.format
    read = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}
    shape, fortran_order, dtype = read[formats.read_magic(stream)](stream)
    n_bytes = size - stream.tell()
    declared = prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or not (dtype.hasobject or declared == n_bytes):
        raise ValueError(f"{name!r} has {n_bytes:,} bytes for shape {shape} and dtype {dtype}")
    return shape, fortran_order, dtype


def parse_array(content: bytes, name: str) -> NDArray[Any]:
    """Read an array from the bytes of an ``.npy`` file, without a copy of the numbers.

    Parameters
    ----------
    content : bytes
        Content of the file.
    name : str
        Name of the array in the error message.

    Returns
    -------
    ndarray
        The array, read-only.

    Raises
    ------
    Exception
        One of `UNREADABLE`.
    """
    stream = io.BytesIO(content)
    shape, fortran_order, dtype = read_array_header(stream, len(content), name)
    if dtype.hasobject:
        raise ValueError(f"{name!r} contains pickled objects")
    return np.ndarray(shape, dtype, content, stream.tell(), order="F" if fortran_order else "C")


def _read_array(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    try:
        with file.open(member) as stream:
            read_array_header(stream, member.file_size, member.filename)
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except UNREADABLE as error:
        raise _unreadable_error(path, error) from error


def _decode_text(array: NDArray[Any], path: Path) -> str:
    """Decode the text in an array; NumPy itself accepts code points that Python does not have."""
    if array.dtype.kind != "U" or array.ndim:
        raise _unreadable_error(path, f"a header of shape {array.shape} and dtype {array.dtype}")
    try:
        letters = array.astype(array.dtype.newbyteorder("<")).tobytes()
        return letters.decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise _unreadable_error(path, error) from error


def _unreadable_error(path: Path, error: Exception | str) -> ValueError:
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return ValueError(
        f"path={str(path)!r} cannot be read without pickle, or is damaged ({reason}); save plain "
        "numeric arrays with numpy.savez."
    )
