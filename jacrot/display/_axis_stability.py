"""Plot of how well axes recur in other fits."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jacrot.display._base import ResultDisplay
from jacrot.display._style import add_legend_beside, line_style, set_wrapped_title
from jacrot.inspection import AxisStability

# Markers on a line at most, evenly spaced.
MAX_MARKERS = 40
TITLE = "Axes found again from other starts and on resampled inputs"


class AxisStabilityDisplay(ResultDisplay[AxisStability]):
    """Recurrence of the axes of every rotation, in falling order, and the chance level.

    Axes without effect are left out. The dotted lines are the chance level, which axes of random
    rotations reach: an axis that is not above it was not found again.

    Parameters
    ----------
    result : AxisStability
        Return value of :func:`jacrot.inspection.axis_stability`.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
    lines_ : dict of Line2D
        The recurrence, by rotation.
    chance_lines_ : dict of Line2D
        The chance level, by rotation.

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

    def _draw(self) -> None:
        self.lines_: dict[str | int, Line2D] = {}
        self.chance_lines_: dict[str | int, Line2D] = {}
        for index, (name, recurrence) in enumerate(self.result.recurrence.items()):
            falling = -np.sort(-recurrence[~np.isnan(recurrence)])
            rank = np.arange(1, len(falling) + 1)
            style = line_style(index)
            chance = self.result.chance[name]
            rotation = f"site {name}" if isinstance(name, int) else f"{name} axes"
            (self.lines_[name],) = self.ax_.plot(
                rank,
                falling,
                markevery=-(-len(falling) // MAX_MARKERS),
                label=f"{rotation} (mean {self.result.mean[name]:.2f})\n"
                f"dotted: chance ({chance:.2f})",
                **style,
            )
            (self.chance_lines_[name],) = self.ax_.plot(
                rank[[0, -1]], [chance, chance], color=style["color"], linestyle=":"
            )
        self.ax_.set_ylim(0, 1.02)
        self.ax_.set_xlabel("axis, most recurrent first")
        self.ax_.set_ylabel("recurrence (mean |cos| over all fits)")
        self.ax_.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        set_wrapped_title(self.ax_, TITLE)
        add_legend_beside(self.ax_)
