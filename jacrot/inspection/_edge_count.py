"""The number of connections needed, with the uncertainty due to a finite number of inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, Self

import numpy as np
from scipy.optimize import isotonic_regression

from jacrot._utils.arrays import Matrix

# Share of the resamples whose counts are inside the interval.
LEVEL = 0.95
# Further numbers of connections are evaluated inside the interval until neighbours differ by this
# factor or by one connection; between them the loss is interpolated.
RESOLUTION = 1.05


class EdgeCount(int):
    """A number of connections with its interval; see :meth:`EdgeCurve.edges_needed`.

    It is an integer, the median over resamples of the inputs; its ``repr`` includes the interval.

    Parameters
    ----------
    median : int
        Median over the resamples of the number of connections needed.
    low, high : int
        Interval that contains the middle 95 % of the resamples.

    Attributes
    ----------
    median, low, high : int
        The parameters.

    Examples
    --------
    >>> from jacrot.inspection import EdgeCount
    >>> count = EdgeCount(279, 140, 673)
    >>> count
    279 (140 to 673)
    >>> count < 300, f"{count}", f"{count!r}", count.high
    (True, '279', '279 (140 to 673)', 673)
    """

    low: int
    high: int

    def __new__(cls, median: int, low: int, high: int) -> Self:
        count = super().__new__(cls, median)
        count.low, count.high = int(low), int(high)
        return count

    def __reduce__(self) -> tuple[Any, ...]:
        return EdgeCount, (self.median, self.low, self.high)

    @property
    def median(self) -> int:
        """Median over the resamples of the number of connections needed."""
        return int(self)

    def __repr__(self) -> str:
        return f"{self.median} ({self.low} to {self.high})"

    def __str__(self) -> str:
        return int.__repr__(self)


def count_edges(
    losses: Callable[[Sequence[int]], Matrix], counts: Sequence[int], tolerance: Any
) -> EdgeCount:
    """Find the number of connections from which on the loss is at most a tolerance.

    Parameters
    ----------
    losses : callable
        Maps numbers of connections to the losses on each resample, of shape
        ``(n_resamples, n_counts)``.
    counts : sequence of int
        Initial numbers of connections, in increasing order.
    tolerance : float
        Accepted loss.

    Returns
    -------
    EdgeCount
        Median and interval over the resamples.

    Raises
    ------
    ValueError
        If `tolerance` is negative or not a number, or is exceeded with all connections on too many
        resamples.
    """
    if not isinstance(tolerance, Real) or isinstance(tolerance, bool) or not float(tolerance) >= 0:
        raise ValueError(f"tolerance={tolerance!r} must be a number of at least 0.")
    tried = list(counts)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    while True:
        found = _crossings(losses(tried), np.log(tried), float(tolerance))
        short = np.isnan(found)
        if short.mean() > tails[0]:
            raise ValueError(
                f"tolerance={tolerance} is less than the loss with all {tried[-1]} connections on "
                f"{100 * short.mean():.0f} % of the resamples of X; pass a larger tolerance, or "
                "calibrate on more inputs, so that every connection that matters has some strength."
            )
        # The few resamples that need more connections are outside the interval.
        found[short] = np.inf
        ordered = np.sort(found)
        low, high = (ordered[round(tail * (len(ordered) - 1))] for tail in tails)
        gaps = _gaps(tried, low, high)
        if not gaps:
            median = ordered[len(ordered) // 2]
            return EdgeCount(*(int(np.ceil(np.exp(log) - 1e-6)) for log in (median, low, high)))
        tried = sorted({*tried, *gaps})


def _gaps(tried: list[int], low: float, high: float) -> list[int]:
    """Return geometric means of distant neighbours inside the interval."""
    return [
        max(few + 1, min(many - 1, round((few * many) ** 0.5)))
        for few, many in pairwise(tried)
        if many > few + 1 and many > RESOLUTION * few and np.log(many) > low and np.log(few) < high
    ]


def _crossings(losses: Matrix, logs: Matrix, tolerance: float) -> Matrix:
    """Return where the decreasing fit to each row of losses reaches the tolerance, or NaN."""
    crossings = np.full(len(losses), np.nan)
    for index, row in enumerate(losses):
        fit = isotonic_regression(row, increasing=False).x
        n_short = np.count_nonzero(fit > tolerance)
        if n_short == 0:
            crossings[index] = logs[0]
        elif n_short < len(fit):
            above, below = fit[n_short - 1], fit[n_short]
            share = (above - tolerance) / (above - below)
            crossings[index] = logs[n_short - 1] + share * (logs[n_short] - logs[n_short - 1])
    return crossings
