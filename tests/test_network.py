"""The network: what it computes, its parts, its rotations, its persistence."""

import copy
import json
import pickle

import autograd.numpy as anp
import numpy as np
import pytest
from builders import CHAINS, random_network, rotation
from hypothesis import given, settings
from sklearn.base import clone
from sklearn.utils.validation import _check_method_params

from jacrot import Network
from jacrot._io import archive
from jacrot._io.archive import HEADER
from jacrot.layers import Dense, Function, Layer, Residual
from jacrot.readers import load
from jacrot.readers._files import read_saved

NETWORK = random_network([3, 5, 4, 2], ["tanh", "gelu", "identity"])
X = np.random.default_rng(1).normal(size=(6, 3))


@settings(deadline=None, max_examples=40)
@given(**CHAINS)
def test_rotated_anywhere_the_function_stays(widths, names, seed):
    network = random_network(widths, names[: len(widths) - 1], seed)
    inputs = np.random.default_rng(seed).normal(size=(5, widths[0]))
    for site in range(network.n_layers):
        Q = rotation(widths[site], seed)
        rotated = network.rotated({site: Q})
        np.testing.assert_allclose(rotated(inputs), network(inputs), atol=1e-10, rtol=1e-10)


def test_rotated_at_every_site_at_once_and_again():
    sites = {1: rotation(5), 2: rotation(4)}
    rotated = NETWORK.rotated(sites)
    np.testing.assert_allclose(rotated(X), NETWORK(X), atol=1e-12)
    np.testing.assert_allclose(rotated[:1](X), NETWORK[:1](X) @ sites[1].T, atol=1e-12)
    np.testing.assert_allclose(rotated[:2](X), NETWORK[:2](X) @ sites[2].T, atol=1e-12)
    back = rotated.rotated({site: Q.T for site, Q in sites.items()})
    np.testing.assert_allclose(back[:2](X), NETWORK[:2](X), atol=1e-12)
    assert rotated.n_layers == NETWORK.n_layers


def test_rotation_is_folded_where_the_layer_is_linear():
    network = random_network([3, 5, 2], ["identity", "relu"])
    layer = network.rotated({1: rotation(5)}).layers[0]
    assert layer.output_rotation is None
    np.testing.assert_allclose(layer.weight, rotation(5) @ network.layers[0].weight)


def test_rotated_inputs_get_a_layer_of_their_own():
    rotated = NETWORK.rotated({0: rotation(3)})
    assert rotated.n_layers == 4
    np.testing.assert_allclose(rotated[:1](X), X @ rotation(3).T)


def test_single_precision_network_is_rotated_in_double():
    network = random_network([3, 5, 2], ["relu", "identity"], dtype=np.float32)
    np.testing.assert_allclose(network.rotated({1: rotation(5)})(X), network(X), atol=1e-10)


def test_rotation_in_single_precision_keeps_the_function():
    rotated = NETWORK.rotated({1: rotation(5).astype(np.float32)})
    np.testing.assert_allclose(rotated(X), NETWORK(X), rtol=1e-10)
    with pytest.raises(ValueError, match="not orthogonal"):
        NETWORK.rotated({1: rotation(5) + 3e-5})


def test_callables_are_rotated_too():
    network = Network([Dense(np.ones((4, 3))), lambda x: anp.sin(x) * x[:, ::-1], Dense(np.eye(4))])
    rotated = network.rotated({1: rotation(4), 2: rotation(4, 1)})
    np.testing.assert_allclose(rotated(X), network(X), atol=1e-12)
    np.testing.assert_allclose(
        rotated[1:2].jacobians(rotated[:1](X)),
        rotation(4, 1) @ network[1:2].jacobians(network[:1](X)) @ rotation(4).T,
        atol=1e-12,
    )
    again = rotated.rotated({1: rotation(4).T, 2: rotation(4, 1).T})
    np.testing.assert_allclose(again[:2](X), network[:2](X), atol=1e-12)


@pytest.mark.parametrize(
    ("sites", "error", "message"),
    [
        ({3: np.eye(2)}, ValueError, r"pass a site from 0 to 2: site l is what layer l reads\.$"),
        ({-1: np.eye(2)}, ValueError, "has site -1"),
        ({1: np.eye(4)}, ValueError, r"rotations\[1\] has shape \(4, 4\); pass a matrix \(5, 5\)"),
        ({1.0: np.eye(5)}, ValueError, "has site 1.0"),
        (
            {1: 2 * np.eye(5)},
            ValueError,
            r"not orthogonal: .* 3\.0e\+00; pass orthonormal rows \(np\.linalg\.qr gives .*\)\.$",
        ),
        ({1: np.full((5, 5), np.nan)}, ValueError, r"^rotations\[1\] contains NaN"),
        ([np.eye(5)], TypeError, "rotations is a list; pass a mapping"),
    ],
)
def test_bad_rotations_are_refused(sites, error, message):
    with pytest.raises(error, match=message):
        NETWORK.rotated(sites)


