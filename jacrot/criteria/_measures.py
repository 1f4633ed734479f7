"""Measures of the sparsity of matrices, exact and without smoothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot._utils.arrays import any_array


def hoyer(J: ArrayLike) -> NDArray[np.float64]:
    """Compute the Hoyer sparsity of each matrix of a stack.

    ``(√N − ‖J‖₁/‖J‖₂) / (√N − 1)`` over the ``N`` entries of a matrix: 0 when all entries have
    the same size, 1 when only one is not zero. Its value does not depend on the scale.

    Parameters
    ----------
    J : array-like of shape (..., n_outputs, n_inputs)
        Jacobians.

    Returns
    -------
    ndarray of shape (...)
        Sparsity of each matrix; NaN for one of zeros, 1 for one of a single entry.

    References
    ----------
    P. O. Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5
    (2004), section 3.1.

    Examples
    --------
    >>> from jacrot.criteria import hoyer
    >>> hoyer([[[1.0, -1.0], [1.0, 1.0]], [[0.0, 3.0], [0.0, 0.0]]])
    array([0., 1.])
    """
    entries = _entries(J)
    absolute = np.abs(entries)
    return hoyer_of_norms(
        absolute.sum(axis=-1), np.sqrt((absolute**2).sum(axis=-1)), entries.shape[-1]
    )


def hoyer_of_norms(
    l1: NDArray[np.float64], l2: NDArray[np.float64], size: int
) -> NDArray[np.float64]:
    """Compute the Hoyer sparsity of matrices whose norms are known.

    Parameters
    ----------
    l1, l2 : ndarray
        Sum of the absolute entries, and root of the sum of their squares.
    size : int
        Number of entries of a matrix.

    Returns
    -------
    ndarray
        Sparsity, NaN where `l2` is zero.
    """
    with np.errstate(invalid="ignore"):
        ratio = l1 / l2
    if size == 1:
        return np.where(np.isnan(ratio), np.nan, 1.0)
    return np.asarray((np.sqrt(size) - ratio) / (np.sqrt(size) - 1))


def gini(J: ArrayLike) -> NDArray[np.float64]:
    """Compute the Gini index of the absolute entries of each matrix of a stack.

    ``1 − 2 Σ_k (|x|_(k)/‖x‖₁) (N − k + ½)/N`` over the ``N`` entries in rising order: 0 when all
    entries have the same size, ``1 − 1/N`` when only one is not zero.

    Parameters
    ----------
    J : array-like of shape (..., n_outputs, n_inputs)
        Jacobians.

    Returns
    -------
    ndarray of shape (...)
        Index of each matrix, NaN for one of zeros.

    References
    ----------
    N. Hurley and S. Rickard, "Comparing measures of sparsity", IEEE Transactions on Information
    Theory 55 (2009), table I.

    Examples
    --------
    >>> from jacrot.criteria import gini
    >>> gini([[0.0, 3.0], [0.0, 0.0]])
    array(0.75)
    """
    absolute = np.sort(np.abs(_entries(J)), axis=-1)
    size = absolute.shape[-1]
    weights = (size - np.arange(1, size + 1) + 0.5) / size
    return np.asarray(1 - 2 * (absolute @ weights) / absolute.sum(axis=-1))


def participation_ratio(J: ArrayLike) -> NDArray[np.float64]:
    """Compute the effective number of entries of each matrix of a stack.

    ``(Σ x²)² / Σ x⁴``: 1 when only one entry is not zero, ``N`` when all have the same size. Less
    is sparser.

    Parameters
    ----------
    J : array-like of shape (..., n_outputs, n_inputs)
        Jacobians.

    Returns
    -------
    ndarray of shape (...)
        Number for each matrix, NaN for one of zeros.

    References
    ----------
    R. J. Bell and P. Dean, "Atomic vibrations in vitreous silica", Discussions of the Faraday
    Society 50 (1970), where its inverse is introduced for vibration modes.

    Examples
    --------
    >>> from jacrot.criteria import participation_ratio
    >>> participation_ratio([[2.0, -2.0], [0.0, 2.0]])
    array(3.)
    """
    squares = _entries(J) ** 2
    return np.asarray(squares.sum(axis=-1) ** 2 / (squares**2).sum(axis=-1))


def _entries(J: ArrayLike) -> NDArray[np.float64]:
    """Flatten each matrix, scaled to a largest entry of 1 so that no power of it overflows."""
    stack = any_array(J, "J")
    if stack.dtype.kind not in "fiub":
        raise TypeError(f"J has dtype {stack.dtype}; pass real numbers.")
    if stack.ndim < 2:
        raise ValueError(
            f"J has shape {stack.shape}; pass a stack of matrices (n_samples, n_outputs, n_inputs)"
            " or one matrix."
        )
    entries = stack.reshape(*stack.shape[:-2], stack.shape[-2] * stack.shape[-1])
    entries = entries.astype(np.float64)
    largest = np.abs(entries).max(axis=-1, keepdims=True)
    # A matrix of zeros becomes one of NaN, as its measures are.
    with np.errstate(invalid="ignore"):
        return np.asarray(entries / largest)
