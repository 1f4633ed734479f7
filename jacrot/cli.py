"""The command line: a rotation and its report from files, and what a file holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jacrot._cli.console import discard_unprinted, open_descriptors, say
from jacrot._cli.options import parser

# The exit statuses of input that cannot be used, and of Ctrl-C, as shells have them.
UNUSABLE = 2
INTERRUPTED = 130


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
    if arguments is None:
        open_descriptors()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parser().parse_args(given)
        # Imported here, where Ctrl-C is caught, and not at all for the help.
        if options.command == "info":
            from jacrot._cli.info import info

            return info(options)
        from jacrot._cli.fit import fit

        return fit(options, given)
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
    """Check whether Ctrl-C was pressed while an extension module was imported, which hides it."""
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
