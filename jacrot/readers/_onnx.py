"""Conversion of ONNX graphs, between any two of their tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot._utils.optional import import_optional
from jacrot.layers import Activation, BatchNorm, Layer, fused
from jacrot.network import Network
from jacrot.readers._graph import Graph
from jacrot.readers._limits import prefix_errors
from jacrot.readers._onnx_elementwise import ELEMENTWISE, LOGICAL, Expression
from jacrot.readers._onnx_files import load_model
from jacrot.readers._onnx_graph import AFFINE, Node, NotReadError, OnnxGraph, floating
from jacrot.readers._onnx_operators import OPERATORS

# Operators that return their input at inference.
_ALIASES = frozenset({"Cast", "Dropout", "Identity"})
# Maximum number of operators in an activation that is exported as several operators, and of parts
# of a graph that are compared with named activations.
_LONGEST = 24
_MOST_COMPARED = 10_000
# Limit for the vector to which a scalar is expanded; the widest layers have some ten thousand.
_WIDEST = 2**20


def from_onnx(model: Any, *, start: str | None = None, stop: str | None = None) -> Network:
    """Convert an ONNX graph, or the part between two of its tensors, to a network.

    Parameters
    ----------
    model : str, path-like or onnx.ModelProto
        The file, or the model that ``onnx.load`` returns. If weights are stored in separate files
        in the folder of the model, pass the path.
    start, stop : str, default=None
        Names of the tensor to compute from and of the tensor to compute; ``None`` is the only
        input and the only output of the graph. ``model.graph.node[i].output`` lists the names.

    Returns
    -------
    Network
        The network in the dtype of the file. Batch norm and constants are folded into the layers
        before them, activations that are exported as several operators (GELU, SiLU and others)
        are recognised, and operators on stored tensors, such as quantized weights, are computed.
        Residual sums become ``Residual``, gates ``GatedDense``. Tensors have the same number of
        dimensions as in the graph: rows, sequences, or images with ``NCHW`` layout.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    FileNotFoundError
        If the file does not exist.
    TypeError
        If `model` is neither a path nor a ``ModelProto``.
    ValueError
        If the file is damaged or not a valid model; if `start` or `stop` is unknown or required; if
        an operator between them is not supported. The message then names the operator and its
        node, and the `start` and `stop` of the parts after and before it.

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
    onnx = import_optional("onnx", caller="from_onnx", extra="onnx")
    if not isinstance(model, (onnx.ModelProto, str, os.PathLike)):
        raise TypeError(
            f"model is a {type(model).__name__}; pass the path of an .onnx file or an "
            "onnx.ModelProto."
        )
    name = "model" if isinstance(model, onnx.ModelProto) else f"path={os.fspath(model)!r}"
    with prefix_errors(name):
        graph, size = load_model(onnx, model, name)
        reader = OnnxReader(onnx, graph, size, start, stop)
        reader.run()
        # A graph without an effect is the identity.
        return Network(fused(reader.graph.layers(reader.stop)) or [Activation("identity")])


@dataclass(frozen=True)
class _Step:
    """Computation of a tensor: its sources, and a function that adds it to the graph."""

    sources: tuple[str, ...]
    do: Callable[[], None]


