"""The rotations of a whole network: joint, shared, and never worse than one layer at a time."""

from itertools import pairwise

import numpy as np
import pytest
from builders import random_network, rotation
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_param_validation
from sklearn.utils.validation import check_is_fitted

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.criteria import hoyer
from jacrot.datasets import load_digits_mlp
from jacrot.layers import AvgPool2d, Conv2d, Dense, Flatten

pytestmark = pytest.mark.search

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
NETWORK = random_network([5, 8, 7, 3], ["relu", "tanh", "identity"])


def layer_sparsities(network, X, rotations):
    """Compute the mean Hoyer sparsity of every layer from its full Jacobians."""
    result = []
    for site in range(network.n_layers):
        layer = network[site : site + 1]
        J = layer.jacobians(X)
        J = J if site not in rotations else J @ rotations[site].T
        J = J if site + 1 not in rotations else rotations[site + 1] @ J
        result.append(hoyer(J[np.abs(J).max(axis=(1, 2)) > 0]).mean())
        X = layer(X)
    return np.array(result)


def one_by_one(network, X):
    rotations = {}
    for site in range(1, network.n_layers):
        alone = JacobianSparsityRotation(network[site : site + 1], random_state=0)
        rotations[site] = alone.fit(network[:site](X)).rotation_
    return rotations


@pytest.mark.slow
def test_joint_rotations_beat_those_found_one_by_one_on_inputs_not_seen():
    digits = load_digits_mlp()
    network, train, test = digits.network, digits.X[:200], digits.X_test
    model = NetworkRotation(network, random_state=0).fit(train)
    separate = layer_sparsities(network, test, one_by_one(network, train)).mean()
    assert model.score(test) > separate + 0.05
    np.testing.assert_allclose(
        model.score(test), layer_sparsities(network, test, model.rotations_).mean(), rtol=1e-6
    )
    assert model.converged_
    assert model.n_iter_ > 0
    assert model.history_["cost"].size > model.n_iter_


def test_the_sparsity_of_hidden_bases_is_nearly_reached():
    # Every layer is sparse between two hidden bases; its neurons switch with the inputs.
    rng = np.random.default_rng(1)
    widths = [36, 12, 12, 36]
    bases = {1: rotation(12, seed=1), 2: rotation(12, seed=2)}
    layers = []
    for site, (n, m) in enumerate(pairwise(widths)):
        weight = rng.normal(size=(m, n)) * (rng.uniform(size=(m, n)) < 0.25)
        weight = weight @ bases.get(site, np.eye(n))
        written = bases.get(site + 1, np.eye(m)).T
        layers.append(Dense(weight, rng.normal(size=m), "relu", output_rotation=written))
    model = NetworkRotation(random_state=0).fit(layers, rng.normal(size=(100, 36)))
    test = rng.normal(size=(100, 36))
    truth = layer_sparsities(model.network_, test, bases).mean()
    assert model.score(test) > 0.98 * truth
    assert truth > layer_sparsities(model.network_, test, one_by_one(model.network_, test)).mean()


@pytest.mark.parametrize("rotate_input", [False, True])
@pytest.mark.parametrize("rotate_output", [False, True])
def test_the_function_stays_and_the_report_is_true(rotate_input, rotate_output):
    model = NetworkRotation(
        NETWORK, rotate_input=rotate_input, rotate_output=rotate_output, random_state=0
    ).fit(X)
    sites = [*([0] if rotate_input else []), 1, 2, *([3] if rotate_output else [])]
    assert list(model.rotations_) == sites
    for site, matrix in model.rotations_.items():
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-12)
        largest = np.take_along_axis(matrix, np.abs(matrix).argmax(axis=1)[:, None], axis=1)
        assert (largest > 0).all()
        activations = X if site == 0 else NETWORK[:site](X)
        np.testing.assert_allclose(model.transform(X, site), activations @ matrix.T, atol=1e-12)
    logits = NETWORK(X)
    if rotate_output:
        logits = logits @ model.rotations_[3].T
    np.testing.assert_allclose(model.rotated_network()(X), logits, atol=1e-12)
    np.testing.assert_allclose(
        model.sparsities_, layer_sparsities(NETWORK, X, model.rotations_), rtol=1e-9
    )
    np.testing.assert_allclose(
        model.sparsities_before_, layer_sparsities(NETWORK, X, {}), rtol=1e-9
    )
    np.testing.assert_allclose(model.sparsity_, model.score(X))
    separate = layer_sparsities(NETWORK, X, one_by_one(NETWORK, X)).mean()
    assert model.sparsity_ > max(model.sparsity_before_, separate)


