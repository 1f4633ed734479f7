"""Checks of the files that a fit writes, before anything is computed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jacrot._cli.options import FitOptions
from jacrot._io import archive
from jacrot._io.files import check_writable
from jacrot._utils.optional import import_optional


def check_outputs(options: FitOptions) -> None:
    """Check that every output can be written, and is not an input or another output.

    Parameters
    ----------
    options : FitOptions
        The options of ``jacrot fit``.

    Raises
    ------
    ImportError
        If a package that writes a format is not installed.
    OSError, ValueError
        If a file cannot be written, or must not be.
    """
    taken = {"WEIGHTS": options.weights, "ACTIVATIONS": options.activations}
    if isinstance(options.held_out, Path):
        taken["--held-out"] = options.held_out
    outputs = {"-o": options.out, "--network": options.network, "--report": options.report}
    for flag, path in outputs.items():
        if path is None:
            continue
        shown = f"{flag} {str(path)!r}"
        if flag == "--report":
            import_optional("jinja2", shown, "cli")
        else:
            _check_format(path, shown)
        for other, taken_path in taken.items():
            if _is_same_file(path, taken_path):
                raise ValueError(f"{shown} is {other} too; pass another path.")
        if _is_standard_stream(path):
            raise ValueError(f"{shown} is where this command prints to; pass another path.")
        taken[flag] = path
        if os.path.isfile(path) and not options.force:
            raise ValueError(f"{shown} exists; --force overwrites it.")
        check_writable(path, shown)


def _check_format(path: Path, shown: str) -> None:
    if path.suffix not in archive.SUFFIXES:
        raise ValueError(f"{shown} must end in .npz or .safetensors.")
    if path.suffix == ".safetensors":
        import_optional("safetensors", shown, "safetensors")


def _is_same_file(path: Path, other: Path) -> bool:
    """Check whether two paths name one file, which need not exist."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return os.path.realpath(path) == os.path.realpath(other)


def _is_standard_stream(path: Path) -> bool:
    """Check whether the standard output or error goes to a file: replacing it would lose them."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
                return True
        # A stream may have no file, or not exist.
        except (AttributeError, OSError, ValueError):
            continue
    return False
