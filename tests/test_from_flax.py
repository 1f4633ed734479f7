"""Flax models: outputs and Jacobians against Flax and JAX."""

from functools import partial

import numpy as np
import pytest
from builders import framework
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot.layers import Activation, AvgPool2d, Conv2d, Dense, Flatten, MaxPool2d
from jacrot.readers import from_flax

jax = framework("jax")
linen = framework("flax.linen")
nnx = framework("flax.nnx")

ACTIVATIONS = {
    "relu": linen.relu,
    "gelu": partial(linen.gelu, approximate=False),
    "gelu_tanh": linen.gelu,
    "silu": linen.silu,
    "tanh": linen.tanh,
    "sigmoid": linen.sigmoid,
    "softplus": linen.softplus,
    "elu": linen.elu,
    "selu": linen.selu,
    "leaky_relu": linen.leaky_relu,
}
OTHERS = [
    linen.relu6,
    linen.softmax,
    partial(linen.leaky_relu, negative_slope=0.2),
    partial(linen.elu, alpha=0.5),
]
# The fast variance, E x² - (E x)², is wrong by 1e-4 in single precision.
exact_norm = partial(nnx.LayerNorm, use_fast_variance=False)


def randomised(tree, seed):
    """Set every variable, including statistics, to random numbers."""
    rng = np.random.default_rng(seed)

    def draw(path, array):
        value = rng.normal(size=array.shape) / np.sqrt(max(1, np.prod(array.shape[:-1])))
        if any(name in str(path) for name in ("var", "scale")):
            value = np.abs(value) + 0.5
        return np.float32(value) if array.dtype == np.float32 else array

    return jax.tree_util.tree_map_with_path(draw, tree)


def channels_first(array, axis=1):
    """Move the channels of images from an axis to the first place."""
    return np.moveaxis(array, -1, axis) if array.ndim - axis == 3 else array


def check(network, apply, x):
    outputs = np.asarray(apply(x))
    slopes = np.asarray(jax.vmap(jax.jacrev(lambda x: apply(x[None])[0]))(x))
    slopes = channels_first(slopes, axis=outputs.ndim)
    if outputs.ndim == 4:
        slopes = np.moveaxis(slopes, 3, 1)
    for result, expected in [
        (network(channels_first(x)), channels_first(outputs)),
        (network.jacobians(channels_first(x)), slopes),
    ]:
        assert result.dtype == np.float32
        # Small slopes after a layer norm are differences of terms of about one.
        tolerance = 1e-5 * max(np.abs(expected).max(), 0.1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


class Perceptron(linen.Module):
    widths: tuple
    functions: tuple

    @linen.compact
    def __call__(self, x):
        for width, function in zip(self.widths, self.functions, strict=True):
            x = function(linen.Dense(width)(x))
        return x


@settings(max_examples=7, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=1, max_size=12),
    sequences=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_linen_dense(names, sequences, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 2, 4) if sequences else (3, 4)).astype(np.float32)
    # Few widths, since JAX compiles for each.
    model = Perceptron((4,) * len(names), tuple(ACTIVATIONS[name] for name in names))
    variables = randomised(model.init(jax.random.key(0), x), seed)
    chain = [part for i, name in enumerate(names) for part in (f"Dense_{i}", name)]
    check(from_flax(variables, chain=chain), partial(model.apply, variables), x)


class Listed(linen.Module):
    width: int
    functions: tuple

    def setup(self):
        self.layers = [linen.Dense(self.width) for _ in self.functions]

    def __call__(self, x):
        for layer, function in zip(self.layers, self.functions, strict=True):
            x = function(layer(x))
        return x


def test_numbers_of_a_list_are_its_order(rng):
    x = rng.normal(size=(3, 4)).astype(np.float32)
    names = ["tanh", "relu"] * 6
    model = Listed(4, tuple(ACTIVATIONS[name] for name in names))
    variables = randomised(model.init(jax.random.key(0), x), 0)
    # As training sorts the mapping: layers_10 before layers_2.
    params = dict(sorted(variables["params"].items()))
    network = from_flax(params, names)
    check(network, partial(model.apply, variables), x)
    np.testing.assert_array_equal(network(x), from_flax(variables, names)(x))