@pytest.mark.slow
def test_both_forms_and_seeds_agree():
    first = NetworkRotation(NETWORK, random_state=3).fit(X)
    check_is_fitted(first)
    for other in (clone(first).fit(X), NetworkRotation(random_state=3).fit(NETWORK, X)):
        for site, matrix in first.rotations_.items():
            np.testing.assert_array_equal(other.rotations_[site], matrix)
    assert first.n_features_in_ == 5
    more = NetworkRotation(NETWORK, n_init=2, random_state=3).fit(X)
    assert more.sparsity_ >= first.sparsity_ - 1e-3


def test_scikit_learns_parameter_validation():
    check_param_validation("NetworkRotation", NetworkRotation(NETWORK))


def test_directions_that_nothing_reads_or_writes_stay_axes():
    # Two hidden units are dead on both sides.
    weights = [layer.weight.copy() for layer in NETWORK]
    weights[0][:2], weights[1][:, :2] = 0, 0
    network = Network(weights, ["tanh", "tanh", "identity"])
    model = NetworkRotation(network, random_state=0).fit(X)
    Q = model.rotations_[1]
    np.testing.assert_allclose(np.abs(Q[-2:, :2]) @ np.ones(2), 1, atol=1e-9)
    np.testing.assert_allclose(model.rotated_network()(X), network(X), atol=1e-12)


def test_channels_of_a_convolutional_network(rng):
    def conv(n_out, n_in):
        kernel = rng.normal(size=(n_out, n_in, 3, 3)) / np.sqrt(9 * n_in)
        return Conv2d(kernel, activation="relu", padding=1)

    logits = Dense(rng.normal(size=(3, 6)), activation="identity")
    network = Network([conv(4, 2), conv(6, 4), AvgPool2d(), Flatten(), logits])
    images = rng.normal(size=(8, 2, 5, 5))
    model = NetworkRotation(network, tol=1e-3, random_state=0).fit(images)
    assert [len(matrix) for matrix in model.rotations_.values()] == [4, 6, 6, 6]
    np.testing.assert_allclose(model.rotated_network()(images), network(images), atol=1e-12)
    assert model.transform(images, 1).shape == (8, 4, 5, 5)
    assert model.sparsity_ > model.sparsity_before_


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (NetworkRotation(), (NETWORK[:1], X), "no hidden activations"),
        (NetworkRotation(), (X,), r"pass NetworkRotation\(network\).fit\(X\), or"),
        (NetworkRotation(NETWORK), (NETWORK, X), "two networks"),
        (NetworkRotation(NETWORK), (X[:, :4],), "X has 4 features but the network reads 5"),
        (NetworkRotation(NETWORK, tol=-1), (X,), "'tol' parameter"),
        (NetworkRotation(NETWORK), (np.nan * X,), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(model, arguments, words):
    with pytest.raises(ValueError, match=words):
        model.fit(*arguments)


def test_sites_without_a_rotation_are_named():
    model = NetworkRotation(NETWORK, tol=1e-2, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"site=0 was not rotated; pass one of \[1, 2\]"):
        model.transform(X, 0)
    for site in (1.0, True, "1", [1]):
        with pytest.raises(ValueError, match="was not rotated; pass one of"):
            model.transform(X, site)
