"""How far axes recur, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jacrot.display._figure import (
    figure_of,
    legend_beside,
    line_look,
    one_axes,
    set_wrapped_title,
)

if TYPE_CHECKING:
    from jacrot.inspection import AxisStability

# So many axes of a rotation at most are marked, evenly.
MOST_MARKED = 40
TITLE = "Axes found again from other starts and on resampled inputs"


class AxisStabilityDisplay:
    """Recurrence of the axes of every rotation, sorted, beside the level of chance.

    Axes without effect are left out. At chance, dotted, are the axes of random rotations: what is
    not above it was not found again.

    Parameters
    ----------
    result : AxisStability
        What :func:`jacrot.inspection.axis_stability` returned.

    Attributes
    ----------
    ax_ : Axes
        The picture.
    figure_ : Figure
        Its figure.
    lines_ : dict of Line2D
        The recurrence, by rotation.
    chance_lines_ : dict of Line2D
        The level of chance, by rotation.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from jacrot.display import AxisStabilityDisplay
    >>> from jacrot.inspection import AxisStability
    >>> one = {"input": np.array([[0.5, 1.0]])}
    >>> stability = AxisStability(one, one, {"input": np.array([0.8, 0.2])}, {"input": 0.83})
    >>> AxisStabilityDisplay.from_result(stability).lines_["input"].get_ydata()
    array([1. , 0.5])
    """

    def __init__(self, result: AxisStability) -> None:
        self.result = result

    @classmethod
    def from_result(cls, result: AxisStability, *, ax: Axes | None = None) -> Self:
        """Draw what ``axis_stability`` returned.

        Parameters
        ----------
        result : AxisStability
            The cosines.
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        AxisStabilityDisplay
            The display, drawn.
        """
        return cls(result).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the recurrences.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        AxisStabilityDisplay
            The display.
        """
        self.ax_ = one_axes(ax, width=7.4)
        self.figure_ = figure_of(self.ax_)
        self.lines_, self.chance_lines_ = {}, {}
        for index, (name, recurrence) in enumerate(self.result.recurrence.items()):
            falling = -np.sort(-recurrence[~np.isnan(recurrence)])
            look = line_look(index)
            rank = np.arange(1, len(falling) + 1)
            chance = self.result.chance[name]
            (self.lines_[name],) = self.ax_.plot(
                rank,
                falling,
                markevery=-(-len(falling) // MOST_MARKED),
                label=f"{_title(name)} (mean {self.result.mean[name]:.2f})\n"
                f"dotted: chance ({chance:.2f})",
                **look,
            )
            (self.chance_lines_[name],) = self.ax_.plot(
                rank[[0, -1]],
                [chance, chance],
                color=look["color"],
                linestyle=":",
            )
        self.ax_.set_ylim(0, 1.02)
        self.ax_.set_xlabel("axis, most recurrent first")
        self.ax_.set_ylabel("recurrence (mean |cos| over all fits)")
        self.ax_.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        set_wrapped_title(self.ax_, TITLE)
        legend_beside(self.ax_)
        return self


def _title(name: str | int) -> str:
    return f"site {name}" if isinstance(name, int) else f"{name} axes"
