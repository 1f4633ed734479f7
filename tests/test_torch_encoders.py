"""Encoders, embeddings and functional norms of PyTorch, against their own forward and Jacobian."""

import numpy as np
import pytest
from builders import framework

from jacrot.layers import Attention, Dense, GatedDense, LayerNorm, Residual
from jacrot.readers import from_torch

torch = framework("torch")
nn, functional = torch.nn, torch.nn.functional
WIDTH, HIDDEN, HEADS = 6, 5, 2
SEQUENCE, IMAGE = (4, WIDTH), (WIDTH, 3, 5)
EXACT = 1e-10


def check(module, shape, rng):
    """Compare a module with random weights with the network that is read of it."""
    module.double()
    for parameter in module.parameters():
        parameter.data += torch.from_numpy(rng.normal(scale=0.3, size=parameter.shape))
    network = from_torch(module)
    module.eval()
    x = torch.from_numpy(rng.normal(size=(3, *shape)))
    close(network(x.numpy()), module(x.clone()).detach().numpy())
    jacobians = [
        torch.autograd.functional.jacobian(lambda row: module(row.clone()[None])[0], row)
        for row in x
    ]
    close(network.jacobians(x.numpy()), torch.stack(jacobians).numpy())
    return network


def close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT * np.abs(expected).max())


def refuses(module, message):
    with pytest.raises(ValueError, match=message):
        from_torch(module)


def layer(**options):
    return nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, **{"batch_first": True, "dropout": 0.3, **options}
    )


ENCODERS = {
    "relu": lambda: layer(),
    "gelu before": lambda: layer(activation="gelu", norm_first=True),
    "function": lambda: layer(activation=torch.tanh),
    "module before": lambda: layer(activation=nn.SiLU(), norm_first=True),
    "lambda": lambda: layer(activation=lambda x: functional.gelu(x, approximate="tanh")),
    "no bias": lambda: layer(bias=False),
    "one head": lambda: nn.TransformerEncoderLayer(WIDTH, 1, HIDDEN, batch_first=True),
    "several": lambda: nn.TransformerEncoder(layer(), 2),
    "several before": lambda: nn.TransformerEncoder(
        layer(norm_first=True), 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False
    ),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name, rng):
    encoder = ENCODERS[name]()
    network = check(encoder, SEQUENCE, rng)
    layers = [layer for layer in network if isinstance(layer, Residual)]
    assert len(layers) == 2 * len(getattr(encoder, "layers", [encoder]))
    # PyTorch computes it in another way when nothing needs gradients.
    x = torch.from_numpy(rng.normal(size=(2, *SEQUENCE)))
    with torch.inference_mode():
        close(network(x.numpy()), encoder(x).numpy())


class Masked(nn.Module):
    def __init__(self, mask, **options):
        super().__init__()
        self.encoder = nn.TransformerEncoder(layer(), 1, enable_nested_tensor=False)
        self.register_buffer("mask", mask)
        self.options = options

    def forward(self, x):
        return self.encoder(x, mask=self.mask, **self.options)


FUTURE = torch.ones(4, 4, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    "mask",
    [
        FUTURE,
        nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64),
        FUTURE | torch.eye(4, dtype=torch.bool).roll(-1, 0),
    ],
)
def test_encoders_with_masks(mask, rng):
    network = check(Masked(mask), SEQUENCE, rng)
    np.testing.assert_array_equal(network[0].branch.mask, mask.numpy() == 0)


def test_hints_of_causality(rng):
    check(Masked(FUTURE, is_causal=True), SEQUENCE, rng)
    check(Masked(FUTURE, is_causal=False), SEQUENCE, rng)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    refuses(Masked(nothing, is_causal=True), "is_causal=True without")
    refuses(Masked(None, is_causal=True), "is_causal=True")


def test_encoders_that_are_refused():
    refuses(layer(batch_first=False), "^self_attn: .*batch_first=False")
    refuses(nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN), "TransformerDecoderLayer")
    changed = layer()
    changed.activation = torch.tanh
    refuses(changed, "^model: .*without gradients it computes relu")
    refuses(layer(activation=nn.GELU("tanh")), "GELU.*without gradients it computes gelu")
    changed.activation_relu_or_gelu = 0
    from_torch(changed)


def test_encoders_with_a_forward_of_their_own(rng):
    class Negative(nn.TransformerEncoderLayer):
        def forward(self, x):
            return x + self.linear2(torch.tanh(self.linear1(x)))

    network = check(Negative(WIDTH, HEADS, HIDDEN, batch_first=True), SEQUENCE, rng)
    assert "Attention" not in repr(network)


