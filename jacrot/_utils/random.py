"""Randomness, always from a source of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state


def random_source(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Make a source of randomness; ``None`` is a fresh one, never NumPy's global one.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        Seed or source.

    Returns
    -------
    numpy.random.RandomState
        The source.
    """
    return check_random_state(drawn_seed(random_state))


def drawn_seed(
    random_state: int | np.random.RandomState | None,
) -> int | np.random.RandomState:
    """Draw a seed where there is none, so that it can be told afterwards.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        Seed or source.

    Returns
    -------
    int or RandomState instance
        The same, or a seed from the operating system.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    return random_state


def random_rotation(size: int, rng: np.random.RandomState) -> NDArray[np.float64]:
    """Draw an orthogonal matrix from the Haar measure.

    Parameters
    ----------
    size : int
        Number of axes.
    rng : numpy.random.RandomState
        Source of randomness.

    Returns
    -------
    ndarray of shape (size, size)
        The matrix.

    References
    ----------
    F. Mezzadri, "How to generate random matrices from the classical compact groups", Notices
    of the AMS 54 (2007), section 5.
    """
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return np.asarray(q * np.sign(np.diag(r)))
