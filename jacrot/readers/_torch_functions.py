"""Functions and methods of PyTorch: those that modules do too, that normalise, scale or permute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jacrot._utils.arrays import Array
from jacrot.layers import BatchNorm, Conv2d, Dense, Layer
from jacrot.readers._torch_modules import MODULES, Unread
from jacrot.readers._torch_state import as_array

if TYPE_CHECKING:
    from jacrot.readers._torch_calls import Reading

# Functions and methods that do what a module does, by name, and what the functions call the
# arguments after the input, in order.
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
# and that write to memory of their own. The others may do any of these.
SAME = {"dropout", *(kind for kind, make in MODULES.items() if make is None)} - {
    "MultiheadAttention"
}
FLATTENS = {"flatten", "reshape", "view", "Flatten"}
NEW = {
    *(*FUNCTIONS, *MODULES, "add", "clone", "layer_norm", "linear", "mean", "mul", "pad"),
    "rms_norm",
} - (SAME | FLATTENS)
# What is computed of parameters and buffers before they are used.
OF_CONSTANTS = ("getitem", "reshape", "unsqueeze", "view")
# How images are permuted to have their channels last, and back.
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Norm(NamedTuple):
    """What a function that normalises is given, as a module has it."""

    normalized_shape: Any
    weight: Any
    bias: Any
    eps: float | None


def layer_norm(
    reading: Reading,
    call: Any,
    source: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> None:
    """Read ``layer_norm``."""
    shape = _shape(reading, source, normalized_shape)
    norm = Norm(shape, reading.constant(weight), reading.constant(bias), eps)
    reading.apply_module(call, source, "LayerNorm", norm)


def rms_norm(
    reading: Reading,
    call: Any,
    source: Any,
    normalized_shape: Any,
    weight: Any = None,
    eps: float | None = None,
) -> None:
    """Read ``rms_norm``."""
    shape = _shape(reading, source, normalized_shape)
    reading.apply_module(call, source, "RMSNorm", Norm(shape, reading.constant(weight), None, eps))


def _shape(reading: Reading, source: Any, shape: Any) -> tuple[Any, ...]:
    if isinstance(shape, reading.torch.fx.Node):
        if reading.sizes.get(shape) != slice(-1, None, None):
            raise Unread("normalized_shape is computed")
        return (None,)
    return tuple(shape)


def of_constants(reading: Reading, call: Any, name: str, args: Any, options: Any) -> None:
    """Compute what a call makes of a parameter or buffer."""
    if len(call.all_input_nodes) > 1:
        raise Unread("its arguments are computed")
    value = reading.constants[args[0]]
    if name == "getitem":
        reading.constants[call] = value[args[1]]
    else:
        reading.constants[call] = getattr(value, name)(*args[1:], **options)


def scale(reading: Reading, call: Any, source: Any, factors: Any) -> None:
    """Read the product with a parameter or buffer of one factor, or of one for each feature."""
    tensor, array = reading.tensor(source, last=True), as_array(reading.constants[factors])
    width, ndim = reading.width[tensor], reading.ndim[tensor]
    if array.size == 1 and array.ndim <= 1 and width is not None:
        reading.apply(call, tensor, [scaling(np.full(width, array.item(), array.dtype))], ndim)
        return
    images = ndim == 4 and tensor not in reading.last
    # Counted from the last, as they are broadcast.
    axis = 3 if images else 1
    rest = [size for place, size in enumerate(array.shape[::-1], 1) if place != axis]
    # One factor of features of unknown number is none for each.
    fits = array.size == width or (width is None and array.size > 1)
    if array.ndim < axis or any(size != 1 for size in rest) or not fits:
        raise Unread(f"with factors of shape {array.shape}, not one for each feature")
    reading.apply(call, tensor, [scaling(array.reshape(-1))], ndim)


def scaling(factors: Array) -> BatchNorm:
    """Make the layer that multiplies every feature by a factor.

    Parameters
    ----------
    factors : ndarray of shape (n_features,)
        The factors.

    Returns
    -------
    BatchNorm
        The layer, which :func:`jacrot.layers.fused` folds into one before it.
    """
    return BatchNorm(np.zeros_like(factors), np.ones_like(factors), factors, eps=0)


def chunk(reading: Reading, call: Any, source: Any, chunks: Any, dim: int = 0) -> None:
    """Read the parts of what a dense layer writes, such as the two sides of a gated layer."""
    tensor = reading.tensor(source)
    before, layer = reading.graph.made(tensor) or (tensor, None)
    last_axis = dim == -1 or dim + 1 == reading.ndim[tensor] == 3
    if not isinstance(layer, Dense) or layer.activation != "identity" or not last_axis:
        raise Unread("of something else than the last axis of what a dense layer writes")
    if not isinstance(chunks, int) or chunks < 1 or layer.n_outputs % chunks:
        raise Unread(f"into {chunks} parts of {layer.n_outputs} features")
    names: list[str] = []
    sides = zip(np.split(layer.weight, chunks), np.split(layer.bias, chunks), strict=True)
    for index, (weight, bias) in enumerate(sides):
        name = f"{call.name}.{index}"
        reading.graph.apply(Dense(weight, bias, "identity"), before, name)
        reading.ndim[name], reading.width[name] = reading.ndim[tensor], len(weight)
        names.append(name)
    reading.chunks[call] = source, tensor, names


def of_chunks(reading: Reading, call: Any, chunks: Any, index: Any) -> None:
    """Read one of the parts."""
    source, tensor, names = reading.chunks[chunks]
    if reading.tensor(source) != tensor:
        raise Unread("of the parts of what was changed in place since")
    reading.tensors[call] = names[index]


def permute(reading: Reading, call: Any, source: Any, *dims: Any) -> None:
    """Read what puts the channels of images last, or back."""
    dims = dims[0] if len(dims) == 1 else dims
    tensor = reading.tensor(source, last=True)
    order = tuple(dim % 4 if isinstance(dim, int) else dim for dim in dims)
    is_last = tensor in reading.last
    if order != (_TO_FIRST if is_last else _TO_LAST) or reading.ndim[tensor] not in (None, 4):
        raise Unread("of something else than the channels of images, to the end or back")
    reading.graph.alias(tensor, call.name)
    reading.tensors[call] = call.name
    reading.ndim[call.name], reading.width[call.name] = 4, reading.width[tensor]
    if not is_last:
        reading.last.add(call.name)


def pixelwise(layers: list[Layer]) -> list[Layer]:
    """Make of dense layers those that do the same at every pixel of an image.

    Parameters
    ----------
    layers : list of Layer
        Layers of rows.

    Returns
    -------
    list of Layer
        The same, of images.
    """
    return [
        Conv2d(layer.weight[:, :, None, None], layer.bias, layer.activation)
        if isinstance(layer, Dense)
        else layer
        for layer in layers
    ]
