"""Warnings that refer to the line of the user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Packages whose frames are between the line of the user and the warning; ``abc`` if that line
# defines a class.
_OURS = ("jacrot", "sklearn", "abc")
# Not a warning filter: those belong to the process, and another thread may change them.
_silent = ContextVar("_silent", default=False)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning for the line that called this package, directly or through scikit-learn.

    Python shows a warning once for each line, so that a line of this package would hide all but
    the first.

    Parameters
    ----------
    message : str
        The message.
    category : type, default=UserWarning
        Class of the warning.
    """
    if _silent.get():
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _package(frame.f_globals) in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress the warnings of this package, for parts of a fit that the whole fit repeats.

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
