"""Random number generators, never NumPy's global one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state


def resolve_random_state(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """Build a random number generator; ``None`` gives a new one, never NumPy's global one.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        Seed or generator.

    Returns
    -------
    numpy.random.RandomState
        The generator.
    """
    return check_random_state(resolve_seed(random_state))


def resolve_seed(
    random_state: int | np.random.RandomState | None,
) -> int | np.random.RandomState:
    """Replace ``None`` by a seed from the operating system, so that it can be recorded.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        Seed or generator.

    Returns
    -------
    int or RandomState instance
        `random_state`, or the new seed.
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
        Random number generator.

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
