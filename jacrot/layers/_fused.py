"""Layers merged where one can do the work of two."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jacrot.layers._activation import Activation
from jacrot.layers._attention import Attention
from jacrot.layers._batch_norm import BatchNorm
from jacrot.layers._conv import Conv2d
from jacrot.layers._dense import Dense
from jacrot.layers._protocol import Layer


def fused(layers: Iterable[Layer]) -> list[Layer]:
    """Fold layers into the linear layers before them, where one can do the work of both.

    Batch norms are folded into dense layers, convolutions and the output matrices of attentions:
    ``g ∘ (W x + b) + h`` is a layer of weight ``diag(g) W`` and bias ``g ∘ b + h``, exactly.
    Activations are folded into dense layers and convolutions. A dense layer becomes the output
    matrix of an attention that has none, that is, whose output matrix is the identity.

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
        linear = _linear(last)
        if linear is not None and type(layer) is BatchNorm:
            scale = layer.scale.reshape(-1, *[1] * (linear.weight.ndim - 1))
            bias = layer.scale * linear.bias + layer.shift
            chain[-1] = linear.changed(weight=scale * linear.weight, bias=bias)
        elif linear is not None and type(layer) is Activation:
            chain[-1] = linear.changed(activation=layer.activation)
        elif type(last) is Attention and type(layer) is BatchNorm:
            output = layer.scale[:, None] * last.output
            bias = layer.scale * last.output_bias + layer.shift
            chain[-1] = last.changed(output=output, output_bias=bias)
        elif (
            type(last) is Attention
            and type(layer) is Dense
            and _linear(layer)
            and np.array_equal(last.output, np.eye(last.n_outputs))
        ):
            bias = layer.weight @ last.output_bias + layer.bias
            chain[-1] = last.changed(output=layer.weight, output_bias=bias)
        else:
            chain.append(layer)
    return chain


def _linear(layer: Layer | None) -> Dense | Conv2d | None:
    """Return the layer if it is linear, and not of a derived class, which may not be."""
    if (type(layer) is Dense or type(layer) is Conv2d) and (
        layer.activation == "identity" and layer.output_rotation is None
    ):
        return layer
    return None
