"""Modules and state dicts of PyTorch, against their own forward pass and Jacobian."""

from copy import deepcopy

import numpy as np
import pytest
from builders import framework
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot.layers import Attention, Dense, GatedDense, Residual
from jacrot.readers import from_torch

torch = framework("torch")
nn, functional = torch.nn, torch.nn.functional
torch.set_num_threads(1)

# A warning of PyTorch about its speed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]

ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.LeakyReLU(),
    nn.LeakyReLU(0.2),
    nn.ELU(),
    nn.ELU(0.5),
    nn.SELU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Tanh(),
    nn.Hardtanh(-0.5, 0.7),
    nn.Sigmoid(),
    nn.Softplus(),
]
SETTINGS = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 10_000)
activations = st.sampled_from(ACTIVATIONS)


def check(model, shape, seed=0, read=from_torch):
    """Compare with the module's own outputs and Jacobians, on five random inputs."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        for parameter in module.parameters(recurse=False):
            parameter.data.add_(0.3 * torch.rand_like(parameter))
    network = read(model)
    modes = [module.training for module in model.modules()]
    x = torch.randn(5, *shape)
    model.eval()
    # The module may change its inputs.
    expected = model(x.clone()).detach().numpy()
    jacobians, exact = (
        module_jacobians(model, x),
        module_jacobians(deepcopy(model).double(), x.double()),
    )
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    close(network(x.numpy()), expected)
    # Where PyTorch itself is off by more, as behind a saturated softmax, so may we be.
    rounding = 3 * np.abs(jacobians - exact).max()
    close(network.jacobians(x.numpy()), jacobians, rounding)
    return network


def module_jacobians(model, x):
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: model(row.clone()[None])[0]))(x)
    return jacobians.detach().numpy()


def close(found, expected, rounding=0):
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    tolerance = 1e-5 * np.abs(expected).max() + 1e-7 + rounding
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@SETTINGS
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.lists(activations, min_size=4, max_size=4),
    st.lists(st.sampled_from(["none", "batch", "layer", "rms"]), min_size=4, max_size=4),
    st.booleans(),
    SEEDS,
)
def test_multilayer_perceptrons(widths, functions, norms, bias, seed):
    make = {
        "none": lambda width: nn.Dropout(),
        "batch": lambda width: nn.BatchNorm1d(width, affine=bias),
        # A layer norm of one feature has no slope but what its eps makes.
        "layer": lambda width: nn.LayerNorm(width, 0.1, elementwise_affine=bias),
        "rms": lambda width: nn.RMSNorm(width, 0.1),
    }
    parts = []
    for index in range(len(widths) - 1):
        parts += [
            nn.Linear(*widths[index : index + 2], bias=bias),
            make[norms[index]](widths[index + 1]),
            functions[index],
        ]
    check(nn.Sequential(*parts), (widths[0],), seed)


@SETTINGS
@given(st.data(), SEEDS)
def test_convolutions_and_pools(data, seed):
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups = data.draw(st.integers(1, 2), label="groups")
    same = data.draw(st.booleans(), label="same")
    first = nn.Conv2d(
        2,
        2 * groups,
        data.draw(pairs, label="kernel"),
        stride=1 if same else data.draw(pairs, label="stride"),
        padding="same" if same else data.draw(st.tuples(*[st.integers(0, 2)] * 2), label="padding"),
        dilation=data.draw(st.sampled_from([1, 2, (1, 2)]), label="dilation"),
        groups=groups,
        bias=data.draw(st.booleans(), label="bias"),
    )
    pool = data.draw(
        st.sampled_from(
            [
                nn.Identity(),
                nn.MaxPool2d(2, stride=1, padding=1),
                nn.MaxPool2d((2, 1), padding=(1, 0), dilation=(1, 2)),
                nn.AvgPool2d((1, 2), padding=(0, 1)),
                nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
                nn.AvgPool2d(2, padding=1),
            ]
        ),
        label="pool",
    )
    parts = [first, nn.BatchNorm2d(2 * groups), data.draw(activations), pool, nn.Dropout2d()]
    parts += data.draw(
        st.sampled_from([[], [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * groups, 3)]])
    )
    check(nn.Sequential(*parts), (2, 8, 7), seed)


class Block(nn.Module):
    """A residual block as ResNets have it, with a projection where it is needed."""

    def __init__(self, inputs, outputs, stride, option, inplace):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs) for _ in range(2)])
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.relu = nn.ReLU(inplace)
        self.widening = None
        if option == "A":
            before = (outputs - inputs) // 2
            widen = (0, 0, 0, 0, before, outputs - inputs - before)
            self.widening = lambda x: functional.pad(x[:, :, ::stride, ::stride], widen)
        elif stride > 1 or inputs != outputs:
            self.widening = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        out = self.relu(self.norms[0](self.first(x)))
        out = self.norms[1](self.second(out))
        out += x if self.widening is None else self.widening(x)
        return functional.relu(out, inplace=True)


class ResNet(nn.Module):
    def __init__(self, options, strides, inplace):
        super().__init__()
        widths = [2, 3, 3, 5]
        self.stem = nn.Conv2d(2, 2, 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                Block(*widths[i : i + 2], strides[i], options[i], inplace)
                for i in range(len(options))
            )
        )
        self.head = nn.Linear(widths[len(options)], 4)

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem(x)))
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.head(x.view(x.size(0), -1))


@SETTINGS
@given(
    st.lists(st.sampled_from("AB"), min_size=1, max_size=3),
    st.lists(st.integers(1, 2), min_size=3, max_size=3),
    st.booleans(),
    SEEDS,
)
def test_residual_networks(options, strides, inplace, seed):
    network = check(ResNet(options, strides, inplace), (2, 6, 5), seed)
    assert sum(isinstance(layer, Residual) for layer in network) == len(options)


class Transformer(nn.Module):
    """Blocks of attention and of a gated layer, before or after the norms."""

    def __init__(self, width, hidden, n_heads, bias, function, before, mask):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, n_heads, bias=bias, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.RMSNorm(width)])
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width)
        self.function, self.before = function, before
        self.register_buffer("mask", mask)

    def forward(self, x):
        first, second = self.norms
        y = first(x) if self.before else x
        x = x + self.attention(y, y, y, need_weights=False, attn_mask=self.mask)[0]
        y = second(x if self.before else first(x))
        y = functional.dropout(y, 0.5, self.training)
        x = x + self.down(self.up(y) * self.function(self.gate(y)))
        return x if self.before else second(x)


@SETTINGS
@given(
    st.sampled_from([(4, 1), (4, 2), (6, 3)]),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from([functional.silu, functional.gelu, torch.sigmoid, lambda x: x]),
    st.booleans(),
    st.sampled_from([None, "bool", "float"]),
    SEEDS,
)
def test_transformers(width, hidden, bias, function, before, mask, seed):
    if mask is not None:
        future = torch.ones(3, 3, dtype=torch.bool).triu(1)
        mask = future if mask == "bool" else torch.zeros(3, 3).masked_fill(future, -torch.inf)
    model = Transformer(width[0], hidden, width[1], bias, function, before, mask)
    network = check(model, (3, width[0]), seed)
    assert "Attention" in repr(network)
    assert "GatedDense" in repr(network)


class Calls(nn.Module):
    """Functions and methods in place of modules."""

    def __init__(self, names):
        super().__init__()
        self.names = names
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        for name in self.names:
            x = getattr(self, name)(x)
        return x

    def chained(self, x):
        return functional.softplus(torch.tanh(x).relu().sigmoid())

    def options(self, x):
        x = functional.leaky_relu(functional.elu(x, 0.7), negative_slope=0.1)
        return functional.gelu(functional.hardtanh(x, -0.6, 0.9), approximate="tanh")

    def softmaxes(self, x):
        return functional.softmax(torch.softmax(x, dim=-1), dim=1) + x.softmax(-1)

    def functional_linear(self, x):
        return functional.linear(x, self.inner.weight) + self.inner.forward(x)

    def swish(self, x):
        return x * torch.sigmoid(x) + functional.selu(x)

    def changed_in_place(self, x):
        x = self.inner(x)
        y = x.contiguous()
        kept = x.clone()
        x.add_(self.inner(kept))
        y += kept
        z = functional.relu(y, inplace=True)
        # All of these but one are the same tensor by now.
        return torch.add(y, x) + z + kept

    def twice(self, x):
        return x + functional.dropout(x, training=self.training)

    def nested_sums(self, x):
        first = self.inner(x)
        second = torch.tanh(first)
        third = self.inner(second)
        return (first + third) + second + x


@SETTINGS
@given(
    st.lists(
        st.sampled_from([name for name, value in vars(Calls).items() if name[0] != "_"][1:]),
        min_size=1,
        max_size=3,
    ),
    SEEDS,
)
def test_functions_and_methods(names, seed):
    check(Calls(names), (3,), seed)


class Images(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 2)
        self.end = end

    def forward(self, x):
        return self.end(functional.max_pool2d(self.first(x), 2, 1))


@pytest.mark.parametrize(
    "end",
    [
        lambda x: x.mean((2, 3)),
        lambda x: torch.mean(x, dim=[-1, -2], keepdim=True),
        lambda x: torch.flatten(functional.avg_pool2d(x, 2), 1),
        lambda x: x.flatten(start_dim=1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: torch.reshape(x, (x.size()[0], -1)),
        lambda x: functional.softmax(x, dim=1),
        lambda x: x[..., ::2, ::2] + functional.adaptive_avg_pool2d(x, (1, 1)),
    ],
)
def test_functions_of_images(end):
    check(Images(end), (2, 5, 4))


@pytest.mark.parametrize("nested", [nn.Linear(3, 2), nn.Sequential(nn.Sequential(nn.ReLU()))])
def test_modules_that_are_one_layer(nested):
    check(nested, (3,))


def test_parametric_relu():
    # torch.func cannot differentiate it.
    network, same = from_torch(nn.PReLU(init=0.3)), from_torch(nn.LeakyReLU(0.3))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    close(network(x), nn.PReLU(init=0.3)(torch.from_numpy(x)).detach().numpy())
    close(network.jacobians(x), same.jacobians(x))


def test_parametrized_and_derived_modules():
    class Named(nn.Linear):
        pass

    class Doubling(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y + y

    model = nn.Sequential(Named(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    check(nn.Sequential(model, Doubling(4, 2)), (3,))


def test_parts_are_folded():
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    assert repr(from_torch(model)).count("Norm") == 0
    assert repr(from_torch(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))) == "Network(2 → 3; tanh)"
    transformer = Transformer(4, 5, 2, True, functional.silu, True, None)
    first, second = from_torch(transformer)
    assert isinstance(first.branch.layers[1], Attention)
    assert isinstance(second.branch.layers[1], GatedDense)


def test_the_module_stays_as_it_is():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()))
    model[1][0].eval()
    before = [module.training for module in model.modules()], list(model.state_dict().values())
    network = from_torch(model)
    assert [module.training for module in model.modules()] == before[0]
    assert all(map(torch.equal, model.state_dict().values(), before[1]))
    outputs = network(np.ones((1, 2), np.float32))
    with torch.no_grad():
        model[0].weight.zero_()
    np.testing.assert_array_equal(network(np.ones((1, 2), np.float32)), outputs)


@pytest.mark.parametrize(
    ("kept", "dtype"), [("float64", "float64"), ("float16", "float32"), ("bfloat16", "float32")]
)
def test_precisions(kept, dtype):
    model = nn.Linear(3, 2).to(getattr(torch, kept))
    for source in (model, model.state_dict()):
        [layer] = from_torch(source)
        assert layer.weight.dtype == dtype
        np.testing.assert_array_equal(layer.weight, model.weight.detach().to(torch.float64))


def refuses(model, message, error=ValueError):
    with pytest.raises(error, match=message):
        from_torch(model)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(3, 3))
        self.other = nn.MultiheadAttention(3, 1, batch_first=True)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Mish(), r"^0\.1: from_torch does not support this Mish; use jacrot\.readers\.capture"),
        (nn.Conv2d(1, 1, 2, padding_mode="reflect", padding=1), "padding_mode='reflect'"),
        (nn.ConvTranspose2d(1, 1, 1), "ConvTranspose2d"),
        (nn.BatchNorm1d(3, track_running_stats=False), "no running statistics"),
        (nn.LayerNorm((2, 3)), r"normalized_shape=\(2, 3\)"),
        (nn.RMSNorm(3, elementwise_affine=False), "neither eps nor a weight"),
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (nn.MaxPool2d(2, return_indices=True), "return_indices"),
        (nn.AdaptiveAvgPool2d(2), "output_size=2"),
        (nn.Flatten(0), "start_dim"),
        (nn.Softplus(2), "beta=2"),
        (nn.PReLU(3), "a slope for each channel"),
        (nn.Softmax(dim=0), "dim=0 is not the axis of the features"),
        (nn.LogSoftmax(dim=1), "LogSoftmax"),
        (nn.TransformerDecoderLayer(4, 2, batch_first=True), "TransformerDecoderLayer"),
        (nn.LazyLinear(3), "LazyLinear"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.LayerNorm(3)), "features are not on the last axis"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(3, 2)), "features are not on the last axis"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Softmax(-1)), "dim=-1"),
    ],
)
def test_modules_that_are_refused(module, message):
    refuses(nn.Sequential(nn.Sequential(nn.Identity(), module)), message)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: torch.sort(x)[0], "^model: from_torch does not support this sort"),
        (lambda m, x: functional.normalize(x), "this norm"),
        (lambda m, x: x.cumsum(1), "this cumsum"),
        (lambda m, x: m.part(x) * 2, r"this mul \(2 is not a tensor"),
        (lambda m, x: x + m.part[0].bias, "is not a tensor that is computed from the inputs"),
        (lambda m, x: torch.add(x, x, alpha=2), "alpha=2"),
        (lambda m, x: x * x, "only such gated products"),
        (lambda m, x: m.part(x) * torch.tanh(m.part[0](x + x)), "only such gated products"),
        (lambda m, x: functional.dropout(x), "also drops inputs in evaluation mode"),
        (lambda m, x: functional.softmax(x, 1, dtype=torch.float64), "dtype"),
        (lambda m, x: torch.flatten(x), "start_dim"),
        (lambda m, x: x.view(-1, 3), r"use torch\.flatten"),
        (lambda m, x: x.view(-1), r"use torch\.flatten"),
        (lambda m, x: x.view(x.shape), r"use torch\.flatten"),
        (lambda m, x: x.mean(1), r"its axes are not \(2, 3\)"),
        (lambda m, x: x[:, 0], "this getitem"),
        (lambda m, x: functional.pad(x, (1, 1)), "pad with channels of zeros"),
        (lambda m, x: functional.pad(x, (0, 0, 0, 0, 1, 1)), "no layer before it determines"),
        (lambda m, x: functional.avg_pool2d(x, x.size()[3]), "size="),
        (lambda m, x: functional.linear(x, m.part(x)), "weight or bias is computed"),
        (lambda m, x: m.other(x, x, m.part(x))[0], "are not the same tensor"),
        (lambda m, x: m.other(x, x, x)[1], "pattern of an attention"),
        (lambda m, x: m.other(x, x, x, attn_mask=m.part[0].weight)[0], "with a matrix of bool"),
        (lambda m, x: x.T, "this getattr"),
        (lambda m, x: (x, x), "not one tensor"),
        (lambda m, x: {"x": x}, "not one tensor"),
        (lambda m, x: torch.ones(3), "not one tensor"),
        (lambda m, x: x if x.sum() > 0 else -x, r"torch\.fx cannot trace .*capture"),
        (lambda m, x: m.part(x, x), r"torch\.fx cannot trace"),
    ],
)
def test_forwards_that_are_refused(function, message):
    refuses(Forward(function), message)


def test_attentions_that_are_refused():
    for options in ({"batch_first": False}, {"add_zero_attn": True}, {"kdim": 2}):
        model = Forward(lambda m, x: m.other(x, x, x)[0])
        model.other = nn.MultiheadAttention(3, 1, **{"batch_first": True, **options})
        refuses(model, "other: from_torch does not support this MultiheadAttention")


def test_hooks_are_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    refuses(model, "0, a Linear, has forward hooks")


def test_weights_that_are_no_numbers():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].weight.data[0, 0] = torch.nan
    refuses(model, r"^0: .* \(weight contains NaN")


@SETTINGS
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.lists(st.booleans(), min_size=4, max_size=4),
    SEEDS,
)
def test_state_dicts(widths, biases, seed):
    parts = []
    for index in range(len(widths) - 1):
        parts += [nn.Linear(*widths[index : index + 2], bias=biases[index]), nn.Tanh()]
    model = nn.Sequential(*parts)
    check(model, (widths[0],), seed, lambda model: from_torch(model.state_dict(), "tanh"))


def test_state_dict_of_one_layer_and_of_biases_first():
    model = nn.Linear(3, 2)
    state = dict(reversed(model.state_dict().items()))
    [layer] = from_torch(state, ["identity"])
    assert isinstance(layer, Dense)
    np.testing.assert_array_equal(layer.bias, model.bias.detach())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (nn.Conv2d(1, 2, 3).state_dict(), r"'weight' \(2, 1, 3, 3\).*build the module"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict(), r"'1\.running_mean' \(2,"),
        ({"state_dict": nn.Linear(2, 2).state_dict()}, r"use from_torch\(model\['state_dict'\]"),
        ({"epoch": 3}, r"model\['epoch'\] is not a tensor but int"),
        ({}, "empty mapping"),
    ],
)
def test_state_dicts_that_are_refused(state, message):
    refuses(state, message)


def test_arguments_that_are_refused():
    refuses([nn.Linear(2, 2)], "model is a list; pass a torch.nn.Module", TypeError)
    with pytest.raises(ValueError, match="do not pass activation"):
        from_torch(nn.Linear(2, 2), activation="gelu")