class OnnxReader(OnnxGraph):
    """Converts the operators between two tensors, from the last to the first, to a graph."""

    def __init__(
        self, onnx: Any, model: Any, size: int, start: str | None, stop: str | None
    ) -> None:
        super().__init__(onnx, model, size, start, stop)
        self.n_compared = 0
        self.graph = Graph(self.start)
        types = onnx.TensorProto
        self.floats = {types.FLOAT, types.DOUBLE, types.FLOAT16, types.BFLOAT16}

    def run(self) -> None:
        """Add everything between the two tensors to the graph."""
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
                try:
                    steps[name].do()
                except ValueError as error:
                    raise self.add_advice(self.producers[name], error) from error
            pending.pop()

    def step(self, name: str) -> _Step:
        if name in self.failed:
            raise self.failed[name]
        if name not in self.producers or name in self.constants:
            raise ValueError(
                f"{self.stop!r} depends on {name!r}, which is not computed from start="
                f"{self.start!r}; pass a start from which all of it is computed."
            )
        node = self.producers[name]
        if name != node.proto.output[0]:
            raise node.error(f"whose further output {name!r} is not supported")
        try:
            return self.read(node, name)
        except NotReadError as error:
            raise self.add_advice(node, error) from error
        # Errors that the checker and the shape inference of onnx do not detect.
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
            raise node.error(
                f"whose inputs or attributes are not valid ({type(error).__name__}: {error})"
            ) from error

    def add_advice(self, node: Node, error: ValueError) -> ValueError:
        """Return an error that also names the parts of the graph before and after a node."""
        ways = [
            f"{argument}={name!r} for the part {place} it"
            for argument, place, end, name in (
                ("start", "after", self.stop, node.proto.output[0]),
                (
                    "stop",
                    "before",
                    self.start,
                    next(filter(self.is_computed, node.inputs), self.start),
                ),
            )
            if name != end
        ]
        return ValueError(f"{error} Pass {', or '.join(ways)}." if ways else str(error))

    def read(self, node: Node, name: str) -> _Step:
        stored = [self.constants[source] for source in node.inputs if source in self.constants]
        if node.operator == "Div" and any(array.dtype.kind in "iu" for array in stored):
            raise node.error("an integer division, which is not supported")
        elementwise = self.elementwise(name)
        if elementwise is not None and elementwise[2] is not None:
            return self.activation(name, *elementwise)
        if node.operator == "PRelu" and elementwise is None:
            return self.leaky(node, name)
        tensors = [source for source in node.inputs if source and source not in self.constants]
        if node.operator in _ALIASES and elementwise is None:
            return self.alias(node, name)
        if node.operator in AFFINE and len(tensors) == 1:
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
        if node.operator in ELEMENTWISE:
            raise node.error(
                "which from_onnx does not support here; it supports elementwise functions of one "
                "tensor and stored numbers"
            )
        if node.operator not in OPERATORS:
            known = sorted({*OPERATORS, *_ALIASES, *ELEMENTWISE})
            raise node.error(
                f"which from_onnx does not support here; it supports {', '.join(known)}"
            )
        source = node.inputs[0]
        if source in self.constants:
            raise node.error(
                f"whose first input {source!r} is stored, not computed, which is not supported"
            )
        return self.layers(name, source, OPERATORS[node.operator](self, node))

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

    def alias(self, node: Node, name: str) -> _Step:
        if node.operator == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
            training = self.constants.get(node.inputs[2])
            if training is None or training.any():
                raise node.error("in training mode, which is not supported")
        if node.operator == "Cast" and (
            node.attributes["to"] not in self.floats or self.is_logical(node.inputs[0])
        ):
            raise node.error("to a type that is not floating-point, which is not supported")
        return self.layers(name, node.inputs[0], [])

    def elementwise(self, name: str) -> tuple[str, Expression, str | None] | None:
        """Express a tensor as an elementwise function of another one, with a name if possible.

        The other tensor is the nearest one for which the function is a named activation, or
        otherwise the nearest one for which it has a value everywhere (the logarithm of a sigmoid,
        but not a logarithm), if there is one.
        """
        nodes: list[tuple[str, Node]] = []
        frontier: set[str] = {name}
        nearest: tuple[str, Expression, str | None] | None = None
        if self.is_logical(name):
            return None
        while len(nodes) < _LONGEST:
            # The tensor that is computed last may depend on the others.
            last = max(frontier, key=self.index)
            node = self.producers.get(last)
            if last == self.start or node is None or not self.is_elementwise(node):
                break
            nodes.append((last, node))
            frontier.remove(last)
            frontier |= {source for source in node.inputs if self.is_computed(source)}
            if len(frontier) == 1 and not self.is_logical(*frontier):
                [source] = frontier
                self.n_compared += 1
                if self.n_compared > _MOST_COMPARED:
                    raise node.error(
                        f"and more than {_MOST_COMPARED:,} chains of elementwise operators may be "
                        "activations; export fewer layers, or pass start and stop"
                    )
                expression = self.expression(source, nodes)
                known = expression.name()
                if known is not None:
                    return source, expression, known
                if nearest is None or (expression.is_total() and not nearest[1].is_total()):
                    nearest = source, expression, None
        return nearest

    def index(self, name: str) -> int:
        return (
            -1 if name == self.start or name not in self.producers else self.producers[name].index
        )

    def is_logical(self, name: str) -> bool:
        """Check whether a tensor is boolean."""
        node = self.producers.get(name)
        return node is not None and (
            node.operator in LOGICAL
            or (node.operator == "Identity" and self.is_logical(node.inputs[0]))
            or (node.operator == "Cast" and node.attributes["to"] == self.onnx.TensorProto.BOOL)
        )

    def is_elementwise(self, node: Node) -> bool:
        """Check whether an operator is elementwise, with scalars as its other inputs."""
        if node.operator in ("Cast", "Identity"):
            [source] = node.inputs
            name = node.proto.output[0]
            to_float = node.operator == "Identity" or node.attributes["to"] in self.floats
            return to_float or (self.is_logical(name) and self.is_logical(source))
        tensors = [source for source in node.inputs if self.is_computed(source)]
        stored = [self.constants[source] for source in node.inputs if source in self.constants]
        rank = min((len(self.shapes.get(source, (None,))) for source in tensors), default=0)
        return (
            node.operator in ELEMENTWISE
            and (len(tensors) == 1 or (len(tensors) > 1 and node.operator != "Clip"))
            and all(array.size == 1 and array.ndim <= rank for array in stored)
        )

    def expression(self, source: str, nodes: list[tuple[str, Node]]) -> Expression:
        """Express operators, in reverse order, as a function of one tensor."""
        places = {source: 0}
        steps = []
        for name, node in reversed(nodes):
            inputs = tuple(
                places[given] if given in places else self.number(given) for given in node.inputs
            )
            if node.operator not in ("Cast", "Identity"):
                steps.append((node.operator, inputs, tuple(node.attributes.items())))
            elif self.is_logical(node.inputs[0]) and not self.is_logical(name):
                steps.append(("Where", (*inputs, 1.0, 0.0), ()))
            else:
                places[name] = places[node.inputs[0]]
                continue
            places[name] = len(steps)
        return Expression(tuple(steps))

    def number(self, name: str) -> float | None:
        return float(self.constants[name].item()) if name else None

    def affine(self, node: Node, source: str) -> Layer | None:
        """Convert arithmetic of a tensor and a stored vector of features."""
        place = node.inputs.index(source)
        constant = floating(self.constants[node.inputs[1 - place]])
        known = self.shapes.get(source)
        if (known is None and constant.size == 1) or (node.operator == "Div" and place == 1):
            return None
        shape = self.shape(node, source)
        axis = FEATURES_AXIS.get(len(shape))
        width = None if axis is None else shape[axis]
        if constant.size == 1 and not (isinstance(width, int) and 0 < width <= _WIDEST):
            return None
        self.check_vector(node, shape, constant)
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

    def check_vector(self, node: Node, shape: tuple[Any, ...], constant: Array) -> None:
        """Check that a stored tensor broadcasts as a scalar or as a vector of features."""
        axis = FEATURES_AXIS.get(len(shape))
        width = None if axis is None else shape[axis]
        laid_out = (1,) * (len(shape) - constant.ndim) + constant.shape
        sizes = [size for index, size in enumerate(laid_out) if index != axis]
        fits = constant.size == 1 or not isinstance(width, int) or constant.size == width
        if len(laid_out) != len(shape) or prod(sizes) != 1 or not fits:
            raise node.error(
                f"of a tensor {shape} and a stored one {constant.shape}; only scalars and vectors "
                "of features are supported"
            )

    def leaky(self, node: Node, name: str) -> _Step:
        """Convert a PRelu with a slope for each feature to the sum of two ReLUs."""
        source = node.inputs[0]
        slope = self.stored(node, 1)
        assert slope is not None
        self.check_vector(node, self.shape(node, source), slope)
        self.spend(4 * slope.size)
        zeros, ones = np.zeros(slope.size, slope.dtype), np.ones(slope.size, slope.dtype)
        parts = {
            f"{name}/negated": BatchNorm(zeros, ones, -ones, None, eps=0),
            f"{name}/negative": Activation("relu"),
            f"{name}/scaled": BatchNorm(zeros, ones, -slope.ravel(), None, eps=0),
        }

        def do() -> None:
            self.graph.apply(Activation("relu"), source, f"{name}/positive")
            before = source
            for part, layer in parts.items():
                self.graph.apply(layer, before, part)
                before = part
            self.graph.add(f"{name}/positive", before, name)

        return _Step((source,), do)
