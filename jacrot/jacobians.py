"""Stacks of Jacobians that yield rotated blocks.

A stack ``J`` of shape ``(n_samples, n_outputs, n_inputs)`` is never needed whole: everything the
search asks of it is a sum over samples of functions of ``P J_i Qᵀ``. A stack therefore answers
its shape, its norms, its second moments, a subset of its samples, and yields ``P J_i Qᵀ`` in
blocks that fit the cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn import get_config

from jacrot._arrays import Array
from jacrot.layers import Dense
from jacrot.network import Network

Indices = NDArray[np.intp]

# Entries of a block: a block and its derivatives then stay in a core's cache.
BLOCK_ENTRIES = 2**18


class Jacobians(ABC):
    """A stack of Jacobians; ``None`` for a rotation is the identity."""

    shape: tuple[int, int, int]

    @abstractmethod
    def rotated(self, P: Array | None, Q: Array | None) -> Iterator[Array]:
        """Yield ``P J_i Qᵀ`` in consecutive blocks ``(n_block, n_rows_P, n_rows_Q)``."""

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
        self, P: Array | None = None, Q: Array | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the entrywise ℓ₁ and the Frobenius norm of every ``P J_i Qᵀ``."""
        l1, l2 = [], []
        for block in self.rotated(P, Q):
            entries = block.reshape(len(block), -1).astype(np.float64, copy=False)
            l1.append(np.abs(entries).sum(axis=1))
            l2.append(np.sqrt(np.einsum("ij,ij->i", entries, entries)))
        return np.concatenate(l1), np.concatenate(l2)

    def moments(self, weights: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute ``Σ_i w_i J_iᵀ J_i`` and ``Σ_i w_i J_i J_iᵀ``."""
        _, n_outputs, n_inputs = self.shape
        reading = np.zeros((n_inputs, n_inputs))
        writing = np.zeros((n_outputs, n_outputs))
        start = 0
        roots = np.sqrt(weights)[:, None, None]
        for block in self.rotated(None, None):
            block = roots[start : start + len(block)] * block
            start += len(block)
            rows = block.reshape(-1, n_inputs)
            reading += rows.T @ rows
            columns = block.transpose(1, 0, 2).reshape(n_outputs, -1)
            writing += columns @ columns.T
        return reading, writing

    def _blocks(self, P: Array | None, Q: Array | None) -> Iterator[slice]:
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

    def rotated(self, P: Array | None, Q: Array | None) -> Iterator[Array]:
        """Yield ``P diag(d_i) (W Qᵀ)`` in blocks."""
        weight = self.weight
        if Q is not None:
            weight = weight @ Q.T.astype(weight.dtype, copy=False)
        if P is not None:
            P = P.astype(weight.dtype, copy=False)
        for block in self._blocks(P, Q):
            if P is None:
                yield self.slopes[block][:, :, None] * weight
            else:
                yield _outputs_rotated(P, self.slopes[block].T[:, :, None] * weight[:, None, :])

    def subset(self, indices: Indices) -> DenseLayerJacobians:
        """Take some samples."""
        return DenseLayerJacobians(self.weight, self.slopes[indices])

    def scaled(self, scales: Array) -> DenseLayerJacobians:
        """Scale the slopes, with the weight brought to order one so that neither overflows."""
        size = np.abs(self.weight).max()
        return DenseLayerJacobians(self.weight / size, self.slopes * (scales * size)[:, None])

    def cast(self, dtype: DTypeLike) -> DenseLayerJacobians:
        """Yield blocks in another precision."""
        return DenseLayerJacobians(self.weight.astype(dtype), self.slopes.astype(dtype))

    def collapsed(self, degree: int) -> Jacobians:
        """Make ``diag(c) W``, ``c_k = (Σ_i |d_ik|^degree)^(1/degree)``.

        ``Σ_i Σ_kj |d_ik (W Qᵀ)_kj|^p = Σ_kj |c_k (W Qᵀ)_kj|^p`` for every ``Q``.
        """
        strengths = np.linalg.norm(self.slopes, ord=degree, axis=0)
        return StackJacobians((strengths[:, None] * self.weight)[None])

    def norms(
        self, P: Array | None = None, Q: Array | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the norms in closed form where no output rotation mixes the neurons."""
        if P is not None:
            return super().norms(P, Q)
        rows = np.abs(self.weight if Q is None else self.weight @ Q.T)
        slopes = np.abs(self.slopes)
        return slopes @ rows.sum(axis=1), np.sqrt(slopes**2 @ (rows**2).sum(axis=1))

    def moments(self, weights: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute ``Wᵀ diag(Σ w d²) W`` and ``(W Wᵀ) ∘ (Σ w d dᵀ)``."""
        weighted = weights[:, None] * self.slopes
        reading = self.weight.T @ ((weighted * self.slopes).sum(axis=0)[:, None] * self.weight)
        writing = (self.weight @ self.weight.T) * (weighted.T @ self.slopes)
        return reading, writing


def _outputs_rotated(P: Array, stack: Array) -> Array:
    """Compute ``P J_i`` for a block given outputs first, ``(n_outputs, n_block, n_inputs)``.

    That order makes it one matrix product over the whole block, and leaves the result in memory
    so that the sums over samples of the gradient are single products too.
    """
    product = P @ stack.reshape(len(stack), -1)
    return product.reshape(len(P), *stack.shape[1:]).transpose(1, 0, 2)


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
        n_samples = source.shape[0] if indices is None else len(indices)
        self.shape = (n_samples, source.shape[1], source.shape[2])

    def rotated(self, P: Array | None, Q: Array | None) -> Iterator[Array]:
        """Yield ``P (J_i Qᵀ)`` in blocks."""
        P = None if P is None else P.astype(self.dtype, copy=False)
        QT = None if Q is None else Q.T.astype(self.dtype, copy=False)
        for samples in self._blocks(P, Q):
            stack = self._read(samples)
            if QT is not None:
                stack = (stack.reshape(-1, len(QT)) @ QT).reshape(*stack.shape[:2], -1)
            yield stack if P is None else _outputs_rotated(P, stack.transpose(1, 0, 2))

    def subset(self, indices: Indices) -> StackJacobians:
        """Take some samples, into memory where ``working_memory`` has room for them."""
        chosen = indices if self.indices is None else self.indices[indices]
        scales = None if self.scales is None else self.scales[indices]
        part = StackJacobians(self.source, scales, chosen, self.dtype)
        return part.in_memory() if fits_working_memory(part.shape, part.dtype) else part

    def scaled(self, scales: Array) -> StackJacobians:
        """Remember the factors, applied block by block."""
        if self.scales is not None:
            scales = scales * self.scales
        return StackJacobians(self.source, scales, self.indices, self.dtype)

    def cast(self, dtype: DTypeLike) -> StackJacobians:
        """Yield blocks in another precision."""
        return StackJacobians(self.source, self.scales, self.indices, dtype)

    def in_memory(self) -> StackJacobians:
        """Read the whole stack once."""
        stack = np.empty(self.shape, self.dtype)
        for samples in self._blocks(None, None):
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
        self.shape = (len(X), *network.jacobians(X[:1]).shape[1:])

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
    return stack.in_memory() if fits_working_memory(stack.shape, stack.dtype) else stack


def fits_working_memory(shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Tell whether an array fits scikit-learn's ``working_memory``.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : dtype
        Its data type.

    Returns
    -------
    bool
        Whether it does.
    """
    n_bytes = float(np.prod(shape, dtype=float)) * np.dtype(dtype).itemsize
    return n_bytes <= get_config()["working_memory"] * 2**20
