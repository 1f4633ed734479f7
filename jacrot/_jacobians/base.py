"""Stacks of Jacobians that yield rotated blocks.

A stack ``J`` of shape ``(n_samples, n_outputs, n_inputs)`` is never needed whole: everything that
the search asks of it is a sum over samples of functions of ``P J_i Qᵀ``. A stack therefore has a
shape, norms, second moments and subsets of its samples, and yields ``P J_i Qᵀ`` in blocks that fit
the cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn import get_config

from jacrot._utils.arrays import Array, Matrix, power_of_two_scale
from jacrot._utils.threads import Apply, sum_blocks

Indices = NDArray[np.intp]
Block = Callable[[], Array]
# Norms between these and their inverses are sums of squares that neither vanish nor overflow, in
# double and in single precision.
SAFE, SAFE_SINGLE = 1e-140, 1e-12
# Entries of a block: a block and its derivatives then stay in a core's cache.
BLOCK_ENTRIES = 2**18


class Jacobians(ABC):
    """A stack of Jacobians; ``None`` for a rotation is the identity."""

    # Samples, and the outputs and inputs of each of their matrices.
    shape: tuple[int, int, int]
    # Matrices of a sample.
    n_matrices = 1
    # Whether several threads may make blocks at once.
    concurrent = True

    @abstractmethod
    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare ``P J_i Qᵀ`` in consecutive blocks ``(n_block, n_rows_P, n_rows_Q)``.

        The matrices of a sample stand one after the other in one block.
        """

    @property
    def n_entries_each(self) -> int:
        """Number of entries of a sample."""
        return self.n_matrices * self.shape[1] * self.shape[2]

    @property
    def n_entries(self) -> float:
        """Number of entries of all samples."""
        return float(self.shape[0]) * self.n_entries_each

    def rotated(self, P: Array | None, Q: Array | None) -> Iterator[Array]:
        """Yield blocks of whole samples one after the other."""
        for block in self._sample_blocks(P, Q):
            yield block()

    @abstractmethod
    def subset(self, indices: Indices) -> Jacobians:
        """Return some samples, in the given order."""

    @abstractmethod
    def scaled(self, scales: Array) -> Jacobians:
        """Multiply every ``J_i`` by ``scales[i]``."""

    @abstractmethod
    def cast(self, dtype: DTypeLike) -> Jacobians:
        """Yield blocks in another precision."""

    def transformed(self, left: Matrix | None, right: Matrix | None) -> Jacobians:
        """Return ``L J_i R``, ``None`` for the identity."""
        return TransformedJacobians(self, left, right)

    def collapsed(self, degree: int) -> Jacobians | None:
        """Replace the samples by one matrix with the same ``Σ_i Σ |J_i Qᵀ|^degree`` for all Q."""
        return None

    def norms(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the entrywise ℓ₁ and the Frobenius norm of every ``P J_i Qᵀ``."""

        def norms(block: Block) -> tuple[Matrix, Matrix]:
            stack = block()
            return _norms(stack.reshape(-1, self.n_matrices * stack.shape[1], stack.shape[2]))

        blocks = apply(norms, self._sample_blocks(P, Q))
        l1, l2 = zip(*blocks, strict=True)
        return np.concatenate(l1), np.concatenate(l2)

    def moments(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the means of ``X_iᵀ X_i`` and of ``X_i X_iᵀ``, ``X_i = P J_i Qᵀ``.

        Several matrices of a sample are summed.
        """
        blocks = self._sample_blocks(P, Q)

        def squares(number: int) -> tuple[Matrix, Matrix]:
            block = blocks[number]()
            rows = block.reshape(-1, block.shape[2])
            columns = block.transpose(1, 0, 2).reshape(block.shape[1], -1)
            return rows.T @ rows, columns @ columns.T

        reading, writing = sum_blocks(len(blocks), squares, apply)
        return reading / self.shape[0], writing / self.shape[0]

    def _sample_blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare blocks that do not share a sample."""
        return self.blocks(P, Q)

    def _slices(self, P: Array | None, Q: Array | None) -> Iterator[slice]:
        n_samples, n_outputs, n_inputs = self.shape
        rows = max(n_outputs, 0 if P is None else len(P))
        columns = max(n_inputs, 0 if Q is None else len(Q))
        step = max(1, BLOCK_ENTRIES // (self.n_matrices * rows * columns))
        for start in range(0, n_samples, step):
            yield slice(start, min(start + step, n_samples))


class TransformedJacobians(Jacobians):
    """``L J_i R``: a stack in other coordinates on both sides.

    Parameters
    ----------
    stack : Jacobians
        ``J_i``.
    left : ndarray of shape (n_transformed, n_outputs) or None
        ``L``, ``None`` for the identity.
    right : ndarray of shape (n_inputs, n_transformed) or None
        ``R``, ``None`` for the identity.
    """

    def __init__(self, stack: Jacobians, left: Array | None, right: Array | None) -> None:
        self.stack = stack
        self.left = left
        self.right = right
        self.n_matrices = stack.n_matrices
        self.concurrent = stack.concurrent
        n_samples, n_outputs, n_inputs = stack.shape
        self.shape = (
            n_samples,
            n_outputs if left is None else left.shape[0],
            n_inputs if right is None else right.shape[1],
        )

    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare ``(P L) J_i (Q Rᵀ)ᵀ`` in blocks."""
        return self.stack.blocks(*self._axes(P, Q))

    def subset(self, indices: Indices) -> TransformedJacobians:
        """Return some samples."""
        return self._transform(self.stack.subset(indices))

    def scaled(self, scales: Array) -> TransformedJacobians:
        """Scale the samples, with ``L`` and ``R`` brought to order one.

        ``J_i`` is then as large as ``L J_i R``: neither vanishes in single precision.
        """
        left, right = self.left, self.right
        for side in (left, right):
            if side is not None:
                scales = scales * power_of_two_scale(side)
        return TransformedJacobians(
            self.stack.scaled(scales),
            None if left is None else left / power_of_two_scale(left),
            None if right is None else right / power_of_two_scale(right),
        )

    def cast(self, dtype: DTypeLike) -> TransformedJacobians:
        """Yield blocks in another precision."""
        return self._transform(self.stack.cast(dtype))

    def norms(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the norms as the stack does."""
        return self.stack.norms(*self._axes(P, Q), apply)

    def moments(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the moments as the stack does."""
        return self.stack.moments(*self._axes(P, Q), apply)

    def _transform(self, stack: Jacobians) -> TransformedJacobians:
        return TransformedJacobians(stack, self.left, self.right)

    def _axes(self, P: Array | None, Q: Array | None) -> tuple[Array | None, Array | None]:
        """Return the axes of the stack that these axes of the transformed one are."""
        if self.left is not None:
            P = self.left if P is None else P @ self.left
        if self.right is not None:
            Q = self.right.T if Q is None else Q @ self.right.T
        return P, Q


def _norms(block: Array) -> tuple[Matrix, Matrix]:
    """Compute the norms of every sample of a block, without overflow or underflow."""
    with np.errstate(over="ignore"):
        # Row by row first: in single precision, long sums would round.
        l1 = np.abs(block).sum(axis=2).sum(axis=1, dtype=np.float64)
        l2 = np.sqrt(np.einsum("ijk,ijk->ij", block, block).sum(axis=1, dtype=np.float64))
    safe = SAFE if block.dtype == np.float64 else SAFE_SINGLE
    if np.all((l2 > safe) & (l2 < 1 / safe)):
        return l1, l2
    # The largest entry is taken out, so that no square is too large or too small.
    entries = np.abs(block.astype(np.float64, copy=False))
    largest = entries.max(axis=(1, 2))
    entries /= np.where(largest > 0, largest, 1)[:, None, None]
    l2 = np.sqrt(np.einsum("ijk,ijk->i", entries, entries))
    return largest * entries.sum(axis=(1, 2)), largest * l2


def rotate_outputs(P: Array, stack: Array) -> Array:
    """Compute ``P J_i`` for a block given outputs first, ``(n_outputs, n_block, n_inputs)``.

    That order makes it one matrix product over the whole block, and leaves the result in memory
    so that the sums over samples of the gradient are single products too.
    """
    product = P @ stack.reshape(len(stack), -1)
    return product.reshape(len(P), *stack.shape[1:]).transpose(1, 0, 2)


def n_samples_in_working_memory(n_entries: int, dtype: DTypeLike) -> int:
    """Count the samples that fit scikit-learn's ``working_memory``.

    Parameters
    ----------
    n_entries : int
        Number of entries of a sample.
    dtype : dtype
        Their data type.

    Returns
    -------
    int
        How many fit.
    """
    return int(get_config()["working_memory"] * 2**20 // (n_entries * np.dtype(dtype).itemsize))
