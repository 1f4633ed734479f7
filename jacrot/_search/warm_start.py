"""The stochastic warm start: near a good minimum at a price that the samples do not raise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jacrot._jacobians.base import Indices
from jacrot._search.log import Log
from jacrot._search.manifold import cayley, skew
from jacrot._search.problem import Problem
from jacrot._search.stages import orthonormal, precision
from jacrot._utils.arrays import Matrix

# What keeps the quotient of Adam's means finite.
TINY = 1e-30


def warm_start(
    problem: Problem,
    point: list[Matrix],
    smoothings: tuple[float, float],
    rng: np.random.RandomState,
    log: Log,
) -> list[Matrix]:
    """Run Adam in the Lie algebra on mini-batches, with less and less smoothing.

    The relative gradient ``Ω`` of a rotation is skew, and its entries belong to the planes of the
    axes, wherever these point: Adam's running means need no transport. Each step turns the axes
    by the Cayley transform ``Q ← (I + K/2)⁻¹ (I − K/2) Q`` of Adam's skew ``K``. The smoothing
    falls geometrically. An axis turns by about the first smoothing in rad at the first steps, and
    less along a cosine to none at the last. Steps and mini-batches grow with the number of axes,
    not with that of samples.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    point : list of ndarray
        Where to start.
    smoothings : tuple of float
        ``ε`` at the first step and at the last: the larger the first, the less of the start is
        kept.
    rng : numpy.random.RandomState
        Draws the mini-batches.
    log : Log
        The budget, which bounds the steps; is written to.

    Returns
    -------
    list of ndarray
        The point reached, orthogonal up to rounding.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    Z. Wen and W. Yin, "A feasible method for optimization with orthogonality constraints",
    Mathematical Programming 142 (2013), equation 7 (the Cayley transform).
    """
    if max(map(len, point)) == 1:
        return point
    settings = problem.settings
    n_batch, n_steps = _schedule(problem, sum(map(len, point)), max(map(len, point)))
    n_steps = min(n_steps, log.max_iter)
    first_smoothing, last_smoothing = smoothings
    largest_angle = min(first_smoothing, settings.forgetting)
    dtype = precision(problem, log.tol)
    problem = problem.with_stacks(lambda stack: stack.cast(dtype))
    point = [matrix.astype(dtype) for matrix in point]
    first = [np.zeros_like(matrix) for matrix in point]
    second = [np.zeros_like(matrix) for matrix in point]
    batches = _batches(problem.n_samples, n_batch, rng)
    with log.stage("warm start", n_steps):
        for step in range(n_steps):
            progress = step / n_steps
            smoothing = first_smoothing * (last_smoothing / first_smoothing) ** progress
            here = problem.minibatch(next(batches), smoothing, dtype).at(*point)
            gradients = here.gradients
            log.record(step + 1, here.cost, list(point))
            angle = largest_angle * 0.5 * (1 + np.cos(np.pi * progress))
            for index, (matrix, gradient) in enumerate(zip(point, gradients, strict=True)):
                relative = skew(gradient)
                first[index] += (1 - settings.first_decay) * (relative - first[index])
                second[index] += (1 - settings.second_decay) * (relative**2 - second[index])
                mean = first[index] / (1 - settings.first_decay ** (step + 1))
                mean_square = second[index] / (1 - settings.second_decay ** (step + 1))
                # Entries of about 1 in every plane: over the root of their number for the angle.
                scale = float(angle / np.sqrt(len(matrix)))
                point[index] = cayley(mean / np.sqrt(mean_square + TINY) * -scale, matrix)
    return [orthonormal(matrix) for matrix in point]


def _schedule(problem: Problem, n_axes_of_all: int, n_axes: int) -> tuple[int, int]:
    """Choose the samples of a mini-batch, and the number of steps."""
    settings = problem.settings
    n_matrices = max(term.jacobians.n_matrices for term in problem.terms)
    n_rows = min(settings.rows_per_axis * n_axes, settings.max_rows)
    # One sample alone would be too rough a guess.
    n_batch = min(max(2, n_rows // (n_axes * n_matrices)), problem.n_samples)
    n_steps = int(np.clip(settings.steps_per_axis * n_axes, settings.min_steps, settings.max_steps))
    work = n_batch * problem.n_entries_each * n_axes_of_all
    return n_batch, int(min(n_steps, settings.max_warm_start_work // work + 1))


def _batches(n_samples: int, n_batch: int, rng: np.random.RandomState) -> Iterator[Indices]:
    """Draw mini-batches without end, every sample once before any comes again."""
    while True:
        order = rng.permutation(n_samples)
        for start in range(0, n_samples - n_batch + 1, n_batch):
            yield order[start : start + n_batch]
