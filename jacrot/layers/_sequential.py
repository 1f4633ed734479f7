"""A chain of layers as one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jacrot._utils.arrays import Array
from jacrot.layers._base import BaseLayer, Positions
from jacrot.layers._fields import Converted
from jacrot.layers._protocol import Layer


def output_ndim(layer: Layer, ndim: int) -> int | None:
    """Return the number of dimensions of a layer's outputs, also of one without the base class.

    Parameters
    ----------
    layer : Layer
        The layer.
    ndim : int
        Number of dimensions of a batch.

    Returns
    -------
    int or None
        That of the outputs, ``None`` if the layer does not read such batches.
    """
    return layer.output_ndim(ndim) if isinstance(layer, BaseLayer) else ndim


def chain(value: Any, name: str, layer: object = None) -> tuple[Layer, ...]:
    """Convert the layers that a layer is made of.

    Parameters
    ----------
    value : Layer, Network or sequence of Layer
        What a constructor was passed.
    name : str
        Name of the argument, for the error.
    layer : object, default=None
        Not used: it makes this the converter of a field.

    Returns
    -------
    tuple of Layer
        At least one layer.

    Raises
    ------
    ValueError
        If there are none.
    TypeError
        If one is not a layer.
    """
    layers = (value,) if isinstance(value, Layer) else tuple(value)
    if not layers:
        raise ValueError(f"{name} is empty; pass at least one layer.")
    for index, item in enumerate(layers):
        if not isinstance(item, Layer):
            raise TypeError(
                f"{name}[{index}] is a {type(item).__name__}; pass one of jacrot.layers."
            )
    return layers


@dataclass(frozen=True, eq=False)
class Sequential(BaseLayer):
    """Layers one after the other, as one layer.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, in order; a ``Network`` is a sequence too.

    Raises
    ------
    ValueError
        If there are none.
    TypeError
        If one is not a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Dense, LayerNorm, Sequential
    >>> Sequential([LayerNorm(), Dense([[1.0, 1.0]], activation="identity")])
    Sequential(LayerNorm(), Dense(2 → 1, identity))
    """

    layers: Converted[Layer | Sequence[Layer], tuple[Layer, ...]] = Converted(chain)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    @property
    def n_inputs(self) -> int | None:
        return self.layers[0].n_inputs

    @property
    def n_outputs(self) -> int | None:
        return self.layers[-1].n_outputs

    @property
    def positionwise(self) -> bool:
        return all(getattr(layer, "positionwise", False) for layer in self.layers)

    def output_ndim(self, ndim: int) -> int | None:
        result: int | None = ndim
        for layer in self.layers:
            result = None if result is None else output_ndim(layer, result)
        return result

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        for layer in self.layers:
            x, tangents = layer.jvp(x, tangents)
        assert tangents is not None
        return x, tangents

    def rotate_inputs(self, rotation: Array) -> Sequential:
        return Sequential([self.layers[0].rotate_inputs(rotation), *self.layers[1:]])

    def rotate_outputs(self, rotation: Array) -> Sequential:
        return Sequential([*self.layers[:-1], self.layers[-1].rotate_outputs(rotation)])

    def reach(self, positions: Positions) -> Positions | None:
        reached: Positions | None = positions
        for layer in self.layers:
            reached = None if reached is None else layer.reach(reached)
        return reached
