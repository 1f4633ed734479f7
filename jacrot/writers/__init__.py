"""Writers: a ``Network`` becomes a model of another framework."""

from jacrot.writers._onnx import to_onnx
from jacrot.writers._onnx_graph import OnnxGraph, layer_to_onnx
from jacrot.writers._torch import layer_to_torch, to_torch

__all__ = ["OnnxGraph", "layer_to_onnx", "layer_to_torch", "to_onnx", "to_torch"]
