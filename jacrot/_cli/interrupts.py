"""Ctrl-C, which extensions of Python hide or swallow."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jacrot._cli.console import print_message

# The exit status of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130
# Seconds after which Ctrl-C is raised again.
REPEAT_DELAY = 0.05


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """End the process where Ctrl-C is pressed in a block that imports, and has nothing to clean up.

    An exception would come back as any error, or crash, in an extension that is half imported.
    """

    def end(*arguments: Any) -> None:
        print_message("interrupted.")
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


def was_interrupted(error: BaseException | None) -> bool:
    """Check whether an error hides Ctrl-C, as extensions that are imported then do."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
