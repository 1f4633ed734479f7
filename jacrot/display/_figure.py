"""What the pictures share: one place to draw, colours and lines, and text that fits."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that the colour-blind tell apart, and that differ in grey (Okabe and Ito, "Color universal
# design", 2008).
BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
GREY, LIGHT_GREY = "0.45", "0.93"
# In print without colours, lines are told apart by these. No two of the counts have a common
# factor, so that only the 105th line looks like the first.
MARKERS = ("o", "s", "^", "v", "D", "P", "X")
LINESTYLES = ("-", "--", "-.")
# Width of a letter, as a share of the size of the font: more than the mean of any text here.
LETTER = 0.55


def one_axes(ax: Axes | None, width: float = 6.4, height: float = 4.2) -> Axes:
    """Take the Axes to draw into, or make a figure with one.

    Parameters
    ----------
    ax : Axes or None
        What the user gave.
    width, height : float
        Size of a new figure, in inches.

    Returns
    -------
    Axes
        Where to draw.
    """
    if ax is not None:
        return ax
    return plt.figure(figsize=(width, height), layout="constrained").add_subplot()


def figure_of(ax: Axes) -> Figure:
    """Find the figure of an Axes.

    Parameters
    ----------
    ax : Axes
        The Axes.

    Returns
    -------
    Figure
        Its figure.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def line_look(index: int) -> dict[str, Any]:
    """Choose how a line of several looks: by its colour, and without it by dashes and markers.

    Parameters
    ----------
    index : int
        Which line it is.

    Returns
    -------
    dict
        Options of ``Axes.plot``.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINESTYLES[index % len(LINESTYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


def set_wrapped_title(ax: Axes, text: str, **options: Any) -> None:
    """Write a title in lines as long as an Axes is wide.

    Parameters
    ----------
    ax : Axes
        The Axes.
    text : str
        The title; its own line breaks are kept.
    **options : dict
        Passed to ``Axes.set_title``.
    """
    title = ax.set_title("", **{"fontsize": "medium", "loc": "left"} | options)
    size = float(title.get_fontsize())
    width = ax.get_window_extent().width * 72 / figure_of(ax).dpi
    n_letters = max(20, int(width / (LETTER * size)))
    title.set_text("\n".join(fill(line, n_letters) for line in text.split("\n")))


def legend_beside(ax: Axes) -> None:
    """Put the legend beside an Axes, where it covers no line.

    Parameters
    ----------
    ax : Axes
        The Axes.
    """
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
