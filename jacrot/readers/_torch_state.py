"""State dicts of PyTorch, and conversion of its tensors to arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


def dense_arrays(state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the weights and biases of dense layers in a state dict.

    Parameters
    ----------
    state : mapping of str to Tensor
        The state dict.

    Returns
    -------
    dict of str to ndarray
        Every weight ``(n_out, n_in)``, followed by its bias if there is one.

    Raises
    ------
    ValueError
        If an entry is neither a weight nor a bias of a dense layer.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in state.items():
        if isinstance(tensor, Mapping):
            raise ValueError(
                f"model[{name!r}] is a mapping; if it is the state dict, use "
                f"from_torch(model[{name!r}])."
            )
        if not hasattr(tensor, "ndim"):
            raise ValueError(
                f"model[{name!r}] is not a tensor but {type(tensor).__name__}; leave it out."
            )
        if name.rpartition(".")[2] == "weight" and tensor.ndim == 2:
            arrays[name] = as_array(tensor)
            bias = name.removesuffix("weight") + "bias"
            if bias in state:
                arrays[bias] = as_array(state[bias])
    if others := [name for name in state if name not in arrays]:
        shapes = ", ".join(f"{name!r} {tuple(state[name].shape)}" for name in others[:4])
        raise ValueError(
            f"model contains {shapes}{', ...' if len(others) > 4 else ''}, not the weight or the "
            "bias of a dense layer. A state dict does not contain the geometry of convolutions or "
            "the order of normalisations: build the module, call load_state_dict and pass the "
            "module, or pass only the entries of dense layers."
        )
    return arrays


def as_array(tensor: Any) -> Any:
    """Convert a tensor to an array on the CPU, in float32 if NumPy does not have its precision.

    Parameters
    ----------
    tensor : Tensor, ndarray or None
        The tensor.

    Returns
    -------
    ndarray or None
        The array, ``None`` for ``None``. It may share memory with the tensor.
    """
    if not hasattr(tensor, "detach"):
        return tensor
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()
