"""Arrays at the door: what is accepted as one, and how it is kept from being changed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse

from jacrot._utils.foreign import refuse_masked, without_gradient

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]

# By the number of dimensions of a batch: rows (n, features), sequences (n, positions, features),
# images (n, channels, height, width).
FEATURES_AXIS = {2: 1, 3: 2, 4: 1}


# Data types of the package ml_dtypes.
_FLOAT = re.compile("bfloat16|float[468]_")


def read_only(array: ArrayLike) -> Array:
    """Copy an array, so that neither its owner nor its reader can change what a layer computes."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    # A view of it cannot be made writeable again.
    return copy.view()


def scale_of(array: Array) -> float:
    """Return the power of two next to the largest entry, 1 of zeros: division by it rounds nothing.

    Parameters
    ----------
    array : ndarray
        Finite numbers.

    Returns
    -------
    float
        The scale.
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
    """Read whatever NumPy can read, and PyTorch tensors that require gradients.

    Parameters
    ----------
    array : array-like
        What the user gave.
    name : str
        Its name in error messages.

    Returns
    -------
    ndarray
        The array.

    Raises
    ------
    TypeError
        If NumPy cannot read it: a ragged list, a sparse matrix, a tensor on a GPU.
    ValueError
        If it is a masked array with masked entries.
    """
    refuse_masked(array, name)
    if issparse(array):
        raise TypeError(f"{name} is a sparse matrix; pass {name}.toarray().")
    array = without_gradient(array, name)
    try:
        # A memory map stays one.
        result = np.asanyarray(array) if isinstance(array, np.memmap) else np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(
            f"{name} cannot be read as an array ({error}); pass a NumPy array."
        ) from error
    # What JAX and others add to NumPy: bfloat16 and narrower ones.
    return result.astype(np.float32) if _FLOAT.match(result.dtype.name) else result


def real_array(array: ArrayLike, name: str, ndim: int | tuple[int, ...]) -> Array:
    """Read an array of finite real numbers, as float32 or float64.

    Parameters
    ----------
    array : array-like
        What the user gave.
    name : str
        Its name in error messages.
    ndim : int or tuple of int
        The number of dimensions it must have, or may have.

    Returns
    -------
    ndarray
        The array, float32 where it was float32 or narrower, else float64.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it has another number of dimensions, holds NaN or infinity, or has masked entries.
    """
    result = any_array(array, name)
    if result.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {result.dtype}; pass an array of real numbers (float64 or float32)."
        )
    if result.dtype not in (np.float32, np.float64):
        # What is too large for float64 is refused below.
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
