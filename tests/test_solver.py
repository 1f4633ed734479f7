"""The search: its pieces, its budget, its report."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from builders import one_term_problem, rotation
from scipy.linalg import hadamard

from jacrot._jacobians.dense import StackJacobians
from jacrot._jacobians.layer import LayerJacobians
from jacrot._jacobians.networks import network_jacobians
from jacrot._search.log import Log
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot._search.solver import solve
from jacrot._search.stages import run_stages
from jacrot._search.strategy import Search
from jacrot._utils.random import random_rotation
from jacrot.datasets import make_planted_problem
from jacrot.metrics import match_axes

pytestmark = pytest.mark.search

OPTIONS = {"max_iter": 1000, "tol": 1e-4}


def normalised(J):
    return J / np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))


def problem(J, output="fixed", criterion="hoyer"):
    return one_term_problem(StackJacobians(normalised(J)), output, criterion)


def starts(J, output="fixed"):
    _, m, n = J.shape
    sizes = [m, n] if output == "free" else [n]
    return [np.eye(size) for size in sizes], [rotation(size, 5) for size in sizes]


def run(J, output="fixed", criterion="hoyer", restart=0, **options):
    given, singular = starts(J, output)
    task = problem(J, output, criterion)
    return task, solve(task, given, singular, None, restart, 0, **{**OPTIONS, **options})


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_points_are_orthogonal_and_the_cost_is_theirs(output, rng):
    J = rng.normal(size=(20, 6, 6))
    task, solution = run(J, output)
    for matrix in solution.point:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=1e-12)
    assert solution.cost == task.exact_cost(solution.point)
    assert solution.cost < task.exact_cost(starts(J, output)[0])
    assert solution.converged


def planted_stack(rng, n_samples=40, m=20, n=12, density=0.2, two_sided=False):
    sparse = rng.normal(size=(n_samples, m, n)) * (rng.uniform(size=(n_samples, m, n)) < density)
    P, Q = rotation(m, 3), rotation(n, 4)
    return (P.T @ sparse if two_sided else sparse) @ Q, P, Q


def test_planted_stack_is_found_one_sided(rng):
    J, _, Q = planted_stack(rng)
    _, solution = run(J)
    assert match_axes(solution.point[0], Q)[1].min() > 0.9999


def test_planted_stack_is_found_on_both_sides(rng):
    J, P, Q = planted_stack(rng, two_sided=True)
    _, solution = run(J, "free")
    assert match_axes(solution.point[0], P)[1].min() > 0.999
    assert match_axes(solution.point[1], Q)[1].min() > 0.999


def test_planted_stack_is_found_tied(rng):
    sparse = rng.normal(size=(60, 10, 10)) * (rng.uniform(size=(60, 10, 10)) < 0.15)
    Q = rotation(10, 4)
    _, solution = run(Q.T @ sparse @ Q, "tied")
    assert match_axes(solution.point[0], Q)[1].min() > 0.999


@pytest.mark.parametrize("output", ["fixed", "free"])
def test_a_saddle_point_is_left(output):
    # All entries are equal: the given basis is the worst there is, and its gradient is zero.
    J = hadamard(8)[None].astype(float)
    task, solution = run(J, output)
    np.testing.assert_allclose(task.exact_cost(starts(J, output)[0]), 1)
    np.testing.assert_allclose(solution.cost, 1 / np.sqrt(8), rtol=1e-3)


def test_a_sparse_basis_is_kept():
    J = np.stack([np.diag(np.arange(1.0, 6)), np.diag([2.0, 1, 1, 3, 1])])
    for output in ("fixed", "free", "tied"):
        task, solution = run(J, output)
        assert solution.cost <= task.exact_cost(starts(J, output)[0]) + 1e-12


@pytest.mark.parametrize("criterion", ["hoyer", "l1", "quartimax", "logcosh"])
@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_result_is_a_local_minimum(criterion, output, rng):
    task, solution = run(rng.normal(size=(10, 5, 5)), output, criterion, tol=1e-9)
    # At the last smoothing, no turn of any plane lowers the cost.
    smoothing = DEFAULT_SETTINGS.last_smoothing if task.criterion.smoothed else 0.0
    objective = task.objective(smoothing, np.float64)
    cost = objective.cost(*solution.point)
    for index, matrix in enumerate(solution.point):
        for a in range(5):
            for b in range(a):
                for angle in (-0.01, 0.01):
                    turn = np.eye(5)
                    turn[a, a] = turn[b, b] = np.cos(angle)
                    turn[a, b], turn[b, a] = np.sin(angle), -np.sin(angle)
                    point = list(solution.point)
                    point[index] = turn @ matrix
                    assert objective.cost(*point) > cost - 1e-9


def test_the_plane_sweep_frees_mixed_axes():
    found = {True: 0, False: 0}
    for seed in range(8):
        planted = make_planted_problem(32, 64, random_state=seed)
        stack = network_jacobians(planted.network, planted.X)
        _, norms = stack.norms()
        task = one_term_problem(stack.scaled(1 / norms)).collapsed()
        log = Log(1000, 1e-4)
        point = run_stages(task, [np.eye(32)], log, 1.0, 0.2, 0.1, 0.03, 0.01)
        search = Search(task, log, np.random.RandomState(0), [np.eye(32)])
        minimum = search.candidate(point)
        for sweep in found:
            (axes,) = (search.sweep(minimum) if sweep else minimum).point
            found[sweep] += match_axes(axes, planted.rotation)[1].min() > 0.99
    assert found[True] > found[False]


def scaled(weights):
    return weights[None] / np.sqrt(np.mean(weights**2))


def test_a_search_from_far_away_that_comes_back_is_the_last(rng):
    planted = make_planted_problem(16, 48, random_state=0)
    assert "warm start" not in run(scaled(planted.weights))[1].stages
    # Noise has many minima.
    assert run(rng.normal(size=(1, 24, 16)))[1].stages.count("warm start") == 3


def test_several_starts_lower_the_cost_and_follow_the_effort(rng):
    J = rng.normal(size=(1, 24, 12))
    one = replace(DEFAULT_SETTINGS, thorough_work=0)
    assert run(J)[1].cost < run(J, settings=one)[1].cost
    for options in ({"tol": 1e-2}, {"max_iter": 100}):
        assert "warm start" not in run(J, **options)[1].stages


@pytest.mark.slow
def test_a_bounded_criterion_finds_what_conjugate_gradient_alone_does_not():
    costs = {}
    for name, settings in (
        ("whole", DEFAULT_SETTINGS),
        ("ladder", replace(DEFAULT_SETTINGS, thorough_work=0)),
    ):
        costs[name] = [
            run(
                scaled(make_planted_problem(64, density=0.3, random_state=seed).weights),
                settings=settings,
            )[1].cost
            for seed in (0, 10)
        ]
    # Hidden axes lie a tenth below what hides them.
    np.testing.assert_array_less(costs["whole"], 0.9 * np.array(costs["ladder"]))


def test_every_constant_is_documented():
    fields = set(DEFAULT_SETTINGS.__dataclass_fields__)
    documented = set()
    for line in type(DEFAULT_SETTINGS).__doc__.splitlines():
        name, separator, _ = line.strip().partition(" : ")
        if separator:
            documented |= set(name.split(", "))
    assert documented == fields


def test_budget_is_kept_and_reported(rng):
    _, solution = run(rng.normal(size=(20, 6, 6)), "free", max_iter=7)
    assert not solution.converged
    assert solution.n_iter == 7


def test_history_tells_the_stages(rng):
    _, solution = run(rng.normal(size=(80, 6, 6)), "free")
    stage, iteration, evaluations, cost, seconds = np.array(solution.history).T
    assert set(stage) == set(range(int(stage[-1]) + 1))
    assert np.all(np.diff(stage) >= 0)
    assert np.all(iteration[np.flatnonzero(np.diff(stage)) + 1] == 0)
    assert np.all(np.diff(evaluations) >= 0)
    assert np.all(np.diff(seconds) >= 0)
    # Mini-batches of a warm start have costs of their own, and no steps of conjugate gradient.
    descents = [index for index, label in enumerate(solution.stages) if label != "warm start"]
    for index in descents:
        assert np.all(np.diff(cost[stage == index]) <= 1e-6)
    assert solution.n_iter == np.isin(stage, descents).sum() - len(descents)


def test_seed_decides(rng):
    J = rng.normal(size=(100, 8, 8))
    first, again = (run(J, "free", restart=1)[1] for _ in range(2))
    for one, other in zip(first.point, again.point, strict=True):
        np.testing.assert_array_equal(one, other)


def test_collapse_has_the_same_minimisers(rng):
    weight, slopes = rng.normal(size=(12, 5)), rng.normal(size=(30, 12))
    stack = LayerJacobians(weight, slopes)
    whole = one_term_problem(stack, criterion="l1")
    collapsed = whole.collapsed()
    costs = np.array(
        [[task.exact_cost([rotation(5, seed)]) for task in (whole, collapsed)] for seed in range(6)]
    )
    np.testing.assert_allclose(costs[:, 0] / costs[:, 1], costs[0, 0] / costs[0, 1])
    assert one_term_problem(stack, criterion="logcosh").collapsed() is None


def test_collapse_inside_a_basis_is_scaled_inside_it(rng):
    basis = rotation(6)[:2]
    layer = LayerJacobians(rng.normal(size=(9, 6)) * [9, 1, 1, 1, 1, 1], rng.normal(size=(30, 9)))
    task = one_term_problem(layer, input_basis=basis).collapsed()
    inside = np.concatenate(list(task.terms[0].jacobians.rotated(None, None)))
    np.testing.assert_allclose(np.mean(inside**2), 1)
    whole = (np.linalg.norm(layer.slopes[:, 0], ord=1, axis=0)[:, None] * layer.weight[0]) @ basis.T
    np.testing.assert_allclose(inside[0] / inside[0, 0, 0], whole / whole[0, 0])


def test_a_criterion_that_is_not_finite_is_refused(rng):
    beyond = rng.normal(size=(3, 20, 20)) * 1e-3
    beyond[:, 0, 0] = 1
    task = problem(beyond, criterion=lambda x: anp.log(1 + x**2))
    task.criterion.function = lambda x: anp.where(anp.abs(x) > 10, np.nan, x**2)
    with pytest.raises(ValueError, match="pass a function that is finite up to 20"):
        solve(task, [np.eye(20)], [np.eye(20)], [np.eye(20)], 0, 0, **OPTIONS)


def test_scale_of_a_criterion_does_not_matter(rng):
    J = rng.normal(size=(10, 5, 5))
    points = []
    for scale in (1e-12, 1.0, 1e6):
        task = problem(J, "free", lambda x, scale=scale: scale * anp.log(1 + x**2 / 0.09))
        given, singular = starts(J, "free")
        points.append(solve(task, given, singular, None, 0, 0, **OPTIONS).point)
    for point in points[1:]:
        assert match_axes(point[1], points[0][1])[1].min() > 0.999


def test_random_rotations_are_haar():
    rng = np.random.RandomState(0)
    draws = np.stack([random_rotation(3, rng) for _ in range(4000)])
    np.testing.assert_allclose(
        draws @ draws.transpose(0, 2, 1), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-12
    )
    # E[q] = 0, E[q²] = 1/3, and both determinants are as likely.
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / 3, atol=0.02)
    assert abs(np.linalg.det(draws).mean()) < 0.06


def test_the_global_random_state_is_left_alone(rng):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    run(rng.normal(size=(5, 4, 4)), restart=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_nothing_is_printed(rng, capsys):
    run(rng.normal(size=(5, 4, 4)))
    assert capsys.readouterr() == ("", "")
