"""Sequences and images as rows, one for every position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import FEATURES_AXIS, Array, real_array

__all__ = ["at_positions"]


def at_positions(function: Callable[[Array], Any], X: ArrayLike) -> Array:
    """Apply a function of rows to the features at every position of sequences or images.

    Features at all positions are rotated alike. If ``rotation`` is a fitted
    :class:`jacrot.JacobianSparsityRotation` of ``c`` channels, ``at_positions(rotation.transform,
    X)`` rotates images ``(n, c, height, width)``, and ``rotation.inverse_transform`` undoes it.

    Parameters
    ----------
    function : callable
        Maps rows ``(n_rows, n_features)`` to rows ``(n_rows, n_results)``.
    X : array-like
        Rows ``(n_samples, n_features)``, sequences ``(n_samples, n_positions, n_features)`` or
        images ``(n_samples, n_channels, height, width)``.

    Returns
    -------
    ndarray
        The results, with the layout of `X`.

    Raises
    ------
    ValueError
        If `X` does not have 2, 3 or 4 dimensions, or `function` does not return one row for each.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.positions import at_positions
    >>> at_positions(lambda rows: rows[:, :1], np.ones((5, 3, 8, 8))).shape
    (5, 1, 8, 8)
    """
    x = real_array(X, "X", ndim=tuple(FEATURES_AXIS))
    rows = to_rows(x)
    results = np.asarray(function(rows))
    if results.ndim != 2 or len(results) != len(rows):
        raise ValueError(
            f"function returned shape {results.shape} for {len(rows)} rows; pass a function that "
            "returns one row for each, such as the transform of a fitted rotation."
        )
    axis = FEATURES_AXIS[x.ndim]
    last = np.moveaxis(x, axis, -1).shape[:-1]
    return np.moveaxis(results.reshape(*last, -1), -1, axis)


def to_rows(X: Array) -> Array:
    """Reshape sequences or images to rows, one for every position.

    Parameters
    ----------
    X : ndarray
        Rows, sequences or images.

    Returns
    -------
    ndarray of shape (n_samples * n_positions, n_features)
        The rows, ordered by input and then by position.
    """
    axis = FEATURES_AXIS[X.ndim]
    return np.moveaxis(X, axis, -1).reshape(-1, X.shape[axis])
