"""Layers against PyTorch: outputs and Jacobians, in single precision, of random geometry."""

import numpy as np
from builders import framework
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot import Network
from jacrot.layers import (
    Attention,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    GatedDense,
    LayerNorm,
    MaxPool2d,
    RMSNorm,
    Softmax,
)

torch = framework("torch")
SEEDS = st.integers(0, 10_000)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def array(tensor):
    return tensor.detach().numpy()


def assert_same(network, module, x):
    """Compare outputs, and Jacobians in full, to 1e-5 of the largest entry."""
    network = Network([network])
    tensor = torch.from_numpy(x)
    expected = array(module(tensor))
    outputs = network(x)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    one_sample = torch.func.vmap(torch.func.jacrev(lambda row: module(row[None])[0]))
    expected = array(one_sample(tensor))
    largest = np.abs(expected).max() or 1
    np.testing.assert_allclose(network.jacobians(x), expected, rtol=0, atol=1e-5 * largest)


def images(seed, n_channels, height=7, width=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, n_channels, height, width)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS,
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 2),
    size=PAIRS,
    stride=PAIRS,
    dilation=PAIRS,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_convolution(seed, widths, groups, size, stride, dilation, padding):
    torch.manual_seed(seed)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    n_in, n_out = (groups * width for width in widths)
    module = torch.nn.Conv2d(n_in, n_out, size, **geometry)
    layer = Conv2d(array(module.weight), array(module.bias), "relu", **geometry)
    # Large enough for every kernel: 3 entries with steps of 3 between them take 7.
    assert_same(layer, lambda x: torch.relu(module(x)), images(seed, n_in, 8, 7))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, size=PAIRS, stride=PAIRS, padded=st.booleans(), counted=st.booleans())
def test_pooling(seed, size, stride, padded, counted):
    padding = tuple(extent // 2 if padded else 0 for extent in size)
    x = images(seed, 2)
    assert_same(
        AvgPool2d(size, stride, padding, counted),
        torch.nn.AvgPool2d(size, stride, padding, count_include_pad=counted),
        x,
    )
    assert_same(MaxPool2d(size, stride, padding), torch.nn.MaxPool2d(size, stride, padding), x)
    assert_same(AvgPool2d(), torch.nn.AdaptiveAvgPool2d(1), x)


def test_the_first_of_equal_entries_is_the_largest():
    x = np.ones((1, 1, 3, 3), np.float32)
    assert_same(MaxPool2d(2, 1), torch.nn.MaxPool2d(2, 1), x)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, width=st.integers(3, 6))  # of two entries, only the sign is left
def test_norms(seed, width):
    generator = torch.manual_seed(seed)
    x = np.random.default_rng(seed).normal(size=(2, 3, width)).astype(np.float32)
    layer_norm, rms_norm = torch.nn.LayerNorm(width), torch.nn.RMSNorm(width, eps=1e-6)
    batch_norm = torch.nn.BatchNorm2d(width).eval()
    for module in (layer_norm, rms_norm, batch_norm):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
    batch_norm.running_mean.normal_(generator=generator)
    batch_norm.running_var.uniform_(0.5, 2, generator=generator)
    weight, bias = array(layer_norm.weight), array(layer_norm.bias)
    assert_same(LayerNorm(weight, bias), layer_norm, x)
    assert_same(RMSNorm(array(rms_norm.weight)), rms_norm, x)
    statistics = array(batch_norm.running_mean), array(batch_norm.running_var)
    layer = BatchNorm(*statistics, array(batch_norm.weight), array(batch_norm.bias))
    assert_same(layer, batch_norm, images(seed, width, 3, 2))
    assert_same(Softmax(), torch.nn.Softmax(dim=-1), x)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n_heads=st.integers(1, 3), head=st.integers(1, 3), causal=st.booleans())
def test_attention(seed, n_heads, head, causal):
    torch.manual_seed(seed)
    width, n_positions = n_heads * head, 4
    module = torch.nn.MultiheadAttention(width, n_heads, batch_first=True)
    torch.nn.init.normal_(module.in_proj_bias)
    hidden = torch.triu(torch.ones(n_positions, n_positions, dtype=torch.bool), 1)

    def attend(x):
        # With weights asked for, PyTorch takes the path that it can differentiate twice.
        return module(x, x, x, attn_mask=hidden if causal else None)[0]

    biases = zip(
        ("query_bias", "key_bias", "value_bias"),
        np.split(array(module.in_proj_bias), 3),
        strict=True,
    )
    layer = Attention(
        *np.split(array(module.in_proj_weight), 3),
        array(module.out_proj.weight),
        n_heads=n_heads,
        output_bias=array(module.out_proj.bias),
        mask="causal" if causal else None,
        **dict(biases),
    )
    x = np.random.default_rng(seed).normal(size=(2, n_positions, width)).astype(np.float32)
    assert_same(layer, attend, x)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, widths=PAIRS, activation=st.sampled_from(["silu", "gelu"]))
def test_gated(seed, widths, activation):
    torch.manual_seed(seed)
    gate, up = torch.nn.Linear(*widths), torch.nn.Linear(*widths, bias=False)
    layer = GatedDense(
        array(gate.weight), array(up.weight), array(gate.bias), activation=activation
    )
    function = getattr(torch.nn.functional, activation)
    x = np.random.default_rng(seed).normal(size=(3, widths[0])).astype(np.float32)
    assert_same(layer, lambda x: function(gate(x)) * up(x), x)
