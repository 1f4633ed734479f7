"""The fully connected layer."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot._utils.arrays import Array
from jacrot.activations import Activation, Elementwise, activation_name, get_activation
from jacrot.layers._base import BaseLayer, affine, identity_tangents
from jacrot.layers._fields import Converted, basis_change, bias_beside, weight_matrix


@dataclass(frozen=True, eq=False)
class Dense(BaseLayer):
    """Fully connected layer ``y = R f(W x + b)``.

    Its Jacobian is ``R diag(f'(W x + b)) W``. It acts on rows, and on every position of
    sequences.

    Parameters
    ----------
    weight : array-like of shape (n_outputs, n_inputs)
        The matrix ``W``.
    bias : array-like of shape (n_outputs,), default=None
        The vector ``b``, zero if ``None``.
    activation : str or callable, default="relu"
        ``f``: a name in ``jacrot.activations.ACTIVATIONS`` or an elementwise function
        written with ``autograd.numpy``.
    output_rotation : array-like of shape (n_rotated, n_outputs), default=None
        ``R``, a change of basis after the activation; ``None`` is the identity. It is how a
        rotated network writes its activations in the new basis.

    Attributes
    ----------
    weight, bias, output_rotation : ndarray
        Read-only copies, in float32 or float64; ``output_rotation`` may be ``None``.
    activation : str or callable
        As given.

    Raises
    ------
    ValueError
        If a shape is wrong, an entry is NaN or infinite, or the activation is unknown.
    TypeError
        If an array is not one of real numbers.

    Examples
    --------
    >>> from jacrot.layers import Dense
    >>> layer = Dense([[1.0, -1.0], [2.0, 0.0]], activation="relu")
    >>> layer([[1.0, 3.0]])
    array([[0., 2.]])
    """

    weight: Converted[ArrayLike, Array] = Converted(weight_matrix)
    bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("weight"), None)
    activation: str | Elementwise = "relu"
    _: KW_ONLY
    output_rotation: Converted[ArrayLike | None, Array | None] = Converted(basis_change, None)
    _activation: Activation = field(init=False)
    positionwise = True
    input_ndims = (2, 3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_activation", get_activation(self.activation))

    def __repr__(self) -> str:
        name = self.activation_name
        return f"Dense({self.n_inputs} → {self.n_outputs}, {name})"

    @property
    def activation_name(self) -> str:
        """The activation's name, for display."""
        return activation_name(self.activation)

    @property
    def n_inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def n_outputs(self) -> int:
        return int((self.weight if self.output_rotation is None else self.output_rotation).shape[0])

    def __call__(self, x: ArrayLike) -> Array:
        return self._write(self._activation.function(self._preactivation(x)))

    def slopes(self, x: ArrayLike) -> Array:
        """Compute the slope of the activation, ``f'(W x + b)``.

        Parameters
        ----------
        x : array-like of shape (n_samples, n_inputs)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_neurons)
            Slopes, the diagonal ``D_i`` of the Jacobian ``R D_i W``.
        """
        return self._activation.slope(self._preactivation(x))

    def jacobian_factors(
        self, x: Array, pairs: NDArray[np.intp] | None
    ) -> tuple[Array, Array] | None:
        if x.ndim != 2 or self.output_rotation is not None:
            return None
        return self.weight, self.slopes(x)

    def jvp(self, x: ArrayLike, tangents: Array | None) -> tuple[Array, Array]:
        preactivation = self._preactivation(x)
        if tangents is None and preactivation.ndim > 2:
            tangents = identity_tangents(np.asarray(x))
        outputs = self._write(self._activation.function(preactivation))
        pushed = self.weight if tangents is None else np.matmul(self.weight, tangents)
        pushed = self._activation.slope(preactivation)[..., None] * pushed
        if self.output_rotation is not None:
            pushed = np.matmul(self.output_rotation, pushed)
        return outputs, pushed

    def rotate_inputs(self, rotation: Array) -> Dense:
        weight = self.weight @ rotation.T
        return Dense(weight, self.bias, self.activation, output_rotation=self.output_rotation)

    def rotate_outputs(self, rotation: Array) -> Dense:
        if self.output_rotation is not None:
            rotation = rotation @ self.output_rotation
        if self.activation == "identity":
            return Dense(rotation @ self.weight, rotation @ self.bias, "identity")
        return Dense(self.weight, self.bias, self.activation, output_rotation=rotation)

    def _preactivation(self, x: ArrayLike) -> Array:
        return affine(self, self.weight, self.bias, np.asarray(x))

    def _write(self, y: Array) -> Array:
        return y if self.output_rotation is None else y @ self.output_rotation.T
