"""Fingerprints: equal for equal data, and different for different ones."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jacrot import JacobianSparsityRotation, Network
from jacrot._estimators.provenance import network_fingerprint
from jacrot._io.fingerprints import BLOCK_BYTES, fingerprint

ANY = arrays.arrays(
    st.sampled_from([np.dtype(kind) for kind in ("f8", "f4", "i8", "u1", "?")]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(ANY, ANY)
def test_equal_only_for_equal_arrays(first, second):
    equal = (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.tobytes() == second.tobytes()
    )
    assert (fingerprint(first) == fingerprint(second)) == equal


@given(ANY)
def test_memory_layout_does_not_matter(array):
    expected = fingerprint(array)
    assert fingerprint(np.array(array, order="F")) == expected
    assert fingerprint(array.astype(array.dtype.newbyteorder(">"))) == expected
    if array.ndim:
        assert fingerprint(np.repeat(array, 2, axis=0)[::2]) == expected


def test_it_is_that_of_all_bytes_in_order():
    array = np.arange(3.0)
    digest = hashlib.sha256(b"<f8 (3,)" + array.tobytes())
    assert fingerprint(array) == digest.hexdigest()


def test_large_arrays_are_read_in_blocks(tmp_path):
    array = np.arange(BLOCK_BYTES // 4 * 2.5).astype(np.float32).reshape(-1, 64)[:-1]
    np.save(tmp_path / "array.npy", array)
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    assert fingerprint(mapped) == fingerprint(array)
    digest = hashlib.sha256(f"<f4 {array.shape}".encode() + array.tobytes())
    assert fingerprint(array) == digest.hexdigest()


def test_networks_are_told_apart_by_weights_and_activations():
    weight = np.arange(6.0).reshape(2, 3)
    first = network_fingerprint(Network([weight]))
    assert first == network_fingerprint(Network([weight.copy()]))
    assert first != network_fingerprint(Network([weight + 1e-16 * (weight == 5) + (weight == 5)]))
    assert first != network_fingerprint(Network([weight], activation="tanh"))
    assert network_fingerprint(Network(lambda x: x)) is None


def test_a_fit_knows_its_data():
    rng = np.random.default_rng(0)
    W, X = rng.normal(size=(6, 4)), rng.normal(size=(20, 4)).astype(np.float32)
    fitted = JacobianSparsityRotation(random_state=3).fit([W], X)
    provenance = fitted.provenance_
    assert provenance["data"] == [{"shape": [20, 4], "dtype": "float32", "sha256": fingerprint(X)}]
    assert provenance["networks"][0]["sha256"] == network_fingerprint(Network([W]))
    assert provenance["seed"] == 3
    assert provenance["scores"]["sparsity"] == fitted.sparsity_
    assert provenance["parameters"]["random_state"] == 3
    assert provenance["versions"]["numpy"] == np.__version__


@pytest.mark.parametrize("shape", [(20, 6, 4)])
def test_jacobians_have_a_fingerprint_too(shape):
    rng = np.random.default_rng(0)
    J, X = rng.normal(size=shape), rng.normal(size=(20, 4))
    provenance = JacobianSparsityRotation(random_state=0).fit(J, X).provenance_
    assert provenance["jacobians"]["sha256"] == fingerprint(J)
    assert "networks" not in provenance
