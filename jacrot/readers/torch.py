"""PyTorch's modules and state dicts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._arrays import Array
from jacrot._optional import require
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    Basis,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2d,
    RMSNorm,
    Softmax,
    fused,
)
from jacrot.network import Network
from jacrot.readers._common import Clip, Elu, LeakyRelu
from jacrot.readers._graph import Graph
from jacrot.weights import ActivationLike

# Functions and methods that do what a module does, by name.
_FUNCTIONS = {
    "adaptive_avg_pool2d": "AdaptiveAvgPool2d",
    "avg_pool2d": "AvgPool2d",
    "dropout": "Dropout",
    "elu": "ELU",
    "gelu": "GELU",
    "hardtanh": "Hardtanh",
    "leaky_relu": "LeakyReLU",
    "max_pool2d": "MaxPool2d",
    "relu": "ReLU",
    "relu6": "ReLU6",
    "selu": "SELU",
    "sigmoid": "Sigmoid",
    "silu": "SiLU",
    "softmax": "Softmax",
    "softplus": "Softplus",
    "tanh": "Tanh",
}


def from_torch(model: Any, activation: ActivationLike = "relu") -> Network:
    """Read a network from a PyTorch module or from a state dict.

    A module is read in its evaluation mode: batch norms use their running statistics, dropouts
    do nothing. It may nest others and have a ``forward`` of its own, as long as `torch.fx` can
    trace it and it is made of

    - ``Linear``, ``Conv2d``, ``BatchNorm1d`` (of rows), ``BatchNorm2d``, ``LayerNorm`` and
      ``RMSNorm`` of the last axis, ``MultiheadAttention`` of one sequence with itself;
    - ``AvgPool2d``, ``MaxPool2d``, ``AdaptiveAvgPool2d(1)``, ``Flatten``, strided slices of
      images and zero channels beside them;
    - ``ReLU``, ``ReLU6``, ``LeakyReLU``, ``PReLU`` of one slope, ``ELU``, ``SELU``, ``GELU``,
      ``SiLU``, ``Tanh``, ``Hardtanh``, ``Sigmoid``, ``Softplus``, ``Softmax``, or the functions
      of these names;
    - sums of two tensors (residual blocks), and products ``f(W x + b) * (V x + c)`` (SwiGLU).

    Anything else is refused by name; :func:`jacrot.readers.capture` takes any module.

    Parameters
    ----------
    model : torch.nn.Module or mapping of str to Tensor
        A module, which stays as it is; or the state dict of one that is a chain of ``Linear``,
        in the order in which they are computed.
    activation : str, callable or sequence of them, default="relu"
        Applied after every layer of a state dict, the last one included; a sequence gives one
        per layer. A module knows its own.

    Returns
    -------
    Network
        The same function with the arrays copied, in float32 (of lower precisions too) or
        float64. Batch norms and activations are folded into the layers before them.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If `model` is neither.
    ValueError
        If the module computes something else, or the state dict is not one of dense layers.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from jacrot.readers import from_torch
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
    ...     torch.nn.BatchNorm2d(8),
    ...     torch.nn.ReLU(),
    ...     torch.nn.AdaptiveAvgPool2d(1),
    ...     torch.nn.Flatten(),
    ...     torch.nn.Linear(8, 10),
    ... )
    >>> network = from_torch(model)
    >>> network.n_layers
    4
    >>> images = torch.randn(2, 3, 5, 5)
    >>> np.allclose(network(images), model.eval()(images).detach(), atol=1e-5)
    True
    """
    torch = require("torch", "from_torch", "torch")
    if isinstance(model, Mapping):
        return Network(dense_arrays(model), activation)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model is a {type(model).__name__}; write a torch.nn.Module or a state dict."
        )
    if activation != "relu":
        raise ValueError(
            "activation describes the layers of a state dict, but model is a module, which knows "
            "its own; leave activation out."
        )
    return Network(fused(_Reading(torch, model).layers()))


def dense_arrays(state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Take the weights and biases of dense layers from a state dict.

    Parameters
    ----------
    state : mapping of str to Tensor
        The state dict.

    Returns
    -------
    dict of str to ndarray
        Every weight ``(n_out, n_in)``, followed by its bias if there is one.

    Raises
    ------
    ValueError
        If something in it is neither.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in state.items():
        if isinstance(tensor, Mapping):
            raise ValueError(
                f"model[{name!r}] is a mapping itself; if it is the state dict, write "
                f"from_torch(model[{name!r}])."
            )
        if not hasattr(tensor, "ndim"):
            raise ValueError(
                f"model[{name!r}] is no tensor but {type(tensor).__name__}; leave it out."
            )
        if name.rpartition(".")[2] == "weight" and tensor.ndim == 2:
            arrays[name] = as_array(tensor)
            bias = name.removesuffix("weight") + "bias"
            if bias in state:
                arrays[bias] = as_array(state[bias])
    if others := [name for name in state if name not in arrays]:
        shapes = ", ".join(f"{name!r} {tuple(state[name].shape)}" for name in others[:4])
        raise ValueError(
            f"model holds {shapes}{', ...' if len(others) > 4 else ''}: not the weight or the bias "
            "of a dense layer. The geometry of convolutions, and the order of normalisations, are "
            "not in a state dict: build the module, call its load_state_dict and read the module, "
            "or take out the dense layers that you mean."
        )
    return arrays


def as_array(tensor: Any) -> Any:
    """Read a tensor as an array on the CPU, in float32 where NumPy has no such precision.

    Parameters
    ----------
    tensor : Tensor, ndarray or None
        The tensor.

    Returns
    -------
    ndarray or None
        The array, ``None`` for ``None``. It may share its memory with the tensor.
    """
    if not hasattr(tensor, "detach"):
        return tensor
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()


def _conv(module: Any) -> Conv2d:
    if module.padding_mode != "zeros":
        raise _Unread(f"padding_mode={module.padding_mode!r}")
    padding = module.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        # Of an odd number the larger half goes after the image.
        totals = [
            step * (size - 1)
            for step, size in zip(module.dilation, module.kernel_size, strict=True)
        ]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    return Conv2d(
        as_array(module.weight),
        as_array(module.bias),
        "identity",
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
    )


def _batch_norm(module: Any) -> BatchNorm:
    if module.running_mean is None:
        raise _Unread("no running statistics")
    mean, variance = as_array(module.running_mean), as_array(module.running_var)
    return BatchNorm(mean, variance, as_array(module.weight), as_array(module.bias), module.eps)


def _layer_norm(module: Any) -> LayerNorm:
    _over_last_axis(module)
    return LayerNorm(as_array(module.weight), as_array(module.bias), module.eps)


def _rms_norm(module: Any) -> RMSNorm:
    _over_last_axis(module)
    weight = as_array(module.weight)
    if module.eps is not None:
        return RMSNorm(weight, module.eps)
    if weight is None:
        raise _Unread("neither eps nor a weight, whose dtype tells it")
    return RMSNorm(weight, float(np.finfo(weight.dtype).eps))


def _over_last_axis(module: Any) -> None:
    if len(module.normalized_shape) != 1:
        raise _Unread(f"normalized_shape={tuple(module.normalized_shape)} of several axes")


def _avg_pool(module: Any) -> AvgPool2d:
    if module.ceil_mode or module.divisor_override is not None:
        raise _Unread("ceil_mode or divisor_override")
    size, stride = module.kernel_size, module.stride
    return AvgPool2d(size, stride, module.padding, count_padding=module.count_include_pad)


def _max_pool(module: Any) -> MaxPool2d:
    if module.ceil_mode or module.return_indices:
        raise _Unread("ceil_mode or return_indices")
    return MaxPool2d(module.kernel_size, module.stride, module.padding, module.dilation)


def _global_pool(module: Any) -> AvgPool2d:
    if module.output_size not in (1, (1, 1), [1, 1]):
        raise _Unread(f"output_size={module.output_size}, whose windows depend on the image")
    return AvgPool2d()


def _flatten(module: Any) -> Flatten:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise _Unread("another start_dim than 1 or end_dim than -1")
    return Flatten()


def _elu(module: Any) -> Activation:
    return Activation("elu" if module.alpha == 1 else Elu(module.alpha))


def _gelu(module: Any) -> Activation:
    return Activation("gelu" if module.approximate == "none" else "gelu_tanh")


def _softplus(module: Any) -> Activation:
    if (module.beta, module.threshold) != (1, 20):
        raise _Unread(f"beta={module.beta}, threshold={module.threshold}")
    return Activation("softplus")


def _prelu(module: Any) -> Activation:
    if module.weight.numel() != 1:
        raise _Unread("a slope for each channel")
    return Activation(LeakyRelu(module.weight.item()))


def _leaky_relu(module: Any) -> Activation:
    slope = module.negative_slope
    return Activation("leaky_relu" if slope == 0.01 else LeakyRelu(slope))


def _attention(module: Any, mask: Array | None) -> Attention:
    if not module.batch_first or not module._qkv_same_embed_dim:
        raise _Unread("batch_first=False, or several embedding dimensions")
    if module.bias_k is not None or module.add_zero_attn:
        raise _Unread("add_bias_kv or add_zero_attn")
    query, key, value = np.split(as_array(module.in_proj_weight), 3)
    bias = as_array(module.in_proj_bias)
    biases = (None, None, None) if bias is None else np.split(bias, 3)
    return Attention(
        query,
        key,
        value,
        as_array(module.out_proj.weight),
        n_heads=module.num_heads,
        query_bias=biases[0],
        key_bias=biases[1],
        value_bias=biases[2],
        output_bias=as_array(module.out_proj.bias),
        mask=mask,
    )


# The layer of a module of each class, None where it does nothing in evaluation mode.
_MODULES: dict[str, Callable[[Any], Layer] | None] = {
    "AdaptiveAvgPool2d": _global_pool,
    "AlphaDropout": None,
    "AvgPool2d": _avg_pool,
    "BatchNorm1d": _batch_norm,
    "BatchNorm2d": _batch_norm,
    "Conv2d": _conv,
    "Dropout": None,
    "Dropout1d": None,
    "Dropout2d": None,
    "ELU": _elu,
    "FeatureAlphaDropout": None,
    "Flatten": _flatten,
    "GELU": _gelu,
    "Hardtanh": lambda module: Activation(Clip(module.min_val, module.max_val)),
    "Identity": None,
    "LayerNorm": _layer_norm,
    "LeakyReLU": _leaky_relu,
    "Linear": lambda module: Dense(as_array(module.weight), as_array(module.bias), "identity"),
    "MaxPool2d": _max_pool,
    "MultiheadAttention": None,
    "PReLU": _prelu,
    "RMSNorm": _rms_norm,
    "ReLU": lambda module: Activation("relu"),
    "ReLU6": lambda module: Activation(Clip(0.0, 6.0)),
    "SELU": lambda module: Activation("selu"),
    "SiLU": lambda module: Activation("silu"),
    "Sigmoid": lambda module: Activation("sigmoid"),
    "Softmax": lambda module: Softmax(),
    "Softplus": _softplus,
    "Tanh": lambda module: Activation("tanh"),
}


class _Unread(Exception):
    """What about a module or a call is not read, for the error."""


class _Reading:
    """The walk through the calls that torch.fx traced of one module."""

    def __init__(self, torch: Any, model: Any) -> None:
        self.torch = torch
        # As the only part of a sequence, so that a module without parts is called like others.
        self.root = torch.nn.Sequential(model)
        functional = torch.nn.functional
        # What is called, by name; a name that ends in an underscore changes its argument.
        self.called: dict[Any, str] = {
            getattr(home, name + end): name + end
            for home, names in (
                # torch.dropout and torch.max_pool2d have arguments of their own.
                (torch, {*_FUNCTIONS, *_CALLS} - {"dropout", "max_pool2d"}),
                (functional, {*_FUNCTIONS, "linear", "pad"}),
                (operator, {"add", "getitem", "mul"}),
            )
            for name in names
            for end in ("", "_")
            if hasattr(home, name + end)
        }
        self.called |= {operator.iadd: "add_", operator.imul: "mul_", getattr: "getattr"}
        # Of the calls: the tensor in the graph, the constant or the size that they return.
        self.tensors: dict[Any, str] = {}
        self.constants: dict[Any, Any] = {}
        self.sizes: dict[Any, Any] = {}
        self.attended: dict[Any, str] = {}
        # Of the tensors, where known: 3 for sequences and 4 for images, and how many features.
        self.ndim: dict[str, int | None] = {}
        self.width: dict[str, int | None] = {}

    def layers(self) -> list[Layer]:
        first, *calls, last = _traced(self.torch, self.root, self._kind).nodes
        self.graph = Graph(first.name)
        self.tensors[first] = first.name
        self.ndim[first.name] = self.width[first.name] = None
        for call in calls:
            self._read(call)
        output = last.args[0]
        if not isinstance(output, self.torch.fx.Node) or output not in self.tensors:
            raise ValueError(
                f"model returns {output}, not one tensor that is computed from its inputs; use "
                "jacrot.readers.capture, which takes any module."
            )
        return self.graph.layers(self.tensors[output])

    def _read(self, call: Any) -> None:
        module = self.root.get_submodule(call.target) if call.op == "call_module" else None
        try:
            if module is not None:
                self._read_module(call, module)
            elif call.op == "get_attr":
                self.constants[call] = operator.attrgetter(call.target)(self.root)
            elif call.op == "call_method":
                self._read_function(call, call.target)
            else:
                self._read_function(call, self.called.get(call.target, ""))
        except (_Unread, ValueError, TypeError) as error:
            if module is not None:
                path, what = call.target, type(module).__name__
            else:
                path = ["", *call.meta.get("nn_module_stack", ())][-1]
                what = getattr(call.target, "__name__", call.target)
            path = path.removeprefix("0").removeprefix(".") or "model"
            why = f" ({error})" if str(error) else ""
            raise ValueError(
                f"{path}: from_torch does not read this {what}{why}; jacrot.readers.capture takes "
                "any module."
            ) from error

    def _kind(self, module: Any) -> str | None:
        """Find the class of torch.nn whose forward a module has."""
        for kind in type(module).__mro__:
            if kind.__name__ in _MODULES and kind is getattr(self.torch.nn, kind.__name__, None):
                return kind.__name__ if type(module).forward is kind.forward else None
        return None

    def _read_module(self, call: Any, module: Any) -> None:
        kind = self._kind(module)
        if kind is None:
            raise _Unread
        if kind == "MultiheadAttention":
            self._attention(call, module)
        elif len(call.args) != 1 or call.kwargs:
            raise _Unread("it is given several arguments")
        else:
            self._apply_module(call, kind, module)

    def _read_function(self, call: Any, name: str) -> None:
        changes, name = name.endswith("_"), name.removesuffix("_")
        source = self.tensors.get(call.args[0]) if call.args else None
        if name in _FUNCTIONS:
            options = {key: value for key, value in call.kwargs.items() if value is not None}
            options.pop("_stacklevel", None)
            if options.pop("training", False):
                raise _Unread("it also drops out in evaluation mode")
            kind = _FUNCTIONS[name]
            self._apply_module(call, kind, getattr(self.torch.nn, kind)(*call.args[1:], **options))
        elif name in _CALLS:
            _CALLS[name](self, call, *call.args, **call.kwargs)
        else:
            raise _Unread
        if changes and source is not None:
            self._overwrite(source, call)

    def _tensor(self, value: Any) -> str:
        if value not in self.tensors:
            raise _Unread(f"{value} is no tensor that is computed from the inputs")
        return self.tensors[value]

    def _apply(self, call: Any, source: str, layers: list[Layer], ndim: int | None) -> None:
        for index, layer in enumerate(layers):
            result = f"{call.name}.{index}"
            self.graph.apply(layer, source, result)
            kept = None if isinstance(layer, Flatten) else self.width[source]
            self.width[result] = layer.n_outputs or kept
            self.ndim[result] = ndim
            source = result
        self.tensors[call] = source

    def _overwrite(self, source: str, call: Any) -> None:
        """Let all that have a tensor which a call changed have its result."""
        for other, tensor in self.tensors.items():
            if tensor == source:
                self.tensors[other] = self.tensors[call]

    def _apply_module(self, call: Any, kind: str, module: Any) -> None:
        source = self._tensor(call.args[0])
        ndim = self.ndim[source]
        if kind in ("Linear", "LayerNorm", "RMSNorm") and ndim == 4:
            raise _Unread("it reads images, of which the last axis are not the features")
        if kind == "BatchNorm1d" and ndim is not None:
            raise _Unread("it reads no rows")
        if kind == "Softmax" and module.dim not in {3: (2, -1), 4: (1, -3)}.get(ndim or 2, (1, -1)):
            raise _Unread(f"dim={module.dim} is not that of the features")
        make = _MODULES[kind]
        if kind.endswith("2d"):
            ndim = 4
        elif kind == "Flatten":
            ndim = None
        self._apply(call, source, [] if make is None else [make(module)], ndim)
        if getattr(module, "inplace", False):
            self._overwrite(source, call)

    def _attention(self, call: Any, module: Any) -> None:
        names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask")
        given = dict(zip(names, call.args, strict=False)) | call.kwargs
        source, mask = self._tensor(given["query"]), given.get("attn_mask")
        if {self._tensor(given[name]) for name in names[:3]} != {source}:
            raise _Unread("query, key and value are not one tensor")
        if given.get("key_padding_mask") is not None:
            raise _Unread("it has a key_padding_mask")
        if mask is not None:
            mask = as_array(self.constants.get(mask))
            blocked = 1 if mask is not None and mask.dtype == bool else -np.inf
            if mask is None or mask.ndim != 2 or not np.isin(mask, (0, blocked)).all():
                raise _Unread("its attn_mask is no matrix of bool, or of 0 and -inf, of the module")
            # PyTorch's is True, or -inf, where it does not look.
            mask = mask == 0
        self._apply(call, source, [_attention(module, mask)], 3)
        # What it returns is this tensor and the pattern.
        self.attended[call] = self.tensors.pop(call)

    def _add(self, call: Any, first: Any, second: Any, alpha: float = 1) -> None:
        if alpha != 1:
            raise _Unread(f"alpha={alpha}")
        self._combine(self.graph.add, call, first, second)

    def _mul(self, call: Any, first: Any, second: Any) -> None:
        self._combine(self.graph.multiply, call, first, second)

    def _combine(self, combine: Callable[..., None], call: Any, first: Any, second: Any) -> None:
        source, other = self._tensor(first), self._tensor(second)
        combine(source, other, call.name)
        self.tensors[call] = call.name
        self.ndim[call.name] = self.ndim[source] or self.ndim[other]
        self.width[call.name] = self.width[source] if self.width[source] != 1 else self.width[other]

    def _linear(self, call: Any, source: Any, weight: Any, bias: Any = None) -> None:
        if weight not in self.constants or bias not in (None, *self.constants):
            raise _Unread("its weight or bias is computed")
        if self.ndim[self._tensor(source)] == 4:
            raise _Unread("it reads images, of which the last axis are not the features")
        arrays = [as_array(self.constants.get(value)) for value in (weight, bias)]
        layer = Dense(arrays[0], arrays[1], "identity")
        self._apply(call, self._tensor(source), [layer], self.ndim[self._tensor(source)])

    def _flatten(self, call: Any, source: Any, start_dim: int = 0, end_dim: int = -1) -> None:
        self._apply_module(call, "Flatten", self.torch.nn.Flatten(start_dim, end_dim))

    def _reshape(self, call: Any, source: Any, *shape: Any) -> None:
        shape = shape[0] if len(shape) == 1 else shape
        if len(shape) != 2 or self.sizes.get(shape[0]) != 0 or shape[1] != -1:
            raise _Unread("to another shape than (x.size(0), -1); write torch.flatten(x, 1)")
        self._apply(call, self._tensor(source), [Flatten()], None)

    def _mean(self, call: Any, source: Any, dim: Any = None, keepdim: bool = False) -> None:
        if not isinstance(dim, tuple | list) or sorted(dim) not in ([2, 3], [-2, -1]):
            raise _Unread("over other axes than (2, 3) of images")
        layers: list[Layer] = [AvgPool2d()] if keepdim else [AvgPool2d(), Flatten()]
        self._apply(call, self._tensor(source), layers, 4 if keepdim else None)

    def _pad(
        self, call: Any, source: Any, pad: Any, mode: str = "constant", value: Any = None
    ) -> None:
        if len(pad) != 6 or any(pad[:4]) or mode != "constant" or value not in (None, 0):
            raise _Unread("with something else than channels of zeros")
        width = self.width[self._tensor(source)]
        if width is None:
            raise _Unread("of channels whose number no layer before it tells")
        # Ones and zeros are exact, and in single precision they keep that of the inputs.
        channels = np.pad(np.eye(width, dtype=np.float32), ((pad[4], pad[5]), (0, 0)))
        self._apply(call, self._tensor(source), [Basis(channels)], 4)

    def _getitem(self, call: Any, source: Any, index: Any) -> None:
        if source in self.sizes:
            self.sizes[call] = index
        elif source in self.attended:
            if index == 0:
                self.tensors[call] = self.attended[source]
            elif call.users:
                raise _Unread("of the pattern of an attention")
        else:
            step = getattr(index[-1], "step", None) if isinstance(index, tuple) else None
            every, some = slice(None), slice(None, None, step)
            if step is None or index not in ((every, every, some, some), (..., some, some)):
                raise _Unread("of something else than every s-th row and column of images")
            self._apply(call, self._tensor(source), [AvgPool2d(1, stride=step)], 4)

    def _getattr(self, call: Any, source: Any, name: str) -> None:
        if name != "shape":
            raise _Unread(name)
        self.sizes[call] = None

    def _size(self, call: Any, source: Any, dim: int | None = None) -> None:
        self.sizes[call] = dim

    def _copy(self, call: Any, source: Any) -> None:
        self.graph.alias(self._tensor(source), call.name)
        self.tensors[call] = call.name
        self.ndim[call.name] = self.ndim[self._tensor(source)]
        self.width[call.name] = self.width[self._tensor(source)]


# What is done with functions and methods of these names.
_CALLS: dict[str, Callable[..., None]] = {
    "add": _Reading._add,
    "clone": _Reading._copy,
    "contiguous": lambda self, call, source: self._apply(call, self._tensor(source), [], None),
    "flatten": _Reading._flatten,
    "getattr": _Reading._getattr,
    "getitem": _Reading._getitem,
    "linear": _Reading._linear,
    "mean": _Reading._mean,
    "mul": _Reading._mul,
    "pad": _Reading._pad,
    "reshape": _Reading._reshape,
    "size": _Reading._size,
    "view": _Reading._reshape,
}


def _traced(torch: Any, root: Any, kind: Callable[[Any], str | None]) -> Any:
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
