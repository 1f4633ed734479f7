"""Tracing of the calls of a PyTorch module with `torch.fx`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import chain
from typing import Any

from jacrot.readers._torch_composites import plain_forward
from jacrot.readers._torch_modules import Unread, UnreadError, unread_error

# Functions of x += y and the like, which torch.fx would otherwise trace as x = x + y.
IN_PLACE = [
    getattr(operator, f"i{name}")
    for name in (
        *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
        *("lshift", "rshift", "and", "or", "xor"),
    )
]


def extra_output(outputs: Any) -> Any:
    """Represent an output of a module after the first one in a graph."""
    raise NotImplementedError


def suggest(torch: Any, root: Any, path: str = "") -> str:
    """Return advice on what to convert instead of a whole model.

    Parameters
    ----------
    torch : module
        PyTorch.
    root : torch.nn.Module
        A sequence that contains only the model.
    path : str, default=""
        Path in `root` of the part that is not supported.

    Returns
    -------
    str
        Advice: a list of blocks elsewhere in the model if there is one, or `capture`.
    """
    lists = [
        name
        for name, module in root[0].named_modules()
        if name and _is_list(torch, module) and not f"{path}.".startswith(f"0.{name}.")
    ]
    capture = "use jacrot.readers.capture, which works with any module"
    if not lists:
        return capture
    # The first of the outermost lists.
    name = min(lists, key=lambda name: name.count("."))
    blocks = f"model.{name}"
    if any(part.isdigit() for part in name.split(".")):
        blocks = f"model.get_submodule({name!r})"
    return (
        f"convert a part of model, such as from_torch({blocks}[0]) or "
        f"from_torch(torch.nn.Sequential(*{blocks})), or {capture}"
    )


def _is_list(torch: Any, module: Any) -> bool:
    """Check whether a module is a list of blocks of one class."""
    if not isinstance(module, torch.nn.ModuleList | torch.nn.Sequential):
        return False
    kinds = {type(block) for block in module}
    return len(kinds) == 1 and not any(
        kind.__module__.startswith("torch.nn.modules.") for kind in kinds
    )


def trace(
    torch: Any,
    root: Any,
    is_leaf: Callable[[Any], bool],
    others: Callable[[Any], tuple[bool, ...] | None],
) -> Any:
    """Trace a module.

    Parameters
    ----------
    torch : module
        PyTorch.
    root : torch.nn.Module
        The module, in evaluation mode. Its forward may change it: pass a copy of the module of the
        user.
    is_leaf : callable
        Returns whether a part is a single call, in addition to those of `torch.nn`.
    others : callable
        Returns for a part with a tuple as output whether each item after the first is ``None``,
        and ``None`` for other parts.

    Returns
    -------
    torch.fx.Graph
        The calls of the module.

    Raises
    ------
    ValueError
        If the module cannot be traced, or its forward changes its parameters or buffers.
    """

    class Proxy(torch.fx.Proxy):
        def __setitem__(self, index: Any, value: Any) -> None:
            self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def in_place(function: Any) -> Any:
        return lambda self, other: self.tracer.create_proxy(
            "call_function", function, (self, other), {}
        )

    for function in IN_PLACE:
        setattr(Proxy, f"__{function.__name__}__", in_place(function))

    class Tracer(torch.fx.Tracer):
        def proxy(self, node: Any) -> Any:
            return Proxy(node, self)

        def is_leaf_module(self, module: Any, path: str) -> bool:
            if plain_forward(torch, module) is not None:
                return False
            return is_leaf(module) or super().is_leaf_module(module, path)

        def call_module(self, module: Any, forward: Any, args: Any, kwargs: Any) -> Any:
            forward = plain_forward(torch, module) or forward
            missing = others(module)
            try:
                result = super().call_module(module, forward, args, kwargs)
            except Unread as error:
                path = self.path_of_module(module)
                raise unread_error(path, module, error, suggest(torch, root, path)) from error
            except Exception:
                # The innermost module, in which the error occurs.
                self.failed = self.failed or self.path_of_module(module)
                raise
            if missing is None:
                return result
            # A tuple, which the caller of the module can unpack.
            rest = [
                None if none else self.create_proxy("call_function", extra_output, (result,), {})
                for none in missing
            ]
            return (result, *rest)

        failed = ""

    before = _versions(root)
    tracer = Tracer()
    try:
        graph = tracer.trace(root)
    except UnreadError:
        raise
    except Exception as error:
        where, advice = tracer.failed, suggest(torch, root, tracer.failed)
        where = where.removeprefix("0").removeprefix(".")
        where = f"{where} of model" if where else "model"
        raise ValueError(
            f"torch.fx cannot trace {where} ({type(error).__name__}: {error}); if its forward "
            f"depends on values, {advice}."
        ) from error
    after = _versions(root)
    for name, (tensor, version) in before.items():
        now = after.get(name)
        if now is None or now[0] is not tensor or now[1] != version:
            raise ValueError(
                f"model changes its {name.removeprefix('0.')} when it is called, also in "
                "evaluation mode, so that it is not a function of its inputs; remove the change "
                "from its forward."
            )
    return graph


def _versions(root: Any) -> dict[str, tuple[Any, int]]:
    """Return the parameters and buffers, with their counts of in-place changes."""
    tensors = chain(root.named_parameters(), root.named_buffers())
    return {name: (tensor, tensor._version) for name, tensor in tensors}
