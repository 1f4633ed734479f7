"""What a fit reads: the network, and the activations to fit and to hold out."""

from __future__ import annotations

import argparse
import hashlib
import os
from math import inf, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from jacrot._estimators.provenance import network_fingerprint
from jacrot._io import archive
from jacrot._io.files import unchanged
from jacrot._utils.arrays import FEATURES_AXIS, Array, real_array
from jacrot.layers import Dense
from jacrot.network import Network
from jacrot.readers import _files, _npz, load
from jacrot.readers._limits import existing, naming

# One row has no covariance.
FEWEST_ROWS = 2


class ReadFile(NamedTuple):
    """A file that was read, and the SHA-256 of its bytes."""

    path: Path
    sha256: str
    # Of an .npz file of activations, what was taken.
    array: str | None = None


class Inputs(NamedTuple):
    """What a fit reads."""

    network: Network
    # Index of the first layer that is rotated, and of the first behind these.
    start: int
    stop: int
    X: Array
    X_test: Array
    files: dict[str, ReadFile]
    # What was taken for granted about the network, to be said if there is a result.
    assumption: str | None


def read_inputs(options: argparse.Namespace) -> Inputs:
    """Read all that a fit needs, every file once.

    Parameters
    ----------
    options : Namespace
        The options of ``jacrot fit``.

    Returns
    -------
    Inputs
        Nothing in it depends on the files any more.

    Raises
    ------
    OSError, TypeError, ValueError
        If something cannot be used.
    """
    network, weights, assumption = _read_network(options)
    read = {"weights": weights}
    start, stop = _part(options, network)
    before = network[:start] if start and options.from_inputs else None
    X, X_test = _read_activations(options, network, before, read)
    return Inputs(network, start, stop, X, X_test, read, assumption)


def knows_activations(path: Path) -> bool:
    """Check whether a file says which activation follows a layer.

    Parameters
    ----------
    path : Path
        A file of weights.

    Returns
    -------
    bool
        False for a file of arrays.
    """
    if path.suffix.lower() == ".onnx":
        return True
    if path.suffix.lower() not in archive.SUFFIXES:
        return False
    with naming(f"path={str(path)!r}"):
        return _files.read(path, ())[0] is not None


def without_last_activation(network: Network) -> Network:
    """Return a network of dense layers with identity after the last.

    Parameters
    ----------
    network : Network
        Dense layers.

    Returns
    -------
    Network
        The network, whose outputs are logits.
    """
    *layers, last = network.layers
    assert isinstance(last, Dense), "arrays are those of dense layers"
    return Network([*layers, Dense(last.weight, last.bias, "identity")])


def single(names: list[str] | None) -> str | list[str]:
    """Return activations as :func:`jacrot.readers.load` expects them."""
    names = names or ["relu"]
    return names[0] if len(names) == 1 else names


def _read_network(options: argparse.Namespace) -> tuple[Network, ReadFile, str | None]:
    """Read the whole network, and return what was assumed about it."""
    assumption = None
    path = existing(options.weights, "WEIGHTS")
    with unchanged(path, f"WEIGHTS {str(path)!r}") as digest:
        network = load(path, single(options.activation), options.layout, options.names)
        if options.activation is None and not knows_activations(path):
            network = without_last_activation(network)
            names = ", ".join(
                layer.activation_name for layer in network.layers if isinstance(layer, Dense)
            )
            assumption = (
                f"{str(path)!r} does not say which activations follow its layers; taken were "
                f"{names}. Pass --activation, one name for each layer."
            )
    if network_fingerprint(network) is None:
        raise ValueError(
            f"WEIGHTS {str(path)!r} holds a function, which no file of arrays can keep; use jacrot "
            "from Python."
        )
    return network, ReadFile(path, digest), assumption


def _part(options: argparse.Namespace, network: Network) -> tuple[int, int]:
    """Return the indices of the layers that are rotated."""
    start, stop, _ = slice(*options.layers).indices(network.n_layers)
    wanted = [number for number in options.layers if number is not None]
    if start >= stop or max(wanted, default=0) > network.n_layers:
        given = ":".join("" if number is None else str(number) for number in options.layers)
        raise ValueError(
            f"--layers {given} is not a part of the {network.n_layers} layers of {network!r}; pass "
            f"0 <= START < STOP <= {network.n_layers}."
        )
    return start, stop


