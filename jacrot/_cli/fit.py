"""``jacrot fit``: find, save and compare a rotation, and write a report."""

from __future__ import annotations

import importlib
import os
import shlex
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from jacrot._cli.console import Console, print_message, progress_as_lines
from jacrot._cli.continuation import continuation
from jacrot._cli.inputs import Inputs, read_inputs
from jacrot._cli.interrupts import INTERRUPTED
from jacrot._cli.options import FitOptions
from jacrot._cli.outputs import check_outputs
from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.network_rotation import NetworkRotation
from jacrot._estimators.rotation import JacobianSparsityRotation
from jacrot._jacobians.coordinates import network_after
from jacrot._utils.text import escape_control_characters
from jacrot.inspection import AxisStability, NullBaseline, axis_stability, null_baseline
from jacrot.inspection._comparison import Comparison, compare
from jacrot.network import Network


class Fit(NamedTuple):
    """A fitted estimator, and what was fitted."""

    options: FitOptions
    inputs: Inputs
    # The layers after those that are rotated.
    readout: Network | None
    estimator: NetworkEstimator
    # Duration of the search.
    seconds: float


def run(options: FitOptions, arguments: Sequence[str]) -> int:
    """Find a rotation, write it, and report on it.

    Parameters
    ----------
    options : FitOptions
        The options.
    arguments : sequence of str
        The arguments of the command, which the report quotes.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    ImportError, OSError, TypeError, ValueError
        If something cannot be used or written.
    KeyboardInterrupt
        If Ctrl-C was pressed before there was a rotation.
    """
    check_outputs(options)
    if options.report is not None:
        # An error here comes before the search.
        with draw_to_files():
            importlib.import_module("jacrot.report")
    console = Console(options.quiet)
    written: list[Path] = []
    try:
        with progress_as_lines():
            interrupted = _run(options, arguments, console, written)
    finally:
        if written:
            console.show(
                f"written: {', '.join(escape_control_characters(str(path)) for path in written)}"
            )
        if console.failure is not None and not isinstance(console.failure, BrokenPipeError):
            # The results are in the files.
            print_message(f"warning: not all could be printed ({console.failure}).")
    if interrupted is not None:
        print_message(f"interrupted: the rotation that was written is {interrupted}.")
        return INTERRUPTED
    return 0


def _run(
    options: FitOptions, arguments: Sequence[str], console: Console, written: list[Path]
) -> str | None:
    """Fit, save, compare and report; return what was kept if Ctrl-C was pressed."""
    with console.collect_warnings():
        fit = _fit(options)
        # Before anything is printed, which may fail.
        _save(fit, written)
    inputs, estimator = fit.inputs, fit.estimator
    title = _title(options.weights.name, inputs)
    console.show(escape_control_characters(f"{title}: {inputs.part!r}"))
    sizes = f"{len(inputs.X):,} rows to fit, {len(inputs.X_test):,} held out"
    console.show(f"{sizes}, {fit.seconds:.1f} s\n")
    with console.collect_warnings():
        comparison = compare(estimator, inputs.X, inputs.X_test, readout=fit.readout)
    _show_comparison(comparison, console)
    interrupted = "the best found by then" if estimator.interrupted_ else None
    null = stability = None
    if interrupted is None:
        # An interrupted fit is not compared: the nulls would be searched for longer.
        try:
            null = _fit_nulls(fit, console)
            stability = _search_again(fit, console)
        except KeyboardInterrupt:
            interrupted = "whole, the rest left out"
            console.messages.append("interrupted: what had not been computed by then is left out.")
    if options.report is not None:
        from jacrot.report import write_report

        write_report(
            options.report,
            estimator,
            inputs.X_test,
            comparison,
            title=title,
            null=null,
            stability=stability,
            files={name: (file.path, file.sha256) for name, file in inputs.files.items()},
            command=shlex.join(["jacrot", *arguments]),
            code=continuation(options, inputs),
            messages=console.messages,
        )
        written.append(options.report)
    return interrupted


@contextmanager
def draw_to_files() -> Iterator[None]:
    """Import matplotlib in a block with a backend that draws to files.

    The backend that a notebook sets may not be installed, which makes the import fail.
    """
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        yield
    finally:
        if before is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = before


