"""The plane sweep on problems whose answer is known."""

import numpy as np
import pytest
from builders import rotation

from jacrot._search.plane_sweep import _overlapping_pairs, _rounds, plane_sweep
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot.criteria._minimised import get_criterion

HOYER = get_criterion("hoyer")
N_PARTNERS = 8


@pytest.mark.parametrize("n", [2, 3, 7, 8])
def test_every_pair_meets_once_in_disjoint_rounds(n):
    pairs = np.array([(a, b) for b in range(n) for a in range(b)])
    met = []
    for first, second in _rounds(pairs, n):
        assert len({*first.tolist(), *second.tolist()}) == 2 * len(first)
        met += [frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert len(met) == len(set(met)) == n * (n - 1) // 2


def test_pairs_that_overlap_come_first_and_far_ones_not_at_all(rng):
    n = 2 * N_PARTNERS + 10
    axes = rng.normal(size=(n, 500)) * (rng.uniform(size=(n, 500)) < 0.05)
    axes[5] = axes[20] + 0.1 * axes[5]
    pairs = _overlapping_pairs(axes, N_PARTNERS)
    assert pairs[0].tolist() == [5, 20]
    assert np.all(pairs[:, 0] < pairs[:, 1])
    assert n * N_PARTNERS / 2 <= len(pairs) < n * (n - 1) / 2
    assert np.all(np.bincount(pairs.ravel(), minlength=n) >= N_PARTNERS)


def test_a_mixed_pair_is_freed(rng):
    sparse = rng.normal(size=(60, 6)) * (rng.uniform(size=(60, 6)) < 0.2)
    angle = 9 * np.pi / 2 / DEFAULT_SETTINGS.sweep_angles
    mixing = np.eye(6)
    mixing[np.ix_([1, 4], [1, 4])] = [
        [np.cos(angle), -np.sin(angle)],
        [np.sin(angle), np.cos(angle)],
    ]
    turned, n_turned = plane_sweep(sparse @ mixing.T, mixing, HOYER, DEFAULT_SETTINGS)
    np.testing.assert_allclose(np.abs(turned).max(axis=1), 1, atol=1e-12)
    assert n_turned == 1


def test_a_sweep_keeps_the_rows_and_lowers_the_cost(rng):
    rows, Q = rng.normal(size=(40, 7)), rotation(7)
    turned, n_turned = plane_sweep(rows @ Q.T, Q, HOYER, DEFAULT_SETTINGS)
    assert n_turned > 0
    np.testing.assert_allclose(turned @ turned.T, np.eye(7), atol=1e-12)
    assert np.abs(rows @ turned.T).sum() < np.abs(rows @ Q.T).sum()


def test_rows_in_single_precision_leave_the_rotation_orthogonal_in_double(rng):
    rows, Q = rng.normal(size=(40, 7)), rotation(7)
    turned, n_turned = plane_sweep((rows @ Q.T).astype(np.float32), Q, HOYER, DEFAULT_SETTINGS)
    assert n_turned > 0
    np.testing.assert_allclose(turned @ turned.T, np.eye(7), rtol=0, atol=1e-14)


def test_what_is_sparse_is_left_alone():
    assert plane_sweep(np.eye(5), np.eye(5), HOYER, DEFAULT_SETTINGS)[1] == 0
