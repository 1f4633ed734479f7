"""Any stack of Jacobians: in memory, in a file, or computed block by block."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from jacrot._jacobians.base import (
    Block,
    Indices,
    Jacobians,
    n_samples_in_working_memory,
    rotate_outputs,
)
from jacrot._utils.arrays import Array

# Limit for the entries that are read into memory at a time.
READ_ENTRIES = 2**22


class Source(Protocol):
    """Source of a dense stack: an array, a memory map, or Jacobians computed on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples, and the shape of each."""

    def __getitem__(self, samples: Any) -> Array: ...


class StackJacobians(Jacobians):
    """A dense stack: an array or memory map of Jacobians, or those of a network, by blocks.

    Parameters
    ----------
    source : array-like of shape (n_samples, [n_matrices,] n_outputs, n_inputs)
        Indexed by samples only.
    scales : ndarray of shape (n_samples,), default=None
        Factor of every sample.
    indices : ndarray of int, default=None
        Samples of `source` in the stack; ``None`` for all.
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
        # The Jacobians of a network may use autograd, which is not thread-safe.
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
            return stack if P is None else rotate_outputs(P, stack.transpose(1, 0, 2))

        return [partial(block, samples) for samples in self._slices(P, Q)]

    def subset(self, indices: Indices) -> StackJacobians:
        """Return some samples, in memory if they fit ``working_memory``."""
        chosen = indices if self.indices is None else self.indices[indices]
        scales = None if self.scales is None else self.scales[indices]
        part = StackJacobians(self.source, scales, chosen, self.dtype)
        return part.in_memory() if part.fits_working_memory else part

    def scaled(self, scales: Array) -> StackJacobians:
        """Store the factors, which are applied block by block."""
        if self.scales is not None:
            scales = scales * self.scales
        return StackJacobians(self.source, scales, self.indices, self.dtype)

    def cast(self, dtype: DTypeLike) -> StackJacobians:
        """Yield blocks in another precision."""
        return StackJacobians(self.source, self.scales, self.indices, dtype)

    @property
    def fits_working_memory(self) -> bool:
        """Whether the stack fits scikit-learn's ``working_memory``."""
        return n_samples_in_working_memory(self.n_entries_each, self.dtype) >= self.shape[0]

    def in_memory(self) -> StackJacobians:
        """Read the whole stack once."""
        stack = np.empty((self.shape[0], self.n_matrices, *self.shape[1:]), self.dtype)
        # In the order of the source and in large parts, which some sources compute together.
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
