"""The line search on functions whose answer is known."""

import copy

import numpy as np
import pytest
from pymanopt.manifolds import Euclidean

from jacrot._search.line_search import QuadraticLineSearcher

PLANE = Euclidean(2)
LONGEST = 0.7


def searcher(tol=0.0):
    costs = []
    return QuadraticLineSearcher(tol, LONGEST, lambda cost, x: costs.append(cost)), costs


def test_parabola_is_minimised_exactly():
    def cost(x):
        return float((x[0] - 0.3) ** 2)

    x, d = np.zeros(2), np.array([0.1, 0.0])
    step, new_x = searcher()[0].search(cost, PLANE, x, d, cost(x), -0.06)
    np.testing.assert_allclose(new_x, [0.3, 0], atol=1e-12)
    assert step == pytest.approx(0.3)


def test_a_trial_that_is_nearly_right_is_made_only_once():
    def cost(x):
        trials.append(float(x[0]))
        return float((x[0] - 0.3) ** 2)

    trials, search = [], searcher()[0]
    x, d = np.zeros(2), np.array([0.2, 0.0])
    search.search(cost, PLANE, x, d, 0.09, -0.12)
    search.search(cost, PLANE, x, d, 0.09, -0.12)
    # The parabola is the cost itself, and the next search begins with its minimum.
    np.testing.assert_allclose(trials, [0.2, 0.3])


def test_no_step_is_longer_than_allowed():
    x, d = np.zeros(2), np.array([3.0, 4.0])
    step, _ = searcher()[0].search(lambda x: -float(x.sum()), PLANE, x, d, 0.0, -7.0)
    assert step == pytest.approx(LONGEST)


def test_a_cost_that_is_not_finite_is_backed_away_from():
    def cost(x):
        return np.nan if x[0] > 0.1 else float((x[0] - 0.05) ** 2)

    x, d = np.zeros(2), np.array([0.6, 0.0])
    _, new_x = searcher()[0].search(cost, PLANE, x, d, cost(x), -0.06)
    assert cost(new_x) < cost(x)


def test_no_decrease_ends_the_run():
    search, costs = searcher()
    x, d = np.zeros(2), np.array([1.0, 0.0])
    step, new_x = search.search(lambda x: float(abs(x[0])), PLANE, x, d, 0.0, -1.0)
    assert step == 0
    assert new_x is x
    assert search.n_steps == 0
    assert not costs


def test_small_decrease_ends_the_run():
    search, costs = searcher(tol=1e-2)
    x, d = np.zeros(2), np.array([1.0, 0.0])
    for cost in (10.0, 9.0, 8.0, 7.9, 7.85, 7.8):
        assert search.search(lambda x: -float(x[0]), PLANE, x, d, cost, -1.0)[0] > 0
    assert search.search(lambda x: -float(x[0]), PLANE, x, d, 7.79, -1.0)[0] > 0
    assert search.search(lambda x: -float(x[0]), PLANE, x, d, 7.785, -1.0)[0] == 0
    assert costs == [10.0, 9.0, 8.0, 7.9, 7.85, 7.8, 7.79]


def test_pymanopts_copy_is_the_same_object():
    search, _ = searcher()
    assert copy.deepcopy(search) is search


@pytest.mark.parametrize("size", [1e-250, 1e250])
def test_the_length_of_the_direction_does_not_matter(size):
    def cost(x):
        return float((x[0] - 0.3) ** 2)

    x, d = np.zeros(2), np.array([0.1, 0.0])
    # The norm of so long a direction overflows in the plane; that of the search is scaled.
    search = searcher()[0]
    search._step = 1 / size
    plane = Scaled(size)
    step, new_x = search.search(cost, plane, x, d, cost(x), -0.06 * size)
    np.testing.assert_allclose(new_x, [0.3, 0], atol=1e-12)
    assert step == pytest.approx(0.3)


class Scaled:
    """The plane, where a tangent vector `d` stands for ``size * d``."""

    def __init__(self, size):
        self.size = size

    def norm(self, x, d):
        return float(np.linalg.norm(d)) * self.size

    def retraction(self, x, d):
        return x + self.size * d
