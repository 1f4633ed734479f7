"""What a module of PyTorch calls, by `torch.fx`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any


def traced(torch: Any, root: Any, kind: Callable[[Any], str | None]) -> Any:
    """Trace a module in its evaluation mode, and leave it in the mode in which it was."""

    class Proxy(torch.fx.Proxy):
        # As Python's fallback, x + y, would be traced without the change of x.
        def __iadd__(self, other: Any) -> Any:
            return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

        def __imul__(self, other: Any) -> Any:
            return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    class Tracer(torch.fx.Tracer):
        def proxy(self, node: Any) -> Any:
            return Proxy(node, self)

        def is_leaf_module(self, module: Any, path: str) -> bool:
            return kind(module) is not None or super().is_leaf_module(module, path)

    for path, module in root[0].named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"{path or 'model'}, a {type(module).__name__}, has forward hooks, whose effect "
                "from_torch does not see; remove them (torch.nn.utils.remove_weight_norm and the "
                "like), or use jacrot.readers.capture."
            )
    modes = [(module, module.training) for module in root.modules()]
    try:
        for module, _ in modes:
            module.training = False
        return Tracer().trace(root)
    except Exception as error:
        raise ValueError(
            f"torch.fx cannot trace model ({type(error).__name__}: {error}); where its forward "
            "depends on values, use jacrot.readers.capture, which takes any module."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
