"""Reading files, whose format is determined by their suffix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jacrot._io import archive
from jacrot._utils.arrays import Array
from jacrot._utils.optional import import_optional
from jacrot.layers._weights import ActivationLike, Layout, layer_names
from jacrot.network import Network
from jacrot.readers import _npz
from jacrot.readers._limits import check_readable_file, check_size, count_bytes, prefix_errors
from jacrot.readers._names import select_names
from jacrot.readers._pickles import check_pickles
from jacrot.readers._safetensors import ArrayInfo, Safetensors, check_not_shard, is_index
from jacrot.readers._saved import parse_description, saved_network
from jacrot.readers._torch_state import as_array, dense_arrays

SUFFIXES = (".npz", ".safetensors", ".onnx", ".pt", ".pth")
# Limits for a checkpoint: entries of its dictionaries, and depth of nesting.
MOST_ENTRIES = 2**17
DEEPEST = 50


def load(
    path: str | os.PathLike[str],
    activation: ActivationLike = "relu",
    layout: Layout = "out_in",
    names: Sequence[str] | None = None,
) -> Network:
    """Read a network from a file.

    - ``.npz``, ``.safetensors``: files of :meth:`jacrot.Network.save`;
    - ``.npz``: plain arrays, the matrices and biases of dense layers in layer order;
    - ``.safetensors``: matrices and biases of dense layers, ordered by the numbers in their names
      or by `names`. A tensor that several layers share is stored once, and available under every
      name that the metadata of the file lists;
    - ``.safetensors.index.json``: the same, from all the shards that it lists;
    - ``.pt``, ``.pth``: a state dict of dense layers in layer order, or a checkpoint that contains
      one. Only tensors are read, never pickled objects;
    - ``.onnx``: see :func:`jacrot.readers.from_onnx`.

    Parameters
    ----------
    path : str or path-like
        The file.
    activation : str, callable or sequence of them, default="relu"
        Activation after every dense layer, including the last, or one for each layer. Files of
        ``Network.save`` and ONNX files contain their activations.
    layout : {"out_in", "in_out"}, default="out_in"
        Whether matrices have shape ``(n_out, n_in)`` or ``(n_in, n_out)``.
    names : sequence of str, default=None
        Arrays to read, in layer order, every matrix followed by its bias; ``None`` for all.
        Required for one of several shards, and for files whose names contradict their order. A
        file is a shard if an index lists it, if its name ends in ``-00001-of-00003``, or if the
        folder has another part of the same name (``run_1_of_3.npz`` beside ``run_2_of_3.npz``).

    Returns
    -------
    Network
        The network.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the suffix is not supported, the file is damaged or contains pickled objects, or its
        arrays are not those of dense layers that chain.

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
    path = _check_path(path)
    with prefix_errors(f"path={str(path)!r}"):
        match path.suffix.lower():
            case ".npz" | ".safetensors" | ".json":
                header, arrays = read(path, names)
                if header is None:
                    return Network(_weights(arrays, names), activation, layout)
                if activation != "relu" or layout != "out_in" or names is not None:
                    raise ValueError(
                        f"path={str(path)!r} was written by save and contains its layers and "
                        "activations; do not pass activation, layout or names."
                    )
                return saved_network(header, arrays, path)
            case ".onnx":
                if activation != "relu" or layout != "out_in" or names is not None:
                    raise ValueError(
                        f"path={str(path)!r} is a graph, which contains its layers and "
                        "activations; do not pass activation, layout or names."
                    )
                from jacrot.readers._onnx import from_onnx

                return from_onnx(path)
            case _:
                arrays = _checkpoint(path, names)
                return Network(_weights(arrays, names), activation, layout)


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata of a saved network or a fitted estimator, without its arrays.

    Parameters
    ----------
    path : str or path-like
        An ``.npz`` or ``.safetensors`` file of :meth:`jacrot.Network.save` or of ``save`` of an
        estimator.

    Returns
    -------
    dict
        The `metadata` of a network, or the ``provenance_`` of an estimator.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ImportError
        If ``safetensors`` is needed and not installed.
    ValueError
        If the suffix is not supported, the file is damaged, or it was not written by ``save``.

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
            f"path={str(path)!r} has a {type(kept).__name__} as metadata, which save does not "
            "write; save it again."
        )
    return kept


