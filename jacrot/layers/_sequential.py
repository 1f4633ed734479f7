"""A chain of layers as one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jacrot._utils.arrays import Array
from jacrot.layers._base import BaseLayer, Positions
from jacrot.layers._protocol import Layer


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
        If one is no layer.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Dense, LayerNorm, Sequential
    >>> Sequential([LayerNorm(), Dense([[1.0, 1.0]], activation="identity")])
    Sequential(LayerNorm(), Dense(2 → 1, identity))
    """

    layers: tuple[Layer, ...]

    def __init__(self, layers: Sequence[Layer]) -> None:
        vars(self).update(layers=chain(layers, "layers"))

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


def chain(layers: Any, name: str) -> tuple[Layer, ...]:
    """Read what a layer is made of.

    Parameters
    ----------
    layers : Layer, Network or sequence of Layer
        What the user gave.
    name : str
        Its name in error messages.

    Returns
    -------
    tuple of Layer
        At least one layer.

    Raises
    ------
    ValueError
        If there are none.
    TypeError
        If one is no layer.
    """
    chained = (layers,) if isinstance(layers, Layer) else tuple(layers)
    if not chained:
        raise ValueError(f"{name} is empty; write at least one layer.")
    for index, layer in enumerate(chained):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"{name}[{index}] is a {type(layer).__name__}; write one of jacrot.layers."
            )
    return chained
