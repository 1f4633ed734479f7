"""Interventions: counts are those of moving one activation by hand."""

import numpy as np
import pytest
from builders import random_network

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.datasets import make_planted_problem
from jacrot.inspection import locality_curve
from jacrot.layers import Conv2d, Dense

pytestmark = pytest.mark.search

PLANTED = make_planted_problem(8, 20, density=0.2, random_state=0)
OPTIONS = {"tol": 1e-2, "random_state": 0}


def by_hand(function, Z, step, share):
    """Count sample by sample, axis by axis: up in every other sample, down in the others."""
    means, squares = [], []
    for axis in range(Z.shape[1]):
        counts, effects = [], []
        for index, z in enumerate(Z):
            moved = z.copy()
            moved[axis] += (-1) ** index * step * Z[:, axis].std()
            change = np.abs(function(moved[None]) - function(z[None]))[0]
            effects.append((change**2).sum())
            if change.max() > 1e-12:
                counts.append((change > share * change.max()).sum())
        means.append(np.mean(counts) if counts else np.nan)
        squares.append(np.mean(effects))
    return np.array(means), np.array(squares)


@pytest.mark.parametrize("rotate_output", [False, True])
def test_counts_are_those_of_moving_by_hand(rotate_output):
    X = PLANTED.X[:25]
    estimator = JacobianSparsityRotation(
        PLANTED.network, rotate_output=rotate_output, **OPTIONS
    ).fit(PLANTED.X[:60])
    curve = locality_curve(estimator, X, steps=[0.2, 1.5], share=0.2)
    Q, P = estimator.rotation_, estimator.output_rotation_
    P = np.eye(20) if P is None else P

    def rotated(Z):
        return np.maximum(Z @ Q @ PLANTED.weights.T, 0) @ P.T

    for row, step in enumerate([0.2, 1.5]):
        counts, effects = by_hand(PLANTED.network, X, step, 0.2)
        np.testing.assert_allclose(curve.before[row], counts)
        np.testing.assert_allclose(curve.effect_before[row], effects)
        counts, effects = by_hand(rotated, X @ Q.T, step, 0.2)
        np.testing.assert_allclose(curve.after[row], counts)
        np.testing.assert_allclose(curve.effect_after[row], effects)
        np.testing.assert_allclose(curve.mean_after[row], counts.mean())
        np.testing.assert_allclose(curve.weighted_after[row], np.average(counts, weights=effects))
    assert curve.n_outputs == 20


def test_a_planted_basis_is_as_local_as_it_was_made():
    # Linear, so that a step of an axis moves the outputs that read it, and no others.
    problem = make_planted_problem(8, 32, density=0.2, activation="identity", random_state=0)
    estimator = JacobianSparsityRotation(problem.network, random_state=0).fit(problem.X)
    curve = locality_curve(estimator, problem.X, share=0.05, random_state=0)
    sparse = np.abs(problem.weights @ problem.rotation.T)
    fold_decoder = (sparse > 0.05 * sparse.max(axis=0)).sum(axis=0)
    np.testing.assert_allclose(np.sort(curve.after[0]), np.sort(fold_decoder))
    # Linear, so that the count does not depend on the step.
    for counts in (curve.before, curve.after):
        np.testing.assert_array_equal(counts, np.broadcast_to(counts[0], counts.shape))
    assert (curve.mean_after < curve.mean_before / 2).all()


def test_axes_and_samples_without_effect_are_left_out():
    weights = PLANTED.weights.copy()
    weights[:, 2] = 0
    X = PLANTED.X[:40].copy()
    # A constant activation is moved by no step.
    X[:, 5] = 1.0
    estimator = JacobianSparsityRotation(**OPTIONS).fit(weights, X)
    curve = locality_curve(estimator, X, steps=[0.5])
    np.testing.assert_array_equal(np.isnan(curve.before[0]), np.isin(np.arange(8), [2, 5]))
    np.testing.assert_array_equal(curve.effect_before[0, [2, 5]], 0)
    np.testing.assert_allclose(curve.mean_before[0], np.nanmean(curve.before[0]))
    # The same in single precision, whose rounding does not count as a change.
    single = JacobianSparsityRotation(**OPTIONS).fit(weights.astype("f"), X.astype("f"))
    other = locality_curve(single, X.astype("f"), steps=[0.5])
    np.testing.assert_allclose(other.before, curve.before, rtol=0.05)


@pytest.mark.parametrize("rotate_input", [False, True])
def test_every_layer_of_a_whole_network(rotate_input):
    network = random_network([6, 8, 7, 3], ["tanh", "tanh", "identity"])
    X = PLANTED.X[:12, :6]
    estimator = NetworkRotation(
        network, rotate_input=rotate_input, rotate_output=True, **OPTIONS
    ).fit(X)
    curves = locality_curve(estimator, X, steps=[0.5], share=0.1)
    assert list(curves) == [0, 1, 2]
    for site, curve in curves.items():
        layer = network[site : site + 1]
        Z = network[:site](X) if site else X
        R = estimator.rotations_.get(site, np.eye(Z.shape[1]))
        S = estimator.rotations_[site + 1]
        np.testing.assert_allclose(curve.before[0], by_hand(layer, Z, 0.5, 0.1)[0])
        counts, effects = by_hand(lambda z: layer(z @ R) @ S.T, Z @ R.T, 0.5, 0.1)  # noqa: B023
        np.testing.assert_allclose(curve.after[0], counts)
        np.testing.assert_allclose(curve.effect_after[0], effects)


def test_fewer_components_and_fewer_samples():
    estimator = JacobianSparsityRotation(PLANTED.network, n_components=3, **OPTIONS)
    estimator.fit(PLANTED.X)
    first, second = (
        locality_curve(estimator, PLANTED.X, steps=[1], max_samples=20, random_state=seed)
        for seed in (0, 1)
    )
    assert first.after.shape == (1, 3)
    assert first.before.shape == (1, 8)
    assert not np.array_equal(first.before, second.before)


def test_what_cannot_be_moved_is_refused():
    estimator = JacobianSparsityRotation(PLANTED.network, **OPTIONS).fit(PLANTED.X)
    for steps in ([], [0.1, -1], [0.0]):
        with pytest.raises(ValueError, match=r"steps=.* must be one or more positive numbers"):
            locality_curve(estimator, PLANTED.X, steps=steps)
    with pytest.raises(ValueError, match=r"share=1.5 must be at least 0 and below 1"):
        locality_curve(estimator, PLANTED.X, share=1.5)
    with pytest.raises(ValueError, match="max_samples=0 must be an integer of at least 1"):
        locality_curve(estimator, PLANTED.X, max_samples=0)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 2, 3, 3))
    convolution = Network([Conv2d(rng.normal(size=(4, 2, 2, 2)))])
    fitted = JacobianSparsityRotation(convolution, **OPTIONS).fit(images)
    with pytest.raises(ValueError, match=r"the network reads arrays of shape \(2, 3, 3\)"):
        locality_curve(fitted, images)
    positions = Network([Dense(rng.normal(size=(n, m)), None, "tanh") for m, n in ((2, 4), (4, 3))])
    sequences = rng.normal(size=(5, 3, 2))
    whole = NetworkRotation(positions, **OPTIONS).fit(sequences)
    with pytest.raises(ValueError, match=r"layer 0 reads arrays of shape \(3, 2\)"):
        locality_curve(whole, sequences)
