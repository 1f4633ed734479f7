"""Segments of networks: what they compute, and the same fits as from weights and activations."""

import numpy as np
import pytest
from builders import random_network
from sklearn import config_context

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.layers import Conv2d
from jacrot.segments._captured import Captured

NETWORK = random_network([6, 7, 5, 4], ["tanh", "gelu", "identity"], seed=1)
QUICK = {"max_iter": 20, "tol": 1e-2, "random_state": 0}


@pytest.fixture
def X(rng):
    return rng.normal(size=(40, 6))


def test_a_segment_is_what_lies_between_two_sites(X):
    segment = NETWORK.segment(1, X)
    hidden = NETWORK[:1](X)
    assert (segment.read, segment.write) == ("site 1", "site 2")
    np.testing.assert_array_equal(segment.X, hidden)
    np.testing.assert_array_equal(segment.activations, hidden)
    np.testing.assert_allclose(segment.jacobians, NETWORK[1:2].jacobians(hidden))
    np.testing.assert_allclose(segment.reference_logits, NETWORK(X))
    np.testing.assert_allclose(segment.forward(2 * hidden), NETWORK[1:2](2 * hidden))
    np.testing.assert_allclose(segment.logits_from(segment.forward(hidden)), NETWORK(X))
    K = NETWORK[2:].jacobians(NETWORK[:2](X))
    K = K - K.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(segment.readout, np.einsum("nka,nkb->ab", K, K) / len(K))
    assert NETWORK.segment(slice(1, None), X).forward(hidden).shape == (40, 4)


def test_the_last_segment_writes_the_logits(X):
    segment = NETWORK.segment(2, X)
    np.testing.assert_array_equal(segment.logits_from(segment.written), segment.written)
    np.testing.assert_allclose(segment.readout, np.eye(4) - 0.25)


def test_jacobians_that_do_not_fit_are_computed_when_they_are_indexed(X):
    with config_context(working_memory=0):
        lazy = NETWORK.segment(1, X).jacobians
    assert not isinstance(lazy, np.ndarray)
    assert lazy.shape == (40, 5, 7)
    np.testing.assert_allclose(lazy[3:5], NETWORK[1:2].jacobians(NETWORK[:1](X))[3:5])


def test_a_position_of_an_image_is_a_sample(rng):
    network = Network([Conv2d(rng.normal(size=(3, 2, 3, 3)), padding=1)])
    images = rng.normal(size=(2, 2, 4, 4))
    segment = network.segment(0, images)
    full = network.jacobians(images)
    assert segment.X.shape == (32, 2)
    assert segment.jacobians.shape == (32, 9, 3, 2)
    # What a position reaches, and nothing else, is in its sample.
    sums = np.abs(full).sum(axis=(1, 2, 3, 4)).reshape(2, -1).sum()
    np.testing.assert_allclose(np.abs(segment.jacobians).sum(), sums)
    many = network.segment(0, rng.normal(size=(80, 2, 4, 4)), random_state=0)
    assert many.X.shape == (1024, 2)
    again = network.segment(0, many.activations, random_state=0)
    np.testing.assert_array_equal(many.X, again.X)


def test_a_shuffled_segment_has_the_same_weights_in_another_order(X):
    segment = NETWORK.segment(1, X)
    null = segment.shuffled(0)
    ours, theirs = NETWORK[1].weight, null.network[1].weight
    np.testing.assert_array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))
    assert not np.array_equal(ours, theirs)
    np.testing.assert_array_equal(null.network[1].bias, NETWORK[1].bias)
    assert null.network[0] is NETWORK[0]
    np.testing.assert_array_equal(null.X, segment.X)
    np.testing.assert_array_equal(null.shuffled(1).X, segment.X)
    np.testing.assert_array_equal(theirs, segment.shuffled(0).network[1].weight)


@pytest.mark.filterwarnings("ignore:the search did not converge")
@pytest.mark.parametrize("rotate_output", [False, True])
def test_a_fit_to_a_segment_is_that_to_weights_and_activations(X, rotate_output):
    made = JacobianSparsityRotation(rotate_output=rotate_output, **QUICK)
    other = JacobianSparsityRotation(rotate_output=rotate_output, **QUICK)
    made.fit(NETWORK.segment(1, X))
    other.fit(NETWORK[1:2], NETWORK[:1](X))
    np.testing.assert_array_equal(made.rotation_, other.rotation_)
    assert made.sparsity_ == other.sparsity_
    assert made.provenance_["networks"] == other.provenance_["networks"]
    held_out = X[::-1] + 0.1
    score = made.score(NETWORK.segment(1, held_out))
    assert score == pytest.approx(other.score(NETWORK[:1](held_out)))
    hidden = NETWORK[:1](X)
    again = JacobianSparsityRotation(rotate_output=rotate_output, **QUICK)
    Z = again.fit_transform(NETWORK.segment(1, X))
    np.testing.assert_allclose(Z, made.transform(hidden))


@pytest.mark.filterwarnings("ignore:the search did not converge")
@pytest.mark.filterwarnings("ignore:the covariance of the activations has rank")
def test_a_segment_knows_its_readout(X):
    functional = {"coordinates": "functional", "criterion": "log", "rotate_output": True, **QUICK}
    made = JacobianSparsityRotation(**functional).fit(NETWORK.segment(1, X))
    readout = NETWORK[2:]
    other = JacobianSparsityRotation(readout=readout, **functional)
    other.fit(NETWORK[1:2], NETWORK[:1](X))
    np.testing.assert_allclose(made.output_whitening_, other.output_whitening_)
    np.testing.assert_array_equal(made.rotation_, other.rotation_)


