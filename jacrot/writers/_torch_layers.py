"""Converters of the package's layers to PyTorch modules; imported where PyTorch is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jacrot import layers
from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot.activations import Clip, Elu, LeakyRelu
from jacrot.layers._attention import SIDES
from jacrot.layers._windows import Pair, Sides
from jacrot.network import Network
from jacrot.writers._common import activation_key, check_convertible, common_dtype, ndims_read
from jacrot.writers._modules import (
    AlongFeatures,
    Attention,
    AvgPoolInside,
    BatchNorm,
    GatedLinear,
    PlainNorm,
    Residual,
    SelfAttention,
)
from jacrot.writers._torch import layer_to_torch

# Numbers of dimensions that the batches of a layer may have.
NDims = frozenset[int]
DType = np.dtype[Any]
IMAGES: NDims = frozenset({4})


def to_sequential(network: Network) -> nn.Sequential:
    """Convert a network to a module.

    Parameters
    ----------
    network : Network
        The network.

    Returns
    -------
    torch.nn.Sequential
        One module for each layer, in evaluation mode.

    Raises
    ------
    TypeError
        If `network` is not a ``Network``.
    ValueError
        If a layer or an activation cannot be converted.
    """
    check_convertible(network, layer_to_torch, _ACTIVATIONS, "to_torch")
    dtype = common_dtype(network)
    return nn.Sequential(*_chain(network.layers, frozenset(FEATURES_AXIS), dtype)).eval()


def _chain(chain: Any, ndims: NDims, dtype: DType) -> list[nn.Module]:
    return [
        layer_to_torch(layer, read, dtype)
        for layer, read in zip(chain, ndims_read(chain, ndims), strict=True)
    ]


def _filled(module: nn.Module, arrays: Mapping[str, NDArray[Any]], dtype: DType) -> nn.Module:
    """Fill a module without storage with its parameters."""
    tensors = {
        name: torch.from_numpy(np.array(array, dtype if array.dtype.kind == "f" else None))
        for name, array in arrays.items()
    }
    module.load_state_dict(tensors, assign=True)
    return module


def _with_bias(weight: Array, bias: Array | None) -> dict[str, Array]:
    """Return the parameters of a linear map, without a bias of zeros."""
    given = {} if bias is None or not bias.any() else {"bias": bias}
    return {"weight": weight, **given}


def _linear(weight: Array, bias: Array | None, dtype: DType) -> nn.Module:
    arrays = _with_bias(weight, bias)
    n_outputs, n_inputs = weight.shape
    # Without storage it does not draw from the global random state either.
    module = nn.Linear(n_inputs, n_outputs, bias="bias" in arrays, device="meta")
    return _filled(module, arrays, dtype)


def _convolution(weight: Array, bias: Array | None, dtype: DType, **geometry: Any) -> nn.Module:
    arrays = _with_bias(weight, bias)
    n_outputs, n_inputs, *size = weight.shape
    n_inputs *= geometry.get("groups", 1)
    module = nn.Conv2d(
        n_inputs, n_outputs, tuple(size), bias="bias" in arrays, device="meta", **geometry
    )
    return _filled(module, arrays, dtype)


def _pointwise(matrix: Array, offset: Array | None, dtype: DType) -> nn.Module:
    """Build a map of the channels of images."""
    return _convolution(matrix[..., None, None], offset, dtype)


def _one(parts: Mapping[str, nn.Module | None]) -> nn.Module:
    """Chain the modules that are not None, or return the only one."""
    named = {name: part for name, part in parts.items() if part is not None}
    if len(named) == 1:
        return next(iter(named.values()))
    module = nn.Sequential()
    for name, part in named.items():
        module.add_module(name, part)
    return module


def _activation(activation: Any, dtype: DType) -> nn.Module | None:
    return _ACTIVATIONS[activation_key(activation)](activation, dtype)


@layer_to_torch.register(layers.Dense)
def _dense(layer: layers.Dense, ndims: NDims, dtype: DType) -> nn.Module:
    rotation = layer.output_rotation
    return _one(
        {
            "linear": _linear(layer.weight, layer.bias, dtype),
            "activation": _activation(layer.activation, dtype),
            "rotation": None if rotation is None else _linear(rotation, None, dtype),
        }
    )


@layer_to_torch.register(layers.Conv2d)
def _conv(layer: layers.Conv2d, ndims: NDims, dtype: DType) -> nn.Module:
    padding = _sides(layer.padding)
    convolution = _convolution(
        layer.weight,
        layer.bias,
        dtype,
        stride=layer.stride,
        padding=padding or 0,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    rotation = layer.output_rotation
    return _one(
        {
            "padding": nn.ZeroPad2d(_around(layer.padding)) if padding is None else None,
            "convolution": convolution,
            "activation": _activation(layer.activation, dtype),
            "rotation": None if rotation is None else _pointwise(rotation, None, dtype),
        }
    )


def _sides(padding: Sides) -> Pair | None:
    """Return the padding of rows and columns if it is the same on opposite sides."""
    (top, bottom), (left, right) = padding
    return (top, left) if top == bottom and left == right else None


def _around(padding: Sides) -> tuple[int, int, int, int]:
    """Return the padding in the order of PyTorch's padding modules."""
    (top, bottom), (left, right) = padding
    return left, right, top, bottom


