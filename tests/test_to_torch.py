"""PyTorch modules of networks: outputs and Jacobians are the networks' own."""

import copy
import io
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from builders import CHAINS, framework, random_network, rotation
from hypothesis import given, settings
from test_layers import LAYERS, attention, case, features_first, rotated

import jacrot.layers
from jacrot import Network, NetworkRotation
from jacrot.activations import ACTIVATIONS, Clip, Elu, LeakyRelu
from jacrot.datasets import load_digits_mlp
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    BaseLayer,
    Basis,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Function,
    GatedDense,
    LayerNorm,
    MaxPool2d,
    Residual,
    RMSNorm,
    Sequential,
    Softmax,
)
from jacrot.readers import from_torch
from jacrot.writers import layer_to_torch, to_torch

torch = framework("torch")
nn = torch.nn

# A warning of PyTorch about its speed.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

# Everything is drawn on import: no test depends on which others have run.
RNG = np.random.default_rng(0)
NAMES = sorted(set(LAYERS) - {"function"})
PARAMETRISED = [LeakyRelu(0.2), LeakyRelu(1.5), Elu(0.3), Clip(-0.5, 0.7), Clip(0.0, 6.0)]


def normal(*shape):
    return RNG.normal(size=shape) / np.sqrt(shape[-1])


def conv(n_out, n_in, size=3, activation="tanh", **geometry):
    return Conv2d(normal(n_out, n_in, size, size), normal(n_out), activation, **geometry)


def array(tensor):
    return tensor.detach().numpy()


def outputs(module, x):
    return array(module(torch.from_numpy(x)))


def jacobians(module, x):
    one_sample = torch.func.vmap(torch.func.jacrev(lambda row: module(row[None])[0]))
    return array(one_sample(torch.from_numpy(x)))


def close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest)


def check(network, x):
    """Compare outputs and Jacobians, in double and in single precision."""
    module = to_torch(network)
    assert not any(part.training for part in module.modules())
    close(outputs(module, x), network(x))
    with torch.no_grad():  # where PyTorch has paths of its own
        close(outputs(module, x), network(x))
    close(jacobians(module, x), network.jacobians(x))
    single = copy.deepcopy(module).float()
    close(outputs(single, x.astype(np.float32)), network(x), 1e-5)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_layer(name):
    layer, x = case(name)
    check(Network([layer]), x)
    Q, P = rotation(len(features_first(x))), rotation(len(features_first(layer(x))), seed=1)
    check(Network([layer.rotate_inputs(Q).rotate_outputs(P)]), rotated(Q, x))


def test_every_layer_and_activation_has_an_entry():
    from jacrot.writers._torch_layers import _ACTIVATIONS

    public = [getattr(jacrot.layers, name) for name in jacrot.layers.__all__]
    known = {kind for kind in public if isinstance(kind, type) and issubclass(kind, BaseLayer)}
    assert known - {BaseLayer, Function} <= set(layer_to_torch.registry)
    assert Function not in layer_to_torch.registry
    assert set(_ACTIVATIONS) == {*ACTIVATIONS, *map(type, PARAMETRISED)}


