"""Jacobians against finite differences and autograd, and stacks against plain arrays."""

from concurrent.futures import ThreadPoolExecutor

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import jacobian
from builders import CHAINS, random_network, rotation
from hypothesis import given, settings
from sklearn import config_context
from test_activations import DEFINITIONS

from jacrot import Network
from jacrot._jacobians.base import BLOCK_ENTRIES, TransformedJacobians, n_samples_in_working_memory
from jacrot._jacobians.dense import StackJacobians
from jacrot._jacobians.layer import LayerJacobians
from jacrot._jacobians.matrix import MatrixJacobians
from jacrot._jacobians.networks import network_jacobians


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


def networks():
    """Build new stacks for every test, so that the test runs their constructors."""
    dense = random_network([4, 6], ["gelu"])
    mixed = [*random_network([4, 6], ["silu"]).layers, lambda x: anp.tanh(x[:, :3]) * x[:, 3:]]
    return {
        "dense": dense,
        "dense, output rotated": dense.rotate_outputs(rotation(6)),
        "chain": random_network([4, 6, 3], ["tanh", "softplus"]),
        "callable": Network(
            lambda x: anp.sin(x) * x[:, ::-1] + anp.sum(x**2, axis=1, keepdims=True)
        ),
        "mixed": Network(mixed),
    }


X = np.random.default_rng(5).normal(size=(9, 4))


@pytest.mark.parametrize("name", list(networks()))
def test_jacobians_equal_finite_differences(name):
    network = networks()[name]
    np.testing.assert_allclose(network.jacobians(X), finite_differences(network, X), atol=1e-8)


def diagonals(slopes, weight):
    return slopes[..., None] * weight


def between(left, J, right):
    J = J if left is None else left @ J
    return J if right is None else J @ right


def stacks():
    """Build every kind of stack, and its array ``(n_samples, n_matrices, m, n)``."""
    made = {}
    for name, network in networks().items():
        made[name] = network_jacobians(network, X), network.jacobians(X)[:, None]
    chain = networks()["chain"]
    with config_context(working_memory=0):
        made["recomputed"] = network_jacobians(chain, X), chain.jacobians(X)[:, None]
    rng = np.random.default_rng(2)
    J, several = rng.normal(size=(9, 6, 4)), rng.normal(size=(9, 2, 6, 4))
    made["precomputed"] = StackJacobians(J), J[:, None]
    made["several matrices"] = StackJacobians(several), several
    layer = J[0], J[:, :, 0]
    offsets = several[0], several[..., 0]
    made["given"] = LayerJacobians(*layer), diagonals(layer[1], layer[0])[:, None]
    made["offsets"] = LayerJacobians(*offsets), diagonals(offsets[1], offsets[0])
    left, right = rng.normal(size=(5, 6)), rng.normal(size=(4, 3))
    sides = {
        "both": (left, right),
        "left": (left, None),
        "right": (None, right),
        "diagonal": (np.diag(left[0]), right),
        "wider": (rng.normal(size=(8, 6)), rng.normal(size=(4, 5))),
    }
    for name, (L, R) in sides.items():
        for kind in ("precomputed", "several matrices", "given", "offsets"):
            stack, expected = made[kind]
            made[f"{kind}, {name}"] = stack.transformed(L, R), between(L, expected, R)
    return made


@pytest.fixture(params=[1, 3, 2**18], ids=["block 1", "block 3 rows", "one block"])
def _block_size(request, monkeypatch):
    monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", 24 * request.param)


