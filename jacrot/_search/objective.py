"""The oracle: cost, gradients and plane curvatures, and nothing else of the data.

A point is a list of rotations ``R``. Every term of the cost is a stack of Jacobians, whose
outputs and inputs are turned by one of them or kept: with ``X_i = P J_i Qᵀ`` and ``S = φ'(X)``,
``F = Σ_terms mean_i 1/(mn) Σ φ_ε(X_i)``. Moving ``Q ← exp(Ω) Q`` turns ``X`` into ``X exp(−Ω)``,
so ``dF = −⟨XᵀS, Ω⟩ = ⟨SᵀX, Ω⟩`` for skew ``Ω``; moving ``P``, ``dF = ⟨S Xᵀ, Ω⟩``. These are the
relative gradients: no Jacobian is needed again for them. The second derivative along the rotation
of the plane ``(a, b)`` of the inputs is ``K_ab + K_ba − M_aa − M_bb`` with ``K = (X∘X)ᵀ φ''(X)``
and ``M = XᵀS``; of the outputs, the same with the transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn import get_config

from jacrot._jacobians.base import Jacobians
from jacrot._utils.arrays import Array, Matrix
from jacrot._utils.threads import Apply, sum_blocks
from jacrot.criteria._minimised import Criterion

Derivatives = Callable[[Array, int], tuple[Array, ...]]
OutputMode = Literal["fixed", "free", "tied"]


@dataclass(frozen=True)
class Term:
    """A stack of Jacobians, and which rotations of a point turn it.

    Parameters
    ----------
    jacobians : Jacobians
        The stack, already scaled.
    output, input : int or None
        Index in the point of the rotation of the outputs and of the inputs, ``None`` to keep the
        given axes.
    readout : ndarray of shape (n_outputs, n_outputs), default=None
        ``G``, what reads the outputs, where a table's criterion weighs every output axis ``a`` by
        ``u_a² = (P G Pᵀ)_aa``; ``None`` for no weights.
    """

    jacobians: Jacobians
    output: int | None
    input: int | None
    readout: Matrix | None = None

    @classmethod
    def of_mode(cls, jacobians: Jacobians, mode: OutputMode, readout: Matrix | None = None) -> Term:
        """Make the only term of a problem.

        The point is ``(Q,)`` where the output basis is fixed or tied to the input basis, and
        ``(P, Q)`` where it is free.
        """
        output, input_ = {"fixed": (None, 0), "free": (0, 1), "tied": (0, 0)}[mode]
        return cls(jacobians, output, input_, readout)


@dataclass(frozen=True)
class _Table:
    """The mean squares of the entries of a term, and what reads its outputs, in their axes."""

    squares: Matrix
    readout: Matrix | None

    @property
    def weights(self) -> Matrix:
        """``u²``, in a column."""
        return np.ones((1, 1)) if self.readout is None else np.diag(self.readout)[:, None]

    @property
    def powers(self) -> Matrix:
        """``M_ab``."""
        return self.weights * self.squares


class Objective:
    """The cost of rotations on stacks of Jacobians.

    The last point is remembered, with its rotated blocks where there is memory for them: the
    gradient follows the cost of the same point, and pymanopt asks for both more than once.

    Parameters
    ----------
    terms : sequence of Term
        What is summed.
    criterion : Criterion
        ``φ``.
    smoothing : float
        ``ε``; 0 is the exact criterion, which has a cost but no gradient.
    bases : sequence of (ndarray of shape (n_axes, n_features) or None), default=()
        For each rotation orthonormal rows inside which it turns, ``None`` for the whole space.
        Empty: the whole space for all.
    apply : callable, default=map
        ``map``, or that of an executor, whose threads then share the blocks. The result does not
        depend on it.
    kept_share : float, default=0.25
        Share of scikit-learn's ``working_memory`` up to which the rotated blocks of the last point
        are kept.

    Attributes
    ----------
    n_evaluations : int
        Passes over the samples so far.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        criterion: Criterion,
        smoothing: float,
        bases: Sequence[Matrix | None] = (),
        apply: Apply = map,
        kept_share: float = 0.25,
    ) -> None:
        self.terms = terms
        self.criterion = criterion
        self.smoothing = smoothing
        self.bases = bases
        self.n_evaluations = 0
        concurrent = criterion.concurrent and all(term.jacobians.concurrent for term in terms)
        self._apply = apply if concurrent else map
        self._point: tuple[Matrix, ...] = ()
        self._cost: float | None = None
        self._gradients: list[Matrix] | None = None
        self._blocks: dict[tuple[int, int], Array] | None = None
        size = sum(term.jacobians.n_entries for term in terms)
        self._keeps = size * 8 <= kept_share * get_config()["working_memory"] * 2**20

    def cost(self, *point: Matrix) -> float:
        """Compute ``F`` at a point."""
        self._visit(point)
        if self._cost is None:
            self.n_evaluations += 1
            if self.criterion.of_table:
                powers = np.concatenate([table.powers.ravel() for table in self._tables()])
                (values,) = self.criterion.derivatives(powers, self.smoothing, 0)
                self._cost = float(values.mean())
            else:
                self._cost = sum(map(self._cost_of, self._terms))
        return self._cost

    def gradients(self, *point: Matrix) -> list[Matrix]:
        """Compute the relative gradient for each rotation of a point (and its cost).

        ``G`` belongs to the directions ``Ω R`` for skew ``Ω``: ``dF = ⟨G, Ω⟩``; the Euclidean
        gradient is ``G R``.
        """
        self._visit(point)
        if self._gradients is None:

            def evaluate(at: Derivatives, term: Term, block: Array) -> tuple[Any, ...]:
                value, slope = at(block, 1)
                sides = []
                if term.output is not None:
                    sides.append(_by_outputs(slope) @ _by_outputs(block).T)
                if term.input is not None:
                    sides.append(_by_inputs(slope, block) @ _by_inputs(block, block).T)
                return float(value.sum()), block.size, *sides

            self.n_evaluations += 1
            self._cost = 0.0
            self._gradients = [np.zeros((len(R), len(R)), R.dtype) for R in point]
            for index, (derivatives, share, of_weights) in enumerate(self._derivatives()):
                total, size, *sides = self._summed(index, partial(evaluate, derivatives))
                self._cost += share * total / size
                self._add(self._gradients, index, sides, size / share)
                output = self.terms[index].output
                if output is not None and of_weights is not None:
                    self._gradients[output] += of_weights
        return self._gradients

    def curvatures(self, *point: Matrix) -> list[Matrix]:
        """Compute the plane curvatures for each rotation of a point.

        Where one rotation turns both sides of a term, what the two sides contribute together is
        left out.
        """

        def evaluate(at: Derivatives, term: Term, block: Array) -> tuple[Any, ...]:
            _, slope, curvature = at(block, 2)
            parts = (block * block, curvature, block * slope)
            sides = []
            if term.output is not None:
                sides.append(_plane_curvature(*(_by_outputs(part) for part in parts)))
            if term.input is not None:
                sides.append(_plane_curvature(*(_by_inputs(part, block) for part in parts)))
            return block.size, *sides

        self._visit(point)
        self.n_evaluations += 1
        curvatures = [np.zeros((len(R), len(R)), R.dtype) for R in point]
        for index, (derivatives, share, _) in enumerate(self._derivatives()):
            size, *sides = self._summed(index, partial(evaluate, derivatives))
            self._add(curvatures, index, sides, size / share)
        return curvatures

    @property
    def _terms(self) -> range:
        return range(len(self.terms))

    def _visit(self, point: tuple[Matrix, ...]) -> None:
        same = len(self._point) == len(point) and all(
            old is new for old, new in zip(self._point, point, strict=True)
        )
        if not same:
            self._point, self._cost, self._gradients = point, None, None
            self._blocks = {} if self._keeps else None

    def _axes(self, index: int | None) -> Matrix | None:
        """Give the axes of all features that a rotation of the point stands for."""
        if index is None:
            return None
        basis = self.bases[index] if self.bases else None
        return self._point[index] if basis is None else self._point[index] @ basis

    def _cost_of(self, index: int) -> float:
        """Compute the cost of the entries of a term."""

        def evaluate(term: Term, block: Array) -> tuple[Any, ...]:
            (value,) = self.criterion.derivatives(block, self.smoothing, 0)
            return float(value.sum()), block.size

        total, size = self._summed(index, evaluate)
        return total / size

    def _derivatives(self) -> list[tuple[Derivatives, float, Matrix | None]]:
        """Give ``φ`` and its derivatives at the entries of every term's blocks.

        Of a table's criterion, which is concave, they are those of the parabola ``Σ V_ab X²`` that
        lies above it and touches it here; all connections of all terms count alike. Second comes
        the share of a term in the cost, third what its gradient has beside that, because the
        weights of the outputs turn with them.
        """
        if not self.criterion.of_table:
            entries = partial(_of_entries, self.criterion, self.smoothing)
            return [(entries, 1.0, None)] * len(self.terms)
        tables = self._tables()
        powers = np.concatenate([table.powers.ravel() for table in tables])
        values, slopes = self.criterion.derivatives(powers, self.smoothing, 1)
        # Only the share that a connection has of all power counts.
        slopes = slopes - (slopes * powers).sum() / powers.sum()
        ends = np.cumsum([table.powers.size for table in tables])[:-1]
        derivatives: list[tuple[Derivatives, float, Matrix | None]] = []
        for table, value, slope in zip(
            tables, np.split(values, ends), np.split(slopes, ends), strict=True
        ):
            value, slope = value.reshape(table.powers.shape), slope.reshape(table.powers.shape)
            of_weights = None
            if table.readout is not None:
                pulls = (slope * table.squares).sum(axis=1)
                of_weights = 2 * pulls[:, None] * table.readout / powers.size
            of_entries = partial(_of_table, value, 2 * table.weights * slope)
            derivatives.append((of_entries, value.size / powers.size, of_weights))
        return derivatives

    def _tables(self) -> list[_Table]:
        """Compute the mean squares of the entries of every term, and the weights of its rows."""

        def squares(term: Term, block: Array) -> tuple[Any, ...]:
            return len(block), np.einsum("iab,iab->ab", block, block)

        tables = []
        for index, term in enumerate(self.terms):
            n_matrices, total = self._summed(index, squares)
            axes = self._axes(term.output)
            readout = None
            if term.readout is not None and axes is not None:
                readout = axes @ term.readout @ axes.T
            tables.append(_Table(total.astype(np.float64) / n_matrices, readout))
        return tables

    def _summed(self, index: int, evaluate: Callable[[Term, Array], tuple[Any, ...]]) -> list[Any]:
        """Sum what is evaluated on every block of a term."""
        term = self.terms[index]
        blocks = term.jacobians.blocks(self._axes(term.output), self._axes(term.input))

        def rotated(number: int) -> Array:
            if self._blocks is None:
                return blocks[number]()
            key = index, number
            if key not in self._blocks:
                self._blocks[key] = blocks[number]()
            return self._blocks[key]

        return sum_blocks(len(blocks), lambda number: evaluate(term, rotated(number)), self._apply)

    def _add(self, totals: list[Matrix], index: int, sides: list[Matrix], size: float) -> None:
        """Add the sides of a term to the rotations they belong to."""
        term = self.terms[index]
        turned = [rotation for rotation in (term.output, term.input) if rotation is not None]
        for rotation, side in zip(turned, sides, strict=True):
            totals[rotation] += side / size


