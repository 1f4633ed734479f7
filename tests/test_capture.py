"""Capturing from live PyTorch models: against torch.func.jacrev and against NumPy networks."""

import contextlib
import importlib
import sys
import warnings
from collections import namedtuple

import numpy as np
import pytest
from builders import framework, random_network
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot import JacobianSparsityRotation
from jacrot.readers import Captured, capture

torch = framework("torch")
nn = torch.nn
torch.set_num_threads(1)
FUNCTION = importlib.import_module("jacrot.readers._capture_function").Function


def batch(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(model, seed=0):
    """Set every parameter and buffer to random numbers whose scale preserves signals."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                fan_in = max(1, tensor.numel() // len(tensor))
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan_in**0.5)
                if "var" in name:
                    tensor.abs_().add_(0.5)
    return model


def close(actual, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * abs(expected).max())


def expected_warning(text):
    """Expect a warning with some text, or, where there is none, no warning."""
    if text is None:
        return contextlib.nullcontext()
    return pytest.warns(UserWarning, match=text)


@pytest.fixture
def ways(monkeypatch):
    """Record how Jacobians were computed, and of how many derivatives."""
    record = []
    linearise = FUNCTION.linearise

    def recorded(self, numbers, way):
        result, given, derive, pull = linearise(self, numbers, way)

        def counted(seeds):
            record.append((way, len(seeds)))
            return derive(seeds)

        return result, given, counted, counted if pull is derive else pull

    monkeypatch.setattr(FUNCTION, "linearise", recorded)
    return record


# Networks of the test's own invention: attention, convolution and gating in any order.


class Attend(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.attention = nn.MultiheadAttention(d, 2, batch_first=True)

    def forward(self, x):
        return x + self.attention(x, x, x)[0]


class Convolve(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.convolution = nn.Conv1d(d, d, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.convolution(x.transpose(1, 2))).transpose(1, 2)


class Gate(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.gate, self.up, self.norm = nn.Linear(d, d + 3), nn.Linear(d, d + 3), nn.LayerNorm(d)
        self.down = nn.Linear(d + 3, d)

    def forward(self, x):
        normal = self.norm(x)
        branch = self.down(nn.functional.silu(self.gate(normal)) * self.up(normal))
        branch += x
        return branch


BLOCKS = {"attend": Attend, "convolve": Convolve, "gate": Gate}


class Invented(nn.Module):
    def __init__(self, names, d):
        super().__init__()
        self.stem = nn.Linear(3, d)
        self.blocks = nn.ModuleList(BLOCKS[name](d) for name in names)
        self.head = nn.Linear(d, 5)
        self.dropout = nn.Dropout(0.5)

    def tail(self, x, first, last):
        for block in self.blocks[first : last + 1]:
            x = block(x)
        return x

    def forward(self, x):
        x = self.dropout(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=1))


@settings(max_examples=20, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=2, max_size=4),
    data=st.data(),
    positions=st.sampled_from(["same", "all"]),
    max_samples=st.integers(3, 12),
    block=st.sampled_from([None, 1, 7]),
)
def test_sequences_of_invented_blocks(names, data, positions, max_samples, block):
    last = data.draw(st.integers(1, len(names) - 1))
    first = data.draw(st.integers(0, last - 1))
    # In single precision, several blocks of attention amplify the rounding of both sides.
    model = seeded(Invented(names, d=4)).eval().double()
    inputs = batch(3, 5, 3, dtype=torch.float64)
    captured = capture(
        model, inputs, f"blocks.{first}", f"blocks.{last}",
        positions=positions, max_samples=max_samples, block=block, random_state=0,
    )  # fmt: skip
    assert isinstance(captured, Captured)
    with torch.no_grad():
        X = model.tail(model.stem(inputs), 0, first)
    flat = X.reshape(-1, 4).numpy()
    samples = [int(np.flatnonzero(np.isclose(flat, x, atol=1e-5).all(1))[0]) for x in captured.X]
    assert samples == sorted(set(samples))
    assert len(samples) == max_samples
    full = torch.stack(
        [torch.func.jacrev(lambda x: model.tail(x[None], first + 1, last)[0])(x) for x in X]
    ).detach()
    expected = torch.stack([full[i // 5, :, :, i % 5] for i in samples])
    if positions == "same":
        expected = torch.stack([e[i % 5] for e, i in zip(expected, samples, strict=True)])
    close(captured.jacobians, expected, 1e-10)


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=3, max_size=5),
    names=st.lists(st.sampled_from(["relu", "gelu", "tanh", "silu"]), min_size=4, max_size=4),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_mlp_equals_the_numpy_network(widths, names, dtype, seed):
    names = names[: len(widths) - 1]
    network = random_network(widths, names, seed=seed, dtype=np.dtype(dtype))
    modules = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}
    model = nn.Sequential()
    for layer, name in zip(network.layers, names, strict=True):
        linear = nn.Linear(layer.n_inputs, layer.n_outputs, dtype=getattr(torch, dtype))
        linear.load_state_dict(
            {"weight": torch.tensor(layer.weight), "bias": torch.tensor(layer.bias)}
        )
        model.extend([linear, modules[name]()])
    inputs = batch(6, widths[0], seed=seed, dtype=getattr(torch, dtype))
    if not network[1:].jacobians(network[:1](inputs.numpy())).any():
        return
    jacobians, X = capture(model, inputs, "1", "")
    assert X.dtype == jacobians.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(X, network[:1](inputs.numpy()), atol=1e-5)
    close(jacobians, network[1:].jacobians(X), tolerance)


def images(seed=0):
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.SiLU(inplace=True),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 6),
        ),
        seed,
    )


def test_images_at_the_same_position_in_few_passes(ways):
    model, inputs = images().eval(), batch(2, 2, 7, 6)
    jacobians, X = capture(model, inputs, "1", "4")
    with torch.no_grad():
        given = model[:2](inputs)
    close(X, given.movedim(1, -1).reshape(-1, 3))
    # In place of what follows: the in-place activation would change `given` itself.
    full = torch.stack(
        [torch.func.jacrev(lambda x: model[2:5](x.clone()[None])[0])(x) for x in given]
    )
    # (n, c_out, h, w, c_in, h, w) at the same pixel
    same = torch.einsum("nahwbhw->nhwab", full).reshape(-1, 4, 3).detach()
    close(jacobians, same)
    # Forward, where `read` is narrower: a pass for each pixel to find out that pixels at a
    # distance do not meet, and one for each of about nine groups of pixels and 3 channels.
    forward = [count for way, count in ways if way == "forward"]
    # Four compare it with reverse mode, at first and for these inputs.
    assert sum(forward) <= 2 * 4 + 42 + 15 * 3
    assert len(forward) == len(ways)


def test_images_at_all_positions_and_pooled():
    model, inputs = images().eval(), batch(2, 2, 4, 4)
    with torch.no_grad():
        given = model[:2](inputs)
    draw = {"max_samples": 5, "random_state": 3}
    everywhere = capture(model, inputs, "1", "4", positions="all", **draw)
    pooled = capture(model, inputs, "1", "5", **draw)
    logits = capture(model, inputs, "1", "7", positions="all", **draw)
    narrow = capture(model, inputs, "0:input", "7", **draw)
    flat = given.movedim(1, -1).reshape(-1, 3).numpy()
    for captured, last in ((everywhere, 5), (pooled, 7), (logits, 8)):
        full = torch.stack(
            [torch.func.jacrev(lambda x, n=last: model[2:n](x.clone()[None])[0])(x) for x in given]
        ).detach()
        full = full.reshape(2, len(full[0]), -1, 3, 16)
        for x, jacobian in zip(captured.X, captured.jacobians, strict=True):
            i, position = divmod(int(abs(flat - x).sum(axis=1).argmin()), 16)
            expected = full[i, :, :, :, position].movedim(1, 0)
            close(jacobian, expected if last == 5 else expected[0])
    assert everywhere.jacobians.shape == (5, 16, 4, 3)
    np.testing.assert_allclose(pooled.jacobians, everywhere.jacobians.mean(axis=1), atol=1e-6)
    assert narrow.jacobians.shape == (5, 6, 2)


def test_one_vector_writes_many_positions():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.last = nn.Linear(3, 4), nn.Linear(2, 2)

        def forward(self, x):
            return self.last(torch.sin(self.code(x)).reshape(len(x), 2, 2))

    model, inputs = seeded(Decoder()), batch(6, 3)
    jacobians, X = capture(model, inputs, "code", "last")
    tail = torch.func.jacrev(lambda x: model.last(torch.sin(x).reshape(2, 2)))
    close(jacobians, torch.stack([tail(x) for x in torch.as_tensor(X)]).detach())


def test_token_wise_block_costs_one_pass_for_each_feature(ways):
    model, inputs = seeded(Invented(["gate", "attend", "gate"], 4)).eval(), batch(2, 6, 3)
    jacobians, X = capture(model, inputs, "blocks.2.norm", "blocks.2.down")
    gate = model.blocks[2]

    def tail(x):
        return gate.down(nn.functional.silu(gate.gate(x)) * gate.up(x))

    close(jacobians, torch.func.vmap(torch.func.jacrev(tail))(torch.as_tensor(X)).detach())
    # To compare with ordinary autograd, 2; to know that tokens do not meet, 6; then 4, for both
    # inputs at once.
    assert ways == [("reverse", 2), ("reverse", 6), ("reverse", 4)]


class Options(nn.Module):
    """Several inputs, some of them no tensors; a tuple, a named tuple and a dictionary inside."""

    Pair = namedtuple("Pair", ["label", "value"])

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.pair, self.table, self.head = Pairs(), Tables(), nn.Linear(4, 3)

    def forward(self, ids, mask=None, scale=1.0):
        x = self.embed(ids)
        x, _ = self.attention(query=x, key=x, value=x, key_padding_mask=~mask.bool())
        x = self.table(x=self.pair(x).value)["x"]
        return self.head(torch.tanh(scale * x))


class Pairs(nn.Module):
    def forward(self, x):
        return Options.Pair("label", x * 2)


class Tables(nn.Module):
    def forward(self, x):
        return {"name": "table", "x": x * x}


def test_several_inputs_and_structured_activations():
    model = seeded(Options()).eval()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    inputs = {
        "ids": torch.arange(12).reshape(3, 4) % 10,
        "mask": mask,
        "scale": 0.7,
    }
    options = {"where": mask}
    slope = {}
    for place in ("attention", "pair", "table", "table:input", "head:input"):
        slope[place] = capture(model, inputs, place, "head", **options)
        assert slope[place].X.shape == (9, 4)
    with torch.no_grad():
        x = model.embed(inputs["ids"])
        x = model.attention(x, x, x, key_padding_mask=mask == 0, need_weights=False)[0]
        kept = x[mask.bool()]
        weight = model.head.weight
    close(slope["attention"].X, kept)
    close(slope["pair"].X, 2 * kept)
    np.testing.assert_array_equal(slope["table:input"].X, slope["pair"].X)
    np.testing.assert_array_equal(slope["table:input"].jacobians, slope["pair"].jacobians)
    derivative = 1 - torch.tanh(0.7 * 4 * kept**2) ** 2
    close(slope["head:input"].jacobians, weight.detach().expand(9, 3, 4))
    close(slope["table"].jacobians, weight.detach() * 0.7 * derivative[:, None])
    close(slope["pair"].jacobians, weight.detach() * (0.7 * derivative * 4 * kept)[:, None])
    positional = capture(model, (inputs["ids"], mask, 0.7), "pair", "head", **options)
    np.testing.assert_array_equal(positional.jacobians, slope["pair"].jacobians)
    # What a module reads, through keyword arguments.
    query = capture(model, inputs, "attention:input", "attention", **options)
    assert query.jacobians.shape == (9, 4, 4)


def test_input_of_a_module_is_not_that_of_its_neighbours():
    model, inputs = seeded(nn.Sequential(nn.Linear(3, 4), Attend(4), nn.Tanh())), batch(2, 5, 3)
    branch = capture(model, inputs, "1.attention:input", "1.attention", positions="all")
    block = capture(model, inputs, "1:input", "1", positions="all")
    # Query only, against query, key, value and the residual connection.
    assert not np.allclose(branch.jacobians, block.jacobians)
    same = capture(model, inputs, "0", "0")
    np.testing.assert_array_equal(same.jacobians, np.broadcast_to(np.eye(4), (10, 4, 4)))


class Controlled(nn.Module):
    """Data-dependent control flow, an in-place change of its own tensor, or no vmap at all."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def tail(self, x):
        if self.kind == "control":
            x = x * 2 if x[..., 0].sum() > 0 else torch.tanh(x)
        elif self.kind == "in-place":
            own = torch.zeros(4, dtype=x.dtype)
            for i in range(4):
                own[i] = x[..., i].sum() * x[..., 0].sum()
            x = own.expand_as(x)
        elif self.kind == "custom":
            x = Cube.apply(x)
        elif self.kind == "no_grad":
            with torch.no_grad():
                size = x.norm(dim=-1, keepdim=True)
            x = x / size
        return self.last(x)

    def forward(self, x):
        return torch.cat([self.tail(one[None]) for one in self.first(x)])


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return torch.as_tensor(x.detach().numpy() ** 3)

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return torch.as_tensor(gradient.numpy() * 3 * x.numpy() ** 2)


@pytest.mark.parametrize("kind", ["control", "in-place", "custom", "no_grad"])
def test_models_that_vmap_refuses(kind, ways):
    model, inputs = seeded(Controlled(kind)), batch(7, 3)
    slower = {
        "control": "one input after",
        "in-place": "one input after",
        "custom": "one derivative",
    }
    # `last` runs once for every input of the batch; the whole model runs once.
    with expected_warning(slower.get(kind)):
        jacobians, X = capture(model, inputs, "first", "")
    expected = [
        torch.autograd.functional.jacobian(lambda x: model.tail(x[None])[0], torch.as_tensor(x))
        for x in X
    ]
    close(jacobians, torch.stack(expected))
    last = {"control": "input by input", "in-place": "input by input", "custom": "one by one"}
    assert ways[-1][0] == last.get(kind, "reverse")


def test_forward_mode_that_passes_no_grad_is_not_used(ways):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 2), nn.Linear(2, 9)

        def forward(self, x):
            x = self.first(x)
            with torch.no_grad():
                size = x.norm(dim=-1, keepdim=True)
            return self.last(x / size)

    model = seeded(Wide())
    with pytest.warns(UserWarning, match="by torch.func.jvp differ"):
        jacobians, X = capture(model, batch(5, 3), "first", "last")
    size = np.linalg.norm(X, axis=1)[:, None, None]
    close(jacobians, model.last.weight.detach().numpy() / size)
    assert ways[-1][0] == "reverse"


