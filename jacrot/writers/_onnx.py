"""ONNX files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from jacrot._io.files import atomic_write
from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot._utils.optional import require
from jacrot.activations import _SELU_ALPHA, _SELU_SCALE, _TANH_GELU
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    Basis,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    GatedDense,
    LayerNorm,
    MaxPool2d,
    Residual,
    RMSNorm,
    Sequential,
    Softmax,
)
from jacrot.layers._attention import SIDES
from jacrot.layers._windows import Pair
from jacrot.network import Network
from jacrot.readers._common import Clip, Elu, LeakyRelu
from jacrot.readers._onnx_elementwise import Expression
from jacrot.writers._common import (
    activation_key,
    check_known,
    common_dtype,
    ndims_read,
    passed_on,
)

# The first that has GELU; onnx 1.15 and ONNX Runtime 1.17 brought it.
OPSET = 20
# What axes are called whose size is not fixed, by the number of dimensions.
_AXES = {
    2: ("n_features",),
    3: ("n_positions", "n_features"),
    4: ("n_channels", "height", "width"),
}
_KINDS = {2: "rows", 3: "sequences", 4: "images"}
# Protocol buffers, in which ONNX files are written, hold no more.
MAX_BYTES = 2**31 - 1
# A stored tensor of more entries holds weights, and no number or shape that the checks need.
LARGE = 1024


def to_onnx(
    network: Network,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int | None] | None = None,
    dtype: DTypeLike | None = None,
) -> None:
    """Write an ONNX file that computes the same function.

    The graph reads ``x`` and writes ``y``, batches of any number of samples. The file appears whole
    or not at all.

    Parameters
    ----------
    network : Network
        The network. Functions and layers of one's own cannot be written.
    path : str or path-like
        Where to, ending in ``.onnx``.
    input_shape : sequence of (int or None), default=None
        Shape of one sample, ``None`` for an axis of any size: ``(n_features,)`` for rows,
        ``(n_positions, n_features)`` for sequences, ``(n_channels, height, width)`` for images. By
        default it is rows where the network reads rows, else sequences or images of any size.
    dtype : {"float32", "float64"}, default=None
        Precision of the weights and of ``x`` and ``y``. ``None`` is that of the network: float32 if
        all of its arrays are, else float64, as for a rotated network.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    OSError
        If the file cannot be written; see :meth:`jacrot.Network.save`.
    TypeError
        If `network` is no ``Network``.
    ValueError
        If a layer or an activation is a user's own, the message naming it; if the network does not
        read `input_shape`; if `path` has another ending or `dtype` is another; or if the weights
        take more than 2 GB, which an ONNX file cannot hold.

    Notes
    -----
    Operator set 20, which ONNX Runtime reads from version 1.17 on. In float64, ONNX Runtime has no
    convolution, no average pooling and no error function (``"gelu"``) on the CPU: files of such
    networks are valid, but write ``dtype="float32"`` to run them there.

    Examples
    --------
    >>> import os, tempfile
    >>> from jacrot import Network
    >>> from jacrot.readers import from_onnx
    >>> from jacrot.writers import to_onnx
    >>> network = Network([[[1.0, 2.0], [0.0, 1.0]], [[1.0, 1.0]]], ["relu", "identity"])
    >>> rotated = network.rotated({1: [[0.6, 0.8], [-0.8, 0.6]]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "rotated.onnx")
    ...     to_onnx(rotated, path)
    ...     same = from_onnx(path)
    >>> same([[1.0, 1.0]]), network([[1.0, 1.0]])
    (array([[4.]]), array([[4.]]))
    """
    onnx = require("onnx", "to_onnx", "onnx")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"path={str(path)!r} must end in '.onnx'.")
    check_known(network, _LAYERS, _ACTIVATIONS, "to_onnx")
    if dtype not in (None, "float32", "float64", np.float32, np.float64):
        raise ValueError(f"dtype={dtype!r} must be 'float32' or 'float64'.")
    precision = common_dtype(network) if dtype is None else np.dtype(dtype)
    model = _model(onnx, network, _input_shape(network, input_shape), precision)
    content = model.SerializeToString()
    with atomic_write(path) as file:
        file.write(content)


def _input_shape(network: Network, given: Sequence[int | None] | None) -> tuple[int | str, ...]:
    """Find the shape of a sample, a name for each axis of any size."""
    read = ndims_read(network.layers)[0]
    if not read:
        raise ValueError(
            f"{network!r} reads neither rows nor sequences nor images to its end; write the layers "
            "in the order in which they are computed, with Flatten() before the first Dense that "
            "reads images."
        )
    sizes: tuple[Any, ...] = (None,) * (min(read) - 1)
    if given is not None:
        sizes = tuple(given) if isinstance(given, Sequence) else ()
    ndim = len(sizes) + 1
    if ndim not in read or not all(map(_is_size, sizes)):
        kinds = [f"{_KINDS[ndim]} ({', '.join(_AXES[ndim])})" for ndim in sorted(read)]
        raise ValueError(
            f"input_shape={given!r}, but the network reads {' or '.join(kinds)}; write a whole "
            "number for each axis, or None for any size."
        )
    axis = FEATURES_AXIS[ndim] - 1
    width = network.n_inputs
    if width is not None and sizes[axis] not in (None, width):
        raise ValueError(
            f"input_shape={given!r} has {sizes[axis]} features, but the network reads {width}; "
            f"write {width}, or None."
        )
    sizes = (*sizes[:axis], sizes[axis] or width, *sizes[axis + 1 :])
    names = _AXES[ndim]
    return tuple(int(size) if size else name for size, name in zip(sizes, names, strict=True))


def _is_size(size: Any) -> bool:
    return size is None or (isinstance(size, Integral) and int(size) >= 1)


def _model(onnx: Any, network: Network, shape: tuple[int | str, ...], dtype: np.dtype[Any]) -> Any:
    """Make a model that the checker accepts, with the shapes of all tensors."""
    helper = onnx.helper
    graph = _Graph(helper, dtype)
    last, _ = _chain(graph, network.layers, "x", len(shape) + 1)
    graph.nodes.append(helper.make_node("Identity", [last], ["y"], "y"))
    size = sum(array.nbytes for array in graph.stored.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"the weights take {size / 2**30:.1f} GB in {dtype}, and an ONNX file holds 2; write "
            "dtype='float32', or parts of the network (network[:site], network[site:]) each into "
            "a file of its own."
        )
    # The checks copy a model several times: weights are declared for them, and put in afterwards.
    weights = {name: array for name, array in graph.stored.items() if array.size > LARGE}
    declared = {"x": (dtype, ["n_samples", *shape])} | {
        name: (array.dtype, array.shape) for name, array in weights.items()
    }
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), sizes)
        for name, (kind, sizes) in declared.items()
    ]
    output = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(dtype), None)
    small = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in graph.stored.items()
        if name not in weights
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "network", inputs, [output], small),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="jacrot",
    )
    # The newest by default, which older runtimes refuse.
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model)
    del model.graph.input[1:]
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


@dataclass(frozen=True)
class _Graph:
    """The nodes and stored tensors of a graph that is being written, at some layer of it."""

    helper: Any
    dtype: np.dtype[Any]
    place: str = ""
    nodes: list[Any] = field(default_factory=list)
    stored: dict[str, NDArray[Any]] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)

    @property
    def single(self) -> bool:
        """Whether in single precision, in which the attributes of all operators are."""
        return bool(self.dtype == np.float32)

    def inside(self, name: object) -> _Graph:
        """Make the same graph at a layer inside of this one."""
        return replace(self, place=f"{self.place}{name}.")

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and give the name of what it computes."""
        name = self.name(operator)
        self.nodes.append(self.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def store(self, name: str, array: Any) -> str:
        """Add a stored tensor, and give its name."""
        array = np.asarray(array)
        name = self.name(name)
        if array.dtype.kind == "f":
            array = array.astype(self.dtype, copy=False)
        self.stored[name] = array
        return name

    def number(self, value: float) -> str:
        """Add a stored number, and give its name."""
        return self.store("number", float(value))

    def name(self, name: str) -> str:
        """Make a name that there is not yet."""
        name = f"{self.place}{name}"
        self.names[name] += 1
        return name if self.names[name] == 1 else f"{name}_{self.names[name]}"


def _chain(graph: _Graph, layers: Sequence[Any], x: str, ndim: int) -> tuple[str, int]:
    for index, layer in enumerate(layers):
        x, ndim = _layer(graph.inside(index), layer, x, ndim)
    return x, ndim


def _layer(graph: _Graph, layer: Any, x: str, ndim: int) -> tuple[str, int]:
    """Write a layer; give what it computes, and of how many dimensions that is."""
    after = passed_on(layer, ndim)
    assert after is not None
    return _LAYERS[type(layer)](graph, layer, x, ndim), after


def _vector(graph: _Graph, name: str, vector: Array, ndim: int) -> str:
    """Store a vector of features so that it multiplies or adds to a batch."""
    return graph.store(name, vector.reshape(-1, *[1] * (ndim - FEATURES_AXIS[ndim] - 1)))


def _linear(
    graph: _Graph,
    x: str,
    ndim: int,
    weight: Array,
    bias: Array | None,
    names: tuple[str, str] = ("weight", "bias"),
) -> str:
    """Write a linear map of the features, and its bias where it is not zero."""
    if ndim == 4:
        y = graph("Conv", x, graph.store(names[0], weight[..., None, None]))
    else:
        y = graph("MatMul", x, graph.store(names[0], weight.T))
    if bias is not None and bias.any():
        y = graph("Add", y, _vector(graph, names[1], bias, ndim))
    return y


def _rotated(graph: _Graph, layer: Dense | Conv2d, y: str, ndim: int) -> str:
    """Write what dense layers and convolutions do after their product with the weights."""
    y = _activation(graph, layer.activation, y)
    if layer.output_rotation is None:
        return y
    return _linear(graph, y, ndim, layer.output_rotation, None, ("output_rotation", ""))


def _dense(graph: _Graph, layer: Dense, x: str, ndim: int) -> str:
    return _rotated(graph, layer, _linear(graph, x, ndim, layer.weight, layer.bias), ndim)


def _conv(graph: _Graph, layer: Conv2d, x: str, ndim: int) -> str:
    inputs = [graph.store("weight", layer.weight)]
    if layer.bias.any():
        inputs.append(graph.store("bias", layer.bias))
    y = graph(
        "Conv",
        x,
        *inputs,
        kernel_shape=layer.weight.shape[2:],
        strides=layer.stride,
        pads=_pads(layer.padding),
        dilations=layer.dilation,
        group=layer.groups,
    )
    return _rotated(graph, layer, y, ndim)


def _pads(padding: tuple[Pair, Pair]) -> tuple[int, int, int, int]:
    (top, bottom), (left, right) = padding
    return top, left, bottom, right


def _avg_pool(graph: _Graph, layer: AvgPool2d, x: str, ndim: int) -> str:
    if layer.size is None:
        return graph("ReduceMean", x, graph.store("axes", np.array([2, 3])), keepdims=1)
    pads = _pads(layer.padding)
    if layer.count_padding:
        x, pads = _inside(graph, layer, x, 0.0)
    return graph(
        "AveragePool",
        x,
        kernel_shape=layer.size,
        strides=layer.stride,
        pads=pads,
        count_include_pad=int(layer.count_padding),
    )


def _max_pool(graph: _Graph, layer: MaxPool2d, x: str, ndim: int) -> str:
    x, pads = _inside(graph, layer, x, -np.inf)
    return graph(
        "MaxPool",
        x,
        kernel_shape=layer.size,
        strides=layer.stride,
        pads=pads,
        dilations=layer.dilation,
    )


def _inside(
    graph: _Graph, layer: AvgPool2d | MaxPool2d, x: str, outside: float
) -> tuple[str, tuple[int, int, int, int]]:
    """Pad images where the windows can lie outside of them, which pools of runtimes refuse."""
    assert layer.size is not None
    pads = _pads(layer.padding)
    if all(pad < extent for pad, extent in zip(pads, layer.size * 2, strict=True)):
        return x, pads
    widths = graph.store("pads", np.array([0, 0, *pads[:2], 0, 0, *pads[2:]]))
    return graph("Pad", x, widths, graph.number(outside)), (0, 0, 0, 0)


def _batch_norm(graph: _Graph, layer: BatchNorm, x: str, ndim: int) -> str:
    # The operator takes the second axis for that of the features, and has eps in single precision.
    y = graph("Mul", x, _vector(graph, "scale", layer.scale, ndim))
    return graph("Add", y, _vector(graph, "shift", layer.shift, ndim))


def _layer_norm(graph: _Graph, layer: LayerNorm, x: str, ndim: int) -> str:
    if graph.single and ndim != 4 and layer.weight is not None:
        inputs = [graph.store("weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(graph.store("bias", layer.bias))
        return graph("LayerNormalization", x, *inputs, epsilon=layer.eps)
    # The operator needs the number of features, normalises the last axis, and in single precision.
    return _scaled(graph, layer, graph("Sub", x, _mean(graph, x, ndim)), ndim, layer.bias)


def _rms_norm(graph: _Graph, layer: RMSNorm, x: str, ndim: int) -> str:
    return _scaled(graph, layer, x, ndim, None)


def _scaled(
    graph: _Graph, layer: LayerNorm | RMSNorm, x: str, ndim: int, bias: Array | None
) -> str:
    """Write the division by the root of the mean square, and the parameters."""
    square = _mean(graph, graph("Mul", x, x), ndim)
    y = graph("Div", x, graph("Sqrt", graph("Add", square, graph.number(layer.eps))))
    if layer.weight is not None:
        y = graph("Mul", y, _vector(graph, "weight", layer.weight, ndim))
    if bias is not None:
        y = graph("Add", y, _vector(graph, "bias", bias, ndim))
    return y


def _mean(graph: _Graph, x: str, ndim: int) -> str:
    return graph("ReduceMean", x, graph.store("axes", np.array([FEATURES_AXIS[ndim]])), keepdims=1)


def _softmax(graph: _Graph, layer: Softmax, x: str, ndim: int) -> str:
    return graph("Softmax", x, axis=FEATURES_AXIS[ndim])


def _basis(graph: _Graph, layer: Basis, x: str, ndim: int) -> str:
    return _linear(graph, x, ndim, layer.matrix, layer.offset, ("matrix", "offset"))


def _gated(graph: _Graph, layer: GatedDense, x: str, ndim: int) -> str:
    gate, up = (
        _linear(graph, x, ndim, weight, bias, (f"{name}_weight", f"{name}_bias"))
        for name, weight, bias in (
            ("gate", layer.gate_weight, layer.gate_bias),
            ("up", layer.up_weight, layer.up_bias),
        )
    )
    return graph("Mul", _activation(graph, layer.activation, gate), up)


def _attention(graph: _Graph, layer: Attention, x: str, ndim: int) -> str:
    given = layer.arguments

    def side(name: str, x: str) -> str:
        return _linear(graph, x, ndim, given[name], given[f"{name}_bias"], (name, f"{name}_bias"))

    # Zeros keep the numbers of samples and of positions.
    apart = graph.store("heads", np.array([0, 0, layer.n_heads, -1]))
    together = graph.store("width", np.array([0, 0, -1]))
    query, key, value = (
        graph("Transpose", graph("Reshape", side(name, x), apart), perm=order)
        for name, order in zip(SIDES[:3], ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True)
    )
    scores = graph("Mul", graph("MatMul", query, key), graph.number(layer._scale))
    if isinstance(layer.mask, str):
        length = graph("Shape", x, start=1, end=2)
        square = graph("Concat", length, length, axis=0)
        minus_infinity = graph.helper.make_tensor(
            "", graph.helper.np_dtype_to_tensor_dtype(graph.dtype), [1], [-np.inf]
        )
        everywhere = graph("ConstantOfShape", square, value=minus_infinity)
        future = graph("Trilu", everywhere, graph.store("above", np.array(1)), upper=1)
        scores = graph("Add", scores, future)
    elif layer.mask is not None:
        hidden = np.where(layer.mask, 0.0, -np.inf)
        scores = graph("Add", scores, graph.store("mask", hidden))
    heads = graph("MatMul", graph("Softmax", scores, axis=-1), value)
    return side("output", graph("Reshape", graph("Transpose", heads, perm=(0, 2, 1, 3)), together))


def _residual(graph: _Graph, layer: Residual, x: str, ndim: int) -> str:
    kept = x
    if layer.shortcut is not None:
        kept, _ = _layer(graph.inside("shortcut"), layer.shortcut, x, ndim)
    branch, _ = _layer(graph.inside("branch"), layer.branch, x, ndim)
    return graph("Add", kept, branch)


def _flatten(graph: _Graph, layer: Flatten, x: str, ndim: int) -> str:
    return graph("Flatten", x, axis=1)


def _activation(graph: _Graph, activation: Any, x: str) -> str:
    return _ACTIVATIONS[activation_key(activation)](graph, x, activation)


# An operator with parameters has them in single precision, and ONNX Runtime has none of those below
# in double precision, so that there they are written out.


def _leaky_relu(graph: _Graph, x: str, slope: float) -> str:
    if graph.single:
        return graph("LeakyRelu", x, alpha=slope)
    negative = graph("Mul", graph.number(slope), graph("Relu", graph("Neg", x)))
    return graph("Sub", graph("Relu", x), negative)


def _elu(graph: _Graph, x: str, alpha: float) -> str:
    if graph.single:
        return graph("Elu", x, alpha=alpha)
    power = graph("Exp", graph("Neg", graph("Relu", graph("Neg", x))))
    negative = graph("Mul", graph.number(alpha), graph("Sub", power, graph.number(1)))
    return graph("Add", graph("Relu", x), negative)


def _selu(graph: _Graph, x: str) -> str:
    if graph.single:
        return graph("Selu", x)
    return graph("Mul", graph.number(_SELU_SCALE), _elu(graph, x, _SELU_ALPHA))


def _gelu(graph: _Graph, x: str) -> str:
    if graph.single:
        return graph("Gelu", x)
    erf = graph("Erf", graph("Mul", x, graph.number(np.sqrt(0.5))))
    return _half(graph, x, erf)


def _gelu_tanh(graph: _Graph, x: str) -> str:
    if graph.single:
        return graph("Gelu", x, approximate="tanh")
    cube = graph("Mul", graph("Mul", x, x), x)
    inner = graph("Add", x, graph("Mul", graph.number(0.044715), cube))
    return _half(graph, x, graph("Tanh", graph("Mul", graph.number(_TANH_GELU), inner)))


def _half(graph: _Graph, x: str, odd: str) -> str:
    """Write ``x (1 + odd) / 2``."""
    return graph("Mul", graph("Mul", graph.number(0.5), x), graph("Add", odd, graph.number(1)))


def _silu(graph: _Graph, x: str) -> str:
    if graph.single:
        return graph("Mul", x, graph("Sigmoid", x))
    # Of the product, ONNX Runtime 1.17 makes an operator that it has in single precision only.
    return graph("Div", x, graph("Add", graph("Exp", graph("Neg", x)), graph.number(1)))


def _softplus(graph: _Graph, x: str) -> str:
    if graph.single:
        return graph("Softplus", x)
    power = graph("Exp", graph("Neg", graph("Abs", x)))
    return graph("Add", graph("Relu", x), graph("Log", graph("Add", power, graph.number(1))))


def _clip(graph: _Graph, x: str, low: float, high: float) -> str:
    return graph("Clip", x, graph.number(low), graph.number(high))


def _expression(graph: _Graph, x: str, expression: Expression) -> str:
    """Write the operators that an activation was read as."""
    values = [x]
    for operator, inputs, attributes in expression.steps:
        given = dict(attributes)
        if operator == "Clip" and given:
            # Before version 11 its bounds were attributes.
            inputs = (*inputs, given.pop("min", None), given.pop("max", None))
        names = [
            values[value]
            if isinstance(value, int)
            else ""
            if value is None
            else graph.number(value)
            for value in inputs
        ]
        values.append(graph(operator, *names, **given))
    return values[-1]


_LAYERS: dict[type[Any], Callable[[_Graph, Any, str, int], str]] = {
    Activation: lambda graph, layer, x, ndim: _activation(graph, layer.activation, x),
    Attention: _attention,
    AvgPool2d: _avg_pool,
    Basis: _basis,
    BatchNorm: _batch_norm,
    Conv2d: _conv,
    Dense: _dense,
    Flatten: _flatten,
    GatedDense: _gated,
    LayerNorm: _layer_norm,
    MaxPool2d: _max_pool,
    RMSNorm: _rms_norm,
    Residual: _residual,
    Sequential: lambda graph, layer, x, ndim: _chain(graph, layer.layers, x, ndim)[0],
    Softmax: _softmax,
}
# By name, or by class where there are parameters.
_ACTIVATIONS: dict[str | type[Any], Callable[[_Graph, str, Any], str]] = {
    "elu": lambda graph, x, activation: _elu(graph, x, 1.0),
    "gelu": lambda graph, x, activation: _gelu(graph, x),
    "gelu_tanh": lambda graph, x, activation: _gelu_tanh(graph, x),
    "identity": lambda graph, x, activation: x,
    "leaky_relu": lambda graph, x, activation: _leaky_relu(graph, x, 0.01),
    "relu": lambda graph, x, activation: graph("Relu", x),
    "selu": lambda graph, x, activation: _selu(graph, x),
    "sigmoid": lambda graph, x, activation: graph("Sigmoid", x),
    "silu": lambda graph, x, activation: _silu(graph, x),
    "softplus": lambda graph, x, activation: _softplus(graph, x),
    "tanh": lambda graph, x, activation: graph("Tanh", x),
    Clip: lambda graph, x, activation: _clip(graph, x, activation.low, activation.high),
    Elu: lambda graph, x, activation: _elu(graph, x, activation.alpha),
    Expression: lambda graph, x, activation: _expression(graph, x, activation),
    LeakyRelu: lambda graph, x, activation: _leaky_relu(graph, x, activation.negative_slope),
}
