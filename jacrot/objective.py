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
from typing import Any, Literal

import numpy as np
from sklearn import get_config

from jacrot._arrays import Array, Matrix
from jacrot._threads import Apply, summed
from jacrot.criteria import Criterion
from jacrot.jacobians import Jacobians

OutputMode = Literal["fixed", "free", "tied"]

# Share of scikit-learn's working_memory for the rotated blocks between a cost and its gradient.
KEPT_SHARE = 0.25


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
    """

    jacobians: Jacobians
    output: int | None
    input: int | None

    @classmethod
    def of_mode(cls, jacobians: Jacobians, mode: OutputMode) -> Term:
        """Make the only term of a problem.

        The point is ``(Q,)`` where the output basis is fixed or tied to the input basis, and
        ``(P, Q)`` where it is free.
        """
        output, input_ = {"fixed": (None, 0), "free": (0, 1), "tied": (0, 0)}[mode]
        return cls(jacobians, output, input_)


class Objective:
    """The cost of rotations on stacks of Jacobians.

    The last point is remembered, with its rotated blocks where they take no more than a quarter
    of scikit-learn's ``working_memory``: the gradient follows the cost of the same point, and
    pymanopt asks for both more than once.

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
        self._keeps = size * 8 <= KEPT_SHARE * get_config()["working_memory"] * 2**20

    def cost(self, *point: Matrix) -> float:
        """Compute ``F`` at a point."""
        self._visit(point)
        if self._cost is None:

            def evaluate(term: Term, block: Array) -> tuple[Any, ...]:
                (value,) = self.criterion.derivatives(block, self.smoothing, 0)
                return float(value.sum()), block.size

            self.n_evaluations += 1
            self._cost = sum(
                total / size for total, size in (self._summed(i, evaluate) for i in self._terms)
            )
        return self._cost

    def gradients(self, *point: Matrix) -> list[Matrix]:
        """Compute the relative gradient for each rotation of a point (and its cost).

        ``G`` belongs to the directions ``Ω R`` for skew ``Ω``: ``dF = ⟨G, Ω⟩``; the Euclidean
        gradient is ``G R``.
        """
        self._visit(point)
        if self._gradients is None:

            def evaluate(term: Term, block: Array) -> tuple[Any, ...]:
                value, slope = self.criterion.derivatives(block, self.smoothing, 1)
                sides = []
                if term.output is not None:
                    sides.append(_by_outputs(slope) @ _by_outputs(block).T)
                if term.input is not None:
                    sides.append(_by_inputs(slope, block) @ _by_inputs(block, block).T)
                return float(value.sum()), block.size, *sides

            self.n_evaluations += 1
            self._cost = 0.0
            self._gradients = [np.zeros((len(R), len(R)), R.dtype) for R in point]
            for index in self._terms:
                total, size, *sides = self._summed(index, evaluate)
                self._cost += total / size
                self._add(self._gradients, index, sides, size)
        return self._gradients

    def curvatures(self, *point: Matrix) -> list[Matrix]:
        """Compute the plane curvatures for each rotation of a point.

        Where one rotation turns both sides of a term, what the two sides contribute together is
        left out.
        """

        def evaluate(term: Term, block: Array) -> tuple[Any, ...]:
            _, slope, curvature = self.criterion.derivatives(block, self.smoothing, 2)
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
        for index in self._terms:
            size, *sides = self._summed(index, evaluate)
            self._add(curvatures, index, sides, size)
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

        return summed(len(blocks), lambda number: evaluate(term, rotated(number)), self._apply)

    def _add(self, totals: list[Matrix], index: int, sides: list[Matrix], size: int) -> None:
        """Add the sides of a term to the rotations they belong to."""
        term = self.terms[index]
        turned = [rotation for rotation in (term.output, term.input) if rotation is not None]
        for rotation, side in zip(turned, sides, strict=True):
            totals[rotation] += side / size


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
