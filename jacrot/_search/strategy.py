"""The strategy: from which starts a search goes by which moves.

A candidate is a point with its exact cost. A move starts from a candidate and returns the better
one of that and of where it ended:

- ``descend``: Adam from much smoothing to little, then conjugate gradient at little smoothing;
- ``cool``: conjugate gradient alone, from much smoothing to little in several stages;
- ``settle``: conjugate gradient from little smoothing to less, which stays near;
- ``sweep``: turns of pairs of axes, as long as they lower the cost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jacrot._search.log import Log
from jacrot._search.manifold import cayley
from jacrot._search.plane_sweep import plane_sweep
from jacrot._search.problem import Problem
from jacrot._search.stages import orthonormal, precision, run_stages
from jacrot._search.warm_start import warm_start
from jacrot._utils.arrays import Matrix
from jacrot._utils.random import random_rotation
from jacrot.criteria._minimised import Cauchy, TableCriterion


class Candidate(NamedTuple):
    """A point, and its exact cost, by which candidates compare."""

    cost: float
    point: list[Matrix]


class Search:
    """One search for the rotations of a problem, within a budget.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    log : Log
        The budget.
    rng : numpy.random.RandomState
        All randomness of the search.
    given : list of ndarray
        The point of the given basis.
    """

    def __init__(
        self, problem: Problem, log: Log, rng: np.random.RandomState, given: list[Matrix]
    ) -> None:
        self.problem = problem
        self.settings = problem.settings
        self.log = log
        self.rng = rng
        self.given = given
        self._best: Candidate | None = None

    @property
    def point(self) -> list[Matrix] | None:
        """Where the search stands, ``None`` before its first point."""
        if self.log.point is None:
            return None
        # A problem with the outputs fixed leaves them in the given basis.
        fixed = self.given[: len(self.given) - len(self.log.point)]
        return [*fixed, *map(orthonormal, self.log.point)]

    def best(self) -> Candidate | None:
        """Return the best candidate so far, or where the search stands if that is better."""
        point = self.point
        if point is not None:
            self.candidate(point)
        return self._best

    def candidate(self, point: list[Matrix]) -> Candidate:
        """Compute the exact cost of a point, a pass over all samples."""
        candidate = Candidate(self.problem.exact_cost(point), point)
        self._best = _cheapest(*filter(None, [self._best, candidate]))
        return candidate

    def automatic(self, singular: list[Matrix]) -> Candidate:
        """Search from the starts that a problem offers by itself.

        Parameters
        ----------
        singular : list of ndarray
            The point of the singular basis.

        Returns
        -------
        Candidate
            What was found, never worse than the given and the singular basis.
        """
        bases = self.candidate(self.given), self.candidate(singular)
        problem, settings = self.problem, self.settings
        if problem.is_one_matrix and problem.is_one_sided:
            found = self._one_matrix(bases[0])
        elif problem.is_two_sided:
            found = self._two_sided(*bases)
        elif self._counts_connections:
            found = self.descend(bases[1], settings.keeping)
        else:
            found = self.sweep(self.descend(bases[0], settings.forgetting))
        cheapest = _cheapest(found, *bases)
        return found if cheapest is found else self.settle(cheapest, settings.settling)

    def from_start(self, point: list[Matrix]) -> Candidate:
        """Search from a start of the user's, which is kept in sight.

        Parameters
        ----------
        point : list of ndarray
            The start.

        Returns
        -------
        Candidate
            What was found.
        """
        move = self.settle if self.problem.is_one_matrix else self.descend
        return self.sweep(move(self.candidate(point), self.settings.keeping))

    def from_random(self) -> Candidate:
        """Search from a random rotation.

        Returns
        -------
        Candidate
            What was found.
        """
        if self._is_thorough:
            return self.sweep(self._bounded())
        if self.problem.is_one_matrix:
            return self.sweep(self.cool(self._random(), is_patient=not self._is_large))
        return self.sweep(self.descend(self._random(), self.settings.forgetting))

    def descend(self, start: Candidate, smoothing: float) -> Candidate:
        """Search for a low minimum by Adam, and finish by conjugate gradient.

        Parameters
        ----------
        start : Candidate
            Where to start.
        smoothing : float
            ``ε`` at first: the larger, the less of the start is kept.

        Returns
        -------
        Candidate
            The better one of the start and the end.
        """
        problem, last = self.problem, self.settings.last_smoothing
        point = self._turned(start.point, self.settings.jitter)
        if problem.criterion.smoothed:
            point = warm_start(problem, point, (smoothing, last), self.rng, self.log)
        end = run_stages(problem, point, self.log, last)
        return _cheapest(start, self.candidate(end))

    def cool(self, start: Candidate, is_patient: bool) -> Candidate:
        """Search for a minimum of one matrix by conjugate gradient, at less and less smoothing.

        Parameters
        ----------
        start : Candidate
            Where to start.
        is_patient : bool
            Whether every stage ends by the last one's tolerance. Hidden axes come out in the
            second stage, one after the other, each of which lowers the cost a little.

        Returns
        -------
        Candidate
            The better one of the start and the end.
        """
        settings = self.settings
        point = self._turned(start.point, settings.jitter)
        smoothings = *settings.ladder[is_patient:], settings.last_smoothing
        coarseness = 1 if is_patient else settings.coarseness
        end = run_stages(self.problem, point, self.log, *smoothings, coarseness=coarseness)
        return _cheapest(start, self.candidate(end))

    def settle(self, start: Candidate, smoothing: float) -> Candidate:
        """Find the nearest minimum, by conjugate gradient at a smoothing and at the last.

        Parameters
        ----------
        start : Candidate
            Where to start.
        smoothing : float
            ``ε`` at first.

        Returns
        -------
        Candidate
            The better one of the start and the end.
        """
        smoothings = smoothing, self.settings.last_smoothing
        end = run_stages(self.problem, start.point, self.log, *smoothings)
        return _cheapest(start, self.candidate(end))

    def sweep(self, start: Candidate) -> Candidate:
        """Turn pairs of axes that a descent left mixed, and settle, while that lowers the cost.

        Only where one stack is one-sided: elsewhere a pair of axes has no cost of its own.

        Parameters
        ----------
        start : Candidate
            A minimum.

        Returns
        -------
        Candidate
            A minimum with axes less mixed, or the start.
        """
        problem, settings = self.problem, self.settings
        best = start
        n_axes = len(best.point[0])
        if not problem.is_one_sided or self._counts_connections or n_axes == 1:
            return best
        stack = problem.terms[0].jacobians
        few = problem.first(max(1, settings.sweep_rows // stack.shape[1])).terms[0].jacobians
        few = few.cast(precision(problem, self.log.tol))
        basis = problem.bases[0]
        for _ in range(settings.max_sweeps):
            if self.log.spent:
                break
            (Q,) = best.point
            with self.log.stage("plane sweep"):
                blocks = few.rotated(None, Q if basis is None else Q @ basis)
                rows = np.vstack([block.reshape(-1, n_axes) for block in blocks])
                turned, n_turned = plane_sweep(rows, Q, problem.criterion, settings)
                swept = self.candidate([turned]) if n_turned else best
                self.log.record(1, swept.cost, swept.point)
            # What pays on some samples only does not pay.
            if not swept.cost < best.cost:
                break
            previous, best = best, self.settle(swept, settings.settling)
            if not previous.cost - best.cost > settings.sweep_gain * abs(best.cost):
                break
        return best

    def _two_sided(self, given: Candidate, singular: Candidate) -> Candidate:
        """Search for both rotations, with the help of the input axes alone, the easier problem.

        Where the samples collapse, the input axes take no time and come first. Elsewhere they pay
        only where the outputs are sparse in the given axes, which the search for both shows.
        """
        settings = self.settings
        collapsed = self.problem.collapsed()
        if collapsed is not None:
            start = singular if self._counts_connections else given
            alone = Search(collapsed, self.log, self.rng, self.given[-1:])
            (Q,) = alone.cool(alone.candidate(start.point[-1:]), is_patient=False).point
            # With few steps Q is not there yet, and another basis may be better.
            start = _cheapest(self.candidate([self.given[0], Q]), given, singular)
            return self.descend(start, settings.loosening)
        if self._counts_connections:
            return self.descend(singular, settings.keeping)
        found = self.descend(given, settings.forgetting)
        P, Q = found.point
        is_near = np.median(np.abs(P).max(axis=1)) > settings.near_axis
        is_small = self.problem.n_entries <= settings.alone_entries
        if is_near and is_small and self.problem.criterion.smoothed:
            alone = Search(self.problem.inputs_alone(), self.log, self.rng, self.given[-1:])
            (Q,) = alone.sweep(alone.descend(alone.candidate([Q]), settings.keeping)).point
            other = self.descend(self.candidate([self.given[0], Q]), settings.keeping)
            found = _cheapest(found, other)
        return found

    def _one_matrix(self, given: Candidate) -> Candidate:
        """Search for the axes of one matrix, from several starts where that takes seconds.

        Bounded starts find hidden axes. A search from far away that comes back shows that there is
        one deep minimum. Where there are many, those that Adam finds are lower.
        """
        settings = self.settings
        if not self._is_thorough:
            return self.sweep(self.cool(given, is_patient=not self._is_large))
        best = self._bounded()
        start = self.candidate(self._turned(best.point, settings.far_angle))
        far = self.settle(start, settings.keeping)
        cosines = np.abs(far.point[0] @ best.point[0].T).max(axis=1)
        best = _cheapest(best, far)
        if np.median(cosines) < settings.same_axis and not self.log.spent:
            is_exhaustive = self._work <= settings.exhaustive_work
            if is_exhaustive:
                best = _cheapest(best, self._bounded(stochastic=True))
            best = _cheapest(best, self.descend(given, settings.forgetting))
            if is_exhaustive:
                best = self.descend(best, settings.forgetting)
        return self.sweep(best)

    def _bounded(self, stochastic: bool = False) -> Candidate:
        """Find the valley of a bounded criterion from a random rotation, and settle there."""
        start, widths = self._random(), self.settings.bounded_widths
        if self.problem.criterion.smoothed:
            bounded = replace(self.problem, criterion=Cauchy())
            if stochastic:
                ends = widths[0], widths[-1]
                point = warm_start(bounded, start.point, ends, self.rng, self.log)
            else:
                point = run_stages(bounded, start.point, self.log, *widths)
            start = self.candidate(point)
        return self.settle(start, self.settings.keeping)

    def _random(self) -> Candidate:
        return self.candidate([random_rotation(len(matrix), self.rng) for matrix in self.given])

    def _turned(self, point: list[Matrix], angle: float) -> list[Matrix]:
        """Turn every axis by about `angle` rad."""
        turned = []
        for matrix in point:
            size = len(matrix)
            draw = self.rng.normal(size=(size, size)) * (angle / np.sqrt(2 * size))
            turned.append(cayley(draw - draw.T, matrix))
        return turned

    @property
    def _counts_connections(self) -> bool:
        """Whether the criterion is one of the table, which its singular basis makes sparse."""
        return isinstance(self.problem.criterion, TableCriterion)

    @property
    def _work(self) -> float:
        """Multiplications of rotating all Jacobians."""
        return self.problem.n_entries * self.problem.terms[0].jacobians.shape[2]

    @property
    def _is_large(self) -> bool:
        """Whether a search takes more than seconds."""
        return self._work > self.settings.thorough_work

    @property
    def _is_thorough(self) -> bool:
        """Whether there is one matrix, and effort and size allow for several searches."""
        settings, log = self.settings, self.log
        has_effort = log.tol <= settings.thorough_tol and log.max_iter >= settings.thorough_iter
        return has_effort and self.problem.is_one_matrix and not self._is_large


def _cheapest(*candidates: Candidate) -> Candidate:
    return min(candidates, key=lambda candidate: candidate.cost)
