"""Layers: a forward function, and how a stack of tangents passes through it."""

from jacrot.layers._base import BaseLayer, identity_tangents
from jacrot.layers._protocol import Layer
from jacrot.layers.activation import Activation, Softmax
from jacrot.layers.attention import Attention
from jacrot.layers.basis import Basis
from jacrot.layers.batch_norm import BatchNorm
from jacrot.layers.conv import Conv2d
from jacrot.layers.dense import Dense
from jacrot.layers.function import Function
from jacrot.layers.fused import fused
from jacrot.layers.gated import GatedDense
from jacrot.layers.norm import LayerNorm, RMSNorm
from jacrot.layers.pool import AvgPool2d, Flatten, MaxPool2d
from jacrot.layers.residual import Residual
from jacrot.layers.sequential import Sequential

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
