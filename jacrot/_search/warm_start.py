"""The stochastic warm start: near a good minimum at a price that the samples do not raise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jacrot._jacobians.stacks import Indices
from jacrot._search.manifold import cayley, skew
from jacrot._search.problem import Problem
from jacrot._search.stages import Log, orthonormal
from jacrot._utils.arrays import Matrix

# Hidden axes stay hidden with fewer steps for each axis, and fewer rows of Jacobians in a batch.
STEPS_OF_AXIS, LEAST_STEPS, MOST_STEPS = 12, 400, 1600
ROWS_OF_AXIS, MOST_ROWS, LEAST_BATCH = 16, 2048, 2
# Multiplications that all steps may take, or the largest problems would take hours.
MOST_WORK = 1.2e12
# More than this at first would only cost steps.
MOST_SMOOTHING, LAST_SMOOTHING = 0.5, 0.001
# Decay of the mean gradient and of its mean square, and what keeps the quotient finite.
FIRST_DECAY, SECOND_DECAY, TINY = 0.9, 0.999, 1e-30


def warm_start(
    problem: Problem, point: list[Matrix], smoothing: float, rng: np.random.RandomState, log: Log
) -> list[Matrix]:
    """Run Adam in the Lie algebra on mini-batches, with less and less smoothing.

    The relative gradient ``Ω`` of a rotation is skew, and its entries belong to the planes of the
    axes, wherever these point: Adam's running means need no transport. Each step turns the axes
    by the Cayley transform ``Q ← (I + K/2)⁻¹ (I − K/2) Q`` of Adam's skew ``K``. The smoothing
    falls geometrically to 0.001. An axis turns by about `smoothing` rad at the first steps, and
    less along a cosine to none at the last. Steps and mini-batches grow with the number of axes,
    not with that of samples.

    Parameters
    ----------
    problem : Problem
        What is minimised.
    point : list of ndarray
        Where to start.
    smoothing : float
        ``ε`` at the start: the larger, the less of the start is kept.
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
    smoothing = min(smoothing, MOST_SMOOTHING)
    n_axes = max(map(len, point))
    if n_axes == 1:
        return point
    n_rows = min(ROWS_OF_AXIS * n_axes, MOST_ROWS)
    n_matrices = max(term.jacobians.n_matrices for term in problem.terms)
    n_batch = min(max(LEAST_BATCH, n_rows // (n_axes * n_matrices)), problem.n_samples)
    n_steps = int(np.clip(STEPS_OF_AXIS * n_axes, LEAST_STEPS, MOST_STEPS))
    work = n_batch * problem.n_entries_each * sum(map(len, point))
    n_steps = int(min(n_steps, MOST_WORK // work + 1, log.max_iter))
    point = [matrix.astype(np.float32) for matrix in point]
    first = [np.zeros_like(matrix) for matrix in point]
    second = [np.zeros_like(matrix) for matrix in point]
    batches = _batches(problem.n_samples, n_batch, rng)
    with log.stage("warm start", n_steps):
        for step in range(n_steps):
            progress = step / n_steps
            objective = problem.minibatch(
                next(batches), smoothing * (LAST_SMOOTHING / smoothing) ** progress
            )
            gradients = objective.gradients(*point)
            log.record(step + 1, objective.cost(*point), list(point))
            angle = smoothing * 0.5 * (1 + np.cos(np.pi * progress))
            for index, (matrix, gradient) in enumerate(zip(point, gradients, strict=True)):
                relative = skew(gradient)
                first[index] += (1 - FIRST_DECAY) * (relative - first[index])
                second[index] += (1 - SECOND_DECAY) * (relative**2 - second[index])
                mean = first[index] / (1 - FIRST_DECAY ** (step + 1))
                mean_square = second[index] / (1 - SECOND_DECAY ** (step + 1))
                # Entries of about 1 in every plane: over the root of their number for the angle.
                scale = float(angle / np.sqrt(len(matrix)))
                point[index] = cayley(mean / np.sqrt(mean_square + TINY) * -scale, matrix)
    return [orthonormal(matrix) for matrix in point]


def _batches(n_samples: int, n_batch: int, rng: np.random.RandomState) -> Iterator[Indices]:
    """Draw mini-batches without end, every sample once before any comes again."""
    while True:
        order = rng.permutation(n_samples)
        for start in range(0, n_samples - n_batch + 1, n_batch):
            yield order[start : start + n_batch]
