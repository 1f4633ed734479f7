"""Conversion of operators of ONNX to layers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from jacrot.layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2d,
    Softmax,
)
from jacrot.readers._onnx_graph import Node, OnnxGraph


def _gemm(reader: OnnxGraph, node: Node) -> list[Layer]:
    weight = reader.stored(node, 1, ndim=2)
    assert weight is not None
    if node.attributes.get("transA", 0):
        raise node.error("with transA=1, which is not supported")
    weight = weight if node.attributes.get("transB", 0) else weight.T
    bias = reader.stored(node, 2)
    if bias is not None:
        if bias.size not in (1, len(weight)) or max(bias.shape[:-1], default=1) > 1:
            raise node.error(f"with a bias {bias.shape} of {len(weight)} outputs, not supported")
        bias = np.broadcast_to(bias.ravel(), len(weight)) * bias.dtype.type(
            node.attributes.get("beta", 1.0)
        )
    alpha = weight.dtype.type(node.attributes.get("alpha", 1.0))
    return [Dense(alpha * weight, bias, "identity")]


def _matmul(reader: OnnxGraph, node: Node) -> list[Layer]:
    if len(reader.shape(node)) not in (2, 3):
        raise node.error(f"of a tensor {reader.shape(node)}; only rows and sequences are supported")
    weight = reader.stored(node, 1, ndim=2)
    assert weight is not None
    return [Dense(weight.T, None, "identity")]


def _convolution(reader: OnnxGraph, node: Node) -> list[Layer]:
    weight, bias = reader.stored(node, 1), reader.stored(node, 2)
    assert weight is not None
    geometry = reader.windows(node, weight.shape[2:])
    groups = node.attributes.get("group", 1)
    return [Conv2d(weight, bias, "identity", groups=groups, **geometry)]


def _batch_norm(reader: OnnxGraph, node: Node) -> list[Layer]:
    reader.check_features_axis(node, 1)
    if node.attributes.get("training_mode", 0):
        raise node.error("in training mode, which is not supported")
    weight, bias, mean, variance = (reader.stored(node, place, ndim=1) for place in range(1, 5))
    assert mean is not None
    assert variance is not None
    return [BatchNorm(mean, variance, weight, bias, node.attributes.get("epsilon", 1e-5))]


def _layer_norm(reader: OnnxGraph, node: Node) -> list[Layer]:
    reader.check_features_axis(node, node.attributes.get("axis", -1))
    weight, bias = (reader.stored(node, place, ndim=1) for place in (1, 2))
    return [LayerNorm(weight, bias, node.attributes.get("epsilon", 1e-5))]


def _softmax(reader: OnnxGraph, node: Node) -> list[Layer]:
    # Before version 13 it was over all axes from the given one.
    old, rank = reader.opset < 13, len(reader.shape(node))
    axis = node.attributes.get("axis", 1 if old else -1)
    if old and axis not in (-1, rank - 1):
        raise node.error(f"over all axes from {axis}, which is not supported")
    reader.check_features_axis(node, axis)
    return [Softmax()]


def _average_pool(reader: OnnxGraph, node: Node) -> list[Layer]:
    kernel = node.attributes["kernel_shape"]
    geometry = reader.windows(node, kernel)
    if geometry.pop("dilation") != (1, 1):
        raise node.error("with dilations, which is not supported")
    padded = bool(node.attributes.get("count_include_pad", 0))
    return [AvgPool2d(tuple(kernel), count_padding=padded, **geometry)]


def _max_pool(reader: OnnxGraph, node: Node) -> list[Layer]:
    kernel = node.attributes["kernel_shape"]
    return [MaxPool2d(tuple(kernel), **reader.windows(node, kernel))]


def _global_average(reader: OnnxGraph, node: Node) -> list[Layer]:
    if len(reader.shape(node)) != 4:
        raise node.error(f"of a tensor {reader.shape(node)}; only images are supported")
    return [AvgPool2d()]


def _mean(reader: OnnxGraph, node: Node) -> list[Layer]:
    stored = reader.stored(node, 1)
    axes = node.attributes.get("axes", () if stored is None else stored.astype(int).ravel())
    shape = reader.shape(node)
    if len(shape) != 4 or sorted(axes) not in ([2, 3], [-2, -1], [-1, 2], [-2, 3]):
        raise node.error(
            f"over axes {list(map(int, axes))} of a tensor {shape}; only the mean over the "
            "positions of images is supported"
        )
    return [AvgPool2d()] if node.attributes.get("keepdims", 1) else [AvgPool2d(), Flatten()]


def _flatten(reader: OnnxGraph, node: Node) -> list[Layer]:
    shape = reader.shape(node)
    if len(shape) < 2 or node.attributes.get("axis", 1) not in (1, 1 - len(shape)):
        raise node.error("over another axis than 1, which is not supported")
    return [Flatten()] if len(shape) > 2 else []


def _reshape(reader: OnnxGraph, node: Node) -> list[Layer]:
    """Convert an operator that flattens every sample to a row."""
    shape = reader.shape(node)
    result = reader.shapes.get(node.proto.output[0], ())
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    wanted = reader.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    keeps_samples = (
        # The same number of entries for each sample, or an explicit number of samples.
        (len(sizes) == len(shape) - 1 and result[1:] == (prod(sizes),))
        or (bool(shape[0]) and result[:1] == shape[:1])
        or (node.operator == "Reshape" and wanted is not None and wanted.tolist() == [0, -1])
    )
    if len(result) != 2 or not keeps_samples:
        raise node.error(
            f"from {shape} to {result or 'an unknown shape'}; only flattening to (n, -1) with "
            "known shapes is supported"
        )
    return [Flatten()] if len(shape) > 2 else []


OPERATORS: dict[str, Callable[[OnnxGraph, Node], list[Layer]]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _reshape,
}
