"""Conversion of functions and methods of PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jacrot._utils.arrays import Array
from jacrot.layers import BatchNorm, Conv2d, Dense, Layer
from jacrot.readers._torch_modules import MODULES, Unread
from jacrot.readers._torch_state import as_array

if TYPE_CHECKING:
    from jacrot.readers._torch_calls import TorchReader

# Functions and methods that compute the same as a module, by name: the class of the module, and the
# arguments of the function after the input.
FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ("output_size",)),
    "avg_pool2d": (
        "AvgPool2d",
        (
            *("kernel_size", "stride", "padding"),
            *("ceil_mode", "count_include_pad", "divisor_override"),
        ),
    ),
    "dropout": ("Dropout", ("p", "training", "inplace")),
    "elu": ("ELU", ("alpha", "inplace")),
    "gelu": ("GELU", ()),
    "hardtanh": ("Hardtanh", ("min_val", "max_val", "inplace")),
    "leaky_relu": ("LeakyReLU", ("negative_slope", "inplace")),
    "max_pool2d": (
        "MaxPool2d",
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    "relu": ("ReLU", ("inplace",)),
    "relu6": ("ReLU6", ("inplace",)),
    "selu": ("SELU", ("inplace",)),
    "sigmoid": ("Sigmoid", ()),
    "silu": ("SiLU", ("inplace",)),
    # torch.softmax has the dtype second.
    "softmax": ("Softmax", ("dim",)),
    "softplus": ("Softplus", ("beta", "threshold")),
    "tanh": ("Tanh", ()),
}
# Functions and modules that return their argument itself, that return it or a view or a copy of it,
# and that allocate their result. The others may do any of these.
SAME = {"dropout", *(kind for kind, make in MODULES.items() if make is None)} - {
    "MultiheadAttention"
}
FLATTENS = {"flatten", "reshape", "view", "Flatten"}
NEW = {
    *(*FUNCTIONS, *MODULES, "add", "clone", "layer_norm", "linear", "mean", "mul", "pad"),
    "rms_norm",
} - (SAME | FLATTENS)
# Functions that may be applied to parameters and buffers before they are used.
CONSTANT_FUNCTIONS = ("getitem", "reshape", "unsqueeze", "view")
# Permutations of images to channels last, and back.
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Norm(NamedTuple):
    """Arguments of a normalisation function, as attributes of a module."""

    normalized_shape: Any
    weight: Any
    bias: Any
    eps: float | None


def layer_norm(
    reader: TorchReader,
    call: Any,
    source: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> None:
    """Convert ``layer_norm``."""
    shape = _shape(reader, source, normalized_shape)
    norm = Norm(shape, reader.constant(weight), reader.constant(bias), eps)
    reader.apply_module(call, source, "LayerNorm", norm)


def rms_norm(
    reader: TorchReader,
    call: Any,
    source: Any,
    normalized_shape: Any,
    weight: Any = None,
    eps: float | None = None,
) -> None:
    """Convert ``rms_norm``."""
    shape = _shape(reader, source, normalized_shape)
    reader.apply_module(call, source, "RMSNorm", Norm(shape, reader.constant(weight), None, eps))


def _shape(reader: TorchReader, source: Any, shape: Any) -> tuple[Any, ...]:
    if isinstance(shape, reader.torch.fx.Node):
        if reader.sizes.get(shape) != slice(-1, None, None):
            raise Unread("normalized_shape is computed")
        return (None,)
    return tuple(shape)


def apply_to_constants(reader: TorchReader, call: Any, name: str, args: Any, options: Any) -> None:
    """Apply a call to a parameter or buffer."""
    if len(call.all_input_nodes) > 1:
        raise Unread("its arguments are computed")
    value = reader.constants[args[0]]
    if name == "getitem":
        reader.constants[call] = value[args[1]]
    else:
        reader.constants[call] = getattr(value, name)(*args[1:], **options)


def scale(reader: TorchReader, call: Any, source: Any, factors: Any) -> None:
    """Convert the product with a parameter or buffer of one factor, or one for each feature."""
    tensor, array = reader.tensor(source, last=True), as_array(reader.constants[factors])
    width, ndim = reader.width[tensor], reader.ndim[tensor]
    if array.size == 1 and array.ndim <= 1 and width is not None:
        reader.apply(call, tensor, [scaling(np.full(width, array.item(), array.dtype))], ndim)
        return
    images = ndim == 4 and tensor not in reader.last
    # Counted from the last axis, because of broadcasting.
    axis = 3 if images else 1
    rest = [size for place, size in enumerate(array.shape[::-1], 1) if place != axis]
    # If the number of features is unknown, one factor is not one for each feature.
    fits = array.size == width or (width is None and array.size > 1)
    if array.ndim < axis or any(size != 1 for size in rest) or not fits:
        raise Unread(f"its factors have shape {array.shape}, not one for each feature")
    reader.apply(call, tensor, [scaling(array.reshape(-1))], ndim)


def scaling(factors: Array) -> BatchNorm:
    """Build the layer that multiplies every feature by a factor.

    Parameters
    ----------
    factors : ndarray of shape (n_features,)
        The factors.

    Returns
    -------
    BatchNorm
        The layer, which :func:`jacrot.layers.fused` can fold into the layer before it.
    """
    return BatchNorm(np.zeros_like(factors), np.ones_like(factors), factors, eps=0)


def chunk(reader: TorchReader, call: Any, source: Any, chunks: Any, dim: int = 0) -> None:
    """Convert a split of the outputs of a dense layer, such as the two parts of a gated layer."""
    tensor = reader.tensor(source)
    before, layer = reader.graph.find_step(tensor) or (tensor, None)
    last_axis = dim == -1 or dim + 1 == reader.ndim[tensor] == 3
    if not isinstance(layer, Dense) or layer.activation != "identity" or not last_axis:
        raise Unread("it does not split the last axis of the outputs of a dense layer")
    if not isinstance(chunks, int) or chunks < 1 or layer.n_outputs % chunks:
        raise Unread(f"it splits {layer.n_outputs} features into {chunks} parts")
    names: list[str] = []
    sides = zip(np.split(layer.weight, chunks), np.split(layer.bias, chunks), strict=True)
    for index, (weight, bias) in enumerate(sides):
        name = f"{call.name}.{index}"
        reader.graph.apply(Dense(weight, bias, "identity"), before, name)
        reader.ndim[name], reader.width[name] = reader.ndim[tensor], len(weight)
        names.append(name)
    reader.chunks[call] = source, tensor, names


def select_chunk(reader: TorchReader, call: Any, chunks: Any, index: Any) -> None:
    """Convert the selection of one part of a split."""
    source, tensor, names = reader.chunks[chunks]
    if reader.tensor(source) != tensor:
        raise Unread("it reads parts of a tensor that was changed in place since")
    reader.tensors[call] = names[index]


def permute(reader: TorchReader, call: Any, source: Any, *dims: Any) -> None:
    """Convert a permutation of images to channels last, or back."""
    dims = dims[0] if len(dims) == 1 else dims
    tensor = reader.tensor(source, last=True)
    order = tuple(dim % 4 if isinstance(dim, int) else dim for dim in dims)
    is_last = tensor in reader.last
    if order != (_TO_FIRST if is_last else _TO_LAST) or reader.ndim[tensor] not in (None, 4):
        raise Unread("it does not move the channels of images to the end or back")
    reader.graph.alias(tensor, call.name)
    reader.tensors[call] = call.name
    reader.ndim[call.name], reader.width[call.name] = 4, reader.width[tensor]
    if not is_last:
        reader.last.add(call.name)


def pixelwise(layers: list[Layer]) -> list[Layer]:
    """Convert dense layers to 1 × 1 convolutions, which do the same at every pixel.

    Parameters
    ----------
    layers : list of Layer
        Layers of rows.

    Returns
    -------
    list of Layer
        The layers of images.
    """
    return [
        Conv2d(layer.weight[:, :, None, None], layer.bias, layer.activation)
        if isinstance(layer, Dense)
        else layer
        for layer in layers
    ]
