"""Sequences and images: samples are positions, and the rotation is the same at all of them."""

import numpy as np
import pytest
from builders import rotation
from sklearn import config_context

from jacrot import JacobianSparsityRotation, Network
from jacrot._jacobians.networks import MAX_PAIRS, draw_samples, network_jacobians
from jacrot.criteria import hoyer
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    Conv2d,
    Dense,
    Flatten,
    GatedDense,
    LayerNorm,
    Residual,
)
from jacrot.positions import at_positions, to_rows
from jacrot.segments import NetworkSegment
from jacrot.segments._network import pool

pytestmark = pytest.mark.search

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))


def conv(n_out, n_in, size=3, activation="relu", **geometry):
    return Conv2d(normal(n_out, n_in, size, size), 0.1 * normal(n_out), activation, **geometry)


IMAGES = RNG.normal(size=(3, 4, 6, 5))
SEQUENCES = RNG.normal(size=(3, 5, 4))
MLP = [Dense(normal(6, 4), activation="gelu"), Dense(normal(4, 6), activation="identity")]
BLOCK = Residual([conv(4, 4, padding=1), conv(4, 4, activation="identity", padding=1)])
NETWORKS = {
    "convolution": ([conv(5, 4, padding=1)], IMAGES),
    "strided convolution": ([conv(5, 4, padding=((1, 0), (0, 1)), stride=(2, 1))], IMAGES),
    "dilated, grouped": ([conv(6, 2, groups=2, dilation=2, padding=1)], IMAGES),
    "rotated convolution": ([conv(5, 4, padding=1).rotate_outputs(rotation(5))], IMAGES),
    "block": ([BLOCK, Activation("relu")], IMAGES),
    "convolution to logits": ([conv(5, 4), AvgPool2d(), Flatten(), Dense(normal(3, 5))], IMAGES),
    "mlp of every token": ([Residual([LayerNorm(), *MLP])], SEQUENCES),
    "attention": ([Attention(*normal(4, 4, 4), n_heads=2, mask="causal")], SEQUENCES),
    "gated": ([GatedDense(normal(6, 4), normal(6, 4))], SEQUENCES),
}


def all_jacobians(network, X):
    """Compute the derivatives of all outputs with respect to the features at each position."""
    J = network.jacobians(X)
    n_out = J.ndim - X.ndim + 1
    # (n, *out, *in): features of either side last.
    if X.ndim == 4:
        J = np.moveaxis(J, n_out, -1)
    if n_out == 4:
        J = np.moveaxis(J, 1, 3)
    positions = int(np.prod(X.shape[2:] if X.ndim == 4 else X.shape[1:2]))
    n_targets = int(np.prod(J.shape[1 : n_out - 1]))
    width = J.shape[n_out - 1]
    J = J.reshape(len(X), n_targets, width, positions, -1)
    return J.transpose(0, 3, 1, 2, 4).reshape(-1, n_targets, width, J.shape[-1])


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_samples_are_the_features_at_each_position(name):
    layers, X = NETWORKS[name]
    network = Network(layers)
    expected = all_jacobians(network, X)
    stack = network_jacobians(network, X)
    assert stack.shape[0] == len(to_rows(X)) == len(expected)
    # Everything that is not zero, whatever its place in the sample.
    for P, Q in ((None, None), (rotation(stack.shape[1]), rotation(4, seed=1))):
        rotated = expected if P is None else P @ expected @ Q.T
        J = np.concatenate(list(stack.rotated(P, Q)))
        J = J.reshape(len(rotated), -1, *J.shape[1:])
        for found, wanted in zip(J, rotated, strict=True):
            found = found[np.abs(found).max(axis=(1, 2)) > 0]
            wanted = wanted[np.abs(wanted).max(axis=(1, 2)) > 0]
            assert len(found) == len(wanted)
            order = [int(np.abs(wanted - matrix).max(axis=(1, 2)).argmin()) for matrix in found]
            assert sorted(order) == list(range(len(wanted)))
            np.testing.assert_allclose(found, wanted[order], atol=1e-12)
        l1, l2 = stack.norms(P, Q)
        flat = rotated.reshape(len(rotated), -1)
        np.testing.assert_allclose(l1, np.abs(flat).sum(axis=1))
        np.testing.assert_allclose(l2, np.linalg.norm(flat, axis=1))
    reading, writing = stack.moments()
    np.testing.assert_allclose(reading, np.einsum("iwab,iwac->bc", *[expected] * 2) / len(expected))
    np.testing.assert_allclose(writing, np.einsum("iwab,iwcb->ac", *[expected] * 2) / len(expected))
    pairs = np.array([2, 7, 8])
    part = network_jacobians(network, X, pairs)
    for one, other in zip(part.norms(), stack.subset(pairs).norms(), strict=True):
        np.testing.assert_allclose(one, other)


