"""The order of layers, as far as the names of stored weights determine it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

# Flax and Keras name a module by its class and by how many of the class were constructed before:
# f(g(x)) written in one expression constructs f first.
_AUTOMATIC = re.compile(r"(?:.*[/.])?_*(?:[A-Z]\w*|conv2d|dense)_\d+")
# Steps of the search for an order; that of a hundred layers takes some ten thousand.
_MOST_STEPS = 100_000


def is_automatic(name: str) -> bool:
    """Check whether the number at the end of a name counts constructions, not calls.

    Parameters
    ----------
    name : str
        Name of a module, or its path.

    Returns
    -------
    bool
        Whether Flax or Keras chose the name.

    Examples
    --------
    >>> from jacrot.layers._names import is_automatic
    >>> is_automatic("encoder/Dense_0"), is_automatic("layers_0")
    (True, False)
    """
    return _AUTOMATIC.fullmatch(name) is not None


def only_order(
    follows: Sequence[Collection[int]], first: Iterable[int] | None = None
) -> list[int] | None:
    """Find the only order in which every item can follow the one before it.

    Parameters
    ----------
    follows : sequence of collection of int
        For each item, those that can come directly after it.
    first : iterable of int, default=None
        The items that can come first; ``None`` for all.

    Returns
    -------
    list of int or None
        The order; ``None`` if there is none, if there are several, or if finding out takes too
        many steps.

    Examples
    --------
    >>> from jacrot.layers._names import only_order
    >>> only_order([[], [0]])
    [1, 0]
    >>> only_order([[1], [0]]) is None
    True
    """
    found: list[int] | None = None
    path: list[int] = []
    candidates = [iter(range(len(follows)) if first is None else first)]
    for _ in range(_MOST_STEPS):
        item = next((item for item in candidates[-1] if item not in path), None)
        if item is None:
            candidates.pop()
            if not path:
                return found
            path.pop()
            continue
        path.append(item)
        if len(path) == len(follows):
            if found is not None:
                return None
            found = list(path)
        candidates.append(iter(follows[item]))
    return None


def first_out_of_order(names: Iterable[str]) -> tuple[str, str] | None:
    """Find two names that differ only in their numbers, of which the larger comes first.

    Parameters
    ----------
    names : iterable of str
        Names in some order, such as that of a file.

    Returns
    -------
    tuple of str or None
        The two names, ``None`` if there are none.

    Examples
    --------
    >>> from jacrot.layers._names import first_out_of_order
    >>> first_out_of_order(["W0", "W1", "W10", "W2"])
    ('W10', 'W2')
    """
    latest: dict[str, tuple[list[int], str]] = {}
    for name in names:
        pattern, numbers = re.sub(r"\d+", "#", name), list(map(int, re.findall(r"\d+", name)))
        if pattern in latest and latest[pattern][0] > numbers:
            return latest[pattern][1], name
        latest[pattern] = numbers, name
    return None
