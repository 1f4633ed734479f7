"""Functional coordinates: whitened, weighed, invertible, and the same function in them."""

import numpy as np
import pytest
from builders import random_network
from sklearn.base import clone

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot._jacobians.coordinates import (
    FunctionalCoordinates,
    fold_decoder,
    fold_encoder,
    readout_moment,
)
from jacrot.datasets import make_planted_problem
from jacrot.layers import Conv2d, Dense, Flatten, LayerNorm, Residual
from jacrot.positions import at_positions, to_rows

pytestmark = pytest.mark.search

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6))
X = RNG.normal(size=(200, 6)) @ MIXING + 3
NETWORK = random_network([6, 7, 5, 4], ["tanh", "gelu", "identity"], seed=1)
FUNCTIONAL = {"coordinates": "functional", "criterion": "log", "random_state": 0, "tol": 1e-2}


def covariance(Z):
    return np.cov(Z.T, bias=True)


def test_whitened_activations_are_uncorrelated():
    coordinates = FunctionalCoordinates.from_activations(X)
    Z = (X - coordinates.mean) @ coordinates.forward.T
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(covariance(Z), np.eye(6), atol=1e-10)
    np.testing.assert_allclose(coordinates.forward @ coordinates.backward, np.eye(6), atol=1e-10)
    np.testing.assert_allclose(coordinates.metric @ coordinates.metric, covariance(X), atol=1e-10)
    images = X.reshape(50, 2, 2, 6).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        FunctionalCoordinates.from_activations(images).forward, coordinates.forward
    )


def test_directions_that_do_not_vary_are_carried_along():
    flat = X.copy()
    flat[:, 2] = flat[:, 0]
    coordinates = FunctionalCoordinates.from_activations(flat)
    np.testing.assert_allclose(coordinates.forward @ coordinates.backward, np.eye(6), atol=1e-9)
    difference = np.eye(6)[2] - np.eye(6)[0]
    np.testing.assert_allclose(coordinates.metric @ difference, 0, atol=1e-6)
    inside = np.eye(6)[:4]
    part = FunctionalCoordinates.from_activations(X, inside)
    np.testing.assert_allclose(part.forward[4:], np.eye(6)[4:], atol=1e-12)
    np.testing.assert_allclose(covariance(X @ part.forward.T)[:4, :4], np.eye(4), atol=1e-10)
    with pytest.raises(ValueError, match="X has 3 rows that are all equal"):
        FunctionalCoordinates.from_activations(np.ones((3, 2)))


@pytest.mark.parametrize("repeats", [1, 5])
@pytest.mark.parametrize("n_rows", [3, 8, 15, 19])
def test_few_rows_do_not_blow_up_other_inputs(n_rows, repeats, rng):
    mixing = np.geomspace(1, 1e-2, 20)[:, None] * np.linalg.qr(rng.normal(size=(20, 20)))[0]
    rows, others = (rng.normal(size=(n, 20)) @ mixing for n in (n_rows, 1000))
    rank = n_rows - 1
    with pytest.warns(UserWarning, match=rf"has rank {rank} of 20, because there are only"):
        coordinates = FunctionalCoordinates.from_activations(np.repeat(rows, repeats, axis=0))
    np.testing.assert_allclose(coordinates.forward @ coordinates.backward, np.eye(20), atol=1e-10)
    Z = (others - coordinates.mean) @ coordinates.forward
    # The root mean square along all directions: 1 is promised, and 1e4 or so was what came.
    assert 0.2 < np.sqrt(np.mean(Z**2)) < 5
    # On the rows themselves nothing is larger than promised.
    own = covariance((rows - coordinates.mean) @ coordinates.forward)
    assert np.linalg.eigvalsh(own)[-1] < 1 + 1e-8
    # Nothing of it depends on the unit.
    with pytest.warns(UserWarning, match="because there are only"):
        scaled = FunctionalCoordinates.from_activations(2.0**30 * np.repeat(rows, repeats, axis=0))
    np.testing.assert_array_equal(2.0**30 * scaled.forward, coordinates.forward)


