"""The stochastic warm start on problems whose answer is known."""

import numpy as np
import pytest
from builders import rotation

from jacrot.criteria import get_criterion
from jacrot.jacobians import StackJacobians
from jacrot.metrics import match_axes
from jacrot.solver import WARM_ENTRIES, Problem, solve
from jacrot.warm_start import LEAST_BATCH, LEAST_STEPS, _batches, warm_start


def planted(output, n_samples=80, n=16):
    rng = np.random.default_rng(0)
    sparse = rng.normal(size=(n_samples, n, n)) * (rng.uniform(size=(n_samples, n, n)) < 0.15)
    P, Q = rotation(n, 3), rotation(n, 4)
    left = {"fixed": np.eye(n), "free": P, "tied": Q}[output]
    J = left.T @ sparse @ Q
    J /= np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))
    answers = {"fixed": [Q], "free": [P, Q], "tied": [Q]}[output]
    return Problem(StackJacobians(J), get_criterion("hoyer"), output), answers


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_it_comes_near_the_planted_axes(output):
    problem, answers = planted(output)
    start = [np.eye(len(answer)) for answer in answers]
    point = warm_start(problem.minibatch, 80, start, 1.0, np.random.RandomState(0))
    for matrix, answer in zip(point, answers, strict=True):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-10)
        assert match_axes(matrix, answer)[1].min() > 0.98
    np.testing.assert_array_equal(start[0], np.eye(len(start[0])))


def test_its_price_does_not_depend_on_the_number_of_samples():
    for n_samples in (80, 400):
        problem, _ = planted("fixed", n_samples, n=6)
        drawn = []

        def oracle(samples, smoothing, problem=problem, drawn=drawn):
            drawn.append(len(samples))
            return problem.minibatch(samples, smoothing)

        warm_start(oracle, n_samples, [np.eye(6)], 0.5, np.random.RandomState(0))
        assert drawn == [LEAST_BATCH] * LEAST_STEPS


def test_smoothing_falls_and_never_exceeds_its_start():
    problem, _ = planted("fixed", n=6)
    seen = []

    def oracle(samples, smoothing):
        seen.append(smoothing)
        return problem.minibatch(samples, smoothing)

    warm_start(oracle, 80, [np.eye(6)], 0.1, np.random.RandomState(0))
    assert seen[0] == 0.1
    assert np.all(np.diff(seen) < 0)
    assert 0.02 < seen[-1] < 0.021


def test_every_sample_comes_before_any_comes_again():
    batches = _batches(20, 8, np.random.RandomState(0))
    first = np.concatenate([next(batches) for _ in range(2)])
    assert len(set(first)) == 16
    assert set(np.concatenate([next(batches) for _ in range(20)])) == set(range(20))


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_the_search_uses_it_where_it_pays(output):
    n = int(np.sqrt(WARM_ENTRIES / 80)) + 1
    problem, answers = planted(output, n=n)
    labels = []
    start = [np.eye(len(answer)) for answer in answers]
    solution = solve(
        problem, start, start, None, 0, 0, max_iter=1000, tol=1e-4, progress=labels.append
    )
    assert labels[0] == "warm start"
    assert solution.converged
    for matrix, answer in zip(solution.point, answers, strict=True):
        assert match_axes(matrix, answer)[1].min() > 0.999
