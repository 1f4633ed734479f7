"""Arrays of activations from `.npy` and `.npz` files, without pickle and within memory."""

from __future__ import annotations

import hashlib
import os
from math import inf, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jacrot._io.files import check_unchanged
from jacrot._utils.arrays import FEATURES_AXIS, Array, real_array
from jacrot.readers import _npz
from jacrot.readers._limits import check_readable_file


class ReadFile(NamedTuple):
    """A file that was read, and the SHA-256 of its bytes."""

    path: Path
    sha256: str
    # The name of the array that was taken from an .npz file of activations.
    array: str | None = None


def read_array(path: Path, name: str | None, argument: str) -> tuple[Array, ReadFile]:
    """Read an array of rows, sequences or images.

    Nothing of the file is mapped into memory: what happens to it afterwards changes nothing.

    Parameters
    ----------
    path : Path
        The file.
    name : str or None
        The array to take from an ``.npz`` file; ``None`` where it holds one.
    argument : str
        How errors name the file.

    Returns
    -------
    array : ndarray
        Real and finite.
    file : ReadFile
        Where it comes from.

    Raises
    ------
    OSError, TypeError, ValueError
        If there is no such array, or it cannot be used.
    """
    check_readable_file(path, argument)
    shown = f"{argument} {str(path)!r}"
    if is_npz(path):
        with check_unchanged(path, shown) as digest:
            name = _choose_array(path, name, argument)
            shape, dtype = _npz.list_arrays(path)[name]
            _check_memory(shape, np.dtype(dtype), shown)
            array = _npz.read(path, [name])[1][name]
    elif path.suffix.lower() == ".npy":
        array, digest = _read_npy(path, shown)
        name = None
    else:
        raise ValueError(f"{shown} must end in .npy or .npz.")
    rows = real_array(array, argument, ndim=tuple(FEATURES_AXIS))
    return rows, ReadFile(path, digest, name)


def is_npz(path: Path) -> bool:
    """Check whether a file may hold several arrays."""
    return path.suffix.lower() == ".npz"


def _read_npy(path: Path, shown: str) -> tuple[Any, str]:
    """Read a file once, so that array and hash are of the same bytes."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = _npz.read_array_header(
                file, os.fstat(file.fileno()).st_size, path.name
            )
            _check_memory(shape, dtype, shown)
            file.seek(0)
            content = file.read()
        array = _npz.parse_array(content, path.name)
    except _TooLarge:
        raise
    except _npz.UNREADABLE as error:
        raise ValueError(
            f"{shown} is not an .npy file, is damaged, or cannot be read without pickle ({error}); "
            "pass a file that numpy.save wrote."
        ) from error
    return array, hashlib.sha256(content).hexdigest()


def _choose_array(path: Path, name: str | None, argument: str) -> str:
    """Return the name of the array that is asked for, or of the only one."""
    names = list(_npz.list_arrays(path))
    shown = ", ".join([*map(repr, names[:8]), *["..."] * (len(names) > 8)]) or "no array"
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise ValueError(f"{argument} {str(path)!r} holds {shown}; choose one with --array.")
    if name not in names:
        raise ValueError(f"--array {name!r} is not in {argument} {str(path)!r}, with {shown}.")
    return name


class _TooLarge(ValueError):
    """An array does not fit in memory."""


def _check_memory(shape: tuple[int, ...], dtype: np.dtype[Any], shown: str) -> None:
    """Check that the numbers of an array fit in memory, as floats."""
    n_bytes = prod(shape) * (4 if dtype in (np.float16, np.float32) else 8)
    limit = _memory_limit()
    if n_bytes > limit:
        raise _TooLarge(
            f"{shown} has shape {shape}, which takes {n_bytes:,} bytes of memory, and there are "
            f"{limit:,}; pass fewer rows."
        )


def _memory_limit() -> float:
    """Return the bytes of memory that this process may use at most, as far as the system says."""
    try:
        limits: list[float] = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        limits = [inf]
    # Containers limit memory by control groups, of version 2 or version 1.
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path("/sys/fs/cgroup", name).read_text("ascii")))
        except (OSError, ValueError):
            continue
    return min(limits)
