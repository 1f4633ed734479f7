"""ONNX files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from jacrot._io.files import atomic_write
from jacrot._utils.arrays import FEATURES_AXIS
from jacrot._utils.optional import import_optional
from jacrot.network import Network
from jacrot.writers._common import check_convertible, common_dtype, ndims_read
from jacrot.writers._onnx_activations import ACTIVATION_NODES
from jacrot.writers._onnx_graph import OnnxGraph, layer_to_onnx
from jacrot.writers._onnx_layers import add_chain

# The first that has GELU, since onnx 1.15 and ONNX Runtime 1.17.
OPSET = 20
# Names of axes of any size, by the number of dimensions of the batch.
_AXES = {
    2: ("n_features",),
    3: ("n_positions", "n_features"),
    4: ("n_channels", "height", "width"),
}
_KINDS = {2: "rows", 3: "sequences", 4: "images"}
# Largest size of a protocol buffer, the format of ONNX files.
MAX_BYTES = 2**31 - 1
# Stored tensors of more entries are weights, whose values the checks do not need.
LARGE = 1024


def to_onnx(
    network: Network,
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int | None] | None = None,
    dtype: DTypeLike | None = None,
) -> None:
    """Convert a network to an ONNX file that computes the same function.

    The graph reads ``x`` and writes ``y``, batches of any number of samples. If writing fails, no
    file appears and an existing one stays as it was.

    Parameters
    ----------
    network : Network
        The network. Functions cannot be converted; your own layers can if you register a
        converter, see :func:`layer_to_onnx`.
    path : str or path-like
        The file, ending in ``.onnx``.
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
        If `network` is not a ``Network``.
    ValueError
        If a layer or an activation cannot be converted, which the message names; if the network
        does not read `input_shape`; if `path` or `dtype` is not as above; or if the weights take
        more than 2 GB, the limit of an ONNX file.

    Notes
    -----
    Operator set 20, which ONNX Runtime reads from version 1.17 on. In float64, ONNX Runtime has no
    convolution, no average pooling and no error function (``"gelu"``) on the CPU: files of such
    networks are valid, but pass ``dtype="float32"`` to run them there.

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
    onnx = import_optional("onnx", "to_onnx", "onnx")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"path={str(path)!r} must end in '.onnx'.")
    check_convertible(network, layer_to_onnx, ACTIVATION_NODES, "to_onnx")
    if dtype not in (None, "float32", "float64", np.float32, np.float64):
        raise ValueError(f"dtype={dtype!r} must be 'float32' or 'float64'.")
    precision = common_dtype(network) if dtype is None else np.dtype(dtype)
    model = _model(onnx, network, _input_shape(network, input_shape), precision)
    content = model.SerializeToString()
    with atomic_write(path) as file:
        file.write(content)


def _input_shape(network: Network, given: Sequence[int | None] | None) -> tuple[int | str, ...]:
    """Return the shape of a sample, with a name for each axis of any size."""
    read = ndims_read(network.layers)[0]
    if not read:
        raise ValueError(
            f"{network!r} reads neither rows nor sequences nor images to its end; pass the layers "
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
            f"input_shape={given!r}, but the network reads {' or '.join(kinds)}; pass a whole "
            "number for each axis, or None for any size."
        )
    axis = FEATURES_AXIS[ndim] - 1
    width = network.n_inputs
    if width is not None and sizes[axis] not in (None, width):
        raise ValueError(
            f"input_shape={given!r} has {sizes[axis]} features, but the network reads {width}; "
            f"pass {width}, or None."
        )
    sizes = (*sizes[:axis], sizes[axis] or width, *sizes[axis + 1 :])
    names = _AXES[ndim]
    return tuple(int(size) if size else name for size, name in zip(sizes, names, strict=True))


def _is_size(size: Any) -> bool:
    return size is None or (isinstance(size, Integral) and int(size) >= 1)


def _model(onnx: Any, network: Network, shape: tuple[int | str, ...], dtype: np.dtype[Any]) -> Any:
    """Build a model that the checker accepts, with the shapes of all tensors."""
    helper = onnx.helper
    graph = OnnxGraph(helper, dtype)
    last, _ = add_chain(graph, network.layers, "x", len(shape) + 1)
    graph.nodes.append(helper.make_node("Identity", [last], ["y"], "y"))
    size = sum(array.nbytes for array in graph.tensors.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"the weights take {size / 2**30:.1f} GB in {dtype}, and an ONNX file holds 2; pass "
            "dtype='float32', or parts of the network (network[:site], network[site:]) each into "
            "a file of its own."
        )
    # The checks copy a model several times: they see weights as declared inputs, and the arrays
    # are added afterwards.
    weights = {name: array for name, array in graph.tensors.items() if array.size > LARGE}
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
        for name, array in graph.tensors.items()
        if name not in weights
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "network", inputs, [output], small),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="jacrot",
    )
    # The default is the newest, which older runtimes refuse.
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model)
    del model.graph.input[1:]
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model
