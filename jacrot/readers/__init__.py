"""Readers: exported weights in a file become a ``Network``."""

from jacrot.readers.captured import Captured, capture
from jacrot.readers.files import list_arrays, load, metadata
from jacrot.readers.flax import from_flax
from jacrot.readers.keras import from_keras
from jacrot.readers.onnx import from_onnx
from jacrot.readers.sklearn import from_sklearn
from jacrot.readers.torch import from_torch

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
