"""The PyTorch module of each layer; imported where PyTorch is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jacrot import layers
from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot.layers._attention import SIDES
from jacrot.layers._windows import Pair
from jacrot.network import Network
from jacrot.readers._common import Clip, Elu, LeakyRelu
from jacrot.writers._common import activation_key, check_known, common_dtype, ndims_read

# Of how many dimensions the batches are that a layer may be given.
NDims = frozenset[int]
DType = np.dtype[Any]
IMAGES: NDims = frozenset({4})


class AlongFeatures(nn.Module):
    """A module that acts on the last axis, for batches of which some or all are images."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to the features: of images they are the channels."""
        if x.ndim == 4:
            return self.module(x.movedim(1, -1)).movedim(-1, 1)
        return self.module(x)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of rows, sequences ``(n, positions, features)`` and images alike."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the features, which PyTorch has on the axis after that of the samples."""
        if x.ndim == 3:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        return super().forward(x)


class Residual(nn.Module):
    """Sum of two branches."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Add them."""
        return self.shortcut(x) + self.branch(x)


class GatedLinear(nn.Module):
    """Product of two linear maps, one of them with an activation."""

    def __init__(self, gate: nn.Module, activation: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.gate = gate
        self.activation = activation
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """Multiply them."""
        return self.activation(self.gate(x)) * self.up(x)


class SelfAttention(nn.Module):
    """PyTorch's attention, of a sequence with itself."""

    mask: Tensor | None

    def __init__(self, attention: nn.MultiheadAttention, mask: Tensor | None) -> None:
        super().__init__()
        self.attention = attention
        # True where a position does not look.
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        # Asked for the pattern too, PyTorch takes the path that it can differentiate in all modes.
        return self.attention(x, x, x, attn_mask=self.mask, need_weights=True)[0]


class Attention(nn.Module):
    """Self-attention that PyTorch's does not cover: of other widths, causal at any length."""

    mask: Tensor | None

    def __init__(
        self,
        sides: Mapping[str, nn.Module],
        n_heads: int,
        scale: float,
        mask: Tensor | None,
        causal: bool,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.query = sides["query"]
        self.key = sides["key"]
        self.value = sides["value"]
        self.output = sides["output"]
        self.n_heads, self.scale, self.causal, self.frozen = n_heads, scale, causal, frozen
        # True where a position does not look.
        self.register_buffer("mask", mask)

    def extra_repr(self) -> str:
        """Say what the parts do not."""
        return f"n_heads={self.n_heads}, scale={self.scale}, causal={self.causal}" + (
            ", frozen=True" if self.frozen else ""
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        query, key, value = [
            side(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for side in (self.query, self.key, self.value)
        ]
        scores = self.scale * (query @ key.transpose(-2, -1))
        mask = self.mask
        if self.causal:
            mask = torch.ones_like(scores, dtype=torch.bool).triu(1)
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.inf)
        pattern = scores.softmax(dim=-1)
        if self.frozen:
            pattern = pattern.detach()
        return self.output((pattern @ value).transpose(1, 2).flatten(2))


class AvgPoolInside(nn.Module):
    """Mean over the part of every window that is inside of the image."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        # A mean in which zeros around the image count.
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the share that is inside."""
        return self.pool(x) / self.pool(torch.ones_like(x[:1, :1]))


class PlainNorm(nn.Module):
    """Layer norm, or root-mean-square norm, without parameters and of any number of features."""

    def __init__(self, centred: bool, eps: float) -> None:
        super().__init__()
        self.centred, self.eps = centred, eps

    def extra_repr(self) -> str:
        """Say which, and what is added to the variance or mean square."""
        return f"centred={self.centred}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        if self.centred:
            return nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps)
        return nn.functional.rms_norm(x, x.shape[-1:], eps=self.eps)


def module_of(network: Network) -> nn.Sequential:
    """Make the module of a network.

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
        If `network` is no ``Network``.
    ValueError
        If a layer or an activation is not known.
    """
    check_known(network, _LAYERS, _ACTIVATIONS, "to_torch")
    dtype = common_dtype(network)
    return nn.Sequential(*_chain(network.layers, frozenset(FEATURES_AXIS), dtype)).eval()


def _chain(chain: Any, ndims: NDims, dtype: DType) -> list[nn.Module]:
    return [
        _module(layer, read, dtype)
        for layer, read in zip(chain, ndims_read(chain, ndims), strict=True)
    ]


def _module(layer: Any, ndims: NDims, dtype: DType) -> nn.Module:
    return _LAYERS[type(layer)](layer, ndims, dtype)


def _filled(module: nn.Module, arrays: Mapping[str, NDArray[Any]], dtype: DType) -> nn.Module:
    """Give a module that was made without memory its parameters."""
    tensors = {
        name: torch.from_numpy(np.array(array, dtype if array.dtype.kind == "f" else None))
        for name, array in arrays.items()
    }
    module.load_state_dict(tensors, assign=True)
    return module


def _with_bias(weight: Array, bias: Array | None) -> dict[str, Array]:
    """Leave a bias of zeros out."""
    given = {} if bias is None or not bias.any() else {"bias": bias}
    return {"weight": weight, **given}


def _linear(weight: Array, bias: Array | None, dtype: DType) -> nn.Module:
    arrays = _with_bias(weight, bias)
    n_outputs, n_inputs = weight.shape
    # Made without memory, a module does not draw from the global random state either.
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
    """Make a map of the channels of images."""
    return _convolution(matrix[..., None, None], offset, dtype)


def _one(parts: Mapping[str, nn.Module | None]) -> nn.Module:
    """Make one module of those that are there, in order."""
    named = {name: part for name, part in parts.items() if part is not None}
    if len(named) == 1:
        return next(iter(named.values()))
    module = nn.Sequential()
    for name, part in named.items():
        module.add_module(name, part)
    return module


def _activation(activation: Any, dtype: DType) -> nn.Module | None:
    return _ACTIVATIONS[activation_key(activation)](activation, dtype)


def _dense(layer: layers.Dense, ndims: NDims, dtype: DType) -> nn.Module:
    rotation = layer.output_rotation
    return _one(
        {
            "linear": _linear(layer.weight, layer.bias, dtype),
            "activation": _activation(layer.activation, dtype),
            "rotation": None if rotation is None else _linear(rotation, None, dtype),
        }
    )


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


def _sides(padding: tuple[Pair, Pair]) -> Pair | None:
    """Give the padding of rows and columns, where it is the same on both sides."""
    (top, bottom), (left, right) = padding
    return (top, left) if top == bottom and left == right else None


def _around(padding: tuple[Pair, Pair]) -> tuple[int, int, int, int]:
    """Give the padding in the order of PyTorch's padding modules."""
    (top, bottom), (left, right) = padding
    return left, right, top, bottom


def _pool_padding(padding: tuple[Pair, Pair], size: Pair) -> Pair | None:
    """Give the padding of a pool, where PyTorch's own can have it."""
    sides = _sides(padding)
    if sides is None or any(2 * side > extent for side, extent in zip(sides, size, strict=True)):
        return None
    return sides


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


def _max_pool(layer: layers.MaxPool2d, ndims: NDims, dtype: DType) -> nn.Module:
    padding = _pool_padding(layer.padding, layer.size)
    pool = nn.MaxPool2d(layer.size, layer.stride, padding or 0, layer.dilation)
    if padding is not None:
        return pool
    never_largest = nn.ConstantPad2d(_around(layer.padding), -np.inf)
    return _one({"padding": never_largest, "pool": pool})


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
    """Give both parameters of a norm, or none."""
    given = weight if weight is not None else bias
    if given is None:
        return {}
    return {
        "weight": np.ones_like(given) if weight is None else weight,
        "bias": np.zeros_like(given) if bias is None else bias,
    }


def _layer_norm(layer: layers.LayerNorm, ndims: NDims, dtype: DType) -> nn.Module:
    arrays = _affine(layer.weight, layer.bias)
    module: nn.Module = PlainNorm(True, layer.eps)
    if arrays:
        module = nn.LayerNorm(layer.n_inputs, layer.eps, device="meta")
        _filled(module, arrays, dtype)
    return _along_features(module, ndims)


def _rms_norm(layer: layers.RMSNorm, ndims: NDims, dtype: DType) -> nn.Module:
    module: nn.Module = PlainNorm(False, layer.eps)
    if layer.weight is not None:
        module = nn.RMSNorm(layer.n_inputs, layer.eps, device="meta")
        _filled(module, {"weight": layer.weight}, dtype)
    return _along_features(module, ndims)


def _softmax(layer: layers.Softmax, ndims: NDims, dtype: DType) -> nn.Module:
    return nn.Softmax(1) if ndims == IMAGES else _along_features(nn.Softmax(-1), ndims)


def _basis(layer: layers.Basis, ndims: NDims, dtype: DType) -> nn.Module:
    if ndims == IMAGES:
        return _pointwise(layer.matrix, layer.offset, dtype)
    return _along_features(_linear(layer.matrix, layer.offset, dtype), ndims)


def _along_features(module: nn.Module, ndims: NDims) -> nn.Module:
    return AlongFeatures(module) if 4 in ndims else module


def _gated(layer: layers.GatedDense, ndims: NDims, dtype: DType) -> nn.Module:
    return GatedLinear(
        _linear(layer.gate_weight, layer.gate_bias, dtype),
        _activation(layer.activation, dtype) or nn.Identity(),
        _linear(layer.up_weight, layer.up_bias, dtype),
    )


def _attention(layer: layers.Attention, ndims: NDims, dtype: DType) -> nn.Module:
    causal = isinstance(layer.mask, str)
    mask = None if causal or layer.mask is None else torch.from_numpy(~np.asarray(layer.mask))
    width = layer.n_inputs
    square = all(getattr(layer, side).shape == (width, width) for side in SIDES)
    if square and layer.scale is None and not causal and not layer.frozen:
        return SelfAttention(_multihead(layer, dtype), mask)
    given = layer.arguments
    sides = {side: _linear(given[side], given[f"{side}_bias"], dtype) for side in SIDES}
    return Attention(sides, layer.n_heads, layer._scale, mask, causal, layer.frozen)


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


def _residual(layer: layers.Residual, ndims: NDims, dtype: DType) -> nn.Module:
    shortcut = nn.Identity() if layer.shortcut is None else _module(layer.shortcut, ndims, dtype)
    return Residual(_module(layer.branch, ndims, dtype), shortcut)


def _sequential(layer: layers.Sequential, ndims: NDims, dtype: DType) -> nn.Module:
    return nn.Sequential(*_chain(layer.layers, ndims, dtype))


def _lone_activation(layer: layers.Activation, ndims: NDims, dtype: DType) -> nn.Module:
    return _activation(layer.activation, dtype) or nn.Identity()


def _softplus(activation: Any, dtype: DType) -> nn.Module:
    # Above its threshold PyTorch's is x, which below 40 is not exact in double precision.
    return nn.Softplus(threshold=20 if dtype == np.float32 else 40)


_LAYERS: dict[type[Any], Callable[[Any, NDims, DType], nn.Module]] = {
    layers.Activation: _lone_activation,
    layers.Attention: _attention,
    layers.AvgPool2d: _avg_pool,
    layers.Basis: _basis,
    layers.BatchNorm: _batch_norm,
    layers.Conv2d: _conv,
    layers.Dense: _dense,
    layers.Flatten: lambda layer, ndims, dtype: nn.Flatten(),
    layers.GatedDense: _gated,
    layers.LayerNorm: _layer_norm,
    layers.MaxPool2d: _max_pool,
    layers.RMSNorm: _rms_norm,
    layers.Residual: _residual,
    layers.Sequential: _sequential,
    layers.Softmax: _softmax,
}
# By name, or by class where there are parameters; ``None`` for what does nothing.
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
