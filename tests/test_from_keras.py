"""Keras models: outputs and Jacobians against Keras and its backend."""

import re
from functools import partial

import numpy as np
import pytest
from builders import framework
from hypothesis import given, settings
from hypothesis import strategies as st

from jacrot.layers import Conv2d, Dense, Residual
from jacrot.readers import from_keras

keras = framework("keras")
backend = framework(keras.backend.backend())
layers = keras.layers

ACTIVATIONS = [
    "linear",
    "relu",
    "gelu",
    "silu",
    "swish",
    "tanh",
    "sigmoid",
    "softplus",
    "elu",
    "selu",
    "leaky_relu",
    "relu6",
    layers.LeakyReLU(0.1),
    layers.ELU(0.5),
]


def randomised(model, seed):
    """Set every weight, including statistics, to random numbers."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        scale = 1 / np.sqrt(max(1, np.prod(variable.shape[:-1])))
        value = rng.normal(size=variable.shape) * scale
        positive = "variance" in variable.path or "gamma" in variable.path
        variable.assign(np.abs(value) + 0.5 if positive else value)
    return model


def ours(array, channels_last, axis=1):
    """Move the channels of images from an axis to the first place."""
    images = channels_last and array.ndim - axis == 3
    return np.moveaxis(array, -1, axis) if images else array


def jacobians(model, x):
    """Differentiate by the backend; (n, *output shape, *input shape)."""
    if backend.__name__ == "torch":
        total = backend.autograd.functional.jacobian(
            lambda x: model(x, training=False).sum(0), backend.tensor(x)
        ).numpy()
        return np.moveaxis(total, total.ndim - x.ndim, 0)
    return np.asarray(backend.vmap(backend.jacrev(lambda x: model(x[None], training=False)[0]))(x))


def check(model, x, channels_last=True, seed=0):
    randomised(model, seed)
    network = from_keras(model)
    outputs = keras.ops.convert_to_numpy(model(x, training=False))
    slopes = ours(jacobians(model, x), channels_last, axis=outputs.ndim)
    if channels_last and outputs.ndim == 4:
        slopes = np.moveaxis(slopes, 3, 1)
    for result, expected in [
        (network(ours(x, channels_last)), ours(outputs, channels_last)),
        (network.jacobians(ours(x, channels_last)), slopes),
    ]:
        assert result.dtype == np.float32
        # Small slopes after a layer norm are differences of terms of about one, or of a few where
        # ReLU has left one feature of four.
        tolerance = 3e-5 * max(np.abs(expected).max(), 0.1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)
    return network


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    activations=st.lists(st.sampled_from(ACTIVATIONS), min_size=3, max_size=3),
    bias=st.booleans(),
    sequences=st.booleans(),
    norm=st.sampled_from([None, layers.BatchNormalization, layers.LayerNormalization]),
    seed=st.integers(0, 1000),
)
def test_dense(widths, activations, bias, sequences, norm, seed):
    if norm is layers.LayerNormalization:
        # That of two features has hardly any slope: it is lost in roundings.
        widths = [width + 2 for width in widths]
    shape = (3, widths[0]) if sequences else (widths[0],)
    model = keras.Sequential([keras.Input(shape)])
    for width, activation in zip(widths[1:], activations, strict=False):
        model.add(layers.Dense(width, activation, use_bias=bias))
        if norm:
            model.add(norm(center=bias))
    x = np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)
    check(model, x, seed=seed)


@settings(max_examples=15, deadline=None)
@given(
    channels=st.integers(1, 2),
    size=st.tuples(st.integers(5, 7), st.integers(5, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    step=st.sampled_from(
        [{}, {"strides": 2}, {"strides": (1, 3)}, {"dilation_rate": 2}, {"dilation_rate": (1, 2)}]
    ),
    padding=st.sampled_from(["same", "valid"]),
    groups=st.sampled_from([1, 2]),
    pool=st.sampled_from([None, layers.AveragePooling2D, layers.MaxPooling2D]),
    end=st.sampled_from(["images", "flat", "flat norm", "dense", "mean"]),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_convolution(channels, size, kernel, step, padding, groups, pool, end, channels_last, seed):
    layout = {"data_format": "channels_last" if channels_last else "channels_first"}
    shape = (*size, groups * channels) if channels_last else (groups * channels, *size)
    axis = -1 if channels_last else 1
    model = keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(
                4, kernel, padding=padding, groups=groups, use_bias=False, **step, **layout
            ),
            layers.BatchNormalization(axis=axis),
            layers.ReLU(),
        ]
    )
    if pool:
        model.add(pool(2, strides=1 + seed % 2, padding="same", **layout))
    if end == "mean":
        model.add(layers.GlobalAveragePooling2D(keepdims=bool(seed % 2), **layout))
    elif end != "images":
        model.add(layers.Flatten(data_format=None if seed % 2 else layout["data_format"]))
        if end == "flat norm":
            model.add(layers.BatchNormalization())
        elif end == "dense":
            for layer in layers.Dropout(0.5), layers.Activation("tanh"), layers.Dense(3):
                model.add(layer)
    x = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    check(model, x, channels_last, seed)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (4, 3)])
def test_same_padding_is_that_of_the_backend(rng, kernel, strides, size, channels_last):
    options = {
        "strides": strides,
        "padding": "same",
        "data_format": "channels_last" if channels_last else "channels_first",
    }
    shape = (size, 6, 2) if channels_last else (2, size, 6)
    x = rng.normal(size=(2, *shape)).astype(np.float32)
    for kind in (layers.AveragePooling2D, layers.MaxPooling2D, partial(layers.Conv2D, 3)):
        model = keras.Sequential([keras.Input(shape), kind(kernel, **options)])
        # PyTorch's average counts copies of the border where padding is not symmetric.
        lenient = backend.__name__ == "torch" and kind is layers.AveragePooling2D
        lenient = lenient and (kernel, strides, size) != ((2, 2), 2, 8)
        try:
            network = from_keras(model)
        except ValueError:
            if not lenient:
                raise
        else:
            expected = ours(keras.ops.convert_to_numpy(model(x)), channels_last)
            np.testing.assert_allclose(network(ours(x, channels_last)), expected, atol=1e-5)


@pytest.mark.skipif(backend.__name__ != "torch", reason="other backends leave the border out")
def test_average_that_repeats_the_border_is_refused():
    pool = layers.AveragePooling2D(3, 2, padding="same", name="pool")
    with pytest.raises(ValueError, match="'pool' is a AveragePooling2D with padding='same', which"):
        from_keras(keras.Sequential([keras.Input((8, 8, 2)), pool]))
    from_keras(keras.Sequential([keras.Input((7, 7, 2)), pool]))
    inputs = keras.Input((None, None, 1))
    even = layers.AveragePooling2D(4, 1, padding="same")
    with pytest.raises(ValueError, match="repeats the border"):
        from_keras(keras.Model(inputs, even(inputs)))


def residual(x, filters, strides):
    def convolution(x, strides):
        x = layers.Conv2D(filters, 3, strides, "same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    y = convolution(layers.ReLU()(convolution(x, strides)), 1)
    shortcut = layers.Conv2D(filters, 1, strides)(x) if strides > 1 else x
    return layers.ReLU()(layers.Add()([shortcut, y]))


@settings(max_examples=5, deadline=None)
@given(filters=st.integers(1, 3), seed=st.integers(0, 1000))
def test_residual_network(filters, seed):
    inputs = keras.Input((5, 5, 2))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(((1, 0), (2, 1)))(inputs))
    x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = residual(residual(x, filters, 1), 2 * filters, 2)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    x = np.random.default_rng(seed).normal(size=(2, 5, 5, 2)).astype(np.float32)
    network = check(model, x, seed=seed)
    assert [type(layer) for layer in network.layers].count(Residual) == 2


def test_nested_and_shared_models_and_parts_of_a_model(rng):
    block = keras.Sequential([keras.Input((4,)), layers.Dense(4, "tanh"), layers.Dense(4)])
    inputs = keras.Input((4,))
    first = block(inputs) + inputs
    second = layers.Add()([first, block(first), first])
    model = keras.Model(inputs, layers.LayerNormalization()(second))
    x = rng.normal(size=(3, 4)).astype(np.float32)
    check(model, x)
    check(keras.Model(inputs, first), x)
    check(keras.Model(first, second), x)


def test_sums_of_tensors_that_are_flattened_differently(rng):
    inputs = keras.Input((2, 3, 2))
    x = layers.Conv2D(2, 1)(inputs)
    flat = layers.Flatten()(x)
    once = layers.Add()([flat, layers.Flatten()(inputs)])
    model = keras.Model(inputs, layers.Add()([once, layers.Dense(12)(flat)]))
    check(model, rng.normal(size=(2, 2, 3, 2)).astype(np.float32))


def test_softmax_and_dense_on_channels(rng):
    model = keras.Sequential(
        [
            keras.Input((3, 4, 2)),
            layers.Conv2D(3, 2, activation="softmax"),
            layers.Dense(2, "elu"),
            layers.LayerNormalization(),
            layers.Flatten(),
            layers.Softmax(),
        ]
    )
    check(model, rng.normal(size=(2, 3, 4, 2)).astype(np.float32))


def test_names_are_kept_and_batch_norm_is_folded(rng):
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.LeakyReLU(0.01)]
    )
    [layer] = check(model, rng.normal(size=(3, 3)).astype(np.float32)).layers
    assert isinstance(layer, Dense)
    assert layer.activation == "leaky_relu"


def test_stride_of_an_unknown_size_is_refused(rng):
    inputs = keras.Input((None, None, 1))
    with pytest.raises(ValueError, match=r"'down' is a Conv2D: same padding with a stride"):
        from_keras(keras.Model(inputs, layers.Conv2D(1, 3, 2, "same", name="down")(inputs)))
    network = from_keras(keras.Model(inputs, layers.Conv2D(1, 3, 1, "same")(inputs)))
    assert isinstance(network[0], Conv2d)
    assert network(rng.normal(size=(1, 1, 4, 5))).shape == (1, 1, 4, 5)


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def custom(x):
    return x


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (lambda: layers.LSTM(2), (3, 4), "is a LSTM, which from_keras does not support"),
        (lambda: Doubled(2), (3,), "is a Doubled, which"),
        (lambda: layers.Dense(2, custom), (3,), "with activation custom, which"),
        (lambda: layers.Dense(2, "softsign"), (3,), "with activation softsign, which"),
        (lambda: layers.ReLU(threshold=1.0), (3,), "with a threshold"),
        (lambda: layers.BatchNormalization(axis=1), (3, 4), "over axis 1 of a tensor"),
        (lambda: layers.LayerNormalization(axis=[1, 2]), (3, 4), r"over axis \[1, 2\]"),
        (lambda: layers.Softmax(axis=1), (3, 4), "over axis 1"),
    ],
)
def test_unknown_layers_are_refused_by_name(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        from_keras(keras.Sequential([keras.Input(shape), layer()]))


class Subclassed(keras.Model):
    def call(self, x):
        return x


def test_unknown_models_are_refused():
    with pytest.raises(TypeError, match="functional models, got Subclassed"):
        from_keras(Subclassed())
    with pytest.raises(TypeError, match="got NoneType"):
        from_keras(None)
    with pytest.raises(ValueError, match="is not built and has no weights"):
        from_keras(keras.Sequential([layers.Dense(2)]))
    inputs = [keras.Input((2,)), keras.Input((2,))]
    with pytest.raises(ValueError, match="has 2 inputs and 1 outputs"):
        from_keras(keras.Model(inputs, layers.Add()(inputs)))
    image = keras.Input((3, 3, 3))
    last = layers.Conv2D(3, 1, data_format="channels_last")(image)
    mixed = keras.Model(image, layers.Conv2D(3, 1, data_format="channels_first")(last))
    with pytest.raises(ValueError, match="build it with one of them"):
        from_keras(mixed)
    training = layers.BatchNormalization()(inputs[0], training=True)
    with pytest.raises(ValueError, match=re.escape("training=True")):
        from_keras(keras.Model(inputs[0], training))
    broadcast = keras.ops.add(image, layers.Conv2D(1, 1)(image))
    with pytest.raises(ValueError, match="is a Add of several shapes"):
        from_keras(keras.Model(image, broadcast))


@pytest.mark.parametrize("part", ["model", "block", "layer"])
def test_a_call_put_into_an_instance_is_refused(part):
    block = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="layer")], name="block")
    model = keras.Sequential([keras.Input((3,)), block, layers.Dense(2)], name="model")
    patched = {"model": model, "block": block, "layer": block.layers[0]}[part]
    patched.call = lambda x, **options: 2 * x
    with pytest.raises(ValueError, match=f"'{part}' is a .* with a call on the instance"):
        from_keras(model)
    del patched.call
    assert from_keras(model).n_layers == 2
