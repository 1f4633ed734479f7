"""Elementwise activation, and softmax, as layers of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import softmax

from jacrot import activations
from jacrot._utils.arrays import Array
from jacrot.activations import Elementwise, activation_name, get_activation
from jacrot.layers._base import BaseLayer, features_axis, identity_tangents


@dataclass(frozen=True, eq=False)
class Activation(BaseLayer):
    """Elementwise function ``y = f(x)``, as a layer of its own.

    Parameters
    ----------
    activation : str or callable
        A name in ``jacrot.activations.ACTIVATIONS`` or an elementwise function written with
        ``autograd.numpy``.

    Raises
    ------
    ValueError
        If the activation is unknown or not elementwise.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Activation
    >>> Activation("relu")(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    activation: str | Elementwise
    _activation: activations.Activation = field(init=False)
    positionwise = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "_activation", get_activation(self.activation))

    def __repr__(self) -> str:
        return f"Activation({activation_name(self.activation)})"

    def __call__(self, x: Array) -> Array:
        return self._activation.function(x)

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        return self(x), self._activation.slope(x)[..., None] * tangents


class Softmax(BaseLayer):
    """Softmax ``y = exp(x) / Σ exp(x)`` over the features.

    Its Jacobian is ``diag(y) − y yᵀ``.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Softmax
    >>> Softmax()(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    """

    positionwise = True

    def __repr__(self) -> str:
        return "Softmax()"

    def __call__(self, x: Array) -> Array:
        return np.asarray(softmax(x, axis=features_axis(x)))

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        y = self(x)
        weighted = y[..., None] * tangents
        mean = weighted.sum(axis=features_axis(x), keepdims=True)
        return y, weighted - y[..., None] * mean
