"""How many outputs a real step changes, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from jacrot.display._figure import (
    BLUE,
    VERMILION,
    figure_of,
    legend_beside,
    one_axes,
    set_wrapped_title,
)

if TYPE_CHECKING:
    from jacrot.inspection import LocalityCurve


class LocalityDisplay:
    """Outputs that a step of one activation changes, before and after the rotation.

    Lines are means over the axes, dashed ones weighted by the effect of each axis.

    Parameters
    ----------
    result : LocalityCurve
        What :func:`jacrot.inspection.locality_curve` returned, or one layer of it.

    Attributes
    ----------
    ax_ : Axes
        The picture.
    figure_ : Figure
        Its figure.
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
                f"result has the layers {list(result)}; write one of them, such as result[0]."
            )
        self.result = result

    @classmethod
    def from_result(cls, result: LocalityCurve, *, ax: Axes | None = None) -> Self:
        """Draw what ``locality_curve`` returned.

        Parameters
        ----------
        result : LocalityCurve
            The counts; of a whole network, those of one layer.
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        LocalityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `result` holds several layers.
        """
        return cls(result).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the counts.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        LocalityDisplay
            The display.
        """
        result = self.result
        self.ax_ = one_axes(ax, width=7.4)
        self.figure_ = figure_of(self.ax_)
        before: dict[str, Any] = {"color": VERMILION, "marker": "s"}
        after: dict[str, Any] = {"color": BLUE, "marker": "o"}
        weighted: dict[str, Any] = {"linestyle": "--", "fillstyle": "none"}
        self.lines_ = {}
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
        legend_beside(self.ax_)
        return self