def test_recurrent_model(ways):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.lstm(x)[0])

    model, inputs = seeded(Recurrent()), batch(2, 4, 3)
    with pytest.warns(
        UserWarning, match=r"do not support the model \(Batching rule .* one input after"
    ):
        jacobians, X = capture(model, inputs, "lstm:input", "last", positions="all")
    assert ways[-1][0] == "input by input"
    full = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: model(x[None])[0], x) for x in inputs]
    )
    close(jacobians, full.permute(0, 3, 1, 2, 4).reshape(8, 4, 2, 3))
    close(X, inputs.reshape(-1, 3))


def test_fast_paths_of_frozen_transformers():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = seeded(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    inputs = batch(2, 3, 4)
    jacobians, X = capture(model, inputs, "layers.0", "layers.2", positions="all")
    model.eval()
    full = torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda x: model.layers[2](model.layers[1](x[None]))[0], x
            )
            for x in torch.as_tensor(X).reshape(2, 3, 4)
        ]
    )
    close(jacobians, full.permute(0, 3, 1, 2, 4).reshape(6, 3, 4, 4))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("merged", [False, True])
def test_inputs_need_not_be_counted_by_the_first_axis_inside(merged):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            inside = x.reshape(-1, 3) if merged else x.transpose(0, 1)
            inside = self.last(torch.sin(self.first(inside)))
            return inside.reshape(len(x), -1, 2) if merged else inside.transpose(0, 1)

    model, inputs = seeded(Inside()), batch(3, 5, 3)
    jacobians, X = capture(model, inputs, "first", "last")
    close(X, model.first(inputs).detach().reshape(-1, 4))
    close(jacobians, model.last.weight.detach().numpy() * np.cos(X)[:, None])


