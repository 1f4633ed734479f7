"""The unit of the data does not matter, however small or large it is."""

import warnings

import numpy as np
import pytest
from builders import random_network

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.layers import Dense

CRITERIA = ["hoyer", "l1", "log", "logcosh", "quartimax"]
# 1e-18, whose squares leave single precision, and 1e±120, whose fourth powers leave double.
EXPONENTS = [-400, -60, 400]


@pytest.fixture(autouse=True)
def _few_steps():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the search did not converge")
        yield


def fitted(kind, scale, rng, **parameters):
    X, network = rng.normal(size=(50, 5)), random_network([5, 6, 4], ["relu", "identity"])
    W, b, V = network[0].weight, network[0].bias, network[1].weight
    model = JacobianSparsityRotation(random_state=0, max_iter=8, **parameters)
    if kind == "Jacobians":
        return model.fit(scale * network[:1].jacobians(X), X)
    if kind == "weights":
        return model.fit([(scale * W, b)], X / scale)
    return model.set_params(readout=Network([scale * V], "identity")).fit(network[:1], X)


@pytest.mark.parametrize("rotate_output", [False, True])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", ["Jacobians", "weights", "readout"])
def test_the_unit_does_not_matter(kind, criterion, rotate_output):
    parameters = {"criterion": criterion, "rotate_output": rotate_output}
    if kind == "readout":
        parameters["coordinates"] = "functional"
    expected = fitted(kind, 1.0, np.random.default_rng(0), **parameters)
    for exponent in EXPONENTS:
        model = fitted(kind, 2.0**exponent, np.random.default_rng(0), **parameters)
        # Powers of two: not a bit is rounded.
        np.testing.assert_array_equal(model.rotation_, expected.rotation_)
        assert model.sparsity_ == expected.sparsity_


@pytest.mark.parametrize("exponent", [-60, 60])
def test_the_unit_of_the_logits_does_not_matter(exponent):
    rotations = []
    for scale in (1.0, 2.0**exponent):
        network = random_network([5, 6, 7], ["tanh", "identity"])
        layers = [
            Dense(network[0].weight, network[0].bias, "tanh"),
            Dense(scale * network[1].weight, scale * network[1].bias, "identity"),
        ]
        X = np.random.default_rng(0).normal(size=(50, 5))
        model = NetworkRotation(
            coordinates="functional", criterion="log", random_state=0, max_iter=8
        )
        rotations.append(model.fit(Network(layers), X).rotations_[1])
    # Eigenvectors are computed with other rounding.
    np.testing.assert_allclose(*rotations, atol=1e-3)


@pytest.mark.parametrize("rotate_output", [False, True])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("exponent", [30, 150])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.slow
def test_samples_of_any_size_side_by_side(criterion, rotate_output, exponent, n_outputs):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        sizes = 10.0 ** rng.integers(-exponent, exponent, (40, 1, 1))
        # The largest is not among the samples of the curvatures.
        sizes[-1] = 10.0**exponent
        J, X = sizes * rng.normal(size=(40, n_outputs, 2)), rng.normal(size=(40, 2))
        model = JacobianSparsityRotation(
            criterion=criterion, rotate_output=rotate_output, random_state=0, max_iter=15
        ).fit(J, X)
        assert np.isfinite(model.rotation_).all()
        assert np.isfinite(model.history_["cost"]).all()
        assert 0 <= model.sparsity_ <= 1
