"""The residual block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jacrot._utils.arrays import Array
from jacrot.layers._base import BaseLayer, Positions, identity_tangents
from jacrot.layers._basis import Basis
from jacrot.layers._fields import Converted
from jacrot.layers._protocol import Layer
from jacrot.layers._sequential import Sequential, chain, output_ndim


def _branch(value: Layer | Sequence[Layer], name: str, layer: object) -> Layer:
    layers = chain(value, name)
    return layers[0] if len(layers) == 1 else Sequential(layers)


def _shortcut(value: Layer | Sequence[Layer] | None, name: str, layer: object) -> Layer | None:
    return None if value is None else _branch(value, name, layer)


@dataclass(frozen=True, eq=False)
class Residual(BaseLayer):
    """Sum of two branches, ``y = s(x) + f(x)``, one of which is mostly the identity.

    A rotation of the inputs and the same rotation of the outputs leave an identity ``s`` as it
    is: that is a residual stream in another basis.

    Parameters
    ----------
    branch : Layer or sequence of Layer
        ``f``.
    shortcut : Layer or sequence of Layer, default=None
        ``s``, ``None`` for the identity.

    Raises
    ------
    ValueError
        If a sequence is empty.
    TypeError
        If something in it is not a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Dense, Residual
    >>> block = Residual([Dense([[1.0, 1.0]]), Dense([[2.0], [0.0]], activation="identity")])
    >>> block(np.array([[1.0, 3.0]]))
    array([[9., 3.]])
    """

    branch: Converted[Layer | Sequence[Layer], Layer] = Converted(_branch)
    shortcut: Converted[Layer | Sequence[Layer] | None, Layer | None] = Converted(_shortcut, None)

    def __repr__(self) -> str:
        return f"Residual({self.branch!r}{'' if self.shortcut is None else f', {self.shortcut!r}'})"

    @property
    def n_inputs(self) -> int | None:
        return self.branch.n_inputs

    @property
    def n_outputs(self) -> int | None:
        return self.branch.n_outputs

    @property
    def positionwise(self) -> bool:
        parts = [part for part in (self.branch, self.shortcut) if part is not None]
        return all(getattr(part, "positionwise", False) for part in parts)

    def output_ndim(self, ndim: int) -> int | None:
        kept = ndim if self.shortcut is None else output_ndim(self.shortcut, ndim)
        return kept if output_ndim(self.branch, ndim) == kept else None

    def __call__(self, x: Array) -> Array:
        return (x if self.shortcut is None else self.shortcut(x)) + self.branch(x)

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        kept = (x, tangents) if self.shortcut is None else self.shortcut.jvp(x, tangents)
        branched = self.branch.jvp(x, tangents)
        return kept[0] + branched[0], kept[1] + branched[1]

    def rotate_inputs(self, rotation: Array) -> Residual:
        shortcut = self.shortcut or Basis(np.eye(rotation.shape[1]))
        return Residual(
            self.branch.rotate_inputs(rotation), _simplest(shortcut.rotate_inputs(rotation))
        )

    def rotate_outputs(self, rotation: Array) -> Residual:
        shortcut = self.shortcut or Basis(np.eye(rotation.shape[1]))
        return Residual(
            self.branch.rotate_outputs(rotation), _simplest(shortcut.rotate_outputs(rotation))
        )

    def reach(self, positions: Positions) -> Positions | None:
        kept = positions if self.shortcut is None else self.shortcut.reach(positions)
        branched = self.branch.reach(positions)
        return None if kept is None or branched is None else kept | branched


def _simplest(shortcut: Layer) -> Layer | None:
    """Replace a shortcut that a tied rotation has made the identity again by None."""
    return None if isinstance(shortcut, Basis) and shortcut.is_identity else shortcut
