"""Multi-head self-attention."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from jacrot._utils.arrays import Array, any_array, read_only
from jacrot.layers._base import BaseLayer, identity_tangents
from jacrot.layers._dense import Dense
from jacrot.layers._fields import Converted, bias_beside, integer, weight_matrix

SIDES = ("query", "key", "value", "output")


def _mask(value: Any, name: str, layer: object) -> str | Array | None:
    if value is None or (isinstance(value, str) and value == "causal"):
        return value
    allowed = any_array(value, name)
    if allowed.dtype != bool or allowed.ndim != 2 or allowed.shape[0] != allowed.shape[1]:
        raise ValueError(
            f"{name}={value!r} must be 'causal', None, or a square array of bool: True where a "
            "row's position may attend to a column's."
        )
    if not allowed.any(axis=1).all():
        raise ValueError(
            f"{name} leaves a position nothing to attend to; set at least one entry of every row "
            "to True."
        )
    return read_only(allowed)


@dataclass(frozen=True, eq=False)
class Attention(BaseLayer):
    """Multi-head self-attention of sequences.

    With ``q = W_q x + b_q`` and so on, split among the heads, ::

        A = softmax(scale q kᵀ + mask),    y = W_o [A v of every head] + b_o

    Its full Jacobian has two parts: values move along the pattern ``A``, and the pattern itself
    moves, ``dA = A ∘ (dS − Σ_s A dS)`` with ``dS = scale (dq kᵀ + q dkᵀ)``. With the pattern frozen
    only the first is left: the value–output circuits, ``A_ts W_o W_v`` from position ``s`` to ``t``
    for every head.

    Parameters
    ----------
    query, key, value : array-like of shape (n_heads * head_width, n_inputs)
        ``W_q``, ``W_k`` and ``W_v``, the heads one after the other.
    output : array-like of shape (n_outputs, n_heads * head_width)
        ``W_o``.
    n_heads : int
        Number of heads.
    query_bias, key_bias, value_bias, output_bias : array-like, default=None
        The vectors ``b``, zero if ``None``.
    mask : {"causal"} or array-like of bool of shape (n_positions, n_positions), default=None
        Which position (row) may attend to which (column); ``"causal"`` is to itself and those
        before it, ``None`` to all.
    scale : float, default=None
        ``None`` is one over the square root of the width of a query's head.
    frozen : bool, default=False
        Whether tangents leave the pattern ``A`` as it is. The outputs do not depend on this.

    Raises
    ------
    ValueError
        If shapes do not fit, a mask leaves a position nothing to attend to, or an entry is NaN or
        infinite.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.

    N. Elhage et al., "A mathematical framework for transformer circuits" (2021), for the circuits
    of a head.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Attention
    >>> attention = Attention(*np.stack([np.eye(2)] * 4), n_heads=1, mask="causal")
    >>> attention(np.array([[[1.0, 0.0], [0.0, 1.0]]])).round(2)
    array([[[1.  , 0.  ],
            [0.33, 0.67]]])
    """

    query: Converted[ArrayLike, Array] = Converted(weight_matrix)
    key: Converted[ArrayLike, Array] = Converted(weight_matrix)
    value: Converted[ArrayLike, Array] = Converted(weight_matrix)
    output: Converted[ArrayLike, Array] = Converted(weight_matrix)
    _: KW_ONLY
    n_heads: Converted[int, int] = Converted(integer)
    query_bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("query"), None)
    key_bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("key"), None)
    value_bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("value"), None)
    output_bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("output"), None)
    mask: Converted[Any, str | Array | None] = Converted(_mask, None)
    scale: float | None = None
    frozen: bool = False
    input_ndims = (3,)

    def __post_init__(self) -> None:
        q, k, v, o = (getattr(self, side).shape for side in SIDES)
        if q != k or q[1] != v[1] or o[1] != v[0]:
            raise ValueError(
                f"query has shape {q}, key {k}, value {v} and output {o}; pass query and key of "
                "one shape, all three with as many columns, and output with as many columns as "
                "value has rows."
            )
        if self.n_heads < 1 or q[0] % self.n_heads or v[0] % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} does not divide the {q[0]} rows of query and {v[0]} of "
                "value."
            )

    def __repr__(self) -> str:
        return f"Attention({self.n_inputs} → {self.n_outputs}, {self.n_heads} heads)"

    @property
    def n_inputs(self) -> int:
        return int(self.query.shape[1])

    @property
    def n_outputs(self) -> int:
        return len(self.output)

    def __call__(self, x: Array) -> Array:
        pattern, values = self.pattern(x), self._heads("value", x)
        heads = _merged(np.einsum("nhts,nshe->nthe", pattern, values))
        return heads @ self.output.T + self.output_bias

    def pattern(self, x: Array) -> Array:
        """Compute how much every position attends to every other.

        Parameters
        ----------
        x : ndarray of shape (n_samples, n_positions, n_inputs)
            Sequences.

        Returns
        -------
        ndarray of shape (n_samples, n_heads, n_positions, n_positions)
            ``A``, rows of which sum to 1.
        """
        if x.ndim != 3:
            raise ValueError(
                f"{self!r} reads sequences (n_samples, n_positions, {self.n_inputs}), got shape "
                f"{x.shape}."
            )
        scores = self._scale * np.einsum(
            "nthe,nshe->nhts", self._heads("query", x), self._heads("key", x)
        )
        if self.mask is not None:
            allowed = self._allowed(x.shape[1])
            scores = np.where(allowed, scores, -np.inf)
        return np.asarray(softmax(scores, axis=-1))

    def value_output(self, head: int) -> Dense:
        """Return the value–output circuit of a head, ``W_o W_v``, as a layer.

        What the head writes at a position is the mean of this map over the positions that it
        attends to, weighted by its pattern.

        Parameters
        ----------
        head : int
            From 0 to ``n_heads - 1``.

        Returns
        -------
        Dense
            The linear map, from the inputs to the outputs; without the bias of the output.

        Raises
        ------
        ValueError
            If the head does not exist.
        """
        if head not in range(self.n_heads):
            raise ValueError(f"head={head!r} must be from 0 to {self.n_heads - 1}.")
        width = len(self.value) // self.n_heads
        rows = slice(head * width, (head + 1) * width)
        output = self.output[:, rows]
        return Dense(output @ self.value[rows], output @ self.value_bias[rows], "identity")

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        pattern = self.pattern(x)
        values = self._heads("value", x)
        moved = np.einsum(
            "nhts,nshek->nthek", pattern, self._tangent_heads("value", tangents), optimize=True
        )
        if not self.frozen:
            queries, keys = self._heads("query", x), self._heads("key", x)
            scores = np.einsum(
                "nthek,nshe->nhtsk", self._tangent_heads("query", tangents), keys, optimize=True
            )
            scores += np.einsum(
                "nthe,nshek->nhtsk", queries, self._tangent_heads("key", tangents), optimize=True
            )
            weighted = pattern[..., None] * (self._scale * scores)
            turned = weighted - pattern[..., None] * weighted.sum(axis=3, keepdims=True)
            moved += np.einsum("nhtsk,nshe->nthek", turned, values, optimize=True)
        return self(x), np.matmul(self.output, _merged(moved))

    def rotate_inputs(self, rotation: Array) -> Attention:
        read = {side: getattr(self, side) @ rotation.T for side in SIDES[:3]}
        return self.changed(**read)

    def rotate_outputs(self, rotation: Array) -> Attention:
        return self.changed(output=rotation @ self.output, output_bias=rotation @ self.output_bias)

    @property
    def _scale(self) -> float:
        width = len(self.query) // self.n_heads
        return 1 / float(np.sqrt(width)) if self.scale is None else self.scale

    def _allowed(self, n_positions: int) -> Array:
        if isinstance(self.mask, str):
            return np.tri(n_positions, dtype=bool)
        assert self.mask is not None
        if len(self.mask) != n_positions:
            raise ValueError(
                f"mask is for sequences of {len(self.mask)} positions, got {n_positions}."
            )
        return self.mask

    def _heads(self, side: str, x: Array) -> Array:
        """Compute ``(n_samples, n_positions, n_heads, head_width)`` queries, keys or values."""
        y = x @ getattr(self, side).T + getattr(self, f"{side}_bias")
        return y.reshape(*y.shape[:2], self.n_heads, -1)

    def _tangent_heads(self, side: str, tangents: Array) -> Array:
        pushed = np.matmul(getattr(self, side), tangents)
        return pushed.reshape(*pushed.shape[:2], self.n_heads, -1, pushed.shape[-1])


def _merged(heads: Array) -> Array:
    """Concatenate the heads: ``(n, t, h, e, ...)`` to ``(n, t, h e, ...)``."""
    n, t, h, e = heads.shape[:4]
    return heads.reshape(n, t, h * e, *heads.shape[4:])
