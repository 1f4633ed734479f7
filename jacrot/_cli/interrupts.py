"""Ctrl-C, which extension modules replace by other errors or ignore."""

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
    """End the process on Ctrl-C in a block that only imports, and has nothing to clean up.

    Raised in an extension module that is partly imported, an exception may become another error or
    a crash.
    """

    def end(*arguments: Any) -> None:
        print_message("interrupted.")
        os._exit(INTERRUPTED)

    # A shell lets background processes ignore Ctrl-C.
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
    """Raise Ctrl-C again where it was raised in a callback that cannot raise exceptions.

    JAX, which pymanopt imports, makes the garbage collector call Python code. Exceptions in it are
    printed and ignored.
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
    """Check whether Ctrl-C caused an error, as in an extension module that is being imported."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
