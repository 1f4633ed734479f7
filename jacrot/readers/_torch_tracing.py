"""What a module of PyTorch calls, by `torch.fx`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import chain
from typing import Any

# Of x += y and the like, which Python without them, and so torch.fx, takes for x = x + y.
IN_PLACE = [
    getattr(operator, f"i{name}")
    for name in (
        *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"),
        *("lshift", "rshift", "and", "or", "xor"),
    )
]


def traced(torch: Any, root: Any, is_leaf: Callable[[Any], bool]) -> Any:
    """Trace a module.

    Parameters
    ----------
    torch : module
        PyTorch.
    root : torch.nn.Module
        The module, in evaluation mode. Its forward may change it: pass a copy of the user's.
    is_leaf : callable
        Whether a part is one call, besides those of `torch.nn`.

    Returns
    -------
    torch.fx.Graph
        The calls.

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
            return is_leaf(module) or super().is_leaf_module(module, path)

    before = _versions(root)
    try:
        graph = Tracer().trace(root)
    except Exception as error:
        raise ValueError(
            f"torch.fx cannot trace model ({type(error).__name__}: {error}); where its forward "
            "depends on values, use jacrot.readers.capture, which takes any module."
        ) from error
    after = _versions(root)
    for name, (tensor, version) in before.items():
        now = after.get(name)
        if now is None or now[0] is not tensor or now[1] != version:
            raise ValueError(
                f"model changes its {name.removeprefix('0.')} when it is called, in evaluation "
                "mode too, so that it is not a function of its inputs; take the change out of its "
                "forward."
            )
    return graph


def _versions(root: Any) -> dict[str, tuple[Any, int]]:
    """List the parameters and buffers, and how often each was changed in place."""
    tensors = chain(root.named_parameters(), root.named_buffers())
    return {name: (tensor, tensor._version) for name, tensor in tensors}