@pytest.mark.parametrize("activation", [*sorted(ACTIVATIONS), *PARAMETRISED], ids=str)
def test_every_activation_also_at_kinks_and_far_out(activation):
    x = np.concatenate([np.linspace(-30, 30, 241), [-700, 700, 1e-9, -1e-9]])[:, None]
    network = Network([Activation(activation)])
    module = to_torch(network)
    np.testing.assert_allclose(outputs(module, x), network(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jacobians(module, x), network.jacobians(x), rtol=1e-12, atol=1e-13)


def test_a_saturated_softplus_is_exact():
    x = np.array([[25.0]])
    network = Network([Dense([[1.0]], activation="softplus")])
    assert network(x)[0, 0] - 25 > 1e-12
    np.testing.assert_array_equal(outputs(to_torch(network), x), network(x))


DENSE, CONV = Dense(normal(4, 4), activation="tanh"), conv(4, 4, 1)


@pytest.mark.parametrize(
    "layer",
    [
        LayerNorm(normal(4), normal(4)),
        LayerNorm(bias=normal(4)),
        LayerNorm(eps=0.1),
        RMSNorm(normal(4), eps=0.1),
        RMSNorm(),
        Softmax(),
        Basis(normal(3, 4), normal(3)),
        LAYERS["batch norm"][0],
        BatchNorm(normal(4), np.ones(4), eps=0),
        BatchNorm(normal(4), np.ones(4), bias=normal(4)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 4, 4)], ids=["rows", "sequences", "images"])
def test_one_module_reads_whatever_the_layer_reads(layer, shape):
    x = np.random.default_rng(0).normal(size=(3, *shape))
    check(Network([layer]), x)
    # What other layers read tells what comes here, but not always.
    if len(shape) == 3:
        check(Network([CONV, layer]), x)
    else:
        check(Network([DENSE, layer]), x)
    flat = Dense(np.ones((4, x[0].size)) / x[0].size, np.arange(4.0), "tanh")
    check(Network([Flatten(), flat, layer]), x)


@pytest.mark.parametrize("padding", [((0, 1), (2, 0)), 2, ((3, 0), (0, 0))])
def test_padding_that_pools_of_pytorch_do_not_have(padding):
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    check(Network([AvgPool2d(3, 2, padding)]), x)
    if padding != ((3, 0), (0, 0)):  # with windows that see nothing
        check(Network([AvgPool2d(3, 2, padding, count_padding=False)]), x)
        check(Network([MaxPool2d(3, 2, padding)]), x)
        check(Network([MaxPool2d((3, 2), 1, padding, dilation=(1, 2))]), x)


def square_attention(bias=True, **settings):
    weights = [normal(4, 4) for _ in range(4)]
    sides = ("query", "key", "value", "output")
    biases = {f"{side}_bias": normal(4) for side in sides} if bias else {}
    return Attention(*weights, n_heads=2, **biases, **settings)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (square_attention(), nn.MultiheadAttention),
        (square_attention(bias=False), nn.MultiheadAttention),
        (square_attention(mask=np.tri(3, dtype=bool)), nn.MultiheadAttention),
        (square_attention(mask="causal"), None),
        (square_attention(scale=0.3), None),
        (square_attention(frozen=True), None),
        (attention("causal", frozen=True), None),
    ],
    ids=["plain", "no bias", "mask", "causal", "scale", "frozen", "frozen and causal"],
)
def test_attention(layer, kind):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    module = check(Network([layer]), x)
    found = [type(part) for part in module.modules() if isinstance(part, nn.MultiheadAttention)]
    assert found == ([] if kind is None else [kind])
    if isinstance(layer.mask, str):
        check(Network([layer]), np.random.default_rng(0).normal(size=(2, 5, 4)))


NETWORKS = {
    "perceptron": random_network([5, 6, 4, 3], ["gelu", "tanh", "identity"]),
    "convolutional": Network(
        [
            conv(4, 2, padding=1, stride=2, activation="relu"),
            BatchNorm(normal(4), np.ones(4), normal(4), normal(4)),
            MaxPool2d(2, 1),
            Residual([conv(4, 4, padding=1), conv(4, 4, padding=1, activation="identity")]),
            Activation("gelu"),
            AvgPool2d(),
            Flatten(),
            BatchNorm(normal(4), np.ones(4)),
            Dense(normal(3, 4), normal(3), "identity"),
        ]
    ),
    "transformer": Network(
        [
            Dense(normal(4, 5), normal(4), "identity"),
            Residual([LayerNorm(normal(4), normal(4)), square_attention()]),
            Residual(
                [
                    RMSNorm(normal(4)),
                    GatedDense(normal(6, 4), normal(6, 4)),
                    Dense(normal(4, 6), normal(4), "identity"),
                ]
            ),
            LayerNorm(normal(4), normal(4)),
            Dense(normal(3, 4), normal(3), "identity"),
        ]
    ),
}
# The shape of a sample, and the widths of the sites inside.
SHAPES = {"perceptron": (5,), "convolutional": (2, 8, 7), "transformer": (3, 5)}
WIDTHS = {"perceptron": [6, 4], "convolutional": [4] * 8, "transformer": [4] * 4}


