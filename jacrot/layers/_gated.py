"""The gated dense layer of SwiGLU and GeGLU."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array
from jacrot.activations import Elementwise
from jacrot.layers._base import BaseLayer, identity_tangents
from jacrot.layers._dense import Dense


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

    gate_weight: Array
    up_weight: Array
    gate_bias: Array
    up_bias: Array
    activation: str | Elementwise
    _gate: Dense
    _up: Dense
    positionwise = True

    def __init__(
        self,
        gate_weight: ArrayLike,
        up_weight: ArrayLike,
        gate_bias: ArrayLike | None = None,
        up_bias: ArrayLike | None = None,
        activation: str | Elementwise = "silu",
    ) -> None:
        if np.shape(gate_weight) != np.shape(up_weight):
            raise ValueError(
                f"gate_weight has shape {np.shape(gate_weight)} and up_weight "
                f"{np.shape(up_weight)}; write two matrices (n_outputs, n_inputs) of one shape."
            )
        gate = Dense(gate_weight, gate_bias, activation)
        up = Dense(up_weight, up_bias, "identity")
        vars(self).update(
            gate_weight=gate.weight,
            up_weight=up.weight,
            gate_bias=gate.bias,
            up_bias=up.bias,
            activation=activation,
            _gate=gate,
            _up=up,
        )

    def __repr__(self) -> str:
        return f"GatedDense({self.n_inputs} → {self.n_outputs}, {self._gate.activation_name})"

    @property
    def n_inputs(self) -> int:
        return self._gate.n_inputs

    @property
    def n_outputs(self) -> int:
        return self._gate.n_outputs

    def __call__(self, x: Array) -> Array:
        return self._gate(x) * self._up(x)

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        gate, gate_tangents = self._gate.jvp(x, tangents)
        up, up_tangents = self._up.jvp(x, tangents)
        return gate * up, gate_tangents * up[..., None] + gate[..., None] * up_tangents

    def rotate_inputs(self, rotation: Array) -> GatedDense:
        return GatedDense(
            self.gate_weight @ rotation.T,
            self.up_weight @ rotation.T,
            self.gate_bias,
            self.up_bias,
            self.activation,
        )
