"""A network's sparsity among that of networks that learned nothing, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
from matplotlib.axes import Axes

from jacrot.display._figure import (
    BLUE,
    GREY,
    VERMILION,
    figure_of,
    legend_beside,
    one_axes,
    set_wrapped_title,
)

if TYPE_CHECKING:
    from jacrot.inspection import NullBaseline

# What is left of the weights in every kind of null.
NAMES = {
    "shuffled": "shuffled\nweights",
    "spectrum": "same\nspectrum",
    "initial": "initial\nweights",
}
# Where the new and the given basis of a kind of null stand beside its row; rows run downwards.
ROTATED, GIVEN = -0.12, 0.12


class NullBaselineDisplay:
    """Held-out sparsity of every null network, and of the network itself as a line.

    A row for each kind of null: every run in the given basis (open) and after the rotation
    (filled). The verdict, which follows from the figures only, is the title.

    Parameters
    ----------
    result : NullBaseline
        What :func:`jacrot.inspection.null_baseline` returned.

    Attributes
    ----------
    ax_ : Axes
        The picture.
    figure_ : Figure
        Its figure.
    line_, given_line_ : Line2D
        The network itself, after the rotation and in the given basis.
    points_, given_points_ : dict of str to Line2D
        The runs of each null, after the rotation and in the given basis.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from jacrot.display import NullBaselineDisplay
    >>> from jacrot.inspection import NullBaseline
    >>> runs = {"shuffled": np.array([0.40, 0.42, 0.44])}
    >>> null = NullBaseline(0.80, 0.50, runs, {"shuffled": np.full(3, 0.3)})
    >>> NullBaselineDisplay.from_result(null).ax_.get_xlabel()
    'mean Hoyer sparsity, held out'
    """

    def __init__(self, result: NullBaseline) -> None:
        self.result = result

    @classmethod
    def from_result(cls, result: NullBaseline, *, ax: Axes | None = None) -> Self:
        """Draw what ``null_baseline`` returned.

        Parameters
        ----------
        result : NullBaseline
            The scores.
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        NullBaselineDisplay
            The display, drawn.
        """
        return cls(result).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        NullBaselineDisplay
            The display.
        """
        result = self.result
        self.ax_ = one_axes(ax, width=7.4, height=2.2 + 0.6 * len(result.nulls))
        self.figure_ = figure_of(self.ax_)
        self.line_ = self.ax_.axvline(result.score, color=VERMILION, label="this network, rotated")
        self.given_line_ = self.ax_.axvline(
            result.given, color=VERMILION, linestyle="--", label="this network, given basis"
        )
        self.points_, self.given_points_ = {}, {}
        for row, (name, runs) in enumerate(result.nulls.items()):
            # Every row is of the same colours: one entry in the legend is enough.
            hidden = "_" if row else ""
            (self.points_[name],) = self.ax_.plot(
                runs,
                np.full(len(runs), row + ROTATED),
                "o",
                color=BLUE,
                alpha=0.6,
                label=f"{hidden}nulls, rotated",
            )
            (self.given_points_[name],) = self.ax_.plot(
                result.nulls_given[name],
                np.full(len(runs), row + GIVEN),
                "o",
                color=GREY,
                fillstyle="none",
                label=f"{hidden}nulls, given basis",
            )
        self.ax_.set_yticks(range(len(result.nulls)), [NAMES[name] for name in result.nulls])
        self.ax_.set_ylim(len(result.nulls) - 0.5, -0.5)
        self.ax_.set_xlabel("mean Hoyer sparsity, held out")
        set_wrapped_title(self.ax_, result.verdict)
        legend_beside(self.ax_)
        return self
