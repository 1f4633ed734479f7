"""ONNX graphs, from any two of their tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import autograd.scipy.special as special
import numpy as np
from numpy.typing import NDArray

from jacrot._arrays import FEATURES_AXIS, Array
from jacrot._optional import require
from jacrot.activations import ACTIVATIONS
from jacrot.layers import (
    Activation,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2d,
    Softmax,
    fused,
)
from jacrot.layers._windows import Pair
from jacrot.network import Network
from jacrot.readers._common import Clip, same_padding
from jacrot.readers._graph import Graph
from jacrot.readers._limits import check_size, existing, naming, size_of

# Before this version the operators had other attributes and broadcast by other rules.
OLDEST_OPSET = 9
# Operators on stored tensors only, whose result is stored in their place.
_FOLDED = frozenset(
    {"Add", "Cast", "Constant", "Div", "Identity", "Mul", "Neg", "Reciprocal", "Reshape", "Sqrt"}
    | {"Squeeze", "Sub", "Transpose", "Unsqueeze"}
)
# The same tensor under another name, outside of training.
_ALIASES = frozenset({"Cast", "Dropout", "Identity"})
_AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})
# How many operators an activation that is written out may have, and how many parts of a graph are
# compared with the activations that have a name.
_LONGEST = 24
_MOST_COMPARED = 10_000
# Nodes, attributes, stored tensors and described values of a graph, its functions written out;
# ResNet-152 has four thousand.
_LARGEST_GRAPH = 20_000
# How many operators on stored tensors are computed.
_MOST_FOLDED = 1_000
# Features of which a number is added to each as a vector; the widest layers have some ten thousand.
_WIDEST = 2**20
# What protobuf reads.
_LARGEST_FILE = 2**31 - 1
# Before version 1.22 the shape inference of onnx divides by these attributes, and reads tensors of
# these types (float, int32, int64, double; bytes of an entry) without a look at their length.
_DIVISORS = frozenset({"blocksize", "dilations", "kernel_shape", "strides"})
_ITEMSIZES = {1: 4, 6: 4, 7: 8, 11: 8}


def from_onnx(model: Any, *, start: str | None = None, stop: str | None = None) -> Network:
    """Read an ONNX graph, or the part between two of its tensors.

    Parameters
    ----------
    model : str, path-like or onnx.ModelProto
        The file, or what ``onnx.load`` reads from one. Weights that are stored in files of their
        own are read from the folder of the model, so write its path.
    start, stop : str, default=None
        The tensors to compute from and to compute, by name; ``None`` is the only input and the
        only output of the graph. ``model.graph.node[i].output`` lists their names.

    Returns
    -------
    Network
        The network in the dtype of the file, batch norm and constants folded into the layers
        before them, activations that are written out in several operators (GELU, SiLU and
        others) found again. Residual sums are ``Residual``, gates ``GatedDense``. Tensors
        have as many dimensions as in the graph: rows, sequences, or images of ``NCHW`` layout.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    FileNotFoundError
        If there is no such file.
    TypeError
        If `model` is neither a path nor a ``ModelProto``.
    ValueError
        If the file is damaged or no valid model; if `start` or `stop` is unknown or must be
        written; if an operator on the way is not read: the message names it and its node.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> from jacrot.readers import from_onnx
    >>> weight = numpy_helper.from_array(np.ones((3, 2)), "weight")
    >>> nodes = [
    ...     helper.make_node("MatMul", ["x", "weight"], ["hidden"]),
    ...     helper.make_node("Relu", ["hidden"], ["y"]),
    ... ]
    >>> x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 3])
    >>> y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 2])
    >>> graph = helper.make_graph(nodes, "example", [x], [y], [weight])
    >>> from_onnx(helper.make_model(graph))
    Network(3 → 2; relu)
    >>> from_onnx(helper.make_model(graph), stop="hidden")
    Network(3 → 2; identity)
    """
    onnx = require("onnx", caller="from_onnx", extra="onnx")
    if not isinstance(model, (onnx.ModelProto, str, os.PathLike)):
        raise TypeError(
            f"model is a {type(model).__name__}; write the path of an .onnx file or an "
            "onnx.ModelProto."
        )
    name = "model" if isinstance(model, onnx.ModelProto) else f"path={os.fspath(model)!r}"
    with naming(name):
        loaded, size = _loaded(onnx, model, name)
        reader = _Reader(onnx, loaded, size, start, stop)
        reader.run()
        # A graph that does nothing is a network too.
        return Network(fused(reader.graph.layers(reader.stop)) or [Activation("identity")])


def list_initializers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """List the shapes and dtypes of the stored tensors of a graph.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to (tuple of int, str)
        Shape and dtype by name.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    ValueError
        If the file is damaged.
    """
    onnx = require("onnx", caller="list_arrays", extra="onnx")
    listed: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        for tensor in _parsed(onnx, path).graph.initializer:
            if tensor.name in listed:
                raise ValueError(f"two stored tensors have the name {tensor.name!r}")
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            listed[tensor.name] = tuple(tensor.dims), str(dtype)
    # As in _loaded.
    except Exception as error:
        raise _invalid(f"path={str(path)!r}", error) from error
    return listed


@dataclass(frozen=True)
class Expression:
    """An elementwise function, written out in operators.

    Parameters
    ----------
    steps : tuple
        For each operator its name, its inputs (the place of an earlier value, of which the first
        is the argument, or a constant) and its attributes.
    """

    steps: tuple[tuple[str, tuple[int | float | None, ...], tuple[tuple[str, Any], ...]], ...]

    @property
    def __name__(self) -> str:
        return "_".join(operator.lower() for operator, _, _ in self.steps)

    def __call__(self, x: Array) -> Array:
        """Compute the function of every entry."""
        values = [x]
        for operator, inputs, attributes in self.steps:
            arguments = [values[given] if isinstance(given, int) else given for given in inputs]
            values.append(_ELEMENTWISE[operator](*arguments, **dict(attributes)))
        return values[-1]

    def name(self) -> str | None:
        """Find the name of the activation that this is to single precision, if it has one."""
        grid, named = _grid()
        with np.errstate(all="ignore"):
            close = np.abs(self(grid) - named) <= 1e-6 + 1e-6 * np.abs(named)
        same = close.all(axis=1)
        return list(ACTIVATIONS)[same.argmax()] if same.any() else None


@cache
def _grid() -> tuple[Array, Array]:
    """Compute the activations that have a name, one a row, at some points."""
    grid = np.concatenate(
        [np.linspace(-8, 8, 129), np.outer([-1, 1], [20, 100, 1e4, 1e20]).ravel()]
    )
    with np.errstate(all="ignore"):
        return grid, np.stack([activation.function(grid) for activation in ACTIVATIONS.values()])


def _where_positive(x: Array, positive: Array, negative: Callable[[Array], Array]) -> Array:
    return anp.where(x > 0, positive, negative(anp.where(x > 0, 0, x)))


def _clip(
    x: Array,
    low: float | None = None,
    high: float | None = None,
    min: float = -np.inf,
    max: float = np.inf,
) -> Array:
    return Clip(min if low is None else low, max if high is None else high)(x)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (anp.tanh(0.5 * x) + 1)


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return _clip(alpha * x + beta, 0.0, 1.0)


def _gelu(x: Array, approximate: bytes = b"none") -> Array:
    if approximate == b"tanh":
        return 0.5 * x * (1 + anp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    if approximate != b"none":
        raise TypeError(f"approximate={approximate!r}")
    return 0.5 * x * (1 + special.erf(x / np.sqrt(2)))


_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Abs": anp.abs,
    "Add": anp.add,
    "Clip": _clip,
    "Div": anp.divide,
    "Elu": lambda x, alpha=1.0: _where_positive(x, x, lambda t: alpha * anp.expm1(t)),
    "Erf": special.erf,
    "Exp": anp.exp,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, 1 / 6),
    "LeakyRelu": lambda x, alpha=0.01: _where_positive(x, x, lambda t: alpha * t),
    "Log": anp.log,
    "Mish": lambda x: x * anp.tanh(anp.logaddexp(x, 0)),
    "Mul": anp.multiply,
    "Neg": anp.negative,
    "Pow": anp.power,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: _where_positive(x, x, lambda t: 0 * t),
    "Selu": lambda x, alpha=1.6732632423543772, gamma=1.0507009873554805: (
        gamma * _where_positive(x, x, lambda t: alpha * anp.expm1(t))
    ),
    "Sigmoid": _sigmoid,
    "Softplus": lambda x: anp.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + anp.abs(x)),
    "Sqrt": anp.sqrt,
    "Sub": anp.subtract,
    "Tanh": anp.tanh,
}


def _invalid(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} is damaged or no valid ONNX model ({type(error).__name__}: {error}); export it "
        "again."
    )


def _parsed(onnx: Any, path: Path) -> Any:
    """Read a file without the weights that are stored beside it."""
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"a file of more than {_LARGEST_FILE:,} bytes")
    model = onnx.load(path, load_external_data=False)
    _check_graph(onnx, model)
    return model


def _check_graph(onnx: Any, model: Any) -> None:
    """Check that a graph is not too large, nor its functions, which may call one another."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], float] = {}

    def size(nodes: Any, tensors: Any) -> float:
        total: float = len(nodes) + len(tensors)
        if total > _LARGEST_GRAPH:
            return total
        total += sum(len(node.attribute) for node in nodes)
        if total > _LARGEST_GRAPH:
            return total
        for tensor in tensors:
            _check_tensor(tensor)
        for node in nodes:
            for attribute in node.attribute:
                total += len(attribute.tensors) + len(attribute.graphs)
                if total > _LARGEST_GRAPH:
                    return total
                if attribute.name in _DIVISORS:
                    divisors = attribute.ints or [attribute.i]
                    if not 0 < min(divisors) <= max(divisors) < 2**31:
                        raise ValueError(f"{attribute.name} of a {node.op_type} is {divisors}")
                for tensor in (attribute.t, *attribute.tensors):
                    _check_tensor(tensor)
                    if tensor.data_location == onnx.TensorProto.EXTERNAL:
                        raise ValueError(f"an attribute of {node.op_type} is in another file")
                for graph in (attribute.g, *attribute.graphs):
                    total += size(graph.node, graph.initializer)
            key = node.domain, node.op_type
            if key in functions and key not in sizes:
                # As long as it is not known: what calls itself is endless.
                sizes[key] = float("inf")
                sizes[key] = size(functions[key].node, ())
            total += sizes.get(key, 0)
        return total

    graph = model.graph
    described = (graph.value_info, graph.input, graph.output, model.functions)
    total = sum(map(len, described))
    if total > _LARGEST_GRAPH or total + size(graph.node, graph.initializer) > _LARGEST_GRAPH:
        raise ValueError(f"a graph of more than {_LARGEST_GRAPH:,} nodes, attributes and tensors")


