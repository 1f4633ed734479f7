"""Helpers of several readers: same padding, and overridden methods of instances."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any


def same_padding(
    sizes: Sequence[int | None],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    more_before: bool = False,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Compute TensorFlow's ``same`` padding, with which ``ceil(size / stride)`` windows fit.

    Parameters
    ----------
    sizes : sequence of (int or None)
        Height and width of the image, ``None`` if unknown.
    kernel, stride, dilation : sequence of int
        Values for rows and for columns.
    more_before : bool, default=False
        Whether the larger half of an odd padding is added before the image.

    Returns
    -------
    pair of pairs of int
        Rows before and after the image, columns before and after the image.

    Raises
    ------
    ValueError
        If the padding depends on an unknown size, because a stride is not one.
    """
    padding = []
    for size, width, step, spread in zip(sizes, kernel, stride, dilation, strict=True):
        reach = (width - 1) * spread
        if step == 1:
            total = reach
        elif size is None:
            raise ValueError("same padding with a stride depends on the size of the image")
        else:
            total = max((-(-size // step) - 1) * step + reach + 1 - size, 0)
        small, large = total // 2, total - total // 2
        padding.append((large, small) if more_before else (small, large))
    return padding[0], padding[1]


def instance_overrides(module: Any) -> set[str]:
    """Return the names of functions that override methods on a module itself, not on its class.

    Parameters
    ----------
    module : object
        Module of PyTorch or Keras.

    Returns
    -------
    set of str
        Names of callable attributes of the instance, except for the methods of its own class.
    """
    return {
        name
        for name, value in vars(module).items()
        if callable(value)
        and not (
            inspect.ismethod(value)
            and value.__self__ is module
            and value.__func__ is getattr(type(module), name, None)
        )
    }
