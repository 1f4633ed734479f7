"""The search: stages of pymanopt's conjugate gradient from one or several starts.

Each stage minimises the cost at one smoothing ``ε`` on some of the samples, from where the stage
before ended: a large ``ε`` has few local minima, a small one is the criterion itself, and few
samples are enough to point the way. Where there are many samples, a stochastic warm start takes
the place of all stages but the last two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pymanopt
from numpy.typing import DTypeLike
from pymanopt.manifolds import Product, Stiefel
from pymanopt.optimizers import ConjugateGradient
from threadpoolctl import threadpool_limits

from jacrot._arrays import Matrix
from jacrot._random import random_rotation
from jacrot.criteria import Criterion, Welsch
from jacrot.jacobians import Indices, Jacobians
from jacrot.line_search import QuadraticLineSearcher
from jacrot.objective import Objective, OutputMode
from jacrot.plane_sweep import plane_sweep
from jacrot.preconditioner import plane_preconditioner
from jacrot.warm_start import warm_start

Random = np.random.RandomState
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A smoothing, and how many samples it is minimised on (``None`` for all)."""

    smoothing: float
    n_samples: int | None


CONTINUATION = (
    Stage(1.0, 16),
    Stage(0.3, 16),
    Stage(0.1, 32),
    Stage(0.03, 64),
    Stage(0.01, None),
)
# Smoothing at first: enough to forget the start, to loosen it, or to keep it.
FORGETTING, LOOSENING, KEEPING = 1.0, 0.3, 0.1
BOUNDED = np.inf
# With what the searches after the first begin, in turn.
RESTARTS = (BOUNDED, FORGETTING, BOUNDED, KEEPING)
# After a warm start there is nothing left to point out.
FINISH = (Stage(0.02, None), Stage(0.01, None))
# After a plane sweep only the pairs that it turned have to settle.
SETTLING = (Stage(0.03, None), Stage(0.01, None))
# A criterion without smoothing: only the samples grow.
GROWTH = (Stage(0.0, 32), Stage(0.0, None))

# |cos| between an axis and the nearest of the given ones that counts as near.
NEAR_AXIS = 0.6
# A warm start pays where there are this many samples, and entries in all of them.
WARM_SAMPLES = 64
WARM_ENTRIES = 2**18
# The stages before the last need not be more exact than this.
COARSE_TOL = 1e-4
# One matrix costs so little that it is minimised to a tenth of the tolerance.
ONE_MATRIX_TOL_FACTOR = 0.1
# Below this, rounding in single precision would hide the decrease that is waited for.
SINGLE_PRECISION_TOL = 1e-5
CURVATURE_SAMPLES = 32
MAX_SWEEPS = 3
# A sweep that gained less than this share of the cost is the last.
SWEEP_GAIN = 1e-3
# One matrix of this size is worth the threads of BLAS.
BLAS_THREADS_FROM = 256
SWEEP_ROWS = 4096
# Angle in rad by which the given basis, which may be a saddle point, is turned at the start.
JITTER = 1e-2


