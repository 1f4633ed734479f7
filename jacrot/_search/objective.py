"""The cost of rotations, its gradients and plane curvatures: all that a search asks of the data.

A point is a list of rotations ``R``. Every term of the cost is a stack of Jacobians, whose outputs
and inputs are turned by one of them or kept: with ``X_i = P J_i Qᵀ`` and ``S = φ'(X)``,
``F = Σ_terms mean_i 1/(mn) Σ φ_ε(X_i)``. Moving ``Q ← exp(Ω) Q`` turns ``X`` into ``X exp(−Ω)``,
so ``dF = −⟨XᵀS, Ω⟩ = ⟨SᵀX, Ω⟩`` for skew ``Ω``; moving ``P``, ``dF = ⟨S Xᵀ, Ω⟩``. These are the
relative gradients: no Jacobian is needed again for them. The second derivative along the rotation
of the plane ``(a, b)`` of the inputs is ``K_ab + K_ba − M_aa − M_bb`` with ``K = (X∘X)ᵀ φ''(X)``
and ``M = XᵀS``; along one of the outputs, it is the same with the transposes.

An entrywise criterion is the ``φ`` of these formulas. A criterion of the table of mean squares is
concave, and is minimised by majorise–minimise: its derivatives are those of the parabola that lies
above it and touches it at the point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from sklearn import get_config

from jacrot._jacobians.base import Jacobians
from jacrot._utils.arrays import Array, Matrix
from jacrot._utils.threads import Apply, sum_blocks
from jacrot.criteria._minimised import (
    Criterion,
    Curvatures,
    EntrywiseCriterion,
    Slopes,
    TableCriterion,
)

OutputMode = Literal["fixed", "free", "tied"]
# Computes sums over a block of a term.
Sums = Callable[["Term", Array], tuple[Any, ...]]


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
        ``G``, what reads the outputs, where a criterion of the table weighs every output axis
        ``a`` by ``u_a² = (P G Pᵀ)_aa``; ``None`` for no weights.
    """

    jacobians: Jacobians
    output: int | None
    input: int | None
    readout: Matrix | None = None

    @classmethod
    def from_mode(
        cls, jacobians: Jacobians, mode: OutputMode, readout: Matrix | None = None
    ) -> Term:
        """Build the only term of a problem.

        The point is ``(Q,)`` where the output basis is fixed or tied to the input basis, and
        ``(P, Q)`` where it is free.
        """
        output, input_ = {"fixed": (None, 0), "free": (0, 1), "tied": (0, 0)}[mode]
        return cls(jacobians, output, input_, readout)


class Objective:
    """The cost of rotations on stacks of Jacobians.

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
        Share of scikit-learn's ``working_memory`` up to which an evaluation keeps its rotated
        blocks.

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
        self.apply = apply if concurrent else map
        size = sum(term.jacobians.n_entries for term in terms)
        self.keeps_blocks = size * 8 <= kept_share * get_config()["working_memory"] * 2**20

    def at(self, *point: Matrix) -> Evaluation:
        """Evaluate at a point; what is not asked for is not computed."""
        if isinstance(self.criterion, TableCriterion):
            return TableEvaluation(self, self.criterion, point)
        assert isinstance(self.criterion, EntrywiseCriterion)
        return EntrywiseEvaluation(self, self.criterion, point)

    def cost(self, *point: Matrix) -> float:
        """Compute ``F`` at a point."""
        return self.at(*point).cost

    def gradients(self, *point: Matrix) -> list[Matrix]:
        """Compute the relative gradients at a point."""
        return self.at(*point).gradients

    def curvatures(self, *point: Matrix) -> list[Matrix]:
        """Compute the plane curvatures at a point."""
        return self.at(*point).curvatures


class Integrand(Protocol):
    """The function of the entries of a term whose derivatives are those of the cost."""

    @property
    def share(self) -> float:
        """Share of the term in the cost."""

    @property
    def output_gradient(self) -> Matrix | None:
        """What the gradient of the outputs has beside the integrand's."""

    def slopes(self, block: Array) -> Slopes:
        """Compute value and slope at every entry."""

    def curvatures(self, block: Array) -> Curvatures:
        """Compute value, slope and curvature at every entry."""


class CostAndGradients(NamedTuple):
    """The cost of a point, and its relative gradients, which come of one pass."""

    cost: float
    gradients: list[Matrix]


