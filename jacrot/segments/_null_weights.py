"""Weights that learned nothing, for null models."""

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
        Draws the order.

    Returns
    -------
    ndarray
        Of the same shape.
    """
    return rng.permutation(weight.ravel()).reshape(weight.shape)


def draw_singular_vectors(weight: Array, rng: np.random.RandomState) -> Array:
    """Return an array with the same singular values between random singular vectors.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, ...)
        The array, taken as ``(n_outputs, rest)``.
    rng : numpy.random.RandomState
        Draws the singular vectors, from the Haar measure.

    Returns
    -------
    ndarray
        Of the same shape and precision.
    """
    matrix = weight.reshape(len(weight), -1).astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)
    left, right = (_random_columns(size, len(values), rng) for size in matrix.shape)
    return ((left * values) @ right.T).reshape(weight.shape).astype(weight.dtype)


def change_weights(network: Network, change: Change, rng: np.random.RandomState) -> Network:
    """Return a network with every weight array of two dimensions or more changed.

    Parameters
    ----------
    network : Network
        The network.
    change : callable
        Takes an array and `rng`, returns an array of the same shape.
    rng : numpy.random.RandomState
        All randomness of the change.

    Returns
    -------
    Network
        The same layers with other weights.

    Raises
    ------
    ValueError
        If a layer is a function, whose weights are out of reach.
    """
    return Network([_changed(layer, change, rng) for layer in network])


def _changed(value: Any, change: Change, rng: np.random.RandomState) -> Any:
    """Change the weights in a layer, or in an argument of one."""
    if isinstance(value, Layer):
        if isinstance(value, Function) or not isinstance(value, BaseLayer):
            raise ValueError(
                f"layer {value!r} is a function whose weights cannot be shuffled; make it one "
                "of jacrot.layers, or as a BaseLayer of your own with arrays as arguments."
            )
        arguments = value.arguments.items()
        return value.changed(**{name: _changed(item, change, rng) for name, item in arguments})
    if isinstance(value, (tuple, list)):
        return [_changed(item, change, rng) for item in value]
    # Masks are not weights.
    is_weight = isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind == "f"
    return change(value, rng) if is_weight else value


def _random_columns(size: int, n_columns: int, rng: np.random.RandomState) -> Matrix:
    """Draw orthonormal columns from the Haar measure, as ``random_rotation`` does."""
    q, r = np.linalg.qr(rng.normal(size=(size, n_columns)))
    return np.asarray(q * np.sign(np.diag(r)))
