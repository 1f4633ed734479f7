"""One search: its threads, its randomness, who watches it, and what it reports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from jacrot._search.log import Log, Row, StopSearch
from jacrot._search.problem import Problem
from jacrot._search.settings import DEFAULT_SETTINGS, SearchSettings
from jacrot._search.strategy import Candidate, Search
from jacrot._utils.arrays import Matrix
from jacrot._utils.threads import one_blas_thread

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
    settings: SearchSettings = DEFAULT_SETTINGS,
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
        0 for the first search; later ones start from random rotations.
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
    settings : SearchSettings
        The constants of the search.

    Returns
    -------
    Solution
        What this search found.

    Raises
    ------
    KeyboardInterrupt
        If the search is interrupted, and is not to keep its best or has nothing yet.
    """
    rng = np.random.RandomState(seed)
    with ThreadPoolExecutor(n_threads) as pool, one_blas_thread():
        problem = replace(problem, apply=pool.map if n_threads > 1 else map, settings=settings)
        log = Log(max_iter, tol)
        search = Search(problem, log, rng, given)
        if watch is not None:
            log.begun, log.ended = watch.begin, lambda: watch.end(search)
            log.visited = lambda: watch.visit(search)
        best: Candidate | None
        ending: Ending
        try:
            if restart > 0:
                best = search.from_random()
            elif start is not None:
                best = search.from_start(start)
            else:
                best = search.automatic(singular)
            ending = "converged" if log.converged else "max_iter"
        except StopSearch:
            ending, best = "stopped", search.best()
        except KeyboardInterrupt:
            ending, best = "interrupted", search.best() if keep else None
            if best is None:
                raise
        assert best is not None, "a stage has ended, so there is a point"
        # Where conjugate gradient made no step, every row is one of the warm start.
        n_iter = log.n_iter or len(log.history)
        return Solution(best.point, best.cost, log.history, log.stages, n_iter, ending)


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
    cost, point = min(
        ((problem.exact_cost(point), point) for point in (given, start)), key=lambda pair: pair[0]
    )
    return Solution(point, cost, [], [], n_iter, "interrupted")
