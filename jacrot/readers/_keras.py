"""Conversion of Sequential and functional models of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import count
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import Array
from jacrot._utils.optional import import_optional
from jacrot.activations import Clip, elu, leaky_relu
from jacrot.layers import (
    Activation,
    AvgPool2d,
    Basis,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2d,
    Softmax,
    fused,
)
from jacrot.network import Network
from jacrot.readers._common import instance_overrides, same_padding
from jacrot.readers._graph import Graph

# Order of a flattened tensor in Keras: its entry j is entry order[j] of the network.
Order = NDArray[np.intp]
Geometry = tuple[tuple[int, int], tuple[int, int]]

_ACTIVATIONS: dict[str, Layer | None] = {
    "linear": None,
    "softmax": Softmax(),
    "leaky_relu": Activation(leaky_relu(0.2)),
    "relu6": Activation(Clip(0, 6)),
    **{
        name: Activation(name)
        for name in ("elu", "gelu", "relu", "selu", "sigmoid", "silu", "softplus", "tanh")
    },
}
# Layers without an effect at inference.
_SKIPPED = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "InputLayer",
    "SpatialDropout1D",
    "SpatialDropout2D",
)


def from_keras(model: Any) -> Network:
    """Convert a Keras 3 model to a network.

    Parameters
    ----------
    model : keras.Sequential or keras.Model
        A built ``Sequential`` or functional model with one input and one output, on any backend, of
        ``Dense``, ``Conv2D``, ``BatchNormalization``, ``LayerNormalization``, activations
        (``Activation``, ``ReLU``, ``LeakyReLU``, ``ELU``, ``Softmax``, and as arguments),
        ``AveragePooling2D``, ``MaxPooling2D``, ``GlobalAveragePooling2D``, ``ZeroPadding2D``,
        ``Flatten``, residual ``Add`` and nested models; dropout and noise are ignored.

    Returns
    -------
    Network
        The network at inference, with batch norm folded into the layer before it. Images have
        shape ``(n, channels, height, width)``: for ``data_format="channels_last"`` use
        ``network(images.transpose(0, 3, 1, 2))``; outputs that are images are transposed in the
        same way. Rows and sequences are as in Keras.

    Raises
    ------
    ImportError
        If Keras is not installed.
    TypeError
        If `model` is not a Sequential or functional model.
    ValueError
        If the model is not built, has several inputs or outputs, or contains a layer or an option
        that is not supported, or that this backend of Keras computes differently; the message
        names it.

    Examples
    --------
    >>> import os
    >>> backend = os.environ.setdefault("KERAS_BACKEND", "jax")
    >>> import keras
    >>> from jacrot.readers import from_keras
    >>> layers = [keras.Input((3,)), keras.layers.Dense(4, "gelu"), keras.layers.Dense(2)]
    >>> from_keras(keras.Sequential(layers))
    Network(3 → 4 → 2; gelu, identity)
    """
    keras = import_optional("keras", caller="from_keras", extra="keras")
    reader = _Reader(keras, model)
    output = reader.run(model, "input")
    layers = fused(reader.graph.layers(reader.restore_order(output)))
    # A model without an effect is the identity.
    return Network(layers or [Activation("identity")])


class _Reader:
    """Converts the layers of a model to a graph."""

    def __init__(self, keras: Any, model: Any) -> None:
        self.keras = keras
        self.graph = Graph("input")
        # Tensors that Keras flattens in a different order.
        self.orders: dict[str, Order] = {}
        self.names = map(str, count())
        formats = {
            layer.data_format
            for layer in _all_layers(model)
            if hasattr(layer, "data_format") and type(layer).__name__ != "Flatten"
        }
        if len(formats) > 1:
            raise ValueError(
                "model has layers of data_format='channels_first' and others of 'channels_last'; "
                "build it with one of them."
            )
        self.channels_last = (formats or {keras.config.image_data_format()}) == {"channels_last"}

    def run(self, model: Any, source: str) -> str:
        """Add a model's layers to the graph; return the name of its output."""
        nodes = self.nodes(model)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError(
                f"model {model.name!r} has {len(model.inputs)} inputs and {len(model.outputs)} "
                "outputs; pass keras.Model(input, output) with one tensor each."
            )
        tensors = {id(model.inputs[0]): source}
        for node in nodes:
            if node.is_input or all(id(output) in tensors for output in node.outputs):
                continue
            sources = [tensors[id(tensor)] for tensor in node.input_tensors]
            if len(node.outputs) != 1 or node.arguments.kwargs.get("training"):
                raise ValueError(
                    f"{_describe(node.operation)} is called with training=True or has several "
                    "outputs, which from_keras does not support."
                )
            tensors[id(node.outputs[0])] = self.apply(node, sources)
        return tensors[id(model.outputs[0])]

    def nodes(self, model: Any) -> list[Any]:
        """Return the calls of a model in topological order."""
        functional = type(self.keras.Model(*[self.keras.Input((1,))] * 2))
        if type(model) not in (self.keras.Sequential, functional):
            raise TypeError(
                f"from_keras supports keras.Sequential and functional models, got "
                f"{type(model).__name__}; other classes define their function by code. For "
                "Jacobians of such a model use its framework (jacrot.readers.capture for PyTorch)."
            )
        for layer in (model, *model.layers):
            for method in {"call", "forward"} & instance_overrides(layer):
                raise ValueError(
                    f"{_describe(layer)} with a {method} on the instance, overriding that of its "
                    f"class, and from_keras does not see what it does (del layer.{method})."
                )
        if type(model) is self.keras.Sequential:
            if not model.built or not model.inputs:
                raise ValueError(
                    f"model {model.name!r} is not built and has no weights; begin it with "
                    "keras.Input(shape), or call it on a batch first."
                )
            model = model._functional
        by_depth = model._nodes_by_depth
        return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]

    def apply(self, node: Any, sources: list[str]) -> str:
        """Add one call to the graph; return the name of its result."""
        operation, kind = node.operation, type(node.operation).__name__
        if isinstance(operation, self.keras.Model):
            return self.run(operation, sources[0])
        ours = type(operation).__module__.split(".")[0] == "keras"
        if kind == "Add" and ours and len(sources) > 1:
            if len({tensor.shape for tensor in node.input_tensors}) > 1:
                raise ValueError(f"{_describe(operation)} of several shapes; not supported.")
            return reduce(self.add, sources)
        # A subclass may compute another function.
        known = getattr(self.keras.layers, kind, None) is type(operation)
        if known and kind in _SKIPPED:
            return sources[0]
        if not known or kind not in _LAYERS or len(sources) != 1:
            raise ValueError(
                f"{_describe(operation)}, which from_keras does not support; it supports "
                f"{', '.join(sorted([*_LAYERS, 'Add']))}, and ignores {', '.join(_SKIPPED)}."
            )
        if getattr(operation, "quantization_mode", None) is not None:
            raise ValueError(f"{_describe(operation)} with quantized weights; not supported.")
        shape, order = node.input_tensors[0].shape, self.orders.get(sources[0])
        layers = _LAYERS[kind](self, operation, shape, order)
        result = self.chain(layers, sources[0])
        if kind == "Flatten":
            self.set_order(result, self.flat_order(operation, shape) if len(shape) > 2 else order)
        elif kind != "Dense":
            self.set_order(result, order)
        return result

    def chain(self, layers: list[Layer], source: str) -> str:
        for layer in layers:
            result = next(self.names)
            self.graph.apply(layer, source, result)
            source = result
        return source

    def add(self, first: str, second: str) -> str:
        orders = self.orders.get(first), self.orders.get(second)
        if orders[0] is None or orders[1] is None or not np.array_equal(orders[0], orders[1]):
            first, second = self.restore_order(first), self.restore_order(second)
        result = next(self.names)
        self.graph.add(first, second, result)
        self.set_order(result, self.orders.get(first))
        return result

    def set_order(self, name: str, order: Order | None) -> None:
        if order is not None:
            self.orders[name] = order

    def restore_order(self, name: str) -> str:
        """Return the name of a tensor with the entries in the order of Keras."""
        order = self.orders.get(name)
        if order is None:
            return name
        return self.chain([Basis(np.eye(len(order), dtype=np.float32)[order])], name)

    def flat_order(self, layer: Any, shape: tuple[int | None, ...]) -> Order | None:
        """Return the order in which Keras flattens a tensor."""
        sizes = [size for size in shape[1:] if size is not None]
        if len(sizes) < len(shape) - 1:
            raise ValueError(
                f"{_describe(layer)} of unknown size {shape}; build the model with "
                "a known input shape."
            )
        axes = self.axes(len(sizes))
        places = np.arange(prod(sizes)).reshape([sizes[axis] for axis in axes])
        # From the axes of the network to those that Keras stores, and then to those it flattens.
        places = places.transpose(np.argsort(axes))
        if layer.data_format == "channels_first":
            places = np.moveaxis(places, 0, -1)
        order = places.ravel()
        return None if np.array_equal(order, np.arange(order.size)) else order

    def axes(self, n_axes: int) -> list[int]:
        """Return the axis in Keras for each axis of the network except that of the samples."""
        return [2, 0, 1] if n_axes == 3 and self.channels_last else list(range(n_axes))

    def features_axis(self, rank: int) -> int:
        return 1 if rank == 4 and not self.channels_last else rank - 1

    def check_axis(self, layer: Any, axis: Any, shape: tuple[int | None, ...]) -> None:
        """Check that an operation is over the axis of the features."""
        axes = axis if isinstance(axis, list | tuple) else [axis]
        if [entry % len(shape) for entry in axes] != [self.features_axis(len(shape))]:
            raise ValueError(
                f"{_describe(layer)} over axis {axis} of a tensor {shape}; only axis "
                f"{self.features_axis(len(shape))}, that of the features, is supported."
            )

    def geometry(
        self, layer: Any, shape: tuple[int | None, ...], size: Any, spread: Any
    ) -> Geometry:
        """Compute the zero padding of an image."""
        if layer.padding == "valid":
            return (0, 0), (0, 0)
        if layer.padding != "same":
            raise ValueError(f"{_describe(layer)} with padding={layer.padding!r}; not supported.")
        sizes = shape[1:3] if self.channels_last else shape[2:]
        try:
            return same_padding(sizes, size, layer.strides, spread)
        except ValueError as error:
            raise ValueError(
                f"{_describe(layer)}: {error}; build the model with a known input shape."
            ) from error

    def check_same(
        self,
        layer: Any,
        shape: tuple[int | None, ...],
        size: Sequence[int],
        ours: Layer,
        theirs: Callable[[Any], Any],
    ) -> None:
        """Check on an image with one channel that the backend pads as the layer of jacrot does."""
        if layer.padding != "same":
            return
        sizes = shape[1:3] if self.channels_last else shape[2:]
        # If the size is unknown, the padding does not depend on it.
        height, width = (known or 2 * least for known, least in zip(sizes, size, strict=True))
        x = np.random.default_rng(0).normal(size=(1, 1, height, width)).astype(np.float32)
        axis = -1 if self.channels_last else 1
        try:
            result = theirs(self.keras.ops.convert_to_tensor(np.moveaxis(x, 1, axis)))
            result = np.moveaxis(self.keras.ops.convert_to_numpy(result), axis, 1)
        # Each backend has its own errors.
        except Exception as error:
            raise ValueError(
                f"{_describe(layer)}, which Keras's backend does not compute here "
                f"({type(error).__name__}: {error}); not supported."
            ) from error
        expected = ours(x)
        # GPUs may round convolutions to three digits; a different padding changes the first digit.
        close = 1e-2 * np.abs(expected).max()
        if result.shape != expected.shape or np.abs(result - expected).max() > close:
            raise ValueError(
                f"{_describe(layer)} with padding='same', which Keras's "
                f"{self.keras.backend.backend()} backend does not compute by zero padding for an "
                "image of this size (PyTorch's repeats the border if the padding is asymmetric); "
                "not supported. Choose another size, other strides or another backend "
                "(KERAS_BACKEND)."
            )

    def array(self, variable: Any) -> Array:
        array = self.keras.ops.convert_to_numpy(variable)
        return array if array.dtype == np.float64 else array.astype(np.float32)

    def vector(self, variable: Any, order: Order | None) -> Array | None:
        """Convert a vector of features to the order of the network."""
        if variable is None:
            return None
        vector = self.array(variable)
        return vector if order is None else vector[np.argsort(order)]

    def activation(self, layer: Any, function: Any, shape: tuple[int | None, ...]) -> list[Layer]:
        if isinstance(function, self.keras.Layer):
            kind = type(function).__name__
            if kind in ("ReLU", "LeakyReLU", "ELU", "Softmax", "Activation"):
                return _LAYERS[kind](self, function, shape, None)
        name = getattr(function, "__name__", type(function).__name__)
        if name not in _ACTIVATIONS or getattr(self.keras.activations, name, None) is not function:
            raise ValueError(
                f"{_describe(layer)} with activation {name}, which from_keras does not support; "
                f"it supports {', '.join(sorted(_ACTIVATIONS))}."
            )
        if name == "softmax":
            self.check_axis(layer, -1, shape)
        known = _ACTIVATIONS[name]
        return [] if known is None else [known]


