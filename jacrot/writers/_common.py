"""What all writers ask of a network: whether they know its parts, in which precision it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jacrot._utils.arrays import FEATURES_AXIS
from jacrot.layers import (
    Attention,
    AvgPool2d,
    Conv2d,
    Dense,
    Flatten,
    GatedDense,
    Layer,
    MaxPool2d,
    Residual,
    Sequential,
)
from jacrot.network import Network

# Batches of how many dimensions a layer reads; one that is not listed reads all.
_READ: dict[type[Any], tuple[int, ...]] = {
    Attention: (3,),
    AvgPool2d: (4,),
    Conv2d: (4,),
    Dense: (2, 3),
    GatedDense: (2, 3),
    MaxPool2d: (4,),
}


def activation_key(activation: Any) -> str | type[Any]:
    """Give what an activation is listed under: its name, or the class of one with parameters."""
    return activation if isinstance(activation, str) else type(activation)


def check_known(
    network: Any,
    layers: Collection[type[Any]],
    activations: Collection[str | type[Any]],
    caller: str,
) -> None:
    """Check that a writer knows every part of a network.

    Parameters
    ----------
    network : Network
        What the user gave.
    layers : collection of type
        The layers that it knows.
    activations : collection of (str or type)
        The activations that it knows, by their keys.
    caller : str
        The public name of the writer.

    Raises
    ------
    TypeError
        If `network` is no ``Network``.
    ValueError
        If a layer or an activation is not known.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"network is a {type(network).__name__}; write a jacrot.Network (of several, call "
            f"{caller} for each)."
        )
    for place, layer in _parts(enumerate(network.layers)):
        index = int(place.partition(".")[0])
        if type(layer) not in layers:
            around = f"network[:{index}] and network[{index + 1}:]"
            raise ValueError(
                f"layer {place}, {layer!r}, is Python code of yours, which {caller} cannot write; "
                f"write the layers before and after it, {around}, and put your own code between "
                "them."
            )
        activation = layer.arguments.get("activation", "identity")
        if activation_key(activation) not in activations:
            names = sorted(key for key in activations if isinstance(key, str))
            raise ValueError(
                f"layer {place}, {layer!r}, has an activation that {caller} cannot write; write "
                f"one of {names}, or write the layer with layer.changed(activation='identity') and "
                "put your own code after it."
            )


def common_dtype(network: Network) -> np.dtype[Any]:
    """Find the precision in which a network computes.

    Parameters
    ----------
    network : Network
        The network.

    Returns
    -------
    numpy.dtype
        float32 if all of its arrays are, else float64.
    """
    dtypes = {
        value.dtype
        for _, layer in _parts(enumerate(network.layers))
        for value in layer.arguments.values()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
    return np.dtype(np.float32 if dtypes == {np.dtype(np.float32)} else np.float64)


def _parts(layers: Iterable[tuple[object, Any]], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all layers, also those inside of others, with the way to each."""
    for key, layer in layers:
        place = f"{inside}{key}"
        yield place, layer
        for name, value in layer.arguments.items():
            parts = value if isinstance(value, tuple) else (value,)
            nested = [(index, part) for index, part in enumerate(parts) if isinstance(part, Layer)]
            if isinstance(value, Layer):
                yield from _parts([(name, value)], f"{place}.")
            else:
                yield from _parts(nested, f"{place}.")


def passed_on(layer: Layer, ndim: int) -> int | None:
    """Find how many dimensions the outputs of a layer have.

    Parameters
    ----------
    layer : Layer
        The layer.
    ndim : int
        2 for rows, 3 for sequences, 4 for images.

    Returns
    -------
    int or None
        Those of the outputs, ``None`` if the layer does not read such a batch.
    """
    match layer:
        case Sequential():
            result: int | None = ndim
            for part in layer.layers:
                result = None if result is None else passed_on(part, result)
            return result
        case Residual():
            kept = ndim if layer.shortcut is None else passed_on(layer.shortcut, ndim)
            return kept if passed_on(layer.branch, ndim) == kept else None
        case Flatten():
            return 2
    return ndim if ndim in _READ.get(type(layer), FEATURES_AXIS) else None


def ndims_read(
    layers: Sequence[Layer], first: Iterable[int] = tuple(FEATURES_AXIS)
) -> list[frozenset[int]]:
    """Find of how many dimensions a batch can be where each layer reads it.

    Parameters
    ----------
    layers : sequence of Layer
        A chain.
    first : iterable of int, default=(2, 3, 4)
        Those that the first layer may be given.

    Returns
    -------
    list of frozenset of int
        For every layer, counting only batches that all layers of the chain can read.
    """
    paths = []
    for ndim in first:
        path: list[int] = []
        after: int | None = ndim
        for layer in layers:
            if after is None:
                break
            path.append(after)
            after = passed_on(layer, after)
        if after is not None:
            paths.append(path)
    return [frozenset(path[index] for path in paths) for index in range(len(layers))]
