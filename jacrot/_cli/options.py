"""The options of the command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn

from jacrot._version import __version__

DESCRIPTION = "Rotate the activations of a trained network so that its Jacobians become sparse."
FIT = """\
Finds the basis of the activations in which the Jacobian of what follows is sparsest, and writes
it to OUT; JacobianSparsityRotation.load (or NetworkRotation.load) reads it. Prints the sparsity
before and after beside other bases, on held-out rows, and whether the rotated network computes
the same. Ctrl-C during the search keeps the best basis so far."""
EXAMPLES = """\
examples:
  jacrot info mlp.npz
  jacrot fit mlp.npz inputs.npy --from-inputs --layers 1:2 --activation relu,relu,identity \\
      -o rotation.npz --report report.html
  jacrot fit layer.safetensors activations.npy --activation gelu --rotate-output yes \\
      -o rotation.npz
  jacrot fit mlp.onnx inputs.npy --whole-network -o rotation.npz --network rotated.npz"""
# Fewer draws say nothing about the spread.
FEWEST_NULLS = 2
DEFAULT_NULLS = 3
# What the estimators and the readers define, and what would take seconds to import for the help.
CRITERIA = ("hoyer", "l1", "log", "logcosh", "quartimax")
DEFAULTS = {
    "criterion": "hoyer",
    "coordinates": "neurons",
    "n_init": 1,
    "max_iter": 5000,
    "tol": 1e-4,
}
SUFFIXES = (".npz", ".safetensors", ".onnx", ".pt", ".pth")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    Returns
    -------
    ArgumentParser
        Its errors are ``ValueError``.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("jacrot", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"jacrot {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fit = commands.add_parser(
        "fit",
        help="find a rotation, and report on it",
        description=FIT,
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    _add_fit_options(fit)
    info = commands.add_parser(
        "info",
        help="describe a file of weights or a saved result",
        description="Describes a file of weights, or one that jacrot wrote. Nothing in it is "
        "executed.",
    )
    info.add_argument("file", metavar="FILE", type=Path)
    info.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def _add_fit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights",
        metavar="WEIGHTS",
        type=Path,
        help=f"the network: {', '.join(SUFFIXES)} or .safetensors.index.json",
    )
    parser.add_argument(
        "activations",
        metavar="ACTIVATIONS",
        type=Path,
        help=".npy or .npz: what the rotated layers read, (rows, features), sequences (rows, "
        "positions, features) or images (rows, channels, height, width)",
    )
    output = parser.add_argument_group("what is written")
    output.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        required=True,
        help="the fitted estimator, .npz or .safetensors",
    )
    output.add_argument("--report", metavar="HTML", type=Path, help="a report to look at")
    output.add_argument(
        "--network",
        metavar="FILE",
        type=Path,
        help="the rotated layers, which read the new axes, .npz or .safetensors",
    )
    output.add_argument("--force", action="store_true", help="overwrite these files")
    loud = output.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
    loud.add_argument("-v", "--verbose", action="store_true", help="show a progress bar")

    reading = parser.add_argument_group("what is read")
    reading.add_argument(
        "--activation",
        metavar="NAME[,NAME...]",
        type=_listed,
        action="extend",
        help="for files of arrays, which do not say what follows a layer: one name for every "
        "layer, the last one included, or one for each (default, with a warning: relu after every "
        "layer but the last, which gets identity)",
    )
    reading.add_argument(
        "--layout",
        choices=("out_in", "in_out"),
        default="out_in",
        help="how a matrix is stored: out_in as by PyTorch, in_out as by Keras (default: out_in)",
    )
    reading.add_argument(
        "--names",
        metavar="NAME[,NAME...]",
        type=_listed,
        action="extend",
        help="the arrays to take from WEIGHTS, in layer order, every matrix before its bias",
    )
    reading.add_argument(
        "--layers",
        metavar="START:STOP",
        type=_layers,
        default=(None, None),
        help="the layers that follow the activations, counted from 0, STOP not included "
        "(default: all)",
    )
    reading.add_argument(
        "--from-inputs",
        action="store_true",
        help="ACTIVATIONS are inputs of the whole network: the layers before START compute the "
        "activations",
    )
    reading.add_argument(
        "--array", metavar="NAME", help="the array to take from an .npz that holds several"
    )
    reading.add_argument(
        "--held-out",
        metavar="FRACTION|FILE",
        type=_fraction_or_file,
        default=0.2,
        help="rows to score on: a share of ACTIVATIONS drawn by the seed, or a file of others "
        "(default: 0.2). Rows that belong together, such as positions of one text, should not be "
        "on both sides: give a file",
    )

    search = parser.add_argument_group("what is sought")
    search.add_argument(
        "--whole-network",
        action="store_true",
        help="a basis for every hidden layer, found jointly; ACTIVATIONS are the inputs",
    )
    search.add_argument(
        "--rotate-output",
        choices=("no", "yes", "tied"),
        default="no",
        help="a basis for the outputs too; tied: the same one (default: no)",
    )
    search.add_argument(
        "--n-components",
        metavar="N",
        type=_number,
        help="keep so many axes, or this share of the sensitivity (default: all)",
    )
    search.add_argument(
        "--criterion",
        choices=CRITERIA,
        default=DEFAULTS["criterion"],
        help="what is minimised (default: hoyer)",
    )
    search.add_argument(
        "--coordinates",
        choices=("neurons", "functional"),
        default=DEFAULTS["coordinates"],
        help="functional, with --criterion log: few connections (default: neurons)",
    )
    for name, type_, text in (
        ("n_init", int, "number of searches, the best of which is kept"),
        ("tol", float, "relative decrease of the cost at which a search stops"),
        ("max_iter", int, "steps of a search"),
    ):
        search.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="N",
            type=type_,
            default=DEFAULTS[name],
            help=f"{text} (default: {DEFAULTS[name]})",
        )
    search.add_argument("--seed", metavar="N", type=_seed, default=0, help="(default: 0)")
    search.add_argument(
        "--nulls",
        metavar="N",
        type=_nulls,
        help="fit N networks of each of two kinds that learned nothing, to compare with; takes "
        f"2 N times as long as the fit (default: {DEFAULT_NULLS} with --report, else 0)",
    )


def _listed(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return names


def _layers(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not START:STOP, such as 1:2, 1: or :2")
    start, stop = (int(number) if number else None for number in match.groups())
    return start, stop


def _fraction_or_file(text: str) -> float | Path:
    try:
        fraction = float(text)
    except ValueError:
        return Path(text)
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError(f"{text} is neither a share between 0 and 1 nor a file")
    return fraction


def _number(text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"{text!r} is not a number")


def _seed(text: str) -> int:
    seed = _number(text)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to {2**32 - 1}")
    return seed


def _nulls(text: str) -> int:
    number = _number(text)
    if not isinstance(number, int) or (number != 0 and number < FEWEST_NULLS):
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor an integer from {FEWEST_NULLS}")
    return number
