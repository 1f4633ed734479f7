"""Hook points of a PyTorch model, and the tensors at them."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch

INPUT = ":input"
# Maps the tensors at a place to their replacements; ``None`` to keep them.
Visit = Callable[["Place", list[Any]], list[Any] | None]


def substitute(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Replace the tensors in nested tuples, lists, mappings and dataclasses.

    Parameters
    ----------
    tree : object
        Inputs or outputs of a module; not modified.
    change : callable
        Maps a tensor to its replacement, or to itself; called in the order of the tree.

    Returns
    -------
    object
        An object of the same type. Parts without replaced tensors are the same objects as before,
        so that a module can still append to a list that it receives.
    """
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, (tuple, list)):
        items = [substitute(item, change) for item in tree]
        if all(new is old for new, old in zip(items, tree, strict=True)):
            return tree
        return tree._make(items) if hasattr(tree, "_make") else type(tree)(items)
    if isinstance(tree, Mapping):
        table = {key: substitute(value, change) for key, value in tree.items()}
        changed = {key: value for key, value in table.items() if value is not tree[key]}
        if not changed:
            return tree
        other: Any = copy.copy(tree)
        for key, value in changed.items():
            other[key] = value
        return other
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        other = tree
        for field in dataclasses.fields(tree):
            value = getattr(tree, field.name, None)
            new = substitute(value, change)
            if new is not value:
                other = copy.copy(tree) if other is tree else other
                # Frozen dataclasses refuse setattr.
                object.__setattr__(other, field.name, new)
        return other
    return tree


def list_tensors(tree: Any) -> list[Any]:
    """List the tensors in tuples, lists, mappings and dataclasses."""
    tensors = []

    def keep(tensor: Any) -> Any:
        tensors.append(tensor)
        return tensor

    substitute(tree, keep)
    return tensors


def named_modules(model: Any) -> dict[str, Any]:
    """Return all modules by name, with and without the prefix of ``torch.compile``."""
    modules = dict(model.named_modules(remove_duplicate=False))
    plain = {name.replace("_orig_mod.", ""): module for name, module in modules.items()}
    return {**plain, **modules}


