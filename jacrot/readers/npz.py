"""NumPy's ``.npz`` files, never with pickle."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jacrot.layers.described import FORMAT, HEADER, restored
from jacrot.network import Network
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
    path: str | os.PathLike[str], activation: ActivationLike = "relu", layout: Layout = "out_in"
) -> Network:
    """Read a network from an ``.npz`` file.

    Either a file that :meth:`jacrot.Network.save` wrote, or one of plain arrays: the matrices
    and biases of dense layers, in layer order.

    Parameters
    ----------
    path : str or path-like
        The file.
    activation : str, callable or sequence of them, default="relu"
        Applied after every layer of plain arrays, the last one included; a sequence gives one
        per layer. A file that ``Network.save`` wrote knows its own.
    layout : {"out_in", "in_out"}, default="out_in"
        Whether a plain matrix is stored ``(n_out, n_in)`` or ``(n_in, n_out)``.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an ``.npz`` file, is damaged, holds pickled objects, or its arrays are
        not those of dense layers that chain.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from jacrot import Network
    >>> from jacrot.readers import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mlp.npz", W0=np.ones((3, 2)), b0=np.ones(3), W1=np.ones((1, 3)))
    ...     load(f"{folder}/mlp.npz", activation=["gelu", "identity"])
    Network(2 → 3 → 1; gelu, identity)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"path={str(path)!r} is not an .npz file; write one with numpy.savez or Network.save."
        )
    arrays: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = file[name]
    except _UNREADABLE as error:
        raise ValueError(
            f"path={str(path)!r} cannot be read without pickle, or is damaged ({error}); write "
            "plain numeric arrays with numpy.savez."
        ) from error
    header = arrays.pop(HEADER, None)
    if header is None:
        return Network(arrays, activation, layout)
    if activation != "relu" or layout != "out_in":
        raise ValueError(
            f"path={str(path)!r} was written by Network.save and knows its activations and layout; "
            "leave activation and layout out."
        )
    return _saved_network(arrays, str(header), str(path))


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
