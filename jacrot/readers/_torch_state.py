"""State dicts of PyTorch, and its tensors as arrays."""

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
        If something in it is neither.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in state.items():
        if isinstance(tensor, Mapping):
            raise ValueError(
                f"model[{name!r}] is a mapping itself; if it is the state dict, use "
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
            f"model holds {shapes}{', ...' if len(others) > 4 else ''}: not the weight or the bias "
            "of a dense layer. The geometry of convolutions, and the order of normalisations, are "
            "not in a state dict: build the module, call its load_state_dict and read the module, "
            "or take out the dense layers that you mean."
        )
    return arrays


def as_array(tensor: Any) -> Any:
    """Read a tensor as an array on the CPU, in float32 where NumPy has no such precision.

    Parameters
    ----------
    tensor : Tensor, ndarray or None
        The tensor.

    Returns
    -------
    ndarray or None
        The array, ``None`` for ``None``. It may share its memory with the tensor.
    """
    if not hasattr(tensor, "detach"):
        return tensor
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()
