"""What a fit reads: the network, and the activations to fit and to hold out."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from jacrot._cli.arrays import ReadFile, is_npz, read_array
from jacrot._cli.options import FitOptions
from jacrot._estimators.provenance import network_fingerprint
from jacrot._io import archive
from jacrot._io.files import check_unchanged
from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot.layers import Dense
from jacrot.network import Network
from jacrot.readers import _files, load
from jacrot.readers._limits import check_readable_file, prefix_errors

# The covariance of a single row is not defined.
FEWEST_ROWS = 2


class Inputs(NamedTuple):
    """What a fit reads."""

    network: Network
    # Index of the first layer that is rotated, and of the first after the last of them.
    start: int
    stop: int
    X: Array
    X_test: Array
    files: dict[str, ReadFile]
    # What was assumed about the network, a warning if there is a result.
    assumption: str | None

    @property
    def part(self) -> Network:
        """The layers that are rotated."""
        return self.network[self.start : self.stop]


def read_inputs(options: FitOptions) -> Inputs:
    """Read all that a fit needs, every file once.

    Parameters
    ----------
    options : FitOptions
        The options of ``jacrot fit``.

    Returns
    -------
    Inputs
        The contents of the files, which may change from now on.

    Raises
    ------
    OSError, TypeError, ValueError
        If something cannot be used.
    """
    network, weights, assumption = _read_network(options)
    start, stop = _resolve_layers(options, network)
    first = 0 if options.from_inputs else start
    X, X_test, files = _read_activations(options, network, first)
    if first < start:
        X, X_test = map(network[first:start], (X, X_test))
    return Inputs(network, start, stop, X, X_test, {"weights": weights, **files}, assumption)


def read_header(path: Path) -> str | None:
    """Read the header of a file that jacrot wrote.

    Parameters
    ----------
    path : Path
        A file of weights.

    Returns
    -------
    str or None
        ``None`` for a file that something else wrote.

    Raises
    ------
    OSError, TypeError, ValueError
        If the file cannot be read.
    """
    if path.suffix.lower() not in archive.SUFFIXES:
        return None
    with prefix_errors(f"path={str(path)!r}"):
        return _files.read(path, ())[0]


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


def one_or_each(activations: list[str] | None) -> str | list[str]:
    """Return the activations as :func:`jacrot.readers.load` expects them.

    Parameters
    ----------
    activations : list of str or None
        One name for every layer, or one for each.

    Returns
    -------
    str or list of str
        The single name, or the names.
    """
    names = activations or ["relu"]
    return names[0] if len(names) == 1 else names


def _read_network(options: FitOptions) -> tuple[Network, ReadFile, str | None]:
    """Read the whole network, and return what was assumed about it."""
    assumption = None
    path = check_readable_file(options.weights, "WEIGHTS")
    with check_unchanged(path, f"WEIGHTS {str(path)!r}") as digest:
        network = load(path, one_or_each(options.activation), options.layout, options.names)
        is_graph = path.suffix.lower() == ".onnx"
        if options.activation is None and not is_graph and read_header(path) is None:
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


def _resolve_layers(options: FitOptions, network: Network) -> tuple[int, int]:
    """Return the indices of the layers that are rotated."""
    start, stop, _ = slice(*options.layers).indices(network.n_layers)
    passed = [number for number in options.layers if number is not None]
    if start >= stop or max(passed, default=0) > network.n_layers:
        shown = ":".join("" if number is None else str(number) for number in options.layers)
        raise ValueError(
            f"--layers {shown} is not a part of the {network.n_layers} layers of {network!r}; pass "
            f"0 <= START < STOP <= {network.n_layers}."
        )
    return start, stop


def _read_activations(
    options: FitOptions, network: Network, first: int
) -> tuple[Array, Array, dict[str, ReadFile]]:
    """Read what a layer reads: rows to fit, and held-out ones."""
    held_out = options.held_out
    paths = [path for path in (options.activations, held_out) if isinstance(path, Path)]
    if options.array is not None and not any(map(is_npz, paths)):
        raise ValueError("--array chooses one of several arrays of an .npz file; leave it out.")
    X, file = read_array(options.activations, options.array, "ACTIVATIONS")
    files = {"activations": file}
    _check_width(X, "ACTIVATIONS", network, first)
    n_held_out = 0 if isinstance(held_out, Path) else ceil(len(X) * held_out)
    if len(X) - n_held_out < FEWEST_ROWS:
        raise ValueError(
            f"ACTIVATIONS has {len(X)} rows, of which {n_held_out} are held out; pass at "
            f"least {FEWEST_ROWS} to fit."
        )
    if not isinstance(held_out, Path):
        X, X_test = train_test_split(X, test_size=held_out, random_state=options.seed)
        return X, X_test, files
    X_test, files["held out"] = read_array(held_out, options.array, "--held-out")
    if np.array_equal(X_test, X):
        raise ValueError(
            "--held-out holds the rows of ACTIVATIONS, which a rotation fits; pass a file of "
            "others, or a share."
        )
    _check_width(X_test, "--held-out", network, first)
    if X_test.ndim != X.ndim or len(X_test) == 0:
        raise ValueError(
            f"--held-out has shape {X_test.shape} and ACTIVATIONS {X.shape}; pass rows of "
            "the same kind."
        )
    return X, X_test, files


def _check_width(rows: Array, argument: str, network: Network, first: int) -> None:
    """Check that the features of rows are those that a layer reads."""
    width, wanted = rows.shape[FEATURES_AXIS[rows.ndim]], network.layers[first].n_inputs
    if wanted not in (None, width):
        reads = [layer.n_inputs for layer in network]
        raise ValueError(
            f"{argument} has {width} features, but layer {first} reads {wanted} (the layers read "
            f"{', '.join(map(str, reads))}); --layers START:STOP says which layers follow "
            "ACTIVATIONS, --from-inputs that these are inputs of layer 0, and --layout in_out that "
            "matrices are stored the other way round."
        )
