"""Finding a rotation, saving it, and reporting on it."""

from __future__ import annotations

import argparse
import shlex
import time
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from math import ceil
from pathlib import Path
from typing import Any

from jacrot._cli.console import (
    INTERRUPTED,
    Output,
    collected,
    drawing_to_files,
    progress_as_lines,
    say,
)
from jacrot._cli.continuation import continuation
from jacrot._cli.inputs import Inputs, read_inputs
from jacrot._cli.options import DEFAULT_NULLS
from jacrot._cli.outputs import check_outputs
from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.network_rotation import NetworkRotation
from jacrot._estimators.rotation import JacobianSparsityRotation
from jacrot._jacobians.coordinates import after
from jacrot._utils.arrays import Array
from jacrot._utils.text import printable
from jacrot.inspection import AxisStability, NullBaseline, axis_stability, null_baseline
from jacrot.inspection._comparison import Comparison, compare
from jacrot.network import Network


def run(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Find a rotation, write it, and report on it.

    Parameters
    ----------
    options : Namespace
        The options.
    given : sequence of str
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
    _check_combination(options)
    check_outputs(options)
    write_report = None if options.report is None else _report_writer()
    output = Output(options.quiet)
    written: list[Path] = []
    try:
        with progress_as_lines():
            interrupted = _fit(options, given, output, written, write_report)
    finally:
        if written:
            output.show(f"written: {', '.join(printable(str(path)) for path in written)}")
        if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
            # What was asked for is in the files.
            say(f"warning: not all could be printed ({output.failure}).")
    if interrupted is not None:
        say(f"interrupted: the rotation that was written is {interrupted}.")
        return INTERRUPTED
    return 0


def _fit(
    options: argparse.Namespace,
    given: Sequence[str],
    output: Output,
    written: list[Path],
    write_report: Callable[..., None] | None,
) -> str | None:
    """Do everything; return what was kept if Ctrl-C was pressed."""
    messages: list[str] = []
    with collected(messages):
        inputs = read_inputs(options)
        X, X_test = inputs.X, inputs.X_test
        estimator, readout = _estimator(options, inputs)
        part = inputs.network[inputs.start : inputs.stop]
        start = time.perf_counter()
        estimator.fit(part, X)
        seconds = time.perf_counter() - start
        if inputs.assumption is not None:
            warnings.warn(inputs.assumption, UserWarning, stacklevel=1)
        # Saved before anything is printed: nobody may be reading.
        estimator.save(options.out)
        written.append(options.out)
        if options.network is not None:
            estimator.rotated_network().save(options.network, metadata=estimator.provenance_)
            written.append(options.network)
    title = _title(options.weights.name, inputs)
    output.show(printable(f"{title}: {part!r}"))
    output.show(f"{len(X):,} rows to fit, {len(X_test):,} held out, {seconds:.1f} s\n")
    with collected(messages):
        comparison = compare(estimator, X, X_test, readout=readout)
    _show_comparison(output, comparison)
    interrupted = "the best found by then" if estimator._interrupted else None
    null = stability = None
    if interrupted is None:
        # A fit that was interrupted is nothing to compare with.
        try:
            null = _null(options, output, estimator, X, X_test, seconds, messages)
            stability = _stability(options, estimator, X, seconds, messages)
        except KeyboardInterrupt:
            interrupted = "whole, the rest left out"
            messages.append("interrupted: what had not been computed by then is left out.")
    if write_report is not None:
        write_report(
            options.report,
            estimator,
            X_test,
            comparison,
            title=title,
            null=null,
            stability=stability,
            files={name: (file.path, file.sha256) for name, file in inputs.files.items()},
            command=shlex.join(["jacrot", *given]),
            code=continuation(options, estimator, inputs),
            messages=messages,
        )
        written.append(options.report)
    return interrupted


def _check_combination(options: argparse.Namespace) -> None:
    if options.whole_network:
        for name, is_set in (
            ("--n-components", options.n_components is not None),
            ("--rotate-output tied", options.rotate_output == "tied"),
        ):
            if is_set:
                raise ValueError(f"{name} has no meaning with --whole-network; leave one out.")


def _report_writer() -> Callable[..., None]:
    """Import what draws, before the search: it may not be usable."""
    with drawing_to_files():
        from jacrot.report import write_report
    return write_report


def _estimator(
    options: argparse.Namespace, inputs: Inputs
) -> tuple[NetworkEstimator, Network | None]:
    """Return the estimator that the options describe, and what reads its outputs."""
    readout = after(inputs.network, inputs.stop)
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
    output: Output,
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
    with collected(messages, "null baseline: "):
        null = null_baseline(estimator, X, X_test, n_repeats=number, random_state=options.seed)
    output.show(f"null baseline, {number} of each kind: {null.verdict}")
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
    # Every start is one search, compared with the best of all of them, on purpose.
    once = copy(estimator).set_params(n_init=1)
    parameters = estimator.provenance_["parameters"] | {"n_init": 1}
    once.provenance_ = estimator.provenance_ | {"parameters": parameters}
    with collected(messages, "axes found again: "):
        return axis_stability(
            once,
            X,
            n_starts=ceil(options.n_init / 2),
            n_resamples=options.n_init // 2,
            random_state=options.seed,
        )


def _title(name: str, inputs: Inputs) -> str:
    """Return what was rotated of the network in a file."""
    first, last = inputs.start, inputs.stop - 1
    if inputs.stop - inputs.start == inputs.network.n_layers:
        return name
    return f"layer {first} of {name}" if first == last else f"layers {first} to {last} of {name}"


def _show_comparison(output: Output, comparison: Comparison) -> None:
    width = max(map(len, comparison.bases)) + 2
    header = "mean Hoyer sparsity"
    lines = [f"{header:<{width}}{'training':>10}{'held out':>10}"]
    for name, (training, held_out) in comparison.bases.items():
        lines.append(f"{name:<{width}}{training:>10.3f}{held_out:>10.3f}")
    for number, (given, ours) in enumerate(comparison.layers):
        lines.append(f"layer {number}, held out: {given:.3f} given, {ours:.3f} rotated")
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
    output.show("\n".join(lines))


def _announce(options: argparse.Namespace, what: str, seconds: float, how: str) -> None:
    if not options.quiet:
        say(f"{what}: about {max(1, round(seconds))} s more; {how}.")
