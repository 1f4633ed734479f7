"""Base classes of the displays that draw into one Axes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Self, TypeVar

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jacrot.display._style import root_figure

Result = TypeVar("Result")


class Display(ABC):
    """Base class of the displays that draw into one Axes.

    A subclass implements `_draw`, which draws into ``self.ax_``.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
    """

    ax_: Axes
    figure_: Figure

    @property
    def _size(self) -> tuple[float, float]:
        """Width and height, in inches, of the figure that is created where no Axes is passed."""
        return 7.4, 4.2

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw into. Legends stand beside it, which needs a figure with
            ``layout="constrained"``. If ``None``, a new figure is created.

        Returns
        -------
        Display
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is not an Axes.
        """
        if ax is None:
            ax = plt.figure(figsize=self._size, layout="constrained").add_subplot()
        elif not isinstance(ax, Axes):
            raise TypeError(f"ax is a {type(ax).__name__}; pass a single matplotlib Axes.")
        self.ax_ = ax
        self.figure_ = root_figure(ax)
        self._draw()
        return self

    @abstractmethod
    def _draw(self) -> None:
        """Draw into ``self.ax_``."""


class ResultDisplay(Display, Generic[Result]):
    """Base class of the displays of the result of an inspection.

    Parameters
    ----------
    result : object
        Return value of the inspection.
    """

    def __init__(self, result: Result) -> None:
        self.result = result

    @classmethod
    def from_result(cls, result: Result, *, ax: Axes | None = None) -> Self:
        """Draw the result of an inspection.

        Parameters
        ----------
        result : object
            Return value of the inspection, as in the constructor.
        ax : Axes, default=None
            Axes to draw into. Legends stand beside it, which needs a figure with
            ``layout="constrained"``. If ``None``, a new figure is created.

        Returns
        -------
        Display
            The display, drawn.

        Raises
        ------
        TypeError
            If `ax` is not an Axes.
        ValueError
            If `result` cannot be drawn.
        """
        return cls(result).plot(ax)
