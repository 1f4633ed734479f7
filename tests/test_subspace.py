"""Subspaces and the canonical form of axes."""

import numpy as np
import pytest
from builders import rotation

from jacrot._search.subspace import (
    complete_axes,
    effective_basis,
    fix_signs,
    leading_basis,
    nearest_rotation,
    principal_directions,
    sensitivities,
    sort_axes,
)


def moment(eigenvalues, seed=0):
    axes = rotation(len(eigenvalues), seed)
    return axes.T @ np.diag(eigenvalues) @ axes, axes


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_directions_without_effect_are_found_at_every_scale(scale):
    M, axes = moment(np.array([3.0, 2.0, 1e-16, 1.0, 0.0]))
    basis = effective_basis(scale * M)
    assert basis.shape == (3, 5)
    np.testing.assert_allclose(basis @ axes[[2, 4]].T, 0, atol=1e-7)
    assert effective_basis(scale * moment(np.arange(1.0, 5))[0]) is None


def test_principal_directions_fall():
    M, axes = moment(np.array([1.0, 3.0, 2.0]))
    directions, eigenvalues = principal_directions(M)
    np.testing.assert_allclose(eigenvalues, [3, 2, 1])
    np.testing.assert_allclose(np.abs(directions @ axes[[1, 2, 0]].T), np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("n_components", "n_basis", "n_axes"),
    [(1, 1, 1), (3, 3, 3), (5, 4, 5), (0.6, 2, 2), (0.5, 1, 1)],
)
def test_leading_basis(n_components, n_basis, n_axes):
    M, _ = moment(np.array([5.0, 3.0, 1.5, 0.5, 0.0]))
    basis, asked = leading_basis(M, n_components)
    assert (len(basis), asked) == (n_basis, n_axes)
    np.testing.assert_allclose(basis @ basis.T, np.eye(n_basis), atol=1e-12)


def test_whole_sensitivity_is_every_effective_direction():
    for seed in range(20):
        M, _ = moment(
            np.random.default_rng(seed).uniform(0.1, 1, size=6) * [1, 1, 1, 1, 0, 0], seed
        )
        assert leading_basis(M, 1.0)[1] == 4


def test_completion_keeps_dead_units_as_axes():
    axes = np.zeros((3, 5))
    axes[np.ix_([0, 1, 2], [0, 2, 4])] = rotation(3)
    whole = complete_axes(axes, 5)
    np.testing.assert_array_equal(whole[:3], axes)
    np.testing.assert_allclose(whole @ whole.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(np.sort(np.abs(whole[3:]).max(axis=0)), [0, 0, 0, 1, 1], atol=1e-12)


def test_nearest_rotation_of_axes_inside_is_themselves():
    basis, inside = rotation(5)[:3], rotation(3, 1)
    axes = complete_axes(inside @ basis, 5)[[3, 0, 1, 4, 2]]
    R = nearest_rotation(axes, basis)
    np.testing.assert_allclose(R @ basis, inside @ basis, atol=1e-12)
    np.testing.assert_array_equal(nearest_rotation(axes, None), axes)


def test_canonical_form_forgets_order_and_sign(rng):
    M, _ = moment(np.array([4.0, 3.0, 2.0, 1.0]))
    axes = rotation(4, 3)
    expected = fix_signs(sort_axes(axes, M))
    shuffled = axes[rng.permutation(4)] * rng.choice([-1, 1], size=(4, 1))
    np.testing.assert_array_equal(fix_signs(sort_axes(shuffled, M)), expected)
    assert np.all(np.diff(sensitivities(expected, M)) <= 0)
    assert np.all(expected[np.arange(4), np.abs(expected).argmax(axis=1)] > 0)


def test_equal_effects_keep_their_order():
    noise = np.diag(1 + 1e-15 * np.arange(6))
    np.testing.assert_array_equal(sort_axes(np.eye(6), noise), np.eye(6))
