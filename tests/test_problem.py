"""What is minimised: its samples, its kinds, its costs."""

import numpy as np
import pytest
from builders import one_term_problem, rotation

from jacrot._jacobians.dense import StackJacobians
from jacrot._jacobians.layer import LayerJacobians
from jacrot._search.objective import Term
from jacrot._search.problem import Problem


def stack(rng, n_samples=10, m=5, n=4):
    return StackJacobians(rng.normal(size=(n_samples, m, n)))


@pytest.mark.parametrize(
    ("output", "one_sided", "two_sided"),
    [("fixed", True, False), ("free", False, True), ("tied", False, False)],
)
def test_it_knows_its_kind(output, one_sided, two_sided, rng):
    problem = one_term_problem(stack(rng, n=5), output)
    assert (problem.is_one_sided, problem.is_two_sided) == (one_sided, two_sided)
    assert not problem.is_one_matrix
    assert problem.first(1).is_one_matrix
    assert (problem.n_samples, problem.n_entries, problem.n_entries_each) == (10, 250, 25)


def test_first_samples_are_the_first(rng):
    problem = one_term_problem(stack(rng))
    assert problem.first(None) is problem
    assert problem.first(10) is problem
    Q = rotation(4)
    J = problem.terms[0].jacobians.source
    np.testing.assert_allclose(problem.first(3).exact_cost([Q]), np.abs(J[:3] @ Q.T).mean())


def test_minibatches_take_the_same_samples_of_every_stack(rng):
    long, short = stack(rng, 6), stack(rng, 4, 3)
    criterion = one_term_problem(long).criterion
    problem = Problem((Term(long, None, 0), Term(short, None, 0)), criterion, (None,))
    Q = np.eye(4)
    cost = problem.minibatch(np.array([1, 5]), 0.0, np.float32).cost(Q)
    expected = np.abs(long.source[[1, 5]]).mean() + np.abs(short.source[[1, 1]]).mean()
    np.testing.assert_allclose(cost, expected, rtol=1e-6)


def test_inputs_alone_keep_the_outputs(rng):
    J = stack(rng)
    alone = one_term_problem(J, "free").inputs_alone()
    Q = rotation(4)
    assert alone.is_one_sided
    np.testing.assert_allclose(alone.exact_cost([Q]), np.abs(J.source @ Q.T).mean())


def test_connections_of_a_layer_are_counted_in_one_matrix(rng):
    layer = LayerJacobians(rng.normal(size=(5, 4)), rng.normal(size=(10, 5)))
    problem = one_term_problem(layer, criterion="log")
    collapsed = problem.collapsed()
    assert collapsed.is_one_matrix
    for seed, smoothing in ((1, 1.0), (2, 0.1), (3, 0.0)):
        point = [rotation(4, seed)]
        costs = [
            part.objective(smoothing, np.float64).cost(*point) for part in (problem, collapsed)
        ]
        np.testing.assert_allclose(*costs, rtol=1e-10)


def test_only_layers_collapse(rng):
    assert one_term_problem(stack(rng)).collapsed() is None
    layer = LayerJacobians(rng.normal(size=(5, 4)), rng.normal(size=(10, 5)))
    collapsed = one_term_problem(layer, "free").collapsed()
    assert collapsed.is_one_matrix
    assert collapsed.is_one_sided
