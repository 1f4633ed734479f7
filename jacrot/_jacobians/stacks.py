"""Stacks of Jacobians that yield rotated blocks.

A stack ``J`` of shape ``(n_samples, n_outputs, n_inputs)`` is never needed whole: everything the
search asks of it is a sum over samples of functions of ``P J_i Qᵀ``. A stack therefore answers
its shape, its norms, its second moments, a subset of its samples, and yields ``P J_i Qᵀ`` in
blocks that fit the cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn import get_config

from jacrot._utils.arrays import Array, Matrix, scale_of
from jacrot._utils.threads import Apply, summed

Indices = NDArray[np.intp]
Block = Callable[[], Array]
# Norms between these and their inverses are sums of squares that neither vanish nor overflow, in
# double and in single precision.
SAFE, SAFE_SINGLE = 1e-140, 1e-12

# Entries of a block: a block and its derivatives then stay in a core's cache.
BLOCK_ENTRIES = 2**18
# Entries that are read into memory at once.
READ_ENTRIES = 2**22
# Of one matrix smaller blocks, so that there are enough of them for several threads, but of no
# fewer rows than half its columns, whose squares are summed.
ROW_BLOCK_ENTRIES = 2**16


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
        for block in self._whole_blocks(P, Q):
            yield block()

    @abstractmethod
    def subset(self, indices: Indices) -> Jacobians:
        """Take some samples, in the given order."""

    @abstractmethod
    def scaled(self, scales: Array) -> Jacobians:
        """Multiply every ``J_i`` by ``scales[i]``."""

    @abstractmethod
    def cast(self, dtype: DTypeLike) -> Jacobians:
        """Yield blocks in another precision."""

    def transformed(self, left: Matrix | None, right: Matrix | None) -> Jacobians:
        """Make ``L J_i R``, ``None`` for the identity."""
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

        blocks = apply(norms, self._whole_blocks(P, Q))
        l1, l2 = zip(*blocks, strict=True)
        return np.concatenate(l1), np.concatenate(l2)

    def moments(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the means of ``X_iᵀ X_i`` and of ``X_i X_iᵀ``, ``X_i = P J_i Qᵀ``.

        Of several matrices of a sample, the sum counts.
        """
        blocks = self._whole_blocks(P, Q)

        def squares(number: int) -> tuple[Matrix, Matrix]:
            block = blocks[number]()
            rows = block.reshape(-1, block.shape[2])
            columns = block.transpose(1, 0, 2).reshape(block.shape[1], -1)
            return rows.T @ rows, columns @ columns.T

        reading, writing = summed(len(blocks), squares, apply)
        return reading / self.shape[0], writing / self.shape[0]

    def _whole_blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare blocks that do not share a sample."""
        return self.blocks(P, Q)

    def _slices(self, P: Array | None, Q: Array | None) -> Iterator[slice]:
        n_samples, n_outputs, n_inputs = self.shape
        rows = max(n_outputs, 0 if P is None else len(P))
        columns = max(n_inputs, 0 if Q is None else len(Q))
        step = max(1, BLOCK_ENTRIES // (self.n_matrices * rows * columns))
        for start in range(0, n_samples, step):
            yield slice(start, min(start + step, n_samples))


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
            return _outputs_rotated(P, stack.reshape(n_outputs, -1, n_columns))

        return [partial(block, samples) for samples in self._slices(P, Q)]

    def subset(self, indices: Indices) -> LayerJacobians:
        """Take some samples."""
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
        """Make ``diag(c) W``, ``c_k = (Σ_i |d_ik|^degree)^(1/degree)``, of all offsets.

        ``Σ_i Σ_kj |d_ik (W Qᵀ)_kj|^p = Σ_kj |c_k (W Qᵀ)_kj|^p`` for every ``Q``.
        """
        strengths = np.linalg.norm(self.slopes, ord=degree, axis=0)
        return MatrixJacobians((strengths[..., None] * self.weight).reshape(-1, self.shape[2]))

    def norms(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the norms in closed form where no output rotation mixes the neurons."""
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


def _norms(block: Array) -> tuple[Matrix, Matrix]:
    """Compute the norms of every sample of a block, whatever the size of its entries."""
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


def _outputs_rotated(P: Array, stack: Array) -> Array:
    """Compute ``P J_i`` for a block given outputs first, ``(n_outputs, n_block, n_inputs)``.

    That order makes it one matrix product over the whole block, and leaves the result in memory
    so that the sums over samples of the gradient are single products too.
    """
    product = P @ stack.reshape(len(stack), -1)
    return product.reshape(len(P), *stack.shape[1:]).transpose(1, 0, 2)