def _read_activations(
    options: argparse.Namespace,
    network: Network,
    before: Network | None,
    read: dict[str, ReadFile],
) -> tuple[Array, Array]:
    """Read what the rotated layers read: rows to fit, and held-out ones."""
    first = 0 if options.from_inputs else options.layers[0] or 0
    paths = [options.activations, options.held_out]
    if options.array is not None and all(_suffix(path) != ".npz" for path in paths):
        raise ValueError("--array chooses one of several arrays of an .npz file; leave it out.")
    rows, read["activations"] = _read_array(options.activations, options.array, "ACTIVATIONS")
    _check_width(rows, "ACTIVATIONS", network, first)
    is_file = isinstance(options.held_out, Path)
    n_held_out = 0 if is_file else int(np.ceil(len(rows) * options.held_out))
    if len(rows) - n_held_out < FEWEST_ROWS:
        raise ValueError(
            f"ACTIVATIONS has {len(rows)} rows, of which {n_held_out} are held out; pass at "
            f"least {FEWEST_ROWS} to fit."
        )
    parts: list[Array]
    if is_file:
        held_out, read["held out"] = _read_array(options.held_out, options.array, "--held-out")
        if np.array_equal(held_out, rows):
            raise ValueError(
                "--held-out holds the rows of ACTIVATIONS, which a rotation fits; pass a file of "
                "others, or a share."
            )
        _check_width(held_out, "--held-out", network, first)
        if held_out.ndim != rows.ndim or len(held_out) == 0:
            raise ValueError(
                f"--held-out has shape {held_out.shape} and ACTIVATIONS {rows.shape}; pass rows of "
                "the same kind."
            )
        parts = [rows, held_out]
    else:
        parts = train_test_split(rows, test_size=options.held_out, random_state=options.seed)
    X, X_test = (part if before is None else before(part) for part in parts)
    return X, X_test


def _suffix(path: Path | float) -> str:
    return path.suffix.lower() if isinstance(path, Path) else ""


def _read_array(path: Path, name: str | None, argument: str) -> tuple[Array, ReadFile]:
    """Read an array without pickle.

    Nothing of the file is mapped into memory: what happens to it afterwards changes nothing.
    """
    path = existing(path, argument)
    shown = f"{argument} {str(path)!r}"
    array: Any
    if _suffix(path) == ".npy":
        array, digest = _read_npy(path, shown)
        name = None
    elif _suffix(path) == ".npz":
        with unchanged(path, shown) as digest:
            name = _array_name(path, name, argument)
            shape, dtype = _npz.list_arrays(path)[name]
            _check_memory(shape, np.dtype(dtype), shown)
            array = _npz.read(path, [name])[1][name]
    else:
        raise ValueError(f"{shown} must end in .npy or .npz.")
    rows = real_array(array, argument, ndim=tuple(FEATURES_AXIS))
    return rows, ReadFile(path, digest, name)


def _read_npy(path: Path, shown: str) -> tuple[Array, str]:
    """Read a file once, so that array and hash are of the same bytes."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = _npz.read_head(file, os.fstat(file.fileno()).st_size, path.name)
            _check_memory(shape, dtype, shown)
            file.seek(0)
            content = file.read()
        array = _npz.parse_array(content, path.name)
    except _TooLarge:
        raise
    except _npz.UNREADABLE as error:
        raise ValueError(
            f"{shown} is not an .npy file, is damaged, or cannot be read without pickle ({error}); "
            "write one with numpy.save."
        ) from error
    return array, hashlib.sha256(content).hexdigest()


class _TooLarge(ValueError):
    """An array does not fit in memory."""


def _check_memory(shape: tuple[int, ...], dtype: np.dtype[Any], shown: str) -> None:
    """Check that the numbers of an array fit in memory, as floats."""
    n_bytes = prod(shape) * (4 if dtype in (np.float16, np.float32) else 8)
    if n_bytes > _memory():
        raise _TooLarge(
            f"{shown} has shape {shape}, which takes {n_bytes:,} bytes of memory, and there are "
            f"{_memory():,}; pass fewer rows."
        )


def _memory() -> float:
    """Return the bytes of memory that this process may use at most, as far as the system says."""
    try:
        limits: list[float] = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        limits = [inf]
    # Of a container: control groups of version 2 and of version 1.
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path("/sys/fs/cgroup", name).read_text("ascii")))
        except (OSError, ValueError):
            continue
    return min(limits)


def _array_name(path: Path, name: str | None, argument: str) -> str:
    """Choose the array of an .npz file: the only one, or the one that is asked for."""
    names = list(_npz.list_arrays(path))
    shown = ", ".join([*map(repr, names[:8]), *["..."] * (len(names) > 8)]) or "no array"
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise ValueError(f"{argument} {str(path)!r} holds {shown}; choose one with --array.")
    if name not in names:
        raise ValueError(f"--array {name!r} is not in {argument} {str(path)!r}, with {shown}.")
    return name


def _check_width(rows: Array, argument: str, network: Network, first: int) -> None:
    width, wanted = rows.shape[FEATURES_AXIS[rows.ndim]], network.layers[first].n_inputs
    if wanted not in (None, width):
        reads = [layer.n_inputs for layer in network]
        raise ValueError(
            f"{argument} has {width} features, but layer {first} reads {wanted} (the layers read "
            f"{', '.join(map(str, reads))}); --layers START:STOP says which layers follow "
            "ACTIVATIONS, --from-inputs that these are inputs of layer 0, and --layout in_out that "
            "matrices are stored the other way round."
        )
