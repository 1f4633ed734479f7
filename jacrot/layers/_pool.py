"""Pooling over windows of images, and flattening."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import Array
from jacrot.layers._base import BaseLayer, Positions, identity_tangents
from jacrot.layers._fields import Converted
from jacrot.layers._protocol import Layer
from jacrot.layers._windows import Padding, Pair, Sides, Windows, check_images, pair, sides

NO_PADDING = ((0, 0), (0, 0))


def _optional_pair(value: int | Pair | None, name: str, layer: object) -> Pair | None:
    return None if value is None else pair(value, name)


def _stride(value: int | Pair | None, name: str, layer: Any) -> Any:
    return layer.size if value is None else pair(value, name)


@dataclass(frozen=True, eq=False)
class AvgPool2d(BaseLayer):
    """Mean over windows of images, or over all positions.

    Parameters
    ----------
    size : int or pair of int, default=None
        Rows and columns of a window; ``None`` is one window over the whole image, whatever its
        size, and leaves images of one position.
    stride : int or pair of int, default=None
        Steps between the windows, ``None`` for `size`.
    padding : int, pair of int, or pair of pairs of int, default=0
        Zeros around the image.
    count_padding : bool, default=True
        Whether these zeros count in the mean, as they do by default in PyTorch but not in ONNX.

    Raises
    ------
    ValueError
        If a number is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import AvgPool2d
    >>> AvgPool2d(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    size: Converted[int | Pair | None, Pair | None] = Converted(_optional_pair, None)
    stride: Converted[int | Pair | None, Pair | None] = Converted(_stride, None)
    padding: Converted[Padding, Sides] = Converted(sides, 0)
    count_padding: bool = True
    input_ndims = (4,)

    def __post_init__(self) -> None:
        if self.size is None and (self.stride is not None or self.padding != NO_PADDING):
            raise ValueError(
                "size is None, one window over the whole image: pass no stride and no padding."
            )

    def __repr__(self) -> str:
        return f"AvgPool2d({'' if self.size is None else self.size})"

    def __call__(self, x: Array) -> Array:
        return self._mean(check_images(x, self))

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        return self(x), self._mean(tangents)

    def rotate_inputs(self, rotation: Array) -> Layer:
        # A mean over positions does not mix channels: it commutes with the rotation.
        return super().rotate_outputs(rotation.T)

    def reach(self, positions: Positions) -> Positions:
        if self.size is None:
            return np.ones((1, 1), bool)
        return self._windows.reach(positions)

    @property
    def _windows(self) -> Windows:
        assert self.size is not None
        assert self.stride is not None
        return Windows(self.size, self.stride, padding=self.padding)

    def _mean(self, x: Array) -> Array:
        if self.size is None:
            return x.mean(axis=(2, 3), keepdims=True)
        total = sum(self._windows.slices(x))
        if self.count_padding:
            return np.asarray(total / int(np.prod(self.size)))
        ones = np.ones((1, 1, *x.shape[2:4], *[1] * (x.ndim - 4)), x.dtype)
        return np.asarray(total / sum(self._windows.slices(ones)))


@dataclass(frozen=True, eq=False)
class MaxPool2d(BaseLayer):
    """Largest entry of every window, the first one among equals, as in PyTorch.

    Parameters
    ----------
    size : int or pair of int
        Rows and columns of a window.
    stride : int or pair of int, default=None
        Steps between the windows, ``None`` for `size`.
    padding : int, pair of int, or pair of pairs of int, default=0
        Rows and columns added around the image, which are never the largest.
    dilation : int or pair of int, default=1
        Steps between the entries of a window.

    Raises
    ------
    ValueError
        If a number is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import MaxPool2d
    >>> MaxPool2d(2)(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[3.]]]])
    """

    size: Converted[int | Pair, Pair] = Converted(pair)
    stride: Converted[int | Pair | None, Pair] = Converted(_stride, None)
    padding: Converted[Padding, Sides] = Converted(sides, 0)
    dilation: Converted[int | Pair, Pair] = Converted(pair, 1)
    input_ndims = (4,)

    @cached_property
    def windows(self) -> Windows:
        """The windows whose largest entries are found."""
        return Windows(self.size, self.stride, self.dilation, self.padding)

    def __repr__(self) -> str:
        return f"MaxPool2d({self.size})"

    def __call__(self, x: Array) -> Array:
        return self._largest(x)[0]

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        y, place = self._largest(x)
        pushed = np.zeros((*y.shape, tangents.shape[-1]), tangents.dtype)
        for index, seen in enumerate(self.windows.slices(tangents)):
            np.copyto(pushed, seen, where=(place == index)[..., None])
        return y, pushed

    def reach(self, positions: Positions) -> Positions:
        return self.windows.reach(positions)

    def _largest(self, x: Array) -> tuple[Array, NDArray[np.intp]]:
        check_images(x, self)
        best = np.full((*x.shape[:2], *self.windows.grid(x.shape[2:])), -np.inf, x.dtype)
        place = np.zeros(best.shape, np.intp)
        for index, seen in enumerate(self.windows.slices(x, fill=-np.inf)):
            larger = seen > best
            best[larger], place[larger] = seen[larger], index
        return best, place


@dataclass(frozen=True, eq=False)
class Flatten(BaseLayer):
    """All entries of a sample in one row, the last axis fastest.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Flatten
    >>> Flatten()(np.arange(4.0).reshape(1, 2, 1, 2))
    array([[0., 1., 2., 3.]])
    """

    def __repr__(self) -> str:
        return "Flatten()"

    def __call__(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        return self(x), tangents.reshape(len(x), -1, tangents.shape[-1])

    def output_ndim(self, ndim: int) -> int:
        return 2
