"""Normalisation of every feature vector: layer norm and root-mean-square norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array, read_only, real_array
from jacrot.layers._base import (
    BaseLayer,
    broadcast_features,
    features_axis,
    identity_tangents,
)


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
        If the shapes differ or are no vectors, or an entry is NaN or infinite.

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

    weight: Array | None
    bias: Array | None
    eps: float
    positionwise = True

    def __init__(
        self, weight: ArrayLike | None = None, bias: ArrayLike | None = None, eps: float = 1e-5
    ) -> None:
        vectors = {
            "weight": optional_vector(weight, "weight"),
            "bias": optional_vector(bias, "bias"),
        }
        same_size(vectors)
        vars(self).update(vectors, eps=float(eps))

    def __repr__(self) -> str:
        return f"LayerNorm({'' if self.n_inputs is None else self.n_inputs})"

    @property
    def n_inputs(self) -> int | None:
        return size_of(self.weight, self.bias)

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
        If `weight` is no vector, or an entry is NaN or infinite.

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

    weight: Array | None
    eps: float
    positionwise = True

    def __init__(self, weight: ArrayLike | None = None, eps: float = 1e-6) -> None:
        vars(self).update(weight=optional_vector(weight, "weight"), eps=float(eps))

    def __repr__(self) -> str:
        return f"RMSNorm({'' if self.n_inputs is None else self.n_inputs})"

    @property
    def n_inputs(self) -> int | None:
        return size_of(self.weight)

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


def optional_vector(vector: ArrayLike | None, name: str) -> Array | None:
    """Read a vector, or none.

    Parameters
    ----------
    vector : array-like of shape (n_features,) or None
        What the user gave.
    name : str
        Its name in error messages.

    Returns
    -------
    ndarray or None
        A read-only copy.
    """
    return None if vector is None else read_only(real_array(vector, name, ndim=1))


def same_size(vectors: dict[str, Array | None]) -> None:
    """Check that vectors have as many entries as one another.

    Parameters
    ----------
    vectors : dict of str to (ndarray or None)
        The vectors by name.

    Raises
    ------
    ValueError
        If they differ.
    """
    sizes = {name: vector.size for name, vector in vectors.items() if vector is not None}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} has {size} entries" for name, size in sizes.items())
        raise ValueError(f"{found}; write as many for each.")


def size_of(*vectors: Array | None) -> int | None:
    """Count the entries of the first vector that is there.

    Parameters
    ----------
    *vectors : ndarray or None
        Vectors of one size.

    Returns
    -------
    int or None
        Their size.
    """
    return next((vector.size for vector in vectors if vector is not None), None)