def _pool_padding(padding: Sides, size: Pair) -> Pair | None:
    """Return the padding of a pool if PyTorch's pools allow it."""
    sides = _sides(padding)
    if sides is None or any(2 * side > extent for side, extent in zip(sides, size, strict=True)):
        return None
    return sides


@layer_to_torch.register(layers.AvgPool2d)
def _avg_pool(layer: layers.AvgPool2d, ndims: NDims, dtype: DType) -> nn.Module:
    if layer.size is None:
        return nn.AdaptiveAvgPool2d(1)
    padding = _pool_padding(layer.padding, layer.size)
    if padding is not None:
        count = layer.count_padding
        return nn.AvgPool2d(layer.size, layer.stride, padding, count_include_pad=count)
    zeros = nn.ZeroPad2d(_around(layer.padding))
    pool = _one({"padding": zeros, "pool": nn.AvgPool2d(layer.size, layer.stride)})
    return pool if layer.count_padding else AvgPoolInside(pool)


@layer_to_torch.register(layers.MaxPool2d)
def _max_pool(layer: layers.MaxPool2d, ndims: NDims, dtype: DType) -> nn.Module:
    padding = _pool_padding(layer.padding, layer.size)
    pool = nn.MaxPool2d(layer.size, layer.stride, padding or 0, layer.dilation)
    if padding is not None:
        return pool
    never_largest = nn.ConstantPad2d(_around(layer.padding), -np.inf)
    return _one({"padding": never_largest, "pool": pool})


@layer_to_torch.register(layers.BatchNorm)
def _batch_norm(layer: layers.BatchNorm, ndims: NDims, dtype: DType) -> nn.Module:
    kind = {frozenset({2}): nn.BatchNorm1d, IMAGES: nn.BatchNorm2d}.get(ndims, BatchNorm)
    affine = _affine(layer.weight, layer.bias)
    arrays = {
        **affine,
        "running_mean": layer.mean,
        "running_var": layer.variance,
        "num_batches_tracked": np.array(0),
    }
    module = kind(layer.mean.size, layer.eps, affine=bool(affine), device="meta")
    return _filled(module, arrays, dtype)


def _affine(weight: Array | None, bias: Array | None) -> dict[str, Array]:
    """Return both parameters of a norm, or none."""
    given = weight if weight is not None else bias
    if given is None:
        return {}
    return {
        "weight": np.ones_like(given) if weight is None else weight,
        "bias": np.zeros_like(given) if bias is None else bias,
    }


@layer_to_torch.register(layers.LayerNorm)
def _layer_norm(layer: layers.LayerNorm, ndims: NDims, dtype: DType) -> nn.Module:
    arrays = _affine(layer.weight, layer.bias)
    module: nn.Module = PlainNorm(True, layer.eps)
    if arrays:
        module = nn.LayerNorm(layer.n_inputs, layer.eps, device="meta")
        _filled(module, arrays, dtype)
    return _along_features(module, ndims)


@layer_to_torch.register(layers.RMSNorm)
def _rms_norm(layer: layers.RMSNorm, ndims: NDims, dtype: DType) -> nn.Module:
    module: nn.Module = PlainNorm(False, layer.eps)
    if layer.weight is not None:
        module = nn.RMSNorm(layer.n_inputs, layer.eps, device="meta")
        _filled(module, {"weight": layer.weight}, dtype)
    return _along_features(module, ndims)


@layer_to_torch.register(layers.Softmax)
def _softmax(layer: layers.Softmax, ndims: NDims, dtype: DType) -> nn.Module:
    return nn.Softmax(1) if ndims == IMAGES else _along_features(nn.Softmax(-1), ndims)


@layer_to_torch.register(layers.Basis)
def _basis(layer: layers.Basis, ndims: NDims, dtype: DType) -> nn.Module:
    if ndims == IMAGES:
        return _pointwise(layer.matrix, layer.offset, dtype)
    return _along_features(_linear(layer.matrix, layer.offset, dtype), ndims)


