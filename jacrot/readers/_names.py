"""Selection and order of the arrays of a file by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path


def select_names(names: Sequence[str] | None, available: Iterable[str], path: Path) -> list[str]:
    """Check the names of the arrays to read.

    Parameters
    ----------
    names : sequence of str or None
        The value that the user passed, ``None`` for all.
    available : iterable of str
        Names in the file.
    path : Path
        The file, for the error message.

    Returns
    -------
    list of str
        The names of the arrays to read, in order.

    Raises
    ------
    ValueError
        If a name is unknown or occurs twice.
    """
    available = list(available)
    if names is None:
        return available
    if isinstance(names, str):
        raise ValueError(f"names={names!r} is one string; pass a list of names.")
    for name in names:
        if name not in available:
            near = ", ".join(map(repr, get_close_matches(str(name), available, n=5, cutoff=0)))
            raise ValueError(
                f"names has {name!r}, which path={str(path)!r} does not contain; similar names are "
                f"{near}, and list_arrays(path) lists all."
            )
    if len(set(names)) < len(names):
        raise ValueError(f"names={list(names)} lists an array twice.")
    return list(names)


def order_by_numbers(shapes: Mapping[str, tuple[int, ...]], path: Path) -> list[str]:
    """Order arrays by the numbers in their names, if these determine the order of the layers.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shape of every array, in any order.
    path : Path
        The file, for the error message.

    Returns
    -------
    list of str
        The name of every matrix, followed by that of its bias.

    Raises
    ------
    ValueError
        If there is not exactly one matrix and at most one vector for each number, or if names
        differ in more than the number.
    """
    layers: dict[tuple[int, ...], dict[int, str]] = {}
    patterns: dict[int, str] = {}
    for name, shape in shapes.items():
        ndim, layer = len(shape), tuple(map(int, re.findall(r"\d+", name)))
        pattern = re.sub(r"\d+", "#", name)
        if ndim in layers.setdefault(layer, {}) or patterns.setdefault(ndim, pattern) != pattern:
            break
        layers[layer][ndim] = name
    else:
        if all({2} <= kinds.keys() <= {1, 2} for kinds in layers.values()):
            return [
                layers[layer][ndim]
                for layer in sorted(layers)
                for ndim in (2, 1)
                if ndim in layers[layer]
            ]
    raise ValueError(
        f"path={str(path)!r} contains {', '.join(map(repr, list(shapes)[:6]))}"
        f"{', ...' if len(shapes) > 6 else ''}, which does not determine the order of dense "
        "layers; pass names=[...], the weights and biases in layer order (list_arrays(path) lists "
        "all)."
    )
