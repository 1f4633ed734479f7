"""The options of the command line: typed fields, whose docstrings are the help."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

# The spread of fewer draws is not defined.
FEWEST_NULLS = 2
# Null networks of each kind in a report, where --nulls is not passed.
DEFAULT_NULLS = 3
# The largest seed that NumPy accepts.
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
        The number of axes to keep, or the share of the sensitivity (default: all).
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
    # These repeat the estimators, which take seconds to import; the tests compare them.
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
