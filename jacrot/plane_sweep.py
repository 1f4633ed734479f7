"""The plane sweep: frees pairs of axes that a local search leaves mixed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jacrot._arrays import Array, Matrix
from jacrot.criteria import Criterion

N_ANGLES = 24


def plane_sweep(rows: Array, rotation: Matrix, criterion: Criterion) -> tuple[Matrix, int]:
    """Turn every pair of axes once, to the best of 24 angles.

    For each plane ``(a, b)`` the exact cost of the columns ``a`` and ``b`` is computed at
    ``0, π/48, ...`` (a quarter turn changes nothing), and the best angle taken. All pairs are
    visited as in a round-robin tournament: ``n − 1`` rounds of ``n/2`` disjoint pairs at once.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_axes)
        Stacked rows of the rotated Jacobians.
    rotation : ndarray of shape (n_axes, n_axes)
        The rotation so far.
    criterion : Criterion
        What to minimise, with no smoothing.

    Returns
    -------
    rotation : ndarray of shape (n_axes, n_axes)
        The new rotation.
    n_turned : int
        Number of pairs that were turned.
    """
    angles = np.arange(N_ANGLES) * (np.pi / 2 / N_ANGLES)
    cosines, sines = np.cos(angles), np.sin(angles)
    # Axes first, so that an axis is one contiguous row in both matrices.
    axes = np.hstack([rows.T, rotation])
    n_rows = len(rows)
    n_turned = 0
    for first, second in _rounds(axes.shape[0]):
        x, y = axes[first, :n_rows], axes[second, :n_rows]
        costs = np.stack(
            [
                criterion.derivatives(c * x + s * y, 0.0, 0)[0].sum(axis=1)
                + criterion.derivatives(c * y - s * x, 0.0, 0)[0].sum(axis=1)
                for c, s in zip(cosines, sines, strict=True)
            ]
        )
        best = costs.argmin(axis=0)
        # A turn must pay for itself, or axes that are as good as one another would swap forever.
        best[costs.min(axis=0) > costs[0] - 1e-9 * np.abs(costs[0])] = 0
        n_turned += int(np.count_nonzero(best))
        c, s = cosines[best, None], sines[best, None]
        axes[first], axes[second] = (
            c * axes[first] + s * axes[second],
            c * axes[second] - s * axes[first],
        )
    return axes[:, n_rows:], n_turned


def _rounds(n_axes: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pair all axes with one another, in rounds of disjoint pairs (the circle method)."""
    players = np.arange(n_axes + n_axes % 2)
    half = len(players) // 2
    for _ in range(len(players) - 1):
        first, second = players[:half], players[half:][::-1]
        real = (first < n_axes) & (second < n_axes)
        yield first[real], second[real]
        players = np.concatenate([players[:1], np.roll(players[1:], 1)])
