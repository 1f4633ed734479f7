"""Cost, gradients and curvatures against autograd and finite differences."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
import sklearn
from autograd import grad
from builders import rotation
from scipy.linalg import expm

from jacrot._jacobians.dense import StackJacobians
from jacrot._jacobians.layer import LayerJacobians
from jacrot._search.objective import Objective, Term
from jacrot.criteria import hoyer
from jacrot.criteria._minimised import CRITERIA, CallableCriterion

FUNCTIONS = {
    "hoyer": lambda x, eps: anp.sqrt(x**2 + eps**2) - eps,
    "l1": lambda x, eps: anp.sqrt(x**2 + eps**2) - eps,
    "quartimax": lambda x, eps: -(x**4) / 4,
    "logcosh": lambda x, eps: anp.log(anp.cosh(x)),
    "callable": lambda x, eps: anp.log(1 + x**2),
}
CRITERION = {name: criterion() for name, criterion in CRITERIA.items()}
CRITERION["callable"] = CallableCriterion(lambda x: anp.log(1 + x**2))
N_SAMPLES, M, N = 7, 6, 4
SMOOTHING = 0.3


def jacobians(kind, output):
    rng = np.random.default_rng(0)
    n_outputs = N if output == "tied" else M
    if kind == "dense layer":
        return LayerJacobians(rng.normal(size=(n_outputs, N)), rng.normal(size=(7, n_outputs)))
    return StackJacobians(rng.normal(size=(N_SAMPLES, n_outputs, N)))


def cases():
    for name in FUNCTIONS:
        for output in ("fixed", "free", "tied"):
            for kind in ("dense layer", "stack"):
                yield pytest.param(name, output, kind, None, None, id=f"{name}-{output}-{kind}")
    for output in ("fixed", "free", "tied"):
        basis = rotation(N, 9)[:3]
        output_basis = {"fixed": None, "free": rotation(M, 9)[:5], "tied": basis}[output]
        yield pytest.param("hoyer", output, "stack", output_basis, basis, id=f"bases-{output}")


def setting(name, output, kind, output_basis, input_basis):
    stack = jacobians(kind, output)
    bases = (output_basis, input_basis) if output == "free" else (input_basis,)
    objective = Objective([Term.from_mode(stack, output)], CRITERION[name], SMOOTHING, bases)
    J = np.concatenate(list(stack.rotated(None, None)))
    left = np.eye(J.shape[1]) if output_basis is None else output_basis
    right = np.eye(N) if input_basis is None else input_basis

    def reference(*point):
        P = {"fixed": anp.eye(J.shape[1]), "free": point[0], "tied": point[0]}[output]
        if output != "fixed":
            P = anp.dot(P, left)
        X = anp.einsum("ab,ibc,dc->iad", P, J, anp.dot(point[-1], right))
        return anp.mean(FUNCTIONS[name](X, SMOOTHING))

    point = [rotation(len(right), 1)]
    if output == "free":
        point.insert(0, rotation(len(left), 2))
    return objective, reference, point


def one_sided(J, smoothing):
    return Objective([Term(StackJacobians(J), None, 0)], CRITERION["hoyer"], smoothing)


def turned(point, index, a, b, angle):
    generator = np.zeros((len(point[index]), len(point[index])))
    generator[a, b], generator[b, a] = angle, -angle
    result = list(point)
    result[index] = expm(generator) @ point[index]
    return result


ARGUMENTS = ("name", "output", "kind", "output_basis", "input_basis")
CASES = pytest.mark.parametrize(ARGUMENTS, list(cases()))
# With a tied output the mixed terms are left out, as the docstring says.
UNTIED = pytest.mark.parametrize(ARGUMENTS, [c for c in cases() if c.values[1] != "tied"])


@CASES
def test_cost_and_gradients_are_autograds(name, output, kind, output_basis, input_basis):
    objective, reference, point = setting(name, output, kind, output_basis, input_basis)
    np.testing.assert_allclose(objective.cost(*point), reference(*point), rtol=1e-12)
    for index, gradient in enumerate(objective.gradients(*point)):
        expected = grad(reference, index)(*point)
        # Only the skew part of a relative gradient says how the cost changes along rotations.
        relative = expected @ point[index].T
        np.testing.assert_allclose(gradient - gradient.T, relative - relative.T, atol=1e-12)


@UNTIED
def test_plane_curvatures_are_finite_differences(name, output, kind, output_basis, input_basis):
    objective, reference, point = setting(name, output, kind, output_basis, input_basis)
    step = 1e-3
    for index, curvatures in enumerate(objective.curvatures(*point)):
        for a in range(len(curvatures)):
            for b in range(a):
                costs = [
                    reference(*turned(point, index, a, b, angle)) for angle in (-step, 0, step)
                ]
                difference = (costs[0] - 2 * costs[1] + costs[2]) / step**2
                np.testing.assert_allclose(curvatures[a, b], difference, rtol=1e-4, atol=1e-5)
                assert curvatures[a, b] == pytest.approx(curvatures[b, a])


def chain_of_two():
    """Build a whole network: each hidden basis is written by one term and read by another."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, M, 3)), rng.normal(size=(N_SAMPLES, N, M))
    third = rng.normal(size=(1, 2, N))
    terms = [
        Term(StackJacobians(first), 0, None),
        Term(StackJacobians(second), 1, 0),
        Term(StackJacobians(third), None, 1),
    ]
    objective = Objective(terms, CRITERION["hoyer"], SMOOTHING)

    def reference(R, S):
        def mean(X):
            return anp.mean(FUNCTIONS["hoyer"](X, SMOOTHING))

        return (
            mean(anp.einsum("ab,ibc->iac", R, first))
            + mean(anp.einsum("ab,ibc,dc->iad", S, second, R))
            + mean(anp.einsum("iab,cb->iac", third, S))
        )

    return objective, reference, [rotation(M, 1), rotation(N, 2)]


