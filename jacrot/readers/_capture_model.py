"""Preparation of a PyTorch model for a capture, and restoration of its state afterwards."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch.nn import attention
from torch.utils import checkpoint

# Limit for copies of the weights, with which in-place changes are detected and undone.
MAX_COPIED_BYTES = 2**30
# One capture at a time, because it changes settings of PyTorch that all threads share.
_LOCK = threading.RLock()
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)


def check_model(model: Any) -> Any:
    """Check that a model can be captured, and unwrap compiled models.

    Parameters
    ----------
    model : object
        The value that the user passed.

    Returns
    -------
    torch.nn.Module
        The model.

    Raises
    ------
    TypeError
        If it is not a Python module of PyTorch.
    ValueError
        If its weights have no values yet.
    """
    kind = type(model)
    origin = "pass the Python module that was compiled or exported"
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"model is a TorchScript module ({kind.__name__}, from torch.jit.script, trace or "
            f"load), which does not support hooks; {origin}."
        )
    exported = any(base.__module__.startswith("torch.export.") for base in kind.__mro__)
    if exported:
        raise TypeError(
            f"model was exported by torch.export, so that its modules are no longer called and its "
            f"mode and shapes are fixed; {origin}."
        )
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {kind.__name__}; pass a torch.nn.Module.")
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"{name} of the model has no shape yet (a lazy module); call the model once first."
            )
        if tensor.is_meta:
            raise ValueError(
                f"{name} of the model is on the meta device, without values; load the weights."
            )
    return model._orig_mod if _is_compiled(model) else model


def _is_compiled(model: Any) -> bool:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo is not None and isinstance(model, dynamo.OptimizedModule)


class _State:
    """Snapshot of the attributes of modules, and of their lists, dictionaries and sets."""

    def __init__(self, modules: list[Any]) -> None:
        self.saved: list[tuple[Any, Any]] = [(vars(m), dict(vars(m))) for m in modules]
        seen: set[int] = set()
        for _, attributes in list(self.saved):
            for value in attributes.values():
                self._collect(value, seen)

    def _collect(self, value: Any, seen: set[int]) -> None:
        if type(value) in _CONTAINERS and id(value) not in seen:
            seen.add(id(value))
            self.saved.append((value, copy.copy(value)))
            for inner in list(value.values() if isinstance(value, dict) else value):
                self._collect(inner, seen)

    def restore(self) -> None:
        """Undo all assignments, additions and removals since the snapshot."""
        for now, before in self.saved:
            if isinstance(now, dict):
                if len(now) != len(before) or not (
                    all(map(is_, now, before)) and all(map(is_, now.values(), before.values()))
                ):
                    now.clear()
                    now.update(before)
            elif len(now) != len(before) or not all(map(is_, now, before)):
                now.clear()
                (now.update if isinstance(now, set) else now.extend)(before)


class _Tensors:
    """Copies of buffers and other tensors, which replace those of the user during a capture."""

    def __init__(self, modules: list[Any]) -> None:
        self.copies: dict[int, Any] = {}
        self.originals: dict[int, Any] = {}
        # Attributes of modules that hold a tensor, and its key.
        self.places: list[tuple[dict[str, Any], str, int]] = []
        for module in modules:
            for table in (module._buffers, vars(module)):
                for name, tensor in table.items():
                    is_buffer = table is module._buffers and tensor is not None
                    if is_buffer or type(tensor) is torch.Tensor:
                        self.originals[id(tensor)] = tensor
                        self.places.append((table, name, id(tensor)))
        self.versions: dict[int, int] = {}

    def reset(self) -> None:
        """Install the copies in the model, copied again if the model has changed them."""
        for key, original in self.originals.items():
            if key not in self.copies or self.copies[key]._version != self.versions[key]:
                self.copies[key] = original.detach().clone()
                self.versions[key] = self.copies[key]._version
        for table, name, key in self.places:
            table[name] = self.copies[key]


class _Weights:
    """Snapshot of the parameters, which a call of the model must not change."""

    def __init__(self, model: Any) -> None:
        plain = {
            name: p
            for name, p in model.named_parameters()
            if type(p) is torch.nn.Parameter and p.layout == torch.strided
        }
        self.saved = {name: (p, p.data) for name, p in plain.items()}
        small = sum(p.nbytes for p in plain.values()) <= MAX_COPIED_BYTES
        self.copies = {name: p.data.clone() for name, p in plain.items()} if small else {}

    def changed(self) -> list[str]:
        """Return the names of the parameters whose values or memory have changed."""
        return [
            name
            for name, (parameter, data) in self.saved.items()
            if parameter.data_ptr() != data.data_ptr()
            or (name in self.copies and not torch.equal(data, self.copies[name]))
        ]

    def check(self) -> None:
        """Check that a run without derivatives has not changed the weights."""
        changed = self.changed()
        if changed and not any(data.isnan().any() for _, data in self.saved.values()):
            raise ValueError(
                f"the model changes its own weights when it is called ({', '.join(changed[:3])}); "
                "pass a model that does not change them (for example with a parametrization of "
                "torch.nn.utils.parametrize)."
            )

    def restore(self) -> None:
        """Undo all changes."""
        for name in self.changed():
            parameter, data = self.saved[name]
            parameter.data = data
            if name in self.copies:
                data.copy_(self.copies[name])


@contextmanager
def borrowed(model: Any) -> Iterator[Callable[[], None]]:
    """Prepare a model for differentiation, and restore it exactly at the end.

    In the context, the model is in evaluation mode (by its flags, because models can override
    ``eval()``), its parameters do not require gradients, its buffers and tensor attributes are
    copies, and backward hooks, which are not part of the function, are removed. Attention,
    checkpoints and compiled modules use implementations that support all derivatives.

    Parameters
    ----------
    model : torch.nn.Module
        The model.

    Yields
    ------
    callable
        Undoes changes of a run in the state of the model.
    """
    modules = list(model.modules())
    # Python cannot access the state of TorchScript modules.
    plain = [module for module in modules if not isinstance(module, torch.jit.ScriptModule)]
    training = [module for module in modules if module.training]
    learned = [p for p in model.parameters() if p.requires_grad and not p.is_inference()]
    with _LOCK, torch.inference_mode(False), torch.no_grad(), ExitStack() as stack:
        for context in _contexts(model):
            stack.enter_context(context)
        state = _State(plain)
        weights = _Weights(model)
        try:
            for module in training:
                module.training = False
            for parameter in learned:
                parameter.requires_grad_(False)
            _replace_inference_parameters(plain)
            for module in plain:
                module._backward_hooks.clear()
                module._backward_pre_hooks.clear()
            tensors = _Tensors(plain)
            tensors.reset()
            in_use: _State | None = None

            n_runs = 0

            def reset() -> None:
                nonlocal in_use, n_runs
                # After the hooks are registered, which are kept.
                in_use = in_use or _State(plain)
                in_use.restore()
                tensors.reset()
                if n_runs == 1:
                    weights.check()
                n_runs += 1

            yield reset
        finally:
            state.restore()
            weights.restore()
            for parameter in learned:
                parameter.requires_grad_(True)
            for module in training:
                module.training = True


def _contexts(model: Any) -> Iterator[Any]:
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    yield torch.random.fork_rng([device.index for device in devices])
    yield _ignore_vmap_warnings()
    # The fast path skips the modules inside, and has no derivative.
    yield _disable_fast_attention()
    yield attention.sdpa_kernel(attention.SDPBackend.MATH)
    # Checkpointing does not change the function, but does not support all kinds of derivatives, and
    # would call hooks in the backward pass.
    for name, plain in (
        ("CheckpointFunction", _NoCheckpoint),
        ("_checkpoint_without_reentrant_generator", _no_checkpoint),
    ):
        if hasattr(checkpoint, name):
            yield _patch(checkpoint, name, plain)
    if "torch._dynamo" in sys.modules:
        yield torch.compiler.set_stance("force_eager")


@contextmanager
def _ignore_vmap_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # Warning about operations for which ``vmap`` has no rule.
        warnings.filterwarnings("ignore", message="There is a performance drop because")
        yield


@contextmanager
def _disable_fast_attention() -> Iterator[None]:
    mha = torch.backends.mha
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(fast)


@contextmanager
def _patch(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


class _NoCheckpoint:
    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _no_checkpoint(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _replace_inference_parameters(modules: list[Any]) -> None:
    """Replace parameters that were created in inference mode, which has no derivatives."""
    copies: dict[int, Any] = {}
    for module in modules:
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and parameter.is_inference():
                if id(parameter) not in copies:
                    clone = parameter.detach().clone()
                    copies[id(parameter)] = torch.nn.Parameter(clone, requires_grad=False)
                # By setattr, because recurrent modules also keep a list of their parameters.
                setattr(module, name, copies[id(parameter)])