def test_bases_that_a_neighbour_bounds_are_checked():
    """Where a callable takes any width, the layer on its other side says which."""
    before = Network([Dense(np.ones((4, 3))), anp.sin])
    after = Network([anp.sin, Dense(np.ones((2, 4)))])
    for network, site in ((before, 1), (Network([anp.sin, *before]), 2), (after, 1)):
        network.rotated({site: rotation(4)})
        with pytest.raises(
            ValueError, match=rf"rotations\[{site}\] has shape \(3, 3\); .* \(4, 4\)"
        ):
            network.rotated({site: rotation(3)})
    # Nothing says what a callable that comes first reads.
    inputs = X[:, [0, 1, 2, 0]]
    np.testing.assert_allclose(after.rotated({0: rotation(4)})(inputs), after(inputs), atol=1e-12)
    with pytest.raises(ValueError, match=r"has shape \(3, 2\); pass a matrix \(3, 3\)"):
        after.rotated({0: np.eye(3)[:, :2]})


def test_ends_in_another_basis():
    Q, P = rotation(3)[:2], rotation(2)
    np.testing.assert_allclose(NETWORK.rotate_outputs(P)(X), NETWORK(X) @ P.T, atol=1e-12)
    np.testing.assert_allclose(NETWORK.rotate_inputs(Q)(X @ Q.T), NETWORK(X @ Q.T @ Q), atol=1e-12)
    assert NETWORK.rotate_inputs(Q).n_inputs == 2
    for network in (NETWORK.rotate_outputs(P), NETWORK.rotate_inputs(rotation(3))):
        np.testing.assert_array_equal(network.layers[1].weight, NETWORK.layers[1].weight)


def test_layouts_are_read_alike():
    weights = [layer.weight for layer in NETWORK.layers]
    as_rows = Network(weights)
    as_columns = Network([weight.T for weight in weights], layout="in_out")
    np.testing.assert_array_equal(as_columns(X), as_rows(X))
    for turned, layout, other in (
        ([weight.T for weight in weights], "out_in", "in_out"),
        (weights, "in_out", "out_in"),
    ):
        message = (
            rf"layer 0 writes 3 activations but layer 1 reads 4; .* transposed: .*layout='{other}'"
        )
        with pytest.raises(ValueError, match=message):
            Network(turned, layout=layout)


def test_weights_that_do_not_chain_are_refused():
    message = (
        "^weights do not chain: layer 1 writes 4 activations but layer 2 reads 3; pass the layers "
        r"in the order in which they are computed\.$"
    )
    with pytest.raises(ValueError, match=message):
        Network([np.ones((5, 3)), np.ones((4, 5)), np.ones((2, 3))])


def test_parts_compose_to_the_whole():
    for cut in (1, 2):
        np.testing.assert_array_equal(NETWORK[cut:](NETWORK[:cut](X)), NETWORK(X))
    assert NETWORK[1] is NETWORK.layers[1]
    assert list(NETWORK) == list(NETWORK.layers)
    assert NETWORK[0:2:1].n_layers == 2
    assert all(isinstance(layer, Layer) for layer in NETWORK)


@pytest.mark.parametrize("part", [slice(3, 3), slice(5, 9), slice(None, None, -1), slice(0, 3, 2)])
def test_no_part_is_refused(part):
    with pytest.raises(IndexError, match="is not a part of a network of 3 layers"):
        NETWORK[part]


def test_repr_is_short_whatever_the_size():
    assert repr(NETWORK) == "Network(3 → 5 → 4 → 2; tanh, gelu, identity)"
    assert len(repr(random_network([500, 800], ["relu"]))) < 60
    assert repr(Network(anp.sin)) == "Network(Function(sin))"
    mixed = Network([Dense(np.ones((4, 3))), anp.sin])
    assert repr(mixed) == "Network(Dense(3 → 4, relu), Function(sin))"


def test_scikit_learn_does_not_slice_it():
    three_samples = np.zeros((NETWORK.n_layers, 3))
    passed = _check_method_params(three_samples, {"weights": NETWORK}, indices=[0])
    assert passed["weights"] is NETWORK


def test_clone_shares_it_and_copies_are_equal():
    assert clone(NETWORK, safe=False) is NETWORK
    for other in (copy.deepcopy(NETWORK), pickle.loads(pickle.dumps(NETWORK))):
        np.testing.assert_array_equal(other(X), NETWORK(X))
        assert not other.layers[0].weight.flags.writeable