@dataclass(frozen=True)
class Problem:
    """What is minimised: a criterion over a stack of Jacobians, and what may turn.

    Parameters
    ----------
    jacobians : Jacobians
        The samples to search on, scaled to root mean square 1, in random order.
    criterion : Criterion
        ``φ``.
    output : {"fixed", "free", "tied"}
        What the output rotation is.
    output_basis, input_basis : ndarray of shape (n_axes, n_features) or None
        Orthonormal rows inside which ``P`` and ``Q`` rotate, ``None`` for the whole space.
    n_threads : int
        Threads that share the samples.
    """

    jacobians: Jacobians
    criterion: Criterion
    output: OutputMode
    output_basis: Matrix | None = None
    input_basis: Matrix | None = None
    n_threads: int = 1

    @property
    def is_one_matrix(self) -> bool:
        """Whether there is one sample only, as after a collapse."""
        return self.jacobians.shape[0] == 1

    def first(self, n_samples: int | None) -> Problem:
        """Take the first samples, ``None`` for all."""
        if n_samples is None or n_samples >= self.jacobians.shape[0]:
            return self
        return replace(self, jacobians=self.jacobians.subset(np.arange(n_samples)))

    def collapsed(self) -> Problem | None:
        """Make the problem of ``Q`` alone with all samples in one matrix, where that is exact."""
        if self.criterion.degree is None:
            return None
        collapsed = self.jacobians.collapsed(self.criterion.degree)
        if collapsed is None:
            return None
        basis = self.input_basis
        _, norm = collapsed.norms(None, basis)
        n_inputs = collapsed.shape[2] if basis is None else len(basis)
        scaled = collapsed.scaled(np.sqrt(collapsed.shape[1] * n_inputs) / norm)
        return Problem(scaled, self.criterion, "fixed", input_basis=self.input_basis)

    def objective(self, smoothing: float, dtype: DTypeLike) -> Objective:
        """Make the oracle at one smoothing."""
        return Objective(
            self.jacobians.cast(dtype),
            self.criterion,
            smoothing,
            self.output,
            self.output_basis,
            self.input_basis,
            self.n_threads,
        )

    def minibatch(self, samples: Indices, smoothing: float) -> Objective:
        """Make the oracle on some samples, in single precision."""
        part = replace(self, jacobians=self.jacobians.subset(samples))
        return part.objective(smoothing, np.float32)

    def exact_cost(self, point: list[Matrix]) -> float:
        """Compute the cost of a point without smoothing, in double precision."""
        return self.objective(0.0, np.float64).cost(*point)


@dataclass(frozen=True)
class Solution:
    """A point, its exact cost, and how the search came there.

    ``history`` has a row for every point visited: stage, iteration in the stage, passes over the
    samples so far, cost (at the smoothing and on the samples of the stage), seconds so far.
    """

    point: list[Matrix]
    cost: float
    history: list[tuple[int, int, int, float, float]]
    n_iter: int
    converged: bool


