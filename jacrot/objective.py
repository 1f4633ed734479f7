"""The oracle: cost, gradients and plane curvatures, and nothing else of the data.

With ``X_i = P J_i Qᵀ`` and ``S = φ'(X)``, the cost is ``F(P, Q) = mean_i 1/(mn) Σ φ_ε(X_i)``.
Moving ``Q ← exp(Ω) Q`` turns ``X`` into ``X exp(−Ω)``, so ``dF = −⟨XᵀS, Ω⟩ = ⟨SᵀX, Ω⟩`` for skew
``Ω``, and the Euclidean gradients are ``(SᵀX) Q`` and ``(S Xᵀ) P``. The second derivative along
the rotation of the plane ``(a, b)`` of the inputs is ``K_ab + K_ba − M_aa − M_bb`` with
``K = (X∘X)ᵀ φ''(X)`` and ``M = XᵀS``; of the outputs, the same with the transposes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from jacrot._arrays import Array, Matrix
from jacrot.criteria import Criterion
from jacrot.jacobians import Jacobians

OutputMode = Literal["fixed", "free", "tied"]

# Groups of blocks, at most one for each thread.
N_GROUPS = 8


class Objective:
    """The cost of a rotation on a stack of Jacobians.

    A point is ``(Q,)`` where the output basis is fixed or tied to the input basis, ``(P, Q)``
    where it is free. The last point is remembered: pymanopt asks for its cost again after the
    line search, and once more with the gradient.

    Parameters
    ----------
    jacobians : Jacobians
        The stack, already scaled to root mean square 1.
    criterion : Criterion
        ``φ``.
    smoothing : float
        ``ε``; 0 is the exact criterion, which has a cost but no gradient.
    output : {"fixed", "free", "tied"}
        The output rotation: the identity, a variable of its own, or ``P = Q``.
    output_basis, input_basis : ndarray of shape (n_axes, n_features), default=None
        Orthonormal rows inside which ``P`` and ``Q`` rotate; ``None`` is the whole space.
    n_threads : int, default=1
        Threads that share the blocks. The result does not depend on their number.

    Attributes
    ----------
    n_evaluations : int
        Passes over the samples so far.
    """

    def __init__(
        self,
        jacobians: Jacobians,
        criterion: Criterion,
        smoothing: float,
        output: OutputMode,
        output_basis: Matrix | None = None,
        input_basis: Matrix | None = None,
        n_threads: int = 1,
    ) -> None:
        self.jacobians = jacobians
        self.criterion = criterion
        self.smoothing = smoothing
        self.output = output
        self.output_basis = output_basis
        self.input_basis = input_basis
        self.n_evaluations = 0
        concurrent = jacobians.concurrent and criterion.concurrent
        self._pool = ThreadPoolExecutor(n_threads) if concurrent and n_threads > 1 else None
        self._point: tuple[Matrix, ...] = ()
        self._cost: float | None = None
        self._gradients: list[Matrix] | None = None

    def cost(self, *point: Matrix) -> float:
        """Compute ``F`` at a point."""
        self._visit(point)
        if self._cost is None:

            def evaluate(block: Array) -> tuple[Any, ...]:
                (value,) = self.criterion.derivatives(block, self.smoothing, 0)
                return float(value.sum()), block.size

            total, size = self._summed(evaluate, point)
            self._cost = total / size
        return self._cost

    def gradients(self, *point: Matrix) -> list[Matrix]:
        """Compute the Euclidean gradient for each matrix of a point (and its cost)."""
        self._visit(point)
        if self._gradients is None:

            def evaluate(block: Array) -> tuple[Any, ...]:
                value, slope = self.criterion.derivatives(block, self.smoothing, 1)
                sides = []
                if self.output != "fixed":
                    sides.append(_by_outputs(slope) @ _by_outputs(block).T)
                sides.append(_by_inputs(slope, block) @ _by_inputs(block, block).T)
                return float(value.sum()), block.size, *sides

            total, size, *sides = self._summed(evaluate, point)
            self._cost = total / size
            self._gradients = [
                side @ matrix / size
                for side, matrix in zip(self._joined(sides), point, strict=True)
            ]
        return self._gradients

    def curvatures(self, *point: Matrix) -> list[Matrix]:
        """Compute the plane curvatures for each matrix of a point.

        With a tied output, what the two sides contribute together is left out.
        """

        def evaluate(block: Array) -> tuple[Any, ...]:
            _, slope, curvature = self.criterion.derivatives(block, self.smoothing, 2)
            parts = (block * block, curvature, block * slope)
            sides = []
            if self.output != "fixed":
                sides.append(_plane_curvature(*(_by_outputs(part) for part in parts)))
            sides.append(_plane_curvature(*(_by_inputs(part, block) for part in parts)))
            return block.size, *sides

        size, *sides = self._summed(evaluate, point)
        return [side / size for side in self._joined(sides)]

    def _visit(self, point: tuple[Matrix, ...]) -> None:
        same = len(self._point) == len(point) and all(
            old is new for old, new in zip(self._point, point, strict=True)
        )
        if not same:
            self._point, self._cost, self._gradients = point, None, None

    def _summed(
        self, evaluate: Callable[[Array], tuple[Any, ...]], point: tuple[Matrix, ...]
    ) -> list[Any]:
        """Sum what is evaluated on every block, in double precision.

        Blocks are summed in a fixed number of groups, which threads share: neither their number
        nor which one is faster changes the order of the sum.
        """
        self.n_evaluations += 1
        P = None if self.output == "fixed" else _within(point[0], self.output_basis)
        blocks = self.jacobians.blocks(P, _within(point[-1], self.input_basis))
        bounds = np.linspace(0, len(blocks), min(len(blocks), N_GROUPS) + 1).astype(int)

        def group(bounds: tuple[int, int]) -> list[Any]:
            sums: list[Any] = []
            for block in blocks[slice(*bounds)]:
                terms = evaluate(block())
                if not sums:
                    sums = [np.zeros(np.shape(term)) for term in terms]
                for sum_, term in zip(sums, terms, strict=True):
                    sum_ += term
            return sums

        groups = list(pairwise(bounds.tolist()))
        apply = map if self._pool is None or len(groups) == 1 else self._pool.map
        return [sum(terms) for terms in zip(*apply(group, groups), strict=True)]

    def _joined(self, sides: list[Matrix]) -> list[Matrix]:
        """Give each matrix of a point its side: both belong to the one of a tied output."""
        return [sides[0] + sides[1]] if self.output == "tied" else sides


def _within(rotation: Matrix, basis: Matrix | None) -> Matrix:
    return rotation if basis is None else rotation @ basis


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
    return K + K.T - M[:, None] - M[None, :]
