"""Stages of conjugate gradient: their budget, their precision, what they leave behind."""

import numpy as np
import pytest
from builders import one_term_problem, rotation

from jacrot._jacobians.dense import StackJacobians
from jacrot._jacobians.matrix import MatrixJacobians
from jacrot._search.log import Log
from jacrot._search.objective import Term
from jacrot._search.problem import Problem
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot._search.stages import orthonormal, precision, run_stage, run_stages
from jacrot.criteria._minimised import Cauchy

pytestmark = pytest.mark.search

LADDER = (0.5, 0.1, 0.01)


def planted_stack(rng, n_samples=40, m=10, n=8):
    sparse = rng.normal(size=(n_samples, m, n)) * (rng.uniform(size=(n_samples, m, n)) < 0.2)
    J = sparse @ rotation(n, 4)
    return J / np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))


def test_what_is_left_is_orthogonal_in_double_precision(rng):
    rough = rotation(30) + 1e-5 * rng.normal(size=(30, 30))
    mended = orthonormal(rough.astype(np.float32))
    assert mended.dtype == np.float64
    np.testing.assert_allclose(mended @ mended.T, np.eye(30), atol=1e-14)
    left, _, right = np.linalg.svd(rough.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(mended, left @ right, atol=1e-8)


def test_a_stage_lowers_its_own_cost(rng):
    problem, log = one_term_problem(StackJacobians(planted_stack(rng))), Log(100, 1e-5)
    point = run_stage(problem, [np.eye(8)], 0.1, 1e-5, log)
    objective = problem.objective(0.1, np.float64)
    assert objective.cost(*point) < objective.cost(np.eye(8)) - 0.1
    costs = [row[3] for row in log.history]
    assert costs[-1] == pytest.approx(objective.cost(*point), rel=1e-5)
    assert log.n_iter == len(costs) - 1


def test_a_spent_budget_ends_the_stages(rng):
    log = Log(7, 1e-9)
    run_stages(one_term_problem(StackJacobians(planted_stack(rng))), [np.eye(8)], log, *LADDER)
    assert log.n_iter == 7
    assert not log.converged
    assert len({row[0] for row in log.history}) < len(LADDER)


def test_a_criterion_without_smoothing_has_stages_of_its_own(rng):
    problem, log = one_term_problem(StackJacobians(planted_stack(rng))), Log(500, 1e-4)
    quartimax = one_term_problem(StackJacobians(planted_stack(rng)), criterion="quartimax")
    run_stages(quartimax, [rotation(8)], log, *LADDER)
    assert log.stages == ["ε=0", "ε=0"]
    log.stages.clear()
    run_stages(problem, [rotation(8)], log, *LADDER)
    assert log.stages == ["ε=0.5", "ε=0.1", "ε=0.01"]


def test_the_last_stage_is_finer_than_those_before(rng):
    problem = one_term_problem(StackJacobians(planted_stack(rng)))
    coarse, fine = Log(500, 1e-6), Log(500, 1e-6)
    run_stages(problem, [rotation(8)], coarse, 0.5, 0.01, coarseness=1e4)
    run_stages(problem, [rotation(8)], fine, 0.5, 0.01)
    steps = [sum(row[0] == 0 for row in log.history) for log in (coarse, fine)]
    assert steps[0] < steps[1]
    assert coarse.history[-1][3] == pytest.approx(fine.history[-1][3], rel=1e-4)


def test_one_axis_cannot_turn():
    log = Log(10, 1e-4)
    problem = one_term_problem(StackJacobians(np.ones((3, 4, 1))))
    assert run_stages(problem, [np.eye(1)], log, *LADDER) == [np.eye(1)]
    assert not log.history


def test_precision_follows_size_and_tolerance():
    small, large = (
        one_term_problem(MatrixJacobians(np.ones((2, size))))
        for size in (8, DEFAULT_SETTINGS.large_matrix)
    )
    stack = one_term_problem(StackJacobians(np.ones((2, 4, 4))))
    assert precision(small, 1e-4) is np.float64
    assert precision(large, 1e-4) is np.float32
    assert precision(stack, 1e-4) is np.float32
    assert precision(stack, 1e-8) is np.float64


def test_several_rotations_are_found_jointly(rng):
    # A chain of two layers whose hidden bases are those of sparse Jacobians: R is written by the
    # first layer and read by the second.
    def sparse(n_samples, m, n):
        return rng.normal(size=(n_samples, m, n)) * (rng.uniform(size=(n_samples, m, n)) < 0.25)

    R, S = rotation(8, 1), rotation(9, 2)
    stacks = [R.T @ sparse(60, 8, 6), S.T @ sparse(60, 9, 8) @ R, sparse(60, 5, 9) @ S]
    sides = [(0, None), (1, 0), (None, 1)]
    terms = tuple(
        Term(StackJacobians(J / np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))), *side)
        for J, side in zip(stacks, sides, strict=True)
    )
    problem = Problem(terms, one_term_problem(terms[0].jacobians).criterion, (None, None))
    start = [np.eye(8), np.eye(9)]
    point = run_stages(problem, start, Log(1000, 1e-4), 1.0, 0.2, 0.1, 0.03, 0.01)
    for found, hidden in zip(point, (R, S), strict=True):
        assert np.abs(found @ hidden.T).max(axis=1).min() > 0.999
    assert problem.exact_cost(point) == pytest.approx(problem.exact_cost([R, S]), rel=0.01)


def test_a_bounded_criterion_runs_where_hoyer_does(rng):
    problem, log = one_term_problem(StackJacobians(planted_stack(rng))), Log(500, 1e-4)
    bounded = Problem(problem.terms, Cauchy(), problem.bases)
    point = run_stages(bounded, [np.eye(8)], log, 1.0, 0.25)
    assert problem.exact_cost(point) < problem.exact_cost([np.eye(8)])
