"""Computation graphs with residual sums and gates, converted to nested layers."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from itertools import pairwise

from jacrot.layers import Activation, Dense, GatedDense, Layer, Residual, fused

# A layer that several summands share is repeated in each of them, and in nested sums exponentially
# often. This is the limit for repetitions.
MOST_PATHS = 32


class Graph:
    """Tensors by name, each computed from earlier ones.

    Tensors are added in the order in which they are computed. For every sum and product, the
    computation since the nearest tensor that lies on all paths to it becomes one layer.

    Parameters
    ----------
    input : str
        Name of the input tensor.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Dense
    >>> from jacrot.readers._graph import Graph
    >>> graph = Graph("x")
    >>> graph.apply(Dense([[2.0]], activation="identity"), "x", "doubled")
    >>> graph.add("x", "doubled", "y")
    >>> [layer] = graph.layers("y")
    >>> layer(np.array([[1.0]]))
    array([[3.]])
    """

    def __init__(self, input: str) -> None:
        self.input = input
        self._names = {input: input}
        # How each tensor is computed: the nearest earlier tensor on all paths to it, and the layer
        # that is applied to that tensor, or the two summands.
        self._steps: dict[str, tuple[str, Layer | tuple[str, str]]] = {}
        # Number of such steps from the input.
        self._depth = {input: 0}
        self._listed: Counter[str] = Counter()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def apply(self, layer: Layer, source: str, result: str) -> None:
        """Add the tensor ``result = layer(source)``.

        Parameters
        ----------
        layer : Layer
            The layer.
        source, result : str
            Names of its input and of its output.

        Raises
        ------
        ValueError
            If `source` does not exist or `result` does.
        """
        self._add_step(result, self._find(source), layer)

    def add(self, first: str, second: str, result: str) -> None:
        """Add the tensor ``result = first + second``, elementwise.

        Parameters
        ----------
        first, second, result : str
            Names of the summands and of the sum.

        Raises
        ------
        ValueError
            If a summand does not exist or `result` does.
        """
        summands = self._find(first), self._find(second)
        self._add_step(result, self._fork(*summands), summands)

    def multiply(self, first: str, second: str, result: str) -> None:
        """Add the tensor ``result = first * second`` of a gated layer, or of ``x sigmoid(x)``.

        Parameters
        ----------
        first, second, result : str
            Names of the factors and of the product.

        Raises
        ------
        ValueError
            If the factors are not two dense layers of one tensor, at most one of them with an
            activation; if a factor does not exist or `result` does.
        """
        factors = self._find(first), self._find(second)
        source = self._fork(*factors)
        self._listed.clear()
        paths = [fused(self._between(source, factor)) for factor in factors]
        for up, gate in (paths, paths[::-1]):
            match up, gate:
                case [], [Activation(activation="sigmoid")]:
                    return self._add_step(result, source, Activation("silu"))
                case [Dense(activation="identity") as u], [Dense() as g]:
                    layer = GatedDense(g.weight, u.weight, g.bias, u.bias, g.activation)
                    return self._add_step(result, source, layer)
        raise ValueError(
            f"tensor {result!r} is the product of {first!r} and {second!r}, which are not "
            "f(W x + b) and V x + c of one tensor x; only such gated products are supported."
        )

    def alias(self, source: str, result: str) -> None:
        """Add another name, `result`, for the tensor `source`.

        Parameters
        ----------
        source, result : str
            The old and the new name.

        Raises
        ------
        ValueError
            If `source` does not exist or `result` does.
        """
        tensor = self._find(source)
        self._check_new(result)
        self._names[result] = tensor

    def layers(self, output: str, start: str | None = None) -> list[Layer]:
        """List the layers that lead from one tensor to another.

        Parameters
        ----------
        output : str
            The tensor to compute.
        start : str, default=None
            The tensor to compute it from, which must lie on every path to `output`; the input of
            the graph if ``None``.

        Returns
        -------
        list of Layer
            The layers, in order. A sum is one ``Residual`` of the paths to its two summands.

        Raises
        ------
        ValueError
            If a tensor does not exist, a path to `output` does not contain `start`, or too many
            paths share a layer.
        """
        end = self._find(output)
        first = self._find(self.input if start is None else start)
        possible = self._dominators(end)
        if first not in possible:
            nearest = ", ".join(map(repr, (possible[1:] or possible)[:6]))
            raise ValueError(
                f"start={start!r} is not enough to compute {output!r}: not every path from the "
                f"input contains it; pass one of {nearest}."
            )
        self._listed.clear()
        return self._between(first, end)

    def find_step(self, name: str) -> tuple[str, Layer] | None:
        """Return how a tensor is computed.

        Parameters
        ----------
        name : str
            The tensor.

        Returns
        -------
        tuple of (str, Layer) or None
            The tensor from which it is computed, and the layer that computes it; ``None`` for the
            input and for sums.
        """
        source, how = self._steps.get(self._find(name), (name, ()))
        return None if isinstance(how, tuple) else (source, how)

    def _add_step(self, result: str, source: str, how: Layer | tuple[str, str]) -> None:
        self._check_new(result)
        self._names[result] = result
        self._steps[result] = source, how
        self._depth[result] = self._depth[source] + 1

    def _find(self, name: str) -> str:
        if name not in self._names:
            near = get_close_matches(name, list(self._names), n=6, cutoff=0)
            raise ValueError(
                f"tensor {name!r} is not in the graph, which has {len(self._names)} tensors; the "
                f"most similar names are {', '.join(map(repr, near))}."
            )
        return self._names[name]

    def _check_new(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"tensor {name!r} is computed twice; names of tensors must be unique.")

    def _dominators(self, tensor: str) -> list[str]:
        """List the tensors on every path to a tensor, from the tensor back to the input."""
        chain = [tensor]
        while chain[-1] != self.input:
            chain.append(self._steps[chain[-1]][0])
        return chain

    def _fork(self, first: str, second: str) -> str:
        """Find the nearest tensor that lies on every path to both of two tensors."""
        while first != second:
            if self._depth[first] < self._depth[second]:
                first, second = second, first
            first = self._steps[first][0]
        return first

    def _between(self, start: str, end: str) -> list[Layer]:
        layers: list[Layer] = []
        while end != start:
            self._listed[end] += 1
            if self._listed[end] > MOST_PATHS:
                raise ValueError(
                    f"tensor {end!r} is on more than {MOST_PATHS} paths of nested sums; convert a "
                    "part of the network in which fewer paths share it."
                )
            end, how = self._steps[end]
            layers.append(self._residual(end, *how) if isinstance(how, tuple) else how)
        layers.reverse()
        for first, second in pairwise(layers):
            widths = first.n_outputs, second.n_inputs
            if None not in widths and widths[0] != widths[1]:
                raise ValueError(
                    f"after tensor {start!r} layers do not chain: {first!r} writes {widths[0]} "
                    f"features but {second!r} reads {widths[1]}."
                )
        return layers

    def _residual(self, source: str, first: str, second: str) -> Residual:
        # The longer path is the branch; in x + x it is the identity.
        shortcut, branch = sorted(
            (self._between(source, second), self._between(source, first)), key=len
        )
        return Residual(fused(branch) or Activation("identity"), fused(shortcut) or None)
