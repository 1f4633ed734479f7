"""Computation graphs with residual sums and gates, read as nested layers."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from itertools import pairwise

from jacrot.layers import Activation, Dense, GatedDense, Layer, Residual, fused

# A layer that several summands share becomes one of each; of sums of sums, of two to the power of
# their number.
MOST_PATHS = 32


class Graph:
    """Tensors by name, each computed from earlier ones.

    Tensors are added in the order in which they are computed. Every sum and product has a
    nearest tensor that all of its paths go through; what lies between becomes one layer.

    Parameters
    ----------
    input : str
        Name of the tensor that is given.

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
        # How each tensor is made: the nearest tensor before it that all its paths go through,
        # and the layer that leads from there, or the two summands.
        self._made: dict[str, tuple[str, Layer | tuple[str, str]]] = {}
        # How many such steps lead to each.
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
            Names of what it reads and of what it writes.

        Raises
        ------
        ValueError
            If `source` does not exist or `result` does.
        """
        self._make(result, self._find(source), layer)

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
        self._make(result, self._fork(*summands), summands)

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
                    return self._make(result, source, Activation("silu"))
                case [Dense(activation="identity") as u], [Dense() as g]:
                    layer = GatedDense(g.weight, u.weight, g.bias, u.bias, g.activation)
                    return self._make(result, source, layer)
        raise ValueError(
            f"tensor {result!r} is the product of {first!r} and {second!r}, which are not "
            "f(W x + b) and V x + c of one tensor x; of products only such gates are read."
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
            The tensor to compute it from, which every path to `output` must go through; the
            input of the graph if ``None``.

        Returns
        -------
        list of Layer
            The layers, in order. A sum is one ``Residual``, of the paths to its two summands.

        Raises
        ------
        ValueError
            If a tensor does not exist, paths to `output` go around `start`, or there are so many
            that share a layer that they cannot be listed.
        """
        end = self._find(output)
        first = self._find(self.input if start is None else start)
        possible = self._dominators(end)
        if first not in possible:
            nearest = ", ".join(map(repr, (possible[1:] or possible)[:6]))
            raise ValueError(
                f"start={start!r} is not enough to compute {output!r}: some path from the input "
                f"goes around it; write one of {nearest}."
            )
        self._listed.clear()
        return self._between(first, end)

    def made(self, name: str) -> tuple[str, Layer] | None:
        """Find how a tensor is made.

        Parameters
        ----------
        name : str
            The tensor.

        Returns
        -------
        tuple of (str, Layer) or None
            The tensor that it is computed from, and the layer that computes it; ``None`` for the
            input and for sums.
        """
        source, how = self._made.get(self._find(name), (name, ()))
        return None if isinstance(how, tuple) else (source, how)

    def _make(self, result: str, source: str, how: Layer | tuple[str, str]) -> None:
        self._check_new(result)
        self._names[result] = result
        self._made[result] = source, how
        self._depth[result] = self._depth[source] + 1

    def _find(self, name: str) -> str:
        if name not in self._names:
            near = get_close_matches(name, list(self._names), n=6, cutoff=0)
            raise ValueError(
                f"tensor {name!r} is not in the graph; of its {len(self._names)} tensors, these "
                f"have the most similar names: {', '.join(map(repr, near))}."
            )
        return self._names[name]

    def _check_new(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"tensor {name!r} is computed twice; give every tensor its own name.")

    def _dominators(self, tensor: str) -> list[str]:
        """List what every path to a tensor goes through, from the tensor back to the input."""
        chain = [tensor]
        while chain[-1] != self.input:
            chain.append(self._made[chain[-1]][0])
        return chain

    def _fork(self, first: str, second: str) -> str:
        """Find the nearest tensor that every path to either of two goes through."""
        while first != second:
            if self._depth[first] < self._depth[second]:
                first, second = second, first
            first = self._made[first][0]
        return first

    def _between(self, start: str, end: str) -> list[Layer]:
        layers: list[Layer] = []
        while end != start:
            self._listed[end] += 1
            if self._listed[end] > MOST_PATHS:
                raise ValueError(
                    f"tensor {end!r} is on more than {MOST_PATHS} paths of sums of sums; write a "
                    "part of the network in which fewer share it."
                )
            end, how = self._made[end]
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
        # The longer path is the branch; x + x is x plus the identity of x.
        shortcut, branch = sorted(
            (self._between(source, second), self._between(source, first)), key=len
        )
        return Residual(fused(branch) or Activation("identity"), fused(shortcut) or None)
