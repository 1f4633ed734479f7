"""How far axes recur, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from matplotlib.axes import Axes

from jacrot.display._figure import COLOURS, figure_of, one_axes

if TYPE_CHECKING:
    from jacrot.inspection import AxisStability

LINESTYLES = ("-", "--", "-.")
# Single axes are marked up to so many.
MOST_MARKED = 40


class AxisStabilityDisplay:
    """Recurrence of the axes of every rotation, sorted, beside the level of chance.

    Axes without effect are left out.

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
            Where to draw; ``None`` makes a new figure.

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
            Where to draw; ``None`` makes a new figure.

        Returns
        -------
        AxisStabilityDisplay
            The display.
        """
        self.ax_ = one_axes(ax)
        self.figure_ = figure_of(self.ax_)
        self.lines_, self.chance_lines_ = {}, {}
        for index, (name, recurrence) in enumerate(self.result.recurrence.items()):
            falling = -np.sort(-recurrence[~np.isnan(recurrence)])
            colour = COLOURS[index % len(COLOURS)]
            linestyle = LINESTYLES[index % len(LINESTYLES)]
            rank = np.arange(1, len(falling) + 1)
            (self.lines_[name],) = self.ax_.plot(
                rank,
                falling,
                marker="o" if len(falling) <= MOST_MARKED else "",
                markersize=4,
                label=f"{_title(name)} (mean {self.result.mean[name]:.2f})",
                color=colour,
                linestyle=linestyle,
            )
            chance = self.result.chance[name]
            (self.chance_lines_[name],) = self.ax_.plot(
                rank[[0, -1]],
                [chance, chance],
                linewidth=1,
                alpha=0.7,
                label=f"by chance ({chance:.2f})",
                color=colour,
                linestyle=linestyle,
            )
        self.ax_.set_ylim(0, 1.02)
        self.ax_.set_xlabel("axis, most recurrent first")
        self.ax_.set_ylabel("recurrence (mean |cos| over all fits)")
        self.ax_.legend(loc="lower left", fontsize="small", ncols=2)
        return self


def _title(name: str | int) -> str:
    return f"site {name}" if isinstance(name, int) else f"{name} axes"
