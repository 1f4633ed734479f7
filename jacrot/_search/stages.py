"""Stages of pymanopt's conjugate gradient, from much to little smoothing.

Each stage minimises the cost at one smoothing ``ε``, from where the stage before ended: a large
``ε`` has few local minima, a small one is the criterion itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pymanopt
from numpy.typing import DTypeLike
from pymanopt.optimizers import ConjugateGradient

from jacrot._search.line_search import QuadraticLineSearcher
from jacrot._search.manifold import joined, parts, rotations
from jacrot._search.preconditioner import plane_preconditioner
from jacrot._search.problem import Problem
from jacrot._utils.arrays import Matrix

Row = tuple[int, int, int, float, float]


@dataclass(frozen=True)
class Stage:
    """A smoothing, how many samples it is minimised on, and how exactly.

    Parameters
    ----------
    smoothing : float
        ``ε``.
    n_samples : int or None, default=None
        The first so many samples, ``None`` for all.
    coarseness : float, default=1
        The tolerance is so many times that of the search.
    """

    smoothing: float
    n_samples: int | None = None
    coarseness: float = 1


CONTINUATION = (
    Stage(1.0, coarseness=10),
    Stage(0.2, coarseness=10),
    Stage(0.1, coarseness=10),
    Stage(0.03, coarseness=10),
    Stage(0.01),
)
# Out of a small matrix hidden axes come in the first two stages, after many steps that gain
# little, which are not to be cut short.
PATIENT_CONTINUATION = (Stage(0.5), Stage(0.15), Stage(0.1, coarseness=10), Stage(0.01))
# After a warm start there is nothing left to point out.
FINISH = (Stage(0.01),)
# After a plane sweep only the pairs that it turned have to settle.
SETTLING = (Stage(0.03, coarseness=10), Stage(0.01))
# At last the smoothing goes on to where it no longer blurs the axes.
SHARPENING = (Stage(0.003, coarseness=10), Stage(0.001))
PATIENT_SHARPENING = (
    Stage(0.01, coarseness=0.1),
    Stage(0.003, coarseness=0.3),
    Stage(0.001, coarseness=0.3),
)
# A criterion without smoothing: few samples point the way.
GROWTH = (Stage(0.0, 32, 10), Stage(0.0))

# One matrix costs so little that it is minimised to a tenth of the tolerance.
ONE_MATRIX_TOL_FACTOR = 0.1
# Below this, rounding in single precision would hide the decrease that is waited for.
SINGLE_PRECISION_TOL = 1e-5
# One matrix is worth single precision from this size on.
LARGE_MATRIX = 64
CURVATURE_SAMPLES = 32
# Samples of a stage on all: no more entries than these say anything new about a rotation.
MOST_ENTRIES, LEAST_SAMPLES = 2**24, 32
# No step turns the axes further than this, in rad (root mean square).
LARGEST_ANGLE = 0.5
# From an error of 1e-4, more than single precision ever leaves, to one below rounding.
NEWTON_SCHULZ_STEPS = 2


class StopSearch(Exception):
    """Somebody who watches the search has seen enough."""


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
        Where the search stands, orthogonal up to rounding; of a problem with the outputs fixed,
        the rotation of the inputs alone.
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
        """Give the last row, with the label of its stage."""
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


def descend(
    problem: Problem, point: list[Matrix], stages: tuple[Stage, ...], log: Log
) -> list[Matrix]:
    """Run stages one after the other, or what a criterion without smoothing needs of them.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    point : list of ndarray
        Where to start.
    stages : tuple of Stage
        The stages.
    log : Log
        The budget; is written to.

    Returns
    -------
    list of ndarray
        The point reached.
    """
    if not problem.criterion.smoothed:
        stages = GROWTH
    factor = ONE_MATRIX_TOL_FACTOR if problem.is_one_matrix else 1
    for stage in stages:
        tol = log.tol * factor * stage.coarseness
        if log.spent:
            break
        n_samples = stage.n_samples or max(LEAST_SAMPLES, MOST_ENTRIES // problem.n_entries_each)
        point = run_stage(problem.first(n_samples), point, stage.smoothing, tol, log)
    return point


def run_stage(
    problem: Problem, start: list[Matrix], smoothing: float, tol: float, log: Log
) -> list[Matrix]:
    """Run conjugate gradient at one smoothing until it converges or the budget is spent.

    Parameters
    ----------
    problem : Problem
        What is minimised, on the samples of the stage.
    start : list of ndarray
        Where to start.
    smoothing : float
        ``ε``.
    tol : float
        Mean relative decrease a step at which to stop.
    log : Log
        The budget; is written to.

    Returns
    -------
    list of ndarray
        The point reached, orthogonal in double precision.

    Raises
    ------
    ValueError
        If the criterion is not finite at the start.
    """
    if max(len(matrix) for matrix in start) == 1:
        return start
    manifold = rotations([len(matrix) for matrix in start])
    dtype = precision(problem, tol)
    start = [matrix.astype(dtype) for matrix in start]
    objective = problem.objective(smoothing, dtype)
    few = problem.first(CURVATURE_SAMPLES).objective(smoothing, dtype)
    if not np.isfinite(objective.cost(*start)):
        largest = np.sqrt(max(np.prod(term.jacobians.shape[1:]) for term in problem.terms))
        raise ValueError(
            "criterion is NaN or infinite on these Jacobians, whose entries are scaled to root "
            f"mean square 1; write a function that is finite up to {largest:.0f}."
        )

    @pymanopt.function.numpy(manifold)
    def cost(*point: Matrix) -> float:
        return objective.cost(*point)

    # `Rotations` takes the relative gradient for the Euclidean one.
    @pymanopt.function.numpy(manifold)
    def relative_gradient(*point: Matrix) -> Any:
        return joined(objective.gradients(*point))

    made_before = log.n_iter

    def record(cost: float, point: Any) -> None:
        # At every step, so that an interrupted search has counted those that it made.
        log.n_iter = made_before + searcher.n_steps
        log.record(objective.n_evaluations + few.n_evaluations, cost, parts(point))

    budget = log.max_iter - log.n_iter
    longest = LARGEST_ANGLE * float(np.sqrt(sum(len(matrix) for matrix in start)))
    searcher = QuadraticLineSearcher(tol, longest, record)
    optimizer = ConjugateGradient(
        beta_rule="HestenesStiefel",
        line_searcher=searcher,
        max_time=np.inf,
        # pymanopt counts the points, one more than the steps.
        max_iterations=budget + 1,
        max_cost_evaluations=np.inf,
        min_gradient_norm=0,
        min_step_size=1e-14,
        verbosity=0,
    )
    pymanopt_problem = pymanopt.Problem(
        manifold,
        cost,
        euclidean_gradient=relative_gradient,
        preconditioner=plane_preconditioner(few),
    )
    # A run ends on a step of 0, after which pymanopt divides 0 by 0 for the next direction.
    with log.stage(f"ε={smoothing:g}"), np.errstate(divide="ignore", invalid="ignore"):
        result = optimizer.run(pymanopt_problem, initial_point=joined(start))
        record(result.cost, result.point)
        log.converged = searcher.n_steps < budget
    return [orthonormal(matrix) for matrix in parts(result.point)]


def precision(problem: Problem, tol: float) -> DTypeLike:
    """Choose single precision, twice as fast, where it can see the decrease that is waited for."""
    small = problem.is_one_matrix and max(problem.terms[0].jacobians.shape) < LARGE_MATRIX
    return np.float64 if small or tol < SINGLE_PRECISION_TOL else np.float32


def orthonormal(matrix: Matrix) -> Matrix:
    """Find the nearest orthogonal matrix, in double precision, by Newton–Schulz steps.

    ``Q ← Q (3 I − QᵀQ)/2`` squares the error of each singular value.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Orthogonal up to rounding.

    Returns
    -------
    ndarray of shape (n, n)
        Orthogonal.

    References
    ----------
    N. J. Higham, "Functions of Matrices", SIAM (2008), equation 8.20.
    """
    matrix = matrix.astype(np.float64)
    for _ in range(NEWTON_SCHULZ_STEPS):
        matrix = 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)
    return matrix
