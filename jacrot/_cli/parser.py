"""The parser of the command line, made from the classes of its options.

A field without a default is required. Fields that are not keyword-only are positional arguments,
the others options. Those that a command inherits from a class are a group of the help, under the
summary of that class.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from inspect import cleandoc, get_annotations
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import jacrot
from jacrot._cli.options import COMMANDS, FitOptions, InfoOptions

SHORT_FLAGS = {"out": "-o", "quiet": "-q", "verbose": "-v"}
EXAMPLES = """\
examples:
  jacrot info mlp.npz
  jacrot fit mlp.npz inputs.npy --from-inputs --layers 1:2 --activation relu,relu,identity \\
      -o rotation.npz --report report.html
  jacrot fit layer.safetensors activations.npy --activation gelu --rotate-output yes \\
      -o rotation.npz
  jacrot fit mlp.onnx inputs.npy --whole-network -o rotation.npz --network rotated.npz"""


def parse(arguments: Sequence[str]) -> tuple[str, FitOptions | InfoOptions]:
    """Parse the command line.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``jacrot``.

    Returns
    -------
    command : str
        A name in ``COMMANDS``.
    options : FitOptions or InfoOptions
        Its options.

    Raises
    ------
    SystemExit
        After the help or the version was printed.
    ValueError
        If the arguments cannot be used.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("jacrot", description=jacrot.__doc__, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"jacrot {jacrot.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, options in COMMANDS.items():
        description, _ = _read_docstring(options)
        summary = description.partition("\n")[0]
        _add_options(
            commands.add_parser(
                name,
                help=summary,
                description=description,
                epilog=EXAMPLES if options is FitOptions else None,
                formatter_class=raw,
            ),
            options,
        )
    parsed = vars(parser.parse_args(arguments))
    command = parsed.pop("command")
    return command, COMMANDS[command](**parsed)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({self.prog} --help)")


def _add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add the fields of a class of options to a parser, those of each base class as a group."""
    attributes = {attribute.name: attribute for attribute in fields(options)}
    types = get_type_hints(options, include_extras=True)
    for cls in reversed(options.__mro__[:-1]):
        heading, texts = _read_docstring(cls)
        group = parser if cls is options else parser.add_argument_group(heading.rstrip("."))
        for name in get_annotations(cls):
            _add_option(group, attributes[name], types[name], *texts.get(name, (None, "")))


def _add_option(
    group: argparse._ActionsContainer,
    attribute: Field[Any],
    type_: Any,
    metavar: str | None,
    text: str,
) -> None:
    """Add a field to a parser or to a group of its options."""
    settings = _settings(type_)
    if "type" in settings:
        settings["metavar"] = metavar
    if not attribute.kw_only:
        group.add_argument(attribute.name, help=text, **settings)
        return
    if attribute.default is MISSING:
        settings["required"] = True
    else:
        settings["default"] = attribute.default
        if isinstance(attribute.default, str | int | float) and type_ is not bool:
            text += " (default: %(default)s)"
    flags = [SHORT_FLAGS[attribute.name]] if attribute.name in SHORT_FLAGS else []
    flags.append(f"--{attribute.name.replace('_', '-')}")
    group.add_argument(*flags, help=text, **settings)


def _settings(type_: Any) -> dict[str, Any]:
    """Return the settings with which argparse parses a type."""
    if get_origin(type_) is Annotated:
        return dict(type_.__metadata__[0])
    if get_origin(type_) is Literal:
        return {"choices": get_args(type_)}
    if type_ is bool:
        return {"action": "store_true"}
    (parsed,) = {*(get_args(type_) or [type_])} - {NoneType}
    return {"type": parsed}


def _read_docstring(cls: type) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return the description in a docstring, and the type and the text of each parameter."""
    description, _, section = cleandoc(cls.__doc__ or "").partition("\n\nParameters\n----------\n")
    parameters = re.findall(r"^(\w+) : (.+)\n((?:    .+\n?)+)", section, re.MULTILINE)
    return description, {name: (type_, " ".join(text.split())) for name, type_, text in parameters}
