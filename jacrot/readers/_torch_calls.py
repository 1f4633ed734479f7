"""Conversion of the traced calls of a PyTorch module to a graph of layers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from jacrot.layers import AvgPool2d, Basis, Dense, Flatten, Layer
from jacrot.readers._graph import Graph
from jacrot.readers._torch_example import locate_tensors
from jacrot.readers._torch_functions import (
    CONSTANT_FUNCTIONS,
    FLATTENS,
    FUNCTIONS,
    NEW,
    SAME,
    apply_to_constants,
    chunk,
    layer_norm,
    permute,
    pixelwise,
    rms_norm,
    scale,
    select_chunk,
)
from jacrot.readers._torch_libraries import Known, known_modules
from jacrot.readers._torch_modules import MODULES, Unread, attention, find_kind, unread_error
from jacrot.readers._torch_state import as_array
from jacrot.readers._torch_tracing import IN_PLACE, extra_output, suggest, trace

# Modules of torch.nn that need to know where the channels of images are.
_NEEDS_LAYOUT = {
    *("AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Conv2d", "Embedding"),
    *("Flatten", "MaxPool2d", "Softmax"),
}


class _Overwritten(Unread):
    """Raised for a tensor that a call changed, or may have changed, through another view."""


class TorchReader:
    """Converts the calls of one module that torch.fx traced, in order."""

    def __init__(self, torch: Any, model: Any) -> None:
        self.torch = torch
        # Wrapped in a sequence, so that a module without children is called like others.
        self.root = torch.nn.Sequential(model)
        functional = torch.nn.functional
        # Names of the functions; a name that ends in an underscore changes its argument.
        self.called: dict[Any, str] = {
            getattr(home, name + end): name + end
            for home, names in (
                # torch.dropout and torch.max_pool2d have arguments of their own.
                (torch, {*FUNCTIONS, *_CALLS} - {"dropout", "max_pool2d"}),
                (functional, {*FUNCTIONS, "layer_norm", "linear", "pad", "rms_norm"}),
                (operator, {"add", "getitem", "mul"}),
            )
            for name in names
            for end in ("", "_")
            if hasattr(home, name + end)
        }
        self.called |= {function: f"{function.__name__[1:]}_" for function in IN_PLACE}
        self.called[getattr] = "getattr"

    def layers(self) -> list[Layer]:
        self.known = known_modules(self.torch, self.root)
        graph = trace(self.torch, self.root, self._is_leaf, self._others)
        try:
            return self._layers(graph, {})
        except ValueError as error:
            if not isinstance(error.__cause__, _Overwritten):
                raise
            # Whether a tensor is overwritten may depend on strides.
            places = locate_tensors(self.torch, self.root, graph)
            if not places:
                raise
        return self._layers(graph, places)

    def _layers(self, graph: Any, places: dict[str, Any]) -> list[Layer]:
        first, *calls, last = graph.nodes
        self.graph = Graph(first.name)
        # For each call: the tensor in the graph, the constant or the size that it returns.
        self.tensors: dict[Any, str] = {first: first.name}
        self.constants: dict[Any, Any] = {}
        self.sizes: dict[Any, Any] = {}
        self.attended: dict[Any, str] = {}
        self.chunks: dict[Any, tuple[Any, str, list[str]]] = {}
        # For each tensor, if known: 3 for sequences and 4 for images, and the number of features.
        self.ndim: dict[str, int | None] = {first.name: None}
        self.width: dict[str, int | None] = {first.name: None}
        # Tensors of images with the channels last.
        self.last: set[str] = set()
        # For each call: the memory of its tensor and the view of it, as observed on an example or
        # as far as they are certain, and a later call that changed it through another view.
        self.places = places
        self.memory = {first: places.get(first.name, (first, first))}
        self.overwritten: dict[Any, Any] = {}
        # The current call, and the calls so far that read the inputs of the model.
        self.current = first
        self.readers: set[Any] = set()
        for call in calls:
            self._read(call)
        self._check_tokens()
        output = _only(last.args[0])
        if not isinstance(output, self.torch.fx.Node) or output not in self.tensors:
            raise ValueError(
                f"model returns {output}, not one tensor that is computed from its inputs; "
                f"{suggest(self.torch, self.root)}."
            )
        try:
            layers = self.graph.layers(self.tensor(output))
        except Unread as error:
            raise ValueError(f"model returns a result that is not supported: {error}.") from error
        if not layers:
            raise ValueError(
                "model returns its input unchanged, in evaluation mode and as torch.fx traces it; "
                "pass a model that computes something."
            )
        return layers

    def _check_tokens(self) -> None:
        """Check that token ids, for which the network has one-hot rows, go to embeddings only."""
        kinds = {
            find_kind(self.torch, self.root.get_submodule(call.target))
            if call.op == "call_module"
            else None
            for call in self.readers
            # Calls that return their inputs do not read them.
            if self.tensors.get(call) != self.graph.input
        }
        if "Embedding" in kinds and len(kinds) > 1:
            raise ValueError(
                "model uses its inputs both as token ids, in an Embedding, and otherwise; "
                f"{suggest(self.torch, self.root)}."
            )

    def _is_leaf(self, module: Any) -> bool:
        return module in self.known or find_kind(self.torch, module) is not None

    def _others(self, module: Any) -> tuple[bool, ...] | None:
        """Return the ``others`` of a :class:`Known` module, ``None`` for other modules."""
        known = self.known.get(module)
        if isinstance(known, Unread):
            path = next(path for path, other in self.root.named_modules() if other is module)
            raise unread_error(path, module, known, suggest(self.torch, self.root, path)) from known
        return None if known is None else known.others

    def _read(self, call: Any) -> None:
        self.current = call
        module = self.root.get_submodule(call.target) if call.op == "call_module" else None
        try:
            if module is not None:
                self._read_module(call, module)
            elif call.op == "get_attr":
                self.constants[call] = operator.attrgetter(call.target)(self.root)
            else:
                self._read_function(call, self._name(call))
            self.memory.setdefault(call, self._place(call, module))
        except (Unread, ValueError, TypeError) as error:
            if module is not None:
                path, what = call.target, module
            else:
                path = ["", *call.meta.get("nn_module_stack", ())][-1]
                what = getattr(call.target, "__name__", call.target)
            raise unread_error(path, what, error, suggest(self.torch, self.root, path)) from error

    def _name(self, call: Any) -> str:
        return call.target if call.op == "call_method" else self.called.get(call.target, "")

    def _place(self, call: Any, module: Any) -> Any:
        """Return the memory of the tensor that a call returns, and the view of it."""
        if call.args and call.args[0] in self.attended:
            return self.memory[call.args[0]]
        name = self._name(call) if module is None else find_kind(self.torch, module)
        if call.name in self.places:
            storage, view = self.places[call.name]
            # Flattening changes images, but not rows, which the example may have.
            return storage, call if name in FLATTENS else view
        sources = [self.memory[node] for node in call.all_input_nodes if node in self.memory]
        known = self.known.get(module)
        if not sources or name in NEW or (isinstance(known, Known) and known.layers):
            return call, call
        return sources[0] if name in SAME or known is not None else (sources[0][0], call)

    def _overwrite(self, changed: Any, call: Any) -> None:
        """Replace a tensor by the result of an in-place call, for all calls that return it."""
        storage, view = self.memory[call] = self.memory[changed]
        for pair in self.attended:
            if self.memory[pair] == (storage, view):
                self.attended[pair] = self.tensors[call]
        for other, (its_storage, its_view) in self.memory.items():
            if other in self.tensors and its_storage == storage:
                if its_view == view:
                    self.tensors[other] = self.tensors[call]
                else:
                    self.overwritten[other] = changed, call

    def _read_module(self, call: Any, module: Any) -> None:
        if module in self.known:
            self._apply_known(call, module, self.known[module])
            return
        kind = find_kind(self.torch, module)
        if kind is None:
            raise Unread
        if kind == "MultiheadAttention":
            self._attention(call, module)
        elif len(call.args) != 1 or call.kwargs:
            raise Unread("it has several arguments")
        else:
            self.apply_module(call, call.args[0], kind, module)

    def _read_function(self, call: Any, name: str) -> None:
        changes, name = name.endswith("_"), name.removesuffix("_")
        options = dict(call.kwargs)
        args = (*([options.pop("input")] if "input" in options else []), *call.args)
        if options.pop("out", None) is not None:
            raise Unread("with out=; use what it returns")
        if name in FUNCTIONS:
            kind, names = FUNCTIONS[name]
            if len(args) > 1 + len(names):
                raise Unread(f"with {len(args)} arguments by position")
            options |= dict(zip(names, args[1:], strict=False))
            options.pop("_stacklevel", None)
            if options.pop("training", name == "dropout"):
                raise Unread("it also drops inputs in evaluation mode")
            given = {key: value for key, value in options.items() if value is not None}
            self.apply_module(call, args[0], kind, getattr(self.torch.nn, kind)(**given))
        elif call.target is extra_output:
            # Allowed only in the outputs of the model, which are dropped.
            return
        elif name in CONSTANT_FUNCTIONS and args[0] in self.constants:
            apply_to_constants(self, call, name, args, options)
        elif name in _CALLS:
            _CALLS[name](self, call, *args, **options)
        else:
            raise Unread
        if changes:
            self._overwrite(args[0], call)

    def tensor(self, value: Any, last: bool = False) -> str:
        """Return the tensor of a call in the graph; `last` allows the channels last."""
        if value not in self.tensors:
            raise Unread(f"{value} is not a tensor that is computed from the inputs")
        if not last and self.tensors[value] in self.last:
            raise Unread("it reads images with the channels last; permute them back first")
        if value in self.overwritten:
            value, changed, call = (
                node.name.removeprefix("_0_") for node in (value, *self.overwritten[value])
            )
            raise _Overwritten(
                f"it reads {value}, which shares memory with {changed}, or may share it, and "
                f"{changed} was changed in place by {call}; use a function that is not in place "
                "there, or change a clone()"
            )
        if self.tensors[value] == self.graph.input:
            self.readers.add(self.current)
        return self.tensors[value]

    def constant(self, value: Any) -> Any:
        """Return the parameter or buffer that is an argument of a call, ``None`` for ``None``."""
        if value is not None and value not in self.constants:
            raise Unread("its weight or bias is computed")
        return self.constants.get(value)

    def apply(self, call: Any, source: str, layers: list[Layer], ndim: int | None) -> None:
        """Add the layers that a call applies to a tensor."""
        is_last = source in self.last
        for index, layer in enumerate(pixelwise(layers) if is_last else layers):
            result = f"{call.name}.{index}"
            self.graph.apply(layer, source, result)
            kept = None if isinstance(layer, Flatten) else self.width[source]
            self.width[result] = layer.n_outputs or kept
            self.ndim[result] = ndim
            if is_last:
                self.last.add(result)
            source = result
        self.tensors[call] = source

    def _apply_known(self, call: Any, module: Any, known: Known | Unread) -> None:
        """Add the layers of a module of transformers or timm."""
        assert isinstance(known, Known)
        given = [*call.args, *call.kwargs.values()]
        read = [value for value in given if isinstance(value, self.torch.fx.Node)]
        # Other arguments of these libraries have no effect if they are None or False.
        if len(read) != 1 or any(value not in (None, False, *read) for value in given):
            raise Unread("it has further arguments, such as a mask")
        images = known.features == "channels"
        source = self.tensor(read[0], last=known.features in ("any", "last"))
        ndim = self.ndim[source]
        if known.features in ("last", "sequence") and ndim == 4 and source not in self.last:
            raise Unread("it reads images, whose features are not on the last axis")
        if images and ndim == 3:
            raise Unread("it reads sequences, but expects images")
        ndim = 4 if images else 3 if known.features == "sequence" else ndim
        self.apply(call, source, list(known.layers), ndim)
        if getattr(module, "inplace", False):
            self._overwrite(read[0], call)

    def apply_module(self, call: Any, read: Any, kind: str, module: Any) -> None:
        """Add the layer of a module of `torch.nn`."""
        source = self.tensor(read, last=kind not in _NEEDS_LAYOUT)
        ndim = self.ndim[source]
        last_axis = kind in ("Linear", "LayerNorm", "RMSNorm")
        if last_axis and ndim == 4 and source not in self.last:
            raise Unread("it reads images, whose features are not on the last axis")
        if kind == "BatchNorm1d" and ndim is not None:
            raise Unread("it reads sequences or images; only rows are supported")
        if kind == "Softmax" and module.dim not in {3: (2, -1), 4: (1, -3)}.get(ndim or 2, (1, -1)):
            raise Unread(f"dim={module.dim} is not the axis of the features")
        if kind == "Embedding" and source != self.graph.input:
            raise Unread("it does not read the inputs of the model")
        make = MODULES[kind]
        if kind.endswith("2d"):
            ndim = 4
        elif kind == "Flatten":
            ndim = None
        self.apply(call, source, [] if make is None else [make(module)], ndim)
        if make is not None and getattr(module, "inplace", False):
            self._overwrite(read, call)

    def _attention(self, call: Any, module: Any) -> None:
        names = (
            *("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"),
            *("average_attn_weights", "is_causal"),
        )
        given = dict(zip(names, call.args, strict=False)) | call.kwargs
        source, mask = self.tensor(given["query"]), given.get("attn_mask")
        if {self.tensor(given[name]) for name in names[:3]} != {source}:
            raise Unread("query, key and value are not the same tensor")
        if given.get("key_padding_mask") is not None:
            raise Unread("it has a key_padding_mask")
        if mask is not None:
            mask = as_array(self.constants.get(mask))
            blocked = 1 if mask is not None and mask.dtype == bool else -np.inf
            if mask is None or mask.ndim != 2 or not np.isin(mask, (0, blocked)).all():
                raise Unread(
                    "its attn_mask is not a buffer of the module with a matrix of bool, or of 0 "
                    "and -inf"
                )
            # In PyTorch, True or -inf mask a position.
            mask = mask == 0
        if given.get("is_causal") and (mask is None or (mask != np.tri(*mask.shape)).any()):
            raise Unread("is_causal=True without a causal attn_mask")
        self.apply(call, source, [attention(module, mask)], 3)
        # It returns this tensor and the pattern.
        self.attended[call] = self.tensors.pop(call)

    def _add(self, call: Any, first: Any, second: Any, alpha: float = 1) -> None:
        if alpha != 1:
            raise Unread(f"alpha={alpha}")
        self._combine(self.graph.add, call, first, second)

    def _mul(self, call: Any, first: Any, second: Any) -> None:
        if first in self.constants:
            first, second = second, first
        if second in self.constants:
            scale(self, call, first, second)
        else:
            self._combine(self.graph.multiply, call, first, second)

    def _combine(self, combine: Callable[..., None], call: Any, first: Any, second: Any) -> None:
        source, other = self.tensor(first, last=True), self.tensor(second, last=True)
        if (source in self.last) != (other in self.last):
            raise Unread("only one of the two has the channels last")
        combine(source, other, call.name)
        self.tensors[call] = call.name
        if source in self.last:
            self.last.add(call.name)
        self.ndim[call.name] = self.ndim[source] or self.ndim[other]
        self.width[call.name] = self.width[source] if self.width[source] != 1 else self.width[other]

    def _linear(self, call: Any, source: Any, weight: Any, bias: Any = None) -> None:
        tensor = self.tensor(source, last=True)
        arrays = [as_array(self.constant(value)) for value in (weight, bias)]
        if self.ndim[tensor] == 4 and tensor not in self.last:
            raise Unread("it reads images, whose features are not on the last axis")
        layer = Dense(arrays[0], arrays[1], "identity")
        self.apply(call, tensor, [layer], self.ndim[tensor])

    def _flatten(self, call: Any, source: Any, start_dim: int = 0, end_dim: int = -1) -> None:
        self.apply_module(call, source, "Flatten", self.torch.nn.Flatten(start_dim, end_dim))

    def _reshape(self, call: Any, source: Any, *shape: Any) -> None:
        shape = tuple(shape[0]) if isinstance(shape[0], (tuple, list)) else shape
        if len(shape) != 2 or self.sizes.get(shape[0]) != 0 or shape[1] != -1:
            raise Unread("the new shape is not (x.size(0), -1); use torch.flatten(x, 1)")
        self.apply(call, self.tensor(source), [Flatten()], None)

    def _mean(self, call: Any, source: Any, dim: Any = None, keepdim: bool = False) -> None:
        if not isinstance(dim, tuple | list) or sorted(dim) not in ([2, 3], [-2, -1]):
            raise Unread("its axes are not (2, 3) of images")
        layers: list[Layer] = [AvgPool2d()] if keepdim else [AvgPool2d(), Flatten()]
        self.apply(call, self.tensor(source), layers, 4 if keepdim else None)

    def _pad(
        self, call: Any, source: Any, pad: Any, mode: str = "constant", value: Any = None
    ) -> None:
        if len(pad) != 6 or any(pad[:4]) or mode != "constant" or value not in (None, 0):
            raise Unread("it does not pad with channels of zeros")
        width = self.width[self.tensor(source)]
        if self.ndim[self.tensor(source)] != 4 and width is not None:
            raise Unread("it does not read images")
        if width is None:
            raise Unread("no layer before it determines the number of channels")
        # Ones and zeros are exact, and single precision does not change that of the inputs.
        channels = np.pad(np.eye(width, dtype=np.float32), ((pad[4], pad[5]), (0, 0)))
        self.apply(call, self.tensor(source), [Basis(channels)], 4)

    def _getitem(self, call: Any, source: Any, index: Any) -> None:
        if source in self.sizes:
            if self.sizes[source] is not None:
                raise Unread("it reads a part of a shape")
            self.sizes[call] = index
        elif source in self.attended:
            if index == 0:
                self.tensors[call] = self.attended[source]
            elif call.users:
                raise Unread("it reads the pattern of an attention")
        elif source in self.chunks:
            select_chunk(self, call, source, index)
        else:
            step = getattr(index[-1], "step", None) if isinstance(index, tuple) else None
            every, some = slice(None), slice(None, None, step)
            if step is None or index not in ((every, every, some, some), (..., some, some)):
                raise Unread("it does not select every s-th row and column of images")
            self.apply(call, self.tensor(source), [AvgPool2d(1, stride=step)], 4)

    def _getattr(self, call: Any, source: Any, name: str) -> None:
        if name != "shape":
            raise Unread(name)
        self.sizes[call] = None

    def _size(self, call: Any, source: Any, dim: int | None = None) -> None:
        self.sizes[call] = dim

    def _copy(self, call: Any, source: Any) -> None:
        tensor = self.tensor(source, last=True)
        self.graph.alias(tensor, call.name)
        self.tensors[call] = call.name
        self.ndim[call.name] = self.ndim[tensor]
        self.width[call.name] = self.width[tensor]
        if tensor in self.last:
            self.last.add(call.name)


def _only(output: Any) -> Any:
    """Return the single tensor in the output of a block of transformers."""
    if isinstance(output, dict) and output.keys() == {"last_hidden_state"}:
        return output["last_hidden_state"]
    if isinstance(output, tuple) and output:
        first, *others = output
        # The others may be attention patterns.
        if all(other is None or getattr(other, "target", 0) is extra_output for other in others):
            return first
    return output


# Methods that convert calls of functions and methods, by name.
_CALLS: dict[str, Callable[..., None]] = {
    "add": TorchReader._add,
    "chunk": chunk,
    "clone": TorchReader._copy,
    "contiguous": lambda self, call, source: self.apply(
        call, self.tensor(source, last=True), [], None
    ),
    "flatten": TorchReader._flatten,
    "getattr": TorchReader._getattr,
    "getitem": TorchReader._getitem,
    "layer_norm": layer_norm,
    "linear": TorchReader._linear,
    "mean": TorchReader._mean,
    "mul": TorchReader._mul,
    "pad": TorchReader._pad,
    "permute": permute,
    "reshape": TorchReader._reshape,
    "rms_norm": rms_norm,
    "size": TorchReader._size,
    "view": TorchReader._reshape,
}