def _all_layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _all_layers(layer)


def _describe(layer: Any) -> str:
    return f"layer {layer.name!r} is a {type(layer).__name__}"


def _dense(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    reader.check_axis(layer, -1, shape)
    weight = reader.array(layer.kernel).T
    if order is not None:
        weight = weight[:, np.argsort(order)]
    bias = reader.array(layer.bias) if layer.use_bias else None
    linear = (
        Conv2d(weight[:, :, None, None], bias, "identity")
        if len(shape) == 4
        else Dense(weight, bias, "identity")
    )
    return [linear, *reader.activation(layer, layer.activation, shape)]


def _convolution(reader: _Reader, layer: Any, shape: Any, _: Order | None) -> list[Layer]:
    made = partial(
        Conv2d,
        activation="identity",
        stride=tuple(layer.strides),
        padding=reader.geometry(layer, shape, layer.kernel_size, layer.dilation_rate),
        dilation=tuple(layer.dilation_rate),
    )
    kernel = reader.array(layer.kernel)
    convolution = made(
        kernel.transpose(3, 2, 0, 1),
        reader.array(layer.bias) if layer.use_bias else None,
        groups=layer.groups,
    )
    probe = np.random.default_rng(0).normal(size=(*kernel.shape[:2], 1, 1)).astype(np.float32)
    span = [size * spread for size, spread in zip(kernel.shape, layer.dilation_rate, strict=False)]
    reader.check_same(
        layer,
        shape,
        span,
        made(probe.transpose(3, 2, 0, 1)),
        lambda x: reader.keras.ops.conv(
            x, probe, layer.strides, layer.padding, layer.data_format, layer.dilation_rate
        ),
    )
    return [convolution, *reader.activation(layer, layer.activation, shape)]


def _batch_norm(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    reader.check_axis(layer, layer.axis, shape)
    mean, variance = (
        reader.vector(statistic, order) for statistic in (layer.moving_mean, layer.moving_variance)
    )
    weight = reader.vector(layer.gamma, order) if layer.scale else None
    bias = reader.vector(layer.beta, order) if layer.center else None
    assert mean is not None
    assert variance is not None
    return [BatchNorm(mean, variance, weight, bias, layer.epsilon)]


def _layer_norm(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    reader.check_axis(layer, layer.axis, shape)
    if getattr(layer, "rms_scaling", False):
        raise ValueError(f"{_describe(layer)} with rms_scaling=True; not supported.")
    return [
        LayerNorm(
            reader.vector(layer.gamma, order), reader.vector(layer.beta, order), layer.epsilon
        )
    ]


def _relu(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    slope, ceiling = float(layer.negative_slope), layer.max_value
    if layer.threshold or (slope and ceiling is not None):
        raise ValueError(
            f"{_describe(layer)} with a threshold, or with both a negative slope and a maximum; "
            "not supported."
        )
    if ceiling is not None:
        return [Activation(Clip(0, float(ceiling)))]
    return [Activation(leaky_relu(slope))]


def _softmax(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    reader.check_axis(layer, layer.axis, shape)
    return [Softmax()]


def _average(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    return _pool(reader, layer, shape, partial(AvgPool2d, count_padding=False), "average_pool")


def _maximum(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    return _pool(reader, layer, shape, MaxPool2d, "max_pool")


def _pool(
    reader: _Reader, layer: Any, shape: Any, kind: Callable[..., Layer], name: str
) -> list[Layer]:
    size, strides = tuple(layer.pool_size), tuple(layer.strides)
    pool = kind(size, strides, reader.geometry(layer, shape, size, (1, 1)))
    function = getattr(reader.keras.ops, name)
    reader.check_same(
        layer,
        shape,
        size,
        pool,
        lambda x: function(x, size, strides, layer.padding, layer.data_format),
    )
    return [pool]


def _global_average(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    return [AvgPool2d()] if layer.keepdims else [AvgPool2d(), Flatten()]


def _zero_padding(reader: _Reader, layer: Any, shape: Any, order: Order | None) -> list[Layer]:
    n_channels = shape[reader.features_axis(4)]
    return [
        Conv2d(
            np.ones((n_channels, 1, 1, 1), np.float32),
            activation="identity",
            padding=layer.padding,
            groups=n_channels,
        )
    ]


_LAYERS: dict[str, Callable[[_Reader, Any, Any, Order | None], list[Layer]]] = {
    "Activation": lambda reader, layer, shape, _: reader.activation(layer, layer.activation, shape),
    "AveragePooling2D": _average,
    "BatchNormalization": _batch_norm,
    "Conv2D": _convolution,
    "Dense": _dense,
    "ELU": lambda reader, layer, shape, _: [Activation(elu(float(layer.alpha)))],
    "Flatten": lambda reader, layer, shape, _: [Flatten()] if len(shape) > 2 else [],
    "GlobalAveragePooling2D": _global_average,
    "LayerNormalization": _layer_norm,
    "LeakyReLU": lambda reader, layer, shape, _: [
        Activation(leaky_relu(float(layer.negative_slope)))
    ],
    "MaxPooling2D": _maximum,
    "ReLU": _relu,
    "Softmax": _softmax,
    "ZeroPadding2D": _zero_padding,
}
