"""Files of several formats, told apart by their suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jacrot._io import archive
from jacrot._utils.arrays import Array
from jacrot._utils.optional import require
from jacrot.layers._weights import ActivationLike, Layout, layer_names
from jacrot.network import Network
from jacrot.readers import _npz
from jacrot.readers._limits import check_size, existing, naming, size_of
from jacrot.readers._names import selected
from jacrot.readers._pickles import check_pickles
from jacrot.readers._safetensors import ArrayInfo, Safetensors, check_not_shard, is_index
from jacrot.readers._saved import parsed, saved_network
from jacrot.readers._torch_state import as_array, dense_arrays

SUFFIXES = (".npz", ".safetensors", ".onnx", ".pt", ".pth")
# Of a checkpoint: entries of its dictionaries, and how deep they are nested.
MOST_ENTRIES = 2**17
DEEPEST = 50


def load(
    path: str | os.PathLike[str],
    activation: ActivationLike = "relu",
    layout: Layout = "out_in",
    names: Sequence[str] | None = None,
) -> Network:
    """Read a network from a file.

    - ``.npz``, ``.safetensors``: what :meth:`jacrot.Network.save` wrote;
    - ``.npz``: plain arrays, the matrices and biases of dense layers in layer order;
    - ``.safetensors``: matrices and biases of dense layers, which the numbers in their names
      put in order, or `names`. A tensor that several layers share is stored once, and found
      under every name that the metadata of the file list;
    - ``.safetensors.index.json``: the same, from all the shards that it lists;
    - ``.pt``, ``.pth``: a state dict of dense layers in layer order, or a checkpoint that holds
      one. Tensors only are read, never pickled objects;
    - ``.onnx``: see :func:`jacrot.readers.from_onnx`.

    Parameters
    ----------
    path : str or path-like
        The file.
    activation : str, callable or sequence of them, default="relu"
        Applied after every dense layer, the last one included; a sequence gives one per layer. A
        file that ``Network.save`` wrote, and an ONNX file, know their own.
    layout : {"out_in", "in_out"}, default="out_in"
        Whether a matrix is stored ``(n_out, n_in)`` or ``(n_in, n_out)``.
    names : sequence of str, default=None
        The arrays to take, in layer order, every matrix followed by its bias; ``None`` for all.
        Of a file that is one of several shards, and of one whose names contradict its order,
        nothing is read without them.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the suffix is another, the file is damaged or holds pickled objects, or its arrays
        are not those of dense layers that chain.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from jacrot.readers import list_arrays, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/mlp.npz"
    ...     np.savez(path, W0=np.ones((3, 2)), b0=np.ones(3), W1=np.ones((1, 3)))
    ...     print(list_arrays(path)["W0"])
    ...     load(path, activation=["gelu", "identity"])
    ...     load(path, names=["W0", "b0"])
    ArrayInfo(shape=(3, 2), dtype='float64')
    Network(2 → 3 → 1; gelu, identity)
    Network(2 → 3; relu)
    """
    path = _existing(path)
    with naming(f"path={str(path)!r}"):
        match path.suffix.lower():
            case ".npz" | ".safetensors" | ".json":
                header, arrays = read(path, names)
                if header is None:
                    return Network(_weights(arrays, names), activation, layout)
                if activation != "relu" or layout != "out_in" or names is not None:
                    raise ValueError(
                        f"path={str(path)!r} was written by save and knows its layers and "
                        "activations; leave activation and layout out, and names too."
                    )
                return saved_network(header, arrays, path)
            case ".onnx":
                if activation != "relu" or layout != "out_in" or names is not None:
                    raise ValueError(
                        f"path={str(path)!r} is a graph, which knows its activations and its "
                        "layers; leave activation, layout and names out."
                    )
                from jacrot.readers._onnx import from_onnx

                return from_onnx(path)
            case _:
                arrays = _checkpoint(path, names)
                return Network(_weights(arrays, names), activation, layout)


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what was kept beside a network or a fitted estimator, without its arrays.

    Parameters
    ----------
    path : str or path-like
        An ``.npz`` or ``.safetensors`` file that :meth:`jacrot.Network.save` or ``save`` of an
        estimator wrote.

    Returns
    -------
    dict
        The `metadata` of a network, the ``provenance_`` of an estimator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If ``safetensors`` is needed and not installed.
    ValueError
        If the suffix is another, the file is damaged, or nothing was kept in it.

    Examples
    --------
    >>> import tempfile
    >>> from jacrot import Network
    >>> from jacrot.readers import metadata
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Network([[1.0, 2.0]]).save(f"{folder}/network.npz", metadata={"epochs": 3})
    ...     metadata(f"{folder}/network.npz")
    {'epochs': 3}
    """
    description, _ = read_saved(path, ())
    kept = description.get("metadata", {})
    if not isinstance(kept, dict):
        raise ValueError(
            f"path={str(path)!r} has a {type(kept).__name__} for metadata, as save writes none; "
            "write it again with save."
        )
    return kept


