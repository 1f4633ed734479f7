"""Parts that the writers share: converters of layers, checks of a network, its precision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from jacrot._utils.arrays import FEATURES_AXIS
from jacrot.layers import BaseLayer, Layer
from jacrot.layers._sequential import output_ndim
from jacrot.layers._serialization import is_built_in
from jacrot.network import Network

F = TypeVar("F", bound=Callable[..., Any])


class LayerConverter(Protocol):
    """A function of a layer, with a converter registered for each class of layers."""

    registry: dict[type[Any], Callable[..., Any]]

    def register(self, kind: type[Any]) -> Callable[[F], F]:
        """Return a decorator that registers the converter of a class."""

    def __call__(self, layer: Any, *arguments: Any) -> Any:
        """Call the converter of the layer's class."""


def dispatch_on_class(fallback: Callable[..., Any]) -> LayerConverter:
    """Decorate a function of a layer so that it calls the converter registered for its class.

    Like :func:`functools.singledispatch`, except that a converter of a class is not used for
    classes derived from it, which may compute something else.

    Parameters
    ----------
    fallback : callable
        Called for layers of other classes.

    Returns
    -------
    callable
        The function, with the decorator ``register(class)`` and the dictionary ``registry``.
    """
    registry: dict[type[Any], Callable[..., Any]] = {}

    @wraps(fallback)
    def convert(layer: Any, *arguments: Any) -> Any:
        return registry.get(type(layer), fallback)(layer, *arguments)

    def register(kind: type[Any]) -> Callable[[F], F]:
        def decorate(converter: F) -> F:
            registry[kind] = converter
            return converter

        return decorate

    vars(convert).update(registry=registry, register=register)
    return cast(LayerConverter, convert)


def activation_key(activation: Any) -> str | type[Any]:
    """Return the key of an activation in a table: its name, or its class if it has parameters."""
    return activation if isinstance(activation, str) else type(activation)


def check_convertible(
    network: Any,
    converter: LayerConverter,
    activations: Collection[str | type[Any]],
    caller: str,
) -> None:
    """Check that a writer can convert every layer and activation of a network.

    Parameters
    ----------
    network : Network
        The network that the user passed.
    converter : callable
        Converts the layers.
    activations : collection of (str or type)
        Keys of the activations that can be converted.
    caller : str
        Public name of the writer.

    Raises
    ------
    TypeError
        If `network` is not a ``Network``.
    ValueError
        If a layer or an activation cannot be converted.
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"network is a {type(network).__name__}; pass a jacrot.Network (for several, call "
            f"{caller} for each)."
        )
    for place, layer in _parts(enumerate(network.layers), is_built_in):
        index = int(place.partition(".")[0])
        if type(layer) not in converter.registry:
            around = f"network[:{index}] and network[{index + 1}:]"
            raise ValueError(
                f"layer {place}, {layer!r}, is your own Python code, which {caller} cannot "
                f"convert; register a converter with jacrot.writers.layer_{caller}.register, or "
                f"convert the layers before and after it, {around}, and put your code between "
                "them."
            )
        activation = getattr(layer, "activation", "identity")
        if is_built_in(type(layer)) and activation_key(activation) not in activations:
            names = sorted(key for key in activations if isinstance(key, str))
            raise ValueError(
                f"layer {place}, {layer!r}, has an activation that {caller} cannot convert; use "
                f"one of {names}, or convert the layer with layer.changed(activation='identity') "
                "and put your code after it."
            )


def common_dtype(network: Network) -> np.dtype[Any]:
    """Return the precision in which a network computes.

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
        for _, layer in _parts(enumerate(network.layers), lambda kind: issubclass(kind, BaseLayer))
        for value in layer.arguments.values()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
    return np.dtype(np.float32 if dtypes == {np.dtype(np.float32)} else np.float64)


def _parts(
    layers: Iterable[tuple[object, Any]], has_parts: Callable[[type[Any]], bool], inside: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield layers and the layers that they consist of, with the place of each."""
    for key, layer in layers:
        place = f"{inside}{key}"
        yield place, layer
        if not has_parts(type(layer)):
            continue
        for name, value in layer.arguments.items():
            parts = value if isinstance(value, tuple) else (value,)
            nested = [(index, part) for index, part in enumerate(parts) if isinstance(part, Layer)]
            if isinstance(value, Layer):
                nested = [(name, value)]
            yield from _parts(nested, has_parts, f"{place}.")


def ndims_read(
    layers: Sequence[Layer], first: Iterable[int] = tuple(FEATURES_AXIS)
) -> list[frozenset[int]]:
    """Find the numbers of dimensions that a batch can have where each layer of a chain reads it.

    Parameters
    ----------
    layers : sequence of Layer
        A chain.
    first : iterable of int, default=(2, 3, 4)
        Those that the batch may have where the first layer reads it.

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
            after = output_ndim(layer, after)
        if after is not None:
            paths.append(path)
    return [frozenset(path[index] for path in paths) for index in range(len(layers))]
