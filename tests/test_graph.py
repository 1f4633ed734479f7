"""Graphs with sums and gates become nested layers of the same function."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot import Network
from jacrot.layers import Activation, BatchNorm, Dense, GatedDense, Residual
from jacrot.readers._graph import Graph

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3))


def linear(n_inputs=3, n_outputs=3, seed=0):
    rng = np.random.default_rng(seed)
    return Dense(rng.normal(size=(n_outputs, n_inputs)), rng.normal(size=n_outputs), "identity")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs_compute_what_numpy_does(data):
    values = {"t0": X}
    graph = Graph("t0")
    for index in range(data.draw(st.integers(1, 8), label="tensors")):
        name, names = f"t{index + 1}", st.sampled_from(sorted(values))
        first, second = data.draw(names), data.draw(names)
        match data.draw(st.sampled_from(["dense", "tanh", "add", "alias"])):
            case "dense":
                layer = linear(seed=index)
                graph.apply(layer, first, name)
                values[name] = layer(values[first])
            case "tanh":
                graph.apply(Activation("tanh"), first, name)
                values[name] = np.tanh(values[first])
            case "add":
                graph.add(first, second, name)
                values[name] = values[first] + values[second]
            case _:
                graph.alias(first, name)
                values[name] = values[first]
    for name, value in values.items():
        layers = graph.layers(name)
        np.testing.assert_allclose(Network(layers)(X) if layers else X, value, atol=1e-9)


def test_identity_and_projected_shortcuts():
    graph = Graph("x")
    graph.apply(linear(seed=1), "x", "a")
    graph.apply(Activation("relu"), "a", "b")
    graph.apply(linear(seed=2), "b", "c")
    graph.add("x", "c", "block")
    graph.apply(linear(3, 2, seed=3), "block", "left")
    graph.apply(linear(3, 2, seed=4), "block", "right")
    graph.apply(BatchNorm(np.ones(2), np.full(2, 4.0)), "right", "normed")
    graph.add("left", "normed", "y")
    first, second = graph.layers("y")
    assert repr(first) == "Residual(Sequential(Dense(3 → 3, relu), Dense(3 → 3, identity)))"
    assert repr(second) == "Residual(Dense(3 → 2, identity), Dense(3 → 2, identity))"
    assert repr(graph.layers("y", start="block")) == repr([second])
    assert repr(graph.layers("c", start="a")) == "[Activation(relu), Dense(3 → 3, identity)]"
    assert graph.layers("a", start="a") == []
    assert "normed" in graph


def test_the_longer_path_is_the_branch():
    for order in (("short", "long"), ("long", "short")):
        graph = Graph("x")
        graph.apply(linear(seed=1), "x", "short")
        graph.apply(Activation("relu"), "x", "a")
        graph.apply(linear(seed=2), "a", "long")
        graph.add(*order, "y")
        [layer] = graph.layers("y")
        assert isinstance(layer, Residual)
        assert repr(layer.shortcut) == "Dense(3 → 3, identity)"


@pytest.mark.parametrize("activation", ["silu", "gelu", "identity"])
@pytest.mark.parametrize("order", [("gate", "up"), ("up", "gate")])
def test_gates(activation, order):
    gate, up = linear(3, 4, seed=1), linear(3, 4, seed=2)
    graph = Graph("x")
    graph.apply(up, "x", "up")
    graph.apply(gate, "x", "g")
    graph.apply(Activation(activation), "g", "gate")
    graph.multiply(*order, "y")
    [layer] = graph.layers("y")
    assert isinstance(layer, GatedDense)
    np.testing.assert_allclose(layer(X), Activation(activation)(gate(X)) * up(X))


def test_x_times_its_sigmoid_is_silu():
    graph = Graph("x")
    graph.apply(Activation("sigmoid"), "x", "s")
    graph.multiply("s", "x", "y")
    assert repr(graph.layers("y")) == "[Activation(silu)]"
    with pytest.raises(ValueError, match="product of 'x' and 'y'"):
        graph.multiply("x", "y", "z")


def test_errors_name_the_tensor():
    graph = Graph("x")
    graph.apply(linear(), "x", "a")
    graph.add("x", "a", "y")
    with pytest.raises(ValueError, match=r"'b' is not in the graph.*'x', 'a'"):
        graph.apply(linear(), "b", "c")
    with pytest.raises(ValueError, match="'a' is computed twice"):
        graph.alias("x", "a")
    with pytest.raises(ValueError, match=r"start='a' is not enough to compute 'y'.*one of 'x'\."):
        graph.layers("y", start="a")
