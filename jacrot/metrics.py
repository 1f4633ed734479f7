"""Metrics that compare two sets of axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from jacrot._utils.arrays import Array, real_array

__all__ = ["amari_distance", "match_axes"]


def amari_distance(A: ArrayLike, B: ArrayLike) -> float:
    """Compute the Amari distance between two bases.

    The distance is invariant to order, sign and scale of the axes. With ``R = |A B⁻¹|``, it is the
    mean of ``(Σ R / max R − 1) / (n − 1)`` over rows and columns: 0 if every axis of `A` is an axis
    of `B`, and 1 if all entries of ``R`` are equal.

    Parameters
    ----------
    A, B : array-like of shape (n, n)
        Axes as rows.

    Returns
    -------
    float
        Distance between 0 and 1.

    Raises
    ------
    ValueError
        If the matrices are not square, differ in size, or one of them is singular.

    References
    ----------
    S. Amari, A. Cichocki and H. H. Yang, "A new learning algorithm for blind signal separation",
    NIPS 1995, section 5; here divided by its maximum.

    Examples
    --------
    >>> from jacrot.metrics import amari_distance
    >>> amari_distance([[0.0, -1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    0.0
    """
    a, b = _axes(A, B)
    if a.shape[0] != a.shape[1]:
        raise ValueError(f"A has shape {a.shape}; pass square matrices, or use match_axes.")
    for name, axes in (("A", a), ("B", b)):
        if np.linalg.matrix_rank(axes) < len(axes):
            raise ValueError(f"{name} is singular; pass linearly independent axes.")
    ratio = np.abs(np.linalg.solve(b.T, a.T).T)
    n = len(ratio)
    if n == 1:
        return 0.0
    rows = (ratio.sum(axis=1) / ratio.max(axis=1) - 1).mean()
    columns = (ratio.sum(axis=0) / ratio.max(axis=0) - 1).mean()
    return float((rows + columns) / (2 * (n - 1)))


def match_axes(A: ArrayLike, B: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Match the axes of two bases by the absolute cosine of their angle.

    The matching has the largest sum of ``|cos|`` (Hungarian algorithm).

    Parameters
    ----------
    A : array-like of shape (n_axes, n_features)
        Axes as rows.
    B : array-like of shape (n_axes_b, n_features)
        Axes as rows, at least as many as in `A`.

    Returns
    -------
    indices : ndarray of shape (n_axes,)
        The row of `B` that is matched with each row of `A`.
    cosines : ndarray of shape (n_axes,)
        ``|cos|`` of each pair, between 0 and 1.

    Raises
    ------
    ValueError
        If the numbers of features differ, `B` has fewer axes than `A`, or an axis is zero.

    References
    ----------
    H. W. Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics
    Quarterly 2 (1955).

    Examples
    --------
    >>> from jacrot.metrics import match_axes
    >>> match_axes([[0.0, -1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
    (array([1, 0]), array([1., 1.]))
    """
    a, b = _axes(A, B)
    if len(b) < len(a):
        raise ValueError(f"B has {len(b)} axes, fewer than the {len(a)} of A; swap A and B.")
    for name, axes in (("A", a), ("B", b)):
        lengths = np.linalg.norm(axes, axis=1, keepdims=True)
        if (lengths == 0).any():
            raise ValueError(f"{name} has an axis of length zero; leave it out.")
        axes /= lengths
    cosines = np.abs(a @ b.T)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return columns, np.minimum(cosines[rows, columns], 1)


def _axes(A: ArrayLike, B: ArrayLike) -> tuple[Array, Array]:
    a, b = (real_array(axes, name, 2).astype(np.float64) for axes, name in ((A, "A"), (B, "B")))
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"A has {a.shape[1]} features and B has {b.shape[1]}; pass the same number."
        )
    return a, b
