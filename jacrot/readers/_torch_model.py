"""A module of PyTorch in its evaluation mode, read without a change to the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

from jacrot.readers._common import instance_overrides

WAY_OUT = "or use jacrot.readers.capture, which takes any module"


def named(path: str, module: Any) -> str:
    """Return the name of a part of a model for errors, from its path in the model."""
    kind = type(module).__name__
    return f"{path or 'model'}, {'an' if kind[0] in 'AEIOU' else 'a'} {kind},"


def check_forwards(torch: Any, model: Any) -> None:
    """Check that every part of a module computes what the forward of its class does.

    Parameters
    ----------
    torch : module
        PyTorch.
    model : torch.nn.Module
        The module.

    Raises
    ------
    ValueError
        If a part has hooks or methods of its own, is compiled or scripted, or has no weights yet.
    """
    hooks = ("forward_hook", "forward_pre_hook", "backward_hook", "backward_pre_hook")
    for kind in hooks:
        if getattr(torch.nn.modules.module, f"_global_{kind}s"):
            raise ValueError(
                f"a {kind} is registered for all modules (by torch.nn.modules.module."
                f"register_module_{kind} or the like), and from_torch does not see what it does; "
                f"call remove() on the handle that this returned, {WAY_OUT}."
            )
    for path, module in model.named_modules():
        name = named(path, module)
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name} is a ScriptModule, which from_torch cannot trace; pass the module that it "
                "was scripted or traced from."
            )
        if type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
            raise ValueError(
                f"{name} is what torch.compile returned; pass the module that was compiled, its "
                "attribute _orig_mod."
            )
        for tensor_name, tensor in chain(
            module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        ):
            if torch.nn.parameter.is_lazy(tensor):
                raise ValueError(
                    f"{name} has no {tensor_name} before it is first called; call model on a batch."
                )
            if tensor.is_meta:
                raise ValueError(
                    f"{name} has its {tensor_name} on the device 'meta', which holds no values; "
                    "load the weights."
                )
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"{name} has forward hooks, and from_torch does not see what they do; remove them "
                "(torch.nn.utils.remove_weight_norm, remove_spectral_norm, "
                f"torch.nn.utils.prune.remove and the like), {WAY_OUT}."
            )
        for method in {"forward", "_call_impl"} & instance_overrides(module):
            raise ValueError(
                f"{name} has a {method} of its own in place of its class's (as accelerate and "
                "diffusers put into instances), and from_torch does not see what it does; remove "
                f"it (del module.{method}, accelerate.hooks.remove_hook_from_module), {WAY_OUT}."
            )


@contextmanager
def evaluation_copies(torch: Any, model: Any) -> Iterator[Callable[[], Any]]:
    """Provide copies of a module in evaluation mode.

    What is run of the copies leaves the module and the global state of PyTorch as they were.

    Parameters
    ----------
    torch : module
        PyTorch.
    model : torch.nn.Module
        The module.

    Yields
    ------
    callable
        Makes a copy. It raises a ValueError if the module cannot be copied, or if its ``eval``
        leaves a part in training mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    # Of torch.nn.utils.parametrize.cached(), by the address of a module: that of a copy is free
    # for another module once the copy is gone.
    parametrize = torch.nn.utils.parametrize
    cached = set(parametrize._cache)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(
            torch.random.fork_rng([device for device in devices if device.type == "cuda"])
        )
        for kind in {"cpu", *(device.type for device in devices)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            # A function that the module keeps may be a closure over the module itself, which
            # copies share.
            for module, _ in modes:
                module.training = False
            yield lambda: _evaluation_copy(torch, model, [training for _, training in modes])
        finally:
            for module, training in modes:
                module.training = training
            for key in set(parametrize._cache) - cached:
                del parametrize._cache[key]


def _evaluation_copy(torch: Any, model: Any, modes: list[bool]) -> Any:
    # PyTorch does not copy what has a history, such as an activation that a forward has kept.
    memo = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        copy = deepcopy(model, memo)
    except Exception as error:
        raise ValueError(
            f"model cannot be copied ({type(error).__name__}: {error}), and from_torch reads a "
            "copy so that nothing changes in yours; remove the attribute that copy.deepcopy does "
            f"not copy, {WAY_OUT}."
        ) from error
    theirs = {id(part) for _, part in _parts(model)}
    if shared := [path or "model" for path, part in _parts(copy) if id(part) in theirs]:
        raise ValueError(
            f"copy.deepcopy(model) shares {shared[0]!r} with model, which reading the copy could "
            f"change; take out the __deepcopy__ that does not copy it, {WAY_OUT}."
        )
    for module, training in zip(copy.modules(), modes, strict=True):
        module.training = training
        # Of gradients: not the function, but PyTorch looks for tensors in what is traced.
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    copy.eval()
    for path, module in copy.named_modules():
        if module.training:
            raise ValueError(
                f"{named(path, module)} stays in training mode when model.eval() is called, and "
                "from_torch reads the function in evaluation mode; set its training to False, "
                f"{WAY_OUT}."
            )
    return copy


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    """List the modules, parameters and buffers of a model by name."""
    return chain(model.named_modules(), model.named_parameters(), model.named_buffers())
