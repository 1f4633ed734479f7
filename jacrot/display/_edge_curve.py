"""Plot of how a network's metric depends on the number of connections kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from jacrot.display._base import ResultDisplay
from jacrot.display._style import GREY, add_legend_beside, line_style, set_wrapped_title
from jacrot.inspection import EdgeCurve
from jacrot.inspection._edge_count import LEVEL

NAMES = {
    "cross_entropy": "cross-entropy",
    "kl": "KL divergence from the full network",
}
# Small divergences are the interesting ones: their scale is logarithmic down to this, and linear
# below.
SMALL_DIVERGENCE = 1e-3
# Opacity of a band, low enough for lines under several bands to be seen.
BAND_ALPHA = 0.15


class EdgeCurveDisplay(ResultDisplay[EdgeCurve | Mapping[str, EdgeCurve]]):
    """Metric against the number of connections kept, in one basis or in several.

    The horizontal lines are the metric of the full network, and of the network whose layers are
    replaced by their least-squares affine maps. Where the affine map does as well as the network,
    few connections mean low rank, not structure. A low rank of ``G``, the second moment of what
    reads the outputs of a layer, means the same, and is in the title. The bands are the intervals
    of the curves. They compare losses with those of the full network on the same resampled inputs,
    so that they vanish where nothing is removed.

    Parameters
    ----------
    result : EdgeCurve or mapping of str to EdgeCurve
        Return value of :func:`jacrot.inspection.edge_curve`, or several of them by name, such as
        the name of their basis.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
    lines_ : dict of str to Line2D
        The curves, by name; the name of a single one is ``"kept edges"``.
    bands_ : dict of str to PolyCollection
        Their 95 % intervals, by name.
    full_line_, affine_line_ : Line2D
        The full network, and the affine maps.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from jacrot.datasets import load_digits_mlp
    >>> from jacrot.display import EdgeCurveDisplay
    >>> from jacrot.inspection import edge_curve
    >>> digits = load_digits_mlp()
    >>> test, calibration = (digits.X_test, digits.y_test), digits.X[:200]
    >>> curves = {
    ...     basis: edge_curve(digits.network, *test, calibration=calibration, layer=1, basis=basis)
    ...     for basis in ("given", "interaction")
    ... }
    >>> list(EdgeCurveDisplay.from_result(curves).lines_)
    ['given', 'interaction']
    """

    def __init__(self, result: EdgeCurve | Mapping[str, EdgeCurve]) -> None:
        super().__init__(result)
        self.curves = dict(result) if isinstance(result, Mapping) else {"kept edges": result}
        if not self.curves:
            raise ValueError("result holds no curve; pass at least one.")
        first, *others = self.curves.values()
        for curve in others:
            same = np.allclose((first.full, first.affine), (curve.full, curve.affine))
            if (first.metric, first.ranks) != (curve.metric, curve.ranks) or not same:
                raise ValueError(
                    "result holds curves of different metrics, samples or layers "
                    f"({_summary(first)}; {_summary(curve)}); pass those of one layer, or of the "
                    "whole network, that differ in the basis only."
                )

    def _draw(self) -> None:
        first, *_ = self.curves.values()
        self.ax_.set_xscale("log")
        if first.metric == "kl":
            self.ax_.set_yscale("symlog", linthresh=SMALL_DIVERGENCE)
        self.full_line_ = self.ax_.axhline(
            first.full, color=GREY, linewidth=1, label=f"full network ({first.full:.4g})"
        )
        self.affine_line_ = self.ax_.axhline(
            first.affine,
            color=GREY,
            linewidth=1,
            linestyle="--",
            label=f"affine map ({first.affine:.4g})",
        )
        self.lines_: dict[str, Line2D] = {}
        self.bands_: dict[str, PolyCollection] = {}
        for index, (name, curve) in enumerate(self.curves.items()):
            style = line_style(index)
            (self.lines_[name],) = self.ax_.plot(
                curve.n_edges, curve.values, linewidth=1.3, label=name, **style
            )
            self.bands_[name] = self.ax_.fill_between(
                curve.n_edges, *curve.intervals, color=style["color"], alpha=BAND_ALPHA, linewidth=0
            )
        self.ax_.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        self.ax_.set_xlabel("edges kept, strongest first")
        self.ax_.set_ylabel(NAMES.get(first.metric, first.metric))
        where = "what the layer writes" if len(first.ranks) == 1 else "what each layer writes"
        ranks = ", ".join(map(str, first.ranks))
        title = f"{ranks} directions of {where} reach the logits (rank of G)"
        set_wrapped_title(self.ax_, f"{title}\nbands: {100 * LEVEL:g} % intervals over the inputs")
        add_legend_beside(self.ax_)


def _summary(curve: EdgeCurve) -> str:
    return (
        f"{curve.metric} {curve.full:g}, affine map {curve.affine:g}, "
        f"rank of G {', '.join(map(str, curve.ranks))}"
    )
