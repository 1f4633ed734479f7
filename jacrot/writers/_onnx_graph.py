"""The ONNX graph that is being written, and the converters of layers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot.writers._common import dispatch_on_class


@dataclass(frozen=True)
class OnnxGraph:
    """The nodes and stored tensors of an ONNX graph that is being written.

    Parameters
    ----------
    helper : module
        ``onnx.helper``.
    dtype : numpy.dtype
        Precision of the graph.
    place : str, default=""
        Prefix of new names: the place of the layer that is being converted.
    nodes : list of onnx.NodeProto
        The nodes.
    tensors : dict of str to ndarray
        The stored tensors by their names.
    names : collections.Counter
        Number of uses of every name.

    Examples
    --------
    >>> import numpy as np
    >>> import onnx
    >>> from jacrot.writers import OnnxGraph
    >>> graph = OnnxGraph(onnx.helper, np.dtype(np.float32))
    >>> graph.node("Mul", "x", graph.tensor("weight", [1.0, 2.0]))
    'Mul'
    >>> graph.tensors
    {'weight': array([1., 2.], dtype=float32)}
    """

    helper: Any
    dtype: np.dtype[Any]
    place: str = ""
    nodes: list[Any] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)

    @property
    def single(self) -> bool:
        """Whether the graph is in single precision, as the attributes of operators always are."""
        return bool(self.dtype == np.float32)

    def inside(self, name: object) -> OnnxGraph:
        """Return the same graph at a layer inside this one.

        Parameters
        ----------
        name : object
            Name or index of the inner layer.

        Returns
        -------
        OnnxGraph
            The graph, which shares its nodes and tensors with this one.
        """
        return replace(self, place=f"{self.place}{name}.")

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node.

        Parameters
        ----------
        operator : str
            Its operator, of operator set 20.
        *inputs : str
            Names of its inputs.
        **attributes : dict
            Its attributes.

        Returns
        -------
        str
            Name of its output.
        """
        name = self._new_name(operator)
        self.nodes.append(self.helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def tensor(self, name: str, array: ArrayLike) -> str:
        """Store a tensor.

        Parameters
        ----------
        name : str
            Name of the tensor, to which the place of the layer is added.
        array : array-like
            The tensor; floating-point numbers are converted to the precision of the graph.

        Returns
        -------
        str
            Name of the tensor in the graph.
        """
        values = np.asarray(array)
        name = self._new_name(name)
        if values.dtype.kind == "f":
            values = values.astype(self.dtype, copy=False)
        self.tensors[name] = values
        return name

    def number(self, value: float) -> str:
        """Store a number.

        Parameters
        ----------
        value : float
            The number.

        Returns
        -------
        str
            Its name in the graph.
        """
        return self.tensor("number", float(value))

    def _new_name(self, name: str) -> str:
        name = f"{self.place}{name}"
        self.names[name] += 1
        return name if self.names[name] == 1 else f"{name}_{self.names[name]}"


@dispatch_on_class
def layer_to_onnx(layer: Any, graph: OnnxGraph, x: str, ndim: int) -> str:
    """Add the nodes of one layer to an ONNX graph, by the converter registered for its class.

    :func:`to_onnx` calls it for every layer. ``@layer_to_onnx.register(MyLayer)`` before a function
    of the same arguments registers that function for layers of the class ``MyLayer``, and not for
    those of classes derived from it.

    Parameters
    ----------
    layer : BaseLayer
        The layer.
    graph : OnnxGraph
        The graph.
    x : str
        Name of the input of the layer in the graph.
    ndim : int
        Number of dimensions of the input: 2 for rows, 3 for sequences, 4 for images.

    Returns
    -------
    str
        Name of the output of the layer in the graph.

    Raises
    ------
    ValueError
        If no converter is registered for the class of the layer.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import onnx
    >>> from jacrot import Network
    >>> from jacrot.layers import BaseLayer, identity_tangents
    >>> from jacrot.writers import layer_to_onnx, to_onnx
    >>> class Sine(BaseLayer):
    ...     def __call__(self, x):
    ...         return np.sin(x)
    ...
    ...     def jvp(self, x, tangents):
    ...         tangents = identity_tangents(x) if tangents is None else tangents
    ...         return self(x), np.cos(x)[..., None] * tangents
    >>> @layer_to_onnx.register(Sine)
    ... def convert(layer, graph, x, ndim):
    ...     return graph.node("Sin", x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "sine.onnx")
    ...     to_onnx(Network([Sine()]), path)
    ...     model = onnx.load(path)
    >>> [node.op_type for node in model.graph.node]
    ['Sin', 'Identity']
    """
    raise ValueError(
        f"{layer!r} is your own Python code, for which no converter is registered; register one "
        "with jacrot.writers.layer_to_onnx.register."
    )
