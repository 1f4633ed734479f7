"""Jacobians against finite differences and autograd, and stacks against plain arrays."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import jacobian
from builders import CHAINS, random_network, rotation
from hypothesis import given, settings
from sklearn import config_context
from test_activations import DEFINITIONS

from jacrot import Network
from jacrot.jacobians import (
    BLOCK_ENTRIES,
    LayerJacobians,
    MatrixJacobians,
    StackJacobians,
)
from jacrot.network_jacobians import network_jacobians


@settings(deadline=None, max_examples=30)
@given(**CHAINS)
def test_chain_equals_autograd(widths, names, seed):
    network = random_network(widths, names[: len(widths) - 1], seed)

    def forward(x):
        for layer, name in zip(network.layers, names, strict=False):
            x = DEFINITIONS[name](anp.dot(layer.weight, x) + layer.bias)
        return x

    X = np.random.default_rng(seed).normal(size=(3, widths[0]))
    expected = np.stack([jacobian(forward)(x) for x in X])
    np.testing.assert_allclose(network.jacobians(X), expected, rtol=1e-9, atol=1e-9)


def finite_differences(network, X, step=1e-6):
    columns = []
    for feature in range(X.shape[1]):
        shift = step * np.eye(X.shape[1])[feature]
        columns.append((network(X + shift) - network(X - shift)) / (2 * step))
    return np.stack(columns, axis=2)


NETWORKS = {
    "dense": random_network([4, 6], ["gelu"]),
    "dense, output rotated": random_network([4, 6], ["gelu"]).writing(rotation(6)),
    "chain": random_network([4, 6, 3], ["tanh", "softplus"]),
    "callable": Network(lambda x: anp.sin(x) * x[:, ::-1] + anp.sum(x**2, axis=1, keepdims=True)),
    "mixed": Network(
        [*random_network([4, 6], ["silu"]).layers, lambda x: anp.tanh(x[:, :3]) * x[:, 3:]]
    ),
}
X = np.random.default_rng(5).normal(size=(9, 4))


@pytest.mark.parametrize("name", NETWORKS)
def test_jacobians_equal_finite_differences(name):
    network = NETWORKS[name]
    np.testing.assert_allclose(network.jacobians(X), finite_differences(network, X), atol=1e-8)


def stacks():
    for name, network in NETWORKS.items():
        yield pytest.param(network_jacobians(network, X), network.jacobians(X), id=name)
    network = NETWORKS["chain"]
    with config_context(working_memory=0):
        recomputed = network_jacobians(network, X)
    yield pytest.param(recomputed, network.jacobians(X), id="recomputed")
    J = np.random.default_rng(2).normal(size=(9, 6, 4))
    yield pytest.param(StackJacobians(J), J, id="precomputed")
    weight, slopes = J[0], J[:, :, 0]
    yield pytest.param(LayerJacobians(weight, slopes), slopes[:, :, None] * weight, id="given")
    rng = np.random.default_rng(3)
    left, right = rng.normal(size=(5, 6)), rng.normal(size=(4, 3))
    for L, R in ((left, right), (left, None), (None, right), (np.diag(left[0]), right)):
        expected = J if L is None else L @ J
        expected = expected if R is None else expected @ R
        transformed = StackJacobians(J).transformed(L, R)
        yield pytest.param(transformed, expected, id=f"transformed {transformed.shape}")
        expected = slopes[:, :, None] * weight
        expected = expected if L is None else L @ expected
        expected = expected if R is None else expected @ R
        transformed = LayerJacobians(weight, slopes).transformed(L, R)
        yield pytest.param(transformed, expected, id=f"transformed layer {transformed.shape}")


@pytest.fixture(params=[1, 3, 2**18], ids=["block 1", "block 3 rows", "one block"])
def _block_size(request, monkeypatch):
    monkeypatch.setattr("jacrot.jacobians.BLOCK_ENTRIES", 24 * request.param)


def whole(jacobians, P=None, Q=None):
    return np.concatenate(list(jacobians.rotated(P, Q)))


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize(("stack", "J"), list(stacks()))
def test_stack_answers_what_the_array_says(stack, J):
    n_samples, m, n = J.shape
    assert stack.shape == J.shape
    np.testing.assert_allclose(whole(stack), J, atol=1e-13)
    P, Q = rotation(m), rotation(n)[: n - 1]
    for left, right in ((None, None), (None, Q), (P, None), (P[:2], Q)):
        expected = J if left is None else left @ J
        expected = expected if right is None else expected @ right.T
        np.testing.assert_allclose(whole(stack, left, right), expected, atol=1e-12)
        l1, l2 = stack.norms(left, right)
        np.testing.assert_allclose(l1, np.abs(expected).sum((1, 2)), rtol=1e-12)
        np.testing.assert_allclose(l2, np.linalg.norm(expected, axis=(1, 2)), rtol=1e-12)
        reading, writing = stack.moments(left, right)
        squares = np.einsum("iab,iac->bc", expected, expected) / n_samples
        np.testing.assert_allclose(reading, squares, atol=1e-11)
        squares = np.einsum("iab,icb->ac", expected, expected) / n_samples
        np.testing.assert_allclose(writing, squares, atol=1e-11)

    chosen, scales = np.array([4, 1, 1, 7]), np.array([1.0, -2.0, 0.5, 3.0])
    expected = scales[:, None, None] * J[chosen]
    np.testing.assert_allclose(whole(stack.subset(chosen).scaled(scales)), expected, atol=1e-12)
    every = np.arange(1.0, n_samples + 1)
    np.testing.assert_allclose(
        whole(stack.scaled(every).subset(chosen).scaled(scales)),
        expected * every[chosen][:, None, None],
        atol=1e-12,
    )
    single = whole(stack.cast(np.float32), P, Q)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, P @ J @ Q.T, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 2**16])
def test_rows_of_one_matrix_come_in_blocks(rows, rng, monkeypatch):
    monkeypatch.setattr("jacrot.jacobians.ROW_BLOCK_ENTRIES", 4 * rows)
    matrix, P, Q = rng.normal(size=(11, 4)), rotation(11), rotation(4)
    stack = MatrixJacobians(matrix)
    blocks = [block() for block in stack.blocks(None, Q)]
    assert len(blocks) == {1: 6, 3: 4, 2**16: 1}[rows]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), (matrix @ Q.T)[None], atol=1e-14)
    np.testing.assert_allclose(whole(stack, P, Q), (P @ matrix @ Q.T)[None], atol=1e-14)
    np.testing.assert_allclose(stack.norms(None, Q)[0], [np.abs(matrix @ Q.T).sum()])
    reading, writing = stack.moments()
    np.testing.assert_allclose(reading, matrix.T @ matrix)
    np.testing.assert_allclose(writing, matrix @ matrix.T)
    scaled = stack.scaled(np.array([2.0])).subset(np.array([0])).cast(np.float32)
    assert whole(scaled).dtype == np.float32
    np.testing.assert_allclose(whole(scaled)[0], 2 * matrix, rtol=1e-6)


@pytest.mark.parametrize("degree", [1, 4])
def test_collapse_is_exact_for_every_rotation_and_slopes_of_either_sign(degree, rng):
    weight, slopes = rng.normal(size=(6, 4)), rng.normal(size=(50, 6))
    collapsed = LayerJacobians(weight, slopes).collapsed(degree)
    assert collapsed.shape == (1, 6, 4)
    for seed in range(3):
        Q = rotation(4, seed)
        all_samples = np.abs(slopes[:, :, None] * (weight @ Q.T)) ** degree
        np.testing.assert_allclose(
            (np.abs(whole(collapsed, None, Q)) ** degree).sum(), all_samples.sum(), rtol=1e-12
        )


def test_only_a_dense_layer_collapses():
    assert StackJacobians(np.ones((3, 2, 2))).collapsed(1) is None


def test_chain_is_stored_only_where_it_fits_the_working_memory():
    network = NETWORKS["chain"]
    stored = network_jacobians(network, X)
    assert isinstance(stored.source, np.ndarray)
    with config_context(working_memory=0):
        recomputed = network_jacobians(network, X)
        part = recomputed.subset(np.array([2, 5]))
    assert not isinstance(recomputed.source, np.ndarray)
    assert not isinstance(part.source, np.ndarray)
    np.testing.assert_allclose(whole(part), network.jacobians(X)[[2, 5]])
    assert isinstance(recomputed.subset(np.array([2, 5])).source, np.ndarray)


def test_blocks_bound_the_memory():
    n = 64
    stack = LayerJacobians(np.ones((n, n)), np.ones((500, n)))
    sizes = [block.size for block in stack.rotated(None, None)]
    assert max(sizes) <= BLOCK_ENTRIES
    assert sum(sizes) == 500 * n * n


def test_memory_map_is_read_block_by_block(tmp_path, rng):
    path = tmp_path / "jacobians.npy"
    J = rng.normal(size=(30, 5, 4)).astype(np.float32)
    np.save(path, J)
    stack = StackJacobians(np.load(path, mmap_mode="r"))
    assert isinstance(stack.source, np.memmap)
    np.testing.assert_allclose(stack.norms()[1], np.linalg.norm(J, axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_norms_of_extreme_entries(scale, rng):
    weight, slopes = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    J = slopes[:, :, None] * weight
    for stack in (StackJacobians(scale * J), LayerJacobians(scale * weight, slopes)):
        l1, l2 = stack.norms()
        np.testing.assert_allclose(l1 / scale, np.abs(J).sum((1, 2)), rtol=1e-12)
        np.testing.assert_allclose(l2 / scale, np.linalg.norm(J, axis=(1, 2)), rtol=1e-12)


def test_a_callable_that_mixes_samples_is_found_out_in_blocks_of_one(monkeypatch):
    monkeypatch.setattr("jacrot.jacobians.BLOCK_ENTRIES", 1)
    mixing = Network(lambda x: x * anp.mean(x, axis=0))
    with pytest.raises(ValueError, match="treats the rows of its argument independently"):
        network_jacobians(mixing, X)


def test_scales_of_extreme_entries_do_not_overflow_single_precision():
    for size in (1e-30, 1e30):
        J = np.full((2, 3, 3), size, dtype=np.float32)
        scaled = StackJacobians(J).scaled(np.full(2, 1 / size)).cast(np.float32)
        np.testing.assert_allclose(whole(scaled), 1, rtol=1e-6)
        layer = LayerJacobians(J[0], np.ones((2, 3))).scaled(np.full(2, 1 / size))
        np.testing.assert_allclose(whole(layer.cast(np.float32)), 1, rtol=1e-6)
