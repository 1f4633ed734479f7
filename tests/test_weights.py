"""Every form in which people hold weights, and what is wrong with those they should not."""

import autograd.numpy as anp
import numpy as np
import pytest
from scipy.sparse import csr_array

from jacrot import Network
from jacrot.layers import Dense
from jacrot.readers import load

RNG = np.random.default_rng(0)
W0, W1, W2 = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 5)), RNG.normal(size=(2, 4))
B0, B1, B2 = RNG.normal(size=5), RNG.normal(size=4), RNG.normal(size=2)
X = RNG.normal(size=(7, 3))
SQUARE = RNG.normal(size=(5, 5))
AUTOMATIC = [(2, "W", W0), (2, "b", B0), (0, "W", W1), (0, "b", B1), (1, "W", W2), (1, "b", B2)]


def by_hand(biases=True):
    x = X
    for weight, bias in ((W0, B0), (W1, B1), (W2, B2)):
        x = np.maximum(x @ weight.T + (bias if biases else 0), 0)
    return x


@pytest.mark.parametrize(
    "weights",
    [
        [(W0, B0), (W1, B1), (W2, B2)],
        ((W0, B0), (W1, B1), (W2, B2)),
        [[W0, B0], [W1, B1], [W2, B2]],
        [W0, B0, W1, B1, W2, B2],
        {"W0": W0, "b0": B0, "W1": W1, "b1": B1, "W2": W2, "b2": B2},
        {"W0": W0, "W1": W1, "W2": W2, "b0": B0, "b1": B1, "b2": B2},
        {"b0": B0, "W0": W0, "b1": B1, "W1": W1, "b2": B2, "W2": W2},
        {f"Dense_{i}.{k}": a for i, k, a in AUTOMATIC},
        [Dense(W0, B0), Dense(W1, B1), Dense(W2, B2)],
        Network([(W0, B0), (W1, B1), (W2, B2)]),
    ],
    ids=[
        "pairs",
        "tuples",
        "lists",
        "flat",
        "mapping",
        "mapping WWW",
        "mapping bW",
        "automatic",
        "layers",
        "net",
    ],
)
def test_all_forms_with_biases_are_the_same_network(weights):
    np.testing.assert_allclose(Network(weights)(X), by_hand(), rtol=1e-14)


@pytest.mark.parametrize("order", ["WbWb", "WWbb", "bWbW"])
def test_names_of_numpy_count_all_arrays(tmp_path, rng, order):
    arrays = [rng.normal(size=(4, 4) if kind == "W" else 4) for kind in order]
    np.savez(tmp_path / "positional.npz", *arrays)
    first, second = (array for array in arrays if array.ndim == 2)
    expected = Network(list(zip((first, second), (a for a in arrays if a.ndim == 1), strict=True)))
    network = load(tmp_path / "positional.npz")
    x = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(network(x), expected(x))


@pytest.mark.parametrize(
    "names",
    [
        ["W_1", "b_1", "W_2", "b_2"],
        ["Layer_1", "bias_1", "Layer_2", "bias_2"],
        ["FC_1.weight", "FC_1.bias", "FC_2.weight", "FC_2.bias"],
        ["weight_01", "bias_1", "weight_02", "bias_2"],
        ["W12", "b1", "W23", "b2"],
    ],
)
def test_names_that_people_number_in_order(rng, names):
    arrays = [rng.normal(size=size) for size in ((4, 4), 4, (4, 4), 4)]
    x = rng.normal(size=(3, 4))
    network = Network(dict(zip(names, arrays, strict=True)))
    np.testing.assert_array_equal(network(x), Network(arrays)(x))


@pytest.mark.parametrize(
    "weights",
    [[W0, W1, W2], [(W0, None), (W1, None), (W2, None)], {"a": W0, "b": W1, "c": W2}],
    ids=["matrices", "pairs", "mapping"],
)
def test_all_forms_without_biases_are_the_same_network(weights):
    np.testing.assert_allclose(Network(weights)(X), by_hand(biases=False), rtol=1e-14)


def test_biases_may_be_missing_in_places():
    expected = Network([(W0, B0), (W1, None), (W2, B2)])(X)
    np.testing.assert_array_equal(Network([W0, B0, W1, W2, B2])(X), expected)
    mapping = {"W0": W0, "b0": B0, "W1": W1, "W2": W2, "b2": B2}
    np.testing.assert_array_equal(Network(mapping)(X), expected)


@pytest.mark.parametrize("matrix", [W0, W0.tolist(), W0.astype(np.float32)])
def test_one_matrix_is_one_layer(matrix):
    network = Network(matrix, activation="identity")
    assert network.n_layers == 1
    np.testing.assert_allclose(network(X), X @ np.asarray(matrix).T, rtol=1e-12)


def test_callable_is_a_network_of_any_width():
    network = Network(lambda x: anp.sin(x))
    assert network.n_inputs is None
    np.testing.assert_array_equal(network(X), np.sin(X))


