"""Style that the displays share: colours, lines, and titles and legends that fit."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that colour-blind readers can distinguish, and that differ in grey (Okabe and Ito, "Color
# universal design", 2008).
BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
GREY, LIGHT_GREY = "0.45", "0.93"
# These distinguish lines that are printed without colours. No two of the three counts have a common
# factor, so that 105 lines differ.
MARKERS = ("o", "s", "^", "v", "D", "P", "X")
LINESTYLES = ("-", "--", "-.")
# Width of a letter, as a share of the font size: more than the mean of any text here.
LETTER = 0.55
# Letters in a line of a title, however narrow the Axes is.
SHORTEST_LINE = 20


def root_figure(ax: Axes) -> Figure:
    """Return the figure of an Axes, also of an Axes in a subfigure."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def line_style(index: int) -> dict[str, Any]:
    """Return the options of ``Axes.plot`` that distinguish the line `index` from the others."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINESTYLES[index % len(LINESTYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


def set_wrapped_title(ax: Axes, text: str, **options: Any) -> None:
    """Set a title whose lines are not longer than the Axes is wide.

    Parameters
    ----------
    ax : Axes
        The Axes.
    text : str
        The title. Its own line breaks are kept.
    **options : dict
        Passed to ``Axes.set_title``.
    """
    title = ax.set_title("", **{"fontsize": "medium", "loc": "left"} | options)
    size = float(title.get_fontsize())
    width = ax.get_window_extent().width * 72 / root_figure(ax).dpi
    n_letters = max(SHORTEST_LINE, int(width / (LETTER * size)))
    title.set_text("\n".join(fill(line, n_letters) for line in text.split("\n")))


def add_legend_beside(ax: Axes) -> None:
    """Add a legend to the right of an Axes, where it covers no line."""
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