def deep(name):
    network, x = NETWORKS[name], np.random.default_rng(0).normal(size=(3, *SHAPES[name]))
    sites = {site: rotation(width, site) for site, width in enumerate(WIDTHS[name], start=1)}
    return network, network.rotated(sites), x


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_rotated_at_every_site(name):
    network, turned, x = deep(name)
    check(network, x)
    module = check(turned, x)
    close(outputs(module, x), network(x))
    for site in range(1, network.n_layers):
        close(outputs(module[:site], x), turned[:site](x))


@pytest.mark.filterwarnings("ignore:the search did not converge")
def test_rotated_in_functional_coordinates():
    digits = load_digits_mlp()
    X = digits.X[:100]
    model = NetworkRotation(
        digits.network,
        coordinates="functional",
        criterion="log",
        rotate_input=True,
        max_iter=2,
        random_state=0,
    ).fit(X)
    turned = model.rotated_network()
    module = to_torch(turned)
    close(outputs(module, X), turned(X))
    close(outputs(module, X), digits.network(X), 1e-10)
    # What is before the layers that are rotated is the layer that rotates the inputs.
    for site in model.rotations_:
        close(outputs(module[: site + 1], X), model.transform(X, site), 1e-10)


def test_the_structure_is_what_one_would_write():
    module = to_torch(NETWORKS["perceptron"].rotated({1: rotation(6)}))
    assert isinstance(module, nn.Sequential)
    assert [name for name, _ in module[0].named_children()] == ["linear", "activation", "rotation"]
    assert list(module.state_dict()) == [
        "0.linear.weight",
        "0.linear.bias",
        "0.rotation.weight",
        "1.linear.weight",
        "1.linear.bias",
        "2.weight",
        "2.bias",
    ]
    kinds = [type(part) for part in to_torch(NETWORKS["convolutional"]).modules()]
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.MaxPool2d, nn.GELU, nn.Flatten):
        assert kind in kinds
    kinds = [type(part) for part in to_torch(NETWORKS["transformer"]).modules()]
    for kind in (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.MultiheadAttention, nn.SiLU):
        assert kind in kinds
    assert "bias=False" in repr(to_torch(Network([Dense(np.eye(2))])))


def test_precision_is_the_networks():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    single = random_network([5, 6, 3], ["softplus", "identity"], dtype=np.float32)
    module = to_torch(single)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
    close(outputs(module, x), single(x), 1e-6)
    # In part double: PyTorch would refuse to multiply the two.
    turned = single.rotated({1: rotation(6)})
    module = to_torch(turned)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float64}
    close(outputs(module, x.astype(np.float64)), turned(x.astype(np.float64)))
    close(outputs(module.float(), x), single(x), 1e-6)


def test_parameters_are_copies_and_nothing_is_drawn():
    network, _, x = deep("transformer")
    state, before = torch.get_rng_state(), network(x)
    module = to_torch(network)
    assert torch.equal(torch.get_rng_state(), state)
    module(torch.from_numpy(x)).sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.add_(1)
    np.testing.assert_array_equal(network(x), before)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_modules_are_saved_loaded_and_exported(name):
    _, network, x = deep(name)
    module = to_torch(network)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    close(outputs(torch.load(file, weights_only=False), x), network(x))
    other = to_torch(network)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(module.state_dict())
    close(outputs(other, x), network(x))
    exported = torch.export.export(module, (torch.from_numpy(x),)).module()
    close(outputs(exported, x), network(x))


@settings(max_examples=20, deadline=None)
@given(**CHAINS)
def test_read_back(widths, names, seed):
    names = names[: len(widths) - 1]
    network = random_network(widths, names, seed, np.float32)
    x = np.random.default_rng(seed).normal(size=(4, widths[0])).astype(np.float32)
    again = from_torch(to_torch(network))
    assert repr(again) == repr(network)
    np.testing.assert_array_equal(again(x), network(x))
    turned = network.rotated({1: rotation(widths[1], seed)}) if len(widths) > 2 else network
    if "softplus" in names and turned is not network:
        return  # in double precision it is not what the reader knows
    close(from_torch(to_torch(turned))(x.astype(np.float64)), turned(x.astype(np.float64)))


@pytest.mark.parametrize("name", ["convolutional", "transformer"])
def test_deep_networks_read_back(name):
    network, turned, x = deep(name)
    close(from_torch(to_torch(turned))(x), network(x))
    again = from_torch(to_torch(network))
    close(again(x), network(x))
    close(again.jacobians(x), network.jacobians(x))


