"""Layers merged where one can do the work of two."""

from __future__ import annotations

from collections.abc import Iterable

from jacrot.layers._protocol import Layer
from jacrot.layers.activation import Activation
from jacrot.layers.batch_norm import BatchNorm
from jacrot.layers.conv import Conv2d
from jacrot.layers.dense import Dense


def fused(layers: Iterable[Layer]) -> list[Layer]:
    """Fold batch norms and activations into the dense layers and convolutions before them.

    ``g ∘ (W x + b) + h`` is a layer of weight ``diag(g) W`` and bias ``g ∘ b + h``, exactly.

    Parameters
    ----------
    layers : iterable of Layer
        A chain.

    Returns
    -------
    list of Layer
        A chain of the same function, in which nothing is left to fold.

    Examples
    --------
    >>> from jacrot.layers import Activation, BatchNorm, Dense, fused
    >>> fused([Dense([[1.0]], activation="identity"), BatchNorm([0.0], [1.0]), Activation("relu")])
    [Dense(1 → 1, relu)]
    """
    chain: list[Layer] = []
    for layer in layers:
        last = chain[-1] if chain else None
        linear = last if isinstance(last, Dense | Conv2d) and _is_linear(last) else None
        if linear is not None and isinstance(layer, BatchNorm):
            scale = layer.scale.reshape(-1, *[1] * (linear.weight.ndim - 1))
            bias = layer.scale * linear.bias + layer.shift
            chain[-1] = linear.changed(weight=scale * linear.weight, bias=bias)
        elif linear is not None and isinstance(layer, Activation):
            chain[-1] = linear.changed(activation=layer.activation)
        else:
            chain.append(layer)
    return chain


def _is_linear(layer: Dense | Conv2d) -> bool:
    return layer.activation == "identity" and layer.output_rotation is None
