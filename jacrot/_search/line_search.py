"""The line search of the conjugate gradient, and its stopping rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SUFFICIENT_DECREASE = 1e-4
# A trial within this factor of the parabola's minimiser is good enough: it is not made again.
NEAR = 2
MAX_TRIALS = 12
WINDOW = 5


class QuadraticLineSearcher:
    """Line search by quadratic interpolation, for pymanopt.

    A trial gives a parabola through the two costs and the slope, and its minimiser, between 0.1
    and 4 times the trial. That is the next trial, of this search where the first was more than
    twice too short or too long, else of the next one. The very first is 1, a Newton step thanks to
    the preconditioner. A step must decrease the cost by 1e-4 of what the slope promises (Armijo).

    pymanopt has no stop on the decrease of the cost, but ends on a step of 0. That is what this
    returns when the mean relative decrease of the last five steps is below `tol`, and when no
    trial decreases the cost.

    Parameters
    ----------
    tol : float
        Mean relative decrease a step at which to stop.
    longest : float
        Longest step, in the norm of the manifold.
    record : callable
        Called with the cost and the point before every step that is made.

    Attributes
    ----------
    n_steps : int
        Steps made.
    """

    def __init__(self, tol: float, longest: float, record: Callable[[float, Any], None]) -> None:
        self.tol = tol
        self.longest = longest
        self.record = record
        self.n_steps = 0
        self._costs: list[float] = []
        self._step = 1.0

    def __deepcopy__(self, memo: dict[int, Any]) -> QuadraticLineSearcher:
        # pymanopt copies a line searcher for every run; this one is made for one run, and what
        # it records is wanted afterwards.
        return self

    def search(
        self,
        objective: Callable[[Any], float],
        manifold: Any,
        x: Any,
        d: Any,
        f0: float,
        df0: float,
    ) -> tuple[float, Any]:
        """Find a step along a descent direction; see pymanopt's line searchers.

        Parameters
        ----------
        objective : callable
            The cost of a point.
        manifold : pymanopt manifold
            Where the points live.
        x, d : point and tangent vector
            Where the search starts, and its direction.
        f0, df0 : float
            Cost at `x` and slope along `d`.

        Returns
        -------
        step_size : float
            Length of the step, 0 to end the run.
        new_x : point
            Where it leads.
        """
        self._costs.append(f0)
        norm = manifold.norm(x, d)
        if self._converged() or not 0 < norm < np.inf:
            return 0.0, x
        longest = self.longest / norm
        step = min(self._step, longest)
        for _ in range(MAX_TRIALS):
            new_x = manifold.retraction(x, step * d)
            cost = objective(new_x)
            best = min(_parabola_minimiser(f0, df0, step, cost), longest)
            if cost <= f0 + SUFFICIENT_DECREASE * step * df0:
                self._step = best
                if not 1 / NEAR <= best / step <= NEAR:
                    other_x = manifold.retraction(x, best * d)
                    if objective(other_x) < cost:
                        step, new_x = best, other_x
                    else:
                        self._step = step
                self.n_steps += 1
                self.record(f0, x)
                return step * norm, new_x
            step = min(best, 0.5 * step)
        return 0.0, x

    def _converged(self) -> bool:
        if len(self._costs) <= WINDOW:
            return False
        decrease = (self._costs[-1 - WINDOW] - self._costs[-1]) / WINDOW
        return decrease <= self.tol * abs(self._costs[-1])


def _parabola_minimiser(f0: float, df0: float, step: float, cost: float) -> float:
    """Minimise the parabola with value `f0` and slope `df0` at 0 and value `cost` at `step`."""
    # Changes of the cost over the trial, not per length: the square of a tiny step is zero.
    slope = df0 * step
    bend = cost - f0 - slope
    if not bend > 0:
        # Concave, or a trial that is not finite: the caller halves the latter.
        return 4 * step
    return float(np.clip(-0.5 * slope / bend, 0.1, 4)) * step
