"""Writers: a ``Network`` becomes a model of another framework."""

from jacrot.writers._onnx import to_onnx
from jacrot.writers._torch import to_torch

__all__ = ["to_onnx", "to_torch"]
