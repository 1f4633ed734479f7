"""The oracle: cost, gradients and plane curvatures, and nothing else of the data.

With ``X_i = P J_i Qᵀ`` and ``S = φ'(X)``, the cost is ``F(P, Q) = mean_i 1/(mn) Σ φ_ε(X_i)``.
Moving ``Q ← exp(Ω) Q`` turns ``X`` into ``X exp(−Ω)``, so ``dF = −⟨XᵀS, Ω⟩ = ⟨SᵀX, Ω⟩`` for skew
``Ω``, and the Euclidean gradients are ``(SᵀX) Q`` and ``(S Xᵀ) P``. The second derivative along
the rotation of the plane ``(a, b)`` of the inputs is ``K_ab + K_ba − M_aa − M_bb`` with
``K = (X∘X)ᵀ φ''(X)`` and ``M = XᵀS``; of the outputs, the same with the transposes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jacrot._arrays import Array
from jacrot.criteria import Criterion
from jacrot.jacobians import Jacobians

Matrix = NDArray[np.float64]
OutputMode = Literal["fixed", "free", "tied"]


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
    ) -> None:
        self.jacobians = jacobians
        self.criterion = criterion
        self.smoothing = smoothing
        self.output = output
        self.output_basis = output_basis
        self.input_basis = input_basis
        self.n_evaluations = 0
        self._point: tuple[Matrix, ...] = ()
        self._cost: float | None = None
        self._gradients: list[Matrix] | None = None

    def cost(self, *point: Matrix) -> float:
        """Compute ``F`` at a point."""
        self._visit(point)
        if self._cost is None:
            total, size = 0.0, 0
            for block in self._rotated(point):
                (value,) = self.criterion.derivatives(block, self.smoothing, 0)
                total += float(value.sum())
                size += block.size
            self._cost = total / size
            self.n_evaluations += 1
        return self._cost

    def gradients(self, *point: Matrix) -> list[Matrix]:
        """Compute the Euclidean gradient for each matrix of a point (and its cost)."""
        self._visit(point)
        if self._gradients is None:
            total, size = 0.0, 0
            reading, writing = _zeros(point[-1]), _zeros(point[0])
            for block in self._rotated(point):
                value, slope = self.criterion.derivatives(block, self.smoothing, 1)
                total += float(value.sum())
                size += block.size
                if self.output != "fixed":
                    writing += _by_outputs(slope) @ _by_outputs(block).T
                reading += _by_inputs(slope, block) @ _by_inputs(block, block).T
            self._cost = total / size
            self._gradients = [
                side @ matrix / size
                for side, matrix in zip(self._sides(writing, reading), point, strict=True)
            ]
            self.n_evaluations += 1
        return self._gradients

    def curvatures(self, *point: Matrix) -> list[Matrix]:
        """Compute the plane curvatures for each matrix of a point.

        With a tied output, what the two sides contribute together is left out.
        """
        size = 0
        reading, writing = _zeros(point[-1]), _zeros(point[0])
        for block in self._rotated(point):
            _, slope, curvature = self.criterion.derivatives(block, self.smoothing, 2)
            size += block.size
            square, product = block * block, block * slope
            if self.output != "fixed":
                writing += _plane_curvature(
                    *(_by_outputs(part) for part in (square, curvature, product))
                )
            reading += _plane_curvature(
                *(_by_inputs(part, block) for part in (square, curvature, product))
            )
        self.n_evaluations += 1
        return [side / size for side in self._sides(writing, reading)]

    def _visit(self, point: tuple[Matrix, ...]) -> None:
        same = len(self._point) == len(point) and all(
            old is new for old, new in zip(self._point, point, strict=True)
        )
        if not same:
            self._point, self._cost, self._gradients = point, None, None

    def _rotated(self, point: tuple[Matrix, ...]) -> Iterator[Array]:
        P = None if self.output == "fixed" else _within(point[0], self.output_basis)
        return self.jacobians.rotated(P, _within(point[-1], self.input_basis))

    def _sides(self, writing: Matrix, reading: Matrix) -> list[Matrix]:
        if self.output == "fixed":
            return [reading]
        return [writing, reading] if self.output == "free" else [writing + reading]


def _zeros(rotation: Matrix) -> Matrix:
    return np.zeros((len(rotation), len(rotation)))


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
