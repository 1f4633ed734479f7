"""Normalisation of every feature vector: layer norm and root-mean-square norm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array
from jacrot.layers._base import BaseLayer, broadcast_features, features_axis, identity_tangents
from jacrot.layers._fields import Converted, check_equal_sizes, number, optional_vector


@dataclass(frozen=True, eq=False)
class LayerNorm(BaseLayer):
    """Layer norm ``y = g ∘ x̂ + b``, ``x̂ = (x − mean(x)) / √(var(x) + eps)`` over the features.

    Along a tangent ``t`` of ``d`` features, ``x̂`` changes by
    ``(t − mean(t) − x̂ (x̂ᵀt)/d) / √(var(x) + eps)``.

    Parameters
    ----------
    weight, bias : array-like of shape (n_features,), default=None
        ``g`` and ``b``, one and zero if ``None``.
    eps : float, default=1e-5
        Added to the variance.

    Raises
    ------
    ValueError
        If the shapes differ or are not those of vectors, or an entry is NaN or infinite.

    References
    ----------
    J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450 (2016),
    equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import LayerNorm
    >>> LayerNorm(eps=0)(np.array([[1.0, 3.0]]))
    array([[-1.,  1.]])
    """

    weight: Converted[ArrayLike | None, Array | None] = Converted(optional_vector, None)
    bias: Converted[ArrayLike | None, Array | None] = Converted(optional_vector, None)
    eps: Converted[float, float] = Converted(number, 1e-5)
    positionwise = True

    def __post_init__(self) -> None:
        check_equal_sizes(weight=self.weight, bias=self.bias)

    def __repr__(self) -> str:
        return f"LayerNorm({'' if self.n_inputs is None else self.n_inputs})"

    @property
    def n_inputs(self) -> int | None:
        vector = self.bias if self.weight is None else self.weight
        return None if vector is None else vector.size

    @property
    def n_outputs(self) -> int | None:
        return self.n_inputs

    def __call__(self, x: Array) -> Array:
        y = self._normalised(x)[0]
        if self.weight is not None:
            y = y * broadcast_features(self.weight, y, features_axis(x))
        if self.bias is not None:
            y = y + broadcast_features(self.bias, y, features_axis(x))
        return y

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        axis = features_axis(x)
        normalised, size = (part[..., None] for part in self._normalised(x))
        centred = tangents - tangents.mean(axis=axis, keepdims=True)
        along = (normalised * tangents).mean(axis=axis, keepdims=True)
        pushed = (centred - normalised * along) / size
        if self.weight is not None:
            pushed *= broadcast_features(self.weight, pushed, axis)
        return self(x), pushed

    def _normalised(self, x: Array) -> tuple[Array, Array]:
        axis = features_axis(x)
        centred = x - x.mean(axis=axis, keepdims=True)
        size = np.sqrt((centred**2).mean(axis=axis, keepdims=True) + self.eps)
        return centred / size, size


@dataclass(frozen=True, eq=False)
class RMSNorm(BaseLayer):
    """Root-mean-square norm ``y = g ∘ x̂``, ``x̂ = x / √(mean(x²) + eps)`` over the features.

    Along a tangent ``t`` of ``d`` features, ``x̂`` changes by
    ``(t − x̂ (x̂ᵀt)/d) / √(mean(x²) + eps)``.

    Parameters
    ----------
    weight : array-like of shape (n_features,), default=None
        ``g``, one if ``None``.
    eps : float, default=1e-6
        Added to the mean square.

    Raises
    ------
    ValueError
        If `weight` is not a vector, or an entry is NaN or infinite.

    References
    ----------
    B. Zhang and R. Sennrich, "Root mean square layer normalization", NeurIPS 2019, equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import RMSNorm
    >>> RMSNorm(eps=0)(np.array([[3.0, 3.0]]))
    array([[1., 1.]])
    """

    weight: Converted[ArrayLike | None, Array | None] = Converted(optional_vector, None)
    eps: Converted[float, float] = Converted(number, 1e-6)
    positionwise = True

    def __repr__(self) -> str:
        return f"RMSNorm({'' if self.n_inputs is None else self.n_inputs})"

    @property
    def n_inputs(self) -> int | None:
        return None if self.weight is None else self.weight.size

    @property
    def n_outputs(self) -> int | None:
        return self.n_inputs

    def __call__(self, x: Array) -> Array:
        y = x / self._size(x)
        if self.weight is not None:
            y = y * broadcast_features(self.weight, y, features_axis(x))
        return y

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        axis = features_axis(x)
        size = self._size(x)[..., None]
        normalised = x[..., None] / size
        along = (normalised * tangents).mean(axis=axis, keepdims=True)
        pushed = (tangents - normalised * along) / size
        if self.weight is not None:
            pushed *= broadcast_features(self.weight, pushed, axis)
        return self(x), pushed

    def _size(self, x: Array) -> Array:
        return np.sqrt((x**2).mean(axis=features_axis(x), keepdims=True) + self.eps)