class Search:
    """One search, within a budget of iterations.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    max_iter : int
        Conjugate-gradient steps over all stages.
    tol : float
        Mean relative decrease a step at which the last stage stops.
    progress : callable
        Called with a label at every stage.
    """

    def __init__(self, problem: Problem, max_iter: int, tol: float, progress: Progress) -> None:
        self.problem = problem
        self.max_iter = max_iter
        self.tol = tol
        self.progress = progress
        self._begin = time.perf_counter()
        self._history: list[tuple[int, int, int, float, float]] = []
        self._n_iter = 0
        self._n_stages = 0
        self._n_evaluations = 0
        self._converged = True

    def automatic(self, given: list[Matrix], singular: list[Matrix], rng: Random) -> Solution:
        """Search from the starts that a problem offers by itself.

        Where the samples collapse, ``Q`` alone is cheap to solve; a free ``P`` then starts from
        that, from the given basis or from the singular one, whichever costs least. Elsewhere the
        search starts from the given basis, and where ``P`` stays near it, ``Q`` is solved alone
        as well. The result is never worse than the given and the singular basis.
        """
        problem = self.problem
        start = [_orthonormal(matrix + _skew(len(matrix), rng) @ matrix) for matrix in given]
        candidates = [self._priced(given), self._priced(singular)]
        collapsed = problem.collapsed() if problem.output == "free" else None
        if collapsed is None:
            point = self._descended(problem, start, FORGETTING, rng)
            if problem.output == "free" and np.median(np.abs(point[0]).max(axis=1)) > NEAR_AXIS:
                # The outputs are sparse in their own axes: then Q alone is the easier problem.
                alone = replace(problem, output="fixed", output_basis=None)
                one_sided = self._descended(alone, point[1:], KEEPING, rng)
                loosened = self._descended(problem, [given[0], *one_sided], KEEPING, rng)
                candidates.append(self._priced(loosened))
        else:
            one_sided = self._descended(collapsed, start[-1:], FORGETTING, rng)
            candidates.append(self._priced([given[0], *one_sided]))
            _, best = min(candidates, key=_price)
            point = self._descended(problem, best, LOOSENING, rng)
        found = self._priced(point)
        cheapest = min([found, *candidates], key=_price)
        if cheapest is not found:
            settled = self._run(problem, cheapest[1], SETTLING)
            cheapest = min([cheapest, self._priced(settled)], key=_price)
        return self._solution(cheapest)

    def started(self, start: list[Matrix], smoothing: float, rng: Random) -> Solution:
        """Search from another start, with that much smoothing at first.

        ``BOUNDED`` stands for a run with a bounded criterion, whose result is then kept.
        """
        if smoothing == BOUNDED:
            smoothing = KEEPING
            if self.problem.criterion.smoothed and self.problem.is_one_matrix:
                start = self._run(replace(self.problem, criterion=Welsch()), start, GROWTH)
        point = self._descended(self.problem, start, smoothing, rng)
        return self._solution(self._priced(point))

    def _descended(
        self, problem: Problem, start: list[Matrix], smoothing: float, rng: Random
    ) -> list[Matrix]:
        """Go from a start to a minimum: many samples by a warm start, few by all stages."""
        n_samples = problem.jacobians.shape[0]
        large = np.prod(problem.jacobians.shape, dtype=float) >= WARM_ENTRIES
        if problem.criterion.smoothed and n_samples >= WARM_SAMPLES and large:
            self.progress("warm start")
            start = warm_start(problem.minibatch, n_samples, start, smoothing, rng)
            return self._swept(problem, self._run(problem, start, FINISH))
        stages = tuple(stage for stage in CONTINUATION if stage.smoothing <= smoothing)
        return self._swept(problem, self._run(problem, start, stages))

    def _priced(self, point: list[Matrix]) -> tuple[float, list[Matrix]]:
        """Put its exact cost, a pass over all samples, before a point."""
        return self.problem.exact_cost(point), point

    def _solution(self, priced: tuple[float, list[Matrix]]) -> Solution:
        cost, point = priced
        return Solution(point, cost, self._history, self._n_iter, self._converged)

    def _largest(self) -> float:
        """Size of the only entry of a matrix of root mean square 1 that has no other."""
        return float(np.sqrt(np.prod(self.problem.jacobians.shape[1:])))

    def _swept(self, problem: Problem, point: list[Matrix]) -> list[Matrix]:
        """Sweep all planes and settle, while that lowers the exact cost of a one-sided problem."""
        if problem.output != "fixed":
            return point
        cost = problem.exact_cost(point)
        few = problem.first(max(1, SWEEP_ROWS // problem.jacobians.shape[1]))
        for _ in range(MAX_SWEEPS):
            self.progress("plane sweep")
            basis = few.input_basis
            axes = point[0] if basis is None else point[0] @ basis
            blocks = few.jacobians.rotated(None, axes)
            rows = np.vstack([block.reshape(-1, len(axes)) for block in blocks])
            turned, n_turned = plane_sweep(rows, point[0], problem.criterion)
            # What pays on some samples only does not pay.
            if n_turned == 0 or not problem.exact_cost([turned]) < cost:
                break
            candidate = self._run(problem, [turned], SETTLING)
            gain = cost - problem.exact_cost(candidate)
            if gain > 0:
                point, cost = candidate, cost - gain
            if not gain > SWEEP_GAIN * abs(cost):
                break
        return point

    def _run(
        self, problem: Problem, point: list[Matrix], stages: tuple[Stage, ...]
    ) -> list[Matrix]:
        """Run stages one after the other, or what a criterion without smoothing needs of them."""
        if not problem.criterion.smoothed:
            stages = GROWTH
        factor = ONE_MATRIX_TOL_FACTOR if problem.is_one_matrix else 1
        for stage in stages:
            self.progress(f"ε={stage.smoothing:g}")
            tol = self.tol if stage is stages[-1] else max(self.tol, COARSE_TOL)
            point, self._converged = self._stage(
                problem.first(stage.n_samples), point, stage.smoothing, tol * factor
            )
            if not self._converged:
                break
        return point

    def _stage(
        self, problem: Problem, start: list[Matrix], smoothing: float, tol: float
    ) -> tuple[list[Matrix], bool]:
        """Run conjugate gradient at one smoothing until it converges or the budget is spent."""
        sizes = [len(matrix) for matrix in start]
        if max(sizes) == 1:
            return start, True
        factors = [Stiefel(size, size) for size in sizes]
        manifold = Product(factors) if len(factors) > 1 else factors[0]
        # A stack is worked through twice as fast in single precision.
        single = not problem.is_one_matrix and tol >= SINGLE_PRECISION_TOL
        dtype = np.float32 if single else np.float64
        objective = problem.objective(smoothing, dtype)
        few = problem.first(CURVATURE_SAMPLES).objective(smoothing, dtype)
        first_row = len(self._history)
        if not np.isfinite(objective.cost(*start)):
            raise ValueError(
                "criterion is NaN or infinite on these Jacobians, whose entries are scaled to root "
                f"mean square 1; write a function that is finite up to {self._largest():.0f}."
            )

        def record(cost: float) -> None:
            n_passes = self._n_evaluations + objective.n_evaluations + few.n_evaluations
            seconds = time.perf_counter() - self._begin
            iteration = len(self._history) - first_row
            self._history.append((self._n_stages, iteration, n_passes, cost, seconds))

        @pymanopt.function.numpy(manifold)
        def cost(*point: Matrix) -> float:
            return objective.cost(*point)

        @pymanopt.function.numpy(manifold)
        def euclidean_gradient(*point: Matrix) -> Any:
            gradients = objective.gradients(*point)
            return gradients if len(gradients) > 1 else gradients[0]

        budget = self.max_iter - self._n_iter
        searcher = QuadraticLineSearcher(tol, record)
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
            euclidean_gradient=euclidean_gradient,
            preconditioner=plane_preconditioner(few),
        )
        # A run ends on a step of 0, after which pymanopt divides 0 by 0 for the next direction.
        with np.errstate(divide="ignore", invalid="ignore"):
            result = optimizer.run(
                pymanopt_problem, initial_point=start if len(start) > 1 else start[0]
            )
        record(result.cost)
        self._n_iter += searcher.n_steps
        self._n_stages += 1
        self._n_evaluations += objective.n_evaluations + few.n_evaluations
        point = list(result.point) if len(start) > 1 else [result.point]
        return [_orthonormal(matrix) for matrix in point], searcher.n_steps < budget


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
    progress: Progress = lambda label: None,
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
        Conjugate-gradient steps over all stages.
    tol : float
        Mean relative decrease a step at which the last stage stops.
    progress : callable
        Called with a label at every stage.

    Returns
    -------
    Solution
        What this search found.
    """
    rng = Random(seed)
    search = Search(problem, max_iter, tol, progress)
    # Threads share the samples; threads of BLAS inside theirs, or for small matrices, would wait
    # for one another, and for ever longer on a machine that has other work.
    large = problem.is_one_matrix and max(problem.jacobians.shape) >= BLAS_THREADS_FROM
    with threadpool_limits(None if large else 1, user_api="blas"):
        if restart > 0:
            start = [random_rotation(len(matrix), rng) for matrix in given]
            return search.started(start, RESTARTS[(restart - 1) % len(RESTARTS)], rng)
        if start is not None:
            return search.started(start, KEEPING, rng)
        return search.automatic(given, singular, rng)


def _price(priced: tuple[float, list[Matrix]]) -> float:
    return priced[0]


def _skew(size: int, rng: Random) -> Matrix:
    """Draw small turns, of about ``JITTER`` rad for each axis."""
    draw = rng.normal(size=(size, size)) * (JITTER / np.sqrt(size))
    return np.asarray(draw - draw.T)


def _orthonormal(matrix: Matrix) -> Matrix:
    """Find the nearest orthogonal matrix."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)