def _of_entries(
    criterion: Criterion, smoothing: float, block: Array, order: int
) -> tuple[Array, ...]:
    return criterion.derivatives(block, smoothing, order)


def _of_table(values: Array, curvatures: Array, block: Array, order: int) -> tuple[Array, ...]:
    values, curvatures = values.astype(block.dtype), curvatures.astype(block.dtype)
    spread = np.broadcast_to(values, block.shape), np.broadcast_to(curvatures, block.shape)
    return (spread[0], curvatures * block, spread[1])[: order + 1]


def _by_outputs(block: Array) -> Array:
    """Lay a block out as ``(n_outputs, n_samples · n_inputs)``."""
    return block.transpose(1, 0, 2).reshape(block.shape[1], -1)


def _by_inputs(block: Array, like: Array) -> Array:
    """Lay a block out as ``(n_inputs, n_samples · n_outputs)``, in the memory order of `like`."""
    if not like.flags.c_contiguous:
        block = block.transpose(1, 0, 2)
    return block.reshape(-1, block.shape[2]).T


def _plane_curvature(square: Array, curvature: Array, product: Array) -> Matrix:
    K = square @ curvature.T
    M = product.sum(axis=1)
    # Summed so that rounding leaves it symmetric: what it divides must stay skew.
    return K + K.T - (M[:, None] + M[None, :])
