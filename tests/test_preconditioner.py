"""The preconditioner: a Newton step in every plane."""

import numpy as np
import pytest
from builders import rotation

from jacrot._jacobians.dense import StackJacobians
from jacrot._search.manifold import joined, parts, rotations
from jacrot._search.objective import Objective, Term
from jacrot._search.preconditioner import plane_preconditioner
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot.criteria._minimised import get_criterion


def objective(output, rng):
    stack = StackJacobians(rng.normal(size=(5, 4, 4)))
    return Objective([Term.from_mode(stack, output)], get_criterion("hoyer"), 0.3)


@pytest.mark.parametrize("output", ["fixed", "free"])
def test_every_plane_gets_a_newton_step(output, rng):
    oracle = objective(output, rng)
    point = [rotation(4, seed) for seed in range(1 if output == "fixed" else 2)]
    manifold = rotations([4] * len(point))
    gradients, curvatures = oracle.gradients(*point), oracle.curvatures(*point)
    tangent = manifold.to_tangent_space(joined(point), joined(gradients))
    steps = plane_preconditioner(oracle)(joined(point), tangent)
    assert type(steps) is type(tangent)
    for step, gradient, curvature in zip(parts(steps), gradients, curvatures, strict=True):
        np.testing.assert_allclose(step, -step.T, atol=1e-14)
        floor = 0.3 * np.median(np.abs(curvature))
        for a, b in ((0, 1), (2, 3), (0, 3)):
            slope = gradient[a, b] - gradient[b, a]
            assert step[a, b] == pytest.approx(slope / max(abs(curvature[a, b]), floor))


def test_curvatures_are_refreshed_every_five_gradients(rng):
    oracle, point = objective("fixed", rng), [rotation(4)]
    precondition = plane_preconditioner(oracle)
    for _ in range(2 * DEFAULT_SETTINGS.curvature_refresh):
        precondition(point, [np.zeros((4, 4))])
    assert oracle.n_evaluations == 2


def test_flat_cost_is_followed_as_it_is(rng):
    stack = StackJacobians(np.zeros((1, 4, 4)))
    zero = Objective([Term.from_mode(stack, "fixed")], get_criterion("quartimax"), 0.0)
    turn = (lambda A: A - A.T)(rng.normal(size=(4, 4)))
    np.testing.assert_allclose(plane_preconditioner(zero)([rotation(4)], [turn])[0], 2 * turn)


def test_curvatures_of_samples_that_are_as_good_as_zero_are_not_divided_by(rng):
    # In so small a corner of the data the cost does not bend, and 1/H would be 1e200.
    stack = StackJacobians(1e-100 * rng.normal(size=(5, 4, 4)))
    oracle = Objective([Term.from_mode(stack, "fixed")], get_criterion("quartimax"), 0.0)
    turn = (lambda A: A - A.T)(rng.normal(size=(4, 4)))
    np.testing.assert_allclose(plane_preconditioner(oracle)([rotation(4)], [turn])[0], 2 * turn)