class Evaluation(ABC):
    """What the cost is at a point; each part is computed once, when it is asked for.

    Rotated blocks are kept for the next part where there is memory for them.

    Parameters
    ----------
    objective : Objective
        The cost.
    point : tuple of ndarray
        The rotations.
    """

    def __init__(self, objective: Objective, point: tuple[Matrix, ...]) -> None:
        self.objective = objective
        self.point = point
        self._blocks: dict[tuple[int, int], Array] | None = {} if objective.keeps_blocks else None

    @property
    def cost(self) -> float:
        """``F``."""
        if "_cost_and_gradients" in self.__dict__:
            return self._cost_and_gradients.cost
        return self._cost

    @property
    def gradients(self) -> list[Matrix]:
        """The relative gradient for each rotation of the point.

        ``G`` belongs to the directions ``Ω R`` for skew ``Ω``: ``dF = ⟨G, Ω⟩``; the Euclidean
        gradient is ``G R``.
        """
        return self._cost_and_gradients.gradients

    @cached_property
    def curvatures(self) -> list[Matrix]:
        """The plane curvatures for each rotation of the point.

        Where one rotation turns both sides of a term, what the two sides contribute together is
        left out.
        """
        self.objective.n_evaluations += 1
        curvatures = [np.zeros((len(R), len(R)), R.dtype) for R in self.point]
        for index, integrand in enumerate(self._integrands()):

            def sums(term: Term, block: Array, integrand: Integrand = integrand) -> tuple[Any, ...]:
                _, slope, curvature = integrand.curvatures(block)
                parts = (block * block, curvature, block * slope)
                sides = []
                if term.output is not None:
                    sides.append(_plane_curvature(*(_by_outputs(part) for part in parts)))
                if term.input is not None:
                    sides.append(_plane_curvature(*(_by_inputs(part, block) for part in parts)))
                return block.size, *sides

            size, *sides = self._sum(index, sums)
            self._add(curvatures, index, sides, size / integrand.share)
        return curvatures

    @abstractmethod
    def _compute_cost(self) -> float:
        """Compute the cost alone, in one pass."""

    @abstractmethod
    def _integrands(self) -> Sequence[Integrand]:
        """Return the integrand of every term."""

    @cached_property
    def _cost(self) -> float:
        self.objective.n_evaluations += 1
        return self._compute_cost()

    @cached_property
    def _cost_and_gradients(self) -> CostAndGradients:
        self.objective.n_evaluations += 1
        cost = 0.0
        gradients = [np.zeros((len(R), len(R)), R.dtype) for R in self.point]
        for index, integrand in enumerate(self._integrands()):

            def sums(term: Term, block: Array, integrand: Integrand = integrand) -> tuple[Any, ...]:
                value, slope = integrand.slopes(block)
                sides = []
                if term.output is not None:
                    sides.append(_by_outputs(slope) @ _by_outputs(block).T)
                if term.input is not None:
                    sides.append(_by_inputs(slope, block) @ _by_inputs(block, block).T)
                return float(value.sum()), block.size, *sides

            total, size, *sides = self._sum(index, sums)
            cost += integrand.share * total / size
            self._add(gradients, index, sides, size / integrand.share)
            output = self.objective.terms[index].output
            if output is not None and integrand.output_gradient is not None:
                gradients[output] += integrand.output_gradient
        return CostAndGradients(cost, gradients)

    def _axes(self, index: int | None) -> Matrix | None:
        """Compute the axes of all features that a rotation of the point stands for."""
        if index is None:
            return None
        bases = self.objective.bases
        basis = bases[index] if bases else None
        return self.point[index] if basis is None else self.point[index] @ basis

    def _sum(self, index: int, sums: Sums) -> list[Any]:
        """Sum over the blocks of a term."""
        term = self.objective.terms[index]
        blocks = term.jacobians.blocks(self._axes(term.output), self._axes(term.input))

        def rotate(number: int) -> Array:
            if self._blocks is None:
                return blocks[number]()
            key = index, number
            if key not in self._blocks:
                self._blocks[key] = blocks[number]()
            return self._blocks[key]

        apply = self.objective.apply
        return sum_blocks(len(blocks), lambda number: sums(term, rotate(number)), apply)

    def _add(self, totals: list[Matrix], index: int, sides: list[Matrix], size: float) -> None:
        """Add the sides of a term to the rotations they belong to."""
        term = self.objective.terms[index]
        turned = [rotation for rotation in (term.output, term.input) if rotation is not None]
        for rotation, side in zip(turned, sides, strict=True):
            totals[rotation] += side / size


