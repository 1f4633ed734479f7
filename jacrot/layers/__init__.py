"""Layers: a forward function, and how a stack of tangents passes through it."""

from jacrot.layers._activation import Activation, Softmax
from jacrot.layers._attention import Attention
from jacrot.layers._base import BaseLayer, identity_tangents
from jacrot.layers._basis import Basis
from jacrot.layers._batch_norm import BatchNorm
from jacrot.layers._conv import Conv2d
from jacrot.layers._dense import Dense
from jacrot.layers._function import Function
from jacrot.layers._fused import fused
from jacrot.layers._gated import GatedDense
from jacrot.layers._norm import LayerNorm, RMSNorm
from jacrot.layers._pool import AvgPool2d, Flatten, MaxPool2d
from jacrot.layers._protocol import Layer
from jacrot.layers._residual import Residual
from jacrot.layers._sequential import Sequential

__all__ = [
    "Activation",
    "Attention",
    "AvgPool2d",
    "BaseLayer",
    "Basis",
    "BatchNorm",
    "Conv2d",
    "Dense",
    "Flatten",
    "Function",
    "GatedDense",
    "Layer",
    "LayerNorm",
    "MaxPool2d",
    "RMSNorm",
    "Residual",
    "Sequential",
    "Softmax",
    "fused",
    "identity_tangents",
]
