"""Places of a PyTorch model whose activations are captured, and the tensors they hold."""

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
# The tensors at a place, to what takes their place; ``None`` leaves them.
Visit = Callable[["Place", list[Any]], list[Any] | None]


def substitute(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Change the tensors in tuples, lists, mappings and dataclasses.

    Parameters
    ----------
    tree : object
        What a module reads or returns; it is not modified.
    change : callable
        Maps a tensor to another one, or to itself; called in the order of the tree.

    Returns
    -------
    object
        The same kind of object. What holds no changed tensor is the same object as before, so
        that a module may still append to a list that it is passed.
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


def tensors_of(tree: Any) -> list[Any]:
    """List the tensors in tuples, lists, mappings and dataclasses."""
    tensors = []

    def keep(tensor: Any) -> Any:
        tensors.append(tensor)
        return tensor

    substitute(tree, keep)
    return tensors


def named_modules(model: Any) -> dict[str, Any]:
    """Map every name of every module, with and without what ``torch.compile`` adds."""
    modules = dict(model.named_modules(remove_duplicate=False))
    plain = {name.replace("_orig_mod.", ""): module for name, module in modules.items()}
    return {**plain, **modules}


class Place:
    """The output or the input of a module: a matrix (positions, features) for each input.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    argument : {"read", "write"}
        The argument of ``capture`` that names the place.
    name : str
        The name.
    axis : int or None
        The axis of the features, ``None`` for the usual one of the module.
    """

    # Of the activation of one input; `grid` is its shape without features and inputs.
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
                f"{self.label} is not a module of the model; {hint or 'look at'} "
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
                "takes no hooks; pass a place outside it (the output of the module before it, the "
                "input of the module after it), or the Python module it was made from."
            )

    def attach(self, visit: Visit) -> Any:
        """Call `visit` with the tensors at this place whenever it runs."""

        def seen(tree: Any) -> Any:
            tensors = tensors_of(tree)
            if not tensors:
                raise TypeError(
                    f"{self.label} has no tensor but {type(tree).__name__}; pass a place whose "
                    "activation is a tensor, or a tuple, dictionary or dataclass with one."
                )
            changed = visit(self, tensors)
            if changed is None:
                return None
            replacements = iter(changed)
            return substitute(tree, lambda tensor: next(replacements))

        if self.is_input:
            return self.module.register_forward_pre_hook(
                lambda module, args, kwargs: seen((args, kwargs)), with_kwargs=True
            )
        return self.module.register_forward_hook(lambda module, args, output: seen(output))

    def measure(self, activation: Any) -> None:
        """Learn what the activation of one input looks like."""
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
        # The axis of inputs, of which there is one, is not always the first: (t, n, d).
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
                "for another; pass inputs whose activations have one shape."
            )
        return activation.movedim(self.axis, -1).reshape(self.n_positions, self.n_features)

    def activation(self, rows: Any) -> Any:
        """Undo :meth:`rows`, with any leading axes."""
        others = [*self.shape[: self.axis], *self.shape[self.axis + 1 :]]
        lead = rows.shape[:-2]
        return rows.reshape(*lead, *others, self.n_features).movedim(-1, len(lead) + self.axis)

    def split(self, batch: Any, n_inputs: int) -> list[Any]:
        """Divide the activation of a batch among its inputs, each in the shape that it has alone.

        Parameters
        ----------
        batch : tensor
            The activation. Inputs may lie along any axis, merged with what lies there or not; an
            activation that is the same for all of them, as a positional embedding, is everyone's.
        n_inputs : int
            How many.

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