@pytest.mark.filterwarnings("ignore:the search did not converge")
def test_segments_that_share_a_basis(rng):
    network = random_network([4, 4, 4], ["tanh", "tanh"])
    X = rng.normal(size=(30, 4))
    made = JacobianSparsityRotation(**QUICK)
    made.fit([network.segment(0, X), network.segment(1, X)])
    other = JacobianSparsityRotation(**QUICK)
    other.fit([network[:1], network[1:]], [X, network[:1](X)])
    np.testing.assert_array_equal(made.rotation_, other.rotation_)
    held_out = [network.segment(number, -X) for number in (0, 1)]
    expected = other.score([-X, network[:1](-X)])
    assert made.score(held_out) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:the search did not converge")
def test_rotated_segments_compute_what_the_rotated_network_does(X):
    one = JacobianSparsityRotation(rotate_output=True, **QUICK).fit(NETWORK.segment(1, X))
    hidden = NETWORK[:1](X)
    (rotated,) = one.rotated_segments(hidden)
    Z = one.transform(hidden)
    # Bases and computation need no Jacobians.
    assert "stack" not in vars(rotated.segment)
    np.testing.assert_allclose(rotated.activations, Z)
    np.testing.assert_allclose(rotated.forward(Z), one.rotated_network()(Z))
    np.testing.assert_allclose(rotated.jacobians, one.jacobians(hidden))
    assert rotated.sparsity == pytest.approx(one.sparsity_)
    assert rotated.given.given_sparsity == pytest.approx(one.sparsity_before_)


@pytest.mark.filterwarnings("ignore:the search did not converge")
@pytest.mark.filterwarnings("ignore:the covariance of the activations has rank")
@pytest.mark.parametrize("coordinates", ["neurons", "functional"])
def test_rotated_segments_of_a_whole_network_follow_one_another(X, coordinates):
    model = NetworkRotation(criterion="log", coordinates=coordinates, **QUICK).fit(NETWORK, X)
    Z = X
    for site, rotated in enumerate(model.rotated_segments(X)):
        assert rotated.sites == (site, site + 1)
        np.testing.assert_allclose(rotated.activations, Z, atol=1e-9)
        Z = rotated.forward(Z)
        if site + 1 in model.rotations_:
            np.testing.assert_allclose(Z, model.transform(X, site + 1), atol=1e-9)
    np.testing.assert_allclose(Z, NETWORK(X), atol=1e-9)
    sparsities = [rotated.sparsity for rotated in model.rotated_segments(X)]
    np.testing.assert_allclose(sparsities, model.sparsities_)


@pytest.mark.filterwarnings("ignore:the search did not converge")
def test_what_was_captured_is_not_run(X):
    hidden = NETWORK[:1](X)
    captured = Captured(NETWORK[1:2].jacobians(hidden), hidden)
    model = JacobianSparsityRotation(**QUICK).fit(captured)
    (rotated,) = model.rotated_segments(captured)
    assert rotated.sparsity == pytest.approx(model.sparsity_)
    assert model.score(captured) == pytest.approx(model.sparsity_)
    with pytest.raises(TypeError, match="X is a segment"):
        model.transform(captured)
    twice = JacobianSparsityRotation(**QUICK).fit([captured, captured])
    assert twice.sparsity_ == pytest.approx(twice.score(captured))
    assert len(twice.provenance_["jacobians"]) == 2
    assert twice.network_ is None
    with pytest.raises(ValueError, match="no model to run"):
        rotated.forward(rotated.activations)


def test_refusals(X):
    segment = NETWORK.segment(1, X)
    for layers in (3, -1, slice(2, 2), slice(None, None, 2)):
        with pytest.raises(IndexError, match="pass a number from 0 to 2"):
            NETWORK.segment(layers, X)
    for layers in ("1", 1.0, True, None):
        with pytest.raises(TypeError, match="pass the number of a layer, or a slice"):
            NETWORK.segment(layers, X)
    with pytest.raises(ValueError, match="X has 5 features but the network reads 6"):
        NETWORK.segment(1, X[:, :5])
    with pytest.raises(ValueError, match="a segment has its own Jacobians"):
        JacobianSparsityRotation(NETWORK).fit(segment)
    with pytest.raises(ValueError, match="a segment has its own Jacobians"):
        JacobianSparsityRotation().fit(segment, X)
    with pytest.raises(ValueError, match="network is a segment"):
        JacobianSparsityRotation(segment).fit(X)
    with pytest.raises(ValueError, match="a segment was passed in place of the activations"):
        JacobianSparsityRotation().fit(NETWORK[1:2], segment)
    for mixed in ([segment, X], [X, segment], [segment, Captured(segment.jacobians, segment.X)]):
        with pytest.raises(TypeError, match="X is a list of"):
            JacobianSparsityRotation().fit(mixed)
    with pytest.raises(ValueError, match="not segments"):
        NetworkRotation().fit(segment)
    with pytest.raises(ValueError, match="shapes"):
        JacobianSparsityRotation().fit([segment, NETWORK.segment(slice(1, 3), X)])