class Nested(linen.Module):
    """Constructs first what it calls last, and something that it does not call."""

    widths: tuple

    @linen.compact
    def __call__(self, x):
        linen.Dense(7)
        first, second, last = self.widths
        hidden = linen.tanh(linen.Dense(second)(linen.relu(linen.Dense(first)(x))))
        return linen.Dense(last)(linen.sigmoid(linen.Dense(5)(hidden)))


@pytest.mark.parametrize("widths", [(6, 8, 3), (6, 7, 4), (9, 6, 3)])
def test_automatic_names_do_not_tell_the_order_of_calls(rng, widths):
    x = rng.normal(size=(3, 8)).astype(np.float32)
    model = Nested(widths)
    variables = randomised(model.init(jax.random.key(0), x), 0)
    network = from_flax(variables, ["relu", "tanh", "sigmoid", "identity"])
    check(network, partial(model.apply, variables), x)


@pytest.mark.parametrize("widths", [(8, 8, 3), (5, 5, 5), (5, 8, 8)])
def test_automatic_names_whose_order_widths_leave_open_are_refused(rng, widths):
    x = rng.normal(size=(3, 8)).astype(np.float32)
    model = Nested(widths)
    variables = randomised(model.init(jax.random.key(0), x), 0)
    with pytest.raises(ValueError, match=r"count constructions, not calls.*chain="):
        from_flax(variables, ["relu", "tanh", "sigmoid", "identity"])
    chain = ["Dense_2", "relu", "Dense_1", "tanh", "Dense_4", "sigmoid", "Dense_3"]
    check(from_flax(variables, chain=chain), partial(model.apply, variables), x)


class Images(linen.Module):
    options: dict
    pool: str
    end: str

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, **self.options)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=True)(x))
        if self.pool == "average":
            x = linen.avg_pool(x, (2, 2), (2, 2))
        elif self.pool == "maximum":
            x = linen.max_pool(x, (2, 2))
        if self.end != "images":
            x = x.reshape(len(x), -1)
        if self.end == "dense":
            x = linen.Dense(3)(linen.tanh(linen.LayerNorm(use_fast_variance=False)(x)))
        return x


@settings(max_examples=6, deadline=None)
@given(
    kernel=st.sampled_from([(1, 1), (2, 3), (3, 3)]),
    options=st.sampled_from(
        [
            {},
            {"strides": 2},
            {"strides": (1, 2), "padding": "VALID"},
            {"strides": 2, "padding": ((1, 0), (0, 2))},
            {"padding": 1},
            {"padding": (0, 1), "kernel_dilation": 2},
            {"kernel_dilation": (1, 2)},
        ]
    ),
    groups=st.sampled_from([1, 2]),
    pool=st.sampled_from(["none", "average", "maximum"]),
    end=st.sampled_from(["images", "flat", "dense"]),
    seed=st.integers(0, 1000),
)
def test_linen_convolution(kernel, options, groups, pool, end, seed):
    shape = (6, 7, 2)
    x = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    drawn = {"kernel_size": kernel, "feature_group_count": groups, **options}
    model = Images(drawn, pool, end)
    variables = randomised(model.init(jax.random.key(0), x), seed)
    pools = {"none": [], "average": [AvgPool2d(2)], "maximum": [MaxPool2d(2, 1)]}
    ends = {
        "images": [],
        "flat": [Flatten()],
        "dense": [Flatten(), "LayerNorm_0", linen.tanh, "Dense_0"],
    }
    network = from_flax(
        variables,
        chain=["Conv_0", "BatchNorm_0", "relu", *pools[pool], *ends[end]],
        image_shape=shape,
        strides=options.get("strides", 1),
        padding={"Conv_0": options.get("padding", "SAME")},
        dilation=options.get("kernel_dilation", 1),
    )
    assert isinstance(network[0], Conv2d)
    assert network[0].activation == "relu"
    check(network, partial(model.apply, variables), x)


class Square(linen.Module):
    n_calls: int

    @linen.compact
    def __call__(self, x):
        layer = linen.Dense(8)
        for _ in range(self.n_calls):
            x = linen.relu(layer(x))
        return linen.Dense(3)(x)


