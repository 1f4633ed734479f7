"""Subspaces inside which axes turn: directions that have an effect, and what completes them."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from scipy.linalg import eigh, qr

from jacrot._utils.arrays import Matrix

# A direction whose mean square effect is this small beside the largest has none that counts:
# what is left of an exact zero after rounding the weights to single precision is below it.
NEGLIGIBLE = 1e-12


def principal_directions(moment: Matrix) -> tuple[Matrix, Matrix]:
    """Find the eigenvectors of a second moment as rows, and its eigenvalues, falling.

    Parameters
    ----------
    moment : ndarray of shape (n_features, n_features)
        A symmetric, positive semidefinite matrix such as ``E[JᵀJ]``.

    Returns
    -------
    directions : ndarray of shape (n_features, n_features)
        Orthonormal rows.
    eigenvalues : ndarray of shape (n_features,)
        Their mean square effects.
    """
    eigenvalues, vectors = eigh(moment / np.trace(moment))
    return vectors.T[::-1].copy(), eigenvalues[::-1] * np.trace(moment)


def effective_basis(moment: Matrix) -> Matrix | None:
    """Find an orthonormal basis of the directions that have an effect.

    Parameters
    ----------
    moment : ndarray of shape (n_features, n_features)
        Second moment of the Jacobians.

    Returns
    -------
    ndarray of shape (n_effective, n_features) or None
        ``None`` if all directions have one.
    """
    directions, eigenvalues = principal_directions(moment)
    effective = eigenvalues > NEGLIGIBLE * eigenvalues[0]
    return None if effective.all() else directions[effective]


def leading_basis(moment: Matrix, n_components: int | float) -> tuple[Matrix, int]:
    """Find the leading directions of a second moment.

    Parameters
    ----------
    moment : ndarray of shape (n_features, n_features)
        Second moment of the Jacobians.
    n_components : int or float
        How many, or which fraction of the trace they must reach together.

    Returns
    -------
    basis : ndarray of shape (n_leading, n_features)
        Those of them that have an effect.
    n_axes : int
        How many were asked for.
    """
    directions, eigenvalues = principal_directions(moment)
    if isinstance(n_components, Integral):
        n_axes = int(n_components)
    else:
        shares = np.cumsum(np.maximum(eigenvalues, 0)) / np.maximum(eigenvalues, 0).sum()
        # 1 means every direction with an effect, however the shares round.
        n_axes = int(np.searchsorted(shares, n_components - NEGLIGIBLE) + 1)
    effective = int(np.count_nonzero(eigenvalues > NEGLIGIBLE * eigenvalues[0]))
    return directions[: min(n_axes, effective)], n_axes


def complete_axes(axes: Matrix, n_axes: int) -> Matrix:
    """Add orthonormal rows.

    The pivots choose features that the axes say least about, so that dead units stay axes.

    Parameters
    ----------
    axes : ndarray of shape (n_given, n_features)
        Orthonormal rows.
    n_axes : int
        Number of rows to return.

    Returns
    -------
    ndarray of shape (n_axes, n_features)
        Orthonormal rows, the given ones first.
    """
    missing = n_axes - len(axes)
    if missing == 0:
        return axes
    complement, _, _ = qr(np.eye(axes.shape[1]) - axes.T @ axes, pivoting=True)
    return np.vstack([axes, complement.T[:missing]])


def nearest_rotation(axes: Matrix, basis: Matrix | None) -> Matrix:
    """Find the rotation inside a basis that comes nearest to given axes.

    It uses the axes that lie in the subspace most.

    Parameters
    ----------
    axes : ndarray of shape (n_features, n_features)
        Orthonormal rows.
    basis : ndarray of shape (n_basis, n_features) or None
        Orthonormal rows, ``None`` for the whole space.

    Returns
    -------
    ndarray of shape (n_basis, n_basis)
        ``R`` such that the rows of ``R @ basis`` are near `axes`.
    """
    if basis is None:
        return axes
    inside = axes @ basis.T
    most = np.argsort(-np.linalg.norm(inside, axis=1), kind="stable")[: len(basis)]
    left, _, right = np.linalg.svd(inside[np.sort(most)])
    return np.asarray(left @ right)


def sensitivities(axes: Matrix, moment: Matrix) -> Matrix:
    """Compute the mean square effect of each axis.

    Parameters
    ----------
    axes : ndarray of shape (n_axes, n_features)
        Orthonormal rows.
    moment : ndarray of shape (n_features, n_features)
        Second moment ``M`` of the Jacobians.

    Returns
    -------
    ndarray of shape (n_axes,)
        ``qᵀ M q`` for each axis ``q``.
    """
    return np.maximum(np.einsum("ab,ab->a", axes @ moment, axes), 0)


def sort_axes(axes: Matrix, moment: Matrix) -> Matrix:
    """Sort axes in the canonical order.

    Parameters
    ----------
    axes : ndarray of shape (n_axes, n_features)
        Orthonormal rows.
    moment : ndarray of shape (n_features, n_features)
        Second moment ``M`` of the Jacobians.

    Returns
    -------
    ndarray of shape (n_axes, n_features)
        The axes by falling ``qᵀ M q``; those that differ by rounding only keep their order.
    """
    effects = sensitivities(axes, moment)
    return axes[np.argsort(-np.round(effects / effects.max(), 12), kind="stable")]


def fix_signs(axes: Matrix) -> Matrix:
    """Fix the signs of axes, as ``svd_flip`` does for PCA.

    Parameters
    ----------
    axes : ndarray of shape (n_axes, n_features)
        Rows.

    Returns
    -------
    ndarray of shape (n_axes, n_features)
        The axes, with the entry of largest magnitude positive.
    """
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return np.asarray(axes * np.sign(largest))
