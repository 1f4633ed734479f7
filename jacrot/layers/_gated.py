"""The gated dense layer of SwiGLU and GeGLU."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array
from jacrot.activations import Activation, Elementwise, activation_name, get_activation
from jacrot.layers._base import BaseLayer, affine, identity_tangents
from jacrot.layers._fields import Converted, bias_beside, weight_matrix


@dataclass(frozen=True, eq=False)
class GatedDense(BaseLayer):
    """Gated layer ``y = f(W_g x + b_g) ∘ (W_u x + b_u)``.

    Its Jacobian is ``diag(f'(W_g x + b_g) ∘ u) W_g + diag(f(W_g x + b_g)) W_u`` with
    ``u = W_u x + b_u``. SwiGLU has ``f = silu``, GeGLU ``gelu``; the matrix that projects down is
    a :class:`Dense` after it.

    Parameters
    ----------
    gate_weight, up_weight : array-like of shape (n_outputs, n_inputs)
        ``W_g`` and ``W_u``.
    gate_bias, up_bias : array-like of shape (n_outputs,), default=None
        ``b_g`` and ``b_u``, zero if ``None``.
    activation : str or callable, default="silu"
        ``f``.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is NaN or infinite, or the activation is unknown.

    References
    ----------
    N. Shazeer, "GLU variants improve transformer", arXiv:2002.05202 (2020), equation 5.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import GatedDense
    >>> GatedDense([[1.0]], [[2.0]], activation="relu")(np.array([[3.0]]))
    array([[18.]])
    """

    gate_weight: Converted[ArrayLike, Array] = Converted(weight_matrix)
    up_weight: Converted[ArrayLike, Array] = Converted(weight_matrix)
    gate_bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("gate_weight"), None)
    up_bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("up_weight"), None)
    activation: str | Elementwise = "silu"
    _activation: Activation = field(init=False)
    positionwise = True
    input_ndims = (2, 3)

    def __post_init__(self) -> None:
        if self.gate_weight.shape != self.up_weight.shape:
            raise ValueError(
                f"gate_weight has shape {self.gate_weight.shape} and up_weight "
                f"{self.up_weight.shape}; pass two matrices (n_outputs, n_inputs) of one shape."
            )
        object.__setattr__(self, "_activation", get_activation(self.activation))

    def __repr__(self) -> str:
        name = activation_name(self.activation)
        return f"GatedDense({self.n_inputs} → {self.n_outputs}, {name})"

    @property
    def n_inputs(self) -> int:
        return int(self.gate_weight.shape[1])

    @property
    def n_outputs(self) -> int:
        return len(self.gate_weight)

    def __call__(self, x: Array) -> Array:
        gate, up = self._products(x)
        return self._activation.function(gate) * up

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        product, up = self._products(x)
        gate = self._activation.function(product)
        slopes = self._activation.slope(product)[..., None]
        gate_tangents = slopes * np.matmul(self.gate_weight, tangents)
        up_tangents = np.matmul(self.up_weight, tangents)
        return gate * up, gate_tangents * up[..., None] + gate[..., None] * up_tangents

    def rotate_inputs(self, rotation: Array) -> GatedDense:
        return GatedDense(
            self.gate_weight @ rotation.T,
            self.up_weight @ rotation.T,
            self.gate_bias,
            self.up_bias,
            self.activation,
        )

    def _products(self, x: Array) -> tuple[Array, Array]:
        gate = affine(self, self.gate_weight, self.gate_bias, x)
        return gate, affine(self, self.up_weight, self.up_bias, x)
