"""What is printed: never more than a stream can take, and never at the cost of a result."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from io import TextIOBase
from typing import Any

from jacrot._utils.text import UNWRITABLE, encodable, printable

# Seconds between the lines that stand for a progress bar where there is no terminal.
PROGRESS_INTERVAL = 10.0
# The exit status of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130
# Seconds after which Ctrl-C is raised again.
REPEAT_DELAY = 0.05


class Output:
    """The standard output of a command; the first failure to print is kept, not raised.

    Parameters
    ----------
    quiet : bool, default=False
        Whether nothing is printed.

    Attributes
    ----------
    failure : OSError or ValueError or None
        The failure.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.failure: OSError | ValueError | None = None

    def show(self, text: str) -> None:
        """Print lines, unless printing has failed before."""
        if self.quiet or self.failure is not None:
            return
        try:
            _write(sys.stdout, text)
        except UNWRITABLE as error:
            self.failure = error


def say(text: str) -> None:
    """Print one line to the standard error, where that is possible."""
    with suppress(*UNWRITABLE):
        _write(sys.stderr, f"jacrot: {printable(' '.join(text.split()))}")


@contextmanager
def collected(messages: list[str], prefix: str = "") -> Iterator[None]:
    """Collect the warnings of a block, each once, and print them at its end."""
    new: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            for category in (UserWarning, RuntimeWarning):
                warnings.simplefilter("always", category)
            yield
    finally:
        for warning in caught:
            message = f"{prefix}{warning.message}"
            if message not in messages:
                messages.append(message)
                new.append(message)
        for message in new:
            say(f"warning: {message}")


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
    """A stream that passes on whole lines, and the state of a progress bar now and then.

    A bar is drawn again and again after a carriage return, which a file would keep.
    """

    def __init__(self, stream: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._text = ""
        self._latest = -PROGRESS_INTERVAL

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str, /) -> int:
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._pass_on(line)
        bar = self._text.rpartition("\r")
        if bar[1] and self._clock() - self._latest >= PROGRESS_INTERVAL:
            self._pass_on(self._text)
            self._text = "\r"
            self._latest = self._clock()
        return len(text)

    def end(self) -> None:
        """Pass on what has not ended with a line."""
        self._pass_on(self._text)
        self._text = ""

    def _pass_on(self, line: str) -> None:
        line = printable(line.rpartition("\r")[2]).rstrip()
        if line:
            with suppress(*UNWRITABLE):
                _write(self._stream, line)


def _write(stream: Any, text: str) -> None:
    """Write lines to a stream, now."""
    # A process whose streams are closed has none.
    if stream is not None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(f"{encodable(text, encoding)}\n")
        stream.flush()


def open_descriptors() -> None:
    """Open the standard streams that are closed on the null device.

    The next file that is opened would take the place of one of them, and hold what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is taken.
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def drawing_to_files() -> Iterator[None]:
    """Import matplotlib with a backend that draws to files, whichever a notebook has set.

    One that is not installed ends the import.
    """
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = before


@contextmanager
def ending_on_interrupt() -> Iterator[None]:
    """End the process where Ctrl-C is pressed in a block that imports, and has nothing to clean up.

    An exception would come back as any error, or crash, in an extension that is half imported.
    """

    def end(*arguments: Any) -> None:
        say("interrupted.")
        os._exit(INTERRUPTED)

    # A shell has Ctrl-C ignored by what it starts in the background.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def repeat_swallowed_interrupts() -> None:
    """Raise Ctrl-C again where a callback swallowed it, instead of printing where that was.

    JAX, which pymanopt imports, has the garbage collector call Python code. What that raises is
    printed and forgotten.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not at once: the callback is still running.
            timer = threading.Timer(REPEAT_DELAY, _thread.interrupt_main)
            timer.daemon = True
            timer.start()
        else:
            before(unraisable)

    sys.unraisablehook = hook


def discard_unprinted() -> None:
    """Discard what the standard output could not take, lest the interpreter tries again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except UNWRITABLE:
        with suppress(*UNWRITABLE):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