def test_axis_of_the_features():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.act = nn.Conv2d(2, 3, 1), nn.Tanh()
            self.linear, self.gelu = nn.Linear(3, 5), nn.GELU()

        def forward(self, x):
            x = self.act(self.convolution(x))
            return self.gelu(self.linear(x.movedim(1, -1)))

    model, inputs = seeded(Mixed()), batch(2, 2, 3, 4)
    assert capture(model, inputs, "convolution", "linear").jacobians.shape == (24, 5, 3)
    assert capture(model, inputs, "act", "gelu", write_axis=-1).jacobians.shape == (24, 5, 3)
    with pytest.raises(ValueError, match=r"read='act' has positions \(3, 4\) and write='gelu'"):
        capture(model, inputs, "act", "gelu")
    with pytest.raises(ValueError, match=r"read_axis=4 is not an axis of read='act'"):
        capture(model, inputs, "act", "gelu", read_axis=4)
    line = seeded(nn.Sequential(nn.Conv1d(2, 3, 1), nn.MaxPool1d(1), nn.Tanh()))
    assert capture(line, batch(2, 2, 4), "0", "1").jacobians.shape == (8, 3, 3)
    assert capture(line, batch(2, 2, 4), "0", "2", write_axis=1).jacobians.shape == (8, 3, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_single(dtype):
    model, inputs = seeded(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))), batch(5, 3)
    single = capture(model, inputs, "0", "2")
    half = capture(model.to(dtype), inputs.to(dtype), "0", "2")
    assert half.X.dtype == half.jacobians.dtype == np.float32
    close(half.jacobians, single.jacobians, 0.05)