class Normed(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.function = function

    def forward(self, x):
        return self.function(self, self.linear(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: functional.layer_norm(x, (WIDTH,)),
        lambda m, x: functional.layer_norm(x, [WIDTH], m.weight, m.bias, 0.1),
        lambda m, x: functional.layer_norm(x, x.shape[-1:], m.weight, bias=None, eps=1e-12),
        lambda m, x: torch.layer_norm(x, (WIDTH,), m.weight),
        lambda m, x: functional.rms_norm(x, (WIDTH,), weight=m.weight, eps=0.01),
        lambda m, x: functional.rms_norm(input=x, normalized_shape=[WIDTH], weight=m.weight),
    ],
)
def test_functional_norms(function, rng):
    check(Normed(function), SEQUENCE, rng)
    check(Normed(function), (WIDTH,), rng)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: functional.layer_norm(x, (2, WIDTH)), "of several axes"),
        (
            lambda m, x: functional.layer_norm(x, (WIDTH,), m.linear(x)),
            "weight or bias is computed",
        ),
        (lambda m, x: functional.rms_norm(x, (WIDTH,)), "neither eps nor a weight"),
    ],
)
def test_functional_norms_that_are_refused(function, message):
    refuses(Normed(function), message)


def test_embeddings(rng):
    model = nn.Sequential(nn.Embedding(7, WIDTH, padding_idx=0), layer(), nn.Linear(WIDTH, 2))
    model.double().eval()
    network = from_torch(model)
    assert isinstance(network[0], Dense)
    tokens = rng.integers(7, size=(3, 4))
    expected = model(torch.from_numpy(tokens)).detach().numpy()
    close(network(np.eye(7)[tokens]), expected)
    # From the embeddings on, of which a rotation goes into the table of embeddings.
    embeddings = model[0](torch.from_numpy(tokens)).detach().numpy()
    close(network[1:](embeddings), expected)
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    rotated = network.rotated({1: rotation})
    close(rotated[:1](np.eye(7)[tokens]), embeddings @ rotation.T)
    close(rotated(np.eye(7)[tokens]), expected)


class Tokens(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.second = nn.Embedding(7, 7), nn.Embedding(7, 7)
        self.function = function

    def forward(self, tokens):
        return self.function(self, tokens)


def test_two_embeddings(rng):
    model = Tokens(lambda m, tokens: m.first(tokens) * torch.sigmoid(m.second(tokens))).double()
    network = from_torch(model)
    assert isinstance(network[0], GatedDense)
    tokens = rng.integers(7, size=5)
    close(network(np.eye(7)[tokens]), model(torch.from_numpy(tokens)).detach().numpy())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, tokens: m.first(tokens) + tokens, "both as token ids"),
        (lambda m, tokens: m.first(tokens.contiguous()) + tokens.contiguous(), "both as token"),
        (lambda m, tokens: m.first(m.second(tokens)), "^first: .*does not read the inputs"),
    ],
)
def test_embeddings_that_are_refused(function, message):
    refuses(Tokens(function), message)


def test_embeddings_that_change_when_they_are_read():
    refuses(nn.Sequential(nn.Embedding(7, 3, max_norm=1.0)), "max_norm")


class Scaled(nn.Module):
    def __init__(self, shape, part):
        super().__init__()
        self.part, self.factors = part, nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return x + self.factors * self.part(x)


@pytest.mark.parametrize("shape", [(), (1,), (WIDTH,)])
def test_learned_factors(shape, rng):
    check(Scaled(shape, nn.Linear(WIDTH, WIDTH)), SEQUENCE, rng)
    [residual] = check(Scaled(shape, nn.Linear(WIDTH, WIDTH)), (WIDTH,), rng)
    assert isinstance(residual.branch, Dense)


@pytest.mark.parametrize("shape", [(), (1,), (WIDTH, 1, 1), (1, WIDTH, 1, 1)])
def test_learned_factors_of_channels(shape, rng):
    check(Scaled(shape, nn.Conv2d(WIDTH, WIDTH, 1)), IMAGE, rng)


@pytest.mark.parametrize("shape", [(2, WIDTH), (WIDTH, 1), (WIDTH + 1,)])
def test_factors_that_are_refused(shape):
    refuses(Scaled(shape, nn.Linear(WIDTH, WIDTH)), "not one for each feature")
    refuses(Scaled(shape, nn.Conv2d(WIDTH, WIDTH, 1)), "not one for each feature")


