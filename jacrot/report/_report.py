"""What a fit found, beside what it has to be compared with, as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.network_rotation import NetworkRotation
from jacrot._io.files import atomic_write, sha256
from jacrot._io.fingerprints import fingerprint
from jacrot._jacobians.stacks import Jacobians
from jacrot._utils.arrays import Array, Matrix
from jacrot.display import (
    AxisStabilityDisplay,
    ConvergenceDisplay,
    JacobianDisplay,
    NullBaselineDisplay,
)
from jacrot.inspection import AxisStability, NullBaseline
from jacrot.inspection._comparison import (
    GIVEN,
    OURS,
    Comparison,
    analysed_layers,
    found_rotations,
)
from jacrot.report._html import STYLE, element, picture, section, table

# A picture is the mean of as many Jacobians as have so many entries together.
PICTURE_ENTRIES = 2**23
# Layers of a network that are drawn at most.
MOST_LAYERS = 6
# Of a picture, in inches: letters can be read where a screen is narrow.
WIDTH = 7.0

_Path = str | os.PathLike[str]


def write_report(
    path: str | os.PathLike[str],
    estimator: NetworkEstimator,
    X_test: ArrayLike,
    comparison: Comparison,
    *,
    title: str = "A rotation",
    null: NullBaseline | None = None,
    stability: AxisStability | None = None,
    files: Mapping[str, _Path | tuple[_Path, str]] | None = None,
    command: str | None = None,
    code: str | None = None,
    messages: Sequence[str] = (),
) -> None:
    """Write a report that opens in a browser, in one file that needs no other.

    The file appears whole or not at all. Nothing in it is loaded from elsewhere and nothing runs;
    names that come from files are text.

    Parameters
    ----------
    path : str or path-like
        Where to.
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted to one network.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs, on which the Jacobians are drawn.
    comparison : Comparison
        What :func:`compare` returned.
    title : str, default="A rotation"
        What was rotated.
    null : NullBaseline, default=None
        What :func:`jacrot.inspection.null_baseline` returned; the report says where it is missing.
    stability : AxisStability, default=None
        What :func:`jacrot.inspection.axis_stability` returned.
    files : mapping of str to path-like or (path-like, str), default=None
        What was read, by what it is; each is listed with its SHA-256. The hash is that of the file
        now, or the one beside its path, computed when it was read.
    command : str, default=None
        The command that does it again.
    code : str, default=None
        Python code that goes on from here.
    messages : sequence of str, default=()
        Warnings of the run.

    Raises
    ------
    OSError
        If the file cannot be written; see :meth:`jacrot.Network.save`.
    ValueError
        If `path` is a folder, a device or a pipe.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.report import compare, write_report
    >>> problem = make_planted_problem(8, 16, density=0.2, random_state=0)
    >>> X, X_test = problem.X[:200], problem.X[200:]
    >>> rotation = JacobianSparsityRotation(problem.network, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.html"
    ...     write_report(path, rotation, X_test, compare(rotation, X, X_test))
    ...     path.read_text()[:15]
    '<!doctype html>'
    """
    sections = [
        _summary(comparison, null),
        *([_warnings(messages)] if messages else []),
        _what_was_done(estimator, comparison.n_held_out, messages),
        _sparsity(estimator, comparison),
        _same_function(estimator, comparison),
        _jacobians(estimator, X_test),
        _nulls(null),
        _axes_found_again(stability),
        _convergence(estimator),
        _going_on(code),
        _provenance(estimator, X_test, files or {}, command),
    ]
    html = element("html", lang="en")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # A browser, too, is told that nothing is to be loaded or run.
        element(
            "meta",
            {
                "http-equiv": "Content-Security-Policy",
                "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
            },
        ),
        element("title", f"{title} – jacrot"),
        element("style", STYLE),
    )
    heading = element("header", element("h1", title), element("p", "jacrot report"))
    html.extend([head, element("body", element("main", heading, *sections))])
    text = ElementTree.tostring(html, encoding="unicode", method="html")
    with atomic_write(path) as file:
        file.write(f"<!doctype html>\n{text}\n".encode())


def _summary(comparison: Comparison, null: NullBaseline | None) -> ElementTree.Element:
    ours, given = comparison.bases[OURS], comparison.bases[GIVEN]
    other, sparsity = comparison.sparsest_other
    figures = {
        "held-out sparsity, rotated": (f"{ours.held_out:.3f}", "0: dense, 1: a single entry"),
        "held-out sparsity, given basis": (f"{given.held_out:.3f}", "the neurons"),
        "sparsest other basis": (f"{sparsity:.3f}", other),
        "networks that learned nothing": (
            ("not compared", "no null baseline was fitted")
            if null is None
            else (_conclusion(null), "the same fit on null networks")
        ),
    }
    items = [
        element(
            "div",
            element("dt", name),
            element("dd", value, {"class": "figure" if value[0].isdigit() else "phrase"}),
            element("dd", note),
        )
        for name, (value, note) in figures.items()
    ]
    return element("dl", *items, {"class": "figures"})


def _warnings(messages: Sequence[str]) -> ElementTree.Element:
    items = [element("li", message) for message in messages]
    return section("Warnings", element("ul", *items, {"class": "warnings"}))


def _what_was_done(estimator: Any, n_held_out: int, messages: Sequence[str]) -> ElementTree.Element:
    whole = isinstance(estimator, NetworkRotation)
    network = estimator.network_
    parameters = estimator.get_params(deep=False)
    shape = estimator.provenance_["data"][0]["shape"]
    subject = "The network is" if whole else "The rotated activations are read by"
    sentences = [f"{subject} {network!r}."]
    sizes = {site: len(rotation) for site, rotation in found_rotations(estimator).items()}
    if whole:
        listed = ", ".join(f"{size} at site {site}" for site, size in sizes.items())
        sentences.append(
            f"All its hidden activations were put in new bases, found jointly: {listed} (site l is "
            "what layer l reads). Every basis is shared by the layer that writes it and the one "
            "that reads it."
        )
    else:
        n_features = estimator.n_features_in_
        kept = "" if sizes[0] == n_features else f", which keep {sizes[0]} directions of them"
        outputs = {
            False: "The outputs stay in their own basis.",
            True: "The outputs were put in a new basis of their own.",
            "tied": "The outputs were put in the same basis.",
        }[parameters["rotate_output"]]
        sentences.append(
            f"The {n_features} activations that it reads were put in a new basis of {sizes[0]} "
            f"axes{kept}. {outputs}"
        )
    if parameters["coordinates"] == "functional":
        sentences.append(
            "The axes are a rotation of whitened activations (functional coordinates), and not "
            "orthogonal in the space of neurons."
        )
    wanted = {
        "hoyer": "the largest mean Hoyer sparsity of the Jacobians",
        "l1": "the smallest mean absolute derivative",
        "log": "the fewest large entries in the table of mean square derivatives",
        "logcosh": "the smallest mean log cosh of the derivatives",
        "quartimax": "the largest mean fourth power of the derivatives",
    }.get(str(parameters["criterion"]), "the smallest value of the user's own criterion")
    n_searches = parameters["n_init"]
    searches = "One search" if n_searches == 1 else f"The best of {n_searches} searches"
    ended = "ended by itself" if estimator.converged_ else "did not end by itself"
    warned = "" if messages else " The run gave no warnings."
    sentences.append(
        f"What was sought among all such bases: {wanted}, on {shape[0]:,} inputs. {searches} from "
        f"seed {estimator.provenance_['seed']} found this one, and {ended}. {n_held_out:,} other "
        "inputs were held out. Nothing was trained: the inverse of a rotation is folded into the "
        f"weights that read its axes.{warned}"
    )
    return section("What was done", " ".join(sentences))


def _sparsity(estimator: Any, comparison: Comparison) -> ElementTree.Element:
    rows = [
        (name, f"{training:.3f}", f"{held_out:.3f}")
        for name, (training, held_out) in comparison.bases.items()
    ]
    training, held_out = comparison.bases[OURS]
    other, sparsity = comparison.sparsest_other
    gap = held_out - sparsity
    found = f"{abs(gap):.3f} {'above' if gap > 0 else 'below'}"
    parts: list[str | ElementTree.Element] = [
        "Mean Hoyer sparsity of the Jacobians: 0 when all derivatives have one size, 1 when only "
        "one is not zero. Only the held-out column counts: a rotation fits the inputs that it was "
        "found on.",
        table(("basis", "training", "held out"), rows, counts=2, last_row=True),
        f"On held-out inputs the rotation is {found} the sparsest other basis, the "
        f"{other} ({sparsity:.3f}). That difference is what the search added, and not the "
        "one from the given basis: a linear map is sparse in its singular basis, whatever it "
        f"computes. Training minus held out is {training - held_out:+.3f}.",
    ]
    if comparison.layers:
        layers = [
            (f"{number}", f"{given:.3f}", f"{ours:.3f}")
            for number, (given, ours) in enumerate(comparison.layers)
        ]
        parts += [
            "Layer by layer, on held-out inputs:",
            table(("layer", "given basis", "rotated"), layers, counts=2),
        ]
    if estimator.coordinates == "functional":
        parts.append(
            "In functional coordinates only the first two rows are of the plain Jacobians; the "
            "others are of those between whitened activations. Few connections are what these "
            "coordinates are for: jacrot.inspection.edge_curve counts them."
        )
    return section("How sparse, beside other bases", *parts)


def _same_function(estimator: Any, comparison: Comparison) -> ElementTree.Element:
    text = (
        f"On the {comparison.n_held_out:,} held-out inputs the outputs of the network and of the "
        f"rotated one differ by at most {comparison.difference:.1e}; the largest output is "
        f"{comparison.largest:.3g}."
    )
    if comparison.same_predictions is not None:
        text += (
            f" Both predict the same class for {comparison.same_predictions:,} of "
            f"{comparison.n_held_out:,}."
        )
    if any(len(rotation) < rotation.shape[1] for rotation in found_rotations(estimator).values()):
        text += (
            " Not all axes are kept, so that the rotated network computes with the projected "
            "activations, and the difference is what that costs."
        )
    return section("Whether it computes the same", text)


def _jacobians(estimator: Any, X_test: ArrayLike) -> ElementTree.Element:
    x = estimator._activations(X_test, reset=False)
    layers = analysed_layers(estimator, estimator.network_, x)
    found = found_rotations(estimator)
    figures: list[str | ElementTree.Element] = []
    n_most = 0
    for number, layer in enumerate(layers[:MOST_LAYERS]):
        n_inputs = min(
            layer.plain.shape[0],
            layer.stack.shape[0],
            max(1, PICTURE_ENTRIES // layer.stack.n_entries_each),
        )
        n_most = max(n_most, n_inputs)
        P, Q = found.get(number + 1), found.get(number)
        before = _some(layer.plain, n_inputs, None, None)
        after = _some(layer.stack, n_inputs, P, Q)
        figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
        JacobianDisplay.from_jacobians(
            before, after, rotated_output=P is not None, ax=figure.subplots(1, 2)
        )
        which = f" of layer {number}" if len(layers) > 1 else ""
        figures.append(picture(figure, f"Jacobian{which} before and after the rotation"))
        if which:
            figures.insert(-1, element("h3", f"Layer {number}"))
    text = (
        f"The size of every derivative, mean over {n_most:,} held-out samples, each scaled to root "
        "mean square 1. Left in the given basis, right in the new one, outputs and axes ordered so "
        "that the strongest links stand on the diagonal. The mean hides what differs from input to "
        "input; the sparsities above do not."
    )
    if len(layers) > MOST_LAYERS:
        text += f" The first {MOST_LAYERS} of {len(layers)} layers are drawn."
    return section("The Jacobian before and after", text, *figures)


def _some(stack: Jacobians, n: int, P: Matrix | None, Q: Matrix | None) -> Array:
    """Give some Jacobians, evenly spread over the samples."""
    chosen = stack.subset(np.linspace(0, stack.shape[0] - 1, n).astype(np.intp))
    rotated = np.concatenate(list(chosen.rotated(P, Q)))
    return rotated.reshape(n, stack.n_matrices, *rotated.shape[1:])


def _conclusion(null: NullBaseline) -> str:
    return null.verdict.partition(":")[0]


def _nulls(null: NullBaseline | None) -> ElementTree.Element:
    title = "Is it more than any network would give?"
    if null is None:
        return section(
            title,
            "No null baseline was fitted, so that nobody can tell whether this sparsity has to do "
            "with what the network learned. Write --nulls 10 beside jacrot fit, or call "
            "jacrot.inspection.null_baseline: it fits the same to the weights in random order, and "
            "to random singular vectors with the same spectrum.",
        )
    (n_runs,) = {len(runs) for runs in null.nulls.values()}
    kinds = {
        "shuffled": "shuffled: weights in random order",
        "spectrum": "spectrum: random singular vectors, the same singular values",
        "initial": "initial: weights before training",
    }
    rows = [
        (
            kinds[name],
            f"{null.nulls_given[name].mean():.3f}",
            f"{runs.mean():.3f} ± {null.spread[name]:.3f}",
            f"{null.nulls_gain[name].mean():.3f}",
        )
        for name, runs in null.nulls.items()
    ]
    rows.append(("this network", f"{null.given:.3f}", f"{null.score:.3f}", f"{null.gain:.3f}"))
    figure = Figure(figsize=(WIDTH, 1.2 + 0.6 * len(null.nulls)), layout="constrained")
    # The verdict is above the picture already.
    NullBaselineDisplay.from_result(null, ax=figure.add_subplot()).ax_.set_title("", loc="left")
    _, _, figures = null.verdict.partition(": ")
    return section(
        title,
        element("p", element("strong", _sentence(_conclusion(null))), f" {_sentence(figures)}"),
        table(("held out", "given basis", "rotated", "gain"), rows, counts=2, last_row=True),
        f"The same fit, on {n_runs} networks of each kind that learned nothing. A null that is as "
        "sparse means that the sparse picture is no evidence of learned structure. With "
        f"{n_runs} of each, a network no different from them comes out above all of a kind by "
        f"chance once in {n_runs + 1} times.",
        picture(figure, null.verdict),
    )


def _axes_found_again(stability: AxisStability | None) -> ElementTree.Element:
    title = "Are the same axes found again?"
    if stability is None:
        return section(
            title,
            "That was not asked. There are local minima, and axes of one of them need not mean "
            "more than those of another: before you name an axis, write --n-init 4 beside jacrot "
            "fit, or call jacrot.inspection.axis_stability, and see whether it comes back.",
        )
    rows = [
        (
            f"site {name}" if isinstance(name, int) else f"{name} axes",
            f"{mean:.2f}",
            f"{stability.chance[name]:.2f}",
        )
        for name, mean in stability.mean.items()
    ]
    starts, resamples = (
        len(next(iter(cosines.values())))
        for cosines in (stability.cosines_of_starts, stability.cosines_of_samples)
    )
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    AxisStabilityDisplay.from_result(stability, ax=figure.add_subplot())
    return section(
        title,
        f"The same fit from {starts} other start{'s' * (starts > 1)} and on {resamples} resampled "
        f"set{'s' * (resamples > 1)} of inputs. Mean |cos| between an axis and the one matched "
        "with it, axes weighted by their effect, and what axes of random rotations reach:",
        table(("rotation", "found again", "chance"), rows, counts=1),
        picture(figure, "How far every axis is found again, sorted"),
    )


def _convergence(estimator: Any) -> ElementTree.Element:
    title = "How the search went"
    history = estimator.history_
    if history["stage"].size == 0:
        return section(title, "With a single axis there was nothing to search.")
    ended = "ended by itself" if estimator.converged_ else "was ended before it had converged"
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    ConvergenceDisplay.from_estimator(estimator, ax=figure.add_subplot())
    return section(
        title,
        f"The search that was kept {ended}, after {estimator.n_iter_:,} steps of conjugate "
        f"gradient and {history['seconds'][-1]:.1f} seconds. Costs of two stages are not "
        "comparable.",
        picture(figure, "Cost of the search, stage by stage"),
    )


def _going_on(code: str | None) -> ElementTree.Element:
    parts: list[str | ElementTree.Element] = []
    if code is not None:
        parts += ["In Python:", element("pre", element("code", code))]
    parts.append(
        "jacrot.inspection goes on from there: locality_curve moves an axis by a real step and "
        "counts the outputs that change, edge_curve removes connections and runs the network, "
        "axis_stability fits again from other starts, null_baseline fits networks that learned "
        "nothing."
    )
    return section("How to go on", *parts)


def _provenance(
    estimator: Any,
    X_test: ArrayLike,
    files: Mapping[str, _Path | tuple[_Path, str]],
    command: str | None,
) -> ElementTree.Element:
    provenance = estimator.provenance_
    parts: list[str | ElementTree.Element] = []
    if command is not None:
        parts += ["The command:", element("pre", element("code", command), {"class": "wrap"})]
    hashes = []
    for name, read in files.items():
        path, digest = read if isinstance(read, tuple) else (read, sha256(Path(read)))
        hashes.append((f"{name}: file {os.fspath(path)}", digest))
    for data in provenance["data"]:
        hashes.append((f"fitted on: {_described(data['shape'], data['dtype'])}", data["sha256"]))
    x = estimator._activations(X_test, reset=False)
    hashes.append((f"held out: {_described(x.shape, x.dtype)}", fingerprint(x)))
    for network in provenance["networks"]:
        digest = network["sha256"] or "none, since it holds a function"
        hashes.append((f"rotated: {network['repr']}", digest))
    parts += [
        "The SHA-256 of a file is that of its bytes, that of an array is what "
        "jacrot.provenance.fingerprint gives.",
        table(("what", "SHA-256"), hashes, numbers=False),
    ]
    settings = {"estimator": provenance["estimator"], "seed": provenance["seed"]}
    # The network knows its own activations.
    settings |= {
        name: value for name, value in provenance["parameters"].items() if name != "activation"
    }
    tables = [
        table(header, [(name, str(value)) for name, value in values.items()], numbers=False)
        for header, values in (
            (("parameter", "value"), settings),
            (("package", "version"), provenance["versions"]),
        )
    ]
    parts.append(element("div", *tables, {"class": "beside"}))
    return section("Where it comes from", *parts)


def _described(shape: Sequence[int], dtype: Any) -> str:
    return f"array {' × '.join(map(str, shape))} {dtype}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