def test_a_convolution_stays_in_factors_and_reaches_as_far_as_its_kernel():
    layers, X = NETWORKS["convolution"]
    assert network_jacobians(Network(layers), X).n_matrices == 9
    layers, X = NETWORKS["block"]
    assert network_jacobians(Network(layers), X).n_matrices == 25
    assert network_jacobians(Network(NETWORKS["attention"][0]), SEQUENCES).n_matrices == 5
    assert network_jacobians(Network(NETWORKS["gated"][0]), SEQUENCES).n_matrices == 1


def test_a_collapsed_convolution_costs_the_same():
    layers, X = NETWORKS["strided convolution"]
    stack = network_jacobians(Network(layers), X)
    collapsed = stack.collapsed(1)
    for Q in (None, rotation(4)):
        np.testing.assert_allclose(collapsed.norms(None, Q)[0], stack.norms(None, Q)[0].sum())


def test_blocks_that_are_recomputed_are_the_same():
    layers, X = NETWORKS["block"]
    stored = network_jacobians(Network(layers), X)
    with config_context(working_memory=0):
        recomputed = network_jacobians(Network(layers), X)
        few = recomputed.subset(np.array([5, 3]))
    Q = rotation(4)
    np.testing.assert_allclose(recomputed.norms(None, Q), stored.norms(None, Q))
    np.testing.assert_allclose(few.norms(), np.array(stored.norms())[:, [5, 3]])


def pooled(networks, activations, samples):
    return pool(
        [
            NetworkSegment(network, range(network.n_layers), X, chosen)
            for network, X, chosen in zip(networks, activations, samples, strict=True)
        ]
    )


def test_pooled_blocks_are_one_stack(rng):
    blocks = [Network(MLP), Network([BLOCK]), Network([conv(4, 4, padding=1)])]
    rows = rng.normal(size=(7, 4))
    stack = pooled([blocks[0]] * 2, [rows, SEQUENCES], [None, np.array([0, 3])])
    parts = [blocks[0].jacobians(rows), blocks[0].jacobians(to_rows(SEQUENCES)[[0, 3]])]
    expected = np.concatenate(parts)
    np.testing.assert_allclose(np.concatenate(list(stack.rotated(None, None))), expected)
    order = np.array([8, 0, 7, 3])
    np.testing.assert_allclose(
        np.concatenate(list(stack.subset(order).rotated(None, None))), expected[order]
    )
    with pytest.raises(ValueError, match=r"shapes \(9, 4, 4\) and \(25, 4, 4\)"):
        pooled(blocks[1:], [IMAGES, IMAGES], [None, None])


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("name", ["convolution", "block", "attention", "mlp of every token"])
def test_a_fit_rotates_the_features_and_keeps_the_function(name, output):
    layers, X = NETWORKS[name]
    network = Network(layers)
    model = JacobianSparsityRotation(rotate_output=output, random_state=0, tol=1e-3)
    model.fit(network, X)
    assert model.n_features_in_ == 4
    assert model.rotation_.shape == (4, 4)
    assert model.sparsity_ > model.sparsity_before_
    np.testing.assert_allclose(model.score(X), model.sparsity_, rtol=1e-6)
    Z = at_positions(model.transform, X)
    np.testing.assert_allclose(at_positions(model.inverse_transform, Z), X, atol=1e-12)
    y = network(X)
    turned = model.rotated_network()(Z)
    if output:
        P = model.output_rotation_
        y = at_positions(lambda rows: rows @ P.T, y)
    np.testing.assert_allclose(turned, y, atol=1e-12)
    # What is reported is the sparsity of a sample's matrices together.
    J = model.jacobians(X)
    flat = J.reshape(len(J), 1, -1)
    alive = np.abs(flat).max(axis=2)[:, 0] > 0
    np.testing.assert_allclose(hoyer(flat[alive]).mean(), model.sparsity_, rtol=1e-6)


