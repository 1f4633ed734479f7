"""The options of the command line: typed fields, whose docstrings are the help.

`argparse` gets everything from the classes below. A field without a default is required. Fields of
a command itself that are not keyword-only are its positional arguments; fields of the classes it
inherits from are its options, in a group with the summary of that class as its heading.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from inspect import cleandoc, get_annotations
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import jacrot

EXAMPLES = """\
examples:
  jacrot info mlp.npz
  jacrot fit mlp.npz inputs.npy --from-inputs --layers 1:2 --activation relu,relu,identity \\
      -o rotation.npz --report report.html
  jacrot fit layer.safetensors activations.npy --activation gelu --rotate-output yes \\
      -o rotation.npz
  jacrot fit mlp.onnx inputs.npy --whole-network -o rotation.npz --network rotated.npz"""
SHORT_FLAGS = {"out": "-o", "quiet": "-q", "verbose": "-v"}
# Fewer draws say nothing about the spread.
FEWEST_NULLS = 2
# What a report compares with, where --nulls is not passed.
DEFAULT_NULLS = 3
# The largest that NumPy takes.
LARGEST_SEED = 2**32 - 1


def _parse_names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return names


def _parse_layer_range(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not START:STOP, such as 1:2, 1: or :2")
    start, stop = (int(number) if number else None for number in match.groups())
    return start, stop


def _parse_held_out(text: str) -> float | Path:
    try:
        fraction = float(text)
    except ValueError:
        return Path(text)
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError(f"{text} is neither a share between 0 and 1 nor a file")
    return fraction


def _parse_number(text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"{text!r} is not a number")


def _parse_seed(text: str) -> int:
    seed = _parse_number(text)
    if not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to {LARGEST_SEED}")
    return seed


def _parse_nulls(text: str) -> int:
    number = _parse_number(text)
    if not isinstance(number, int) or (number != 0 and number < FEWEST_NULLS):
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor an integer from {FEWEST_NULLS}")
    return number


# Types that argparse does not know, with the settings of its `add_argument` that parse them.
Names = Annotated[list[str] | None, {"type": _parse_names, "action": "extend"}]
LayerRange = Annotated[tuple[int | None, int | None], {"type": _parse_layer_range}]
HeldOut = Annotated[float | Path, {"type": _parse_held_out}]
Number = Annotated[int | float | None, {"type": _parse_number}]
Seed = Annotated[int, {"type": _parse_seed}]
Nulls = Annotated[int | None, {"type": _parse_nulls}]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written.

    Parameters
    ----------
    out : OUT
        The fitted estimator, .npz or .safetensors.
    report : HTML
        A report to look at.
    network : FILE
        The rotated layers, which read the new axes, .npz or .safetensors.
    force : bool
        Overwrite these files.
    quiet : bool
        Print warnings and errors only.
    verbose : bool
        Show a progress bar.
    """

    out: Path
    report: Path | None = None
    network: Path | None = None
    force: bool = False
    quiet: bool = False
    verbose: bool = False


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What is read.

    Parameters
    ----------
    activation : NAME[,NAME...]
        For files of arrays, which do not say what follows a layer: one name for every layer, the
        last one included, or one for each (default, with a warning: relu after every layer but
        the last, which gets identity).
    layout : str
        How a matrix is stored: out_in as by PyTorch, in_out as by Keras.
    names : NAME[,NAME...]
        The arrays to take from WEIGHTS, in layer order, every matrix before its bias.
    layers : START:STOP
        The layers that follow the activations, counted from 0, STOP not included (default: all).
    from_inputs : bool
        ACTIVATIONS are inputs of the whole network: the layers before START compute the
        activations.
    array : NAME
        The array to take from an .npz that holds several.
    held_out : FRACTION|FILE
        Rows to score on: a share of ACTIVATIONS drawn by the seed, or a file of others. Rows that
        belong together, such as positions of one text, should not be on both sides: pass a file.
    """

    activation: Names = None
    layout: Literal["out_in", "in_out"] = "out_in"
    names: Names = None
    layers: LayerRange = (None, None)
    from_inputs: bool = False
    array: str | None = None
    held_out: HeldOut = 0.2


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched for.

    Parameters
    ----------
    whole_network : bool
        A basis for every hidden layer, found jointly; ACTIVATIONS are the inputs.
    rotate_output : str
        A basis for the outputs too; tied: the same one.
    n_components : N
        Keep so many axes, or this share of the sensitivity (default: all).
    criterion : str
        What is minimised.
    coordinates : str
        functional, with --criterion log: few connections.
    n_init : N
        Number of searches, the best of which is kept.
    tol : N
        Relative decrease of the cost at which a search stops.
    max_iter : N
        Steps of a search.
    seed : N
        Seed of all that is drawn.
    nulls : N
        Fit N networks of each of two kinds that learned nothing, to compare with; takes 2 N times
        as long as the fit (default: 3 with --report, else 0).
    """

    whole_network: bool = False
    rotate_output: Literal["no", "yes", "tied"] = "no"
    n_components: Number = None
    # What the estimators define, and what would take seconds to import for the help.
    criterion: Literal["hoyer", "l1", "log", "logcosh", "quartimax"] = "hoyer"
    coordinates: Literal["neurons", "functional"] = "neurons"
    n_init: int = 1
    tol: float = 1e-4
    max_iter: int = 5000
    seed: Seed = 0
    nulls: Nulls = None


@dataclass(frozen=True)
class FitOptions(SearchOptions, InputOptions, OutputOptions):
    """Find a rotation, and report on it.

    Finds the basis of the activations in which the Jacobian of what follows is sparsest, and writes
    it to OUT; JacobianSparsityRotation.load (or NetworkRotation.load) reads it. Prints the sparsity
    before and after beside other bases, on held-out rows, and whether the rotated network computes
    the same. Ctrl-C during the search keeps the best basis so far.

    Parameters
    ----------
    weights : WEIGHTS
        The network: .npz, .safetensors, .onnx, .pt, .pth or .safetensors.index.json.
    activations : ACTIVATIONS
        .npy or .npz: what the rotated layers read, (rows, features), sequences (rows, positions,
        features) or images (rows, channels, height, width).
    """

    weights: Path
    activations: Path

    def __post_init__(self) -> None:
        reduced = self.n_components is not None
        _refuse_both("--verbose", "--quiet", self.verbose and self.quiet)
        _refuse_both("--n-components", "--whole-network", reduced and self.whole_network)
        tied = self.rotate_output == "tied"
        _refuse_both("--rotate-output tied", "--whole-network", tied and self.whole_network)

    @property
    def n_nulls(self) -> int:
        """Number of null networks of each kind."""
        if self.nulls is None:
            return 0 if self.report is None else DEFAULT_NULLS
        return self.nulls


def _refuse_both(first: str, second: str, are_passed: bool) -> None:
    if are_passed:
        raise ValueError(f"{first} has no meaning with {second}; leave one out.")


@dataclass(frozen=True)
class InfoOptions:
    """Describe a file of weights, or one that jacrot wrote.

    Nothing in it is executed.

    Parameters
    ----------
    file : FILE
        The file.
    json : bool
        Print JSON, for programs.
    """

    file: Path
    json: bool = field(default=False, kw_only=True)


COMMANDS: dict[str, type[FitOptions | InfoOptions]] = {"fit": FitOptions, "info": InfoOptions}


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
            _add_option(group, attributes[name], types[name], *texts.get(name, ("", "")))


def _add_option(
    group: argparse._ActionsContainer, attribute: Field[Any], type_: Any, metavar: str, text: str
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
