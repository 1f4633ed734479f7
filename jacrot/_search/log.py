"""What a search has done so far, and may still do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jacrot._utils.arrays import Matrix

Row = tuple[int, int, int, float, float]


class StopSearch(Exception):
    """Raised where a watch asks to end the search."""


@dataclass
class Log:
    """What a search has done so far, and may still do.

    Parameters
    ----------
    max_iter : int
        Conjugate-gradient steps over all stages.
    tol : float
        Mean relative decrease a step at which the last stage stops.
    begun : callable
        Called with a label when a stage begins.
    ended : callable
        Called when a stage has ended; true to end the search.
    visited : callable
        Called after every row of the history.

    Attributes
    ----------
    history : list of tuple
        A row for every point visited: stage, iteration in the stage, passes over the samples of
        the stages so far, cost (at the smoothing and on the samples of the stage), seconds so far.
    stages : list of str
        The labels of the stages so far.
    point : list of ndarray or None
        Where the search stands, orthogonal up to rounding. In a problem with the outputs fixed it
        is the rotation of the inputs alone.
    n_iter : int
        Conjugate-gradient steps so far.
    converged : bool
        Whether the last stage ended by itself.
    """

    max_iter: int
    tol: float
    begun: Callable[[str], None] = lambda label: None
    ended: Callable[[], bool] = lambda: False
    visited: Callable[[], None] = lambda: None
    history: list[Row] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    point: list[Matrix] | None = None
    n_iter: int = 0
    converged: bool = True
    _length: int | None = None
    _n_rows: int = 0
    _n_evaluations: int = 0
    _begin: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> bool:
        """Whether the budget is spent."""
        return self.n_iter >= self.max_iter

    @property
    def step(self) -> str:
        """The step of the stage, for display: of how many, where that is known."""
        number = str(self.history[-1][1] + 1)
        return number if self._length is None else f"{number} of {self._length}"

    @contextmanager
    def stage(self, label: str, n_steps: int | None = None) -> Iterator[None]:
        """Record a stage, of so many steps if that is known."""
        self._length = n_steps
        self.begun(label)
        self.stages.append(label)
        self._n_rows = len(self.history)
        self._n_evaluations = self.history[-1][2] if self.history else 0
        yield
        if self.ended():
            raise StopSearch

    def last(self) -> dict[str, str | int | float]:
        """Return the last row, with the label of its stage."""
        _, *row = self.history[-1]
        names = ("iteration", "evaluations", "cost", "seconds")
        return {"stage": self.stages[-1], **dict(zip(names, row, strict=True))}

    def record(self, n_evaluations: int, cost: float, point: list[Matrix]) -> None:
        """Add a row for a point, after that many passes of the stage."""
        self.point = point
        iteration = len(self.history) - self._n_rows
        seconds = time.perf_counter() - self._begin
        passes = self._n_evaluations + n_evaluations
        self.history.append((len(self.stages) - 1, iteration, passes, cost, seconds))
        self.visited()