def read_saved(
    path: str | os.PathLike[str], names: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the description and the arrays of a file that ``save`` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.
    names : sequence of str, default=None
        Arrays to read, ``None`` for all.

    Returns
    -------
    description : dict
        The description.
    arrays : dict of ndarray
        The arrays by name.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        In the same cases as :func:`metadata`.
    """
    path = _check_path(path)
    if path.suffix.lower() not in archive.SUFFIXES:
        raise ValueError(f"path={str(path)!r} must end in '.npz' or '.safetensors'.")
    with prefix_errors(f"path={str(path)!r}"):
        header, arrays = read(path, names)
        if header is None:
            raise ValueError(f"path={str(path)!r} contains only arrays; pass a file of save.")
        return parse_description(header, path), arrays


def list_arrays(path: str | os.PathLike[str]) -> dict[str, ArrayInfo]:
    """List the arrays in a file, without reading them.

    Parameters
    ----------
    path : str or path-like
        A file of a format that :func:`load` reads.

    Returns
    -------
    dict of str to ArrayInfo
        Shape and dtype of every array by name, in the order of the file. Names in nested
        dictionaries of a PyTorch checkpoint are joined by dots.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ImportError
        If the package that reads the format is not installed.
    ValueError
        If the suffix is not supported, or the file is damaged.

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
    path = _check_path(path)
    with prefix_errors(f"path={str(path)!r}"):
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


def _check_path(path: str | os.PathLike[str]) -> Path:
    path = check_readable_file(path)
    if path.suffix.lower() not in SUFFIXES and not is_index(path):
        raise ValueError(
            f"path={str(path)!r} has the suffix {path.suffix!r}; pass a file that ends in one of "
            f"{', '.join(SUFFIXES)}, .safetensors.index.json."
        )
    return path


def _weights(arrays: dict[str, Any], names: Sequence[str] | None) -> Any:
    """Return arrays for ``Network``, which checks their order if the user passed no names."""
    if names is None:
        return arrays
    return [
        (arrays[name], None if bias is None else arrays[bias]) for name, bias in layer_names(arrays)
    ]


def read(path: Path, names: Sequence[str] | None) -> tuple[str | None, dict[str, Any]]:
    """Read the arrays of a file, and its description if there is one."""
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
    torch = import_optional("torch", caller, "torch")
    try:
        check_pickles(path)
        content = torch.load(path, map_location=device, weights_only=True)
    # PyTorch does not wrap the errors that damaged files cause.
    except Exception as error:
        lines = str(error).splitlines() or ["no message"]
        # The other lines advise to run the code of the file.
        reason = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
        reason = reason.strip().partition(" Please")[0]
        raise ValueError(
            f"path={str(path)!r} contains other objects than tensors, or is damaged "
            f"({type(error).__name__}: {reason}); save only tensors, with "
            "torch.save(model.state_dict(), path)."
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"path={str(path)!r} contains a {type(content).__name__}, not a state dict; save one "
            "with torch.save(model.state_dict(), path)."
        )
    return _named_tensors(content)


def _named_tensors(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the tensors in nested dictionaries, which may contain themselves."""
    tensors: dict[str, Any] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
    n_entries = 0
    while pending:
        keys, value = pending.pop()
        if isinstance(value, Mapping):
            n_entries += len(value)
            if n_entries > MOST_ENTRIES or len(keys) > DEEPEST:
                raise ValueError(
                    f"a state dict of more than {MOST_ENTRIES:,} entries, or nested more than "
                    f"{DEEPEST} times; save it with torch.save(model.state_dict(), path)."
                )
            # The method of the class: a file can override it on the instance.
            items = list(type(value).items(value))
            pending += [((*keys, str(key)), item) for key, item in reversed(items)]
        elif hasattr(value, "detach"):
            name = ".".join(keys)
            if name in tensors:
                raise ValueError(f"two tensors have the name {name!r}; save one for each name.")
            tensors[name] = value
    return tensors


def _checkpoint(path: Path, names: Sequence[str] | None) -> dict[str, Any]:
    tensors = _tensors(path, "load", "cpu")
    if names is None:
        check_not_shard(path)
    else:
        tensors = {name: tensors[name] for name in select_names(names, tensors, path)}
    try:
        # With stride 0, one stored number fills a tensor of any shape.
        n_bytes = sum(count_bytes(t.shape, t.element_size()) for t in tensors.values())
        check_size(n_bytes, path.stat().st_size, "the file")
        if names is None:
            return dense_arrays(tensors)
        return {name: as_array(tensor) for name, tensor in tensors.items()}
    except ValueError as error:
        hint = " Or pass names=[...], the weights and biases to read, in layer order."
        raise ValueError(f"path={str(path)!r}: {error}{'' if names else hint}") from error
    # Errors of sparse and quantised tensors.
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"path={str(path)!r} contains a tensor that is not a plain array ({error}); save "
            "tensor.to_dense() or tensor.dequantize()."
        ) from error
