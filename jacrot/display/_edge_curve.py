"""What a network needs of its connections, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from jacrot.display._figure import (
    GREY,
    figure_of,
    legend_beside,
    line_look,
    one_axes,
    set_wrapped_title,
)
from jacrot.inspection._edge_count import LEVEL

if TYPE_CHECKING:
    from jacrot.inspection import EdgeCurve

NAMES = {
    "cross_entropy": "cross-entropy",
    "kl": "KL divergence from the full network",
}
# Divergences are of interest where they are small; below this the scale is linear.
SMALL_DIVERGENCE = 1e-3
# How opaque a band is: several one over the other stay apart from the lines.
BAND = 0.15


class EdgeCurveDisplay:
    """Metric against the number of connections kept, in one basis or in several.

    Beside it the metric of the full network, and of the network with the layers replaced by their
    least-squares affine maps: where the affine map passes, few edges mean low rank, not structure.
    So does a low rank of ``G``, the second moment of what reads the outputs of a layer; it is in
    the title. Bands are the intervals of the curves, from losses on the same resamples of the
    inputs as the network's own, so that they close where nothing is removed.

    Parameters
    ----------
    result : EdgeCurve or mapping of str to EdgeCurve
        What :func:`jacrot.inspection.edge_curve` returned; several by their names, such as those
        of their bases.

    Attributes
    ----------
    ax_ : Axes
        The picture.
    figure_ : Figure
        Its figure.
    lines_ : dict of str to Line2D
        The curves, by name; that of a single one is ``"kept edges"``.
    bands_ : dict of str to PolyCollection
        Their 95 % intervals, by name.
    full_line_, affine_line_ : Line2D
        The full network, and the affine map.

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
        self.result = result
        self.curves = dict(result) if isinstance(result, Mapping) else {"kept edges": result}
        if not self.curves:
            raise ValueError("result holds no curve; pass at least one.")
        first, *others = self.curves.values()
        for curve in others:
            same = np.allclose((first.full, first.affine), (curve.full, curve.affine))
            if (first.metric, first.ranks) != (curve.metric, curve.ranks) or not same:
                raise ValueError(
                    "result holds curves of different metrics, samples or layers "
                    f"({_told(first)}; {_told(curve)}); pass those of one layer, or of the whole "
                    "network, that differ in the basis only."
                )

    @classmethod
    def from_result(
        cls, result: EdgeCurve | Mapping[str, EdgeCurve], *, ax: Axes | None = None
    ) -> Self:
        """Draw what ``edge_curve`` returned.

        Parameters
        ----------
        result : EdgeCurve or mapping of str to EdgeCurve
            A curve, or several by their names.
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        EdgeCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is no curve, or several differ in more than the basis.
        """
        return cls(result).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw, in a figure with ``layout="constrained"``: the legend stands beside it.
            ``None`` makes a new figure.

        Returns
        -------
        EdgeCurveDisplay
            The display.
        """
        self.ax_ = one_axes(ax, width=7.4)
        self.figure_ = figure_of(self.ax_)
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
        self.lines_, self.bands_ = {}, {}
        for index, (name, curve) in enumerate(self.curves.items()):
            look = line_look(index)
            (self.lines_[name],) = self.ax_.plot(
                curve.n_edges, curve.values, linewidth=1.3, label=name, **look
            )
            self.bands_[name] = self.ax_.fill_between(
                curve.n_edges, *curve.intervals, color=look["color"], alpha=BAND, linewidth=0
            )
        self.ax_.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        self.ax_.set_xlabel("edges kept, strongest first")
        self.ax_.set_ylabel(NAMES.get(first.metric, first.metric))
        where = "what the layer writes" if len(first.ranks) == 1 else "what each layer writes"
        ranks = ", ".join(map(str, first.ranks))
        title = f"{ranks} directions of {where} reach the logits (rank of G)"
        set_wrapped_title(self.ax_, f"{title}\nbands: {100 * LEVEL:g} % intervals over the inputs")
        legend_beside(self.ax_)
        return self


def _told(curve: EdgeCurve) -> str:
    return (
        f"{curve.metric} {curve.full:g}, affine map {curve.affine:g}, "
        f"rank of G {', '.join(map(str, curve.ranks))}"
    )
