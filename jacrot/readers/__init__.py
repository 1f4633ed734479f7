"""Readers: files and models of other frameworks become a ``Network`` or a ``Captured``."""

from jacrot.readers._captured import Captured, capture
from jacrot.readers._files import list_arrays, load, metadata
from jacrot.readers._flax import from_flax
from jacrot.readers._keras import from_keras
from jacrot.readers._onnx import from_onnx
from jacrot.readers._sklearn import from_sklearn
from jacrot.readers._torch import from_torch

__all__ = [
    "Captured",
    "capture",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "list_arrays",
    "load",
    "metadata",
]
