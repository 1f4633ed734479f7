"""Copies of a PyTorch module in evaluation mode, which leave the module of the user unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import chain
from typing import Any

from jacrot.readers._common import instance_overrides

USE_CAPTURE = "or use jacrot.readers.capture, which works with any module"


def describe_part(path: str, module: Any) -> str:
    """Return the name of a part of a model for error messages, from its path in the model."""
    kind = type(module).__name__
    return f"{path or 'model'}, {'an' if kind[0] in 'AEIOU' else 'a'} {kind},"


def check_forwards(torch: Any, model: Any) -> None:
    """Check that every part of a module computes the forward of its class.

    Parameters
    ----------
    torch : module
        PyTorch.
    model : torch.nn.Module
        The module.

    Raises
    ------
    ValueError
        If a part has hooks or overridden methods, is compiled or scripted, or has no weights yet.
    """
    hooks = ("forward_hook", "forward_pre_hook", "backward_hook", "backward_pre_hook")
    for kind in hooks:
        if getattr(torch.nn.modules.module, f"_global_{kind}s"):
            raise ValueError(
                f"a {kind} is registered for all modules (by torch.nn.modules.module."
                f"register_module_{kind} or the like), and from_torch does not see what it does; "
                f"call remove() on the handle that this returned, {USE_CAPTURE}."
            )
    for path, module in model.named_modules():
        name = describe_part(path, module)
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name} is a ScriptModule, which from_torch cannot trace; pass the module that "
                "was scripted or traced."
            )
        if type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
            raise ValueError(
                f"{name} was returned by torch.compile; pass the module that was compiled, its "
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
                f"torch.nn.utils.prune.remove and the like), {USE_CAPTURE}."
            )
        for method in {"forward", "_call_impl"} & instance_overrides(module):
            raise ValueError(
                f"{name} has a {method} on the instance that overrides that of its class (as "
                "accelerate and diffusers set), and from_torch does not see what it does; remove "
                f"it (del module.{method}, accelerate.hooks.remove_hook_from_module), "
                f"{USE_CAPTURE}."
            )


@contextmanager
def evaluation_copies(torch: Any, model: Any) -> Iterator[Callable[[], Any]]:
    """Provide copies of a module in evaluation mode.

    Running a copy does not change the module or the global state of PyTorch.

    Parameters
    ----------
    torch : module
        PyTorch.
    model : torch.nn.Module
        The module.

    Yields
    ------
    callable
        Returns a copy. It raises a ValueError if the module cannot be copied, or if ``eval`` leaves
        a part in training mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    # The cache of torch.nn.utils.parametrize.cached() uses addresses of modules as keys. The
    # address of a copy may be reused after the copy is deleted.
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
            # A function that the module stores may be a closure over the module itself, which
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
    # PyTorch cannot copy tensors with a history, such as activations that a forward has stored.
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
            f"model cannot be copied ({type(error).__name__}: {error}), and from_torch converts a "
            "copy so that model is not changed; remove the attribute that copy.deepcopy does "
            f"not copy, {USE_CAPTURE}."
        ) from error
    theirs = {id(part) for _, part in _parts(model)}
    if shared := [path or "model" for path, part in _parts(copy) if id(part) in theirs]:
        raise ValueError(
            f"copy.deepcopy(model) shares {shared[0]!r} with model, which running the copy could "
            f"change; remove the __deepcopy__ that does not copy it, {USE_CAPTURE}."
        )
    for module, training in zip(copy.modules(), modes, strict=True):
        module.training = training
        # Backward hooks do not change the function, but tracing does not support them.
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    copy.eval()
    for path, module in copy.named_modules():
        if module.training:
            raise ValueError(
                f"{describe_part(path, module)} stays in training mode when model.eval() is "
                "called, and from_torch converts the function in evaluation mode; set its training "
                f"to False, {USE_CAPTURE}."
            )
    return copy


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules, parameters and buffers of a model by name."""
    return chain(model.named_modules(), model.named_parameters(), model.named_buffers())