class Gated(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(WIDTH, 6)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


def changed_before_it_is_read(x):
    sides = x.chunk(2, -1)
    x.relu_()
    return sides[0] + sides[1]


def gate(x, *sides):
    up, gate = x.chunk(2, *sides)
    return up * torch.sigmoid(gate)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: gate(x, -1),
        lambda x: functional.gelu(torch.chunk(x, chunks=2, dim=-1)[0]) * x.chunk(2, -1)[1],
        lambda x: torch.tanh(x.chunk(3, dim=-1)[1]) + x.chunk(3, dim=-1)[-1],
    ],
)
def test_chunks(function, rng):
    check(Gated(function), SEQUENCE, rng)
    check(Gated(function), (WIDTH,), rng)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: gate(x, 1), "the last axis"),
        (lambda x: gate(x), "the last axis"),
        (lambda x: gate(torch.tanh(x), -1), "the outputs of a dense layer"),
        (lambda x: x.chunk(4, -1)[0], "splits 6 features into 4 parts"),
        (lambda x: x.chunk(2, -1), "not one tensor"),
        (changed_before_it_is_read, "changed in place since"),
        (lambda x: x.chunk(2, -1)[0].add_(x.chunk(2, -1)[1]) + x.chunk(2, -1)[0], "in place"),
    ],
)
def test_chunks_that_are_refused(function, message):
    refuses(Gated(function), message)


def block(rows, mixed, gamma):
    """Build a ConvNeXt block in its usual form."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
            self.norm = nn.LayerNorm(WIDTH)
            self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
            self.gamma = nn.Parameter(torch.ones(gamma))

        def forward(self, x):
            y = self.norm(rows(self.depthwise(x)))
            y = mixed(self.gamma, self.down(functional.gelu(self.up(y))))
            return x + y

    return Block()


BLOCKS = {
    "last": (
        lambda x: x.permute(0, 2, 3, 1),
        lambda gamma, x: (gamma * x).permute(0, 3, 1, 2),
        WIDTH,
    ),
    "first": (
        lambda x: torch.permute(x, (0, -2, -1, 1)),
        lambda gamma, x: x.permute((0, 3, 1, 2)) * gamma.reshape(1, -1, 1, 1),
        WIDTH,
    ),
    "unsqueezed": (
        lambda x: x.permute([0, 2, 3, 1]).clone(),
        lambda gamma, x: x.permute(0, 3, 1, 2).mul(gamma[:, None, None]),
        WIDTH,
    ),
    "view": (
        lambda x: x.permute(0, 2, 3, 1).contiguous(),
        lambda gamma, x: x.permute(0, 3, 1, 2) * gamma,
        (WIDTH, 1, 1),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_channels_last(name, rng):
    network = check(nn.Sequential(block(*BLOCKS[name]), nn.Conv2d(WIDTH, 2, 2)), IMAGE, rng)
    assert isinstance(network[0].branch.layers[1], LayerNorm)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: m.conv(x).permute(0, 2, 3, 1), "with the channels last"),
        (lambda m, x: m.conv(x).permute(0, 3, 2, 1), "this permute"),
        (lambda m, x: m.conv(m.conv(x).permute(0, 2, 3, 1)), "channels last"),
        (lambda m, x: functional.max_pool2d(m.conv(x).permute(0, 2, 3, 1), 2), "channels last"),
        (lambda m, x: m.conv(x).permute(0, 2, 3, 1) + x, "channels last"),
        (lambda m, x: m.conv(x).permute(0, 2, 3, 1).flatten(1), "channels last"),
        (lambda m, x: m.conv(x) * m.factors, "factors"),
        (lambda m, x: m.linear(m.conv(x).permute(0, 3, 1, 2)), "this permute"),
    ],
)
def test_layouts_that_are_refused(function, message):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            # As many rows and columns as channels: a wrong axis would fit.
            self.conv = nn.Conv2d(4, 4, 1)
            self.linear = nn.Linear(4, 4)
            self.register_buffer("factors", torch.ones(4))

        def forward(self, x):
            return function(self, x)

    refuses(Model(), message)


def test_attention_reads_sequences(rng):
    network = from_torch(layer().double())
    assert isinstance(network[0].branch, Attention)
    with pytest.raises(ValueError, match="reads sequences"):
        network(rng.normal(size=(3, WIDTH)))