def test_several_rotations_share_their_terms():
    objective, reference, point = chain_of_two()
    np.testing.assert_allclose(objective.cost(*point), reference(*point), rtol=1e-12)
    curvatures = objective.curvatures(*point)
    for index, gradient in enumerate(objective.gradients(*point)):
        relative = grad(reference, index)(*point) @ point[index].T
        np.testing.assert_allclose(gradient - gradient.T, relative - relative.T, atol=1e-12)
        costs = [reference(*turned(point, index, 2, 1, angle)) for angle in (-1e-3, 0, 1e-3)]
        difference = (costs[0] - 2 * costs[1] + costs[2]) / 1e-6
        np.testing.assert_allclose(curvatures[index][2, 1], difference, rtol=1e-4, atol=1e-5)


def log_of(tables, smoothing):
    """Count connections of several tables in one unit, by the definition."""
    powers = anp.concatenate([anp.ravel(table) for table in tables])
    share = max(smoothing / 10, 1e-3)
    return anp.mean(anp.log(1 + powers / (share**2 * anp.sum(powers))))


@pytest.mark.parametrize("smoothing", [1.0, 0.0])
@pytest.mark.parametrize("weighed", [False, True], ids=["plain", "weighed"])
@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
@pytest.mark.parametrize("kind", ["dense layer", "stack"])
def test_connections_are_counted_in_the_table_of_mean_squares(
    kind, output, weighed, smoothing, rng
):
    stack = jacobians(kind, output)
    J = np.concatenate(list(stack.rotated(None, None)))
    readout = rng.normal(size=(2, J.shape[1]))
    readout = readout.T @ readout + np.eye(J.shape[1]) if weighed and output != "fixed" else None
    term = Term.from_mode(stack, output, readout)
    objective = Objective([term], CRITERION["log"], smoothing)

    def table(*point):
        P = anp.eye(J.shape[1]) if output == "fixed" else point[0]
        X = anp.einsum("ab,ibc,dc->iad", P, J, point[-1])
        weights = 1 if readout is None else anp.diag(anp.dot(anp.dot(P, readout), P.T))[:, None]
        return weights * anp.mean(X**2, axis=0)

    def reference(*point):
        return log_of([table(*point)], smoothing)

    point = [rotation(N, 1)] if output != "free" else [rotation(M, 2), rotation(N, 1)]
    np.testing.assert_allclose(objective.cost(*point), reference(*point), rtol=1e-12)
    for index, gradient in enumerate(objective.gradients(*point)):
        relative = grad(reference, index)(*point) @ point[index].T
        scale = np.abs(relative).max()
        np.testing.assert_allclose(
            gradient - gradient.T, relative - relative.T, atol=1e-9 * scale, rtol=1e-9
        )
    np.testing.assert_allclose(objective.cost(*point), reference(*point), rtol=1e-12)
    if readout is not None or output == "tied":
        return
    # The curvatures are those of the parabola above the cost that touches it here.
    here = table(*point)
    width = max(smoothing / 10, 1e-3) ** 2 * here.sum()

    def parabola(*other):
        return float(np.mean(table(*other) / (width + here)))

    step = 1e-3
    for index, curvatures in enumerate(objective.curvatures(*point)):
        for a, b in ((1, 0), (3, 2)):
            there = [turned(point, index, a, b, angle) for angle in (-step, 0, step)]
            bounds, costs = [parabola(*p) for p in there], [reference(*p) for p in there]
            second = (bounds[0] - 2 * bounds[1] + bounds[2]) / step**2
            np.testing.assert_allclose(curvatures[a, b], second, rtol=1e-4, atol=1e-5)
            assert (costs[0] - 2 * costs[1] + costs[2]) / step**2 <= second + 1e-6


