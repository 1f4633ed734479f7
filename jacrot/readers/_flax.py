"""Conversion of variables of ``flax.linen`` and of modules of ``flax.nnx``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import Array
from jacrot._utils.optional import import_optional
from jacrot.activations import ACTIVATIONS, Clip, elu, leaky_relu
from jacrot.layers import (
    Activation,
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
from jacrot.layers._weights import ActivationLike
from jacrot.layers._windows import Padding, Pair
from jacrot.network import Network
from jacrot.readers._common import same_padding
from jacrot.readers._flax_order import Entry, default_chain, join_names

_GEOMETRY = {"strides": 1, "padding": "SAME", "dilation": 1}
_NAMED = ("relu", "selu", "sigmoid", "silu", "softplus", "tanh")
_MODULES = ("BatchNorm", "Conv", "Dropout", "LayerNorm", "Linear", "RMSNorm", "Sequential")


def from_flax(
    params: Any,
    activation: ActivationLike = "relu",
    *,
    chain: Sequence[Any] | None = None,
    batch_stats: Mapping[str, Any] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    strides: Any = 1,
    padding: Any = "SAME",
    dilation: Any = 1,
    epsilon: float | None = None,
) -> Network:
    """Convert variables of a ``flax.linen`` model, or a chain of ``flax.nnx`` modules.

    Parameters
    ----------
    params : mapping, nnx.Sequential or sequence
        The result of ``model.init``, or its ``"params"``: a flat mapping of ``Dense`` and ``Conv``
        entries, convolutions before dense layers, each called once. Numbers in names of lists and
        attributes (``layers_2`` before ``layers_10``) determine their order. Numbers in automatic
        names (``Dense_0``) do not: they count constructions, and ``Dense(8)(relu(Dense(8)(x)))``
        constructs the last layer first. Such entries are accepted if their widths chain in a
        single order. Otherwise pass `chain`. For ``flax.nnx``: a ``Sequential`` or a list of
        ``Linear``, ``Conv``, ``BatchNorm``, ``LayerNorm``, ``RMSNorm``, ``Dropout``, functions of
        ``jax.nn``, ``functools.partial`` of these and of ``nnx.avg_pool`` and ``nnx.max_pool``, and
        :mod:`jacrot.layers`; modules contain their geometry.
    activation : str, callable or sequence of them, default="relu"
        Activation after every ``Dense`` and ``Conv`` of a mapping, including the last, or one for
        each. Callables are functions of ``jax.nn`` or written with ``autograd.numpy``. A chain
        contains its activations.
    chain : sequence, default=None
        The computation of the model, in order: names of entries of `params` (for nested entries
        ``"block/Dense_0"``), names of activations, functions of ``jax.nn``, and
        :mod:`jacrot.layers` for operations without parameters, such as ``AvgPool2d(2)`` and
        ``Flatten()``.
    batch_stats : mapping, default=None
        Running statistics of ``BatchNorm`` entries, by default those of the result of
        ``model.init``.
    image_shape : tuple of int, default=None
        ``(height, width, channels)`` of the images, as in Flax. Required to flatten images, which
        Flax does with the channels last, and for ``"SAME"`` padding with strides.
    strides, padding, dilation : int, str, pair or mapping, default=1, "SAME", 1
        Geometry of convolutions of a mapping, as in ``flax.linen.Conv``, which is not part of the
        variables. A mapping of names to values sets them by entry, with the default for others.
    epsilon : float, default=None
        Added to the variance by norms of a mapping; ``None`` is Flax's default, 1e-5 for
        ``BatchNorm`` and 1e-6 for ``LayerNorm`` and ``RMSNorm``.

    Returns
    -------
    Network
        The network at inference, with batch norm folded into the layer before it. Images have
        shape ``(n, channels, height, width)``: use ``network(images.transpose(0, 3, 1, 2))``.
        Outputs that are images are transposed in the same way.

    Raises
    ------
    ImportError
        If modules of ``flax.nnx`` are passed and Flax is not installed.
    TypeError
        If `params` is not of these types.
    ValueError
        If an entry or a module is not supported, or the order is not determined; the message names
        it.

    Warns
    -----
    UserWarning
        If an entry with an automatic name has as many outputs as inputs: the model may call it
        several times, while the network applies it once.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.readers import from_flax
    >>> def entry(*shape):
    ...     return {"kernel": np.ones(shape), "bias": np.zeros(shape[-1])}
    >>> params = {"Dense_0": entry(3, 4), "Dense_1": entry(4, 2)}
    >>> from_flax({"params": params}, activation=["gelu", "identity"])
    Network(3 → 4 → 2; gelu, identity)
    >>> params = {"Conv_0": entry(3, 3, 1, 2), "Dense_0": entry(8, 5)}
    >>> from jacrot.layers import AvgPool2d, Flatten
    >>> chain = ["Conv_0", "relu", AvgPool2d(2), Flatten(), "Dense_0"]
    >>> network = from_flax(params, chain=chain, image_shape=(4, 4, 1))
    >>> network(np.ones((1, 1, 4, 4))).shape
    (1, 5)
    """
    geometry = {"strides": strides, "padding": padding, "dilation": dilation}
    entries: dict[str, Entry] = {}
    statistics: dict[str, Entry] = {}
    if isinstance(params, Mapping):
        if batch_stats is None and "params" in params:
            batch_stats = params.get("batch_stats")
        entries, statistics = _entries(params.get("params", params)), _entries(batch_stats or {})
    elif not isinstance(params, (list, tuple)) and not _is_module(params):
        raise TypeError(
            f"params is a {type(params).__name__}; pass the variables of a flax.linen model "
            "(a mapping), a flax.nnx.Sequential, or a list of flax.nnx modules and functions."
        )
    elif (chain, batch_stats, epsilon) != (None, None, None) or geometry != _GEOMETRY:
        raise ValueError(
            "modules of flax.nnx contain their order, statistics and geometry; do not pass chain, "
            "batch_stats, strides, padding, dilation or epsilon."
        )
    items, name = params, "params"
    if isinstance(params, Mapping):
        items, name = chain, "chain"
        if chain is None:
            items, activation = default_chain(entries, activation, image_shape), "relu"
    if not (isinstance(activation, str) and activation == "relu"):
        raise ValueError("a chain contains its activations; do not pass activation.")
    reader = FlaxReader(entries, statistics, geometry, epsilon, image_shape)
    reader.read(items, name)
    # An empty chain is the identity.
    return Network(fused(reader.finish()) or [Activation("identity")])


class FlaxReader:
    """Converts the parts of a chain in order."""

    def __init__(
        self,
        entries: dict[str, Entry],
        statistics: dict[str, Entry],
        geometry: dict[str, Any],
        epsilon: float | None,
        image_shape: tuple[int, int, int] | None,
    ) -> None:
        self.entries, self.statistics = entries, statistics
        self.geometry, self.epsilon = geometry, epsilon
        self.layers: list[Layer] = []
        # The output so far, for its shape, and its number of features.
        self.x: Array | None = None
        self.width: int | None = None
        if image_shape is not None:
            height, width, channels = image_shape
            self.x = np.zeros((1, channels, height, width), np.float32)
            self.width = channels
        # Order of flattened images in Flax: its entry j is entry order[j] of the network.
        self.order: NDArray[np.intp] | None = None

    def read(self, item: Any, name: str) -> None:
        if isinstance(item, str):
            if item in self.entries:
                self.entry(item)
            elif item in ACTIVATIONS or item == "softmax":
                self.add(Softmax() if item == "softmax" else Activation(item), item)
            else:
                raise ValueError(
                    f"{name} is {item!r}, neither an entry of params, {join_names(self.entries)}, "
                    f"nor an activation, {join_names([*ACTIVATIONS, 'softmax'])}."
                )
        elif isinstance(item, Layer):
            if isinstance(item, Flatten):
                self.flatten(name)
            elif not isinstance(item, (Activation, Softmax)):
                self.restore_order()
            self.add(item, name)
        elif isinstance(item, (list, tuple)):
            for index, part in enumerate(item):
                self.read(part, f"{name}[{index}]")
        elif _is_module(item):
            self.module(item, name)
        elif callable(item):
            self.function(item, name)
        else:
            raise TypeError(
                f"{name} is a {type(item).__name__}; pass a module or a function of Flax, a layer "
                "of jacrot.layers, or a name."
            )

    def finish(self) -> list[Layer]:
        self.restore_order()
        return self.layers

    def add(self, layer: Layer, name: str) -> None:
        self.layers.append(layer)
        if layer.n_outputs is not None:
            self.width = layer.n_outputs
        if self.x is not None:
            try:
                self.x = layer(self.x)
            except ValueError as error:
                raise ValueError(
                    f"{name}, {layer!r}, does not accept inputs of shape {self.x.shape[1:]} "
                    f"({error}); check image_shape, and include operations without parameters, "
                    "such as pooling, in chain."
                ) from error

    def restore_order(self) -> None:
        """Permute flattened images to the order of Flax."""
        if self.order is not None:
            matrix = np.eye(len(self.order), dtype=np.float32)[self.order]
            self.order = None
            self.add(Basis(matrix), "flattened images")

    def flatten(self, name: str) -> None:
        if self.x is not None and self.x.ndim == 4:
            places = np.arange(self.x.size).reshape(self.x.shape[1:])
            self.order = places.transpose(1, 2, 0).ravel()
        elif self.x is None and any(isinstance(layer, Conv2d) for layer in self.layers):
            raise ValueError(
                f"{name}: Flax flattens images with the channels last, so that their size must be "
                "known; pass image_shape=(height, width, channels) of the inputs."
            )

    def vector(self, given: Any) -> Array | None:
        """Convert a vector of features to the order of the network."""
        vector = _array(given)
        return vector if vector is None or self.order is None else vector[np.argsort(self.order)]

    def dense(self, kernel: Any, bias: Any, name: str) -> None:
        weight = _array(kernel).T
        if self.order is not None and weight.shape[1] == len(self.order):
            weight, self.order = weight[:, np.argsort(self.order)], None
        if self.x is not None and self.x.ndim == 4:
            self.add(Conv2d(weight[:, :, None, None], _array(bias), "identity"), name)
        else:
            self.add(Dense(weight, _array(bias), "identity"), name)

    def convolution(
        self, kernel: Any, bias: Any, name: str, geometry: dict[str, Any], groups: int | None
    ) -> None:
        weight = _array(kernel).transpose(3, 2, 0, 1)
        if groups is None:
            # Not part of the variables, but determined by the number of input channels.
            groups = 1 if self.width is None else max(1, self.width // weight.shape[1])
        stride, dilation = _pair(geometry["strides"]), _pair(geometry["dilation"])
        self.add(
            Conv2d(
                weight,
                _array(bias),
                "identity",
                stride=stride,
                padding=self.padding(geometry["padding"], weight.shape[2:], stride, dilation, name),
                dilation=dilation,
                groups=groups,
            ),
            name,
        )

    def padding(self, given: Any, kernel: Any, stride: Pair, dilation: Pair, name: str) -> Padding:
        if isinstance(given, str):
            if given.upper() == "VALID":
                return 0
            if given.upper() != "SAME":
                raise ValueError(
                    f"{name} has padding {given!r}; only 'SAME', 'VALID' and numbers are supported."
                )
            sizes = (None, None) if self.x is None else self.x.shape[2:]
            try:
                return same_padding(sizes, kernel, stride, dilation)
            except ValueError as error:
                raise ValueError(
                    f"{name}: {error}; pass image_shape=(height, width, channels) of the inputs."
                ) from error
        rows, columns = [given] * 2 if isinstance(given, int) else given
        return _pair(rows), _pair(columns)

    def entry(self, name: str) -> None:
        """Convert the variables of one module of flax.linen."""
        entry = self.entries[name] | self.statistics.get(name, {})
        kind = re.sub(r"_?\d*$", "", name.split("/")[-1])
        shape = np.shape(entry.get("kernel", ()))
        if entry.keys() <= {"kernel", "bias"} and len(shape) == 2:
            self.dense(entry["kernel"], entry.get("bias"), name)
        elif entry.keys() <= {"kernel", "bias"} and len(shape) == 4 and "Transpose" not in kind:
            geometry = {
                option: value.get(name, _GEOMETRY[option]) if isinstance(value, Mapping) else value
                for option, value in self.geometry.items()
            }
            self.convolution(entry["kernel"], entry.get("bias"), name, geometry, None)
        elif {"mean", "var"} <= entry.keys() <= {"mean", "var", "scale", "bias"}:
            self.norm("BatchNorm", entry, self.epsilon or 1e-5, name)
        elif kind in ("LayerNorm", "RMSNorm") and entry.keys() <= {"scale", "bias"}:
            self.norm(kind, entry, self.epsilon or 1e-6, name)
        else:
            shapes = {key: np.shape(value) for key, value in entry.items()}
            raise ValueError(
                f"params[{name!r}] has {shapes}, which is not a Dense, a two-dimensional Conv, a "
                "BatchNorm with batch_stats, a LayerNorm or an RMSNorm; from_flax supports only "
                "these."
            )

    def norm(self, kind: str, arrays: Entry, epsilon: float, name: str) -> None:
        weight, bias = self.vector(arrays.get("scale")), self.vector(arrays.get("bias"))
        if kind == "BatchNorm":
            mean, variance = self.vector(arrays["mean"]), self.vector(arrays["var"])
            assert mean is not None
            assert variance is not None
            self.add(BatchNorm(mean, variance, weight, bias, epsilon), name)
        elif kind == "LayerNorm":
            self.add(LayerNorm(weight, bias, epsilon), name)
        else:
            self.add(RMSNorm(weight, epsilon), name)

    def module(self, module: Any, name: str) -> None:
        """Convert a module of flax.nnx."""
        nnx = import_optional("flax.nnx", caller="from_flax", extra="flax")
        kind = type(module).__name__
        # A subclass may compute another function.
        if getattr(nnx, kind, None) is not type(module) or kind not in _MODULES:
            raise ValueError(
                f"{name} is a {kind}, which from_flax does not support; it supports "
                f"{', '.join(_MODULES)}. For a custom module pass the list of its parts, in the "
                "order of computation, with jacrot.layers for operations without parameters."
            )
        if kind == "Sequential":
            self.read(list(module.layers), name)
        elif kind == "Linear":
            self.dense(module.kernel, module.bias, name)
        elif kind == "Conv":
            if (
                module.mask is not None
                or len(module.kernel_size) != 2
                or (_pair(module.input_dilation) != (1, 1))
            ):
                raise ValueError(
                    f"{name} is a Conv with a mask, with input dilation or not of images, which is "
                    "not supported."
                )
            geometry = {
                "strides": module.strides,
                "padding": module.padding,
                "dilation": module.kernel_dilation,
            }
            groups = module.feature_group_count
            self.convolution(module.kernel, module.bias, name, geometry, groups)
        elif kind != "Dropout":
            axes = {
                getattr(module, axis, -1) for axis in ("axis", "reduction_axes", "feature_axes")
            }
            if axes != {-1}:
                raise ValueError(
                    f"{name} is a {kind} over other axes than the last; not supported."
                )
            self.norm(kind, vars(module), module.epsilon, name)

    def function(self, function: Any, name: str) -> None:
        """Convert a function of ``jax.nn``, or a pooling with its options."""
        jax_nn = import_optional("jax.nn", caller="from_flax", extra="flax")
        linen = import_optional("flax.linen", caller="from_flax", extra="flax")
        options: dict[str, Any] = {}
        while isinstance(function, partial) and not function.args:
            function, options = function.func, {**function.keywords, **options}
        known: dict[str, Callable[..., Any]] = {
            "elu": lambda alpha=1.0: Activation(elu(float(alpha))),
            "gelu": lambda approximate=True: Activation("gelu_tanh" if approximate else "gelu"),
            "identity": lambda: None,
            "leaky_relu": lambda negative_slope=0.01: Activation(leaky_relu(float(negative_slope))),
            "relu6": lambda: Activation(Clip(0, 6)),
            "softmax": lambda axis=-1: Softmax() if axis == -1 else NotImplemented,
            **{named: partial(Activation, named) for named in _NAMED},
        }
        makers = [(getattr(jax_nn, key, None), make) for key, make in known.items()]
        makers += [
            (linen.avg_pool, partial(self.pool, AvgPool2d, name)),
            (linen.max_pool, partial(self.pool, MaxPool2d, name)),
        ]
        make = next((make for candidate, make in makers if candidate is function), None)
        try:
            layer = NotImplemented if make is None else make(**options)
        except TypeError:
            layer = NotImplemented
        if layer is NotImplemented:
            described = getattr(function, "__name__", type(function).__name__)
            raise ValueError(
                f"{name} is the function {described}{options or ''}, which from_flax does not "
                f"support; it supports {', '.join(known)} of jax.nn, avg_pool and max_pool. Pass a "
                "layer of jacrot.layers instead, such as Flatten() or Activation(function)."
            )
        if layer is not None:
            self.read(layer, name)

    def pool(
        self,
        kind: Any,
        name: str,
        /,
        window_shape: Any,
        strides: Any = None,
        padding: Any = "VALID",
        count_include_pad: bool = True,
    ) -> Layer:
        size, stride = _pair(window_shape), _pair(1 if strides is None else strides)
        places = self.padding(padding, size, stride, (1, 1), name)
        if kind is AvgPool2d:
            return AvgPool2d(size, stride, places, count_include_pad)
        return MaxPool2d(size, stride, places)


def _entries(tree: Mapping[Any, Any], path: str = "") -> dict[str, Entry]:
    """Return the variables of every module by its path."""
    entries: dict[str, Entry] = {}
    arrays = {str(key): value for key, value in tree.items() if not isinstance(value, Mapping)}
    if arrays:
        entries[path] = arrays
    for key, value in tree.items():
        if isinstance(value, Mapping):
            entries |= _entries(value, f"{path}/{key}" if path else str(key))
    return entries


def _array(variable: Any) -> Any:
    if variable is None:
        return None
    array = np.asarray(variable)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _pair(given: Any) -> Pair:
    if given is None:
        return 1, 1
    first, second = (given, given) if np.ndim(given) == 0 else given
    return int(first), int(second)


def _is_module(item: Any) -> bool:
    return any(
        kind.__name__ == "Module" and kind.__module__.startswith("flax.nnx")
        for kind in type(item).__mro__
    )
