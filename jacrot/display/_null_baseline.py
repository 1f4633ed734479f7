"""Plot of a network's sparsity beside that of null networks."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D

from jacrot.display._base import ResultDisplay
from jacrot.display._style import BLUE, GREY, VERMILION, add_legend_beside, set_wrapped_title
from jacrot.inspection import NullBaseline

# What is left of the weights in every kind of null network.
NAMES = {
    "shuffled": "shuffled\nweights",
    "spectrum": "same\nspectrum",
    "initial": "initial\nweights",
}
# Offsets from its row at which a kind of null is drawn, in the new basis and in the given one. Rows
# run downwards.
ROTATED, GIVEN = -0.12, 0.12


class NullBaselineDisplay(ResultDisplay[NullBaseline]):
    """Held-out sparsity of every null network, with that of the network itself as a line.

    Every kind of null has a row, with a point for each run in the given basis (open) and after the
    rotation (filled). The title is the verdict.

    Parameters
    ----------
    result : NullBaseline
        Return value of :func:`jacrot.inspection.null_baseline`.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
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

    @property
    def _size(self) -> tuple[float, float]:
        return 7.4, 2.2 + 0.6 * len(self.result.nulls)

    def _draw(self) -> None:
        result = self.result
        self.line_ = self.ax_.axvline(result.score, color=VERMILION, label="this network, rotated")
        self.given_line_ = self.ax_.axvline(
            result.given, color=VERMILION, linestyle="--", label="this network, given basis"
        )
        self.points_: dict[str, Line2D] = {}
        self.given_points_: dict[str, Line2D] = {}
        for row, (name, runs) in enumerate(result.nulls.items()):
            # All rows have the same colours, and the legend shows those of the first.
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
        self.ax_.set_yticks(
            range(len(result.nulls)), [NAMES.get(name, name) for name in result.nulls]
        )
        self.ax_.set_ylim(len(result.nulls) - 0.5, -0.5)
        self.ax_.set_xlabel("mean Hoyer sparsity, held out")
        set_wrapped_title(self.ax_, result.verdict)
        add_legend_beside(self.ax_)
