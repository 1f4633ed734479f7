"""Layers: a forward function, and how a stack of tangents passes through it."""

from jacrot.layers._protocol import Layer
from jacrot.layers.dense import Dense
from jacrot.layers.function import Function

__all__ = ["Dense", "Function", "Layer"]
