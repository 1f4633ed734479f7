"""Stages of pymanopt's conjugate gradient, from much to little smoothing.

Each stage minimises the cost at one smoothing ``ε``, from where the stage before ended: a large
``ε`` has few local minima, a small one is the criterion itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pymanopt
from numpy.typing import DTypeLike
from pymanopt.optimizers import ConjugateGradient

from jacrot._search.line_search import QuadraticLineSearcher
from jacrot._search.log import Log
from jacrot._search.manifold import joined, parts, rotations
from jacrot._search.objective import Evaluation
from jacrot._search.preconditioner import plane_preconditioner
from jacrot._search.problem import Problem
from jacrot._utils.arrays import Matrix

# From an error of 1e-4, more than single precision ever leaves, to one below rounding.
NEWTON_SCHULZ_STEPS = 2


def run_stages(
    problem: Problem, point: list[Matrix], log: Log, *smoothings: float, coarseness: float = 1
) -> list[Matrix]:
    """Run conjugate gradient at one smoothing after the other, until the budget is spent.

    A criterion without smoothing has two stages in their place: on few samples, and on all.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    point : list of ndarray
        Where to start.
    log : Log
        The budget; is written to.
    *smoothings : float
        ``ε`` of the stages.
    coarseness : float, default=1
        Factor of the tolerance of all stages but the last.

    Returns
    -------
    list of ndarray
        The point reached, orthogonal in double precision.
    """
    settings = problem.settings
    tol = log.tol * (settings.one_matrix_tol if problem.is_one_matrix else 1)
    n_samples = max(settings.min_stage_samples, settings.stage_entries // problem.n_entries_each)
    stages = [(smoothing, n_samples, coarseness * tol) for smoothing in smoothings[:-1]]
    last = smoothings[-1]
    if not problem.criterion.smoothed:
        stages, last = [(0.0, settings.first_samples, settings.coarseness * tol)], 0.0
    for smoothing, n_samples_of_stage, tol_of_stage in [*stages, (last, n_samples, tol)]:
        if log.spent:
            break
        point = run_stage(problem.first(n_samples_of_stage), point, smoothing, tol_of_stage, log)
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
    settings = problem.settings
    few = problem.first(settings.first_samples).objective(smoothing, dtype)
    here = objective.at(*start)
    if not np.isfinite(here.cost):
        largest = np.sqrt(max(np.prod(term.jacobians.shape[1:]) for term in problem.terms))
        raise ValueError(
            "criterion is NaN or infinite on these Jacobians, whose entries are scaled to root "
            f"mean square 1; pass a function that is finite up to {largest:.0f}."
        )

    def at(point: tuple[Matrix, ...]) -> Evaluation:
        """Evaluate at a point: pymanopt asks for its cost and gradient apart, and repeatedly."""
        nonlocal here
        if any(old is not new for old, new in zip(here.point, point, strict=True)):
            here = objective.at(*point)
        return here

    @pymanopt.function.numpy(manifold)
    def cost(*point: Matrix) -> float:
        return at(point).cost

    # `Rotations` takes the relative gradient for the Euclidean one.
    @pymanopt.function.numpy(manifold)
    def relative_gradient(*point: Matrix) -> Any:
        return joined(at(point).gradients)

    made_before = log.n_iter

    def record(cost: float, point: Any) -> None:
        # At every step, so that an interrupted search has counted those that it made.
        log.n_iter = made_before + searcher.n_steps
        log.record(objective.n_evaluations + few.n_evaluations, cost, parts(point))

    budget = log.max_iter - log.n_iter
    longest = settings.largest_angle * float(np.sqrt(sum(len(matrix) for matrix in start)))
    searcher = QuadraticLineSearcher(tol, longest, record, settings)
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
        preconditioner=plane_preconditioner(few, settings),
    )
    # A run ends on a step of 0, after which pymanopt divides 0 by 0 for the next direction.
    with log.stage(f"ε={smoothing:g}"), np.errstate(divide="ignore", invalid="ignore"):
        result = optimizer.run(pymanopt_problem, initial_point=joined(start))
        record(result.cost, result.point)
        log.converged = searcher.n_steps < budget
    return [orthonormal(matrix) for matrix in parts(result.point)]


def precision(problem: Problem, tol: float) -> DTypeLike:
    """Choose single precision, twice as fast, where it can see the decrease that is waited for."""
    settings = problem.settings
    # The minima of a small matrix are not to depend on the order of its rows, nor on rounding.
    size = max(problem.terms[0].jacobians.shape)
    small = problem.is_one_matrix and size < settings.large_matrix
    return np.float64 if small or tol < settings.single_precision_tol else np.float32


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
