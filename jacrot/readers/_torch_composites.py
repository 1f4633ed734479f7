"""Forwards of PyTorch modules whose own forward depends on values and cannot be traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jacrot.readers._torch_modules import Unread, overrides_methods


def plain_forward(torch: Any, module: Any) -> Callable[..., Any] | None:
    """Return the forward of a module without the checks that `torch.fx` cannot trace.

    PyTorch's encoders check their inputs in order to choose a faster implementation.

    Parameters
    ----------
    torch : module
        PyTorch.
    module : torch.nn.Module
        The module.

    Returns
    -------
    callable or None
        A forward that calls the child modules; ``None`` for all other modules, and for those that
        override a method of PyTorch.
    """
    for kind, forward in (
        (torch.nn.TransformerEncoderLayer, _encoder_layer),
        (torch.nn.TransformerEncoder, _encoder),
    ):
        if isinstance(module, kind):
            return None if overrides_methods(torch, module, kind) else forward(torch, module)
    return None


def _encoder_layer(torch: Any, layer: Any) -> Callable[..., Any]:
    def forward(
        src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Any:
        _check_activation(torch, layer)

        def attend(x: Any) -> Any:
            attended, _ = layer.self_attn(
                x,
                x,
                x,
                attn_mask=src_mask,
                key_padding_mask=src_key_padding_mask,
                need_weights=False,
                is_causal=is_causal,
            )
            return layer.dropout1(attended)

        def feed(x: Any) -> Any:
            hidden = layer.dropout(layer.activation(layer.linear1(x)))
            return layer.dropout2(layer.linear2(hidden))

        if layer.norm_first:
            src = src + attend(layer.norm1(src))
            return src + feed(layer.norm2(src))
        src = layer.norm1(src + attend(src))
        return layer.norm2(src + feed(src))

    return forward


def _check_activation(torch: Any, layer: Any) -> None:
    """Check that PyTorch's fast path without gradients uses the same activation."""
    names = {1: ("relu", torch.nn.ReLU), 2: ("gelu", torch.nn.GELU)}
    if layer.activation_relu_or_gelu not in names:
        return
    (name, kind), function = names[layer.activation_relu_or_gelu], layer.activation
    exact = type(function) is kind and getattr(function, "approximate", "none") == "none"
    if not exact and function is not getattr(torch.nn.functional, name):
        raise Unread(
            f"its activation is {function}, but without gradients it computes {name}; set its "
            "activation_relu_or_gelu to 0"
        )


def _encoder(torch: Any, encoder: Any) -> Callable[..., Any]:
    def forward(
        src: Any,
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
    ) -> Any:
        for layer in encoder.layers:
            src = layer(
                src,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
            )
        return src if encoder.norm is None else encoder.norm(src)

    return forward
