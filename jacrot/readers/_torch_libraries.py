"""Conversion of modules of transformers and timm.

Neither package is imported: classes are recognised by their qualified names, so that derived
classes are not. The layers of a module are compared with its outputs on random inputs, because the
same class may compute another function in a different version or configuration.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.scipy.special import erf

from jacrot._utils.arrays import Array
from jacrot.activations import gelu
from jacrot.layers import Activation, Attention, Dense, Layer, LayerNorm, RMSNorm
from jacrot.readers._common import instance_overrides
from jacrot.readers._torch_functions import scaling
from jacrot.readers._torch_modules import Unread
from jacrot.readers._torch_state import as_array

# Random inputs: scale of every sample (small ones distinguish values of eps), number of positions,
# and number of features if the module accepts any.
_SIZES = np.array([0.01, 0.3, 1.0, 3.0])
_POSITIONS, _FEATURES = 7, 5
# Tolerances of outputs relative to the largest: on the CPU in single precision, which several norms
# use for any input; on other devices, where matrix products may be in TF32; and in rounding units
# of lower precisions.
_TOLERANCE, _TOLERANCE_ELSEWHERE, _ROUNDINGS = 3e-5, 5e-3, 16


@dataclass(frozen=True)
class Known:
    """Function of a module of a library in evaluation mode.

    Parameters
    ----------
    layers : tuple of Layer
        The layers, empty for the identity.
    features : {"any", "last", "channels", "sequence"}
        Axis of the features of its inputs: any, as for elementwise functions, the last axis, the
        channels of images, or the last axis of sequences.
    others : tuple of bool or None, default=None
        For a module that returns a tuple, whose first item the layers compute, whether each of the
        other items is ``None``; ``None`` for a module that returns a tensor.
    """

    layers: tuple[Layer, ...]
    features: str
    others: tuple[bool, ...] | None = None


def known_modules(torch: Any, root: Any) -> dict[Any, Known | Unread]:
    """Convert the modules of transformers and timm inside a module.

    Parameters
    ----------
    torch : module
        PyTorch.
    root : torch.nn.Module
        The module, in evaluation mode. Parts of it are run: pass a copy of the module of the user.

    Returns
    -------
    dict of Module to (Known or Unread)
        The function of each module, or the reason why it is not supported. Other modules are not
        included.
    """
    known: dict[Any, Known | Unread] = {}
    for module in root.modules():
        found = _find(module)
        if found is not None:
            try:
                known[module] = _convert(torch, module, *found)
            except _Composite:
                continue
            except Unread as error:
                known[module] = error
            except Exception as error:
                known[module] = Unread(f"{type(error).__name__}: {error}")
    return known


class _Composite(Exception):
    """Raised for a class with this name that consists of modules which are converted separately."""


def _find(module: Any) -> tuple[str, Callable[[Any, Any], list[Layer]]] | None:
    """Return the axis of the features of a module, and its converter, by its class."""
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    # A forward of the instance overrides that of the class.
    if not name.startswith(("transformers.", "timm.")) or "forward" in instance_overrides(module):
        return None
    return next((found for pattern, found in _KNOWN.items() if re.fullmatch(pattern, name)), None)


def _convert(
    torch: Any, module: Any, features: str, read: Callable[[Any, Any], list[Layer]]
) -> Known:
    layers = read(torch, module)
    width = next((layer.n_inputs for layer in layers if layer.n_inputs is not None), None)
    width = width or getattr(module, "normalized_shape", (_FEATURES,))[-1]
    x = np.random.default_rng(0).normal(size=(len(_SIZES), _POSITIONS, width))
    x *= _SIZES[:, None, None]
    if features == "channels":
        # Images with one column less than the sequences have positions.
        x = np.stack([np.swapaxes(x, 1, 2)] * (_POSITIONS - 1), axis=-1)
    expected, given = _own_outputs(torch, module, x)
    others = tuple(item is None for item in expected[1:]) if type(expected) is tuple else None
    first = expected if others is None else expected[0]
    if _differs(torch, first, _outputs(layers, as_array(given))):
        _raise_difference(torch, first, layers, as_array(given))
    return Known(tuple(layers), features, others)


def _own_outputs(torch: Any, module: Any, x: Array) -> tuple[Any, Any]:
    """Return the outputs of a module for a batch, and the batch as a tensor."""
    like = next(module.parameters(), torch.empty(0))
    given = torch.from_numpy(x).to(like.device, like.dtype)
    return module(given.clone()), given


def _outputs(layers: list[Layer], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def _differs(torch: Any, expected: Any, found: Array) -> bool:
    """Check whether outputs differ from those of a module by more than rounding."""
    rounding = torch.finfo(expected.dtype).eps
    tolerance = _TOLERANCE if expected.device.type == "cpu" else _TOLERANCE_ELSEWHERE
    if expected.element_size() < 4:
        tolerance = max(tolerance, _ROUNDINGS * rounding)
    array = as_array(expected)
    if array.shape != found.shape:
        return True
    # NaN is never within the tolerance.
    return not np.abs(array - found).max() <= tolerance * np.abs(array).max()


def _raise_difference(torch: Any, expected: Any, layers: list[Layer], x: Array) -> None:
    match layers:
        case [Attention(mask="causal") as layer]:
            if not _differs(torch, expected, layer.changed(mask=None)(x)):
                raise Unread(
                    "called alone it attends to all positions, while in its model a mask restricts "
                    "it to earlier ones; call model.set_attn_implementation('sdpa') first, with "
                    "which most modules are causal when called alone"
                )
    raise Unread(
        f"its own outputs on random inputs differ from those of {', '.join(map(repr, layers))}, "
        "which modules of this class usually compute"
    )


def _elementwise(activation: Any) -> tuple[str, Callable[[Any, Any], list[Layer]]]:
    return "any", lambda torch, module: [Activation(activation)]


def quick_gelu(x: Array) -> Array:
    """``x sigmoid(1.702 x)``."""
    return x * (0.5 + 0.5 * anp.tanh(0.851 * x))


def squared_relu(x: Array) -> Array:
    """``max(x, 0)²``."""
    return anp.where(x > 0, x, 0) ** 2


def mish(x: Array) -> Array:
    """``x tanh(log(1 + exp(x)))``."""
    return x * anp.tanh(anp.logaddexp(x, 0))


def laplace(x: Array) -> Array:
    """``0.5 (1 + erf((x - 0.707107) / (0.282095 sqrt(2))))``, the Laplace activation of MEGA."""
    return 0.5 * (1 + erf((x - 0.707107) / (0.282095 * np.sqrt(2))))


@dataclass(frozen=True)
class ClippedGelu:
    """The nearest number to ``gelu(x)`` between `low` and `high`."""

    low: float
    high: float

    def __call__(self, x: Array) -> Array:
        y = gelu(x)
        return anp.where(y < self.low, self.low, anp.where(y > self.high, self.high, y))


def _clipped_gelu(torch: Any, module: Any) -> list[Layer]:
    return [Activation(ClippedGelu(module.min, module.max))]


def _dense(torch: Any, module: Any) -> list[Layer]:
    return [Dense(*_weights(torch, module), "identity")]


def _weights(torch: Any, module: Any) -> tuple[Array, Array | None]:
    """Return the weight ``(n_out, n_in)`` and the bias of a dense layer."""
    if "forward" not in instance_overrides(module):
        if type(module).forward is torch.nn.Linear.forward:
            return as_array(module.weight), as_array(module.bias)
        if _find(module) == _KNOWN[_CONV1D]:
            return as_array(module.weight).T, as_array(module.bias)
    raise Unread(f"it has a {type(module).__name__} instead of a dense layer")


def _layer_norm(torch: Any, module: Any) -> list[Layer]:
    _one_axis(module)
    return [LayerNorm(as_array(module.weight), as_array(module.bias), module.eps)]


def _rms_norm(torch: Any, module: Any) -> list[Layer]:
    _one_axis(module)
    weight = as_array(getattr(module, "weight", None))
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    # Some norms store the weight minus one; the outputs of the module show whether this one does.
    if weight is not None and _scaled_from_one(torch, module, weight, eps):
        weight = 1 + weight
    return [RMSNorm(weight, eps)]


def _scaled_from_one(torch: Any, module: Any, weight: Array, eps: float) -> bool:
    x = np.random.default_rng(0).normal(size=(1, 2, weight.size))
    expected, given = _own_outputs(torch, module, x)
    return not _differs(torch, expected, RMSNorm(1 + weight, eps)(as_array(given)))


def _one_axis(module: Any) -> None:
    shape = getattr(module, "normalized_shape", (1,))
    if len(shape) != 1:
        raise Unread(f"normalized_shape={tuple(shape)} of several axes")


def _scale(torch: Any, module: Any) -> list[Layer]:
    return [scaling(as_array(module.gamma))]


def _separate(*names: str) -> Callable[[Any, Any], list[Layer]]:
    """Build a converter of attention with separate query, key, value and optional output."""

    def read(torch: Any, module: Any) -> list[Layer]:
        if not hasattr(module, names[0]):
            raise _Composite
        sides = [_weights(torch, getattr(module, name)) for name in names]
        return [_attention(module, *sides)]

    return read


def _gpt2_attention(torch: Any, module: Any) -> list[Layer]:
    if getattr(module, "is_cross_attention", False):
        raise Unread("it attends to another sequence than its own")
    return [_packed(torch, module, module.c_attn, module.c_proj)]


def _timm_attention(torch: Any, module: Any) -> list[Layer]:
    for name in ("q_norm", "k_norm", "norm"):
        norm = getattr(module, name, None)
        if norm is not None and type(norm) is not torch.nn.Identity:
            raise Unread(f"it has a {name}, after its projections")
    if getattr(module, "gate", None) is not None:
        raise Unread("it has a gate")
    return [_packed(torch, module, module.qkv, module.proj)]


def _packed(torch: Any, module: Any, inputs: Any, output: Any) -> Attention:
    weight, bias = _weights(torch, inputs)
    biases = [None] * 3 if bias is None else np.split(bias, 3)
    query, key, value = zip(np.split(weight, 3), biases, strict=True)
    return _attention(module, query, key, value, _weights(torch, output))


def _attention(module: Any, query: Any, key: Any, value: Any, output: Any = None) -> Attention:
    if getattr(module, "position_embedding_type", "absolute") not in ("absolute", None):
        raise Unread(f"position_embedding_type={module.position_embedding_type!r}")
    heads = ("num_attention_heads", "num_heads", "n_heads")
    n_heads = next(getattr(module, name) for name in heads if hasattr(module, name))
    # Without an output matrix, the outputs of the heads are concatenated.
    output = output or (np.eye(len(value[0]), dtype=value[0].dtype), None)
    scale = getattr(module, "scaling", None) or getattr(module, "scale", None)
    config = getattr(module, "config", None)
    causal = (
        getattr(module, "is_causal", False)
        or getattr(module, "is_decoder", False)
        # The model passes the mask; its attention has no attribute for it.
        or type(config).__name__ == "CLIPTextConfig"
    )
    return Attention(
        query[0],
        key[0],
        value[0],
        output[0],
        n_heads=n_heads,
        query_bias=query[1],
        key_bias=key[1],
        value_bias=value[1],
        output_bias=output[1],
        mask="causal" if causal else None,
        scale=scale,
    )


def _other_attention(torch: Any, module: Any) -> list[Layer]:
    if any(type(part).__name__.endswith("Attention") for part in list(module.modules())[1:]):
        raise _Composite
    given = inspect.signature(type(module).forward).parameters
    if {"position_bias", "position_embeddings", "rotary_pos_emb"} & given.keys():
        raise Unread(
            "its scores depend on positions by more than a mask, as with rotary embeddings, for "
            "which jacrot has no layer"
        )
    raise _Composite


_CONV1D = r"transformers\.(pytorch|modeling)_utils\.Conv1D"
_ACTIVATIONS = r"transformers\.activations\."
_MODELS = r"transformers\.models\.\w+\.modeling_\w+\."
_NORMS = r"timm\.layers\.norm\."
_BERTS = "(Bert|Camembert|Electra|Roberta|XLMRoberta)"

# For the qualified name of a class: the axis of the features, and the converter.
_KNOWN: dict[str, tuple[str, Callable[[Any, Any], list[Layer]]]] = {
    _CONV1D: ("last", _dense),
    _ACTIVATIONS + "(AccurateGELU|FastGELU|NewGELU)Activation": _elementwise("gelu_tanh"),
    _ACTIVATIONS + "(PytorchGELUTanh|GELUTanh)": _elementwise("gelu_tanh"),
    _ACTIVATIONS + "GELUActivation": _elementwise("gelu"),
    _ACTIVATIONS + "ClippedGELUActivation": ("any", _clipped_gelu),
    _ACTIVATIONS + "QuickGELUActivation": _elementwise(quick_gelu),
    _ACTIVATIONS + "MishActivation": _elementwise(mish),
    _ACTIVATIONS + "LaplaceActivation": _elementwise(laplace),
    _ACTIVATIONS + "ReLUSquaredActivation": _elementwise(squared_relu),
    _MODELS + r"(\w*RMSNorm|(MT5|T5|UMT5)LayerNorm)": ("last", _rms_norm),
    _MODELS + "GPT2(Sdpa)?Attention": ("sequence", _gpt2_attention),
    _MODELS + f"{_BERTS}(Sdpa)?SelfAttention": ("sequence", _separate("query", "key", "value")),
    _MODELS + "ViT(Sdpa)?SelfAttention": ("sequence", _separate("query", "key", "value")),
    _MODELS + "ViTAttention": (
        "sequence",
        _separate("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    _MODELS + "(CLIP|Siglip)(Sdpa)?Attention": (
        "sequence",
        _separate("q_proj", "k_proj", "v_proj", "out_proj"),
    ),
    _MODELS + "DistilBertSelfAttention": (
        "sequence",
        _separate("q_lin", "k_lin", "v_lin", "out_lin"),
    ),
    _NORMS + "LayerNorm(Fp32)?": ("last", _layer_norm),
    _NORMS + "LayerNorm(Exp)?2d(Fp32)?": ("channels", _layer_norm),
    _NORMS + "RmsNorm(Fp32)?": ("last", _rms_norm),
    _NORMS + "RmsNorm2d(Fp32)?": ("channels", _rms_norm),
    r"timm\.layers\.activations\.QuickGELU": _elementwise(quick_gelu),
    r"timm\.layers\.layer_scale\.LayerScale": ("last", _scale),
    r"timm\.layers\.layer_scale\.LayerScale2d": ("channels", _scale),
    r"timm\.(layers\.attention|models\.vision_transformer)\.Attention": (
        "sequence",
        _timm_attention,
    ),
    # After the more specific patterns above.
    _MODELS + r"\w*Attention": ("sequence", _other_attention),
}
