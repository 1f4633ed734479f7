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

from jacrot._arrays import Array, Matrix
from jacrot._threads import Apply, summed
from jacrot.layers import Dense
from jacrot.network import Network

Indices = NDArray[np.intp]
Block = Callable[[], Array]
# Norms between these and their inverses are sums of squares that neither vanish nor overflow, in
# double and in single precision.
SAFE, SAFE_SINGLE = 1e-140, 1e-12

# Entries of a block: a block and its derivatives then stay in a core's cache.
BLOCK_ENTRIES = 2**18
# Of one matrix smaller blocks, so that there are enough of them for several threads, but of no
# fewer rows than half its columns, whose squares are summed.
ROW_BLOCK_ENTRIES = 2**16


class Jacobians(ABC):
    """A stack of Jacobians; ``None`` for a rotation is the identity."""

    shape: tuple[int, int, int]
    # Whether several threads may make blocks at once.
    concurrent = True

    @abstractmethod
    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare ``P J_i Qᵀ`` in consecutive blocks ``(n_block, n_rows_P, n_rows_Q)``."""

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

    def collapsed(self, degree: int) -> Jacobians | None:
        """Replace the samples by one matrix with the same ``Σ_i Σ |J_i Qᵀ|^degree`` for all Q."""
        return None

    def norms(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the entrywise ℓ₁ and the Frobenius norm of every ``P J_i Qᵀ``."""
        blocks = apply(lambda block: _norms(block()), self._whole_blocks(P, Q))
        l1, l2 = zip(*blocks, strict=True)
        return np.concatenate(l1), np.concatenate(l2)

    def moments(self, Q: Array | None = None, apply: Apply = map) -> tuple[Matrix, Matrix]:
        """Compute the means of ``X_iᵀ X_i`` and of ``X_i X_iᵀ``, ``X_i = J_i Qᵀ``."""
        blocks = self._whole_blocks(None, Q)

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
        step = max(1, BLOCK_ENTRIES // (rows * columns))
        for start in range(0, n_samples, step):
            yield slice(start, min(start + step, n_samples))


class DenseLayerJacobians(Jacobians):
    """Jacobians ``diag(d_i) W`` of one dense layer: ``P diag(d_i) (W Qᵀ)`` is one product.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_inputs)
        ``W``.
    slopes : ndarray of shape (n_samples, n_outputs)
        ``d_i``.
    """

    def __init__(self, weight: Array, slopes: Array) -> None:
        self.weight = weight
        self.slopes = slopes
        self.shape = (len(slopes), *weight.shape)

    def blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        """Prepare ``P diag(d_i) (W Qᵀ)`` in blocks."""
        weight = self.weight
        if Q is not None:
            weight = weight @ Q.T.astype(weight.dtype, copy=False)
        if P is not None:
            P = P.astype(weight.dtype, copy=False)

        def block(samples: slice) -> Array:
            slopes = self.slopes[samples]
            if P is None:
                return slopes[:, :, None] * weight
            return _outputs_rotated(P, slopes.T[:, :, None] * weight[:, None, :])

        return [partial(block, samples) for samples in self._slices(P, Q)]

    def subset(self, indices: Indices) -> DenseLayerJacobians:
        """Take some samples."""
        return DenseLayerJacobians(self.weight, self.slopes[indices])

    def scaled(self, scales: Array) -> DenseLayerJacobians:
        """Scale the slopes, with every row of the weight brought to order one.

        The product of a slope and a row is then as large as the slope: neither overflows.
        """
        sizes = np.abs(self.weight).max(axis=1)
        rows = self.weight / np.where(sizes > 0, sizes, 1)[:, None]
        return DenseLayerJacobians(rows, self.slopes * sizes * scales[:, None])

    def cast(self, dtype: DTypeLike) -> DenseLayerJacobians:
        """Yield blocks in another precision."""
        return DenseLayerJacobians(self.weight.astype(dtype), self.slopes.astype(dtype))

    def collapsed(self, degree: int) -> Jacobians:
        """Make ``diag(c) W``, ``c_k = (Σ_i |d_ik|^degree)^(1/degree)``.

        ``Σ_i Σ_kj |d_ik (W Qᵀ)_kj|^p = Σ_kj |c_k (W Qᵀ)_kj|^p`` for every ``Q``.
        """
        strengths = np.linalg.norm(self.slopes, ord=degree, axis=0)
        return MatrixJacobians(strengths[:, None] * self.weight)

    def norms(
        self, P: Array | None = None, Q: Array | None = None, apply: Apply = map
    ) -> tuple[Matrix, Matrix]:
        """Compute the norms in closed form where no output rotation mixes the neurons."""
        if P is not None:
            return super().norms(P, Q, apply)
        rows = np.abs(self.weight if Q is None else self.weight @ Q.T)
        slopes = np.abs(self.slopes)
        sizes = rows.max(), slopes.max(axis=1)
        rows, slopes = rows / (sizes[0] or 1), slopes / np.where(sizes[1] > 0, sizes[1], 1)[:, None]
        size = sizes[0] * sizes[1]
        return size * (slopes @ rows.sum(axis=1)), size * np.sqrt(slopes**2 @ (rows**2).sum(axis=1))

    def moments(self, Q: Array | None = None, apply: Apply = map) -> tuple[Matrix, Matrix]:
        """Compute ``Vᵀ diag(E[d²]) V`` and ``(V Vᵀ) ∘ E[d dᵀ]``, ``V = W Qᵀ``."""
        weight = self.weight if Q is None else self.weight @ Q.T
        slopes = self.slopes.T @ self.slopes / len(self.slopes)
        return weight.T @ (np.diag(slopes)[:, None] * weight), (weight @ weight.T) * slopes


def _norms(block: Array) -> tuple[Matrix, Matrix]:
    """Compute the norms of every sample of a block, whatever the size of its entries."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
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
        step = max(1, ROW_BLOCK_ENTRIES // n_inputs, n_inputs // 2)

        def block(start: int) -> Array:
            return (matrix[start : start + step] @ QT)[None]

        return [partial(block, start) for start in range(0, len(matrix), step)]

    def _whole_blocks(self, P: Array | None, Q: Array | None) -> list[Block]:
        blocks = self.blocks(P, Q)
        return [lambda: np.concatenate([block() for block in blocks], axis=1)]

    def subset(self, indices: Indices) -> MatrixJacobians:
        """Take the only sample."""
        return self

    def scaled(self, scales: Array) -> MatrixJacobians:
        """Multiply the matrix."""
        return MatrixJacobians(self.matrix * np.asarray(scales).item())

    def cast(self, dtype: DTypeLike) -> MatrixJacobians:
        """Yield blocks in another precision."""
        return MatrixJacobians(self.matrix.astype(dtype))


class _Source(Protocol):
    """What a dense stack reads: an array, a memory map, or Jacobians made on demand."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, samples: Any) -> Array: ...


class StackJacobians(Jacobians):
    """Any stack: an array or memory map of Jacobians, or a network's, made block by block.

    Parameters
    ----------
    source : array-like of shape (n_samples, n_outputs, n_inputs)
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
        source: _Source,
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
        self.shape = (n_samples, source.shape[1], source.shape[2])

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
        return n_samples_in_working_memory(self.shape[1:], self.dtype) >= self.shape[0]

    def in_memory(self) -> StackJacobians:
        """Read the whole stack once."""
        stack = np.empty(self.shape, self.dtype)
        for samples in self._slices(None, None):
            stack[samples] = self._read(samples)
        return StackJacobians(stack, dtype=self.dtype)

    def _read(self, samples: slice) -> Array:
        stack = np.asarray(self.source[samples if self.indices is None else self.indices[samples]])
        if self.scales is not None:
            # In the wider precision: an entry of 1e30 and a scale of 1e-30 both fit float64.
            stack = stack * self.scales[samples, None, None]
        return stack.astype(self.dtype, copy=False)


class _NetworkJacobians:
    """The Jacobians of a network, computed for the samples that are asked for."""

    def __init__(self, network: Network, X: Array) -> None:
        self.network = network
        self.X = X
        # Two samples: with one, a callable that mixes samples would not be found out.
        self.shape = (len(X), *network.jacobians(X[:2]).shape[1:])

    def __getitem__(self, samples: Any) -> Array:
        return self.network.jacobians(self.X[samples])


def network_jacobians(network: Network, X: Array) -> Jacobians:
    """Make the stack of a network's Jacobians that does the least work.

    One dense layer stays in its factors. Anything else is a dense stack: stored when it fits
    scikit-learn's ``working_memory``, else recomputed whenever a block of it is needed.

    Parameters
    ----------
    network : Network
        What follows the activations.
    X : ndarray of shape (n_samples, n_inputs)
        The activations.

    Returns
    -------
    Jacobians
        The stack.
    """
    X = X.astype(np.float64, copy=False)
    layer = network.layers[0]
    if network.n_layers == 1 and isinstance(layer, Dense) and layer.output_rotation is None:
        return DenseLayerJacobians(layer.weight.astype(np.float64), layer.slopes(X))
    stack = StackJacobians(_NetworkJacobians(network, X))
    return stack.in_memory() if stack.fits_working_memory else stack


def n_samples_in_working_memory(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Count the Jacobians that fit scikit-learn's ``working_memory``.

    Parameters
    ----------
    shape : tuple of int
        Shape of one Jacobian.
    dtype : dtype
        Its data type.

    Returns
    -------
    int
        How many fit.
    """
    n_bytes = float(np.prod(shape, dtype=float)) * np.dtype(dtype).itemsize
    return int(get_config()["working_memory"] * 2**20 // n_bytes)