def test_connections_of_several_layers_are_counted_in_one_unit(rng):
    first, second = rng.normal(size=(5, M, 3)), rng.normal(size=(N_SAMPLES, N, M))
    readouts = [np.diag(np.arange(1.0, M + 1)), np.diag(np.arange(1.0, N + 1))]
    terms = [
        Term(StackJacobians(first), 0, None, readouts[0]),
        Term(StackJacobians(second), 1, 0, readouts[1]),
    ]
    objective = Objective(terms, CRITERION["log"], SMOOTHING)

    def reference(R, S):
        tables = []
        for axes, readout, X in (
            (R, readouts[0], anp.einsum("ab,ibc->iac", R, first)),
            (S, readouts[1], anp.einsum("ab,ibc,dc->iad", S, second, R)),
        ):
            weights = anp.diag(anp.dot(anp.dot(axes, readout), axes.T))[:, None]
            tables.append(weights * anp.mean(X**2, axis=0))
        return log_of(tables, SMOOTHING)

    point = [rotation(M, 1), rotation(N, 2)]
    np.testing.assert_allclose(objective.cost(*point), reference(*point), rtol=1e-12)
    for index, gradient in enumerate(objective.gradients(*point)):
        relative = grad(reference, index)(*point) @ point[index].T
        np.testing.assert_allclose(gradient - gradient.T, relative - relative.T, atol=1e-9)
    np.testing.assert_allclose(objective.cost(*point), reference(*point), rtol=1e-12)


def test_curvatures_of_several_tables_are_those_of_the_parabola_above(rng):
    first, second = rng.normal(size=(5, M, 3)), rng.normal(size=(N_SAMPLES, N, M))
    terms = [Term(StackJacobians(first), 0, None), Term(StackJacobians(second), 1, 0)]
    objective = Objective(terms, CRITERION["log"], SMOOTHING)

    def powers(R, S):
        tables = R @ first, S @ second @ R.T
        return np.concatenate([np.mean(X**2, axis=0).ravel() for X in tables])

    point = [rotation(M, 1), rotation(N, 2)]
    here = powers(*point)
    slopes = 1 / ((SMOOTHING / 10) ** 2 * here.sum() + here)
    # Only the share of a connection in all power counts.
    slopes -= (slopes * here).sum() / here.sum()
    step = 1e-3
    for index, curvatures in enumerate(objective.curvatures(*point)):
        for a, b in ((1, 0), (3, 2)):
            costs = [
                np.mean(slopes * powers(*turned(point, index, a, b, angle)))
                for angle in (-step, 0, step)
            ]
            difference = (costs[0] - 2 * costs[1] + costs[2]) / step**2
            np.testing.assert_allclose(curvatures[a, b], difference, rtol=1e-4, atol=1e-5)


def test_gradient_of_a_rotated_problem_is_the_rotated_gradient(rng):
    J, R = rng.normal(size=(N_SAMPLES, M, N)), rotation(N, 3)
    Q = rotation(N, 4)
    here = one_sided(J, SMOOTHING)
    there = one_sided(J @ R.T, SMOOTHING)
    np.testing.assert_allclose(here.cost(Q), there.cost(Q @ R.T), rtol=1e-13)
    # The relative gradient belongs to the planes of the axes, wherever these point.
    np.testing.assert_allclose(here.gradients(Q)[0], there.gradients(Q @ R.T)[0], atol=1e-13)


