"""Random weights for null models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jacrot._utils.arrays import Array, Matrix
from jacrot.layers import BaseLayer, Function, Layer
from jacrot.network import Network

Change = Callable[[Array, np.random.RandomState], Array]


def shuffle(weight: Array, rng: np.random.RandomState) -> Array:
    """Return an array with its entries in random order.

    Parameters
    ----------
    weight : ndarray
        The array.
    rng : numpy.random.RandomState
        Random number generator.

    Returns
    -------
    ndarray
        Array of the same shape.
    """
    return rng.permutation(weight.ravel()).reshape(weight.shape)


def draw_singular_vectors(weight: Array, rng: np.random.RandomState) -> Array:
    """Return an array with the same singular values between random singular vectors.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, ...)
        The array, reshaped to ``(n_outputs, rest)``.
    rng : numpy.random.RandomState
        Random number generator; singular vectors are drawn from the Haar measure.

    Returns
    -------
    ndarray
        Array of the same shape and precision.
    """
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)
    left, right = (_draw_orthonormal_columns(size, len(values), rng) for size in matrix.shape)
    return ((left * values) @ right.T).reshape(weight.shape).astype(weight.dtype)


def change_weights(network: Network, change: Change, rng: np.random.RandomState) -> Network:
    """Return a network in which every weight array with two or more dimensions is replaced.

    Parameters
    ----------
    network : Network
        The network.
    change : callable
        ``change(array, rng)`` returns an array of the same shape.
    rng : numpy.random.RandomState
        Random number generator.

    Returns
    -------
    Network
        A network of the same layers with other weights.

    Raises
    ------
    ValueError
        If a layer is a Python function, whose weights cannot be changed.
    """
    return Network([_change(layer, change, rng) for layer in network])


def _change(value: Any, change: Change, rng: np.random.RandomState) -> Any:
    """Return a layer, or an argument of a layer, with changed weights."""
    if isinstance(value, Layer):
        if isinstance(value, Function) or not isinstance(value, BaseLayer):
            raise ValueError(
                f"layer {value!r} is a function whose weights cannot be shuffled; use a layer "
                "of jacrot.layers, or a BaseLayer of your own with arrays as arguments."
            )
        arguments = value.arguments.items()
        return value.changed(**{name: _change(item, change, rng) for name, item in arguments})
    if isinstance(value, (tuple, list)):
        return [_change(item, change, rng) for item in value]
    # Masks are not weights.
    is_weight = isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind == "f"
    return change(value, rng) if is_weight else value


def _draw_orthonormal_columns(size: int, n_columns: int, rng: np.random.RandomState) -> Matrix:
    """Draw orthonormal columns from the Haar measure, as ``random_rotation`` does."""
    q, r = np.linalg.qr(rng.normal(size=(size, n_columns)))
    return np.asarray(q * np.sign(np.diag(r)))
