"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Frames of these packages lie between the user's line and the warning: of ``abc`` where the line
# defines a class.
_OURS = ("jacrot", "sklearn", "abc")
# Filters of warnings belong to the process, and another thread may change them meanwhile.
_silent = ContextVar("_silent", default=False)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this package, directly or through scikit-learn.

    Python shows a warning once for each line, so that a line of ours would hide all but the first.

    Parameters
    ----------
    message : str
        What is shown.
    category : type, default=UserWarning
        The class of the warning.
    """
    if _silent.get():
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _package(frame.f_globals) in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def silenced() -> Iterator[None]:
    """Leave out our own warnings, for parts of a fit whose warnings the whole gives too.

    Yields
    ------
    None
    """
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _package(namespace: dict[str, object]) -> str:
    return str(namespace.get("__name__", "")).partition(".")[0]
