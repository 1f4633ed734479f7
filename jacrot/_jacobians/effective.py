"""The samples of a stack whose Jacobian is not zero: norms, second moments and sparsity."""

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

# Entries of the samples whose sparsity a progress bar shows.
WATCHED_ENTRIES = 2**20
# Share of the norm of a sample below which what is left of it, in fewer components, is rounding.
NEGLIGIBLE_NORM = 1e-6


class Moments(NamedTuple):
    """Second moments of Jacobians: ``E[JᵀJ]`` of their inputs, ``E[JJᵀ]`` of their outputs."""

    inputs: Matrix
    outputs: Matrix


@dataclass(frozen=True)
class EffectiveJacobians:
    """Jacobians none of which is zero, with their norms.

    Attributes
    ----------
    stack : Jacobians
        The samples.
    l1, l2 : ndarray of shape (n_samples,)
        Sum of the absolute entries of every sample, and its Frobenius norm.
    """

    stack: Jacobians
    l1: Matrix
    l2: Matrix

    @classmethod
    def select(cls, stack: Jacobians) -> Self:
        """Leave out samples whose Jacobian is zero.

        Parameters
        ----------
        stack : Jacobians
            All samples.

        Returns
        -------
        EffectiveJacobians
            Those that are not zero.

        Raises
        ------
        ValueError
            If all are zero, or some are NaN or infinite.

        Warns
        -----
        UserWarning
            If some are zero.
        """
        l1, l2 = stack.norms()
        if not np.isfinite(l2).all():
            raise ValueError(
                f"{np.count_nonzero(~np.isfinite(l2))} of {len(l2)} samples have a Jacobian with "
                "NaN or infinity; look at the weights and activations (an overflow?), or leave "
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
        """Second moments, every sample scaled to Frobenius norm 1."""
        stack = self.unit
        with one_blas_thread(), thread_map(stack) as apply:
            return Moments(*stack.moments(apply=apply))

    @property
    def given_sparsity(self) -> float:
        """Mean Hoyer sparsity as the samples are."""
        return float(hoyer_of_norms(self.l1, self.l2, self.stack.n_entries_each).mean())

    def sparsity(self, P: Matrix | None, Q: Matrix | None) -> float:
        """Average the Hoyer sparsity of ``P J_i Qᵀ`` over samples.

        Samples of which nothing but rounding is left are not counted. In so many samples that
        rounding averages out, single precision halves the time.

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
        """Average the Hoyer sparsity of ``P J_i Qᵀ`` over a few samples, for a progress bar.

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
    """Return the ``map`` of a pool of threads that share the blocks of a stack.

    Parameters
    ----------
    stack : Jacobians
        Says whether several threads may compute its blocks.

    Yields
    ------
    callable
        As ``map``.
    """
    with ThreadPoolExecutor(cpu_count() if stack.concurrent else 1) as pool:
        yield pool.map


def nonzero_samples(norms: Matrix) -> Indices:
    """Find the samples whose Jacobian is not zero; warn of the others.

    Parameters
    ----------
    norms : ndarray of shape (n_samples,)
        Frobenius norms.

    Returns
    -------
    ndarray of int
        Their indices.

    Raises
    ------
    ValueError
        If all are zero.
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
