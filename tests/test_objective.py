"""Cost, gradients and curvatures against autograd and finite differences."""

import autograd.numpy as anp
import numpy as np
import pymanopt
import pytest
from autograd import grad
from builders import rotation
from pymanopt.manifolds import Product, Stiefel
from scipy.linalg import expm

from jacrot.criteria import CRITERIA, CallableCriterion, hoyer
from jacrot.jacobians import DenseLayerJacobians, StackJacobians
from jacrot.objective import Objective

FUNCTIONS = {
    "hoyer": lambda x, eps: anp.sqrt(x**2 + eps**2) - eps,
    "l1": lambda x, eps: anp.sqrt(x**2 + eps**2) - eps,
    "quartimax": lambda x, eps: -(x**4) / 4,
    "logcosh": lambda x, eps: anp.log(anp.cosh(x)),
    "callable": lambda x, eps: anp.log(1 + x**2),
}
CRITERION = {name: criterion() for name, criterion in CRITERIA.items()}
CRITERION["callable"] = CallableCriterion(lambda x: anp.log(1 + x**2))
RNG = np.random.default_rng(0)
N_SAMPLES, M, N = 7, 6, 4
SMOOTHING = 0.3


def jacobians(kind, output):
    n_outputs = N if output == "tied" else M
    if kind == "dense layer":
        return DenseLayerJacobians(RNG.normal(size=(n_outputs, N)), RNG.normal(size=(7, n_outputs)))
    return StackJacobians(RNG.normal(size=(N_SAMPLES, n_outputs, N)))


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
    objective = Objective(stack, CRITERION[name], SMOOTHING, output, output_basis, input_basis)
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
        # Off the manifold a Euclidean gradient is arbitrary; along it both must agree.
        Q = point[index]
        np.testing.assert_allclose(
            gradient @ Q.T - Q @ gradient.T, expected @ Q.T - Q @ expected.T, atol=1e-12
        )


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


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_first_order_model_on_pymanopts_manifold(output):
    objective, _, point = setting("hoyer", output, "stack", None, None)
    factors = [Stiefel(len(matrix), len(matrix)) for matrix in point]
    manifold = Product(factors) if len(factors) > 1 else factors[0]

    @pymanopt.function.numpy(manifold)
    def cost(*point):
        return objective.cost(*point)

    @pymanopt.function.numpy(manifold)
    def euclidean_gradient(*point):
        gradients = objective.gradients(*point)
        return gradients if len(gradients) > 1 else gradients[0]

    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=euclidean_gradient)
    x = point if len(point) > 1 else point[0]
    gradient = problem.riemannian_gradient(x)
    direction = manifold.to_tangent_space(
        x,
        [RNG.normal(size=matrix.shape) for matrix in point]
        if len(point) > 1
        else RNG.normal(size=x.shape),
    )
    slope = manifold.inner_product(x, gradient, direction)
    # The error of the first-order model falls with the square of the step (retractions here are
    # at least of first order), which no wrong gradient does.
    steps = np.array([1e-3, 1e-4, 1e-5])
    errors = [
        abs(problem.cost(manifold.retraction(x, h * direction)) - problem.cost(x) - h * slope)
        for h in steps
    ]
    rates = np.diff(np.log10(errors)) / np.diff(np.log10(steps))
    np.testing.assert_allclose(rates, 2, atol=0.1)


def test_gradient_of_a_rotated_problem_is_the_rotated_gradient():
    J, R = RNG.normal(size=(N_SAMPLES, M, N)), rotation(N, 3)
    Q = rotation(N, 4)
    here = Objective(StackJacobians(J), CRITERION["hoyer"], SMOOTHING, "fixed")
    there = Objective(StackJacobians(J @ R.T), CRITERION["hoyer"], SMOOTHING, "fixed")
    np.testing.assert_allclose(here.cost(Q), there.cost(Q @ R.T), rtol=1e-13)
    np.testing.assert_allclose(here.gradients(Q)[0] @ R.T, there.gradients(Q @ R.T)[0], atol=1e-13)


def test_blocks_do_not_change_the_result(monkeypatch):
    objective, _, point = setting("hoyer", "free", "dense layer", None, None)
    results = []
    for entries in (1, 50, 10**6):
        monkeypatch.setattr("jacrot.jacobians.BLOCK_ENTRIES", entries)
        point = [matrix.copy() for matrix in point]
        results.append(
            (objective.cost(*point), objective.gradients(*point), objective.curvatures(*point))
        )
    for cost, gradients, curvatures in results[1:]:
        assert cost == pytest.approx(results[0][0], rel=1e-13)
        for one, other in zip(gradients + curvatures, results[0][1] + results[0][2], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("output", ["fixed", "free"])
def test_threads_do_not_change_the_result(output, monkeypatch):
    monkeypatch.setattr("jacrot.jacobians.BLOCK_ENTRIES", 1)
    stack = DenseLayerJacobians(RNG.normal(size=(M, N)), RNG.normal(size=(40, M)))
    point = [rotation(M), rotation(N)][-1 if output == "fixed" else 0 :]
    results = []
    for n_threads in (1, 2, 5):
        objective = Objective(
            stack, CRITERION["hoyer"], SMOOTHING, output, None, None, n_threads=n_threads
        )
        results.append([objective.cost(*point), *objective.gradients(*point)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_point_is_evaluated_once():
    objective, _, point = setting("hoyer", "free", "stack", None, None)
    objective.cost(*point)
    objective.cost(*point)
    assert objective.n_evaluations == 1
    objective.gradients(*point)
    objective.gradients(*point)
    objective.cost(*point)
    assert objective.n_evaluations == 2
    moved = [point[0], rotation(N, 8)]
    assert objective.cost(*moved) != objective.cost(*point)
    assert objective.n_evaluations == 4


def test_exact_cost_is_affine_in_the_hoyer_sparsity():
    J = RNG.normal(size=(N_SAMPLES, M, N))
    J /= np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))
    objective = Objective(StackJacobians(J), CRITERION["hoyer"], 0.0, "fixed")
    root = np.sqrt(M * N)
    for seed in range(3):
        Q = rotation(N, seed)
        sparsity = hoyer(J @ Q.T).mean()
        np.testing.assert_allclose(objective.cost(Q), (root - (root - 1) * sparsity) / root)
