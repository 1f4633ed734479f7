"""The command line: a rotation and its report from files, and what a file holds."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from sklearn.model_selection import train_test_split

from jacrot import JacobianSparsityRotation, Network, NetworkRotation, __version__, _archive
from jacrot._arrays import FEATURES_AXIS, Array, real_array
from jacrot._estimator import NetworkEstimator
from jacrot._optional import require
from jacrot.coordinates import after
from jacrot.criteria import CRITERIA
from jacrot.inspection import AxisStability, NullBaseline, axis_stability, null_baseline
from jacrot.layers.described import FORMAT
from jacrot.provenance import network_fingerprint
from jacrot.readers import files, list_arrays, load, npz
from jacrot.readers._limits import existing, naming, printable
from jacrot.readers.saved import parsed
from jacrot.report import Comparison, compare, write_report
from jacrot.weights import Layout

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
  jacrot fit layer.safetensors activations.npy --rotate-output yes -o rotation.npz
  jacrot fit mlp.onnx inputs.npy --whole-network -o rotation.npz --network rotated.npz"""
# One row has no covariance.
FEWEST_ROWS = 2
# A draw less says nothing of the spread.
FEWEST_NULLS = 2
DEFAULT_NULLS = 3
# The exit status of a command that Ctrl-C ended, as shells have it.
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
        130 where Ctrl-C ended the run.

    Examples
    --------
    >>> from jacrot.cli import main
    >>> main(["info", "/no/such/file.npz"])
    2
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        status: int = options.run(options, given)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read the output has enough; nothing is left to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, MemoryError, OSError, TypeError, ValueError) as error:
        _say(f"error: {error or type(error).__name__}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted.")
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} ({self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
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
    fit.set_defaults(run=_fit)
    _add_fit_options(fit)
    info = commands.add_parser(
        "info",
        help="say what a file of weights, or a saved result, holds",
        description="Says what a file of weights, or one that jacrot wrote, holds. Nothing in it "
        "is executed.",
    )
    info.set_defaults(run=_info)
    info.add_argument("file", metavar="FILE", type=Path)
    info.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def _add_fit_options(parser: argparse.ArgumentParser) -> None:
    defaults = JacobianSparsityRotation().get_params()
    parser.add_argument(
        "weights", metavar="WEIGHTS", type=Path, help=f"the network: {', '.join(files.SUFFIXES)}"
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
        help="after every layer, or one for each; for files that do not say (default: relu)",
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
        choices=sorted(CRITERIA),
        default=defaults["criterion"],
        help="what is minimised (default: hoyer)",
    )
    search.add_argument(
        "--coordinates",
        choices=("neurons", "functional"),
        default=defaults["coordinates"],
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
            default=defaults[name],
            help=f"{text} (default: {defaults[name]})",
        )
    search.add_argument("--seed", metavar="N", type=_seed, default=0, help="(default: 0)")
    search.add_argument(
        "--nulls",
        metavar="N",
        type=_nulls,
        help="fit N networks of each of two kinds that learned nothing, to compare with; takes "
        f"2 N times as long as the fit (default: {DEFAULT_NULLS} with --report, else 0)",
    )


def _fit(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Find a rotation, write it, and report on it."""
    _check_outputs(options)
    if options.whole_network:
        for name, is_set in (
            ("--n-components", options.n_components is not None),
            ("--rotate-output tied", options.rotate_output == "tied"),
        ):
            if is_set:
                raise ValueError(f"{name} has no meaning with --whole-network; leave one out.")
    messages: list[str] = []
    with _collected(messages):
        network, before, first = _read_network(options)
        X, X_test = _read_activations(options, network, before)
        estimator, readout = _estimator(options, network, first)
        part = network[first : options.layers[1]]
        start = time.perf_counter()
        estimator.fit(part, X)
        seconds = time.perf_counter() - start
    title = _title(options.weights.name, first, part, network)
    if not options.quiet:
        print(printable(f"{title}: {part!r}"))
        print(f"{len(X):,} rows to fit, {len(X_test):,} held out, {seconds:.1f} s\n", flush=True)
    interrupted = estimator._interrupted
    estimator.save(options.out)
    written = [options.out]
    try:
        if options.network is not None:
            estimator.rotated_network().save(options.network, metadata=estimator.provenance_)
            written.append(options.network)
        with _collected(messages):
            comparison = compare(estimator, X, X_test, readout=readout)
        if not options.quiet:
            _print_comparison(comparison)
        null = stability = None
        try:
            if not interrupted:
                # A fit that was interrupted is nothing to compare with.
                null = _null(options, estimator, X, X_test, seconds, messages)
                stability = _stability(options, estimator, X, seconds, messages)
        except KeyboardInterrupt:
            interrupted = True
            messages.append("interrupted: what had not been computed by then is left out.")
        if options.report is not None:
            read = {"weights": options.weights, "activations": options.activations}
            if isinstance(options.held_out, Path):
                read["held out"] = options.held_out
            write_report(
                options.report,
                estimator,
                X_test,
                comparison,
                title=title,
                null=null,
                stability=stability,
                files=read,
                command=shlex.join(["jacrot", *given]),
                code=_code(options, estimator, first),
                messages=messages,
            )
            written.append(options.report)
    finally:
        if not options.quiet:
            print(f"written: {', '.join(printable(str(path)) for path in written)}")
    if interrupted:
        kept = "the best found by then" if estimator._interrupted else "whole, the rest left out"
        _say(f"interrupted: the rotation that was written is {kept}.")
        return INTERRUPTED
    return 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Check what is to be written, before anything is computed."""
    for flag, path in (("-o", options.out), ("--network", options.network)):
        if path is None:
            continue
        if path.suffix not in _archive.SUFFIXES:
            raise ValueError(f"{flag} {str(path)!r} must end in .npz or .safetensors.")
        if path.suffix == ".safetensors":
            require("safetensors", f"{flag} {str(path)!r}", "safetensors")
    outputs = {"-o": options.out, "--network": options.network, "--report": options.report}
    taken = {"WEIGHTS": options.weights, "ACTIVATIONS": options.activations}
    if isinstance(options.held_out, Path):
        taken["--held-out"] = options.held_out
    for flag, path in outputs.items():
        if path is None:
            continue
        for other, taken_path in taken.items():
            if os.path.realpath(path) == os.path.realpath(taken_path):
                raise ValueError(f"{flag} {str(path)!r} is {other} too; write another path.")
        taken[flag] = path
        if path.is_dir():
            raise ValueError(f"{flag} {str(path)!r} is a folder; write the path of a file.")
        if path.exists() and not options.force:
            raise ValueError(f"{flag} {str(path)!r} exists; --force overwrites it.")
        folder = path.parent
        if not folder.is_dir():
            raise ValueError(f"{flag} {str(path)!r}: the folder {str(folder)!r} does not exist.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{flag} {str(path)!r}: the folder {str(folder)!r} is not writable.")


def _read_network(options: argparse.Namespace) -> tuple[Network, Network | None, int]:
    """Read the whole network; give the layers before those that are rotated, and their number."""
    network = load(options.weights, _activation(options), options.layout, options.names)
    if network_fingerprint(network) is None:
        raise ValueError(
            f"WEIGHTS {str(options.weights)!r} holds a function, which no file of arrays can keep; "
            "use jacrot from Python."
        )
    first, stop, _ = slice(*options.layers).indices(network.n_layers)
    wanted = [number for number in options.layers if number is not None]
    if first >= stop or max(wanted, default=0) > network.n_layers:
        raise ValueError(
            f"--layers {_colon(options.layers)} is no part of the {network.n_layers} layers of "
            f"{network!r}; write 0 <= START < STOP <= {network.n_layers}."
        )
    return network, network[:first] if first and options.from_inputs else None, first


def _activation(options: argparse.Namespace) -> str | list[str]:
    names = options.activation or ["relu"]
    return names[0] if len(names) == 1 else names


def _read_activations(
    options: argparse.Namespace, network: Network, before: Network | None
) -> tuple[Array, Array]:
    """Read what the rotated layers read: rows to fit, and held-out ones."""
    first = 0 if options.from_inputs else options.layers[0] or 0
    paths = [options.activations, options.held_out]
    if options.array is not None and all(_suffix(path) != ".npz" for path in paths):
        raise ValueError("--array chooses one of several arrays of an .npz; leave it out.")
    rows = _array(options.activations, options.array, "ACTIVATIONS")
    _check_width(rows, "ACTIVATIONS", network, first)
    has_file = isinstance(options.held_out, Path)
    n_held_out = 0 if has_file else ceil(options.held_out * len(rows))
    if len(rows) - n_held_out < FEWEST_ROWS:
        raise ValueError(
            f"ACTIVATIONS has {len(rows)} rows, of which {n_held_out} are held out; write "
            f"{FEWEST_ROWS} more at least."
        )
    if has_file:
        held_out = _array(options.held_out, options.array, "--held-out")
        _check_width(held_out, "--held-out", network, first)
        if len(held_out) == 0 or held_out.ndim != rows.ndim:
            raise ValueError(
                f"--held-out has shape {held_out.shape} and ACTIVATIONS {rows.shape}; write rows "
                "of the same kind."
            )
        parts = [rows, held_out]
    else:
        parts = train_test_split(rows, test_size=options.held_out, random_state=options.seed)
    X, X_test = (part if before is None else before(part) for part in parts)
    return X, X_test


def _suffix(path: Path | float) -> str:
    return path.suffix.lower() if isinstance(path, Path) else ""


def _array(path: Path, name: str | None, argument: str) -> Array:
    """Read an array without pickle, and without believing how large it says it is."""
    path = existing(path, argument)
    if _suffix(path) == ".npy":
        try:
            # A memory map is no larger than the file.
            with np.errstate(over="raise"):
                array: Any = np.lib.format.open_memmap(path, mode="r")
        except npz.UNREADABLE as error:
            raise ValueError(
                f"{argument} {str(path)!r} is no .npy file, is damaged, or cannot be read without "
                f"pickle ({error}); write one with numpy.save."
            ) from error
    elif _suffix(path) == ".npz":
        name = _name(path, name, argument)
        array = npz.read(path, [name])[1][name]
    else:
        raise ValueError(f"{argument} {str(path)!r} must end in .npy or .npz.")
    return real_array(array, argument, ndim=tuple(FEATURES_AXIS))


def _name(path: Path, name: str | None, argument: str) -> str:
    """Choose the array of an .npz file: the only one, or the one that is asked for."""
    names = list(npz.list_arrays(path))
    shown = ", ".join([*map(repr, names[:8]), *["..."] * (len(names) > 8)]) or "no array"
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise ValueError(f"{argument} {str(path)!r} holds {shown}; choose one with --array.")
    if name not in names:
        raise ValueError(f"--array {name!r} is not in {argument} {str(path)!r}, with {shown}.")
    return name


def _check_width(rows: Array, argument: str, network: Network, first: int) -> None:
    width, wanted = rows.shape[FEATURES_AXIS[rows.ndim]], network.layers[first].n_inputs
    if wanted not in (None, width):
        reads = [layer.n_inputs for layer in network]
        raise ValueError(
            f"{argument} has {width} features, but layer {first} reads {wanted} (the layers read "
            f"{', '.join(map(str, reads))}); --layers START:STOP says which layers follow "
            "ACTIVATIONS, --from-inputs that these are inputs of layer 0, and --layout in_out that "
            "matrices are stored the other way round."
        )


def _estimator(
    options: argparse.Namespace, network: Network, first: int
) -> tuple[NetworkEstimator, Network | None]:
    """Make the estimator that the options describe; give what follows its outputs too."""
    stop = network.n_layers if options.layers[1] is None else options.layers[1]
    readout = after(network, stop)
    shared = {
        "criterion": options.criterion,
        "coordinates": options.coordinates,
        "n_init": options.n_init,
        "tol": options.tol,
        "max_iter": options.max_iter,
        "random_state": options.seed,
        "on_interrupt": "keep",
        "verbose": int(options.verbose),
    }
    rotate_output: Any = {"no": False, "yes": True, "tied": "tied"}[options.rotate_output]
    if options.whole_network:
        return NetworkRotation(rotate_output=rotate_output, **shared), readout
    functional = options.coordinates == "functional"
    estimator = JacobianSparsityRotation(
        rotate_output=rotate_output,
        n_components=options.n_components,
        readout=readout if functional else None,
        **shared,
    )
    return estimator, readout


def _null(
    options: argparse.Namespace,
    estimator: NetworkEstimator,
    X: Array,
    X_test: Array,
    seconds: float,
    messages: list[str],
) -> NullBaseline | None:
    """Fit networks that learned nothing, where that is wanted."""
    number = options.nulls
    if number is None:
        number = 0 if options.report is None else DEFAULT_NULLS
    if number == 0:
        return None
    _announce(options, "null baseline", 2 * number * seconds, "--nulls 0 leaves it out")
    with _collected(messages, "null baseline: "):
        null = null_baseline(estimator, X, X_test, n_repeats=number, random_state=options.seed)
    if not options.quiet:
        print(f"null baseline, {number} of each kind: {null.verdict}", flush=True)
    return null


def _stability(
    options: argparse.Namespace,
    estimator: NetworkEstimator,
    X: Array,
    seconds: float,
    messages: list[str],
) -> AxisStability | None:
    """Fit as often as was searched, half from other starts and half on resampled rows."""
    if options.n_init == 1 or options.report is None:
        return None
    _announce(options, "axes found again", seconds, "--n-init 1 leaves it out")
    with _collected(messages, "axes found again: "):
        return axis_stability(
            copy(estimator).set_params(n_init=1),
            X,
            n_starts=ceil(options.n_init / 2),
            n_resamples=options.n_init // 2,
            random_state=options.seed,
        )


def _title(name: str, first: int, part: Network, network: Network) -> str:
    if part.n_layers == network.n_layers:
        return name
    last = first + part.n_layers - 1
    return f"layer {first} of {name}" if first == last else f"layers {first} to {last} of {name}"


def _print_comparison(comparison: Comparison) -> None:
    width = max(map(len, comparison.bases)) + 2
    header = "mean Hoyer sparsity"
    print(f"{header:<{width}}{'training':>10}{'held out':>10}")
    for name, (training, held_out) in comparison.bases.items():
        print(f"{name:<{width}}{training:>10.3f}{held_out:>10.3f}")
    for number, (given, ours) in enumerate(comparison.layers):
        print(f"layer {number}, held out: {given:.3f} given, {ours:.3f} rotated")
    same = ""
    if comparison.same_predictions is not None:
        same = (
            f", the same class for {comparison.same_predictions:,} of {comparison.n_held_out:,} "
            "held-out rows"
        )
    print(
        f"\noutputs of the rotated network differ by at most {comparison.difference:.1e} (largest "
        f"output {comparison.largest:.3g}){same}"
    )


def _code(options: argparse.Namespace, estimator: NetworkEstimator, first: int) -> str:
    """Write the Python code that goes on from what was written."""
    name = type(estimator).__name__
    imports = [f"from jacrot import {name}"]
    lines = [f"X = {_loading(options.activations, options.array)}"]
    if isinstance(options.held_out, Path):
        lines.append(f"X_test = {_loading(options.held_out, options.array)}")
    else:
        imports.append("from sklearn.model_selection import train_test_split")
        split = f"test_size={options.held_out!r}, random_state={options.seed}"
        lines.append(f"X, X_test = train_test_split(X, {split})")
    if first and options.from_inputs:
        imports.append("from jacrot.readers import load")
        arguments = [repr(str(options.weights))]
        if options.activation:
            arguments.append(f"activation={_activation(options)!r}")
        if options.layout != "out_in":
            arguments.append(f"layout={options.layout!r}")
        if options.names:
            arguments.append(f"names={options.names!r}")
        lines.append(f"before = load({', '.join(arguments)})[:{first}]")
        lines.append("X, X_test = before(X), before(X_test)  # what is rotated")
    lines.append(f"rotation = {name}.load({str(options.out)!r})")
    lines.append("print(rotation.score(X_test))  # sparsity")
    if isinstance(estimator, NetworkRotation):
        transformed = f"rotation.transform(X_test, site={min(estimator.rotations_)})"
    elif len(estimator.provenance_["data"][0]["shape"]) == 2:
        transformed = "rotation.transform(X_test)"
    else:
        imports.append("from jacrot.positions import at_positions")
        transformed = "at_positions(rotation.transform, X_test)"
    lines.append(f"Z = {transformed}  # activations in the new basis")
    lines.append("rotated = rotation.rotated_network()  # the same function, rotations folded in")
    return "\n".join(["import numpy as np", *sorted(imports), "", *lines])


def _loading(path: Path, name: str | None) -> str:
    """Write the expression that reads what :func:`_array` reads."""
    if _suffix(path) == ".npy":
        return f"np.load({str(path)!r})"
    return f"np.load({str(path)!r})[{_name(path, name, 'ACTIVATIONS')!r}]"


def _announce(options: argparse.Namespace, what: str, seconds: float, how: str) -> None:
    if not options.quiet:
        _say(f"{what}: about {max(1, round(seconds))} s more; {how}.")


@contextmanager
def _collected(messages: list[str], prefix: str = "") -> Iterator[None]:
    """Collect the warnings of a block, each once, and say them at its end."""
    new: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            for category in (UserWarning, RuntimeWarning):
                warnings.simplefilter("always", category)
            yield
    finally:
        for warning in caught:
            message = f"{prefix}{warning.message}"
            if message not in messages:
                messages.append(message)
                new.append(message)
        for message in new:
            _say(f"warning: {message}")


def _say(text: str) -> None:
    """Print one line to the standard error."""
    print(f"jacrot: {printable(' '.join(text.split()))}", file=sys.stderr)


def _info(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Say what a file holds."""
    path = existing(options.file, "FILE")
    header = None
    if path.suffix.lower() in _archive.SUFFIXES:
        with naming(f"path={str(path)!r}"):
            header, _ = files.read(path, ())
    found = _weights(path) if header is None else _saved(path, parsed(header, path))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_lines(found)))
    return 0


def _saved(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Describe what jacrot wrote."""
    found = {"file": str(path), "format": description["format"]}
    if found["format"] == FORMAT:
        found["network"] = repr(load(path))
    return found | {"provenance": description.get("metadata", {})}


def _weights(path: Path) -> dict[str, Any]:
    """Describe a file of weights that others wrote, and how to rotate them."""
    arrays = list_arrays(path)
    found: dict[str, Any] = {
        "file": str(path),
        "format": path.suffix.lower(),
        "arrays": {
            name: {"shape": list(array.shape), "dtype": array.dtype}
            for name, array in arrays.items()
        },
    }
    graph = path.suffix.lower() == ".onnx"
    network = problem = None
    layouts: tuple[Layout, ...] = ("out_in",) if graph else ("out_in", "in_out")
    for layout in layouts:
        try:
            network = load(path, layout=layout)
            break
        except (TypeError, ValueError) as error:
            problem = problem or str(error)
    if network is None:
        found["problem"] = problem
        if not graph:
            found["hint"] = "--names MATRIX,BIAS,MATRIX,BIAS... says what to take, in layer order"
        return found
    found["network"] = repr(network)
    options = [] if layout == "out_in" else ["--layout", layout]
    if not graph:
        names = ["relu"] * (network.n_layers - 1) + ["identity"]
        options += ["--activation", ",".join(names)]
        found["hint"] = (
            "the file does not say which activation follows a layer: write --activation, one for "
            "each; relu is what is taken for all"
        )
    command = ["jacrot", "fit", str(path)]
    written = ["-o", "rotation.npz", "--report", "report.html"]
    if network.n_layers == 1:
        commands = [[*command, "ACTIVATIONS.npy", *options, *written]]
    else:
        middle = ["--from-inputs", "--layers", "1:2"]
        commands = [
            [*command, "INPUTS.npy", *middle, *options, *written],
            [*command, "INPUTS.npy", "--whole-network", *options, *written],
        ]
    found["commands"] = [shlex.join(words) for words in commands]
    return found


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """Write nested mappings and lists as indented lines."""
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        name = "-" if key is None else f"{printable(str(key))}:"
        if isinstance(item, dict) and item.keys() == {"shape", "dtype"}:
            item = f"({', '.join(map(str, item['shape']))}) {item['dtype']}"
        if isinstance(item, (dict, list)) and item and not _is_flat(item):
            yield f"{indent}{name}"
            yield from _lines(item, f"{indent}  ")
        else:
            text = json.dumps(item) if isinstance(item, (dict, list)) else str(item)
            yield f"{indent}{name} {printable(text)}"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _layers(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no START:STOP, such as 1:2, 1: or :2")
    start, stop = (int(number) if number else None for number in match.groups())
    return start, stop


def _colon(layers: tuple[int | None, int | None]) -> str:
    return ":".join("" if number is None else str(number) for number in layers)


def _fraction_or_file(text: str) -> float | Path:
    try:
        fraction = float(text)
    except ValueError:
        return Path(text)
    if not 0 < fraction < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1, and no file")
    return fraction


def _number(text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"{text!r} is no number")


def _seed(text: str) -> int:
    seed = _number(text)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no integer from 0 to {2**32 - 1}")
    return seed


def _nulls(text: str) -> int:
    number = _number(text)
    if not isinstance(number, int) or (number != 0 and number < FEWEST_NULLS):
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor an integer from {FEWEST_NULLS}")
    return number
