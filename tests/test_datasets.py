"""The problems with a known answer."""

import numpy as np
import pytest

from jacrot import JacobianSparsityRotation
from jacrot.criteria import hoyer
from jacrot.datasets import load_digits_mlp, make_planted_problem


def test_planted_layer_is_sparse_in_the_planted_basis_only():
    problem = make_planted_problem(20, 40, density=0.1, n_samples=10, random_state=0)
    sparse = problem.weights @ problem.rotation.T
    share = np.mean(np.abs(sparse) > 1e-12)
    assert 0.1 < share < 0.2
    assert np.all((np.abs(sparse) > 1e-12).sum(axis=0) >= 3)
    np.testing.assert_allclose(problem.rotation @ problem.rotation.T, np.eye(20), atol=1e-12)
    J = problem.network.jacobians(problem.X)
    assert hoyer(J @ problem.rotation.T).mean() > hoyer(J).mean() + 0.2


def test_noise_and_density():
    quiet = make_planted_problem(8, 16, random_state=0)
    noisy = make_planted_problem(8, 16, noise=0.1, random_state=0)
    difference = (noisy.weights - quiet.weights) @ quiet.rotation.T
    assert 0.05 < difference.std() < 0.15
    dense = make_planted_problem(8, 16, density=1.0, random_state=0)
    assert np.all(dense.weights @ dense.rotation.T != 0)


def test_same_seed_same_problem_and_the_global_state_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (make_planted_problem(8, 16, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("arguments", [{"density": 0}, {"density": 1.1}, {"n_features": 0}])
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        make_planted_problem(**arguments)


@pytest.mark.parametrize("hidden", [(64, 64), (48, 32)])
def test_digits_network_classifies_digits_it_has_not_seen(hidden):
    digits = load_digits_mlp(hidden)
    assert (len(digits.X), len(digits.X_test)) == (1297, 500)
    assert [layer.weight.shape[0] for layer in digits.network] == [*hidden, 10]
    predictions = digits.network(digits.X_test).argmax(axis=1)
    assert np.mean(predictions == digits.y_test) > 0.92


def test_unknown_widths_are_refused():
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=\(3, 3\) is not available"):
        load_digits_mlp((3, 3))


def test_what_belongs_to_another_layer_does_not_fit_unequal_widths():
    digits = load_digits_mlp((48, 32))
    network, hidden = digits.network, digits.network[:1](digits.X[:50])
    with pytest.raises(ValueError, match="X has 48 features but the network reads 64"):
        JacobianSparsityRotation().fit(network, hidden)
    rotation = JacobianSparsityRotation(tol=1e-1).fit(network[1:2], hidden)
    with pytest.raises(ValueError, match="64 features"):
        rotation.score(digits.X_test)