def test_no_warning_where_more_rows_are_of_no_use_or_fewer_axes_are_wanted(rng):
    rows = rng.normal(size=(30, 20))
    rows[:, :3] = 0.5
    coordinates = FunctionalCoordinates.from_activations(rows)
    # A dead unit that comes to life counts as an outlier, not as an explosion.
    alive = (np.eye(20)[0] * rows.std()) @ coordinates.forward
    assert 1 < np.linalg.norm(alive) < 10
    np.testing.assert_allclose(coordinates.forward @ coordinates.backward, np.eye(20), atol=1e-10)
    for n_components in (9, 0.9):
        FunctionalCoordinates.from_activations(rows[:10], n_components=n_components)
    with pytest.warns(UserWarning, match="n_components of at most 9"):
        FunctionalCoordinates.from_activations(rows[:10], n_components=10)


def test_a_fit_warns_once_of_few_rows():
    with pytest.warns(UserWarning, match="has rank 4 of 6") as caught:
        model = JacobianSparsityRotation(**FUNCTIONAL).fit(NETWORK[:1], X[:5])
    assert len([w for w in caught if "rank" in str(w.message)]) == 1
    Z = model.transform(X)
    assert Z.std(axis=0).max() < 30
    np.testing.assert_allclose(model.inverse_transform(Z), X, atol=1e-9)
    np.testing.assert_allclose(model.rotated_network()(Z), model.network_(X), atol=1e-9)
    with pytest.warns(UserWarning, match="has rank") as caught:
        NetworkRotation(rotate_input=True, **FUNCTIONAL).fit(NETWORK[:2], X[:5])
    sites = [str(w.message) for w in caught]
    assert [f"rank 4 of {n}," in text for n, text in zip((6, 7), sites, strict=True)] == [True] * 2


def test_dead_layers_and_null_readouts_are_named():
    dead = Network([(np.zeros((7, 6)), np.ones(7)), (np.ones((3, 7)), np.zeros(3))])
    with pytest.raises(ValueError, match="Jacobian is zero at every one of n_samples=200"):
        JacobianSparsityRotation(**FUNCTIONAL).fit(dead[:1], X)
    for tied in (False, "tied"):
        with pytest.raises(ValueError, match="Jacobian is zero at every one of n_samples=200"):
            JacobianSparsityRotation(rotate_output=tied, **FUNCTIONAL).fit(
                Network([np.zeros((6, 6))]), X
            )
    with pytest.raises(ValueError, match="layer 0: the Jacobian is zero at every one"):
        NetworkRotation(**FUNCTIONAL).fit(dead, X)
    with pytest.raises(ValueError, match="layer 1: the Jacobian is zero at every one"):
        NetworkRotation(**FUNCTIONAL).fit(Network([NETWORK[0], Dense(np.zeros((3, 7)))]), X)
    with pytest.raises(ValueError, match="layer 1: the Jacobian is zero at every one"):
        NetworkRotation().fit(Network([NETWORK[0], Dense(np.zeros((3, 7)))]), X)
    for rotate_output in (False, True):
        model = JacobianSparsityRotation(
            readout=np.zeros((3, 7)), rotate_output=rotate_output, **FUNCTIONAL
        )
        with pytest.raises(ValueError, match="readout does not depend on its inputs"):
            model.fit(NETWORK[:1], X)
    with pytest.raises(ValueError, match="X has 200 rows that are all equal"):
        JacobianSparsityRotation(**FUNCTIONAL).fit(NETWORK[:1], np.full((200, 6), 0.1))


def test_a_network_of_one_logit():
    network = random_network([6, 5, 1], ["tanh", "identity"], seed=3)
    model = NetworkRotation(rotate_output=True, **FUNCTIONAL).fit(network, X)
    np.testing.assert_allclose(model.rotated_network()(X), model.transform(X, 2), atol=1e-9)


def test_what_reads_the_outputs():
    Y = NETWORK[:1](X)
    K = NETWORK[1:].jacobians(Y)
    K = K - K.mean(axis=1, keepdims=True)
    expected = np.einsum("iab,iac->bc", K, K) / len(K)
    np.testing.assert_allclose(readout_moment(NETWORK[1:], Y), expected, rtol=1e-10)
    # A single output is not a row of logits: no mean is subtracted.
    one = random_network([7, 1], ["tanh"], seed=2)
    K = one.jacobians(Y)
    expected = np.einsum("iab,iac->bc", K, K) / len(K)
    np.testing.assert_allclose(readout_moment(one, Y), expected, rtol=1e-10)