class Square(BaseLayer):
    """A user's own."""

    def __call__(self, x):
        return x**2

    def jvp(self, x, tangents):
        raise NotImplementedError


@dataclass(frozen=True)
class Power(BaseLayer):
    """A user's own, with a converter."""

    exponents: np.ndarray
    activation: str = "none of the package's"

    def __call__(self, x):
        return np.abs(x) ** self.exponents * x

    def jvp(self, x, tangents):
        raise NotImplementedError


class PowerModule(torch.nn.Module):
    def __init__(self, exponents):
        super().__init__()
        self.exponents = torch.nn.Parameter(exponents)

    def forward(self, x):
        return x.abs() ** self.exponents * x


@pytest.fixture
def power_converter():
    @layer_to_torch.register(Power)
    def convert(layer, ndims, dtype):
        return PowerModule(torch.from_numpy(layer.exponents.astype(dtype)))

    yield convert
    del layer_to_torch.registry[Power]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_of_ones_own_is_converted(power_converter, rng, dtype):
    weight = rng.normal(size=(3, 3)).astype(dtype)
    power = Power(np.array([0.5, 1, 2], dtype))
    network = Network([Residual([power, Dense(weight, activation="tanh")]), Sequential([power])])
    module = to_torch(network)
    assert {parameter.dtype for parameter in module.parameters()} == {
        torch.float32 if dtype == np.float32 else torch.float64
    }
    x = rng.normal(size=(5, 3)).astype(dtype)
    close(outputs(module, x), network(x))
    Q = rotation(3)
    turned = network.rotated({0: Q, 1: Q})
    x = x.astype(np.float64)
    close(outputs(to_torch(turned), x), turned(x))


def test_a_converter_is_for_its_class_only(power_converter):
    class Halved(Power):
        def __call__(self, x):
            return super().__call__(x) / 2

    with pytest.raises(ValueError, match=r"layer 0, .*Halved.* is your own Python code"):
        to_torch(Network([Halved(np.ones(3))]))
    with pytest.raises(ValueError, match=r"Halved.*for which no converter is registered"):
        layer_to_torch(Halved(np.ones(3)), frozenset({2}), np.dtype(float))


def test_one_layer_is_converted_before_any_network():
    code = """
import numpy as np
from jacrot.layers import Dense, Function
from jacrot.writers import layer_to_torch
print(layer_to_torch(Dense(np.eye(2)), frozenset({2}), np.dtype(float)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Sequential(\n  (linear): Linear(in_features=2")


class Doubled(Dense):
    """A user's own, derived from a layer that is known."""

    def __call__(self, x):
        return 2 * super().__call__(x)


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ([np.eye(2)], TypeError, r"network is a list; pass a jacrot.Network \(for several"),
        (
            Network([Dense(np.eye(2)), Square()]),
            ValueError,
            r"layer 1, <.*Square.*>, is your own Python code, which to_torch cannot convert; "
            r"register .*layer_to_torch\.register, .* it, network\[:1\] and network\[2:\]",
        ),
        (Network([Doubled(np.eye(2))]), ValueError, "layer 0, Dense.* is your own Python code"),
        (Network(np.sin), ValueError, r"layer 0, Function\(sin\), is your own Python code"),
        (
            Network([Flatten(), Residual(Sequential([LayerNorm(), Square()]))]),
            ValueError,
            r"layer 1\.branch\.1, <.*Square.*>, is .*network\[:1\] and network\[2:\]",
        ),
        (
            Network([Conv2d(np.ones((1, 1, 1, 1)), activation=lambda x: x * x)]),
            ValueError,
            r"layer 0, Conv2d\(.*<lambda>\), has an activation .*'elu', .*activation='identity'",
        ),
        (
            Network([GatedDense(np.eye(2), np.eye(2), activation=lambda x: x * x)]),
            ValueError,
            "layer 0, GatedDense",
        ),
    ],
)
def test_what_cannot_be_written(network, error, message):
    with pytest.raises(error, match=message):
        to_torch(network)


def test_pytorch_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"to_torch needs torch.*jacrot\[torch\]"):
        to_torch(NETWORKS["perceptron"])
