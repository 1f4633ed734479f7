"""How the cost fell during a search, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from jacrot.display._figure import (
    BLUE,
    LIGHT_GREY,
    VERMILION,
    figure_of,
    one_axes,
    set_wrapped_title,
)

Against = Literal["seconds", "evaluations"]
# A name needs so much room across the direction that it is written in, and so much along it for
# every letter, in sizes of its font.
LINE, LETTER = 1.4, 0.65
NAME_SIZE = 8.0
TITLE = "Compare costs within a stage only: smoothing ε and samples differ"


class ConvergenceDisplay:
    """Cost of a search against its time, every stage by itself.

    Stages smooth the cost differently, and compute it on other samples or on mini-batches: a jump
    from one to the next is no progress and no loss. So the costs of two stages are never joined by
    a line. In a stochastic warm start the smoothing falls from step to step, so that its cost may
    rise while the axes get better. Stages are named along the top, where they are wide enough.

    Parameters
    ----------
    history : mapping of str to array-like of shape (n_points,)
        What the search visited: ``"stage"``, ``"cost"``, ``"seconds"`` and ``"evaluations"``; an
        estimator's ``history_``.
    stages : sequence of str
        Names of the stages that ``history["stage"]`` counts; an estimator's ``stages_``.
    against : {"seconds", "evaluations"}, default="seconds"
        What the cost is drawn against: time, or passes over the samples of the stages.

    Attributes
    ----------
    ax_ : Axes
        The picture.
    figure_ : Figure
        Its figure.
    lines_ : list of Line2D
        The cost, a line for each stage.
    names_ax_ : SecondaryAxis
        Its ticks are the names of the stages.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.display import ConvergenceDisplay
    >>> problem = make_planted_problem(n_features=16, n_outputs=32, random_state=0)
    >>> rotation = JacobianSparsityRotation(problem.network, tol=1e-2, random_state=0)
    >>> display = ConvergenceDisplay.from_estimator(rotation.fit(problem.X))
    >>> len(display.lines_) == len(rotation.stages_)
    True
    >>> rotation.stages_[:3]
    ['ε=0.5', 'ε=0.15', 'ε=0.1']
    """

    def __init__(
        self,
        history: Mapping[str, ArrayLike],
        stages: Sequence[str],
        *,
        against: Against = "seconds",
    ) -> None:
        if against not in get_args(Against):
            raise ValueError(f"against={against!r} must be 'seconds' or 'evaluations'.")
        self.history = {name: np.asarray(column) for name, column in history.items()}
        missing = [name for name in ("stage", "cost", against) if name not in self.history]
        if missing:
            raise ValueError(f"history has no {missing[0]!r}; write an estimator's history_.")
        if self.history["stage"].size == 0:
            raise ValueError("history is empty: with a single axis there was nothing to search.")
        n_stages = int(self.history["stage"].max()) + 1
        if len(stages) < n_stages:
            raise ValueError(
                f"stages has {len(stages)} names but history counts {n_stages} stages; write the "
                "stages_ of the same estimator."
            )
        self.stages = stages
        self.against = against

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, against: Against = "seconds", ax: Axes | None = None
    ) -> Self:
        """Draw the search that a fitted estimator kept.

        Parameters
        ----------
        estimator : JacobianSparsityRotation or NetworkRotation
            Fitted.
        against : {"seconds", "evaluations"}, default="seconds"
            What the cost is drawn against.
        ax : Axes, default=None
            Where to draw; ``None`` makes a new figure.

        Returns
        -------
        ConvergenceDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If `estimator` was not fitted.
        ValueError
            If there was nothing to search.
        """
        check_is_fitted(estimator)
        return cls(estimator.history_, estimator.stages_, against=against).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the cost.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; ``None`` makes a new figure.

        Returns
        -------
        ConvergenceDisplay
            The display.
        """
        self.ax_ = one_axes(ax, width=7.4)
        self.figure_ = figure_of(self.ax_)
        x, cost, stage = (self.history[name] for name in (self.against, "cost", "stage"))
        numbers = np.unique(stage)
        starts = np.array([x[stage == number][0] for number in numbers])
        ends = np.append(starts[1:], x[-1])
        self.lines_ = []
        for number, start, end in zip(numbers, starts, ends, strict=True):
            here = stage == number
            odd = bool(number % 2)
            (line,) = self.ax_.plot(
                x[here],
                cost[here],
                color=VERMILION if odd else BLUE,
                linewidth=1.4 if here.sum() < 500 else 0.6,
                marker="." if here.sum() < 30 else "",
                markersize=3,
            )
            self.lines_.append(line)
            if odd:
                self.ax_.axvspan(start, end, color=LIGHT_GREY, linewidth=0, zorder=0)
        self.ax_.margins(x=0.01)
        n_named = self._write_names(numbers, starts, ends)
        short = len(numbers) - n_named
        note = f"\ntoo short to be named: {short} of {len(numbers)} stages" if short else ""
        set_wrapped_title(self.ax_, TITLE + note)
        self.ax_.set_xlabel(
            "seconds" if self.against == "seconds" else "passes over the samples of the stage"
        )
        self.ax_.set_ylabel("cost of the stage")
        return self

    def _write_names(self, numbers: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> int:
        """Name the stages that have room, upright where there is no more; count them."""
        letter = NAME_SIZE * self.figure_.dpi / 72
        left, right = self.ax_.get_xlim()
        room = (ends - starts) / (right - left) * self.ax_.get_window_extent().width / letter
        named = room >= LINE
        names = [self.stages[number] for number in numbers[named]]
        self.names_ax_ = self.ax_.secondary_xaxis("top")
        self.names_ax_.tick_params(length=0)
        self.names_ax_.set_xticks((starts + ends)[named] / 2, names, fontsize=NAME_SIZE)
        for label, size in zip(self.names_ax_.get_xticklabels(), room[named], strict=True):
            label.set_rotation(0 if LETTER * len(label.get_text()) < size else 90)
        return int(named.sum())
