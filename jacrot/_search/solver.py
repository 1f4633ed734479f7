"""The search: which starts, by which of its pieces, for which problem."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from jacrot._search.manifold import cayley
from jacrot._search.plane_sweep import plane_sweep
from jacrot._search.problem import Problem
from jacrot._search.stages import (
    CONTINUATION,
    FINISH,
    GROWTH,
    LARGE_MATRIX,
    PATIENT_CONTINUATION,
    PATIENT_SHARPENING,
    SETTLING,
    SHARPENING,
    Log,
    Row,
    Stage,
    StopSearch,
    descend,
    orthonormal,
)
from jacrot._search.warm_start import warm_start
from jacrot._utils.arrays import Matrix
from jacrot._utils.random import random_rotation
from jacrot._utils.threads import one_blas_thread
from jacrot.criteria._minimised import Welsch

Random = np.random.RandomState

# Smoothing at first: enough to forget the start, to loosen it, or to keep it.
FORGETTING, LOOSENING, KEEPING = 1.0, 0.2, 0.1
BOUNDED = np.inf
# With what the searches after the first begin, in turn.
RESTARTS = (BOUNDED, BOUNDED, FORGETTING, BOUNDED)

# |cos| between an axis and the nearest of the given ones that counts as near.
NEAR_AXIS = 0.6
# Two more searches, which that leads to, are worth their time up to so many entries.
ALONE_ENTRIES = 2**25
MAX_SWEEPS = 3
# A sweep that gained less than this share of the cost is the last.
SWEEP_GAIN = 1e-3
SWEEP_ROWS = 4096
# Angle in rad by which the given basis, which may be a saddle point, is turned at the start.
JITTER = 1e-2
# Multiplications of rotating one matrix up to which it is searched with patience. The hops may
# take no more in all.
PATIENT_WORK = 2**25
# Hops of a search on one matrix, none with a tolerance far above this.
HOPS = ("far", "bounded", "warm", "bounded", "warm")
HOP_TOL = 1e-4
# They turn every axis by about this angle in rad: far is nearly anywhere, whence the search has
# come back if the median axis is found again with this |cos|.
FAR, NEAR = 1.3, 0.3
BACK = 0.995


# How a search came to its end.
Ending = Literal["converged", "max_iter", "stopped", "interrupted", "killed"]


@dataclass(frozen=True)
class Solution:
    """A point, its exact cost, and how the search came there; see :class:`Log`."""

    point: list[Matrix]
    cost: float
    history: list[Row]
    stages: list[str]
    n_iter: int
    ending: Ending

    @property
    def converged(self) -> bool:
        """Whether the search ended by itself."""
        return self.ending == "converged"


class Search:
    """One search, within a budget.

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

    def __init__(self, problem: Problem, log: Log, rng: Random, given: list[Matrix]) -> None:
        self.problem = problem
        self.log = log
        self.rng = rng
        self.given = given
        self._cheapest: tuple[float, list[Matrix]] | None = None
        # What the end of the search must not cost more than. The cheapest may have been priced for
        # a watch, and a search does not depend on who follows it.
        self._candidates: list[tuple[float, list[Matrix]]] = []

    @property
    def point(self) -> list[Matrix] | None:
        """Where the search stands, ``None`` before its first point."""
        if self.log.point is None:
            return None
        # A problem with the outputs fixed leaves them in the given basis.
        fixed = self.given[: len(self.given) - len(self.log.point)]
        return [*fixed, *map(orthonormal, self.log.point)]

    def best(self) -> Solution | None:
        """Return the best point so far, priced before or where the search stands."""
        point = self.point
        if point is not None:
            self._priced(point)
        return None if self._cheapest is None else self._solution(self._cheapest)

    def automatic(self, singular: list[Matrix]) -> Solution:
        """Search from the starts that a problem offers by itself.

        One matrix, and any stack that does not collapse, is searched from the given basis, but for
        few connections from the singular one: that is near, and found again more surely. Where
        the samples collapse but ``P`` is free, ``Q`` alone is solved first, and the search starts
        from that, from the given basis or from the singular one, whichever costs least. Where
        ``P`` stays near the given axes, ``Q`` is solved alone as well. The result is never worse
        than the given and the singular basis.
        """
        problem, given = self.problem, self.given
        self._candidates += [self._priced(given), self._priced(singular)]
        start, smoothing = singular, KEEPING
        if not problem.criterion.of_table:
            start = [cayley(_turns(len(matrix), JITTER, self.rng), matrix) for matrix in given]
            smoothing = FORGETTING
        collapsed = problem.collapsed() if problem.is_two_sided else None
        if collapsed is not None:
            one_sided = self._descended(collapsed, start[-1:], FORGETTING)
            self._candidates.append(self._priced([given[0], *one_sided]))
            _, best = min(self._candidates, key=_price)
            point = self._finished(problem, self._descended(problem, best, LOOSENING))
        else:
            point = self._descended(problem, start, smoothing)
            small = problem.is_two_sided and problem.n_entries <= ALONE_ENTRIES
            if small and np.median(np.abs(point[0]).max(axis=1)) > NEAR_AXIS:
                # The outputs are sparse in their own axes: then Q alone is the easier problem.
                alone = problem.inputs_alone()
                one_sided = self._finished(alone, self._descended(alone, point[1:], KEEPING))
                loosened = self._descended(problem, [given[0], *one_sided], KEEPING)
                self._candidates.append(self._priced(loosened))
            elif problem.is_one_matrix and problem.is_one_sided:
                point = self._hopped(point)
            point = self._finished(problem, point)
        return self._ended(point)

    def started(self, start: list[Matrix], smoothing: float) -> Solution:
        """Search from another start, with that much smoothing at first."""
        return self._ended(self._finished(self.problem, self._begun(start, smoothing)))

    def _ended(self, point: list[Matrix]) -> Solution:
        """Take where the search ended, or settle where it cost less."""
        found = self._priced(point)
        cheapest = min([found, *self._candidates], key=_price)
        if cheapest is not found:
            settled = descend(self.problem, cheapest[1], SETTLING, self.log)
            cheapest = min([cheapest, self._priced(settled)], key=_price)
        return self._solution(cheapest)

    def _begun(self, start: list[Matrix], smoothing: float) -> list[Matrix]:
        """Go from a start of any kind to a minimum of the problem.

        ``BOUNDED`` stands for a run with a bounded criterion, whose result is then kept.
        """
        if smoothing == BOUNDED:
            smoothing = KEEPING
            if self.problem.is_one_matrix:
                start = self._bounded(start)
        return self._descended(self.problem, start, smoothing)

    def _descended(self, problem: Problem, start: list[Matrix], smoothing: float) -> list[Matrix]:
        """Go from a start to a minimum: a stack by a warm start, one matrix by all stages."""
        if problem.criterion.smoothed and not problem.is_one_matrix:
            start = warm_start(problem, start, smoothing, self.rng, self.log)
            if problem is self.problem:
                self._candidates.append(self._priced(start))
            return descend(problem, start, FINISH, self.log)
        continuation = PATIENT_CONTINUATION if _is_small(problem) else CONTINUATION
        stages = tuple(stage for stage in continuation if stage.smoothing <= smoothing)
        return descend(problem, start, stages, self.log)

    def _finished(self, problem: Problem, point: list[Matrix]) -> list[Matrix]:
        """Sweep the planes of a one-sided problem, and sharpen the axes."""
        # The sweep turns pairs by the cost of their entries, which a table does not have.
        has_planes = len(point[0]) > 1
        if problem.is_one_sided and has_planes and not problem.criterion.of_table:
            point = self._swept(problem, point)
        if not problem.criterion.smoothed:
            return point
        stages = PATIENT_SHARPENING if _is_small(problem) else SHARPENING
        return descend(problem, point, stages, self.log)

    def _bounded(self, start: list[Matrix]) -> list[Matrix]:
        """Go to the valley of a bounded criterion: there lie sparse axes that are hard to find."""
        if not self.problem.criterion.smoothed:
            return start
        point = descend(replace(self.problem, criterion=Welsch()), start, GROWTH, self.log)
        # What is found in its valley is found slowly: the first stage is not to be cut short.
        return descend(self.problem, point, (Stage(KEEPING),), self.log)

    def _hopped(self, point: list[Matrix]) -> list[Matrix]:
        """Hop from a minimum of one matrix to lower ones, as far as that takes seconds.

        First from nearly anywhere: what comes back from there is the one deep minimum, and the
        search is over. Warm starts from near the best so far find lower minima of a trained layer,
        bounded ones hidden axes.
        """
        effort = len(HOPS) * HOP_TOL / max(self.log.tol, HOP_TOL)
        n_hops = int(min(effort, PATIENT_WORK / _work(self.problem)))
        price, best = self._priced(point)
        for hop in HOPS[:n_hops]:
            if self.log.spent:
                break
            other_price, other = self._priced(self._hop(hop, best[0]))
            back = hop == "far" and np.median(np.abs(other[0] @ best[0].T).max(axis=1)) > BACK
            if other_price < price:
                price, best = other_price, other
            if back:
                break
        return best

    def _hop(self, kind: str, axes: Matrix) -> list[Matrix]:
        if kind == "bounded":
            return self._begun([random_rotation(len(axes), self.rng)], BOUNDED)
        angle = FAR if kind == "far" else NEAR
        start = [cayley(_turns(len(axes), angle, self.rng), axes)]
        if kind == "warm" and self.problem.criterion.smoothed:
            start = warm_start(self.problem, start, FORGETTING, self.rng, self.log)
            return descend(self.problem, start, FINISH, self.log)
        return self._begun(start, KEEPING)

    def _swept(self, problem: Problem, point: list[Matrix]) -> list[Matrix]:
        """Sweep planes and settle, while that lowers the exact cost."""
        cost = problem.exact_cost(point)
        stack = problem.terms[0].jacobians
        few = problem.first(max(1, SWEEP_ROWS // stack.shape[1])).terms[0].jacobians
        few = few.cast(np.float32 if stack.shape[2] >= LARGE_MATRIX else np.float64)
        basis = problem.bases[0]
        for _ in range(MAX_SWEEPS):
            if self.log.spent:
                break
            with self.log.stage("plane sweep"):
                axes = point[0] if basis is None else point[0] @ basis
                blocks = few.rotated(None, axes)
                rows = np.vstack([block.reshape(-1, len(axes)) for block in blocks])
                turned, n_turned = plane_sweep(rows, point[0], problem.criterion)
                swept = problem.exact_cost([turned]) if n_turned else cost
                self.log.record(1, swept, [turned])
            # What pays on some samples only does not pay.
            if not swept < cost:
                break
            candidate = descend(problem, [turned], SETTLING, self.log)
            gain = cost - problem.exact_cost(candidate)
            if gain > 0:
                point, cost = candidate, cost - gain
            if not gain > SWEEP_GAIN * abs(cost):
                break
        return point

    def _priced(self, point: list[Matrix]) -> tuple[float, list[Matrix]]:
        """Put its exact cost, a pass over all samples, before a point."""
        priced = self.problem.exact_cost(point), point
        self._cheapest = min(filter(None, [self._cheapest, priced]), key=_price)
        return priced

    def _solution(self, priced: tuple[float, list[Matrix]]) -> Solution:
        cost, point = priced
        log = self.log
        ending: Ending = "converged" if log.converged else "max_iter"
        return Solution(point, cost, log.history, log.stages, log.n_iter, ending)


class Watch(Protocol):
    """Receives the events of a search."""

    def begin(self, label: str) -> None:
        """Receive that a stage begins."""

    def visit(self, search: Search) -> None:
        """Receive that a point was visited."""

    def end(self, search: Search) -> bool:
        """Receive that a stage has ended; return whether the search is to end."""


def solve(
    problem: Problem,
    given: list[Matrix],
    singular: list[Matrix],
    start: list[Matrix] | None,
    restart: int,
    seed: int,
    *,
    max_iter: int,
    tol: float,
    n_threads: int = 1,
    keep: bool = False,
    watch: Watch | None = None,
) -> Solution:
    """Run one search of several.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    given, singular : list of ndarray
        The points of the given and of the singular basis.
    start : list of ndarray or None
        Where the first search starts, ``None`` to choose.
    restart : int
        0 for the first search; later ones start from random rotations, and begin in turn with a
        bounded criterion, with much and with little smoothing.
    seed : int
        Seed of this search's randomness.
    max_iter : int
        Conjugate-gradient steps over all stages, and steps of each warm start.
    tol : float
        Mean relative decrease a step at which the last stage stops.
    n_threads : int
        Threads that share the samples.
    keep : bool
        Whether an interrupted search gives the best it has.
    watch : Watch
        Is told of the stages.

    Returns
    -------
    Solution
        What this search found.

    Raises
    ------
    KeyboardInterrupt
        If the search is interrupted, and is not to keep its best or has nothing yet.
    """
    rng = Random(seed)
    with ThreadPoolExecutor(n_threads) as pool, one_blas_thread():
        problem = replace(problem, apply=pool.map if n_threads > 1 else map)
        log = Log(max_iter, tol)
        search = Search(problem, log, rng, given)
        if watch is not None:
            log.begun, log.ended = watch.begin, lambda: watch.end(search)
            log.visited = lambda: watch.visit(search)
        ending: Ending
        try:
            if restart > 0:
                random = [random_rotation(len(matrix), rng) for matrix in given]
                return search.started(random, RESTARTS[(restart - 1) % len(RESTARTS)])
            if start is not None:
                return search.started(start, KEEPING)
            return search.automatic(singular)
        except StopSearch:
            ending, best = "stopped", search.best()
        except KeyboardInterrupt:
            ending, best = "interrupted", search.best() if keep else None
            if best is None:
                raise
        assert best is not None, "a stage has ended, so there is a point"
        # Of a search that was ended in its warm start, every row is a step of that.
        return replace(best, ending=ending, n_iter=log.n_iter or len(log.history))


def cheapest(problem: Problem, given: list[Matrix], start: list[Matrix], n_iter: int) -> Solution:
    """Choose between two points where the search between them was interrupted.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    given, start : list of ndarray
        The points.
    n_iter : int
        The steps that led to the second.

    Returns
    -------
    Solution
        The cheaper one.
    """
    cost, point = min(((problem.exact_cost(point), point) for point in (given, start)), key=_price)
    return Solution(point, cost, [], [], n_iter, "interrupted")


def _work(problem: Problem) -> float:
    """Count the multiplications of rotating one matrix."""
    return problem.n_entries * problem.terms[0].jacobians.shape[2]


def _is_small(problem: Problem) -> bool:
    """Tell whether a problem is one matrix that can be searched with patience."""
    return problem.is_one_matrix and _work(problem) <= PATIENT_WORK


def _price(priced: tuple[float, list[Matrix]]) -> float:
    return priced[0]


def _turns(size: int, angle: float, rng: Random) -> Matrix:
    """Draw turns of about `angle` rad for each axis."""
    draw = rng.normal(size=(size, size)) * (angle / np.sqrt(2 * size))
    return np.asarray(draw - draw.T)