def read_saved(
    path: str | os.PathLike[str], names: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read what a file says of what it holds, and its arrays.

    Parameters
    ----------
    path : str or path-like
        A file that ``save`` wrote.
    names : sequence of str, default=None
        The arrays to take, ``None`` for all.

    Returns
    -------
    description : dict
        What was described.
    arrays : dict of ndarray
        The arrays.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As :func:`metadata` does.
    """
    path = _existing(path)
    if path.suffix.lower() not in archive.SUFFIXES:
        raise ValueError(f"path={str(path)!r} must end in '.npz' or '.safetensors'.")
    with naming(f"path={str(path)!r}"):
        header, arrays = read(path, names)
        if header is None:
            raise ValueError(f"path={str(path)!r} holds arrays only; write a file that save wrote.")
        return parsed(header, path), arrays


def list_arrays(path: str | os.PathLike[str]) -> dict[str, ArrayInfo]:
    """List the arrays in a file, without reading them.

    Parameters
    ----------
    path : str or path-like
        A file of one of the formats that :func:`load` reads.

    Returns
    -------
    dict of str to ArrayInfo
        The shape and the dtype of every array, by name, in the order of the file. Names in
        nested dictionaries of a PyTorch checkpoint are joined by dots.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the suffix is another, or the file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from jacrot.readers import list_arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mlp.npz", W=np.ones((3, 2), np.float32))
    ...     list_arrays(f"{folder}/mlp.npz")
    {'W': ArrayInfo(shape=(3, 2), dtype='float32')}
    """
    path = _existing(path)
    with naming(f"path={str(path)!r}"):
        match path.suffix.lower():
            case ".npz":
                return {name: ArrayInfo(*info) for name, info in _npz.list_arrays(path).items()}
            case ".safetensors" | ".json":
                return Safetensors(path, "list_arrays").info
            case ".onnx":
                from jacrot.readers._onnx_files import list_initializers

                return {name: ArrayInfo(*info) for name, info in list_initializers(path).items()}
            case _:
                tensors = _tensors(path, "list_arrays", "meta")
                return {
                    name: ArrayInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
                    for name, tensor in tensors.items()
                }


def _existing(path: str | os.PathLike[str]) -> Path:
    path = existing(path)
    if path.suffix.lower() not in SUFFIXES and not is_index(path):
        raise ValueError(
            f"path={str(path)!r} has the suffix {path.suffix!r}; pass a file that ends in one of "
            f"{', '.join(SUFFIXES)}, .safetensors.index.json."
        )
    return path


def _weights(arrays: dict[str, Any], names: Sequence[str] | None) -> Any:
    """Prepare arrays for a network, which checks names that the user did not list."""
    if names is None:
        return arrays
    return [
        (arrays[name], None if bias is None else arrays[bias]) for name, bias in layer_names(arrays)
    ]


def read(path: Path, names: Sequence[str] | None) -> tuple[str | None, dict[str, Any]]:
    """Read the arrays of a file, and the description beside them, if there is one."""
    if path.suffix.lower() == ".npz":
        header, arrays = _npz.read(path, names)
        if names is None and header is None:
            check_not_shard(path)
        return header, arrays
    file = Safetensors(path, "load")
    if names is None and file.header is None:
        check_not_shard(path)
        names = file.order()
    return file.header, file.arrays(names)


def _tensors(path: Path, caller: str, device: str) -> dict[str, Any]:
    torch = require("torch", caller, "torch")
    try:
        check_pickles(path)
        content = torch.load(path, map_location=device, weights_only=True)
    # PyTorch raises whatever its own reading of a damaged file runs into.
    except Exception as error:
        lines = str(error).splitlines() or ["no message"]
        # The first line, and what it pleads for, is advice to run the code of the file.
        said = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
        said = said.strip().partition(" Please")[0]
        raise ValueError(
            f"path={str(path)!r} holds something else than tensors, or is damaged "
            f"({type(error).__name__}: {said}); write tensors only, with "
            "torch.save(model.state_dict(), path)."
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"path={str(path)!r} holds a {type(content).__name__}, no state dict; write one with "
            "torch.save(model.state_dict(), path)."
        )
    return _named_tensors(content)


def _named_tensors(content: Mapping[Any, Any]) -> dict[str, Any]:
    """List the tensors in nested dictionaries, which may be met again inside of themselves."""
    tensors: dict[str, Any] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    n_entries = 0
    while pending:
        keys, value = pending.pop()
        if isinstance(value, Mapping):
            n_entries += len(value)
            if n_entries > MOST_ENTRIES or len(keys) > DEEPEST:
                raise ValueError(
                    f"a state dict of more than {MOST_ENTRIES:,} entries, or nested deeper than "
                    f"{DEEPEST} times; write torch.save(model.state_dict(), path)."
                )
            # The method of the class: a file can put another into the instance.
            items = list(type(value).items(value))
            pending += [((*keys, str(key)), item) for key, item in reversed(items)]
        elif hasattr(value, "detach"):
            name = ".".join(keys)
            if name in tensors:
                raise ValueError(f"two tensors of the name {name!r}; write one for each name.")
            tensors[name] = value
    return tensors


def _checkpoint(path: Path, names: Sequence[str] | None) -> dict[str, Any]:
    tensors = _tensors(path, "load", "cpu")
    if names is None:
        check_not_shard(path)
    else:
        tensors = {name: tensors[name] for name in selected(names, tensors, path)}
    try:
        # One stored number may fill a tensor of any shape.
        n_bytes = sum(size_of(t.shape, t.element_size()) for t in tensors.values())
        check_size(n_bytes, path.stat().st_size, "the file")
        if names is None:
            return dense_arrays(tensors)
        return {name: as_array(tensor) for name, tensor in tensors.items()}
    except ValueError as error:
        hint = " Or write names=[...], the weights and biases to take, in layer order."
        raise ValueError(f"path={str(path)!r}: {error}{'' if names else hint}") from error
    # Of sparse and quantised tensors.
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"path={str(path)!r} holds a tensor that is not a plain array ({error}); save "
            "tensor.to_dense() or tensor.dequantize()."
        ) from error
