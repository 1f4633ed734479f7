"""How the cost fell during a search, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from jacrot.display._figure import BLUE, GREY, LIGHT_GREY, VERMILION, figure_of, one_axes

Against = Literal["seconds", "evaluations"]
# Stages narrower than this share of the picture have no room for their number.
ROOM = 0.03


class ConvergenceDisplay:
    """Cost of a search against its time, every stage by itself.

    Stages smooth the cost differently, and compute it on other samples or on mini-batches: a jump
    from one to the next is no progress and no loss. So the costs of two stages are never joined by
    a line. In a stochastic warm start the smoothing falls from step to step, so that its cost may
    rise while the axes get better.

    Parameters
    ----------
    history : mapping of str to array-like of shape (n_points,)
        What the search visited: ``"stage"``, ``"cost"``, ``"seconds"`` and ``"evaluations"``; an
        estimator's ``history_``.
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
    >>> len(display.lines_) == len(set(rotation.history_["stage"]))
    True
    """

    def __init__(self, history: Mapping[str, ArrayLike], *, against: Against = "seconds") -> None:
        if against not in get_args(Against):
            raise ValueError(f"against={against!r} must be 'seconds' or 'evaluations'.")
        self.history = {name: np.asarray(column) for name, column in history.items()}
        missing = [name for name in ("stage", "cost", against) if name not in self.history]
        if missing:
            raise ValueError(f"history has no {missing[0]!r}; write an estimator's history_.")
        if self.history["stage"].size == 0:
            raise ValueError("history is empty: with a single axis there was nothing to search.")
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
        """
        check_is_fitted(estimator)
        return cls(estimator.history_, against=against).plot(ax)

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
        stages = np.unique(stage)
        starts = [x[stage == number][0] for number in stages]
        ends = [*starts[1:], x[-1]]
        self.lines_ = []
        for number, start, end in zip(stages, starts, ends, strict=True):
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
            if end - start >= ROOM * (x[-1] - x[0]):
                self.ax_.text(
                    (start + end) / 2,
                    1.01,
                    str(number),
                    transform=self.ax_.get_xaxis_transform(),
                    ha="center",
                    va="bottom",
                    fontsize="small",
                    color=GREY,
                )
        self.ax_.set_title(
            f"{len(stages)} stages (numbered), each with its own smoothing and samples:\n"
            "levels of two do not compare, and rise where a warm start smooths less and less",
            fontsize="medium",
            pad=18,
        )
        self.ax_.set_xlabel(
            "seconds" if self.against == "seconds" else "passes over the samples of the stage"
        )
        self.ax_.set_ylabel("cost of the stage")
        self.ax_.margins(x=0.01)
        return self
