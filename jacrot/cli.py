"""The command line: a rotation and its report from files, and what a file holds."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from jacrot._cli.console import (
    INTERRUPTED,
    discard_unprinted,
    ending_on_interrupt,
    open_descriptors,
    repeat_swallowed_interrupts,
    say,
)
from jacrot._cli.options import parser

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
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parser().parse_args(given)
        # Imported here, for this command only, since it takes seconds.
        with ending_on_interrupt() if own_process else nullcontext():
            command = importlib.import_module(f"jacrot._cli.{options.command}")
        status: int = command.run(options, given)
        return status
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        say("interrupted.")
        return INTERRUPTED
    except Exception as error:
        if _was_interrupted(error):
            say("interrupted.")
            return INTERRUPTED
        if not isinstance(error, (ImportError, MemoryError, OSError, TypeError, ValueError)):
            raise
        say(f"error: {_message(error)}")
        return UNUSABLE
    finally:
        discard_unprinted()


def _was_interrupted(error: BaseException | None) -> bool:
    """Check whether an error hides Ctrl-C, as extensions that are imported then do."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _message(error: Exception) -> str:
    """Return what an error says, without the number that the system has for it."""
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename!r}" if error.filename is not None else ""
        return f"{error.strerror}{named}"
    return str(error) or type(error).__name__