class EntrywiseEvaluation(Evaluation):
    """The cost of an entrywise criterion: the mean of ``φ`` over the entries of every term."""

    def __init__(
        self, objective: Objective, criterion: EntrywiseCriterion, point: tuple[Matrix, ...]
    ) -> None:
        super().__init__(objective, point)
        self.criterion = criterion

    def _compute_cost(self) -> float:
        smoothing = self.objective.smoothing

        def sums(term: Term, block: Array) -> tuple[Any, ...]:
            return float(self.criterion.value(block, smoothing).sum()), block.size

        totals = [self._sum(index, sums) for index in range(len(self.objective.terms))]
        return float(sum(total / size for total, size in totals))

    def _integrands(self) -> Sequence[Integrand]:
        integrand = _Phi(self.criterion, self.objective.smoothing)
        return [integrand] * len(self.objective.terms)


@dataclass(frozen=True)
class _Phi:
    """An entrywise criterion at one smoothing."""

    criterion: EntrywiseCriterion
    smoothing: float
    share = 1.0
    output_gradient = None

    def slopes(self, block: Array) -> Slopes:
        return self.criterion.slopes(block, self.smoothing)

    def curvatures(self, block: Array) -> Curvatures:
        return self.criterion.curvatures(block, self.smoothing)


class TableEvaluation(Evaluation):
    """The cost of a criterion of the table ``M_ab``: the mean over the tables of all terms.

    All connections of all terms count alike. The criterion is concave in the table: it is replaced
    by the parabola ``Σ V_ab X²`` that lies above it and touches it at the point.
    """

    def __init__(
        self, objective: Objective, criterion: TableCriterion, point: tuple[Matrix, ...]
    ) -> None:
        super().__init__(objective, point)
        self.criterion = criterion

    def _compute_cost(self) -> float:
        return float(self.criterion.value(self._powers, self.objective.smoothing).mean())

    @cached_property
    def _tables(self) -> list[_Table]:
        """The mean squares of the entries of every term, and the weights of its rows."""

        def sums(term: Term, block: Array) -> tuple[Any, ...]:
            return len(block), np.einsum("iab,iab->ab", block, block)

        tables = []
        for index, term in enumerate(self.objective.terms):
            n_matrices, total = self._sum(index, sums)
            axes = self._axes(term.output)
            readout = None
            if term.readout is not None and axes is not None:
                readout = axes @ term.readout @ axes.T
            tables.append(_Table(total.astype(np.float64) / n_matrices, readout))
        return tables

    @cached_property
    def _powers(self) -> Array:
        """The entries of all tables."""
        return np.concatenate([table.powers.ravel() for table in self._tables])

    def _integrands(self) -> Sequence[Integrand]:
        """Majorise the cost of every term by a parabola."""
        powers = self._powers
        values, slopes = self.criterion.slopes(powers, self.objective.smoothing)
        # Only the share that a connection has of all power counts.
        slopes = slopes - (slopes * powers).sum() / powers.sum()
        ends = np.cumsum([table.powers.size for table in self._tables])[:-1]
        parabolas = []
        for table, value, slope in zip(
            self._tables, np.split(values, ends), np.split(slopes, ends), strict=True
        ):
            value, slope = value.reshape(table.powers.shape), slope.reshape(table.powers.shape)
            output_gradient = None
            if table.readout is not None:
                # The weights of the outputs turn with them.
                pulls = (slope * table.squares).sum(axis=1)
                output_gradient = 2 * pulls[:, None] * table.readout / powers.size
            curvature = 2 * table.weights * slope
            share = value.size / powers.size
            parabolas.append(_Parabola(value, curvature, share, output_gradient))
        return parabolas


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


@dataclass(frozen=True)
class _Parabola:
    """A parabola of the entries above a criterion of the table, which has its value here."""

    value: Array
    curvature: Array
    share: float
    output_gradient: Matrix | None

    def slopes(self, block: Array) -> Slopes:
        value = np.broadcast_to(self.value.astype(block.dtype), block.shape)
        return Slopes(value, self.curvature.astype(block.dtype) * block)

    def curvatures(self, block: Array) -> Curvatures:
        curvature = np.broadcast_to(self.curvature.astype(block.dtype), block.shape)
        return Curvatures(*self.slopes(block), curvature)


def _by_outputs(block: Array) -> Array:
    """Reshape a block to ``(n_outputs, n_samples · n_inputs)``."""
    return block.transpose(1, 0, 2).reshape(block.shape[1], -1)


def _by_inputs(block: Array, like: Array) -> Array:
    """Reshape a block to ``(n_inputs, n_samples · n_outputs)``, in the memory order of `like`."""
    if not like.flags.c_contiguous:
        block = block.transpose(1, 0, 2)
    return block.reshape(-1, block.shape[2]).T


def _plane_curvature(square: Array, curvature: Array, product: Array) -> Matrix:
    K = square @ curvature.T
    M = product.sum(axis=1)
    # Summed so that rounding leaves it symmetric: what it divides must stay skew.
    return K + K.T - (M[:, None] + M[None, :])