def _along_features(module: nn.Module, ndims: NDims) -> nn.Module:
    return AlongFeatures(module) if 4 in ndims else module


@layer_to_torch.register(layers.GatedDense)
def _gated(layer: layers.GatedDense, ndims: NDims, dtype: DType) -> nn.Module:
    return GatedLinear(
        _linear(layer.gate_weight, layer.gate_bias, dtype),
        _activation(layer.activation, dtype) or nn.Identity(),
        _linear(layer.up_weight, layer.up_bias, dtype),
    )


@layer_to_torch.register(layers.Attention)
def _attention(layer: layers.Attention, ndims: NDims, dtype: DType) -> nn.Module:
    causal = isinstance(layer.mask, str)
    mask = None if causal or layer.mask is None else torch.from_numpy(~np.asarray(layer.mask))
    width = layer.n_inputs
    square = all(getattr(layer, side).shape == (width, width) for side in SIDES)
    if square and layer.scale is None and not causal and not layer.frozen:
        return SelfAttention(_multihead(layer, dtype), mask)
    given = layer.arguments
    projections = {side: _linear(given[side], given[f"{side}_bias"], dtype) for side in SIDES}
    return Attention(projections, layer.n_heads, layer._scale, mask, causal, layer.frozen)


def _multihead(layer: layers.Attention, dtype: DType) -> nn.Module:
    given = layer.arguments
    arrays = {
        "in_proj_weight": np.concatenate([given[side] for side in SIDES[:3]]),
        "in_proj_bias": np.concatenate([given[f"{side}_bias"] for side in SIDES[:3]]),
        "out_proj.weight": given["output"],
        "out_proj.bias": given["output_bias"],
    }
    biases = ("in_proj_bias", "out_proj.bias")
    has_bias = any(arrays[name].any() for name in biases)
    if not has_bias:
        arrays = {name: array for name, array in arrays.items() if name not in biases}
    module = nn.MultiheadAttention(
        layer.n_inputs, layer.n_heads, bias=has_bias, batch_first=True, device="meta"
    )
    return _filled(module, arrays, dtype)


@layer_to_torch.register(layers.Residual)
def _residual(layer: layers.Residual, ndims: NDims, dtype: DType) -> nn.Module:
    shortcut = (
        nn.Identity() if layer.shortcut is None else layer_to_torch(layer.shortcut, ndims, dtype)
    )
    return Residual(layer_to_torch(layer.branch, ndims, dtype), shortcut)


@layer_to_torch.register(layers.Sequential)
def _sequential(layer: layers.Sequential, ndims: NDims, dtype: DType) -> nn.Module:
    return nn.Sequential(*_chain(layer.layers, ndims, dtype))


@layer_to_torch.register(layers.Activation)
def _lone_activation(layer: layers.Activation, ndims: NDims, dtype: DType) -> nn.Module:
    return _activation(layer.activation, dtype) or nn.Identity()


@layer_to_torch.register(layers.Flatten)
def _flatten(layer: layers.Flatten, ndims: NDims, dtype: DType) -> nn.Module:
    return nn.Flatten()


def _softplus(activation: Any, dtype: DType) -> nn.Module:
    # Above its threshold PyTorch returns x, which below 40 is not exact in double precision.
    return nn.Softplus(threshold=20 if dtype == np.float32 else 40)


# By name, or by class if it has parameters; ``None`` for the identity.
_ACTIVATIONS: dict[str | type[Any], Callable[[Any, DType], nn.Module | None]] = {
    "elu": lambda activation, dtype: nn.ELU(),
    "gelu": lambda activation, dtype: nn.GELU(),
    "gelu_tanh": lambda activation, dtype: nn.GELU("tanh"),
    "identity": lambda activation, dtype: None,
    "leaky_relu": lambda activation, dtype: nn.LeakyReLU(),
    "relu": lambda activation, dtype: nn.ReLU(),
    "selu": lambda activation, dtype: nn.SELU(),
    "sigmoid": lambda activation, dtype: nn.Sigmoid(),
    "silu": lambda activation, dtype: nn.SiLU(),
    "softplus": _softplus,
    "tanh": lambda activation, dtype: nn.Tanh(),
    Clip: lambda activation, dtype: nn.Hardtanh(activation.low, activation.high),
    Elu: lambda activation, dtype: nn.ELU(activation.alpha),
    LeakyRelu: lambda activation, dtype: nn.LeakyReLU(activation.negative_slope),
}
