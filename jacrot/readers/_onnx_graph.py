"""The nodes of an ONNX graph, its shapes, and its stored tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot._utils.optional import import_optional
from jacrot.layers._windows import Pair
from jacrot.readers._common import same_padding
from jacrot.readers._limits import check_size, count_bytes
from jacrot.readers._onnx_files import get_opset

# Operators on stored tensors that are not computed, because they are random.
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial"}
    | {f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")}
)
# Operators that the reference evaluator computes without a Python loop over entries, and the limit
# for the entries that all other operators together may read and write.
_FAST = frozenset(
    {"Abs", "Add", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear"}
    | {"Div", "Exp", "Expand", "Flatten", "Gather", "Gemm", "Identity", "Log", "MatMul", "Max"}
    | {"Min", "Mul", "Neg", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceL2"}
    | {"ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Round", "Sigmoid", "Slice", "Split"}
    | {"Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where"}
)
_MOST_SLOW = 2**18
# Entries of a stored tensor that may be a shape, indices or bounds of slices.
_MOST_NUMBERS = 2**10
# Maximum number of operators on stored tensors that are computed.
_MOST_FOLDED = 1_000
AFFINE = frozenset({"Add", "Div", "Mul", "Sub"})


class NotReadError(ValueError):
    """Raised for a part of a graph that is not supported."""


@dataclass
class Node:
    """A node of the graph."""

    index: int
    operator: str
    name: str
    inputs: list[str]
    attributes: dict[str, Any]
    proto: Any

    def __str__(self) -> str:
        return f"node {self.name or self.proto.output[0]!r} is a {self.operator}"

    def error(self, reason: str) -> NotReadError:
        return NotReadError(f"{self}, {reason}.")


class OnnxGraph:
    """The nodes between two tensors of a graph, and their stored tensors."""

    def __init__(
        self, onnx: Any, model: Any, size: int, start: str | None, stop: str | None
    ) -> None:
        self.onnx, self.model, self.opset = onnx, model, get_opset(model)
        # Bytes of the model, and of the arrays that were created from it.
        self.size, self.spent = size, 0
        self.n_folded = self.n_slow = 0
        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        inputs = [item.name for item in graph.input if item.name not in stored]
        self.producers: dict[str, Node] = {}
        for index, proto in enumerate(graph.node):
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            node = Node(
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
            raise ValueError(f"start and stop are both {self.start!r}; pass two different tensors.")
        self.shapes = {
            item.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in item.type.tensor_type.shape.dim
            )
            for items in (graph.input, graph.value_info, graph.output)
            for item in items
            if item.type.tensor_type.HasField("shape")
        }
        self.types = {item.name: item.type.tensor_type.elem_type for item in graph.value_info}
        self.constants: dict[str, NDArray[Any]] = {}
        # Errors for tensors that depend only on stored ones but could not be computed.
        self.failed: dict[str, NotReadError] = {}
        self.fold(stored)

    def fold(self, stored: dict[str, Any]) -> None:
        """Read the stored tensors that are needed, and compute those that depend only on them."""
        needed, remaining = {self.stop}, [self.stop]
        while remaining:
            name = remaining.pop()
            node = None if name == self.start else self.producers.get(name)
            # Operators that compute shapes are not needed, because shapes are inferred.
            sources = [] if node is None else node.inputs
            for source in sources:
                if source and source not in needed:
                    needed.add(source)
                    remaining.append(source)
        for name in needed & stored.keys():
            self.constants[name] = self.array(stored[name], name)
        computed = needed & self.producers.keys()
        for name in sorted(computed, key=lambda name: self.producers[name].index):
            node = self.like_cast(self.producers[name])
            if name != self.start and self.is_stored(node):
                try:
                    self.constants[name] = self.evaluate(node, name)
                # The tensor may be needed only for a shape, which is inferred.
                except NotReadError as error:
                    self.failed[name] = error

    def like_cast(self, node: Node) -> Node:
        """Replace a CastLike of a stored tensor by a Cast to the type of the other tensor."""
        name = node.proto.output[0]
        known = node.operator == "CastLike" and node.inputs[0] in self.constants
        if not known or not self.types.get(name):
            return node
        to, inputs = {"to": self.types[name]}, node.inputs[:1]
        proto = self.onnx.helper.make_node("Cast", inputs, [name], name=node.name, **to)
        return replace(node, operator="Cast", inputs=inputs, attributes=to, proto=proto)

    def is_stored(self, node: Node) -> bool:
        """Check whether an operator is deterministic and depends only on stored tensors."""
        graphs = any(hasattr(value, "node") for value in node.attributes.values())
        return (
            all(source in self.constants for source in node.inputs if source)
            and (len(node.inputs) > 0 or node.operator == "Constant")
            and node.operator not in _RANDOM
            and not graphs
        )

    def array(self, tensor: Any, name: str) -> NDArray[Any]:
        """Convert a stored tensor to an array."""
        try:
            return self.real(self.onnx.numpy_helper.to_array(tensor))
        # The tensor may have the wrong size or an unknown type.
        except Exception as error:
            raise ValueError(
                f"the stored tensor {name!r} is damaged ({type(error).__name__}: {error}); "
                "export the model again."
            ) from error

    def real(self, array: Any) -> NDArray[Any]:
        if array.dtype.kind in "cOSU":
            raise TypeError(f"{array.dtype} is not a dtype of real numbers")
        return np.asarray(array)

    def spend(self, n_entries: int) -> None:
        """Add the entries of a new array to the total, and check its limit."""
        self.spent += count_bytes((n_entries,), 8)
        check_size(self.spent, self.size, "the model")

    def evaluate(self, node: Node, name: str) -> NDArray[Any]:
        """Compute one operator on stored tensors."""
        if node.operator == "Constant" and "value" in node.attributes:
            return self.array(node.attributes["value"], name)
        self.n_folded += 1
        if self.n_folded > _MOST_FOLDED:
            raise node.error(
                f"of stored tensors, after {_MOST_FOLDED:,} such operators; fold the constants of "
                "the graph when it is exported"
            )
        helper = self.onnx.helper
        given = {source: self.constants[source] for source in node.inputs if source}
        # Only small tensors are stored in the graph, because shapes may depend on them.
        small = {at: array for at, array in given.items() if array.size <= _MOST_NUMBERS}
        stored = [self.onnx.numpy_helper.from_array(array, at) for at, array in small.items()]
        large = {at: array for at, array in given.items() if at not in small}
        inputs = [
            helper.make_tensor_value_info(
                at, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for at, array in large.items()
        ]
        output = helper.make_empty_tensor_value_info(name)
        graph = helper.make_graph([node.proto], "constant", inputs, [output], stored)
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        reference = import_optional("onnx.reference", caller="from_onnx", extra="onnx")
        try:
            n_entries = max([self.size_inferred(model), *(array.size for array in given.values())])
            self.spend(n_entries)
            if node.operator not in _FAST:
                self.n_slow += n_entries
                if self.n_slow > _MOST_SLOW:
                    raise ValueError(f"more than {_MOST_SLOW:,} entries of slow operators")
            return self.real(reference.ReferenceEvaluator(model).run(None, large)[0])
        except Exception as error:
            raise node.error(f"which fails on its stored inputs ({error})") from error

    def size_inferred(self, model: Any) -> int:
        """Infer the number of entries of the result of one operator, without computing it."""
        model = self.onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        result = model.graph.output[0].type.tensor_type
        dims = result.shape.dim
        if not result.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            raise ValueError("the shape of its result is unknown")
        return prod(dim.dim_value for dim in dims)

    def is_computed(self, name: str) -> bool:
        return name != "" and name not in self.constants

    def shape(self, node: Node, source: str | None = None) -> tuple[int | str | None, ...]:
        source = node.inputs[0] if source is None else source
        if source not in self.shapes:
            raise node.error(
                f"whose input {source!r} has no known number of dimensions; declare the shapes of "
                "the inputs of the graph"
            )
        return self.shapes[source]

    def stored(self, node: Node, place: int, ndim: int | None = None) -> Array | None:
        """Return an input that is a parameter, ``None`` if it is missing."""
        if place >= len(node.inputs) or not node.inputs[place]:
            return None
        name = node.inputs[place]
        if name not in self.constants:
            raise self.failed.get(name) or node.error(
                f"whose input {name!r} is computed, not stored, which is not supported"
            )
        self.spend(self.constants[name].size)
        array = floating(self.constants[name])
        if ndim is not None and array.ndim != ndim:
            raise node.error(f"whose input {name!r} has shape {array.shape}, not supported")
        return array

    def check_same_shapes(self, node: Node, tensors: list[str]) -> None:
        shapes = [self.shape(node, source) for source in tensors]
        differ = len(shapes[0]) != len(shapes[1]) or any(
            isinstance(first, int) and isinstance(second, int) and first != second
            for first, second in zip(*shapes, strict=True)
        )
        if differ:
            raise node.error(
                f"of tensors {shapes[0]} and {shapes[1]}; broadcasting is not supported"
            )

    def check_features_axis(self, node: Node, axis: int) -> None:
        rank = len(self.shape(node))
        features = FEATURES_AXIS.get(rank)
        if features is None or axis not in (features, features - rank):
            raise node.error(
                f"over axis {axis} of {rank}; only the axis of the features is supported: 1 of 2 "
                "and of 4, 2 of 3"
            )

    def windows(self, node: Node, kernel: Iterable[int]) -> dict[str, Any]:
        """Return the geometry of a convolution or of a pooling over images."""
        kernel = [int(size) for size in kernel]
        shape = self.shape(node)
        if len(kernel) != 2 or len(shape) != 4:
            raise node.error(
                f"over windows {kernel} of a tensor {shape}; only images are supported"
            )
        stride, dilation = (node.attributes.get(key, (1, 1)) for key in ("strides", "dilations"))
        automatic = node.attributes.get("auto_pad", b"NOTSET")
        pads = node.attributes.get("pads", (0, 0, 0, 0))
        if (len(stride), len(dilation), len(pads)) != (2, 2, 4):
            raise node.error(f"with strides {stride}, dilations {dilation} and pads {pads}")
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
                raise node.error(
                    f"{error}, which is {tuple(sizes)}: declare it in the inputs of the graph"
                ) from error
        elif automatic not in (b"", b"NOTSET"):
            raise node.error(f"with auto_pad={automatic!r}, which does not exist")
        if node.attributes.get("ceil_mode", 0):
            spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
            if any(
                size is None or (size + sum(added) - span) % step
                for size, added, span, step in zip(sizes, padding, spans, stride, strict=True)
            ):
                raise node.error(
                    f"with ceil_mode=1, which is not supported for images {tuple(sizes)}"
                )
        return {"stride": tuple(stride), "padding": padding, "dilation": tuple(dilation)}


def _site(given: str | None, argument: str, defaults: list[str], known: list[str]) -> str:
    if given is None:
        if len(defaults) == 1:
            return defaults[0]
        listed = ", ".join(map(repr, defaults)) or "none"
        raise ValueError(
            f"the graph has {len(defaults)} candidates for {argument}: {listed}; pass "
            f"{argument}='name' with the name of a tensor."
        )
    if given not in known:
        near = get_close_matches(given, known, n=6, cutoff=0)
        raise ValueError(
            f"{argument}={given!r} is not a tensor that can be used as {argument}; the most "
            f"similar of {len(known)} names are {', '.join(map(repr, near))}."
        )
    return given


def floating(array: NDArray[Any]) -> Array:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