def _check_tensor(tensor: Any) -> None:
    """Check that a stored tensor has the bytes of its shape."""
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"the stored tensor {tensor.name!r} has the shape {list(tensor.dims)}")
    n_bytes = prod(tensor.dims) * _ITEMSIZES.get(tensor.data_type, 0)
    if n_bytes and tensor.HasField("raw_data") and len(tensor.raw_data) != n_bytes:
        raise ValueError(
            f"the stored tensor {tensor.name!r} has {len(tensor.raw_data):,} bytes for shape "
            f"{list(tensor.dims)}"
        )


def _size_outside(tensors: list[Any], folder: Path, size: int) -> int:
    """Count the bytes of the files in which a graph keeps tensors: files beside it, each once."""
    sizes: dict[Path, int] = {}
    n_bytes = 0
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = (folder / entries.get("location", "")).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise ValueError(
                f"tensor {tensor.name!r} is in {entries.get('location')!r}, which is no file in "
                "the folder of the model"
            )
        sizes[file] = file.stat().st_size
        length = int(entries.get("length", sizes[file]))
        if length < 0:
            raise ValueError(f"tensor {tensor.name!r} has {length} bytes")
        n_bytes += length
    check_size(n_bytes, size + sum(sizes.values()), "the model")
    return sum(sizes.values())


