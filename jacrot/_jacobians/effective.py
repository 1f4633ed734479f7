"""Samples with nonzero Jacobians: norms, second moments and sparsity."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from joblib import cpu_count

from jacrot._jacobians.base import Indices, Jacobians
from jacrot._jacobians.networks import SINGLE_PRECISION_ENTRIES
from jacrot._utils.arrays import Matrix
from jacrot._utils.threads import Apply, one_blas_thread
from jacrot._utils.warnings import warn
from jacrot.criteria._measures import hoyer_of_norms

# Maximum number of entries of the samples whose sparsity a progress bar shows.
WATCHED_ENTRIES = 2**20
# Share of the norm of a sample below which its projection to fewer components is rounding error.
NEGLIGIBLE_NORM = 1e-6


class Moments(NamedTuple):
    """Second moments of Jacobians: ``E[JᵀJ]`` of their inputs, ``E[JJᵀ]`` of their outputs."""

    inputs: Matrix
    outputs: Matrix


@dataclass(frozen=True)
class EffectiveJacobians:
    """Nonzero Jacobians with their norms.

    Attributes
    ----------
    stack : Jacobians
        The samples.
    l1, l2 : ndarray of shape (n_samples,)
        Sum of the absolute entries of every sample, and Frobenius norm.
    """

    stack: Jacobians
    l1: Matrix
    l2: Matrix

    @classmethod
    def select(cls, stack: Jacobians) -> Self:
        """Select the samples whose Jacobian is not zero.

        Parameters
        ----------
        stack : Jacobians
            All samples.

        Returns
        -------
        EffectiveJacobians
            The samples with nonzero Jacobians.

        Raises
        ------
        ValueError
            If all Jacobians are zero, or some are NaN or infinite.

        Warns
        -----
        UserWarning
            If some Jacobians are zero.
        """
        l1, l2 = stack.norms()
        if not np.isfinite(l2).all():
            raise ValueError(
                f"{np.count_nonzero(~np.isfinite(l2))} of {len(l2)} samples have a Jacobian with "
                "NaN or infinity; check the weights and activations for an overflow, or leave "
                "these samples out."
            )
        nonzero = nonzero_samples(l2)
        if nonzero.size == l2.size:
            return cls(stack, l1, l2)
        return cls(stack.subset(nonzero), l1[nonzero], l2[nonzero])

    @property
    def unit(self) -> Jacobians:
        """The stack with every sample scaled to Frobenius norm 1."""
        return self.stack.scaled(1 / self.l2)

    @cached_property
    def moments(self) -> Moments:
        """Second moments, with every sample scaled to Frobenius norm 1."""
        stack = self.unit
        with one_blas_thread(), thread_map(stack) as apply:
            return Moments(*stack.moments(apply=apply))

    @property
    def given_sparsity(self) -> float:
        """Mean Hoyer sparsity in the given basis."""
        return float(hoyer_of_norms(self.l1, self.l2, self.stack.n_entries_each).mean())

    def sparsity(self, P: Matrix | None, Q: Matrix | None) -> float:
        """Compute the mean Hoyer sparsity of ``P J_i Qᵀ``.

        Samples whose projection is only rounding error are left out. Large stacks are computed in
        single precision, which halves the time; the mean averages its rounding errors.

        Parameters
        ----------
        P, Q : ndarray or None
            Orthonormal rows; ``None`` for the identity.

        Returns
        -------
        float
            The mean.
        """
        stack = self.unit
        if stack.n_entries > SINGLE_PRECISION_ENTRIES:
            stack = stack.cast(np.float32)
        with one_blas_thread(), thread_map(stack) as apply:
            l1, l2 = stack.norms(P, Q, apply)
        nonzero = nonzero_samples(np.where(l2 > NEGLIGIBLE_NORM, l2, 0))
        size = _count_entries(stack, P, Q)
        return float(hoyer_of_norms(l1[nonzero], l2[nonzero], size).mean())

    def sparsity_of_first(self, P: Matrix | None, Q: Matrix | None) -> float:
        """Compute the mean Hoyer sparsity of ``P J_i Qᵀ`` over a few samples, for a progress bar.

        Parameters
        ----------
        P, Q : ndarray or None
            Orthonormal rows; ``None`` for the identity.

        Returns
        -------
        float
            The mean over the first samples.
        """
        fitting = int(WATCHED_ENTRIES // self.stack.n_entries_each)
        first = np.arange(min(self.stack.shape[0], max(1, fitting)))
        stack = self.stack.subset(first).cast(np.float32)
        return float(np.mean(hoyer_of_norms(*stack.norms(P, Q), _count_entries(stack, P, Q))))


@contextmanager
def thread_map(stack: Jacobians) -> Iterator[Apply]:
    """Return the ``map`` of a pool of threads for the blocks of a stack.

    Parameters
    ----------
    stack : Jacobians
        The stack; several threads are used only if it is ``concurrent``.

    Yields
    ------
    callable
        Function with the signature of ``map``.
    """
    with ThreadPoolExecutor(cpu_count() if stack.concurrent else 1) as pool:
        yield pool.map


def nonzero_samples(norms: Matrix) -> Indices:
    """Return the samples whose Jacobian is not zero, and warn about the others.

    Parameters
    ----------
    norms : ndarray of shape (n_samples,)
        Frobenius norms.

    Returns
    -------
    ndarray of int
        Indices of the samples.

    Raises
    ------
    ValueError
        If all Jacobians are zero.
    """
    nonzero = np.flatnonzero(norms)
    if nonzero.size == 0:
        raise ValueError(
            f"the Jacobian is zero at every one of n_samples={norms.size}: nothing depends on "
            "these activations (dead units, a saturated activation, the wrong layer, or too few "
            "components?)."
        )
    if nonzero.size < norms.size:
        warn(
            f"{norms.size - nonzero.size} of {norms.size} samples have a zero Jacobian and are "
            "left out."
        )
    return nonzero


def _count_entries(stack: Jacobians, P: Matrix | None, Q: Matrix | None) -> int:
    """Count the entries of a rotated sample."""
    _, n_outputs, n_inputs = stack.shape
    size = stack.n_matrices * (n_outputs if P is None else len(P))
    return size * (n_inputs if Q is None else len(Q))
