"""Checks of ONNX files before they are converted."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from jacrot._utils.optional import import_optional
from jacrot.readers._limits import check_readable_file, check_size

# Before this version operators had different attributes and broadcasting rules.
OLDEST_OPSET = 9
# Limit for nodes, attributes, stored tensors and value infos of a graph with its functions inlined;
# ResNet-152 has four thousand.
_LARGEST_GRAPH = 20_000
# Limit of protobuf.
_LARGEST_FILE = 2**31 - 1
# Before version 1.22 the shape inference of onnx divides by these attributes, and reads tensors of
# these types (float, int32, int64, double; bytes of an entry) without checking their length.
_DIVISORS = frozenset({"blocksize", "dilations", "kernel_shape", "strides"})
_ITEMSIZES = {1: 4, 6: 4, 7: 8, 11: 8}


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
    onnx = import_optional("onnx", caller="list_arrays", extra="onnx")
    listed: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        for tensor in _parse(onnx, path).graph.initializer:
            if tensor.name in listed:
                raise ValueError(f"two stored tensors have the name {tensor.name!r}")
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            listed[tensor.name] = tuple(tensor.dims), str(dtype)
    # As in load_model.
    except Exception as error:
        raise _invalid_error(f"path={str(path)!r}", error) from error
    return listed


def _invalid_error(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} is damaged or not a valid ONNX model ({type(error).__name__}: {error}); export "
        "it again."
    )


def _parse(onnx: Any, path: Path) -> Any:
    """Parse a file without external weights."""
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"a file of more than {_LARGEST_FILE:,} bytes")
    model = onnx.load(path, load_external_data=False)
    _check_graph(onnx, model)
    return model


def _check_graph(onnx: Any, model: Any) -> None:
    """Check the size of a graph with its functions, which may call one another."""
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
                        raise ValueError(
                            f"an attribute of {node.op_type} is stored in another file"
                        )
                for graph in (attribute.g, *attribute.graphs):
                    total += size(graph.node, graph.initializer)
            key = node.domain, node.op_type
            if key in functions and key not in sizes:
                # While the size is unknown, so that recursive functions are infinite.
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
    """Check that a stored tensor has the number of bytes of its shape."""
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"the stored tensor {tensor.name!r} has the shape {list(tensor.dims)}")
    n_bytes = prod(tensor.dims) * _ITEMSIZES.get(tensor.data_type, 0)
    if n_bytes and tensor.HasField("raw_data") and len(tensor.raw_data) != n_bytes:
        raise ValueError(
            f"the stored tensor {tensor.name!r} has {len(tensor.raw_data):,} bytes for shape "
            f"{list(tensor.dims)}"
        )


def _size_outside(tensors: list[Any], folder: Path, size: int) -> int:
    """Return the bytes of the external files of a graph, which must be in its folder."""
    sizes: dict[Path, int] = {}
    n_bytes = 0
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = (folder / entries.get("location", "")).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise ValueError(
                f"tensor {tensor.name!r} is stored in {entries.get('location')!r}, which is not a "
                "file in the folder of the model"
            )
        sizes[file] = file.stat().st_size
        length = int(entries.get("length", sizes[file]))
        if length < 0:
            raise ValueError(f"tensor {tensor.name!r} has {length} bytes")
        n_bytes += length
    check_size(n_bytes, size + sum(sizes.values()), "the model")
    return sum(sizes.values())


def load_model(onnx: Any, given: Any, name: str) -> tuple[Any, int]:
    """Load a valid model with inferred shapes and weights; return also its size in bytes."""
    path = None if isinstance(given, onnx.ModelProto) else check_readable_file(given)
    try:
        if path is None:
            model, size = given, given.ByteSize()
            _check_graph(onnx, model)
        else:
            model, size = _parse(onnx, path), path.stat().st_size
        outside = [
            tensor
            for tensor in model.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        ]
        if outside and path is not None:
            size += _size_outside(outside, path.parent, size)
        if model.functions:
            inliner = import_optional("onnx.inliner", caller="from_onnx", extra="onnx")
            model = inliner.inline_local_functions(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if not outside:
            onnx.checker.check_model(model)
        elif path is not None:
            # The checker needs the path to find external files.
            onnx.checker.check_model(str(path))
            onnx.load_external_data_for_model(model, str(path.parent))
    # Protobuf, the checker, the shape inference and the reader of external data have errors
    # without a common base class.
    except Exception as error:
        raise _invalid_error(name, error) from error
    if outside and path is None:
        raise ValueError(
            f"model stores tensor {outside[0].name!r} in another file; pass the path of the model "
            "in the folder of that file."
        )
    opset = get_opset(model)
    if opset < OLDEST_OPSET:
        raise ValueError(
            f"{name} has operator set {opset}, and from_onnx supports {OLDEST_OPSET} and later; "
            "pass onnx.version_converter.convert_version(model, 13)."
        )
    return model, size


def get_opset(model: Any) -> int:
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return versions[0] if versions else OLDEST_OPSET
