"""The command line: find a rotation from files, and describe a file."""

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

# Exit status for input that cannot be used.
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
        130 if Ctrl-C ended the run; 1 if the pipe that `info` printed to was closed.

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
        # Imported only where it is used, since that takes seconds.
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
    """Return the message of an error, without the error number of the system."""
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename!r}" if error.filename is not None else ""
        return f"{error.strerror}{named}"
    return str(error) or type(error).__name__
