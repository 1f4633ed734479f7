"""Axes that are there recur; what is said of chance is what random rotations give."""

import numpy as np
import pytest
from builders import random_network
from scipy.optimize import linear_sum_assignment
from scipy.stats import ortho_group

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot.datasets import make_planted_problem
from jacrot.inspection import axis_stability
from jacrot.inspection._stability import chance_level

pytestmark = pytest.mark.search

PLANTED = make_planted_problem(10, 30, density=0.2, random_state=0)
OPTIONS = {"tol": 1e-2, "random_state": 0}


def test_planted_axes_recur():
    estimator = JacobianSparsityRotation(PLANTED.network, **OPTIONS).fit(PLANTED.X)
    stability = axis_stability(estimator, PLANTED.X, n_starts=3, n_resamples=2, random_state=0)
    assert stability.cosines_of_starts["input"].shape == (3, 10)
    assert stability.cosines_of_samples["input"].shape == (2, 10)
    assert (stability.recurrence["input"] > 0.99).all()
    assert stability.mean["input"] > 0.99
    assert 0.5 < stability.chance["input"] < 0.7
    np.testing.assert_allclose(stability.effect["input"].sum(), 1)
    assert not hasattr(estimator, "axis_stability_")


def test_axes_that_are_not_there_do_not_recur():
    # One dense square matrix for all samples has many bases that are as sparse.
    network = random_network([12, 12], ["identity"], seed=1)
    data = np.random.default_rng(0).normal(size=(40, 12))
    estimator = JacobianSparsityRotation(network, **OPTIONS).fit(data)
    stability = axis_stability(estimator, data, n_starts=4, n_resamples=1, random_state=0)
    assert stability.cosines_of_starts["input"].mean() < 0.9


def test_the_chance_level_is_that_of_random_rotations():
    for size in (1, 2, 7):
        draws = []
        for seed in range(400):
            cosines = np.abs(ortho_group(size, seed=seed).rvs()) if size > 1 else np.ones((1, 1))
            draws.append(cosines[linear_sum_assignment(-cosines)].mean())
        level = chance_level(size, np.random.RandomState(0))
        np.testing.assert_allclose(level, np.mean(draws), atol=0.02)


def test_axes_without_effect_say_nothing():
    weights = PLANTED.weights.copy()
    weights[:, :3] = 0
    estimator = JacobianSparsityRotation(**OPTIONS).fit(weights, PLANTED.X)
    stability = axis_stability(estimator, PLANTED.X, n_starts=1, n_resamples=1, random_state=0)
    recurrence = stability.recurrence["input"]
    np.testing.assert_array_equal(np.isnan(recurrence), [False] * 7 + [True] * 3)
    np.testing.assert_allclose(stability.effect["input"][7:], 0, atol=1e-12)
    # Weighted by effect, as a mean over the others.
    weighted = (recurrence * stability.effect["input"])[:7].sum()
    np.testing.assert_allclose(stability.mean["input"], weighted)


def test_both_rotations_by_name():
    both = JacobianSparsityRotation(PLANTED.network, rotate_output=True, **OPTIONS)
    both.fit(PLANTED.X[:60])
    stability = axis_stability(both, PLANTED.X[:60], n_starts=1, n_resamples=1, random_state=0)
    assert list(stability.recurrence) == ["input", "output"]
    assert stability.recurrence["output"].shape == (30,)
    network = random_network([6, 6], ["tanh"])
    tied = JacobianSparsityRotation(network, rotate_output="tied", **OPTIONS)
    tied.fit(PLANTED.X[:60, :6])
    stability = axis_stability(tied, PLANTED.X[:60, :6], n_starts=1, n_resamples=1, random_state=0)
    assert list(stability.recurrence) == ["input"]


def test_sites_of_a_whole_network_and_what_is_kept():
    network = random_network([6, 8, 7, 3], ["tanh", "tanh", "identity"])
    data = PLANTED.X[:60, :6]
    estimator = NetworkRotation(network, rotate_output=True, **OPTIONS).fit(data)
    stability = axis_stability(
        estimator, data, n_starts=1, n_resamples=1, keep=True, random_state=0
    )
    assert {site: axes.shape for site, axes in stability.recurrence.items()} == {
        1: (8,),
        2: (7,),
        3: (3,),
    }
    assert estimator.axis_stability_ is stability
    for site, effect in stability.effect.items():
        np.testing.assert_allclose(effect.sum(), 1, err_msg=str(site))


def test_a_share_of_the_sensitivity_keeps_its_number_of_axes():
    estimator = JacobianSparsityRotation(PLANTED.network, n_components=0.8, **OPTIONS)
    estimator.fit(PLANTED.X)
    n_axes = len(estimator.rotation_)
    assert n_axes < 10
    stability = axis_stability(estimator, PLANTED.X[:30], n_starts=1, n_resamples=3, random_state=0)
    assert stability.cosines_of_samples["input"].shape == (3, n_axes)


@pytest.mark.search(other_processes=True)
def test_seeds_agree_and_names_of_features_are_kept():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(PLANTED.X[:80], columns=[f"a{index}" for index in range(10)])
    estimator = JacobianSparsityRotation(PLANTED.network, **OPTIONS).fit(frame)
    first, second = (
        axis_stability(
            estimator, frame, n_starts=1, n_resamples=2, random_state=5, n_jobs=n_jobs
        ).cosines_of_samples["input"]
        for n_jobs in (None, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("name", ["n_starts", "n_resamples"])
def test_numbers_of_fits_are_checked(name):
    estimator = JacobianSparsityRotation(PLANTED.network, **OPTIONS).fit(PLANTED.X)
    with pytest.raises(ValueError, match=f"{name}=0 must be an integer of at least 1"):
        axis_stability(estimator, PLANTED.X, **{name: 0})