def _fit(options: FitOptions) -> Fit:
    """Read the inputs, and find a rotation."""
    inputs = read_inputs(options)
    readout = network_after(inputs.network, inputs.stop)
    rotate_output: Any = {"no": False, "yes": True, "tied": "tied"}[options.rotate_output]
    settings = {
        "rotate_output": rotate_output,
        "criterion": options.criterion,
        "coordinates": options.coordinates,
        "n_init": options.n_init,
        "tol": options.tol,
        "max_iter": options.max_iter,
        "random_state": options.seed,
        "on_interrupt": "keep",
        "verbose": int(options.verbose),
    }
    estimator: NetworkEstimator
    if options.whole_network:
        estimator = NetworkRotation(**settings)
    else:
        estimator = JacobianSparsityRotation(
            n_components=options.n_components,
            readout=readout if options.coordinates == "functional" else None,
            **settings,
        )
    start = time.perf_counter()
    estimator.fit(inputs.part, inputs.X)
    seconds = time.perf_counter() - start
    if inputs.assumption is not None:
        warnings.warn(inputs.assumption, UserWarning, stacklevel=1)
    return Fit(options, inputs, readout, estimator, seconds)


def _save(fit: Fit, written: list[Path]) -> None:
    """Write the estimator and the rotated network."""
    fit.estimator.save(fit.options.out)
    written.append(fit.options.out)
    if fit.options.network is not None:
        rotated = fit.estimator.rotated_network()
        rotated.save(fit.options.network, metadata=fit.estimator.provenance_)
        written.append(fit.options.network)


def _fit_nulls(fit: Fit, console: Console) -> NullBaseline | None:
    """Fit networks that learned nothing, if any were asked for."""
    number = fit.options.n_nulls
    if number == 0:
        return None
    seconds = 2 * number * fit.seconds
    _announce("null baseline", seconds, "--nulls 0 leaves it out", console)
    X, X_test, seed = fit.inputs.X, fit.inputs.X_test, fit.options.seed
    with console.collect_warnings("null baseline: "):
        null = null_baseline(fit.estimator, X, X_test, n_repeats=number, random_state=seed)
    console.show(f"null baseline, {number} of each kind: {null.verdict}")
    return null


def _search_again(fit: Fit, console: Console) -> AxisStability | None:
    """Fit `n_init` times again, half from other starts and half on resampled rows."""
    n_init = fit.options.n_init
    if n_init == 1 or fit.options.report is None:
        return None
    _announce("axes found again", fit.seconds, "--n-init 1 leaves it out", console)
    # Each refit is a single search, compared with the best of all the searches of the fit.
    once = copy(fit.estimator).set_params(n_init=1)
    parameters = once.provenance_["parameters"] | {"n_init": 1}
    once.provenance_ = once.provenance_ | {"parameters": parameters}
    with console.collect_warnings("axes found again: "):
        return axis_stability(
            once,
            fit.inputs.X,
            n_starts=ceil(n_init / 2),
            n_resamples=n_init // 2,
            random_state=fit.options.seed,
        )


def _announce(what: str, seconds: float, how_to_skip: str, console: Console) -> None:
    console.announce(f"{what}: about {max(1, round(seconds))} s more; {how_to_skip}.")


def _title(name: str, inputs: Inputs) -> str:
    """Return a title that says which layers of which file were rotated."""
    first, last = inputs.start, inputs.stop - 1
    if inputs.part.n_layers == inputs.network.n_layers:
        return name
    return f"layer {first} of {name}" if first == last else f"layers {first} to {last} of {name}"


def _show_comparison(comparison: Comparison, console: Console) -> None:
    width = max(map(len, comparison.bases)) + 2
    header = "mean Hoyer sparsity"
    lines = [f"{header:<{width}}{'training':>10}{'held out':>10}"]
    for name, (training, held_out) in comparison.bases.items():
        lines.append(f"{name:<{width}}{training:>10.3f}{held_out:>10.3f}")
    for number, (given, rotated) in enumerate(comparison.layers):
        lines.append(f"layer {number}, held out: {given:.3f} given, {rotated:.3f} rotated")
    same = ""
    if comparison.same_predictions is not None:
        same = (
            f", the same class for {comparison.same_predictions:,} of {comparison.n_held_out:,} "
            "held-out rows"
        )
    lines.append(
        f"\noutputs of the rotated network differ by at most {comparison.difference:.1e} (largest "
        f"output {comparison.largest:.3g}){same}"
    )
    console.show("\n".join(lines))
