"""Conversion of modules of `torch.nn`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jacrot._utils.arrays import Array
from jacrot.activations import Clip, elu, leaky_relu
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2d,
    RMSNorm,
    Softmax,
)
from jacrot.readers._common import instance_overrides
from jacrot.readers._torch_state import as_array


class Unread(Exception):
    """Reason why a module or a call is not supported."""


class UnreadError(ValueError):
    """The error of :func:`unread_error`."""


def unread_error(path: str, part: Any, reason: Exception, advice: str) -> UnreadError:
    """Build the error for a part of a model that is not supported.

    Parameters
    ----------
    path : str
        Path of the part in a sequence that contains only the model.
    part : Module or str
        The part, or the name of a function that it calls.
    reason : Exception
        The reason.
    advice : str
        Advice for the user.

    Returns
    -------
    UnreadError
        The error.
    """
    path = path.removeprefix("0").removeprefix(".") or "model"
    name = part if isinstance(part, str) else type(part).__name__
    details = f" ({reason})" if str(reason) else ""
    return UnreadError(f"{path}: from_torch does not support this {name}{details}; {advice}.")


def _embedding(module: Any) -> Dense:
    if module.max_norm is not None:
        raise Unread("max_norm, which changes its weight when it is called")
    # A dense layer of one-hot rows instead of indices.
    return Dense(as_array(module.weight).T, activation="identity")


def _conv(module: Any) -> Conv2d:
    if module.padding_mode != "zeros":
        raise Unread(f"padding_mode={module.padding_mode!r}")
    padding = module.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        # The larger half of an odd padding is added after the image.
        totals = [
            step * (size - 1)
            for step, size in zip(module.dilation, module.kernel_size, strict=True)
        ]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    return Conv2d(
        as_array(module.weight),
        as_array(module.bias),
        "identity",
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
    )


def _batch_norm(module: Any) -> BatchNorm:
    if module.running_mean is None:
        raise Unread("no running statistics")
    mean, variance = as_array(module.running_mean), as_array(module.running_var)
    return BatchNorm(mean, variance, as_array(module.weight), as_array(module.bias), module.eps)


def _layer_norm(module: Any) -> LayerNorm:
    _over_last_axis(module)
    return LayerNorm(as_array(module.weight), as_array(module.bias), module.eps)


def _rms_norm(module: Any) -> RMSNorm:
    _over_last_axis(module)
    weight = as_array(module.weight)
    if module.eps is not None:
        return RMSNorm(weight, module.eps)
    if weight is None:
        raise Unread("neither eps nor a weight, whose dtype determines it")
    return RMSNorm(weight, float(np.finfo(weight.dtype).eps))


def _over_last_axis(module: Any) -> None:
    if len(module.normalized_shape) != 1:
        raise Unread(f"normalized_shape={tuple(module.normalized_shape)} of several axes")


def _avg_pool(module: Any) -> AvgPool2d:
    if module.ceil_mode or module.divisor_override is not None:
        raise Unread("ceil_mode or divisor_override")
    size, stride = module.kernel_size, module.stride
    return AvgPool2d(size, stride, module.padding, count_padding=module.count_include_pad)


def _max_pool(module: Any) -> MaxPool2d:
    if module.ceil_mode or module.return_indices:
        raise Unread("ceil_mode or return_indices")
    return MaxPool2d(module.kernel_size, module.stride, module.padding, module.dilation)


def _global_pool(module: Any) -> AvgPool2d:
    if module.output_size not in (1, (1, 1), [1, 1]):
        raise Unread(f"output_size={module.output_size}, whose windows depend on the image")
    return AvgPool2d()


def _flatten(module: Any) -> Flatten:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise Unread("another start_dim than 1 or end_dim than -1")
    return Flatten()


def _gelu(module: Any) -> Activation:
    return Activation("gelu" if module.approximate == "none" else "gelu_tanh")


def _softplus(module: Any) -> Activation:
    if (module.beta, module.threshold) != (1, 20):
        raise Unread(f"beta={module.beta}, threshold={module.threshold}")
    return Activation("softplus")


def _prelu(module: Any) -> Activation:
    if module.weight.numel() != 1:
        raise Unread("a slope for each channel")
    return Activation(leaky_relu(module.weight.item()))


def attention(module: Any, mask: Array | None) -> Attention:
    if not module.batch_first or not module._qkv_same_embed_dim:
        raise Unread("batch_first=False, or several embedding dimensions")
    if module.bias_k is not None or module.add_zero_attn:
        raise Unread("add_bias_kv or add_zero_attn")
    query, key, value = np.split(as_array(module.in_proj_weight), 3)
    bias = as_array(module.in_proj_bias)
    biases = (None, None, None) if bias is None else np.split(bias, 3)
    return Attention(
        query,
        key,
        value,
        as_array(module.out_proj.weight),
        n_heads=module.num_heads,
        query_bias=biases[0],
        key_bias=biases[1],
        value_bias=biases[2],
        output_bias=as_array(module.out_proj.bias),
        mask=mask,
    )


# Converter for each class, None for those without an effect in evaluation mode.
MODULES: dict[str, Callable[[Any], Layer] | None] = {
    "AdaptiveAvgPool2d": _global_pool,
    "AlphaDropout": None,
    "AvgPool2d": _avg_pool,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "Conv2d": _conv,
    "Dropout": None,
    "Dropout1d": None,
    "Dropout2d": None,
    "ELU": lambda module: Activation(elu(module.alpha)),
    "Embedding": _embedding,
    "FeatureAlphaDropout": None,
    "Flatten": _flatten,
    "GELU": _gelu,
    "Hardtanh": lambda module: Activation(Clip(module.min_val, module.max_val)),
    "Identity": None,
    "LayerNorm": _layer_norm,
    "LeakyReLU": lambda module: Activation(leaky_relu(module.negative_slope)),
    "Linear": lambda module: Dense(as_array(module.weight), as_array(module.bias), "identity"),
    "MaxPool2d": _max_pool,
    "MultiheadAttention": None,
    "PReLU": _prelu,
    "RMSNorm": _rms_norm,
    "ReLU": lambda module: Activation("relu"),
    "ReLU6": lambda module: Activation(Clip(0.0, 6.0)),
    "SELU": lambda module: Activation("selu"),
    "SiLU": lambda module: Activation("silu"),
    "Sigmoid": lambda module: Activation("sigmoid"),
    "Softmax": lambda module: Softmax(),
    "Softplus": _softplus,
    "Tanh": lambda module: Activation("tanh"),
}


# Attributes of all classes, and methods on which the function in evaluation mode does not depend.
_ASIDE = {
    *("__module__", "__doc__", "__annotations__", "__constants__", "__init__", "__setstate__"),
    *("__dict__", "__weakref__", "__slots__", "__firstlineno__", "__static_attributes__"),
    *("_version", "extra_repr", "reset_parameters", "_reset_parameters", "reset_running_stats"),
    "_load_from_state_dict",
}


def find_kind(torch: Any, module: Any) -> str | None:
    """Return the class of `torch.nn` whose function a module computes.

    Parameters
    ----------
    torch : module
        PyTorch.
    module : torch.nn.Module
        The module.

    Returns
    -------
    str or None
        Name of a class in ``MODULES``; ``None`` for other modules, and for modules that override a
        method in a derived class or on the instance.
    """
    bases = type(module).__mro__
    for kind in bases:
        if kind.__name__ in MODULES and kind is getattr(torch.nn, kind.__name__, None):
            return None if overrides_methods(torch, module, kind) else kind.__name__
    return None


def overrides_methods(torch: Any, module: Any, kind: type) -> bool:
    """Check whether a module, or its class, overrides a method of a base class.

    Parameters
    ----------
    torch : module
        PyTorch.
    module : torch.nn.Module
        The module.
    kind : type
        A class of `torch.nn`.

    Returns
    -------
    bool
        Whether it may compute another function than `kind`.
    """
    bases = type(module).__mro__
    index = bases.index(kind)
    ours = bases[index : bases.index(torch.nn.Module)]
    methods = {"_call_impl"} | {name for base in ours for name in vars(base)} - _ASIDE
    derived = {name for base in bases[:index] for name in vars(base)}
    return not methods.isdisjoint(derived | instance_overrides(module))
