"""The preconditioner: a Newton step in every plane."""

import numpy as np
import pytest
from builders import rotation
from pymanopt.manifolds import Product, Stiefel

from jacrot.criteria import get_criterion
from jacrot.jacobians import StackJacobians
from jacrot.objective import Objective
from jacrot.preconditioner import REFRESH, plane_preconditioner


def objective(output, rng):
    stack = StackJacobians(rng.normal(size=(5, 4, 4)))
    return Objective(stack, get_criterion("hoyer"), 0.3, output)


def test_one_plane_gets_a_newton_step(rng):
    oracle, Q = objective("fixed", rng), rotation(4)
    curvature = oracle.curvatures(Q)[0]
    gradient = oracle.gradients(Q)[0] @ Q.T
    tangent = Stiefel(4, 4).projection(Q, oracle.gradients(Q)[0])
    step = plane_preconditioner(oracle)(Q, tangent) @ Q.T
    np.testing.assert_allclose(step, -step.T, atol=1e-14)
    floor = 0.3 * np.median(np.abs(curvature))
    for a, b in ((0, 1), (2, 3), (0, 3)):
        slope = gradient[a, b] - gradient[b, a]
        assert step[a, b] == pytest.approx(slope / max(abs(curvature[a, b]), floor))


def test_product_keeps_its_tangent_type(rng):
    oracle, point = objective("free", rng), [rotation(4), rotation(4, 1)]
    manifold = Product([Stiefel(4, 4), Stiefel(4, 4)])
    tangent = manifold.to_tangent_space(point, oracle.gradients(*point))
    step = plane_preconditioner(oracle)(point, tangent)
    assert type(step) is type(tangent)
    assert manifold.inner_product(point, step, tangent) > 0


def test_curvatures_are_refreshed_every_five_gradients(rng):
    oracle, Q = objective("fixed", rng), rotation(4)
    precondition = plane_preconditioner(oracle)
    for _ in range(2 * REFRESH):
        precondition(Q, np.zeros((4, 4)))
    assert oracle.n_evaluations == 2


def test_flat_cost_is_followed_as_it_is(rng):
    zero = Objective(StackJacobians(np.zeros((1, 4, 4))), get_criterion("quartimax"), 0.0, "fixed")
    Q = rotation(4)
    tangent = (lambda A: (A - A.T) @ Q)(rng.normal(size=(4, 4)))
    np.testing.assert_allclose(plane_preconditioner(zero)(Q, tangent), 2 * tangent)