class MatrixJacobians(Jacobians):
    """One matrix, whose rows do not mix: they come in blocks where a sample would be one.

    Parameters
    ----------
    matrix : ndarray of shape (n_outputs, n_inputs)
        What all samples collapse into.
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

    def _whole_blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        blocks = self.blocks(P, Q)
        return [lambda: np.concatenate([block() for block in blocks], axis=1)]

    def subset(self, indices: Indices) -> MatrixJacobians:
        """Take the only sample."""
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
        """Take some samples."""
        return self._of(self.stack.subset(indices))

    def scaled(self, scales: Array) -> TransformedJacobians:
        """Scale the samples, with ``L`` and ``R`` brought to order one.

        ``J_i`` is then as large as ``L J_i R``: neither vanishes in single precision.
        """
        left, right = self.left, self.right
        for side in (left, right):
            if side is not None:
                scales = scales * scale_of(side)
        return TransformedJacobians(
            self.stack.scaled(scales),
            None if left is None else left / scale_of(left),
            None if right is None else right / scale_of(right),
        )

    def cast(self, dtype: DTypeLike) -> TransformedJacobians:
        """Yield blocks in another precision."""
        return self._of(self.stack.cast(dtype))

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

    def _of(self, stack: Jacobians) -> TransformedJacobians:
        return TransformedJacobians(stack, self.left, self.right)

    def _axes(self, P: Array | None, Q: Array | None) -> tuple[Array | None, Array | None]:
        """Give the axes of the stack that these axes of the transformed one are."""
        if self.left is not None:
            P = self.left if P is None else P @ self.left
        if self.right is not None:
            Q = self.right.T if Q is None else Q @ self.right.T
        return P, Q


class Source(Protocol):
    """What a dense stack reads: an array, a memory map, or Jacobians made on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples first, then those of a sample's matrices."""

    def __getitem__(self, samples: Any) -> Array: ...


class StackJacobians(Jacobians):
    """Any stack: an array or memory map of Jacobians, or a network's, made block by block.

    Parameters
    ----------
    source : array-like of shape (n_samples, [n_matrices,] n_outputs, n_inputs)
        Indexed by samples only.
    scales : ndarray of shape (n_samples,), default=None
        Factors of the samples.
    indices : ndarray of int, default=None
        The samples of `source` that make the stack; ``None`` for all.
    dtype : dtype, default=numpy.float64
        Precision of the blocks.
    """

    def __init__(
        self,
        source: Source,
        scales: Array | None = None,
        indices: Indices | None = None,
        dtype: DTypeLike = np.float64,
    ) -> None:
        self.source = source
        self.scales = scales
        self.indices = indices
        self.dtype = np.dtype(dtype)
        # autograd, which may be behind a network's Jacobians, is not made for threads.
        self.concurrent = isinstance(source, np.ndarray)
        n_samples = source.shape[0] if indices is None else len(indices)
        self.n_matrices = source.shape[1] if len(source.shape) == 4 else 1
        self.shape = (n_samples, source.shape[-2], source.shape[-1])

    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare ``P (J_i Qᵀ)`` in blocks."""
        P = None if P is None else P.astype(self.dtype, copy=False)
        QT = None if Q is None else Q.T.astype(self.dtype, copy=False)

        def block(samples: slice) -> Array:
            stack = self._read(samples)
            if QT is not None:
                stack = (stack.reshape(-1, len(QT)) @ QT).reshape(*stack.shape[:2], -1)
            return stack if P is None else _outputs_rotated(P, stack.transpose(1, 0, 2))

        return [partial(block, samples) for samples in self._slices(P, Q)]

    def subset(self, indices: Indices) -> StackJacobians:
        """Take some samples, into memory where ``working_memory`` has room for them."""
        chosen = indices if self.indices is None else self.indices[indices]
        scales = None if self.scales is None else self.scales[indices]
        part = StackJacobians(self.source, scales, chosen, self.dtype)
        return part.in_memory() if part.fits_working_memory else part

    def scaled(self, scales: Array) -> StackJacobians:
        """Remember the factors, applied block by block."""
        if self.scales is not None:
            scales = scales * self.scales
        return StackJacobians(self.source, scales, self.indices, self.dtype)

    def cast(self, dtype: DTypeLike) -> StackJacobians:
        """Yield blocks in another precision."""
        return StackJacobians(self.source, self.scales, self.indices, dtype)

    @property
    def fits_working_memory(self) -> bool:
        """Whether scikit-learn's ``working_memory`` has room for the whole stack."""
        return n_samples_in_working_memory(self.n_entries_each, self.dtype) >= self.shape[0]

    def in_memory(self) -> StackJacobians:
        """Read the whole stack once."""
        stack = np.empty((self.shape[0], self.n_matrices, *self.shape[1:]), self.dtype)
        # In the order of the source, and many at once: some sources make neighbours together.
        order = np.arange(len(stack)) if self.indices is None else np.argsort(self.indices)
        step = max(1, READ_ENTRIES // self.n_entries_each)
        for start in range(0, len(order), step):
            samples = order[start : start + step]
            stack[samples] = self._read(samples).reshape(-1, *stack.shape[1:])
        return StackJacobians(stack, dtype=self.dtype)

    def _read(self, samples: slice | Indices) -> Array:
        stack = np.asarray(self.source[samples if self.indices is None else self.indices[samples]])
        if self.scales is not None:
            # In the wider precision: an entry of 1e30 and a scale of 1e-30 both fit float64.
            stack = stack * self.scales[samples].reshape(-1, *[1] * (stack.ndim - 1))
        return stack.reshape(-1, *self.shape[1:]).astype(self.dtype, copy=False)


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