def test_it_is_immutable():
    given = np.ones((2, 3))
    network = Network(given)
    given[:] = 7
    assert network.layers[0].weight.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        network.layers[0].weight[0, 0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        network.layers[0].weight.flags.writeable = True
    for holder, name in (
        (network, "layers"),
        (network.layers[0], "weight"),
        (network.layers[0], "activation"),
        (Network(anp.sin).layers[0], "function"),
    ):
        with pytest.raises(
            AttributeError, match=f"instead of setting {name}|cannot assign to field .{name}."
        ):
            setattr(holder, name, None)
        with pytest.raises(
            AttributeError, match=f"{name} cannot be deleted|cannot delete field .{name}."
        ):
            delattr(holder, name)


def test_inputs_are_checked_and_not_modified():
    inputs = X.copy()
    inputs.flags.writeable = False
    NETWORK(inputs)
    NETWORK.jacobians(inputs)
    for bad, message in (
        (
            X[:, :2],
            "^X has 2 features but the network reads 3; pass the activations that its first layer "
            r"reads\.$",
        ),
        (X[0], r"^X has 1 dimension"),
        (X * np.nan, r"^X contains NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            NETWORK(bad)


def test_single_precision_stays():
    network = random_network([3, 5, 2], ["gelu", "elu"], dtype=np.float32)
    inputs = X.astype(np.float32)
    assert network(inputs).dtype == np.float32
    assert network.jacobians(inputs).dtype == np.float32


def test_save_and_load(tmp_path):
    network = NETWORK.rotated({1: rotation(5)})
    network.save(tmp_path / "network.npz")
    loaded = load(tmp_path / "network.npz")
    np.testing.assert_array_equal(loaded(X), network(X))
    assert repr(loaded) == repr(network)
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]


@pytest.mark.parametrize("metadata", [None, {"seed": 3, "criterion": "hoyer"}])
def test_save_keeps_what_is_said_of_the_network(tmp_path, metadata):
    path = tmp_path / "network.npz"
    NETWORK.save(path, metadata)
    with np.load(path) as file:
        assert json.loads(str(file[HEADER]))["metadata"] == (metadata or {})
    np.testing.assert_array_equal(load(path)(X), NETWORK(X))


def test_save_refuses_what_only_pickle_could_store(tmp_path):
    for network in (Network(anp.sin), Network(np.eye(2), anp.sin)):
        with pytest.raises(ValueError, match="without pickle"):
            network.save(tmp_path / "network.npz")
    with pytest.raises(ValueError, match=r"network\.pt' must end in '\.npz'"):
        NETWORK.save(tmp_path / "network.pt")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "network.npz"
    NETWORK.save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        NETWORK.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: np.tanh(np.asarray(x, float)), "use the functions of autograd.numpy in it"),
        (lambda x: anp.sum(x, axis=1), r"returned shape \(6,\) for 6 samples"),
        (lambda x: x[:, :0], r"returned shape \(6, 0\) for 6 samples"),
        (lambda x: x - anp.mean(x, axis=0), "treats the rows of its argument independently"),
    ],
)
def test_bad_callables_are_refused(function, message):
    with pytest.raises(ValueError, match=message):
        Network(function).jacobians(X)


def test_function_layer_wants_a_callable():
    with pytest.raises(TypeError, match="function must be a callable, got int"):
        Function(3)


@pytest.mark.parametrize("name", ["relu", "identity"])
def test_a_rotated_network_says_where(name):
    network = random_network([4, 4, 4, 4], [name] * 3)
    Q = rotation(4)
    names = ", ".join([name] * 3)
    rotated = network.rotated({2: Q, 1: Q})
    assert repr(rotated) == f"Network(4 → 4 → 4 → 4; {names}; rotated at sites 1, 2)"
    assert repr(network) == f"Network(4 → 4 → 4 → 4; {names})"
    # A layer that rotates the inputs moves the sites on.
    assert rotated.rotated({0: Q}).rotated_sites == (1, 2, 3)
    assert rotated.rotated({1: Q.T}).rotated_sites == (1, 2)
    # What is written at the end of a part is what the next one reads.
    assert rotated[:1].rotated_sites == (1,)
    assert rotated[1:].rotated_sites == (0, 1)
    assert rotated[2:3].rotated_sites == (0,)
    assert rotated[-1:].rotated_sites == (0,)
    assert network.rotate_inputs(Q).rotate_outputs(Q).rotated_sites == (0, 3)


def test_other_layers_say_it_too():
    network = Network([Residual([Dense(np.eye(3))]), Dense(np.eye(3))])
    assert repr(network.rotated({1: rotation(3)})).endswith("; rotated at site 1)")


def test_copies_and_files_of_a_rotated_network_say_it_too(tmp_path):
    network = random_network([3, 3, 3], ["identity", "tanh"]).rotated({1: rotation(3)})
    network.save(tmp_path / "network.npz")
    copies = pickle.loads(pickle.dumps(network)), Network(network), load(tmp_path / "network.npz")
    for same in copies:
        assert repr(same) == repr(network)


def test_sites_in_a_file_are_checked(tmp_path):
    path = tmp_path / "network.npz"
    random_network([3, 3, 3], ["identity", "tanh"]).rotated({1: rotation(3)}).save(path)
    description, arrays = read_saved(path)
    for sites in ([3], [-1], ["1"], [True], 1, {"1": 1}):
        archive.write(path, description | {"rotated_sites": sites}, arrays)
        with pytest.raises(ValueError, match="was changed after save wrote it"):
            load(path)
