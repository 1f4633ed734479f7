"""The stochastic warm start on problems whose answer is known."""

import numpy as np
import pytest
from builders import one_term_problem, rotation

from jacrot._jacobians.dense import StackJacobians
from jacrot._search.log import Log
from jacrot._search.problem import Problem
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot._search.solver import solve
from jacrot._search.warm_start import _batches, warm_start
from jacrot.metrics import match_axes

pytestmark = pytest.mark.search


def planted(output, n_samples=80, n=16):
    rng = np.random.default_rng(0)
    sparse = rng.normal(size=(n_samples, n, n)) * (rng.uniform(size=(n_samples, n, n)) < 0.15)
    P, Q = rotation(n, 3), rotation(n, 4)
    left = {"fixed": np.eye(n), "free": P, "tied": Q}[output]
    J = left.T @ sparse @ Q
    J /= np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))
    answers = {"fixed": [Q], "free": [P, Q], "tied": [Q]}[output]
    return one_term_problem(StackJacobians(J), output), answers


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_it_comes_near_the_planted_axes(output):
    problem, answers = planted(output)
    start = [np.eye(len(answer)) for answer in answers]
    point = warm_start(problem, start, (0.5, 0.001), np.random.RandomState(0), Log(1000, 1e-4))
    for matrix, answer in zip(point, answers, strict=True):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-10)
        assert match_axes(matrix, answer)[1].min() > 0.98
    np.testing.assert_array_equal(start[0], np.eye(len(start[0])))


def watched(problem, smoothing, monkeypatch, max_iter=1000):
    """Run a warm start; return the number of samples and the smoothing of every step."""
    steps = []
    original = Problem.minibatch

    def minibatch(self, samples, smoothing, dtype):
        steps.append((len(samples), smoothing))
        return original(self, samples, smoothing, dtype)

    monkeypatch.setattr(Problem, "minibatch", minibatch)
    log = Log(max_iter, 1e-4)
    warm_start(problem, [np.eye(6)], (smoothing, 0.001), np.random.RandomState(0), log)
    return steps, log


@pytest.mark.parametrize("n_samples", [80, 400])
def test_its_price_does_not_depend_on_the_number_of_samples(n_samples, monkeypatch):
    problem, _ = planted("fixed", n_samples, n=6)
    steps, log = watched(problem, 0.5, monkeypatch)
    assert [n_batch for n_batch, _ in steps] == [
        DEFAULT_SETTINGS.rows_per_axis
    ] * DEFAULT_SETTINGS.min_steps
    assert len(log.history) == DEFAULT_SETTINGS.min_steps


def test_smoothing_falls_and_never_exceeds_its_start(monkeypatch):
    problem, _ = planted("fixed", n=6)
    steps, _ = watched(problem, 0.1, monkeypatch)
    smoothings = [smoothing for _, smoothing in steps]
    assert smoothings[0] == 0.1
    assert np.all(np.diff(smoothings) < 0)
    assert 0.001 < smoothings[-1] < 1.02 * 0.001


def test_it_keeps_the_budget(monkeypatch):
    problem, _ = planted("fixed", n=6)
    steps, _ = watched(problem, 0.5, monkeypatch, max_iter=7)
    assert len(steps) == 7
    assert steps[-1][1] < 0.01


def test_every_sample_comes_before_any_comes_again():
    batches = _batches(20, 8, np.random.RandomState(0))
    first = np.concatenate([next(batches) for _ in range(2)])
    assert len(set(first)) == 16
    assert set(np.concatenate([next(batches) for _ in range(20)])) == set(range(20))


def test_one_axis_cannot_turn():
    log = Log(10, 1e-4)
    problem = one_term_problem(StackJacobians(np.ones((3, 4, 1))))
    assert warm_start(problem, [np.eye(1)], (0.5, 0.001), np.random.RandomState(0), log) == [
        np.eye(1)
    ]
    assert not log.history


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_a_search_on_a_stack_begins_with_it(output):
    problem, answers = planted(output)
    start = [np.eye(len(answer)) for answer in answers]
    solution = solve(problem, start, start, None, 0, 0, max_iter=1000, tol=1e-4)
    assert solution.stages[0] == "warm start"
    assert solution.converged
    for matrix, answer in zip(solution.point, answers, strict=True):
        assert match_axes(matrix, answer)[1].min() > 0.999
