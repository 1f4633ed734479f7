"""Plot of how many outputs a finite step changes."""

from __future__ import annotations

from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from jacrot.display._base import ResultDisplay
from jacrot.display._style import BLUE, VERMILION, add_legend_beside, set_wrapped_title
from jacrot.inspection import LocalityCurve


class LocalityDisplay(ResultDisplay[LocalityCurve]):
    """Number of outputs that a step along one axis changes, before and after the rotation.

    Solid lines are means over the axes. Dashed lines weight every axis by its effect.

    Parameters
    ----------
    result : LocalityCurve
        Return value of :func:`jacrot.inspection.locality_curve`, or one entry of it for a whole
        network.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
    lines_ : dict of str to Line2D
        ``"before"``, ``"after"``, ``"weighted_before"`` and ``"weighted_after"``.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from jacrot.display import LocalityDisplay
    >>> from jacrot.inspection import LocalityCurve
    >>> before, after, effect = np.full((2, 5), 4.0), np.full((2, 5), 1.0), np.ones((2, 5))
    >>> curve = LocalityCurve(np.array([0.1, 1.0]), 0.1, 8, before, after, effect, effect)
    >>> LocalityDisplay.from_result(curve).lines_["after"].get_ydata()
    array([1., 1.])
    """

    def __init__(self, result: LocalityCurve) -> None:
        if isinstance(result, dict):
            raise ValueError(
                f"result has the layers {list(result)}; pass one of them, such as result[0]."
            )
        super().__init__(result)

    def _draw(self) -> None:
        result = self.result
        before: dict[str, Any] = {"color": VERMILION, "marker": "s"}
        after: dict[str, Any] = {"color": BLUE, "marker": "o"}
        weighted: dict[str, Any] = {"linestyle": "--", "fillstyle": "none"}
        self.lines_: dict[str, Line2D] = {}
        for name, counts, label, style in (
            ("before", result.mean_before, "given basis", before),
            ("weighted_before", result.weighted_before, "given, by effect", before | weighted),
            ("after", result.mean_after, "rotated basis", after),
            ("weighted_after", result.weighted_after, "rotated, by effect", after | weighted),
        ):
            (self.lines_[name],) = self.ax_.plot(result.steps, counts, label=label, **style)
        self.ax_.set_xscale("log")
        self.ax_.xaxis.set_major_locator(FixedLocator(result.steps.tolist()))
        self.ax_.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:g}"))
        self.ax_.xaxis.set_minor_locator(NullLocator())
        self.ax_.set_ylim(bottom=0)
        self.ax_.set_xlabel("step of one activation, in its standard deviations")
        self.ax_.set_ylabel(
            f"outputs that change by more than\n{100 * result.share:g} % of the largest change"
        )
        set_wrapped_title(
            self.ax_,
            f"Outputs that a step of one activation changes, of {result.n_outputs:,}\n"
            "(mean over samples and axes; dashed: axes weighted by their effect)",
        )
        add_legend_beside(self.ax_)
