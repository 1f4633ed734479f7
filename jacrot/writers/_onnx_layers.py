"""Converters of the package's layers to nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jacrot import layers
from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot.layers._attention import SIDES
from jacrot.layers._sequential import output_ndim
from jacrot.layers._windows import Sides
from jacrot.writers._onnx_activations import add_activation
from jacrot.writers._onnx_graph import OnnxGraph, layer_to_onnx


def add_chain(
    graph: OnnxGraph, chain: Sequence[layers.Layer], x: str, ndim: int
) -> tuple[str, int]:
    """Add the nodes of layers, one after the other.

    Parameters
    ----------
    graph : OnnxGraph
        The graph.
    layers : sequence of Layer
        A chain.
    x : str
        Name of the input of the first.
    ndim : int
        Number of dimensions of the input.

    Returns
    -------
    str
        Name of the output of the last layer.
    int
        Number of dimensions of the output.
    """
    for index, layer in enumerate(chain):
        x = layer_to_onnx(layer, graph.inside(index), x, ndim)
        after = output_ndim(layer, ndim)
        assert after is not None
        ndim = after
    return x, ndim


def _vector(graph: OnnxGraph, name: str, vector: Array, ndim: int) -> str:
    """Store a vector of features so that it broadcasts against a batch."""
    return graph.tensor(name, vector.reshape(-1, *[1] * (ndim - FEATURES_AXIS[ndim] - 1)))


def _linear(
    graph: OnnxGraph,
    x: str,
    ndim: int,
    weight: Array,
    bias: Array | None,
    names: tuple[str, str] = ("weight", "bias"),
) -> str:
    """Add a linear map of the features, and its bias if it is not zero."""
    if ndim == 4:
        y = graph.node("Conv", x, graph.tensor(names[0], weight[..., None, None]))
    else:
        y = graph.node("MatMul", x, graph.tensor(names[0], weight.T))
    if bias is not None and bias.any():
        y = graph.node("Add", y, _vector(graph, names[1], bias, ndim))
    return y


def _rotated(graph: OnnxGraph, layer: layers.Dense | layers.Conv2d, y: str, ndim: int) -> str:
    """Add what dense layers and convolutions compute after the product with their weights."""
    y = add_activation(graph, layer.activation, y)
    if layer.output_rotation is None:
        return y
    return _linear(graph, y, ndim, layer.output_rotation, None, ("output_rotation", ""))


@layer_to_onnx.register(layers.Dense)
def _dense(layer: layers.Dense, graph: OnnxGraph, x: str, ndim: int) -> str:
    return _rotated(graph, layer, _linear(graph, x, ndim, layer.weight, layer.bias), ndim)


@layer_to_onnx.register(layers.Conv2d)
def _conv(layer: layers.Conv2d, graph: OnnxGraph, x: str, ndim: int) -> str:
    inputs = [graph.tensor("weight", layer.weight)]
    if layer.bias.any():
        inputs.append(graph.tensor("bias", layer.bias))
    y = graph.node(
        "Conv",
        x,
        *inputs,
        kernel_shape=layer.weight.shape[2:],
        strides=layer.stride,
        pads=_pads(layer.padding),
        dilations=layer.dilation,
        group=layer.groups,
    )
    return _rotated(graph, layer, y, ndim)


def _pads(padding: Sides) -> tuple[int, int, int, int]:
    (top, bottom), (left, right) = padding
    return top, left, bottom, right


@layer_to_onnx.register(layers.AvgPool2d)
def _avg_pool(layer: layers.AvgPool2d, graph: OnnxGraph, x: str, ndim: int) -> str:
    if layer.size is None:
        return graph.node("ReduceMean", x, graph.tensor("axes", np.array([2, 3])), keepdims=1)
    pads = _pads(layer.padding)
    if layer.count_padding:
        x, pads = _inside(graph, layer, x, 0.0)
    return graph.node(
        "AveragePool",
        x,
        kernel_shape=layer.size,
        strides=layer.stride,
        pads=pads,
        count_include_pad=int(layer.count_padding),
    )


@layer_to_onnx.register(layers.MaxPool2d)
def _max_pool(layer: layers.MaxPool2d, graph: OnnxGraph, x: str, ndim: int) -> str:
    x, pads = _inside(graph, layer, x, -np.inf)
    return graph.node(
        "MaxPool",
        x,
        kernel_shape=layer.size,
        strides=layer.stride,
        pads=pads,
        dilations=layer.dilation,
    )


def _inside(
    graph: OnnxGraph, layer: layers.AvgPool2d | layers.MaxPool2d, x: str, outside: float
) -> tuple[str, tuple[int, int, int, int]]:
    """Pad images where windows can lie outside them, which the pools of runtimes refuse."""
    assert layer.size is not None
    pads = _pads(layer.padding)
    if all(pad < extent for pad, extent in zip(pads, layer.size * 2, strict=True)):
        return x, pads
    widths = graph.tensor("pads", np.array([0, 0, *pads[:2], 0, 0, *pads[2:]]))
    return graph.node("Pad", x, widths, graph.number(outside)), (0, 0, 0, 0)


@layer_to_onnx.register(layers.BatchNorm)
def _batch_norm(layer: layers.BatchNorm, graph: OnnxGraph, x: str, ndim: int) -> str:
    # The operator takes the second axis as that of the features, and has eps in single precision.
    y = graph.node("Mul", x, _vector(graph, "scale", layer.scale, ndim))
    return graph.node("Add", y, _vector(graph, "shift", layer.shift, ndim))


@layer_to_onnx.register(layers.LayerNorm)
def _layer_norm(layer: layers.LayerNorm, graph: OnnxGraph, x: str, ndim: int) -> str:
    if graph.single and ndim != 4 and layer.weight is not None:
        inputs = [graph.tensor("weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(graph.tensor("bias", layer.bias))
        return graph.node("LayerNormalization", x, *inputs, epsilon=layer.eps)
    # The operator needs the number of features, normalises the last axis, and in single precision.
    return _scaled(graph, layer, graph.node("Sub", x, _mean(graph, x, ndim)), ndim, layer.bias)


@layer_to_onnx.register(layers.RMSNorm)
def _rms_norm(layer: layers.RMSNorm, graph: OnnxGraph, x: str, ndim: int) -> str:
    return _scaled(graph, layer, x, ndim, None)


def _scaled(
    graph: OnnxGraph,
    layer: layers.LayerNorm | layers.RMSNorm,
    x: str,
    ndim: int,
    bias: Array | None,
) -> str:
    """Add the division by the root of the mean square, and the parameters."""
    square = _mean(graph, graph.node("Mul", x, x), ndim)
    y = graph.node("Div", x, graph.node("Sqrt", graph.node("Add", square, graph.number(layer.eps))))
    if layer.weight is not None:
        y = graph.node("Mul", y, _vector(graph, "weight", layer.weight, ndim))
    if bias is not None:
        y = graph.node("Add", y, _vector(graph, "bias", bias, ndim))
    return y


def _mean(graph: OnnxGraph, x: str, ndim: int) -> str:
    return graph.node(
        "ReduceMean", x, graph.tensor("axes", np.array([FEATURES_AXIS[ndim]])), keepdims=1
    )


@layer_to_onnx.register(layers.Softmax)
def _softmax(layer: layers.Softmax, graph: OnnxGraph, x: str, ndim: int) -> str:
    return graph.node("Softmax", x, axis=FEATURES_AXIS[ndim])


@layer_to_onnx.register(layers.Basis)
def _basis(layer: layers.Basis, graph: OnnxGraph, x: str, ndim: int) -> str:
    return _linear(graph, x, ndim, layer.matrix, layer.offset, ("matrix", "offset"))


@layer_to_onnx.register(layers.GatedDense)
def _gated(layer: layers.GatedDense, graph: OnnxGraph, x: str, ndim: int) -> str:
    gate, up = (
        _linear(graph, x, ndim, weight, bias, (f"{name}_weight", f"{name}_bias"))
        for name, weight, bias in (
            ("gate", layer.gate_weight, layer.gate_bias),
            ("up", layer.up_weight, layer.up_bias),
        )
    )
    return graph.node("Mul", add_activation(graph, layer.activation, gate), up)


@layer_to_onnx.register(layers.Attention)
def _attention(layer: layers.Attention, graph: OnnxGraph, x: str, ndim: int) -> str:
    given = layer.arguments

    def side(name: str, x: str) -> str:
        return _linear(graph, x, ndim, given[name], given[f"{name}_bias"], (name, f"{name}_bias"))

    # Zeros keep the sizes of these axes: samples and positions.
    apart = graph.tensor("heads", np.array([0, 0, layer.n_heads, -1]))
    together = graph.tensor("width", np.array([0, 0, -1]))
    query, key, value = (
        graph.node("Transpose", graph.node("Reshape", side(name, x), apart), perm=order)
        for name, order in zip(SIDES[:3], ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True)
    )
    scores = graph.node("Mul", graph.node("MatMul", query, key), graph.number(layer._scale))
    if isinstance(layer.mask, str):
        length = graph.node("Shape", x, start=1, end=2)
        square = graph.node("Concat", length, length, axis=0)
        minus_infinity = graph.helper.make_tensor(
            "", graph.helper.np_dtype_to_tensor_dtype(graph.dtype), [1], [-np.inf]
        )
        everywhere = graph.node("ConstantOfShape", square, value=minus_infinity)
        future = graph.node("Trilu", everywhere, graph.tensor("above", np.array(1)), upper=1)
        scores = graph.node("Add", scores, future)
    elif layer.mask is not None:
        hidden = np.where(layer.mask, 0.0, -np.inf)
        scores = graph.node("Add", scores, graph.tensor("mask", hidden))
    heads = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), value)
    return side(
        "output", graph.node("Reshape", graph.node("Transpose", heads, perm=(0, 2, 1, 3)), together)
    )


@layer_to_onnx.register(layers.Residual)
def _residual(layer: layers.Residual, graph: OnnxGraph, x: str, ndim: int) -> str:
    kept = x
    if layer.shortcut is not None:
        kept = layer_to_onnx(layer.shortcut, graph.inside("shortcut"), x, ndim)
    branch = layer_to_onnx(layer.branch, graph.inside("branch"), x, ndim)
    return graph.node("Add", kept, branch)


@layer_to_onnx.register(layers.Flatten)
def _flatten(layer: layers.Flatten, graph: OnnxGraph, x: str, ndim: int) -> str:
    return graph.node("Flatten", x, axis=1)


@layer_to_onnx.register(layers.Sequential)
def _sequential(layer: layers.Sequential, graph: OnnxGraph, x: str, ndim: int) -> str:
    return add_chain(graph, layer.layers, x, ndim)[0]


@layer_to_onnx.register(layers.Activation)
def _lone_activation(layer: layers.Activation, graph: OnnxGraph, x: str, ndim: int) -> str:
    return add_activation(graph, layer.activation, x)
