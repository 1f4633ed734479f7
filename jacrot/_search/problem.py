"""What is minimised: a criterion over stacks of Jacobians, and the rotations that turn them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import DTypeLike

from jacrot._jacobians.base import Indices, Jacobians
from jacrot._search.objective import Objective, Term
from jacrot._search.settings import DEFAULT_SETTINGS, SearchSettings
from jacrot._utils.arrays import Matrix
from jacrot._utils.threads import Apply
from jacrot.criteria._minimised import Criterion


@dataclass(frozen=True)
class Problem:
    """A criterion over one or several stacks of Jacobians.

    Parameters
    ----------
    terms : tuple of Term
        The stacks to search on, scaled to root mean square 1, their samples in random order.
    criterion : Criterion
        ``φ``.
    bases : tuple of (ndarray of shape (n_axes, n_features) or None)
        For each rotation, orthonormal rows inside which it turns; ``None`` for the whole space.
    apply : callable
        ``map``, or that of an executor.
    settings : SearchSettings
        The constants of the search.
    """

    terms: tuple[Term, ...]
    criterion: Criterion
    bases: tuple[Matrix | None, ...]
    apply: Apply = field(default=map, repr=False)
    settings: SearchSettings = field(default=DEFAULT_SETTINGS, repr=False)

    @property
    def n_samples(self) -> int:
        """Number of samples of the largest stack."""
        return max(term.jacobians.shape[0] for term in self.terms)

    @property
    def n_entries(self) -> float:
        """Number of entries of all Jacobians."""
        return sum(term.jacobians.n_entries for term in self.terms)

    @property
    def n_entries_each(self) -> int:
        """Number of entries of a sample's Jacobians."""
        return int(self.n_entries // self.n_samples)

    @property
    def is_one_matrix(self) -> bool:
        """Whether there is one sample only, as after a collapse."""
        return self.n_samples == 1

    @property
    def is_one_sided(self) -> bool:
        """Whether the inputs of one stack turn, and nothing else."""
        return len(self.terms) == 1 and self.terms[0].output is None

    @property
    def is_two_sided(self) -> bool:
        """Whether the inputs and the outputs of one stack turn, each in its own way."""
        return len(self.terms) == 1 and self.terms[0].output not in (None, self.terms[0].input)

    def with_stacks(self, change: Callable[[Jacobians], Jacobians]) -> Problem:
        """Return the problem with every stack changed."""
        terms = (replace(term, jacobians=change(term.jacobians)) for term in self.terms)
        return replace(self, terms=tuple(terms))

    def first(self, n_samples: int | None) -> Problem:
        """Return the problem on the first samples, ``None`` for all."""
        if n_samples is None or n_samples >= self.n_samples:
            return self
        return self.with_stacks(
            lambda stack: stack.subset(np.arange(min(n_samples, stack.shape[0])))
        )

    def inputs_alone(self) -> Problem:
        """Return the problem of ``Q`` alone, with the outputs in the given basis."""
        term = self.terms[0]
        terms = (Term.from_mode(term.jacobians, "fixed"),)
        return replace(self, terms=terms, bases=self.bases[-1:])

    def collapsed(self) -> Problem | None:
        """Return the problem of ``Q`` alone with all samples in one matrix, where that is exact."""
        if self.criterion.degree is None:
            return None
        collapsed = self.terms[0].jacobians.collapsed(self.criterion.degree)
        if collapsed is None:
            return None
        basis = self.bases[-1]
        if basis is not None:
            collapsed = collapsed.transformed(None, basis.T)
        _, norm = collapsed.norms()
        scaled = collapsed.scaled(np.sqrt(collapsed.n_entries) / norm)
        terms = (Term.from_mode(scaled, "fixed"),)
        criterion = self.criterion.collapsed(int(collapsed.n_entries))
        return replace(self, terms=terms, criterion=criterion, bases=(None,))

    def objective(self, smoothing: float, dtype: DTypeLike) -> Objective:
        """Return the cost at one smoothing."""
        cast = self.with_stacks(lambda stack: stack.cast(dtype))
        return Objective(
            cast.terms,
            self.criterion,
            smoothing,
            self.bases,
            self.apply,
            self.settings.kept_share,
        )

    def minibatch(self, samples: Indices, smoothing: float, dtype: DTypeLike) -> Objective:
        """Return the cost on some samples."""
        # Stacks may have lost different samples, of which all derivatives are zero.
        part = self.with_stacks(lambda stack: stack.subset(samples % stack.shape[0]))
        return part.objective(smoothing, dtype)

    def exact_cost(self, point: list[Matrix]) -> float:
        """Compute the cost of a point without smoothing, of a large stack in single precision."""
        dtype = np.float64 if self.n_entries <= self.settings.exact_entries else np.float32
        return self.objective(0.0, dtype).cost(*point)
