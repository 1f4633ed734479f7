"""The geometry of windows that slide over images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import Array
from jacrot.layers._base import Positions

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
Padding = int | Pair | Sides


@dataclass(frozen=True)
class Windows:
    """Windows of one size at regular places of a padded image.

    Parameters
    ----------
    size, stride, dilation : tuple of int
        Rows and columns of a window, steps between windows, steps inside one.
    padding : tuple of tuple of int
        Rows added above and below, columns added left and right.
    """

    size: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))

    def grid(self, shape: tuple[int, ...]) -> Pair:
        """Count the windows on images of some height and width."""
        counts = []
        for axis, name in enumerate(("height", "width")):
            extent = shape[axis] + sum(self.padding[axis])
            span = self.dilation[axis] * (self.size[axis] - 1) + 1
            if extent < span:
                raise ValueError(
                    f"images have {name} {shape[axis]} (padded: {extent}) but a window takes "
                    f"{span}; pass larger images."
                )
            counts.append((extent - span) // self.stride[axis] + 1)
        return counts[0], counts[1]

    def slices(self, x: NDArray[Any], fill: float = 0.0) -> Iterator[NDArray[Any]]:
        """Yield, for every place in the window, the entries that all windows have there.

        Parameters
        ----------
        x : ndarray of shape (n_samples, n_channels, height, width, ...)
            Images, or tangents.
        fill : float, default=0.0
            Value of the padding.

        Yields
        ------
        ndarray of shape (n_samples, n_channels, n_rows, n_columns, ...)
            A view, for the places of the window row by row.
        """
        rows, columns = self.grid(x.shape[2:4])
        if any(map(any, self.padding)):
            widths = [(0, 0), (0, 0), *self.padding] + [(0, 0)] * (x.ndim - 4)
            x = np.pad(x, widths, constant_values=fill)
        for i, j in np.ndindex(self.size):
            top, left = i * self.dilation[0], j * self.dilation[1]
            yield x[
                :,
                :,
                top : top + (rows - 1) * self.stride[0] + 1 : self.stride[0],
                left : left + (columns - 1) * self.stride[1] + 1 : self.stride[1],
            ]

    def reach(self, positions: Positions) -> Positions:
        """Find the windows that contain one of some positions."""
        return np.any(list(self.slices(positions[None, None])), axis=0)[0, 0]


def pair(value: Any, name: str, layer: object = None, least: int = 1) -> Pair:
    """Convert a whole number for rows and columns, or one for each.

    Parameters
    ----------
    value : int or pair of int
        What a constructor was passed.
    name : str
        Name of the argument, for the error.
    layer : object, default=None
        Not used: it makes this the converter of a field.
    least : int, default=1
        The smallest value allowed.

    Returns
    -------
    tuple of int
        Rows and columns.

    Raises
    ------
    ValueError
        If it is something else.
    """
    both = (value, value) if isinstance(value, Integral) else value
    if not isinstance(both, (tuple, list)) or len(both) != 2 or not all(map(_is_whole, both)):
        raise ValueError(f"{name}={value!r} must be a whole number, or two: (rows, columns).")
    if min(both) < least:
        raise ValueError(f"{name}={value!r} must be at least {least}.")
    return int(both[0]), int(both[1])


def sides(value: Any, name: str, layer: object = None) -> Sides:
    """Convert a padding, the same on opposite sides or one for each side.

    Parameters
    ----------
    value : int, pair of int, or pair of pairs of int
        What a constructor was passed.
    name : str
        Name of the argument, for the error.
    layer : object, default=None
        Not used: it makes this the converter of a field.

    Returns
    -------
    tuple of tuple of int
        ``((top, bottom), (left, right))``.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if isinstance(value, (tuple, list)) and any(isinstance(side, (tuple, list)) for side in value):
        if len(value) != 2:
            raise ValueError(f"{name}={value!r} must be ((top, bottom), (left, right)).")
        rows, columns = (pair(item, f"{name}[{axis}]", least=0) for axis, item in enumerate(value))
        return rows, columns
    row, column = pair(value, name, least=0)
    return (row, row), (column, column)


def check_images(x: Array, layer: object, n_channels: int | None = None) -> Array:
    """Check that a batch consists of images.

    Parameters
    ----------
    x : ndarray
        The batch.
    layer : object
        The layer that reads it, for the error.
    n_channels : int, default=None
        Number of channels that it must have, ``None`` for any.

    Returns
    -------
    ndarray
        The batch.

    Raises
    ------
    ValueError
        If it has another number of dimensions or of channels.
    """
    if x.ndim != 4 or n_channels not in (None, x.shape[1]):
        channels = "channels" if n_channels is None else n_channels
        raise ValueError(
            f"{layer!r} reads images (n_samples, {channels}, height, width), got shape {x.shape}."
        )
    return x


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