@pytest.mark.parametrize("n_calls", [1, 2])
def test_a_module_that_may_be_called_twice(rng, n_calls):
    x = rng.normal(size=(3, 8)).astype(np.float32)
    model = Square(n_calls)
    variables = randomised(model.init(jax.random.key(0), x), 0)
    with pytest.warns(UserWarning, match="'Dense_0' of params .* the network applies it once"):
        once = from_flax(variables, ["relu", "identity"])
    chain = ["Dense_0", "relu"] * n_calls + ["Dense_1"]
    network = from_flax(variables, chain=chain)
    check(network, partial(model.apply, variables), x)
    assert np.allclose(once(x), network(x)) == (n_calls == 1)


class Plain(linen.Module):
    n_channels: int = 3

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(self.n_channels, (3, 3))(linen.relu(linen.Conv(2, (3, 3))(x))))
        return linen.Dense(2)(x.reshape(len(x), -1))


def test_order_of_numbered_convolutions_and_dense_layers(rng):
    x = rng.normal(size=(2, 4, 5, 1)).astype(np.float32)
    model = Plain()
    variables = randomised(model.init(jax.random.key(0), x), 0)
    params = dict(sorted(variables["params"].items(), reverse=True))
    network = from_flax(params, [linen.relu, "relu", "identity"], image_shape=(4, 5, 1))
    check(network, partial(model.apply, variables), x)
    with pytest.raises(ValueError, match="image_shape="):
        from_flax(params)
    with pytest.raises(ValueError, match=r"Dense_0.* does not accept inputs of shape \(96,\)"):
        from_flax(params, image_shape=(4, 8, 1))
    # Two convolutions of two channels: either could be the first, of images of two.
    x = rng.normal(size=(2, 4, 5, 2)).astype(np.float32)
    params = Plain(2).init(jax.random.key(0), x)["params"]
    with pytest.raises(ValueError, match="in exactly one order"):
        from_flax(params, image_shape=(4, 5, 2))


@settings(max_examples=6, deadline=None)
@given(
    functions=st.lists(
        st.sampled_from([*ACTIVATIONS.values(), *OTHERS, jax.nn.identity]), min_size=3, max_size=3
    ),
    norm=st.sampled_from([nnx.BatchNorm, exact_norm, nnx.RMSNorm]),
    seed=st.integers(0, 1000),
)
def test_nnx_dense(functions, norm, seed):
    rngs = nnx.Rngs(seed)
    model = nnx.Sequential(
        nnx.Linear(4, 4, rngs=rngs),
        functions[0],
        nnx.Dropout(0.5, rngs=rngs),
        norm(4, rngs=rngs),
        nnx.Sequential(nnx.Linear(4, 4, use_bias=False, rngs=rngs), functions[1]),
        functions[2],
    )
    nnx.update(model, randomised(nnx.state(model), seed))
    model.eval()
    x = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    check(from_flax(model), model, x)


class Classifier(nnx.Module):
    def __init__(self, rngs, options):
        self.conv = nnx.Conv(2, 4, rngs=rngs, **options)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.pool = partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2), padding="SAME")
        self.max = partial(nnx.max_pool, window_shape=(2, 2), padding=((1, 0), (0, 0)))
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.max(self.pool(nnx.relu(self.norm(self.conv(x))))))

    def parts(self):
        return [self.conv, self.norm, nnx.relu, self.pool, self.max, self.last]


