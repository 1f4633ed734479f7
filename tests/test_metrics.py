"""Recovery measures."""

import numpy as np
import pytest
from builders import rotation

from jacrot.metrics import amari_distance, match_axes


def test_both_ignore_order_and_sign_and_amari_the_scale(rng):
    A = rotation(6)
    order = rng.permutation(6)
    B = -A[order]
    assert amari_distance(A, B) == pytest.approx(0, abs=1e-14)
    assert amari_distance(3 * A, B * rng.uniform(1, 2, size=(6, 1))) == pytest.approx(0, abs=1e-14)
    indices, cosines = match_axes(A, 2 * B)
    np.testing.assert_array_equal(order[indices], np.arange(6))
    np.testing.assert_allclose(cosines, 1)


def test_amari_distance_by_hand():
    # |A B⁻¹| = [[1, 0.5], [0.5, 1]]: every row and column gives 0.5.
    assert amari_distance([[1.0, 0.5], [0.5, 1.0]], np.eye(2)) == pytest.approx(0.5)
    assert amari_distance([[1.0, 1.0], [1.0, -1.0]], np.eye(2)) == pytest.approx(1)
    assert amari_distance([[2.0]], [[-1.0]]) == 0


def test_matching_is_the_best_over_all_not_greedy():
    A = np.eye(2)
    B = np.array([[1.0, 1.0], [0.8, 0.6]])
    indices, cosines = match_axes(A, B)
    np.testing.assert_array_equal(indices, [1, 0])
    np.testing.assert_allclose(cosines, [0.8, np.sqrt(0.5)])


def test_arguments_are_not_modified():
    A = 2 * np.eye(2)
    match_axes(A, A)
    np.testing.assert_array_equal(A, 2 * np.eye(2))


@pytest.mark.parametrize(
    ("function", "A", "B", "message"),
    [
        (match_axes, np.eye(3), np.eye(3)[:2], "B has 2 axes, fewer than the 3 of A"),
        (match_axes, np.eye(3), np.eye(4), "A has 3 features and B has 4"),
        (match_axes, np.zeros((1, 2)), np.eye(2), "A has an axis of length zero"),
        (match_axes, np.eye(2) * np.nan, np.eye(2), "A contains NaN"),
        (amari_distance, np.ones((1, 2)), np.eye(2), "pass square matrices"),
        (amari_distance, np.eye(2), np.ones((2, 2)), "B is singular"),
    ],
)
def test_bad_axes_are_refused(function, A, B, message):
    with pytest.raises(ValueError, match=message):
        function(A, B)