def whole(jacobians, P=None, Q=None):
    return np.concatenate(list(jacobians.rotated(P, Q)))


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("name", list(stacks()))
def test_stack_answers_what_the_array_says(name):
    stack, J = stacks()[name]
    n_samples, n_matrices, m, n = J.shape
    flat = J.reshape(-1, m, n)
    assert stack.shape == (n_samples, m, n)
    assert stack.n_matrices == n_matrices
    assert (stack.n_entries_each, stack.n_entries) == (J[0].size, J.size)
    np.testing.assert_allclose(whole(stack), flat, atol=1e-13)
    P, Q = rotation(m), rotation(n)[: n - 1]
    for left, right in ((None, None), (None, Q), (P, None), (P[:2], Q)):
        expected = between(left, J, None if right is None else right.T)
        found = whole(stack, left, right)
        np.testing.assert_allclose(found, expected.reshape(-1, *found.shape[1:]), atol=1e-12)
        l1, l2 = stack.norms(left, right)
        assert l1.dtype == l2.dtype == np.float64
        np.testing.assert_allclose(l1, np.abs(expected).sum((1, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(l2, np.sqrt((expected**2).sum((1, 2, 3))), rtol=1e-12)
        reading, writing = stack.moments(left, right)
        squares = np.einsum("ikab,ikac->bc", expected, expected) / n_samples
        np.testing.assert_allclose(reading, squares, atol=1e-11)
        squares = np.einsum("ikab,ikcb->ac", expected, expected) / n_samples
        np.testing.assert_allclose(writing, squares, atol=1e-11)

    chosen, scales = np.array([4, 1, 1, 7]), np.array([1.0, -2.0, 0.5, 3.0])
    expected = scales[:, None, None, None] * J[chosen]
    part = stack.subset(chosen).scaled(scales)
    np.testing.assert_allclose(whole(part), expected.reshape(-1, m, n), atol=1e-12)
    every = np.arange(1.0, n_samples + 1)
    np.testing.assert_allclose(
        whole(stack.scaled(every).subset(chosen).scaled(scales)),
        (expected * every[chosen][:, None, None, None]).reshape(-1, m, n),
        atol=1e-12,
    )
    in_single = part.cast(np.float32)
    for single in (in_single, in_single.scaled(np.ones(4, np.float32)).subset(np.arange(4))):
        blocks = whole(single, P, Q)
        assert blocks.dtype == np.float32
        np.testing.assert_allclose(
            blocks, (P @ expected @ Q.T).reshape(-1, m, n - 1), atol=1e-5 * np.abs(J).max()
        )
        assert all(norms.dtype == np.float64 for norms in single.norms(P, Q))


@pytest.mark.parametrize("name", ["recomputed", "callable", "precomputed", "several matrices"])
def test_what_is_made_on_demand_remembers_samples_scales_and_precision(name):
    with config_context(working_memory=0):
        stack, J = stacks()[name]
        chosen, again = np.array([4, 1, 1, 7]), np.array([3, 0])
        one, other = np.array([1.0, -2.0, 0.5, 3.0]), np.array([7.0, 0.5])
        part = stack.subset(chosen).scaled(one).subset(again).scaled(other).cast(np.float32)
        part = part.scaled(np.full(2, 2.0, np.float32))
        expected = (2 * other * one[again])[:, None, None, None] * J[chosen[again]]
        found = whole(part)
        assert found.dtype == np.float32
        assert part.source is stack.source
        np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-5, atol=1e-6)


class Recorded:
    """Jacobians that are made on demand, and the samples that were asked for."""

    def __init__(self, J):
        self.J, self.shape, self.asked = J, J.shape, []

    def __getitem__(self, samples):
        self.asked.append(np.atleast_1d(np.arange(len(self.J))[samples]))
        return self.J[samples]


@pytest.mark.parametrize(("at_once", "n_reads"), [(1, 5), (3, 2), (100, 1)])
@pytest.mark.parametrize("shape", [(8, 5, 4), (8, 2, 5, 4)])
def test_a_source_is_read_once_and_in_its_order(shape, at_once, n_reads, rng, monkeypatch):
    J = rng.normal(size=shape)
    monkeypatch.setattr("jacrot._jacobians.dense.READ_ENTRIES", at_once * J[0].size)
    chosen = np.array([6, 0, 7, 3, 2])
    source = Recorded(J)
    part = StackJacobians(source).subset(chosen)
    assert isinstance(part.source, np.ndarray)
    np.testing.assert_array_equal(whole(part), J[chosen].reshape(-1, 5, 4))
    np.testing.assert_array_equal(np.concatenate(source.asked), np.sort(chosen))
    assert len(source.asked) == n_reads
    source = Recorded(J)
    kept = StackJacobians(source, dtype=np.float32).in_memory()
    assert kept.source.dtype == np.float32
    np.testing.assert_array_equal(whole(kept), J.reshape(-1, 5, 4).astype(np.float32))
    np.testing.assert_array_equal(np.concatenate(source.asked), np.arange(8))


def test_working_memory_counts_bytes():
    with config_context(working_memory=1):
        assert n_samples_in_working_memory(1000, np.float64) == 2**20 // 8000
        assert n_samples_in_working_memory(1000, np.float32) == 2**20 // 4000
        # 2¹⁷ numbers of eight bytes fill it.
        for n_samples, dtype, fits in (
            (2**13, np.float64, True),
            (2**13 + 1, np.float64, False),
            (2**13 + 1, np.float32, True),
        ):
            stack = StackJacobians(np.broadcast_to(0.0, (n_samples, 4, 4)), dtype=dtype)
            assert stack.fits_working_memory == fits


def test_only_arrays_may_be_read_by_several_threads():
    array, source = StackJacobians(X[:, None]), StackJacobians(Recorded(X[:, None]))
    for stack, concurrent in ((array, True), (source, False)):
        transformed = TransformedJacobians(stack, None, np.ones((4, 2)))
        assert stack.concurrent is transformed.concurrent is concurrent


@pytest.mark.parametrize("kind", ["precomputed", "given", "offsets, left", "precomputed, both"])
def test_threads_share_the_blocks_of_norms_and_moments(kind, monkeypatch):
    monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", 1)
    stack, _ = stacks()[kind]
    P, Q = rotation(stack.shape[1]), rotation(stack.shape[2])
    shared = []

    with ThreadPoolExecutor(3) as pool:

        def apply(*arguments):
            shared.append(arguments)
            return pool.map(*arguments)

        for one, other in zip(
            (*stack.norms(P, Q, apply), *stack.moments(P, Q, apply)),
            (*stack.norms(P, Q), *stack.moments(P, Q)),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
    # The moments of a layer are closed.
    assert len(shared) == (1 if kind in ("given", "offsets, left") else 2)


@pytest.mark.parametrize("rows", [1, 3, 2**16])
def test_rows_of_one_matrix_come_in_blocks(rows, rng, monkeypatch):
    monkeypatch.setattr("jacrot._jacobians.matrix.ROW_BLOCK_ENTRIES", 4 * rows)
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
    for left, right in ((None, None), (None, Q), (P, Q)):
        found = whole(scaled, left, right)
        assert found.dtype == np.float32
        expected = between(left, 2 * matrix, None if right is None else right.T)
        np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-5)


def test_one_column_comes_in_blocks_too(monkeypatch):
    monkeypatch.setattr("jacrot._jacobians.matrix.ROW_BLOCK_ENTRIES", 1)
    stack = MatrixJacobians(np.arange(3.0)[:, None])
    assert [block().tolist() for block in stack.blocks(None, None)] == [[[[0]]], [[[1]]], [[[2]]]]


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


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_collapse_of_several_offsets_is_exact(degree, rng):
    weight, slopes = rng.normal(size=(3, 6, 4)), rng.normal(size=(20, 3, 6))
    collapsed = LayerJacobians(weight, slopes).collapsed(degree)
    assert collapsed.shape == (1, 18, 4)
    Q = rotation(4)
    everything = (np.abs(diagonals(slopes, weight) @ Q.T) ** degree).sum()
    found = (np.abs(whole(collapsed, None, Q)) ** degree).sum()
    np.testing.assert_allclose(found, everything, rtol=1e-12)


def test_only_a_dense_layer_collapses(rng):
    assert StackJacobians(np.ones((3, 2, 2))).collapsed(1) is None
    layer, scales = LayerJacobians(rng.normal(size=(6, 4)), rng.normal(size=(5, 6))), np.arange(6.0)
    assert layer.transformed(rng.normal(size=(6, 6)), None).collapsed(1) is None
    # Other units of the outputs, and other inputs, leave it one.
    other = layer.transformed(np.diag(scales), rotation(4))
    l1 = np.abs(scales[:, None] * whole(layer) @ rotation(4)).sum()
    np.testing.assert_allclose(np.abs(whole(other.collapsed(1))).sum(), l1, rtol=1e-12)


def test_chain_is_stored_only_where_it_fits_the_working_memory():
    network = networks()["chain"]
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
    # Axes may be more than features.
    wide = rotation(4 * n)[:, :n]
    for kind in (stack, StackJacobians(np.ones((500, n, n)))):
        for P, Q in ((wide, None), (None, wide), (wide, wide)):
            assert max(block.size for block in kind.rotated(P, Q)) <= BLOCK_ENTRIES


def test_a_sample_larger_than_a_block_comes_alone(monkeypatch, rng):
    monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", 5)
    J = rng.normal(size=(3, 2, 4))
    for stack in (StackJacobians(J), LayerJacobians(J[0], J[:, :, 0])):
        assert [len(block) for block in stack.rotated(None, None)] == [1, 1, 1]


def test_memory_map_is_read_block_by_block(tmp_path, rng):
    path = tmp_path / "jacobians.npy"
    J = rng.normal(size=(30, 5, 4)).astype(np.float32)
    np.save(path, J)
    stack = StackJacobians(np.load(path, mmap_mode="r"))
    assert isinstance(stack.source, np.memmap)
    np.testing.assert_allclose(stack.norms()[1], np.linalg.norm(J, axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1e-160, np.float64), (1e160, np.float64), (1e-30, np.float32), (1e30, np.float32)],
)
def test_norms_of_extreme_entries(scale, dtype, rng):
    weight, slopes = rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    # A sample that nothing passes, and a neuron that reads nothing.
    slopes[2] = weight[1] = 0
    J = diagonals(slopes, weight)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    for stack in (StackJacobians(scale * J, dtype=dtype), LayerJacobians(scale * weight, slopes)):
        l1, l2 = stack.norms()
        np.testing.assert_allclose(l1 / scale, np.abs(J).sum((1, 2)), rtol=rtol)
        np.testing.assert_allclose(l2 / scale, np.linalg.norm(J, axis=(1, 2)), rtol=rtol)


@pytest.mark.parametrize("size", [1e-30, 3e-22, 3e38])
def test_norms_whose_squares_single_precision_cannot_hold(size):
    J = np.full((2, 30, 40), size, np.float32)
    l1, l2 = StackJacobians(J, dtype=np.float32).norms()
    np.testing.assert_allclose(l1, 1200 * size, rtol=1e-6)
    np.testing.assert_allclose(l2, np.sqrt(1200) * size, rtol=1e-6)


def test_a_layer_that_writes_nothing_has_norm_zero():
    stack = LayerJacobians(np.zeros((3, 2)), np.ones((4, 3)))
    np.testing.assert_array_equal(stack.norms(), np.zeros((2, 4)))
    np.testing.assert_array_equal(whole(stack.scaled(np.ones(4))), np.zeros((4, 3, 2)))


def test_a_callable_that_mixes_samples_is_found_out_in_blocks_of_one(monkeypatch):
    monkeypatch.setattr("jacrot._jacobians.base.BLOCK_ENTRIES", 1)
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


def test_rows_of_every_size_fit_single_precision():
    weight, slopes = np.outer([1e-60, 1.0, 1e60], [1.0, -0.5]), np.array([[1e60, 2.0, 1e-60]])
    layer = LayerJacobians(weight, slopes).scaled(np.array([3.0])).cast(np.float32)
    np.testing.assert_allclose(whole(layer)[0], [[3, -1.5], [6, -3], [3, -1.5]], rtol=1e-6)
