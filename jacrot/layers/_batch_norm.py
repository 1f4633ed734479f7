"""Batch norm with the statistics of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array
from jacrot.layers._base import BaseLayer, broadcast_features, features_axis, identity_tangents
from jacrot.layers._fields import Converted, check_equal_sizes, number, optional_vector, vector


@dataclass(frozen=True, eq=False)
class BatchNorm(BaseLayer):
    """Batch norm at inference, ``y = g ∘ (x − mean) / √(variance + eps) + b``.

    It scales and shifts every feature; :func:`jacrot.layers.fused` folds that into a dense layer or
    a convolution before it.

    Parameters
    ----------
    mean, variance : array-like of shape (n_features,)
        The running statistics.
    weight, bias : array-like of shape (n_features,), default=None
        ``g`` and ``b``, one and zero if ``None``.
    eps : float, default=1e-5
        Added to the variance.

    Raises
    ------
    ValueError
        If the shapes differ or are not those of vectors, an entry is NaN or infinite, or a variance
        is negative.

    References
    ----------
    S. Ioffe and C. Szegedy, "Batch normalization", ICML 2015, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import BatchNorm
    >>> BatchNorm(mean=[1.0], variance=[4.0], eps=0)(np.array([[5.0]]))
    array([[2.]])
    """

    mean: Converted[ArrayLike, Array] = Converted(vector)
    variance: Converted[ArrayLike, Array] = Converted(vector)
    weight: Converted[ArrayLike | None, Array | None] = Converted(optional_vector, None)
    bias: Converted[ArrayLike | None, Array | None] = Converted(optional_vector, None)
    eps: Converted[float, float] = Converted(number, 1e-5)
    positionwise = True

    def __post_init__(self) -> None:
        check_equal_sizes(
            mean=self.mean, variance=self.variance, weight=self.weight, bias=self.bias
        )
        if np.any(self.variance < 0):
            raise ValueError("variance has a negative entry; pass the running variance.")

    def __repr__(self) -> str:
        return f"BatchNorm({self.mean.size})"

    @property
    def n_inputs(self) -> int:
        return self.mean.size

    @property
    def n_outputs(self) -> int:
        return self.mean.size

    @property
    def scale(self) -> Array:
        """Factor of every feature."""
        scale = 1 / np.sqrt(self.variance + self.eps)
        return scale if self.weight is None else scale * self.weight

    @property
    def shift(self) -> Array:
        """Term added to every feature after that."""
        shift = -self.mean * self.scale
        return shift if self.bias is None else shift + self.bias

    def __call__(self, x: Array) -> Array:
        axis = features_axis(x)
        shift = broadcast_features(self.shift, x, axis)
        return x * broadcast_features(self.scale, x, axis) + shift

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        return self(x), tangents * broadcast_features(self.scale, tangents, features_axis(x))
