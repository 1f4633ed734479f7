"""An estimator, a network and data that have the same widths, but do not belong together."""

import numpy as np
import pytest
from builders import framework, random_network, rotation

from jacrot import JacobianSparsityRotation, Network, NetworkRotation, layers
from jacrot.inspection import edge_curve, null_baseline
from jacrot.inspection._pairing import same_network
from jacrot.layers import Activation, BaseLayer, Dense, LayerNorm, Residual, identity_tangents

pytestmark = pytest.mark.filterwarnings("ignore:the search")

# All of one width, so that widths do not tell the layers apart.
NETWORK = random_network([6, 6, 6, 6], ["tanh", "relu", "identity"])
OTHER = random_network([6, 6, 6, 6], ["tanh", "relu", "identity"], seed=1)
QUICK = {"random_state": 0, "max_iter": 5}


class Square(BaseLayer):
    """A layer of a user's own, without arguments."""

    def __call__(self, x):
        return x**2

    def jvp(self, x, tangents):
        return x**2, 2 * x[..., None] * (identity_tangents(x) if tangents is None else tangents)


def inputs(rng):
    return rng.normal(size=(30, 6))


def changed(network, site, **changes):
    made = list(network.layers)
    made[site] = made[site].changed(**changes)
    return Network(made)


def curve(network, X, basis, **options):
    return edge_curve(network, X, calibration=X, metric="kl", n_points=3, basis=basis, **options)


@pytest.mark.parametrize(
    "other",
    [
        OTHER,
        NETWORK[1:],
        NETWORK.rotated({1: rotation(6)}),
        changed(NETWORK, 0, activation="relu"),
        changed(NETWORK, 2, bias=np.zeros(6)),
        changed(NETWORK, 1, weight=NETWORK[1].weight * (1 + 1e-4)),
        Network(NETWORK.layers[::-1]),
    ],
    ids=["weights", "part", "rotated", "activation", "bias", "later epoch", "order"],
)
def test_axes_of_another_network_are_refused(other, rng):
    X = inputs(rng)
    whole = NetworkRotation(**QUICK).fit(NETWORK, X)
    with pytest.raises(ValueError, match=r"NetworkRotation was fitted to Network.*not network"):
        curve(other, X, whole)


def test_axes_of_another_layer_are_refused(rng):
    X = inputs(rng)
    one = JacobianSparsityRotation(**QUICK).fit(NETWORK[1:2], NETWORK[:1](X))
    assert curve(NETWORK, X, one, layer=1).full == 0
    for layer in (0, 2):
        with pytest.raises(ValueError, match=rf"not network\[{layer}:{layer + 1}\]"):
            curve(NETWORK, X, one, layer=layer)
    with pytest.raises(ValueError, match=r"not network\[1:2\] .*another layer"):
        curve(OTHER, X, one, layer=1)
    elsewhere = JacobianSparsityRotation(**QUICK).fit(NETWORK[1:2].jacobians(X), X)
    with pytest.raises(ValueError, match="fitted to network"):
        curve(NETWORK, X, elsewhere, layer=1)


def test_the_same_network_is_known_again(rng, tmp_path):
    X = inputs(rng)
    whole = NetworkRotation(**QUICK).fit(NETWORK, X)
    weights = [(layer.weight.copy(), layer.bias.copy()) for layer in NETWORK]
    single = [(W.astype(np.float32), b.astype(np.float32)) for W, b in weights]
    for same in (weights, single):
        again = Network(same, ["tanh", "relu", "identity"])
        assert curve(again, X, whole).full == 0
    whole.save(tmp_path / "whole.npz")
    assert curve(NETWORK, X, NetworkRotation.load(tmp_path / "whole.npz")).full == 0


def test_layers_of_every_kind_are_compared_by_what_they_hold(rng):
    dense = Dense(rng.normal(size=(6, 6)))
    function = np.tanh

    def made(*, eps=1e-5, activation="relu", layer=Square):
        return Network(
            [
                Residual([LayerNorm(np.ones(6), np.zeros(6), eps=eps), dense]),
                Activation(activation),
                layer(),
                layers.Function(function),
            ]
        )

    class Cube(Square):
        pass

    assert same_network(made(), made())
    assert not same_network(made(), made(eps=1e-3))
    assert not same_network(made(), made(activation="tanh"))
    assert not same_network(made(), made(layer=Cube))
    assert not same_network(made(), Network([*made().layers[:-1], layers.Function(np.sin)]))


def test_a_network_read_twice_is_the_same(rng):
    torch = framework("torch")
    from jacrot.readers import from_torch

    model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.GELU(), torch.nn.Linear(6, 6))
    first, second = (from_torch(model) for _ in range(2))
    assert first is not second
    assert same_network(first, second)
    with torch.no_grad():
        model[0].weight[0, 0] += 0.1
    assert not same_network(first, from_torch(model))


@pytest.mark.parametrize("widths", [[6, 5, 6], [6, 6, 6, 6], [6, 6, 5]])
def test_weights_before_training_are_those_of_the_same_widths(widths, rng):
    X = inputs(rng)
    network = random_network([6, 6, 6], ["tanh", "identity"])
    fitted = JacobianSparsityRotation(**QUICK).fit(network, X)
    initial = random_network(widths, ["tanh"] * (len(widths) - 1), seed=1)
    with pytest.raises(ValueError, match=r"initial is Network.*only the weights differ"):
        null_baseline(fitted, X, X, initial=initial, n_repeats=2)
