"""One matrix instead of a stack, as after a collapse."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from jacrot._jacobians.base import Block, Indices, Jacobians
from jacrot._utils.arrays import Array, Matrix

# Limit for the entries of a block. It gives enough blocks for several threads; every block has at
# least half as many rows as columns, because products of its columns are summed.
ROW_BLOCK_ENTRIES = 2**16


class MatrixJacobians(Jacobians):
    """One matrix, whose rows are processed in blocks because they do not mix.

    Parameters
    ----------
    matrix : ndarray of shape (n_outputs, n_inputs)
        The matrix to which all samples collapse.
    """

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix
        self.shape = (1, *matrix.shape)

    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare blocks ``(1, n_rows, n_rows_Q)`` of ``J Qᵀ``, or ``P J Qᵀ`` whole."""
        matrix = self.matrix
        QT = np.eye(matrix.shape[1], dtype=matrix.dtype) if Q is None else Q.T.astype(matrix.dtype)
        if P is not None:
            return [lambda: (P.astype(matrix.dtype) @ matrix @ QT)[None]]
        n_inputs = matrix.shape[1]
        step = max(ROW_BLOCK_ENTRIES // n_inputs, n_inputs // 2)

        def block(start: int) -> Array:
            return (matrix[start : start + step] @ QT)[None]

        return [partial(block, start) for start in range(0, len(matrix), step)]

    def _sample_blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        blocks = self.blocks(P, Q)
        return [lambda: np.concatenate([block() for block in blocks], axis=1)]

    def subset(self, indices: Indices) -> MatrixJacobians:
        """Return the only sample."""
        return self

    def transformed(self, left: Matrix | None, right: Matrix | None) -> MatrixJacobians:
        """Fold ``L`` and ``R`` into the matrix."""
        matrix = self.matrix if right is None else self.matrix @ right
        return MatrixJacobians(matrix if left is None else left @ matrix)

    def scaled(self, scales: Array) -> MatrixJacobians:
        """Multiply the matrix."""
        return MatrixJacobians(self.matrix * np.asarray(scales).item())

    def cast(self, dtype: DTypeLike) -> MatrixJacobians:
        """Yield blocks in another precision."""
        return MatrixJacobians(self.matrix.astype(dtype, copy=False))