@settings(max_examples=4, deadline=None)
@given(
    options=st.sampled_from(
        [
            {"kernel_size": (3, 3), "strides": 2},
            {"kernel_size": (3, 2), "padding": "VALID", "kernel_dilation": (1, 2)},
            {"kernel_size": (2, 2), "feature_group_count": 2, "padding": (1, 0)},
        ]
    ),
    flat=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nnx_convolution(options, flat, seed):
    model = Classifier(nnx.Rngs(seed), options)
    nnx.update(model, randomised(nnx.state(model), seed))
    model.eval()
    x = np.random.default_rng(seed).normal(size=(2, 6, 7, 2)).astype(np.float32)
    parts, apply = model.parts(), model
    if flat:
        parts, apply = [*parts, Flatten()], lambda x: model(x).reshape(len(x), -1)
    check(from_flax(parts, image_shape=(6, 7, 2)), apply, x)


def test_state_of_nnx_and_functions_of_ones_own(rng):
    layers = [nnx.Linear(4, 4, rngs=nnx.Rngs(0)) for _ in range(2)]
    model = nnx.Sequential(layers[0], lambda x: x**2, layers[1])
    x = rng.normal(size=(3, 4)).astype(np.float32)
    for state in (nnx.state(model), nnx.to_pure_dict(nnx.state(model))):
        check(from_flax(state, [lambda x: x**2, "identity"]), model, x)
    chain = [layers[0], Activation(lambda x: x**2), layers[1]]
    check(from_flax(chain), model, x)
    with pytest.raises(ValueError, match=r"params\[1\] is the function <lambda>"):
        from_flax(model)


def dense(*shape):
    return {"kernel": np.ones(shape, np.float32), "bias": np.zeros(shape[-1])}


def test_variables_need_no_flax_and_nested_ones_a_chain():
    params = {"encoder": {"Dense_0": dense(2, 3)}, "decoder": dense(3, 2)}
    with pytest.raises(ValueError, match="'encoder/Dense_0' is nested"):
        from_flax(params)
    network = from_flax(params, chain=["encoder/Dense_0", "tanh", "decoder"])
    assert [layer.activation for layer in network] == ["tanh", "identity"]
    assert all(isinstance(layer, Dense) for layer in network)


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"hidden": dense(2, 2), "out": dense(2, 2)}, {}, "they are not numbered alike"),
        (
            {"Dense_0": dense(2, 2), "LayerNorm_0": {"scale": np.ones(2)}},
            {},
            "'LayerNorm_0' is not",
        ),
        ({"layers_0": dense(2, 2), "layers_1": dense(1, 1, 2, 2)}, {}, "a Conv comes after"),
        ({"GroupNorm_0": {"scale": np.ones(2)}}, {"chain": ["GroupNorm_0"]}, r"has \{'scale'"),
        ({"ConvTranspose_0": dense(1, 1, 2, 2)}, {"chain": ["ConvTranspose_0"]}, "which is no"),
        ({"Conv_0": dense(3, 2, 2)}, {"chain": ["Conv_0"]}, "not a Dense, a two-dimensional Conv"),
        ({"Dense_0": dense(2, 2)}, {"chain": ["Dense_1"]}, "neither an entry of params, 'Dense_0'"),
        (
            {"Dense_0": dense(2, 2)},
            {"chain": ["Dense_0"], "activation": "tanh"},
            "do not pass activat",
        ),
        ({"Dense_0": dense(2, 3)}, {"activation": ["relu"] * 2}, "lists 2 activations for 1 lay"),
        ({"Conv_0": dense(3, 3, 1, 2)}, {"strides": 2}, "same padding with a stride"),
        ({"Conv_0": dense(3, 3, 1, 2)}, {"padding": "CIRCULAR"}, "has padding 'CIRCULAR'"),
        ({}, {}, "does not determine the order of its entries, none"),
        ([jax.nn.log_softmax], {}, r"params\[0\] is the function log_softmax"),
        ([partial(jax.nn.softmax, axis=0)], {}, r"function softmax\{'axis': 0\}"),
        ([jax.nn.relu], {"strides": 2}, "do not pass chain"),
        ([nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0))], {}, "is a GroupNorm, which"),
        (Classifier(nnx.Rngs(0), {"kernel_size": (1, 1)}), {}, "is a Classifier, which"),
        ([nnx.Conv(1, 1, (3,), rngs=nnx.Rngs(0))], {}, "is a Conv with"),
        ([nnx.LayerNorm(4, reduction_axes=(1,), rngs=nnx.Rngs(0))], {}, "over other axes"),
    ],
)
def test_unknown_entries_and_modules_are_refused_by_name(params, options, message):
    with pytest.raises(ValueError, match=message):
        from_flax(params, **options)


def test_foreign_objects_are_refused():
    with pytest.raises(TypeError, match="params is a Dense; pass the variables"):
        from_flax(linen.Dense(2))
    with pytest.raises(TypeError, match=r"params\[0\] is a int"):
        from_flax([3])