IMAGES = RNG.normal(size=(3, 6, 4, 4))
LAYERS = {
    "dense": (NETWORK[0], X),
    "dense, linear": (Dense(RNG.normal(size=(4, 6)), RNG.normal(size=4), "identity"), X),
    "norm": (LayerNorm(), X),
    "residual": (Residual([Dense(RNG.normal(size=(6, 6)), activation="tanh")]), X),
    "padded convolution": (Conv2d(RNG.normal(size=(4, 6, 3, 3)), padding=1), IMAGES),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_read_and_write_affine_coordinates(name, rng):
    layer, x = LAYERS[name]
    decoder, mean = rng.normal(size=(6, 6)), rng.normal(size=6)
    image = x.ndim == 4
    z = np.linalg.solve(decoder, ((np.moveaxis(x, 1, -1) if image else x) - mean)[..., None])
    z = np.moveaxis(z[..., 0], -1, 1) if image else z[..., 0]
    y = layer(x)
    np.testing.assert_allclose(fold_decoder(layer, decoder, mean)(z), y, atol=1e-9)
    encoder, origin = rng.normal(size=(3, y.shape[1])), rng.normal(size=y.shape[1])
    features_last = np.moveaxis(y, 1, -1)
    for shift in (origin, np.zeros_like(origin)):
        expected = np.moveaxis((features_last - shift) @ encoder.T, -1, 1)
        np.testing.assert_allclose(fold_encoder(layer, encoder, shift)(x), expected, atol=1e-9)


MODES = {
    "outputs kept": {"readout": NETWORK[1:]},
    "free": {"rotate_output": True, "readout": NETWORK[1:]},
    "free, nothing reads them": {"rotate_output": True},
    "no readout": {},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_rotated_network_is_the_same_function(mode):
    layer = NETWORK[:1]
    model = JacobianSparsityRotation(**FUNCTIONAL, **MODES[mode]).fit(layer, X)
    Z = model.transform(X)
    np.testing.assert_allclose(covariance(Z), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(model.inverse_transform(Z), X, atol=1e-9)
    np.testing.assert_allclose(model.rotation_ @ model.rotation_.T, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(
        Z, (X - model.mean_) @ (model.rotation_ @ model.whitening_).T, atol=1e-12
    )
    P = np.eye(7) if model.output_rotation_ is None else model.output_rotation_
    scale = np.eye(7) if model.output_whitening_ is None else model.output_whitening_
    rotated = model.rotated_network()
    np.testing.assert_allclose(rotated(Z), layer(X) @ (P @ scale).T, atol=1e-9)
    np.testing.assert_allclose(rotated.jacobians(Z), model.jacobians(X), atol=1e-9)
    if mode == "outputs kept":
        G = readout_moment(NETWORK[1:], layer(X))
        np.testing.assert_allclose(scale, np.diag(np.sqrt(np.diag(G))), atol=1e-12)


def test_channels_of_images_are_whitened_at_all_positions(rng):
    convolution = Conv2d(rng.normal(size=(4, 6, 3, 3)), rng.normal(size=4), padding=1)
    readout = Network([Flatten(), Dense(rng.normal(size=(3, 64)), activation="identity")])
    network, images = Network([convolution]), rng.normal(size=(20, 6, 4, 4)) + 1
    model = JacobianSparsityRotation(rotate_output=True, readout=readout, **FUNCTIONAL)
    model.fit(network, images)
    Z = at_positions(model.transform, images)
    np.testing.assert_allclose(covariance(to_rows(Z)), np.eye(6), atol=1e-9)
    back = model.output_rotation_ @ model.output_whitening_
    outputs = at_positions(lambda rows: rows @ back.T, network(images))
    np.testing.assert_allclose(model.rotated_network()(Z), outputs, atol=1e-9)
    K = readout.jacobians(network(images)).reshape(20, 3, 4, 16)
    K = K - K.mean(axis=1, keepdims=True)
    G = np.einsum("ikap,ikbp->ab", K, K) / (20 * 16)
    np.testing.assert_allclose(model.output_whitening_ @ model.output_whitening_, G, rtol=1e-6)


def test_tied_outputs_are_in_the_coordinates_of_the_inputs():
    block = Network([Residual(random_network([6, 8, 6], ["relu", "identity"], seed=4).layers)])
    readout = random_network([6, 3], ["identity"], seed=5)
    model = JacobianSparsityRotation(rotate_output="tied", readout=readout, **FUNCTIONAL)
    Z = model.fit(block, X).transform(X)
    np.testing.assert_allclose(model.rotated_network()(Z), model.transform(block(X)), atol=1e-9)
    with pytest.raises(
        ValueError, match=r"criterion='hoyer' is not defined for rotate_output='tie"
    ):
        clone(model).set_params(criterion="hoyer").fit(block, X)


def test_axes_that_are_not_orthogonal_are_found(rng):
    problem = make_planted_problem(16, 48, n_samples=400, density=0.15, random_state=0)
    mixing = np.linalg.qr(rng.normal(size=(16, 16)))[0] * np.geomspace(0.05, 2, 16)
    # x = mixing s: what is sparse reads s, which no rotation of x gives.
    white = FunctionalCoordinates.from_activations(problem.X)
    rows = (problem.X - white.mean) @ white.forward @ mixing.T
    network = Network([problem.weights @ np.linalg.inv(mixing)])
    planted = problem.rotation @ np.linalg.inv(mixing)
    cosines = {}
    for coordinates in ("functional", "neurons"):
        model = JacobianSparsityRotation(
            criterion="log", coordinates=coordinates, random_state=0
        ).fit(network, rows)
        encoder = model.rotation_
        if coordinates == "functional":
            encoder = encoder @ model.whitening_
        unit = [axes / np.linalg.norm(axes, axis=1, keepdims=True) for axes in (encoder, planted)]
        cosines[coordinates] = np.abs(unit[0] @ unit[1].T).max(axis=0)
    assert cosines["functional"].min() > 0.999
    assert np.median(cosines["neurons"]) < 0.9


def test_the_coordinates_forget_linear_maps_of_the_inputs(rng):
    spectra = []
    for mixing in (np.eye(6), rng.normal(size=(6, 6))):
        network = Network([NETWORK[0].weight @ np.linalg.inv(mixing).T]).layers
        model = JacobianSparsityRotation(**FUNCTIONAL).fit(Network(network), X @ mixing)
        J = model.jacobians(X @ mixing)
        spectra.append(np.linalg.svd(J, compute_uv=False))
    np.testing.assert_allclose(*spectra, rtol=1e-6, atol=1e-8)


def test_bad_arguments_are_named():
    layer = NETWORK[:1]
    with pytest.raises(ValueError, match="readout weighs the outputs in functional coordinates"):
        JacobianSparsityRotation(readout=NETWORK[1:]).fit(layer, X)
    with pytest.raises(ValueError, match="readout reads 5 activations but the network writes 7"):
        JacobianSparsityRotation(readout=NETWORK[2:], **FUNCTIONAL).fit(layer, X)
    with pytest.raises(ValueError, match="readout needs the outputs of a network"):
        JacobianSparsityRotation(readout=NETWORK[1:], **FUNCTIONAL).fit(layer.jacobians(X), X)
    with pytest.raises(ValueError, match="takes one network and its activations"):
        JacobianSparsityRotation(**FUNCTIONAL).fit([layer, layer], [X, X])
    with pytest.raises(ValueError, match="criterion='hoyer' is not defined in functional"):
        NetworkRotation(coordinates="functional").fit(NETWORK, X)


@pytest.mark.parametrize("rotate_input", [False, True])
@pytest.mark.parametrize("rotate_output", [False, True])
@pytest.mark.slow
def test_a_whole_network_stays_the_same_function(rotate_input, rotate_output):
    model = NetworkRotation(rotate_input=rotate_input, rotate_output=rotate_output, **FUNCTIONAL)
    model.fit(NETWORK, X)
    rotated = model.rotated_network()
    expected = NETWORK(X)
    sites = {1, 2} | ({0} if rotate_input else set()) | ({3} if rotate_output else set())
    assert set(model.rotations_) == set(model.means_) == set(model.whitenings_) == sites
    for site in sites:
        Z = model.transform(X, site)
        np.testing.assert_allclose(np.diag(covariance(Z)).max(), 1, atol=1e-6)
        R = model.rotations_[site]
        np.testing.assert_allclose(R @ R.T, np.eye(len(R)), atol=1e-12)
        shift = 1 if rotate_input else 0
        if site + shift > 0:
            np.testing.assert_allclose(rotated[: site + shift](X), Z, atol=1e-8)
    if rotate_output:
        expected = model.transform(X, 3)
    np.testing.assert_allclose(rotated(X), expected, atol=1e-8)
    assert model.score(X) == pytest.approx(model.sparsity_, abs=1e-6)
