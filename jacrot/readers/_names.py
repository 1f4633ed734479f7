"""Names of arrays in a file: which to take, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path


def selected(names: Sequence[str] | None, available: Iterable[str], path: Path) -> list[str]:
    """Check the names that a user wants.

    Parameters
    ----------
    names : sequence of str or None
        What the user gave, ``None`` for all.
    available : iterable of str
        The names in the file.
    path : Path
        The file, for the error.

    Returns
    -------
    list of str
        The names to take, in order.

    Raises
    ------
    ValueError
        If one is not there, or is there twice.
    """
    available = list(available)
    if names is None:
        return available
    if isinstance(names, str):
        raise ValueError(f"names={names!r} is one string; write a list of names.")
    for name in names:
        if name not in available:
            near = ", ".join(map(repr, get_close_matches(str(name), available, n=5, cutoff=0)))
            raise ValueError(
                f"names has {name!r}, which path={str(path)!r} does not hold; names like it are "
                f"{near}, and list_arrays(path) lists all."
            )
    if len(set(names)) < len(names):
        raise ValueError(f"names={list(names)} lists an array twice.")
    return list(names)


def layer_order(shapes: Mapping[str, tuple[int, ...]], path: Path) -> list[str]:
    """Order arrays by the numbers in their names, where these tell the order of the layers.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The shape of every array of a file that does not keep an order.
    path : Path
        The file, for the error.

    Returns
    -------
    list of str
        The name of every matrix, followed by that of its bias.

    Raises
    ------
    ValueError
        If there is something else than one matrix, and one vector or none, for each number, or
        if names differ in more than the number.
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
        f"path={str(path)!r} holds {', '.join(map(repr, list(shapes)[:6]))}"
        f"{', ...' if len(shapes) > 6 else ''}, from which the order of dense layers does not "
        "follow; write names=[...], the weights and biases in layer order (list_arrays(path) lists "
        "all)."
    )
