"""Jacobians of one dense or convolutional layer."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from jacrot._jacobians.base import Block, Indices, Jacobians, TransformedJacobians, rotate_outputs
from jacrot._jacobians.matrix import MatrixJacobians
from jacrot._utils.arrays import Array, Matrix
from jacrot._utils.threads import Apply


class LayerJacobians(Jacobians):
    """Jacobians ``diag(d_i) W`` of one layer: ``P diag(d_i) (W Qᵀ)`` is one product.

    A dense layer has one ``W``; a convolution has one for each offset of its kernel, with slopes
    of its own, those of the output position that the offset leads to.

    Parameters
    ----------
    weight : ndarray of shape ([n_offsets,] n_outputs, n_inputs)
        ``W``.
    slopes : ndarray of shape (n_samples, [n_offsets,] n_outputs)
        ``d_i``.
    """

    def __init__(self, weight: Array, slopes: Array) -> None:
        if weight.ndim == 2:
            weight, slopes = weight[None], slopes[:, None]
        self.weight = weight
        self.slopes = slopes
        self.n_matrices = len(weight)
        self.shape = (len(slopes), *weight.shape[1:])

    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare ``P diag(d_i) (W Qᵀ)`` in blocks."""
        weight = self.weight
        if Q is not None:
            weight = weight @ Q.T.astype(weight.dtype, copy=False)
        if P is not None:
            P = P.astype(weight.dtype, copy=False)
        _, n_outputs, n_columns = weight.shape
        outputs_first = weight.transpose(1, 0, 2)[:, None]

        def block(samples: slice) -> Array:
            slopes = self.slopes[samples]
            if P is None:
                return (slopes[..., None] * weight).reshape(-1, n_outputs, n_columns)
            stack = slopes.transpose(2, 0, 1)[..., None] * outputs_first
            return rotate_outputs(P, stack.reshape(n_outputs, -1, n_columns))

        return [partial(block, samples) for samples in self._slices(P, Q)]

    def subset(self, indices: Indices) -> LayerJacobians:
        """Return some samples."""
        return LayerJacobians(self.weight, self.slopes[indices])

    def scaled(self, scales: Array) -> LayerJacobians:
        """Scale the slopes, with every row of the weight brought to order one.

        The product of a slope and a row is then as large as the slope: neither overflows.
        """
        sizes = np.abs(self.weight).max(axis=2)
        rows = self.weight / np.where(sizes > 0, sizes, 1)[..., None]
        return LayerJacobians(rows, self.slopes * sizes * scales[:, None, None])

    def cast(self, dtype: DTypeLike) -> LayerJacobians:
        """Yield blocks in another precision."""
        return LayerJacobians(
            self.weight.astype(dtype, copy=False), self.slopes.astype(dtype, copy=False)
        )

    def transformed(self, left: Matrix | None, right: Matrix | None) -> Jacobians:
        """Fold ``R`` into the weight, and ``L`` too if it only scales the outputs."""
        layer = self if right is None else LayerJacobians(self.weight @ right, self.slopes)
        if left is None:
            return layer
        scales = np.diag(left)
        if np.array_equal(left, np.diag(scales)):
            return LayerJacobians(scales[:, None] * layer.weight, layer.slopes)
        return TransformedJacobians(layer, left, None)

    def collapsed(self, degree: int) -> Jacobians:
        """Return ``diag(c) W``, ``c_k = (Σ_i |d_ik|^degree)^(1/degree)``, of all offsets.

        ``Σ_i Σ_kj |d_ik (W Qᵀ)_kj|^p = Σ_kj |c_k (W Qᵀ)_kj|^p`` for every ``Q``.
        """
        strengths = np.linalg.norm(self.slopes, ord=degree, axis=0)
        return MatrixJacobians((strengths[..., None] * self.weight).reshape(-1, self.shape[2]))

    def norms(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the norms in closed form if the outputs are not rotated."""
        if P is not None:
            return super().norms(P, Q, apply)
        rows = np.abs(self.weight if Q is None else self.weight @ Q.T)
        rows = rows.reshape(-1, rows.shape[2])
        slopes = np.abs(self.slopes).reshape(len(self.slopes), -1)
        sizes = rows.max(), slopes.max(axis=1)
        rows, slopes = rows / (sizes[0] or 1), slopes / np.where(sizes[1] > 0, sizes[1], 1)[:, None]
        size = sizes[0] * sizes[1]
        return size * (slopes @ rows.sum(axis=1)), size * np.sqrt(slopes**2 @ (rows**2).sum(axis=1))

    def moments(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute ``Vᵀ (PᵀP ∘ E[d dᵀ]) V`` and ``P (V Vᵀ ∘ E[d dᵀ]) Pᵀ``, ``V = W Qᵀ``, summed."""
        reading, writing = 0.0, 0.0
        for offset, matrix in enumerate(self.weight if Q is None else self.weight @ Q.T):
            slopes = self.slopes[:, offset]
            products = slopes.T @ slopes / len(slopes)
            pulled = np.diag(products)[:, None] * matrix
            if P is not None:
                pulled = (P.T @ P * products) @ matrix
            reading = reading + matrix.T @ pulled
            writing = writing + (matrix @ matrix.T) * products
        return np.asarray(reading), np.asarray(writing if P is None else P @ writing @ P.T)