def test_blocks_of_several_depths_share_a_tied_basis():
    # Every block is local in one hidden basis of the stream.
    hidden = rotation(4, seed=5)
    blocks, X = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        up, down = np.zeros((8, 4)), np.zeros((4, 8))
        up[np.arange(8), rng.integers(4, size=8)] = rng.normal(size=8)
        down[rng.integers(4, size=8), np.arange(8)] = rng.normal(size=8)
        branch = [Dense(up @ hidden, activation="tanh"), Dense(hidden.T @ down, None, "identity")]
        blocks.append(Network([Residual(branch)]))
        X.append(rng.normal(size=(60, 4)))
    model = JacobianSparsityRotation(rotate_output="tied", n_init=3, random_state=0)
    model.fit(blocks, X)
    overlap = np.abs(model.rotation_ @ hidden.T)
    np.testing.assert_allclose(np.sort(overlap.max(axis=1)), 1, atol=1e-3)
    assert isinstance(model.network_, tuple)
    for block, turned, x in zip(blocks, model.rotated_network(), X, strict=True):
        np.testing.assert_allclose(
            turned(model.transform(x)), model.transform(block(x)), atol=1e-12
        )
        assert turned[0].shortcut is None
    np.testing.assert_allclose(model.score(X), model.sparsity_)
    assert model.jacobians(X).shape == (180, 4, 4)
    other = JacobianSparsityRotation(blocks, rotate_output="tied", n_init=3, random_state=0).fit(X)
    np.testing.assert_array_equal(other.rotation_, model.rotation_)


def test_several_matrices_of_a_sample_may_be_computed_elsewhere():
    layers, X = NETWORKS["block"]
    J = np.array(all_jacobians(Network(layers), X))
    rows = to_rows(X)
    ours = JacobianSparsityRotation(Network(layers), random_state=0).fit(X)
    given = JacobianSparsityRotation(random_state=0).fit(J, rows)
    # The zeros out of reach change the measure, not the axes.
    np.testing.assert_allclose(np.abs(given.rotation_ @ ours.rotation_.T), np.eye(4), atol=0.02)
    with pytest.raises(ValueError, match="a 4-D array several"):
        JacobianSparsityRotation().fit(J[:3], rows)


def test_many_positions_are_drawn_by_the_random_state(rng):
    network = Network([conv(3, 4, padding=1)])
    X = rng.normal(size=(2, 4, 30, 30))
    pairs = draw_samples(network, X, np.random.RandomState(0))
    assert len(np.unique(pairs)) == MAX_PAIRS < 1800
    assert draw_samples(network, X[:1], np.random.RandomState(0)) is None
    assert draw_samples(Network([Dense(normal(3, 4))]), np.ones((2000, 4)), None) is None
    fits = [JacobianSparsityRotation(random_state=0).fit(network, X) for _ in range(2)]
    np.testing.assert_array_equal(fits[0].rotation_, fits[1].rotation_)
    assert fits[0].score(X) == fits[1].score(X)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([MLP, MLP], [SEQUENCES[0]] * 3), "pass a list with one network for each"),
        ((MLP[0], [SEQUENCES[0]] * 2), "pass a list with one network for each"),
        ((Network([conv(3, 5)]), IMAGES), "X has 4 features but the network reads 5"),
        ((lambda x: x**2, IMAGES), "reads rows"),
        ((np.ones((3, 2, 4)), SEQUENCES), "a 3-D array has one Jacobian"),
        ((Network([conv(3, 4)]), IMAGES * np.nan), "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        JacobianSparsityRotation().fit(*arguments)


def test_rows_are_asked_for_where_rows_are_needed():
    layers, X = NETWORKS["convolution"]
    model = JacobianSparsityRotation(random_state=0, tol=1e-2).fit(Network(layers), X)
    with pytest.raises(ValueError, match="at_positions"):
        model.transform(X)
    with pytest.raises(ValueError, match="one row for each"):
        at_positions(lambda rows: rows[:-1], X)
