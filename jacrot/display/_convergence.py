"""Plot of the cost of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from jacrot.display._base import Display
from jacrot.display._style import BLUE, LIGHT_GREY, VERMILION, set_wrapped_title

Against = Literal["seconds", "evaluations"]
# Font size of the names of stages, in points.
NAME_SIZE = 8.0
# Height of a line and width of a letter in such a name, in font sizes.
LINE_HEIGHT, LETTER_WIDTH = 1.4, 0.65
# The line of a stage of this many points or more is thin.
THIN_LINE = 500
# The points of a stage of fewer points than this are marked.
MARKED_POINTS = 30
TITLE = "Compare costs within a stage only: smoothing ε and samples differ"


class ConvergenceDisplay(Display):
    """Cost of a search against its time, one line for each stage.

    Stages smooth the cost differently, and evaluate it on different samples or on mini-batches, so
    that costs of two stages are not comparable and no line joins them. In a stochastic warm start
    the smoothing falls from step to step: the cost may rise while the axes get better. The names
    of the stages stand at the top, as far as there is room.

    Parameters
    ----------
    history : mapping of str to array-like of shape (n_points,)
        ``history_`` of an estimator: ``"stage"``, ``"cost"``, ``"seconds"`` and ``"evaluations"``
        of every point of the search.
    stages : sequence of str
        ``stages_`` of the estimator: names of the stages that ``history["stage"]`` counts.
    against : {"seconds", "evaluations"}, default="seconds"
        Whether the cost is drawn against the time or against the number of passes over the samples
        of the stages.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
    lines_ : list of Line2D
        The cost, one line for each stage.
    names_ax_ : SecondaryAxis
        Axis at the top, whose ticks are the names of the stages.

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
    ['ε=0.5', 'ε=0.15', 'ε=0.05']
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
            raise ValueError(f"history has no {missing[0]!r}; pass the history_ of an estimator.")
        if self.history["stage"].size == 0:
            raise ValueError("history is empty: with a single axis there was nothing to search.")
        n_stages = int(self.history["stage"].max()) + 1
        if len(stages) < n_stages:
            raise ValueError(
                f"stages has {len(stages)} names but history counts {n_stages} stages; pass the "
                "stages_ of the same estimator."
            )
        self.stages = stages
        self.against = against

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, against: Against = "seconds", ax: Axes | None = None
    ) -> Self:
        """Draw the search of a fitted estimator, the best one if there were several.

        Parameters
        ----------
        estimator : JacobianSparsityRotation or NetworkRotation
            Fitted estimator.
        against : {"seconds", "evaluations"}, default="seconds"
            Whether the cost is drawn against the time or against the number of passes over the
            samples of the stages.
        ax : Axes, default=None
            Axes to draw into. If ``None``, a new figure is created.

        Returns
        -------
        ConvergenceDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If `estimator` is not fitted.
        ValueError
            If there was nothing to search.
        """
        check_is_fitted(estimator)
        return cls(estimator.history_, estimator.stages_, against=against).plot(ax)

    def _draw(self) -> None:
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
                linewidth=1.4 if here.sum() < THIN_LINE else 0.6,
                marker="." if here.sum() < MARKED_POINTS else "",
                markersize=3,
            )
            self.lines_.append(line)
            if odd:
                self.ax_.axvspan(start, end, color=LIGHT_GREY, linewidth=0, zorder=0)
        self.ax_.margins(x=0.01)
        short = len(numbers) - self._draw_names(numbers, starts, ends)
        note = f"\ntoo short to be named: {short} of {len(numbers)} stages" if short else ""
        set_wrapped_title(self.ax_, TITLE + note)
        self.ax_.set_xlabel(
            "seconds" if self.against == "seconds" else "passes over the samples of the stage"
        )
        self.ax_.set_ylabel("cost of the stage")

    def _draw_names(self, numbers: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> int:
        """Draw the names for which there is room, upright where needed, and return their number."""
        letter = NAME_SIZE * self.figure_.dpi / 72
        left, right = self.ax_.get_xlim()
        room = (ends - starts) / (right - left) * self.ax_.get_window_extent().width / letter
        has_room = room >= LINE_HEIGHT
        names = [self.stages[number] for number in numbers[has_room]]
        self.names_ax_ = self.ax_.secondary_xaxis("top")
        self.names_ax_.tick_params(length=0)
        self.names_ax_.set_xticks((starts + ends)[has_room] / 2, names, fontsize=NAME_SIZE)
        for label, size in zip(self.names_ax_.get_xticklabels(), room[has_room], strict=True):
            label.set_rotation(0 if LETTER_WIDTH * len(label.get_text()) < size else 90)
        return int(has_room.sum())
