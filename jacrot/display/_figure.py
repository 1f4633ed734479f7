"""What the pictures share: one place to draw, and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that the colour-blind tell apart, and that differ in grey (Okabe and Ito, "Color universal
# design", 2008).
BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
GREY, LIGHT_GREY = "0.45", "0.93"


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