def test_drawing_is_reproducible_sorted_and_of_its_own():
    model, inputs = seeded(Invented(["gate", "gate"], 4)), batch(6, 5, 3)
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.RandomState(0).rand()
    all_of_them = capture(model, inputs, "blocks.0", "blocks.1")
    assert len(all_of_them.X) == 30
    some = [
        capture(model, inputs, "blocks.0", "blocks.1", max_samples=8, random_state=seed)
        for seed in (0, 0, 1, np.random.RandomState(0), None)
    ]
    np.testing.assert_array_equal(some[0].X, some[1].X)
    np.testing.assert_array_equal(some[0].X, some[3].X)
    assert not np.array_equal(some[0].X, some[2].X)
    for captured in some:
        rows = [
            int(np.flatnonzero((abs(all_of_them.X - x) < 1e-6).all(axis=1))[0]) for x in captured.X
        ]
        assert rows == sorted(set(rows))
        close(captured.jacobians, all_of_them.jacobians[rows])
    assert np.random.rand() == expected  # noqa: NPY002
    where = np.zeros((6, 5), bool)
    where[2, 3] = where[4, 0] = True
    masked = capture(model, inputs, "blocks.0", "blocks.1", where=where)
    close(masked.X, all_of_them.X[[13, 20]])
    close(masked.jacobians, all_of_them.jacobians[[13, 20]])


