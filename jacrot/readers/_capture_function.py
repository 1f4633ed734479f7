"""The function from one place of a PyTorch model to another, for each input separately."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree  # Has no public name; nothing else uses it.

from jacrot.readers._capture_places import INPUT, Place

Indices = NDArray[np.intp]
# Maps m tangents or cotangents (m, n_inputs, positions, features) to their jvps or vjps.
Derive = Callable[[Any], Any]


class _Reached(BaseException):
    """Raised at `write`, since the rest of the model is not needed."""


class Gradient(NamedTuple):
    """Result of one run with autograd, in the shapes of the model.

    Parameters
    ----------
    read, written : tensor
        Activations at the two places.
    gradient : callable
        Maps a cotangent of `written` to the gradient at `read`, zero without a dependence.
    depends : bool
        Whether `write` depends on `read`.
    others : list of int
        Further tensors at `read` on which `write` depends, counted from 1.
    n_tensors : int
        Number of tensors at `read`.
    n_bytes : int
        Memory saved for the backward pass, without the weights.
    """

    read: Any
    written: Any
    gradient: Callable[[Any], Any]
    depends: bool
    others: list[int]
    n_tensors: int
    n_bytes: int


class Function:
    """The function that the model computes from `read` to `write`.

    A context manager, which attaches hooks to the two places.

    Parameters
    ----------
    model : torch.nn.Module
        The model, prepared by ``borrowed``.
    inputs : tensor, tuple or mapping
        Inputs that the user passed.
    read, write : Place
        The places.
    reset : callable
        Undoes changes of a run in the state of the model.
    """

    def __init__(
        self, model: Any, inputs: Any, read: Place, write: Place, reset: Callable[[], None]
    ) -> None:
        self.model = model
        self.read = read
        self.write = write
        self.reset = reset
        self.leaves, self.structure = pytree.tree_flatten(_arguments(inputs))
        if any(isinstance(leaf, np.ndarray) for leaf in self.leaves):
            raise TypeError(
                "inputs holds a NumPy array; pass torch.as_tensor(array), in the precision that "
                "the model expects."
            )
        self.tensors = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, torch.Tensor)]
        self.batched = [i for i in self.tensors if self.leaves[i].ndim > 0]
        lengths = {len(self.leaves[i]) for i in self.batched}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"inputs has tensors with {sorted(lengths) or 'no'} rows; pass tensors with the "
                "same number of rows, at least one, and repeat what inputs share."
            )
        self.n_inputs = lengths.pop()
        device = next((p.device for p in chain(model.parameters(), model.buffers())), None)
        for i in self.tensors:
            # A tensor created in inference mode cannot be differentiated; its clone can.
            leaf = self.leaves[i].clone() if self.leaves[i].is_inference() else self.leaves[i]
            leaf = leaf.detach()
            self.leaves[i] = leaf.to(device) if i in self.batched else leaf
        self.hooks: list[Any] = []
        self.visit: Callable[[Place, list[Any]], list[Any] | None] | None = None
        self.between = False

    def __enter__(self) -> Function:
        try:
            # `read` first: if both are the same place, `write` gets the perturbed activation.
            for place in (self.read, self.write):
                self.hooks.append(place.attach(self._visit))
            for name, module in self.model.named_modules():
                if "quantized" in type(module).__module__.split("."):
                    self.hooks.append(module.register_forward_pre_hook(self._forbid(name)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()

    def _visit(self, place: Place, tensors: list[Any]) -> list[Any] | None:
        return None if self.visit is None else self.visit(place, tensors)

    def _forbid(self, name: str) -> Callable[..., None]:
        def forbid(module: Any, args: Any) -> None:
            if self.between:
                raise ValueError(
                    f"the quantized module {name!r} ({type(module).__name__}) runs between "
                    f"{self.read.label} and {self.write.label}, and has no derivative; pass places "
                    "without it between them, or the model before quantization."
                )

        return forbid

    def _call(self, tensors: Any, visit: Callable[[Place, list[Any]], list[Any] | None]) -> None:
        leaves = list(self.leaves)
        for i in self.tensors:
            # The model may change a tensor in place.
            leaves[i] = leaves[i] if i in self.batched else leaves[i].clone()
        for i, tensor in zip(self.batched, tensors, strict=True):
            leaves[i] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        self.reset()
        self.visit, self.between = visit, False
        try:
            self.model(*args, **kwargs)
        except _Reached:
            pass
        finally:
            self.visit, self.between = None, False

    def select(self, inputs: Indices) -> tuple[Any, ...]:
        """Return copies of some inputs."""
        return tuple(self.leaves[i][inputs.tolist()] for i in self.batched)

    def run(self, inputs: Indices) -> tuple[Any, Any]:
        """Run the unmodified model on a batch; return the activations at `read` and `write`."""
        seen: list[tuple[Place, Any]] = []
        # A copy at once: an in-place operation may follow.
        self._call(
            self.select(inputs), lambda place, tensors: seen.append((place, tensors[0].clone()))
        )
        for place in (self.read, self.write):
            count = sum(other is place for other, _ in seen)
            if count == 0:
                raise ValueError(
                    f"{place.label} does not run when the model is called (a container, or a "
                    "module whose weights another one uses?); pass a module that its forward calls."
                )
            if count > 1:
                raise ValueError(
                    f"{place.label} runs {count} times when the model is called; pass a module "
                    f"that runs once, or the input of one ('name{INPUT}')."
                )
        if seen[0][0] is self.write:
            raise ValueError(
                f"{self.write.label} runs before {self.read.label} and cannot depend on it; pass "
                f"the earlier place as read (the input of a module is 'name{INPUT}')."
            )
        return seen[0][1], seen[1][1]

    def _run_replaced(
        self, tensors: Any, change: Callable[[list[Any]], list[Any]]
    ) -> tuple[Any, Any, int]:
        """Run up to `write` with other tensors at `read`; return both activations."""
        seen: list[tuple[Place, Any]] = []
        n_tensors = 1

        def visit(place: Place, tensors: list[Any]) -> list[Any]:
            nonlocal n_tensors
            if place is self.write:
                seen.append((place, tensors[0]))
                raise _Reached
            # A copy at once: an in-place operation may follow.
            seen.append((place, tensors[0].detach().clone()))
            n_tensors = len(tensors)
            self.between = True
            return change(tensors)

        self._call(tensors, visit)
        if [place for place, _ in seen] != [self.read, self.write]:
            raise ValueError(
                f"{self.read.label} and {self.write.label} do not run for every input; pass "
                "modules that run for every input."
            )
        return seen[1][1], seen[0][1], n_tensors

    def run_perturbed(self, tensors: Any, offset: Any) -> tuple[Any, Any]:
        """Run one input with an offset (positions, features) added at `read`; return both rows."""

        def change(activations: list[Any]) -> list[Any]:
            first = activations[0].detach() + self.read.activation(offset)
            return [first, *activations[1:]]

        # Copies, because the model may change them in place.
        alone = [tensor.unsqueeze(0).clone() for tensor in tensors]
        written, given, _ = self._run_replaced(alone, change)
        return self.write.rows(written), self.read.rows(given)

    def _copy_saved_tensors(self, n_bytes: list[int]) -> Any:
        """Copy the tensors that autograd saves, so that the model can change them in place later.

        Such a model cannot be trained, but its derivatives are well defined.
        """
        weights = {_address(parameter) for parameter in self.model.parameters()} - {None}

        def pack(tensor: Any) -> Any:
            if not self.between or _address(tensor) in weights:
                return tensor
            n_bytes.append(tensor.numel() * tensor.element_size())
            return tensor.detach().clone()

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    def zeros(self, n_inputs: int) -> Any:
        """Return zero offsets."""
        read = self.read
        shape = (n_inputs, read.n_positions, read.n_features)
        return torch.zeros(shape, dtype=read.dtype, device=read.device)

    def differentiate(self, inputs: Indices) -> Gradient:
        """Run a batch, and differentiate it with ordinary autograd, as in training."""
        saved: list[int] = []
        leaves: list[Any] = []

        def change(activations: list[Any]) -> list[Any]:
            if not torch.is_grad_enabled():
                raise ValueError(
                    f"{self.read.label} runs under torch.no_grad or torch.inference_mode inside "
                    "the model, where there are no derivatives; pass a place outside, or a model "
                    "without it."
                )
            # Further arguments of a module do not belong to the place; further results do.
            n_leaves = 1 if self.read.is_input else len(activations)
            changed = list(activations)
            for i, activation in enumerate(activations[:n_leaves]):
                if activation.is_floating_point():
                    leaves.append((i, activation.detach().clone().requires_grad_()))
                    # Not the leaf itself, which cannot be changed in place.
                    changed[i] = leaves[-1][1].clone()
            return changed

        with torch.enable_grad(), self._copy_saved_tensors(saved):
            written, given, n_tensors = self._run_replaced(self.select(inputs), change)
        _, leaf = leaves[0]
        paths = [False] * len(leaves)
        if written.requires_grad:
            tensors = [tensor for _, tensor in leaves]
            found = torch.autograd.grad(
                written, tensors, torch.ones_like(written), retain_graph=True, allow_unused=True
            )
            paths = [path is not None for path in found]

        def gradient(cotangent: Any) -> Any:
            if not paths[0]:
                return torch.zeros_like(leaf)
            return torch.autograd.grad(written, leaf, cotangent, retain_graph=True)[0]

        ends = leaf.numel() * leaf.element_size() + written.numel() * written.element_size()
        return Gradient(
            read=given,
            written=written.detach(),
            gradient=gradient,
            depends=paths[0],
            others=[i + 1 for (i, _), path in zip(leaves[1:], paths[1:], strict=True) if path],
            n_tensors=n_tensors,
            n_bytes=sum(saved) + 2 * ends,
        )

    def linearise(self, inputs: Indices, mode: str) -> tuple[Any, Any, Derive, Derive]:
        """Linearise the function at some inputs.

        Parameters
        ----------
        inputs : ndarray of int
            The inputs; one input for the last two modes.
        mode : {"forward", "reverse", "input by input", "one by one"}
            Mode of differentiation: ``vmap`` of ``jvp`` or of ``vjp``, or ordinary autograd with or
            without ``vmap`` of its backward pass.

        Returns
        -------
        result, given : tensor
            Rows at `write` and at `read`, (n_inputs, positions, features).
        derive : callable
            Computes jvps in forward mode, and otherwise vjps.
        vjp : callable
            Computes vjps.
        """
        func, autograd = torch.func, torch.autograd
        tensors, zeros = self.select(inputs), self.zeros(len(inputs))
        # Each input alone, so that inputs cannot influence one another. Random numbers have no
        # effect, since two runs agree.
        vmapped = func.vmap(self.run_perturbed, randomness="different")

        def function(offsets: Any) -> tuple[Any, Any]:
            return vmapped(tensors, offsets)

        def jvp(tangent: Any) -> Any:
            return func.jvp(function, (zeros,), (tangent,), has_aux=True)[1]

        if mode in ("forward", "reverse"):
            result, vjp, given = func.vjp(function, zeros, has_aux=True)

            vjps = func.vmap(lambda cotangent: vjp(cotangent)[0])
            return result, given, func.vmap(jvp) if mode == "forward" else vjps, vjps

        offset = zeros.requires_grad_()
        with torch.enable_grad(), self._copy_saved_tensors([]):
            result, given = self.run_perturbed([tensor[0] for tensor in tensors], offset[0])
            # So that there is a derivative, zero, where this input has no path to it.
            result = result + 0 * offset.sum().to(result)

        def gradients(cotangents: Any) -> Any:
            if mode == "input by input":
                return autograd.grad(
                    result, offset, cotangents[:, 0], retain_graph=True, is_grads_batched=True
                )[0]
            each = [autograd.grad(result, offset, c[0], retain_graph=True)[0] for c in cotangents]
            return torch.stack(each)

        return result.detach()[None], given[None], gradients, gradients


def _address(tensor: Any) -> int | None:
    """Return the address of the memory of a tensor, ``None`` for sparse tensors."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else None


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple):
        return inputs, {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise TypeError(
        f"inputs is a {type(inputs).__name__}; pass a tensor, a tuple of tensors (positional "
        "arguments), or a dict (keyword arguments)."
    )
