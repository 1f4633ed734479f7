"""The plane sweep: frees pairs of axes that a local search leaves mixed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jacrot._search.settings import SearchSettings
from jacrot._utils.arrays import Array, Matrix
from jacrot.criteria._minimised import Criterion

Pairs = NDArray[np.intp]


def plane_sweep(
    rows: Array, rotation: Matrix, criterion: Criterion, settings: SearchSettings
) -> tuple[Matrix, int]:
    """Turn pairs of axes once, each to the best of some angles.

    For each plane ``(a, b)`` the exact cost of the columns ``a`` and ``b`` is computed at angles
    that divide a quarter turn, which itself changes nothing, and the best one is taken. Two sparse
    axes that are left mixed share their nonzero entries: visited are the pairs whose overlap
    ``Σ |x_a| |x_b| / (‖x_a‖ ‖x_b‖)`` is among the largest of one of the two axes, in rounds of
    disjoint pairs.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_axes)
        Stacked rows of the rotated Jacobians.
    rotation : ndarray of shape (n_axes, n_axes)
        The rotation so far.
    criterion : Criterion
        What to minimise, with no smoothing.
    settings : SearchSettings
        How many angles, and how many partners of an axis.

    Returns
    -------
    rotation : ndarray of shape (n_axes, n_axes)
        The new rotation.
    n_turned : int
        Number of pairs that were turned.
    """
    angles = np.linspace(0, np.pi / 2, settings.sweep_angles, endpoint=False)
    cosines, sines = np.cos(angles), np.sin(angles)
    # Axes first, so that an axis is contiguous.
    axes, rotation = np.ascontiguousarray(rows.T), rotation.copy()
    n_turned = 0
    for first, second in _rounds(_overlapping_pairs(axes, settings.sweep_partners), len(axes)):
        x, y = axes[first], axes[second]
        costs = np.stack(
            [
                criterion.value(c * x + s * y, 0.0).sum(axis=1)
                + criterion.value(c * y - s * x, 0.0).sum(axis=1)
                for c, s in zip(cosines.tolist(), sines.tolist(), strict=True)
            ]
        )
        best = costs.argmin(axis=0)
        # A turn must pay for itself, or axes that are as good as one another would swap forever.
        least_gain = 1e2 * np.finfo(rows.dtype).eps
        best[costs.min(axis=0) > costs[0] - least_gain * np.abs(costs[0])] = 0
        turned = np.flatnonzero(best)
        n_turned += turned.size
        cosine, sine = cosines[best[turned], None], sines[best[turned], None]
        first, second = first[turned], second[turned]
        # The rotation stays orthogonal in its own precision, whatever that of the rows.
        for matrix in (axes, rotation):
            c, s = cosine.astype(matrix.dtype), sine.astype(matrix.dtype)
            matrix[first], matrix[second] = (
                c * matrix[first] + s * matrix[second],
                c * matrix[second] - s * matrix[first],
            )
    return rotation, n_turned


def _overlapping_pairs(axes: Array, n_partners: int) -> Pairs:
    """Choose the pairs ``(a, b)``, ``a < b``, that overlap most, the most overlapping first."""
    n_axes = len(axes)
    absolute = np.abs(axes)
    absolute /= np.maximum(
        np.linalg.norm(absolute, axis=1, keepdims=True), np.finfo(axes.dtype).tiny
    )
    overlaps = absolute @ absolute.T
    np.fill_diagonal(overlaps, -1)
    n_partners = min(n_partners, n_axes - 1)
    partners = np.argpartition(-overlaps, n_partners - 1, axis=1)[:, :n_partners]
    near = np.zeros((n_axes, n_axes), bool)
    np.put_along_axis(near, partners, True, axis=1)
    first, second = np.nonzero(np.triu(near | near.T, 1))
    order = np.argsort(-overlaps[first, second], kind="stable")
    return np.stack([first, second], axis=1)[order]


def _rounds(pairs: Pairs, n_axes: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Distribute pairs to rounds of disjoint pairs, each to the first round free for both axes."""
    busy = [0] * n_axes
    rounds: list[list[tuple[int, int]]] = []
    for a, b in pairs.tolist():
        taken = busy[a] | busy[b]
        number = (~taken & (taken + 1)).bit_length() - 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append((a, b))
        busy[a] |= 1 << number
        busy[b] |= 1 << number
    for disjoint in rounds:
        first, second = np.array(disjoint, dtype=np.intp).T
        yield first, second