class Place:
    """A hook point: the output or the input of a module, (positions, features) for each input.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    argument : {"read", "write"}
        Argument of ``capture`` that names the place.
    name : str
        Name of the place.
    axis : int or None
        Axis of the features, ``None`` for the usual axis of the module.
    """

    # Properties of the activation of one input; `grid` is its shape without features and inputs.
    shape: tuple[int, ...]
    axis: int
    grid: tuple[int, ...]
    n_positions: int
    n_features: int
    dtype: Any
    device: Any
    numpy_dtype: type[np.floating]

    def __init__(self, model: Any, argument: str, name: str, axis: int | None) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"{argument} is a {type(name).__name__}; pass the name of a module, as in "
                "model.named_modules()."
            )
        self.argument = argument
        self.label = f"{argument}={name!r}"
        modules = named_modules(model)
        self.is_input = name not in modules and name.endswith(INPUT)
        name = name.removesuffix(INPUT) if self.is_input else name
        if name not in modules:
            close = difflib.get_close_matches(name, modules, n=5, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise ValueError(
                f"{self.label} is not a module of the model; {hint or 'see'} "
                f"{'model.named_modules() lists them all' if hint else 'model.named_modules()'}."
            )
        self.module = modules[name]
        self.given_axis = axis
        scripted = [
            parent
            for parent, module in modules.items()
            if isinstance(module, torch.jit.ScriptModule) and f"{name}.".startswith(f"{parent}.")
        ]
        if scripted:
            raise ValueError(
                f"{self.label} is in the TorchScript module {min(scripted, key=len)!r}, which "
                "does not support hooks; pass a place outside it (the output of the module before "
                "it, the input of the module after it), or the Python module that was compiled."
            )

    def attach(self, visit: Visit) -> Any:
        """Register a hook that calls `visit` with the tensors at this place."""

        def hook(tree: Any) -> Any:
            tensors = list_tensors(tree)
            if not tensors:
                raise TypeError(
                    f"{self.label} is a {type(tree).__name__} without a tensor; pass a place whose "
                    "activation is a tensor, or a tuple, dictionary or dataclass with one."
                )
            changed = visit(self, tensors)
            if changed is None:
                return None
            replacements = iter(changed)
            return substitute(tree, lambda tensor: next(replacements))

        if self.is_input:
            return self.module.register_forward_pre_hook(
                lambda module, args, kwargs: hook((args, kwargs)), with_kwargs=True
            )
        return self.module.register_forward_hook(lambda module, args, output: hook(output))

    def measure(self, activation: Any) -> None:
        """Record shape, dtype and device of the activation of one input."""
        self.shape = tuple(activation.shape)
        if not activation.is_floating_point():
            raise TypeError(
                f"{self.label} has dtype {activation.dtype}, which cannot be differentiated; pass "
                "a place of real floating-point activations (after an embedding, its output; "
                "before quantization, its input)."
            )
        if not self.shape or 0 in self.shape:
            raise ValueError(
                f"{self.label} has shape {self.shape} for one input; pass a place of vectors."
            )
        axis = self.given_axis
        if axis is None:
            axis = self._usual_axis(len(self.shape))
        if not isinstance(axis, Integral) or not -len(self.shape) <= axis < len(self.shape):
            raise ValueError(
                f"{self.argument}_axis={axis!r} is not an axis of {self.label}, whose activation "
                f"has shape {self.shape} for one input; pass an integer below {len(self.shape)}."
            )
        self.axis = int(axis) % len(self.shape)
        self.dtype, self.device = activation.dtype, activation.device
        self.numpy_dtype = np.float64 if self.dtype == torch.float64 else np.float32
        self.n_features = self.shape[self.axis]
        others = [*self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        self.n_positions = int(np.prod(others, dtype=int))
        # Remove the axis of inputs, which is not always the first: (t, n, d).
        if 1 in others:
            others.remove(1)
        self.grid = tuple(others)

    def _usual_axis(self, ndim: int) -> int:
        nn = torch.nn
        if isinstance(self.module, (nn.Linear, nn.LayerNorm, nn.Embedding)):
            return -1
        kinds = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
        pooling = nn.modules.pooling.__name__
        second = isinstance(self.module, kinds) or type(self.module).__module__ == pooling
        return 1 if ndim > 3 or (ndim > 1 and second) else -1

    def rows(self, activation: Any) -> Any:
        """Reshape the activation of one input to (positions, features)."""
        if tuple(activation.shape) != self.shape:
            raise ValueError(
                f"{self.label} has shape {tuple(activation.shape)} for one input and {self.shape} "
                "for another; pass inputs whose activations have the same shape."
            )
        return activation.movedim(self.axis, -1).reshape(self.n_positions, self.n_features)

    def activation(self, rows: Any) -> Any:
        """Reshape (..., positions, features) to activations; the inverse of :meth:`rows`."""
        others = [*self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        lead = rows.shape[:-2]
        return rows.reshape(*lead, *others, self.n_features).movedim(-1, len(lead) + self.axis)

    def split(self, batch: Any, n_inputs: int) -> list[Any]:
        """Split the activation of a batch by input, each with the shape of a single input.

        Parameters
        ----------
        batch : tensor
            The activation. Inputs may be stacked along any axis, or merged with it. An activation
            that all inputs share, such as a positional embedding, is returned for each of them.
        n_inputs : int
            Number of inputs.

        Returns
        -------
        list of tensor
            Views of `batch`.
        """
        shape = tuple(batch.shape)
        if shape == (n_inputs, *self.shape):
            return list(batch)
        if shape == self.shape:
            return [batch] * n_inputs
        for axis, size in enumerate(self.shape):
            if shape == (*self.shape[:axis], n_inputs * size, *self.shape[axis + 1 :]):
                return list(batch.tensor_split(n_inputs, dim=axis))
        raise ValueError(
            f"{self.label} has shape {shape} for {n_inputs} inputs and {self.shape} for one alone, "
            "so that no axis counts the inputs: the model is random in its shapes, or its inputs "
            "influence each other. Pass a model whose inputs are independent along their first "
            "axis (batch_first=True?), or one input at a time."
        )
