"""The line search of the conjugate gradient, and its stopping rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jacrot._search.settings import DEFAULT_SETTINGS, SearchSettings


class QuadraticLineSearcher:
    """Line search by quadratic interpolation, for pymanopt.

    A trial gives a parabola through the two costs and the slope, and its minimiser, between 0.1
    and 4 times the trial. That is the next trial: of this search where the first trial was far too
    short or too long, else of the next one. The very first trial is 1, a Newton step thanks to the
    preconditioner. A step must bring a share of the decrease that the slope promises (Armijo).

    pymanopt cannot stop on the decrease of the cost, but ends on a step of 0. That is what is
    returned when the mean relative decrease of the last steps is below `tol`, and when no trial
    decreases the cost.

    Parameters
    ----------
    tol : float
        Mean relative decrease a step at which to stop.
    longest : float
        Longest step, in the norm of the manifold.
    record : callable
        Called with the cost and the point before every step that is made.
    settings : SearchSettings
        The constants of the search.

    Attributes
    ----------
    n_steps : int
        Steps made.
    """

    def __init__(
        self,
        tol: float,
        longest: float,
        record: Callable[[float, Any], None],
        settings: SearchSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.settings = settings
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
        settings = self.settings
        self._costs.append(f0)
        norm = manifold.norm(x, d)
        if self._converged() or not 0 < norm < np.inf:
            return 0.0, x
        longest = self.longest / norm
        step = min(self._step, longest)
        for _ in range(settings.max_trials):
            new_x = manifold.retraction(x, step * d)
            cost = objective(new_x)
            best = min(_parabola_minimiser(f0, df0, step, cost), longest)
            if cost <= f0 + settings.sufficient_decrease * step * df0:
                self._step = best
                if not 1 / settings.near_step <= best / step <= settings.near_step:
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
        window = self.settings.window
        if len(self._costs) <= window:
            return False
        decrease = (self._costs[-1 - window] - self._costs[-1]) / window
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
