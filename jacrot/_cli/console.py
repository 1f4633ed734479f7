"""Printing: only what a stream can encode, and failures to print lose no result."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import TextIOBase
from typing import Any

from jacrot._utils.text import UNWRITABLE, escape_control_characters, replace_unencodable

# Seconds between the lines that replace a progress bar in a file or a pipe.
PROGRESS_INTERVAL = 10.0


class Console:
    """The standard output of a command, and the warnings of what it computes.

    Parameters
    ----------
    quiet : bool, default=False
        Whether only warnings and errors are printed.

    Attributes
    ----------
    failure : OSError or ValueError or None
        The first failure to print, which is not raised. Nothing is printed after it.
    messages : list of str
        The warnings, each once.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.failure: OSError | ValueError | None = None
        self.messages: list[str] = []

    def show(self, text: str) -> None:
        """Print lines to the standard output, unless printing failed before."""
        if self.quiet or self.failure is not None:
            return
        try:
            _write(sys.stdout, text)
        except UNWRITABLE as error:
            self.failure = error

    def announce(self, text: str) -> None:
        """Print one line to the standard error, unless `quiet`."""
        if not self.quiet:
            print_message(text)

    @contextmanager
    def collect_warnings(self, prefix: str = "") -> Iterator[None]:
        """Collect the warnings of a block, and print new ones at its end."""
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                for category in (UserWarning, RuntimeWarning):
                    warnings.simplefilter("always", category)
                yield
        finally:
            for message in (f"{prefix}{warning.message}" for warning in caught):
                if message not in self.messages:
                    self.messages.append(message)
                    print_message(f"warning: {message}")


def print_message(text: str) -> None:
    """Print one line to the standard error, where that is possible."""
    with suppress(*UNWRITABLE):
        _write(sys.stderr, f"jacrot: {escape_control_characters(' '.join(text.split()))}")


@contextmanager
def progress_as_lines() -> Iterator[None]:
    """Print a progress bar as lines where the standard error is a file or a pipe."""
    stream = sys.stderr
    try:
        is_terminal = stream is not None and stream.isatty()
    except UNWRITABLE:
        is_terminal = False
    if is_terminal:
        yield
        return
    lines = _Lines(stream)
    try:
        with redirect_stderr(lines):
            yield
    finally:
        lines.end()


class _Lines(TextIOBase):
    """A stream that passes on whole lines, and the state of a progress bar at intervals.

    A bar is redrawn after a carriage return, and a file would keep every drawing.
    """

    def __init__(self, stream: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._text = ""
        self._latest = -PROGRESS_INTERVAL

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return _encoding(self._stream)

    def write(self, text: str, /) -> int:
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._pass_on(line)
        if "\r" in self._text and self._clock() - self._latest >= PROGRESS_INTERVAL:
            self._pass_on(self._text)
            self._text = "\r"
            self._latest = self._clock()
        return len(text)

    def end(self) -> None:
        """Pass on the last line, which may be incomplete."""
        self._pass_on(self._text)
        self._text = ""

    def _pass_on(self, line: str) -> None:
        line = escape_control_characters(line.rpartition("\r")[2]).rstrip()
        if line:
            with suppress(*UNWRITABLE):
                _write(self._stream, line)


def _write(stream: Any, text: str) -> None:
    """Write lines to a stream, and flush it."""
    # A process whose streams are closed has none.
    if stream is not None:
        stream.write(f"{replace_unencodable(text, _encoding(stream))}\n")
        stream.flush()


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def open_descriptors() -> None:
    """Open the standard streams that are closed on the null device.

    Otherwise the next file that is opened would become one of them, and receive what libraries
    print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is taken.
            os.open(os.devnull, os.O_RDWR)


def discard_unprinted() -> None:
    """Discard what could not be printed, so that the interpreter does not try again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except UNWRITABLE:
        with suppress(*UNWRITABLE):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