def state_of(model):
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), module.training)
        for module in model.modules()
    ]
    return hooks, [(p.requires_grad, p.grad) for p in model.parameters()]


def test_the_model_is_left_as_it_was():
    model, inputs = seeded(Invented(["gate", "attend"], 4)).train(), batch(3, 5, 3)
    model.blocks[0].eval()
    model.head.weight.requires_grad_(False)
    calls = []
    model.blocks[0].register_forward_hook(lambda *args: calls.append(len(calls)))
    before = state_of(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = inputs.clone()
    capture(model, inputs, "blocks.0", "blocks.1")
    assert state_of(model) == before
    assert calls
    with pytest.raises(ValueError, match="contain NaN"):
        capture(model, inputs * torch.nan, "blocks.0", "blocks.1")
    assert state_of(model) == before
    model.blocks[1].forward = lambda x: x @ x
    with pytest.raises(RuntimeError):
        capture(model, inputs, "blocks.0:input", "blocks.1")
    assert state_of(model) == before
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.equal(inputs, given)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_inference_mode_and_gradients_of_the_inputs_do_not_matter():
    model, inputs = seeded(Invented(["gate", "attend"], 4)), batch(3, 4, 3)
    plain = capture(model, inputs, "blocks.0", "blocks.1")
    learned = capture(model, inputs.clone().requires_grad_(), "blocks.0", "blocks.1")
    with torch.inference_mode():
        inference = capture(model, inputs.clone(), "blocks.0", "blocks.1")
    np.testing.assert_array_equal(plain.jacobians, learned.jacobians)
    np.testing.assert_array_equal(plain.jacobians, inference.jacobians)


MODEL = seeded(
    nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU())
)
IDS = torch.arange(12).reshape(3, 4) % 10


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu = nn.Linear(3, 3), nn.ReLU()
        self.spare = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x):
        return self.relu(self.first(self.relu(x)))


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(x - x.mean(dim=0))


class Random(Mixing):
    def forward(self, x):
        return self.last(self.first(x) * torch.rand(len(x), 1))


class Detached(Mixing):
    def forward(self, x):
        return self.last(self.first(x).detach())


class Shifted(Mixing):
    def forward(self, x):
        return self.last(torch.sin(self.first(x)).roll(1, dims=1))


