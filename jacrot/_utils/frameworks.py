"""Models and tensors of other packages, recognised by their classes without importing them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

_LIVE = (
    "pass what jacrot.readers.capture(model, inputs, read=..., write=...) returns, unpacked, as in "
    "fit(*captured), or jacrot.readers.{reader}(model) for a model of layers that jacrot knows"
)
_READ = "pass jacrot.readers.{reader}(model)"
# Package and base class of a model, its description, and how to pass it.
_MODELS = {
    ("torch", "Module"): ("PyTorch module", _LIVE.format(reader="from_torch")),
    ("torch", "ExportedProgram"): (
        "PyTorch program",
        _LIVE.format(reader="from_torch") + ", of its .module()",
    ),
    ("keras", "Layer"): ("Keras model", _READ.format(reader="from_keras")),
    ("tf_keras", "Layer"): ("model of Keras 2", "read it with Keras 3 and from_keras"),
    ("flax", "Module"): ("Flax module", "pass jacrot.readers.from_flax(module, variables)"),
    ("onnx", "ModelProto"): ("ONNX model", _READ.format(reader="from_onnx")),
    ("onnxruntime", "InferenceSession"): (
        "session of ONNX Runtime",
        "pass jacrot.readers.from_onnx(path) of the file that it runs",
    ),
    ("sklearn", "BaseEstimator"): ("scikit-learn estimator", _READ.format(reader="from_sklearn")),
}


def describe_framework_model(model: Any) -> str | None:
    """Describe a model of another package, or a path, and how to pass it.

    Parameters
    ----------
    model : object
        The value that the user passed as a network.

    Returns
    -------
    str or None
        End of a sentence that begins with the name of the argument; ``None`` for other objects.
    """
    name = type(model).__name__
    if isinstance(model, (str, bytes, os.PathLike)):
        return f"is a {name}; pass jacrot.readers.load(path) of the file"
    for base in type(model).__mro__:
        package = base.__module__.partition(".")[0]
        if package == "jacrot":
            return None
        known = _MODELS.get((package, base.__name__))
        if known is not None:
            kind, advice = known
            return f"is a {kind} ({name}); {advice}"
    return None


def detach_tensor(array: Any, name: str) -> Any:
    """Convert a PyTorch tensor to a NumPy array; other objects are returned unchanged.

    Parameters
    ----------
    array : object
        The value that the user passed.
    name : str
        Its name in error messages.

    Returns
    -------
    object
        An ndarray that may share the memory of the tensor; float32 for precisions that NumPy does
        not have.

    Raises
    ------
    TypeError
        If the tensor is on another device than the CPU, or is sparse or quantized.
    """
    is_tensor = any(
        base.__module__.partition(".")[0] == "torch" and base.__name__ == "Tensor"
        for base in type(array).__mro__
    )
    if not is_tensor:
        return array
    if array.device.type != "cpu":
        raise TypeError(f"{name} is a tensor on {array.device}; pass {name}.cpu().")
    if str(array.layout) != "torch.strided" or array.is_quantized:
        raise TypeError(
            f"{name} is a sparse or quantized tensor; pass a dense one of real numbers "
            "(to_dense(), dequantize())."
        )
    detached = array.detach().resolve_conj().resolve_neg()
    try:
        return detached.numpy()
    except TypeError:
        # bfloat16 and narrower types, which NumPy does not have, convert to float32 exactly.
        return detached.float().numpy()
    except RuntimeError as error:
        raise TypeError(f"{name} is a tensor without data of its own ({error}).") from error


def check_not_masked(array: Any, name: str) -> None:
    """Raise an error for masked arrays with masked entries.

    Parameters
    ----------
    array : object
        The value that the user passed.
    name : str
        Its name in error messages.

    Raises
    ------
    ValueError
        If entries are masked, since the numbers under a mask are not data.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name} is a masked array with {np.count_nonzero(array.mask)} masked entries; pass "
            "array.filled(value), or leave out the samples with masked entries."
        )