def _loaded(onnx: Any, given: Any, name: str) -> tuple[Any, int]:
    """Read a model that the checker of onnx accepts, with shapes and weights; give its size too."""
    path = None if isinstance(given, onnx.ModelProto) else existing(given)
    try:
        if path is None:
            model, size = given, given.ByteSize()
            _check_graph(onnx, model)
        else:
            model, size = _parsed(onnx, path), path.stat().st_size
        outside = [
            tensor
            for tensor in model.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        ]
        if outside and path is not None:
            size += _size_outside(outside, path.parent, size)
        if model.functions:
            inliner = require("onnx.inliner", caller="from_onnx", extra="onnx")
            model = inliner.inline_local_functions(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if not outside:
            onnx.checker.check_model(model)
        elif path is not None:
            # The checker finds the other files by the path only.
            onnx.checker.check_model(str(path))
            onnx.load_external_data_for_model(model, str(path.parent))
    # Protobuf, the checker, the shape inference and the reader of external data each have
    # their own, with no common base.
    except Exception as error:
        raise _invalid(name, error) from error
    if outside and path is None:
        raise ValueError(
            f"model keeps tensor {outside[0].name!r} in another file; write the path of the model "
            "instead, in whose folder that file is."
        )
    opset = _opset(model)
    if opset < OLDEST_OPSET:
        raise ValueError(
            f"{name} has operator set {opset}, and from_onnx reads {OLDEST_OPSET} and later; "
            "write onnx.version_converter.convert_version(model, 13)."
        )
    return model, size


def _opset(model: Any) -> int:
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return versions[0] if versions else OLDEST_OPSET


@dataclass
class _Node:
    """A node of the graph, and what is asked of it."""

    index: int
    operator: str
    name: str
    inputs: list[str]
    attributes: dict[str, Any]
    proto: Any

    def __str__(self) -> str:
        return f"node {self.name or self.proto.output[0]!r} is a {self.operator}"

    def refused(self, reason: str) -> ValueError:
        return ValueError(f"{self}, {reason}.")


@dataclass(frozen=True)
class _Step:
    """How a tensor is computed: of which others, and what to tell the graph then."""

    sources: tuple[str, ...]
    do: Callable[[], None]


class _Reader:
    """Walks back from a tensor to the one that is given, and puts the layers into a graph."""

    def __init__(
        self, onnx: Any, model: Any, size: int, start: str | None, stop: str | None
    ) -> None:
        self.onnx, self.model, self.opset = onnx, model, _opset(model)
        # Bytes of the model, and of what was made of it.
        self.size, self.spent = size, 0
        self.n_folded = self.n_compared = 0
        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        inputs = [item.name for item in graph.input if item.name not in stored]
        self.producers: dict[str, _Node] = {}
        for index, proto in enumerate(graph.node):
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            node = _Node(
                index,
                f"{domain}.{proto.op_type}" if domain else proto.op_type,
                proto.name,
                list(proto.input),
                {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute},
                proto,
            )
            self.producers |= {output: node for output in proto.output if output}
        self.start = _site(start, "start", inputs, [*inputs, *self.producers])
        outputs = [item.name for item in graph.output]
        self.stop = _site(stop, "stop", outputs, list(self.producers))
        if self.start == self.stop:
            raise ValueError(f"start and stop are both {self.start!r}; write two tensors.")
        self.shapes = {
            item.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in item.type.tensor_type.shape.dim
            )
            for items in (graph.input, graph.value_info, graph.output)
            for item in items
            if item.type.tensor_type.HasField("shape")
        }
        self.constants: dict[str, NDArray[Any]] = {}
        self.fold(stored)
        self.graph = Graph(self.start)

    def fold(self, stored: dict[str, Any]) -> None:
        """Read the stored tensors, and those computed from stored ones only, where needed."""
        needed, remaining = {self.stop}, [self.stop]
        while remaining:
            name = remaining.pop()
            node = None if name == self.start else self.producers.get(name)
            # Shapes are inferred, and what computes them is not read.
            sources = [] if node is None else node.inputs
            for source in sources:
                if source and source not in needed:
                    needed.add(source)
                    remaining.append(source)
        for name in needed & stored.keys():
            self.constants[name] = self.array(stored[name], name)
        nodes = {self.producers[name].index: name for name in needed if name in self.producers}
        for _, name in sorted(nodes.items()):
            node = self.producers[name]
            if (
                name != self.start
                and node.operator in _FOLDED
                and all(source in self.constants for source in node.inputs)
            ):
                self.constants[name] = self.evaluated(node, name)

    def array(self, tensor: Any, name: str) -> NDArray[Any]:
        """Read a stored tensor."""
        try:
            return self.real(self.onnx.numpy_helper.to_array(tensor))
        # Of another size than it says, or of a type that there is not.
        except Exception as error:
            raise ValueError(
                f"the stored tensor {name!r} is damaged ({type(error).__name__}: {error}); "
                "export the model again."
            ) from error

    def real(self, array: Any) -> NDArray[Any]:
        if array.dtype.kind in "cOSU":
            raise TypeError(f"{array.dtype} is no dtype of real numbers")
        return np.asarray(array)

    def spend(self, n_entries: int) -> None:
        """Count what is made of the stored tensors, which may be much, and of one many times."""
        self.spent += size_of((n_entries,), 8)
        check_size(self.spent, self.size, "the model")

    def evaluated(self, node: _Node, name: str) -> NDArray[Any]:
        """Compute one operator of stored tensors."""
        if node.operator == "Constant" and "value" in node.attributes:
            return self.array(node.attributes["value"], name)
        self.n_folded += 1
        if self.n_folded > _MOST_FOLDED:
            raise node.refused(
                f"of stored tensors, after {_MOST_FOLDED:,} of the kind; fold the constants of the "
                "graph when it is exported"
            )
        helper = self.onnx.helper
        given = {source: self.constants[source] for source in node.inputs}
        inputs = [
            helper.make_tensor_value_info(
                source, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for source, array in given.items()
        ]
        output = helper.make_empty_tensor_value_info(name)
        graph = helper.make_graph([node.proto], "constant", inputs, [output])
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        reference = require("onnx.reference", caller="from_onnx", extra="onnx")
        shapes = [array.shape for array in given.values()]
        try:
            # All others make nothing larger than what they are given.
            wide = prod(np.broadcast_shapes(*shapes)) if node.operator in _AFFINE else 0
            self.spend(max([wide, *map(prod, shapes)]))
            return self.real(reference.ReferenceEvaluator(model).run(None, given)[0])
        except Exception as error:
            raise node.refused(f"which fails on its stored inputs ({error})") from error

    def run(self) -> None:
        """Put everything between the two tensors into the graph."""
        steps: dict[str, _Step] = {}
        pending = [self.stop]
        while pending:
            name = pending[-1]
            if name not in self.graph:
                if name not in steps:
                    steps[name] = self.step(name)
                missing = [source for source in steps[name].sources if source not in self.graph]
                if missing:
                    pending += missing
                    continue
                steps[name].do()
            pending.pop()

    def step(self, name: str) -> _Step:
        if name not in self.producers or name in self.constants:
            raise ValueError(
                f"{self.stop!r} depends on {name!r}, which is not computed from start="
                f"{self.start!r}; write a start that all of it is computed from."
            )
        node = self.producers[name]
        if name != node.proto.output[0]:
            raise node.refused(f"whose further output {name!r} from_onnx does not read")
        try:
            return self.read(node, name)
        # What the checker and the shape inference of onnx let pass.
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
            raise node.refused(
                f"whose inputs or attributes are no valid ones ({type(error).__name__}: {error})"
            ) from error

    def read(self, node: _Node, name: str) -> _Step:
        elementwise = self.elementwise(name)
        if elementwise is not None and elementwise[2] is not None:
            return self.activation(name, *elementwise)
        tensors = [source for source in node.inputs if source and source not in self.constants]
        if node.operator in _ALIASES:
            return self.alias(node, name)
        if node.operator in _AFFINE and len(tensors) == 1:
            layer = self.affine(node, tensors[0])
            if layer is not None:
                return self.layers(name, tensors[0], [layer])
        if node.operator == "Add" and len(tensors) == 2:
            self.check_same_shapes(node, tensors)
            first, second = tensors
            return _Step((first, second), lambda: self.graph.add(first, second, name))
        if elementwise is not None:
            return self.activation(name, *elementwise)
        if node.operator == "Mul" and len(tensors) == 2:
            self.check_same_shapes(node, tensors)
            first, second = tensors
            return _Step((first, second), lambda: self.graph.multiply(first, second, name))
        if node.operator not in _OPERATORS:
            known = sorted({*_OPERATORS, *_ALIASES, *_ELEMENTWISE})
            raise node.refused(f"which from_onnx does not read here; it reads {', '.join(known)}")
        source = node.inputs[0]
        if source in self.constants:
            raise node.refused(f"whose first input {source!r} is stored, not computed; not read")
        return self.layers(name, source, _OPERATORS[node.operator](self, node))

    def layers(self, name: str, source: str, layers: list[Layer]) -> _Step:
        def do() -> None:
            names = [source, *(f"{name}/{index}" for index in range(1, len(layers))), name]
            for layer, before, after in zip(layers, names, names[1:], strict=False):
                self.graph.apply(layer, before, after)
            if not layers:
                self.graph.alias(source, name)

        return _Step((source,), do)

    def activation(
        self, name: str, source: str, expression: Expression, known: str | None
    ) -> _Step:
        layer = Activation(known or expression)
        return self.layers(name, source, [] if known == "identity" else [layer])

    def alias(self, node: _Node, name: str) -> _Step:
        if node.operator == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
            training = self.constants.get(node.inputs[2])
            if training is None or training.any():
                raise node.refused("in training mode, which from_onnx does not read")
        if node.operator == "Cast":
            types = self.onnx.TensorProto
            floats = (types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16)
            if node.attributes["to"] not in floats:
                raise node.refused("to another type than a floating-point one; not read")
        return self.layers(name, node.inputs[0], [])

    def elementwise(self, name: str) -> tuple[str, Expression, str | None] | None:
        """Write a tensor as an elementwise function of one other, with a name if possible."""
        nodes: list[tuple[str, _Node]] = []
        frontier, nearest = {name}, None
        while len(nodes) < _LONGEST:
            # What is computed last may use the others.
            last = max(frontier, key=self.index)
            node = self.producers.get(last)
            if last == self.start or node is None or not self.is_elementwise(node):
                break
            nodes.append((last, node))
            frontier.remove(last)
            frontier |= {source for source in node.inputs if self.is_computed(source)}
            if len(frontier) == 1:
                [source] = frontier
                self.n_compared += 1
                if self.n_compared > _MOST_COMPARED:
                    raise node.refused(
                        f"and more than {_MOST_COMPARED:,} chains of such might be activations "
                        "that are written out; export fewer layers, or write start and stop"
                    )
                expression = self.expression(source, nodes)
                known = expression.name()
                if known is not None:
                    return source, expression, known
                nearest = nearest or (source, expression, None)
        return nearest

    def index(self, name: str) -> int:
        return (
            -1 if name == self.start or name not in self.producers else self.producers[name].index
        )

    def is_computed(self, name: str) -> bool:
        return name != "" and name not in self.constants

    def is_elementwise(self, node: _Node) -> bool:
        """Tell an operator that acts on each entry alone, its other inputs being numbers."""
        tensors = [source for source in node.inputs if self.is_computed(source)]
        stored = [self.constants[source] for source in node.inputs if source in self.constants]
        rank = min((len(self.shapes.get(source, (None,))) for source in tensors), default=0)
        return (
            node.operator in _ELEMENTWISE
            and (len(tensors) == 1 or (len(tensors) > 1 and node.operator in _AFFINE))
            and all(array.size == 1 and array.ndim <= rank for array in stored)
        )

    def expression(self, source: str, nodes: list[tuple[str, _Node]]) -> Expression:
        """Write some operators, the last of them first, as a function of one tensor."""
        places = {source: 0}
        steps = []
        for name, node in reversed(nodes):
            inputs = tuple(
                places[given] if given in places else self.number(given) for given in node.inputs
            )
            steps.append((node.operator, inputs, tuple(node.attributes.items())))
            places[name] = len(steps)
        return Expression(tuple(steps))

    def number(self, name: str) -> float | None:
        return float(self.constants[name].item()) if name else None

    def affine(self, node: _Node, source: str) -> Layer | None:
        """Read arithmetic of a tensor and a stored vector of features."""
        place = node.inputs.index(source)
        constant = _floating(self.constants[node.inputs[1 - place]])
        known = self.shapes.get(source)
        if (known is None and constant.size == 1) or (node.operator == "Div" and place == 1):
            return None
        shape = self.shape(node, source)
        axis = FEATURES_AXIS.get(len(shape))
        width = None if axis is None else shape[axis]
        if constant.size == 1 and not (isinstance(width, int) and 0 < width <= _WIDEST):
            return None
        # As broadcasting lays it out.
        laid_out = (1,) * (len(shape) - constant.ndim) + constant.shape
        sizes = [size for index, size in enumerate(laid_out) if index != axis]
        fits = constant.size == 1 or not isinstance(width, int) or constant.size == width
        if len(laid_out) != len(shape) or prod(sizes) != 1 or not fits:
            raise node.refused(
                f"of a tensor {shape} and a stored one {constant.shape}; only numbers and vectors "
                "of features are read"
            )
        self.spend(4 * (width if isinstance(width, int) else constant.size))
        vector = constant.ravel()
        if constant.size == 1 and isinstance(width, int):
            vector = np.full(width, constant.item(), constant.dtype)
        zeros, ones = np.zeros_like(vector), np.ones_like(vector)
        scale, shift = {
            "Add": (None, vector),
            "Sub": (None, -vector) if place == 0 else (-ones, vector),
            "Mul": (vector, None),
            "Div": (1 / vector, None),
        }[node.operator]
        return BatchNorm(zeros, ones, scale, shift, eps=0)

    def shape(self, node: _Node, source: str | None = None) -> tuple[int | str | None, ...]:
        source = node.inputs[0] if source is None else source
        if source not in self.shapes:
            raise node.refused(
                f"whose input {source!r} has no known number of dimensions; declare the shapes of "
                "the inputs of the graph"
            )
        return self.shapes[source]

    def stored(self, node: _Node, place: int, ndim: int | None = None) -> Array | None:
        """Read an input that is a parameter, ``None`` where it is left out."""
        if place >= len(node.inputs) or not node.inputs[place]:
            return None
        name = node.inputs[place]
        if name not in self.constants:
            raise node.refused(f"whose input {name!r} is computed, not stored; not read")
        self.spend(self.constants[name].size)
        array = _floating(self.constants[name])
        if ndim is not None and array.ndim != ndim:
            raise node.refused(f"whose input {name!r} has shape {array.shape}; not read")
        return array

    def check_same_shapes(self, node: _Node, tensors: list[str]) -> None:
        shapes = [self.shape(node, source) for source in tensors]
        differ = len(shapes[0]) != len(shapes[1]) or any(
            isinstance(first, int) and isinstance(second, int) and first != second
            for first, second in zip(*shapes, strict=True)
        )
        if differ:
            raise node.refused(f"of tensors {shapes[0]} and {shapes[1]}; broadcasting is not read")

    def check_features_axis(self, node: _Node, axis: int) -> None:
        rank = len(self.shape(node))
        features = FEATURES_AXIS.get(rank)
        if features is None or axis not in (features, features - rank):
            raise node.refused(
                f"over axis {axis} of {rank}; only the axis of the features is read: 1 of 2 and of "
                "4, 2 of 3"
            )

    def windows(self, node: _Node, kernel: Iterable[int]) -> dict[str, Any]:
        """Read the geometry of a convolution or of a pooling over images."""
        kernel = [int(size) for size in kernel]
        shape = self.shape(node)
        if len(kernel) != 2 or len(shape) != 4:
            raise node.refused(f"over windows {kernel} of a tensor {shape}; only images are read")
        stride, dilation = (node.attributes.get(key, (1, 1)) for key in ("strides", "dilations"))
        automatic = node.attributes.get("auto_pad", b"NOTSET")
        pads = node.attributes.get("pads", (0, 0, 0, 0))
        if (len(stride), len(dilation), len(pads)) != (2, 2, 4):
            raise node.refused(f"with strides {stride}, dilations {dilation} and pads {pads}")
        top, left, bottom, right = pads
        padding: tuple[Pair, Pair] = (top, bottom), (left, right)
        sizes = [size if isinstance(size, int) else None for size in shape[2:]]
        if automatic == b"VALID":
            padding = (0, 0), (0, 0)
        elif automatic in (b"SAME_UPPER", b"SAME_LOWER"):
            lower = automatic == b"SAME_LOWER"
            try:
                padding = same_padding(sizes, kernel, stride, dilation, more_before=lower)
            except ValueError as error:
                raise node.refused(
                    f"{error}, which is {tuple(sizes)}: write it into the inputs of the graph"
                ) from error
        elif automatic not in (b"", b"NOTSET"):
            raise node.refused(f"with auto_pad={automatic!r}, which there is not")
        if node.attributes.get("ceil_mode", 0):
            spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
            if any(
                size is None or (size + sum(added) - span) % step
                for size, added, span, step in zip(sizes, padding, spans, stride, strict=True)
            ):
                raise node.refused(f"with ceil_mode=1, which for images {tuple(sizes)} is not read")
        return {"stride": tuple(stride), "padding": padding, "dilation": tuple(dilation)}


def _site(given: str | None, argument: str, defaults: list[str], known: list[str]) -> str:
    if given is None:
        if len(defaults) == 1:
            return defaults[0]
        listed = ", ".join(map(repr, defaults)) or "none"
        raise ValueError(
            f"the graph has {len(defaults)} candidates for {argument}: {listed}; write "
            f"{argument}='name' with the name of a tensor."
        )
    if given not in known:
        near = get_close_matches(given, known, n=6, cutoff=0)
        raise ValueError(
            f"{argument}={given!r} is no tensor that the graph reads or computes; of "
            f"{len(known)}, these have the most similar names: {', '.join(map(repr, near))}."
        )
    return given


def _floating(array: NDArray[Any]) -> Array:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _gemm(reader: _Reader, node: _Node) -> list[Layer]:
    weight = reader.stored(node, 1, ndim=2)
    assert weight is not None
    if node.attributes.get("transA", 0):
        raise node.refused("with transA=1, which from_onnx does not read")
    weight = weight if node.attributes.get("transB", 0) else weight.T
    bias = reader.stored(node, 2)
    if bias is not None:
        if bias.size not in (1, len(weight)) or max(bias.shape[:-1], default=1) > 1:
            raise node.refused(f"with a bias {bias.shape} of {len(weight)} outputs, not read")
        bias = np.broadcast_to(bias.ravel(), len(weight)) * bias.dtype.type(
            node.attributes.get("beta", 1.0)
        )
    alpha = weight.dtype.type(node.attributes.get("alpha", 1.0))
    return [Dense(alpha * weight, bias, "identity")]


def _matmul(reader: _Reader, node: _Node) -> list[Layer]:
    if len(reader.shape(node)) not in (2, 3):
        raise node.refused(f"of a tensor {reader.shape(node)}; only rows and sequences are read")
    weight = reader.stored(node, 1, ndim=2)
    assert weight is not None
    return [Dense(weight.T, None, "identity")]


def _convolution(reader: _Reader, node: _Node) -> list[Layer]:
    weight, bias = reader.stored(node, 1), reader.stored(node, 2)
    assert weight is not None
    geometry = reader.windows(node, weight.shape[2:])
    groups = node.attributes.get("group", 1)
    return [Conv2d(weight, bias, "identity", groups=groups, **geometry)]


def _batch_norm(reader: _Reader, node: _Node) -> list[Layer]:
    reader.check_features_axis(node, 1)
    if node.attributes.get("training_mode", 0):
        raise node.refused("in training mode, which from_onnx does not read")
    weight, bias, mean, variance = (reader.stored(node, place, ndim=1) for place in range(1, 5))
    assert mean is not None
    assert variance is not None
    return [BatchNorm(mean, variance, weight, bias, node.attributes.get("epsilon", 1e-5))]


def _layer_norm(reader: _Reader, node: _Node) -> list[Layer]:
    reader.check_features_axis(node, node.attributes.get("axis", -1))
    weight, bias = (reader.stored(node, place, ndim=1) for place in (1, 2))
    return [LayerNorm(weight, bias, node.attributes.get("epsilon", 1e-5))]


def _softmax(reader: _Reader, node: _Node) -> list[Layer]:
    # Before version 13 it was over all axes from this one on.
    old, rank = reader.opset < 13, len(reader.shape(node))
    axis = node.attributes.get("axis", 1 if old else -1)
    if old and axis not in (-1, rank - 1):
        raise node.refused(f"over all axes from {axis} on; not read")
    reader.check_features_axis(node, axis)
    return [Softmax()]


def _average_pool(reader: _Reader, node: _Node) -> list[Layer]:
    kernel = node.attributes["kernel_shape"]
    geometry = reader.windows(node, kernel)
    if geometry.pop("dilation") != (1, 1):
        raise node.refused("with dilations, which from_onnx does not read")
    padded = bool(node.attributes.get("count_include_pad", 0))
    return [AvgPool2d(tuple(kernel), count_padding=padded, **geometry)]


def _max_pool(reader: _Reader, node: _Node) -> list[Layer]:
    kernel = node.attributes["kernel_shape"]
    return [MaxPool2d(tuple(kernel), **reader.windows(node, kernel))]


def _global_average(reader: _Reader, node: _Node) -> list[Layer]:
    if len(reader.shape(node)) != 4:
        raise node.refused(f"of a tensor {reader.shape(node)}; only images are read")
    return [AvgPool2d()]


def _mean(reader: _Reader, node: _Node) -> list[Layer]:
    stored = reader.stored(node, 1)
    axes = node.attributes.get("axes", () if stored is None else stored.astype(int).ravel())
    shape = reader.shape(node)
    if len(shape) != 4 or sorted(axes) not in ([2, 3], [-2, -1], [-1, 2], [-2, 3]):
        raise node.refused(
            f"over axes {list(map(int, axes))} of a tensor {shape}; only that over the positions "
            "of images is read"
        )
    return [AvgPool2d()] if node.attributes.get("keepdims", 1) else [AvgPool2d(), Flatten()]


def _flatten(reader: _Reader, node: _Node) -> list[Layer]:
    shape = reader.shape(node)
    if len(shape) < 2 or node.attributes.get("axis", 1) not in (1, 1 - len(shape)):
        raise node.refused("over another axis than 1, which from_onnx does not read")
    return [Flatten()] if len(shape) > 2 else []


def _reshape(reader: _Reader, node: _Node) -> list[Layer]:
    """Read what makes one row of every sample, whatever it is called."""
    shape = reader.shape(node)
    result = reader.shapes.get(node.proto.output[0], ())
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    wanted = reader.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    keeps_samples = (
        # As many entries for each sample, hence as many samples; or said so.
        (len(sizes) == len(shape) - 1 and result[1:] == (prod(sizes),))
        or (bool(shape[0]) and result[:1] == shape[:1])
        or (node.operator == "Reshape" and wanted is not None and wanted.tolist() == [0, -1])
    )
    if len(result) != 2 or not keeps_samples:
        raise node.refused(
            f"from {shape} to {result or 'an unknown shape'}; only flattening to (n, -1) is read, "
            "of which the shapes must tell"
        )
    return [Flatten()] if len(shape) > 2 else []


_OPERATORS: dict[str, Callable[[_Reader, _Node], list[Layer]]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "ReduceMean": _mean,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _reshape,
}
