"""NumPy's ``.npz`` files, never with pickle."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jacrot.layers.described import FORMAT, HEADER, restored
from jacrot.network import Network
from jacrot.readers._names import selected
from jacrot.weights import ActivationLike, Layout

# What numpy, zipfile and zlib raise for damaged, encrypted, oddly packed and pickled content.
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def load(
    path: Path, activation: ActivationLike, layout: Layout, names: Sequence[str] | None = None
) -> Network:
    """Read a network from an ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    activation, layout, names
        See :func:`jacrot.readers.load`.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError
        If the file is not an ``.npz`` file, is damaged, holds pickled objects, or its arrays are
        not those of dense layers that chain.
    """
    _check_zip(path)
    if names is not None:
        names = selected(names, list_arrays(path), path)
    arrays: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if names is None or name in (*names, HEADER):
                    arrays[name] = file[name]
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    header = arrays.pop(HEADER, None)
    if header is None:
        return Network({name: arrays[name] for name in names or arrays}, activation, layout)
    if activation != "relu" or layout != "out_in" or names is not None:
        raise ValueError(
            f"path={str(path)!r} was written by Network.save and knows its layers and activations; "
            "leave activation and layout out, and names too."
        )
    return _saved_network(arrays, str(header), str(path))


def list_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """List the shapes and dtypes in an ``.npz`` file, from the head of every array.

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
    _check_zip(path)
    listed = {}
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.namelist():
                with file.open(member) as array:
                    head = np.lib.format
                    read = {
                        (1, 0): head.read_array_header_1_0,
                        (2, 0): head.read_array_header_2_0,
                    }[head.read_magic(array)]
                    shape, _, dtype = read(array)
                listed[member.removesuffix(".npy")] = shape, str(dtype)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    listed.pop(HEADER, None)
    return listed


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"path={str(path)!r} cannot be read without pickle, or is damaged ({error}); write plain "
        "numeric arrays with numpy.savez."
    )


def _check_zip(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"path={str(path)!r} is not an .npz file; write one with numpy.savez or Network.save."
        )


def _saved_network(arrays: dict[str, Any], header: str, path: str) -> Network:
    try:
        description = json.loads(header)
        if description["format"] == FORMAT:
            layers = [restored(layer, arrays) for layer in description["layers"]]
            return Network(layers)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"path={path!r} has a header but is not a network that Network.save wrote "
            f"({type(error).__name__}: {error}); write it again with Network.save."
        ) from error
    raise ValueError(
        f"path={path!r} has format {description['format']!r}, which this version does not read; it "
        f"reads {FORMAT!r}."
    )