def test_blocks_do_not_change_the_result(monkeypatch):
    objective, _, point = setting("hoyer", "free", "dense layer", None, None)
    results = []
    for entries in (1, 50, 10**6):
        monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", entries)
        point = [matrix.copy() for matrix in point]
        results.append(
            (objective.cost(*point), objective.gradients(*point), objective.curvatures(*point))
        )
    for cost, gradients, curvatures in results[1:]:
        assert cost == pytest.approx(results[0][0], rel=1e-13)
        for one, other in zip(gradients + curvatures, results[0][1] + results[0][2], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("output", ["fixed", "free"])
def test_threads_do_not_change_the_result(output, monkeypatch, rng):
    monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", 1)
    stack = LayerJacobians(rng.normal(size=(M, N)), rng.normal(size=(40, M)))
    point = [rotation(M), rotation(N)][-1 if output == "fixed" else 0 :]
    results = []
    for n_threads in (1, 2, 5):
        with ThreadPoolExecutor(n_threads) as pool:
            terms = [Term.from_mode(stack, output)]
            objective = Objective(terms, CRITERION["hoyer"], SMOOTHING, apply=pool.map)
            results.append([objective.cost(*point), *objective.gradients(*point)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("criterion", ["hoyer", "log"])
def test_a_point_in_single_precision_has_a_gradient_in_single_precision(criterion):
    stack, point = jacobians("stack", "free"), [rotation(M, 1), rotation(N, 2)]
    double = Objective([Term.from_mode(stack, "free")], CRITERION[criterion], SMOOTHING)
    terms = [Term.from_mode(stack.cast(np.float32), "free")]
    single = Objective(terms, CRITERION[criterion], SMOOTHING)
    rounded = [matrix.astype(np.float32) for matrix in point]
    np.testing.assert_allclose(single.cost(*rounded), double.cost(*point), rtol=1e-5)
    for method in ("gradients", "curvatures"):
        pairs = zip(getattr(single, method)(*rounded), getattr(double, method)(*point), strict=True)
        for one, other in pairs:
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * np.abs(other).max())


class OnDemand:
    """Jacobians that are not an array."""

    def __init__(self, J):
        self.J, self.shape = J, J.shape

    def __getitem__(self, samples):
        return self.J[samples]


def test_only_what_bears_threads_gets_them(monkeypatch, rng):
    monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", 1)
    J = rng.normal(size=(N_SAMPLES, M, N))
    array, on_demand = (Term(StackJacobians(source), None, 0) for source in (J, OnDemand(J)))
    for criterion, terms, shared in (
        ("hoyer", [array], True),
        ("hoyer", [array, on_demand], False),
        ("callable", [array], False),
    ):
        calls = []

        def apply(*arguments, calls=calls):
            calls.append(arguments)
            return map(*arguments)

        objective = Objective(terms, CRITERION[criterion], SMOOTHING, apply=apply)
        objective.cost(rotation(N))
        assert bool(calls) == shared


class CountedStack(StackJacobians):
    made = 0

    def blocks(self, P, Q):
        def counted(block):
            self.made += 1
            return block()

        return [partial(counted, block) for block in super().blocks(P, Q)]


@pytest.mark.parametrize("surplus", [0, 1])
def test_blocks_are_kept_where_a_quarter_of_the_working_memory_has_room(surplus, rng):
    # A quarter of 1 MiB is 2¹⁵ numbers of eight bytes.
    stacks = [CountedStack(rng.normal(size=(2**10 + more, 4, 4))) for more in (0, surplus)]
    terms = [Term.from_mode(stack, "fixed") for stack in stacks]
    with sklearn.config_context(working_memory=1):
        objective = Objective(terms, CRITERION["hoyer"], SMOOTHING)
    for Q in (rotation(4, 1), rotation(4, 2)):
        for stack in stacks:
            stack.made = 0
        here = objective.at(Q)
        assert here.cost > 0
        assert len(here.gradients) == 1
        assert [stack.made for stack in stacks] == [1 + surplus, 1 + surplus]


def test_each_part_of_an_evaluation_is_computed_once():
    objective, _, point = setting("hoyer", "free", "stack", None, None)
    here = objective.at(*point)
    assert objective.n_evaluations == 0
    cost = here.cost
    assert here.cost == cost
    assert objective.n_evaluations == 1
    assert here.gradients is here.gradients
    assert here.cost == pytest.approx(cost, rel=1e-14)
    assert objective.n_evaluations == 2
    assert here.curvatures is here.curvatures
    assert objective.n_evaluations == 3
    # The gradients bring the cost.
    there = objective.at(point[0], rotation(N, 8))
    assert there.gradients[0].shape == (M, M)
    assert there.cost != cost
    assert objective.n_evaluations == 4


@pytest.mark.parametrize("kind", ["dense layer", "stack"])
def test_kept_blocks_do_not_change_the_result(kind):
    for output in ("fixed", "free"):
        objective, _, point = setting("hoyer", output, kind, None, None)
        with sklearn.config_context(working_memory=0):
            terms = objective.terms
            forgetful = Objective(terms, CRITERION["hoyer"], SMOOTHING)
        here, there = objective.at(*point), forgetful.at(*point)
        assert here.cost == there.cost
        for one, other in zip(here.gradients, there.gradients, strict=True):
            np.testing.assert_array_equal(one, other)


def test_exact_cost_is_affine_in_the_hoyer_sparsity(rng):
    J = rng.normal(size=(N_SAMPLES, M, N))
    J /= np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))
    objective = one_sided(J, 0.0)
    root = np.sqrt(M * N)
    for seed in range(3):
        Q = rotation(N, seed)
        sparsity = hoyer(J @ Q.T).mean()
        np.testing.assert_allclose(objective.cost(Q), (root - (root - 1) * sparsity) / root)
