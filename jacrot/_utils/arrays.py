"""Validation of arrays, and read-only copies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from jacrot._utils.frameworks import check_not_masked, detach_tensor

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# Axis of the features by number of dimensions: rows (n, features), sequences (n, positions,
# features), images (n, channels, height, width).
FEATURES_AXIS = {2: 1, 3: 2, 4: 1}


# Data types of the package ml_dtypes.
_FLOAT = re.compile("bfloat16|float[468]_")


def read_only(array: ArrayLike) -> Array:
    """Return a read-only copy of an array, so that a layer that holds it cannot change."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    # Unlike the copy itself, a view cannot be made writeable again.
    return copy.view()


def power_of_two_scale(array: Array) -> float:
    """Return the power of two next to the largest entry, by which division is exact.

    Parameters
    ----------
    array : ndarray
        Finite numbers.

    Returns
    -------
    float
        The power of two, 1 for an array of zeros.
    """
    _, exponent = np.frexp(np.abs(array).max(initial=0))
    return float(np.exp2(exponent))


class Immutable:
    """An object whose attributes are set once, by ``vars(self).update`` in its constructor."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"a {type(self).__name__} is immutable; make another one instead of setting {name}."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; {name} cannot be deleted.")


def any_array(array: Any, name: str) -> NDArray[Any]:
    """Convert an array-like, including PyTorch tensors that require gradients, to an array.

    Parameters
    ----------
    array : array-like
        The value that the user passed.
    name : str
        Its name in error messages.

    Returns
    -------
    ndarray
        The array.

    Raises
    ------
    TypeError
        If NumPy cannot convert it, such as a ragged list, a sparse matrix, or a tensor on a GPU.
    ValueError
        If it is a masked array with masked entries.
    """
    check_not_masked(array, name)
    if issparse(array):
        raise TypeError(f"{name} is a sparse matrix; pass {name}.toarray().")
    array = detach_tensor(array, name)
    try:
        # Keep memory maps.
        result = np.asanyarray(array) if isinstance(array, np.memmap) else np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} cannot be read as an array ({error}); pass a NumPy array."
        ) from error
    # Types of ml_dtypes, which JAX uses: bfloat16 and narrower ones.
    return result.astype(np.float32) if _FLOAT.match(result.dtype.name) else result


def real_array(array: ArrayLike, name: str, ndim: int | tuple[int, ...]) -> Array:
    """Convert an array-like of finite real numbers to a float32 or float64 array.

    Parameters
    ----------
    array : array-like
        The value that the user passed.
    name : str
        Its name in error messages.
    ndim : int or tuple of int
        Allowed numbers of dimensions.

    Returns
    -------
    ndarray
        The array, float32 if it was float32 or narrower, and otherwise float64.

    Raises
    ------
    TypeError
        If the entries are not real numbers.
    ValueError
        If the number of dimensions is not allowed, or the array has NaN, infinite or masked
        entries.
    """
    result = any_array(array, name)
    if result.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {result.dtype}; pass an array of real numbers (float64 or float32)."
        )
    if result.dtype not in (np.float32, np.float64):
        # Numbers that overflow float64 raise an error below.
        with np.errstate(over="ignore"):
            result = result.astype(np.float32 if result.dtype == np.float16 else np.float64)
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if result.ndim not in allowed:
        raise ValueError(
            f"{name} has {result.ndim} dimension(s), shape {result.shape}; pass an array of "
            f"{' or '.join(map(str, allowed))} dimension(s)."
        )
    if not np.isfinite(result).all():
        raise ValueError(f"{name} contains NaN or infinity; pass finite numbers.")
    return result