@pytest.mark.parametrize(
    ("model", "inputs", "read", "write", "options", "error", "message"),
    [
        (MODEL, IDS, "9", "1", {}, ValueError, "read='9' is not a module of the model"),
        (Twice(), IDS, "frist", "relu", {}, ValueError, "did you mean 'first'"),
        (MODEL, IDS, "1", "3:inptu", {}, ValueError, "write='3:inptu' is not a module"),
        (MODEL, IDS, "0:input", "1", {}, TypeError, "read='0:input' has dtype torch.int64"),
        (MODEL, IDS, "3", "1", {}, ValueError, "write='1' runs before read='3'"),
        (MODEL, IDS.numpy(), "1", "3", {}, TypeError, "inputs is a ndarray"),
        (MODEL, (IDS.numpy(),), "1", "3", {}, TypeError, "inputs holds a NumPy array"),
        (MODEL, IDS[:0], "1", "3", {}, ValueError, r"inputs has tensors with \[0\] rows"),
        (MODEL, (IDS, IDS[:2]), "1", "3", {}, ValueError, r"with \[2, 3\] rows"),
        (MODEL, (), "1", "3", {}, ValueError, "inputs has tensors with no rows"),
        (len, IDS, "1", "3", {}, TypeError, "model is a builtin_function_or_method"),
        (MODEL, IDS, "1", "3", {"positions": "some"}, ValueError, "positions='some' is unknown"),
        (MODEL, IDS, "1", "3", {"max_samples": 0}, ValueError, "max_samples=0"),
        (MODEL, IDS, "1", "3", {"block": 1.5}, ValueError, r"block=1\.5"),
        (MODEL, IDS, "1", "3", {"where": np.ones(3)}, ValueError, r"where has shape \(3,\)"),
        (MODEL, IDS, "1", "3", {"where": 0 * IDS}, ValueError, "where is False everywhere"),
        (Twice(), batch(4, 3), "first", "relu", {}, ValueError, "write='relu' runs 2 times"),
        (Twice(), batch(4, 3), "spare", "first", {}, ValueError, "read='spare' does not run"),
        (Mixing(), batch(4, 3), "first", "last", {}, ValueError, "its inputs influence each other"),
        (Random(), batch(4, 3), "first", "last", {}, ValueError, "the model is random"),
        (Random(), batch(1, 3), "first", "last", {}, ValueError, "the model is random"),
        (Detached(), batch(4, 3), "first", "last", {}, ValueError, "does not depend on read"),
        (Shifted(), batch(2, 4, 3), "first", "last", {}, ValueError, "pass positions='all', or"),
        (Pairs(), batch(4, 3), "", ":input", {}, ValueError, "write=':input' runs before read=''"),
    ],
)
def test_errors(model, inputs, read, write, options, error, message):
    with pytest.raises(error, match=message):
        capture(model, inputs, read, write, **options)


def test_places_without_a_tensor_and_without_a_vector():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.sum = Text(), Sum()

        def forward(self, x):
            self.text(x)
            return self.sum(x) + x

    class Text(nn.Module):
        def forward(self, x):
            return "text"

    class Sum(nn.Module):
        def forward(self, x):
            return x.sum()

    with pytest.raises(TypeError, match="read='text' is a str without a tensor"):
        capture(Odd(), batch(4, 3), "text", "")
    with pytest.raises(ValueError, match=r"write='sum' has shape \(\) for one input"):
        capture(Odd(), batch(1, 3), "sum:input", "sum")


def test_infinite_derivatives_are_refused():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    model = nn.Sequential(nn.Identity(), Root())
    with pytest.raises(ValueError, match="the derivatives of write='1' contain NaN or infinity"):
        capture(model, torch.zeros(3, 2), "0", "1")


def test_torch_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"capture needs torch.*pip install 'jacrot\[torch\]'"):
        capture(MODEL, IDS, "1", "3")


def test_a_model_of_ones_own_goes_to_a_rotation_in_five_lines():
    model = seeded(Invented(["convolve", "attend", "gate"], 6))
    inputs = batch(4, 5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        captured = capture(model, inputs, read="blocks.0", write="blocks.2", random_state=0)
        rotation = JacobianSparsityRotation(rotate_output=True, max_iter=50, random_state=0)
        rotation.fit(*captured)
    assert rotation.sparsity_ > rotation.sparsity_before_ + 0.02
    assert rotation.rotation_.shape == rotation.output_rotation_.shape == (6, 6)
