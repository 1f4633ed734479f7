"""Archives of arrays with a description, as ``.npz`` or ``.safetensors`` and never with pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jacrot._io.files import atomic_write
from jacrot._utils.optional import import_optional

# Name of the entry that holds the description.
HEADER = "__jacrot__"
SUFFIXES = (".npz", ".safetensors")


def write(path: str | os.PathLike[str], description: Any, arrays: dict[str, Any]) -> None:
    """Write arrays and their description to a file, atomically.

    Parameters
    ----------
    path : str or path-like
        The file; its suffix determines the format.
    description : object
        JSON-serialisable description.
    arrays : dict of ndarray
        The arrays by name.

    Raises
    ------
    ImportError
        If the package that writes the format is not installed.
    OSError
        If the file cannot be written: see :func:`jacrot._io.files.atomic_write`.
    ValueError
        If the suffix is not supported, or `path` is a folder, a device, a pipe or a socket.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path={str(path)!r} must end in '.npz' or '.safetensors'.")
    header = json.dumps(description)
    # safetensors writes the memory of an array regardless of its strides.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with atomic_write(path) as file:
        if path.suffix == ".npz":
            arrays[HEADER] = np.array(header)
            np.savez(file, **arrays)
        else:
            numpy = import_optional("safetensors.numpy", "save", "safetensors")
            file.write(numpy.save(arrays, {HEADER: header}))