def test_the_hint_names_the_other_layout():
    for weights in ([W0, W1, W2], [(W0, B0), (W1, B1)]):
        with pytest.raises(ValueError, match=r"pass Network\(weights, layout='out_in'\)"):
            Network(weights, layout="in_out")


def test_networks_are_chained():
    parts = [Network([(W0, B0), (W1, B1)]), Network([(W2, B2)])]
    np.testing.assert_array_equal(Network(parts)(X), Network([*parts[0], *parts[1]])(X))


def test_in_out_layout_transposes():
    network = Network([(W0.T, B0), (W1.T, B1), (W2.T, B2)], layout="in_out")
    np.testing.assert_allclose(network(X), by_hand(), rtol=1e-14)


def test_one_activation_for_each_layer():
    network = Network([W0, W1], activation=["tanh", lambda x: 2 * x])
    np.testing.assert_allclose(network(X), 2 * np.tanh(X @ W0.T) @ W1.T)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([], ValueError, "weights is empty; pass"),
        ({}, ValueError, "empty mapping"),
        (
            [W0, W2],
            ValueError,
            "layer 0 writes 5 activations but layer 1 reads 4; pass the layers",
        ),
        (np.full((3, 2), np.inf), ValueError, "weights contains NaN or infinity"),
        ([W0.T, W1.T, W2.T], ValueError, r"pass Network\(weights, layout='in_out'\)"),
        ([(W0.T, B0), (W1.T, B1)], ValueError, r"pass Network\(weights, layout='in_out'\)"),
        ([(W0, B1)], ValueError, "5 outputs but its bias has 4 entries; pass a bias of 5"),
        (np.ones(3), ValueError, "1 dimension"),
        (np.ones((2, 3, 4, 5)), ValueError, "4 dimension"),
        ([W0, np.ones((1, 2, 3))], ValueError, r"weights\[1\] has shape \(1, 2, 3\)"),
        ([B0, W0], ValueError, r"weights\[0\] has shape \(5,\)"),
        ([W0, B0, B0], ValueError, r"weights\[2\] has shape \(5,\)"),
        ({"conv.weight": np.ones((2, 2, 3, 3))}, ValueError, "'conv.weight'.*has shape"),
        ({"b": B0}, ValueError, "in the order b, from which"),
        ({"W": W0, "b": B0, "c": B0}, ValueError, "in the order Wbb, from which"),
        ({"W": W0, "b": B0, "scale": B0, "V": W1}, ValueError, "in the order WbbW"),
        ({"W1": W0, "W10": W1, "W2": W2}, ValueError, "'W10' before 'W2', against the numbers"),
        ({"W0": SQUARE, "b1": B0, "W1": SQUARE}, ValueError, "'b1' in the place of the bias of"),
        ({"Dense_0/kernel": SQUARE, "Dense_1/kernel": SQUARE}, ValueError, "counts constructions"),
        ({"net.dense_3.W": SQUARE, "net.dense_4.W": SQUARE}, ValueError, "counts constructions"),
        ([(W0, B0[:, None])], ValueError, r"weights\[0\]\[1\] has 2 dimension"),
        ([(B0, W0)], ValueError, r"weights\[0\]\[0\] has 1 dimension"),
        ([(W0, B0), W1], ValueError, r"weights\[1\] is not a pair \(W, b\) although others are"),
        ([(W0, B0, B0)], ValueError, r"weights\[0\] is not a pair"),
        ([Dense], TypeError, "is the class Dense"),
        (csr_array(W0), TypeError, r"pass weights.toarray\(\)"),
        ([W0, W1 * np.nan], ValueError, r"weights\[1\] contains NaN"),
        ([(W0, B0 * np.inf)], ValueError, r"weights\[0\]\[1\] contains NaN or infinity"),
        (np.empty((0, 3)), ValueError, "a layer needs both sides"),
        (W0.astype(str), TypeError, "real numbers"),
        (W0 + 1j, TypeError, "real numbers"),
        ("weights.npz", TypeError, "weights is a str; pass"),
        (3.0, TypeError, "weights is a float"),
        (Dense, TypeError, "is the class Dense"),
        ([Dense(W0), W1], TypeError, r"weights\[1\] is a ndarray among layers"),
        ([W0, "W1"], (TypeError, ValueError), r"weights\[1\]"),
        ([W0, [[1.0], [1.0, 2.0]]], TypeError, r"weights\[1\] cannot be read as an array"),
    ],
)
def test_bad_weights_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        Network(weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, "'rleu' is unknown"),
        ({"activation": ["relu"]}, "lists 1 activations for 2 layers"),
        ({"layout": "oi"}, "layout='oi' is unknown"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Network([W0, W1], **options)


@pytest.mark.parametrize("activation", [None, 3])
def test_activation_of_another_kind_is_refused(activation):
    with pytest.raises(TypeError, match="pass a name, an elementwise function, or a list"):
        Network(W0, activation)


@pytest.mark.parametrize("options", [{"activation": "tanh"}, {"layout": "in_out"}])
def test_options_of_raw_weights_are_refused_with_layers(options):
    with pytest.raises(ValueError, match="leave activation and layout out"):
        Network([Dense(W0)], **options)
