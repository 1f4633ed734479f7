"""The command line: a rotation and its report from files, and what a file holds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from jacrot._cli.console import discard_unprinted, open_descriptors, print_message
from jacrot._cli.interrupts import (
    INTERRUPTED,
    exit_on_interrupt,
    repeat_swallowed_interrupts,
    was_interrupted,
)
from jacrot._cli.parser import parse

# The exit status of input that cannot be used.
UNUSABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        What follows the name of the command; ``None`` for those of the process.

    Returns
    -------
    int
        The exit status: 0; 2 for input that cannot be used, with one line on the standard error;
        130 where Ctrl-C ended the run; 1 where nobody read what `info` printed.

    Examples
    --------
    >>> from jacrot.cli import main
    >>> main(["info", "/no/such/file.npz"])
    2
    """
    own_process = arguments is None
    if own_process:
        open_descriptors()
        repeat_swallowed_interrupts()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        name, options = parse(arguments)
        # Imported here, for this command only, since it takes seconds.
        with exit_on_interrupt() if own_process else nullcontext():
            command = importlib.import_module(f"jacrot._cli.{name}")
        status: int = command.run(options, arguments)
        return status
    except BrokenPipeError:
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if was_interrupted(error):
            print_message("interrupted.")
            return INTERRUPTED
        if not isinstance(error, (ImportError, MemoryError, OSError, TypeError, ValueError)):
            raise
        print_message(f"error: {_message(error)}")
        return UNUSABLE
    finally:
        discard_unprinted()


def _message(error: Exception) -> str:
    """Return what an error says, without the number that the system has for it."""
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename!r}" if error.filename is not None else ""
        return f"{error.strerror}{named}"
    return str(error) or type(error).__name__
