"""The manifold of rotations against pymanopt's, and its own axioms."""

import numpy as np
import pymanopt
import pytest
from builders import rotation
from pymanopt.manifolds import Stiefel
from scipy.linalg import expm

from jacrot._jacobians.dense import StackJacobians
from jacrot._search.manifold import Rotations, cayley, joined, parts, rotations, skew
from jacrot._search.objective import Objective, Term
from jacrot.criteria._minimised import get_criterion


def turn(size, rng, scale=1.0):
    return scale * skew(rng.normal(size=(size, size)))


def test_cayley_turns_as_the_exponential_does_up_to_third_order(rng):
    omega, Q = turn(6, rng), rotation(6)
    errors = [
        np.linalg.norm(cayley(h * omega, Q) - expm(h * omega) @ Q) for h in (1e-1, 1e-2, 1e-3)
    ]
    np.testing.assert_allclose(np.diff(np.log10(errors)), -3, atol=0.05)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cayley_is_orthogonal_in_its_own_precision(dtype, rng):
    turned = cayley(turn(20, rng).astype(dtype), rotation(20).astype(dtype))
    assert turned.dtype == dtype
    np.testing.assert_allclose(turned @ turned.T, np.eye(20), atol=50 * np.finfo(dtype).eps)


def test_geometry_is_that_of_the_square_stiefel_manifold(rng):
    ours, theirs, Q = Rotations(5), Stiefel(5, 5), rotation(5)
    assert ours.dim == theirs.dim
    one, other = turn(5, rng), turn(5, rng)
    np.testing.assert_allclose(
        ours.inner_product(Q, one, other), theirs.inner_product(Q, one @ Q, other @ Q)
    )
    np.testing.assert_allclose(ours.norm(Q, one), theirs.norm(Q, one @ Q))
    gradient = rng.normal(size=(5, 5))
    np.testing.assert_allclose(
        ours.euclidean_to_riemannian_gradient(Q, gradient) @ Q,
        theirs.euclidean_to_riemannian_gradient(Q, gradient @ Q),
        atol=1e-14,
    )


@pytest.mark.parametrize("output", ["fixed", "free", "tied"])
def test_first_order_model_of_the_cost(output, rng):
    stack = StackJacobians(rng.normal(size=(7, 5, 5)))
    objective = Objective([Term.from_mode(stack, output)], get_criterion("hoyer"), 0.3)
    point = [rotation(5, seed) for seed in range(2 if output == "free" else 1)]
    manifold = rotations([5] * len(point))
    # With a single rotation, points are matrices and not lists.
    first = joined(point)

    @pymanopt.function.numpy(manifold)
    def cost(*point):
        return objective.cost(*point)

    @pymanopt.function.numpy(manifold)
    def relative_gradient(*point):
        return joined(objective.gradients(*point))

    problem = pymanopt.Problem(manifold, cost, euclidean_gradient=relative_gradient)
    gradient = problem.riemannian_gradient(first)
    turns = joined([rng.normal(size=(5, 5)) for _ in point])
    direction = manifold.to_tangent_space(first, turns)
    assert len(parts(direction)) == len(parts(first)) == len(point)
    slope = manifold.inner_product(first, gradient, direction)
    # The error of the first-order model falls with the square of the step, which no wrong gradient
    # does.
    steps = np.array([1e-3, 1e-4, 1e-5])
    errors = [
        abs(
            problem.cost(manifold.retraction(first, h * direction))
            - problem.cost(first)
            - h * slope
        )
        for h in steps
    ]
    np.testing.assert_allclose(np.diff(np.log10(errors)) / np.diff(np.log10(steps)), 2, atol=0.1)


def test_retraction_keeps_single_precision(rng):
    point = rotation(4).astype(np.float32)
    assert Rotations(4).retraction(point, turn(4, rng)).dtype == np.float32


def test_pymanopt_does_not_draw_from_the_global_random_state():
    with pytest.raises(NotImplementedError, match="starts from a given point"):
        Rotations(3).random_point()
    with pytest.raises(NotImplementedError, match="starts from a given point"):
        Rotations(3).random_tangent_vector(np.eye(3))
