"""What a fit found, beside what it has to be compared with, as one HTML file."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jacrot._arrays import FEATURES_AXIS, Array, Matrix
from jacrot._estimator import NetworkEstimator, mean_hoyer, shared, with_effect
from jacrot._files import whole
from jacrot._threads import one_blas_thread
from jacrot.coordinates import SiteBasis
from jacrot.display import (
    AxisStabilityDisplay,
    ConvergenceDisplay,
    JacobianDisplay,
    NullBaselineDisplay,
)
from jacrot.inspection import AxisStability, NullBaseline
from jacrot.inspection._fitted import fitted_network
from jacrot.jacobians import Jacobians
from jacrot.layers import Dense, Softmax
from jacrot.network import Network
from jacrot.network_jacobians import drawn_pairs, network_jacobians
from jacrot.network_rotation import NetworkRotation, _layer_jacobians, _parts
from jacrot.positions import at_positions, to_rows
from jacrot.provenance import fingerprint
from jacrot.readers._limits import printable
from jacrot.rotation import SCORE_SEED

__all__ = ["BasisSparsity", "Comparison", "compare", "write_report"]

# Names of the bases that are compared.
GIVEN, PCA, PRINCIPAL, MEAN, OURS = (
    "given basis",
    "principal components of the activations",
    "principal directions of the Jacobians",
    "singular vectors of the mean Jacobian",
    "jacrot",
)
# A picture is the mean of as many Jacobians as have so many entries together.
PICTURE_ENTRIES = 2**23
# Layers of a network that are drawn at most.
MOST_LAYERS = 6
# Of a picture, in inches: letters can be read where a screen is narrow.
WIDTH, DPI = 7.0, 130

Rotations = dict[int, Matrix]


class BasisSparsity(NamedTuple):
    """Mean Hoyer sparsity of the Jacobians in some basis.

    Parameters
    ----------
    training, held_out : float
        On the inputs that were fitted, and on others.

    Examples
    --------
    >>> from jacrot.report import BasisSparsity
    >>> BasisSparsity(training=0.7, held_out=0.6).held_out
    0.6
    """

    training: float
    held_out: float


@dataclass(frozen=True)
class Comparison:
    """The sparsity in several bases, and whether the rotated network computes the same.

    Parameters
    ----------
    bases : dict of str to BasisSparsity
        The mean Hoyer sparsity in every basis, in the given one first and the rotation's last.
    layers : list of tuple of float
        Of a whole network the held-out sparsity of every layer, given and rotated; else empty.
    difference, largest : float
        The largest difference between an output of the network and that of the rotated one, turned
        back, and the largest output; on held-out inputs.
    same_predictions : int or None
        On how many of them both have the same largest output; ``None`` where outputs are no logits.
    n_held_out : int
        How many there are.

    Examples
    --------
    >>> from jacrot.report import BasisSparsity, Comparison
    >>> bases = {"given basis": BasisSparsity(0.3, 0.3), "jacrot": BasisSparsity(0.7, 0.6)}
    >>> Comparison(bases, [], 1e-14, 5.0, None, 100).sparsest_other
    ('given basis', 0.3)
    """

    bases: dict[str, BasisSparsity]
    layers: list[tuple[float, float]]
    difference: float
    largest: float
    same_predictions: int | None
    n_held_out: int

    @property
    def sparsest_other(self) -> tuple[str, float]:
        """The basis, but for the rotation's, that is sparsest on held-out inputs."""
        others = {name: held_out for name, (_, held_out) in self.bases.items() if name != OURS}
        name = max(others, key=lambda name: others[name])
        return name, others[name]


class _Layer(NamedTuple):
    """The Jacobians of a layer, or of the whole computation that is rotated at its two ends."""

    plain: Jacobians
    plain_norms: Matrix
    # The same in the estimator's coordinates.
    stack: Jacobians
    norms: Matrix


def compare(
    estimator: NetworkEstimator,
    X: ArrayLike,
    X_test: ArrayLike,
    *,
    readout: Network | None = None,
) -> Comparison:
    """Compute the sparsity in the basis found and in others, and run the rotated network.

    Where the outputs are rotated, every basis has axes of its own kind for them; where all sites of
    a network are, for each of these.

    - ``"given basis"``: the neurons.
    - ``"principal components of the activations"``.
    - ``"principal directions of the Jacobians"``: eigenvectors of ``E[JᵀJ]`` and of ``E[JJᵀ]``, of
      their sum for a site between two layers and for tied outputs.
    - ``"singular vectors of the mean Jacobian"``, where inputs and outputs have axes of their own
      and a sample has one Jacobian. Those of a linear layer are those of its weights.
    - ``"jacrot"``: the estimator's.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted to one network on `X`.
    X : array-like of shape (n_samples, n_features)
        Training inputs: the other bases, too, are made of them.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs.
    readout : Network, default=None
        What reads the outputs, on to the logits; the two networks are then compared there.

    Returns
    -------
    Comparison
        The figures.

    Raises
    ------
    TypeError
        If `estimator` is none of this package's.
    ValueError
        If it was fitted to several blocks or to Jacobians computed elsewhere.

    Notes
    -----
    In functional coordinates the figures of all but the first two bases are those of the Jacobians
    in these coordinates.

    Examples
    --------
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.report import compare
    >>> problem = make_planted_problem(16, 32, random_state=0)
    >>> X, X_test = problem.X[:200], problem.X[200:]
    >>> rotation = JacobianSparsityRotation(problem.network, random_state=0).fit(X)
    >>> comparison = compare(rotation, X, X_test)
    >>> print(f"{comparison.bases['jacrot'].held_out:.2f}")
    0.84
    >>> comparison.difference < 1e-12
    True
    """
    network = fitted_network(estimator)
    x, x_test = (estimator._activations(inputs, reset=False) for inputs in (X, X_test))
    training, held_out = (_layers(estimator, network, inputs) for inputs in (x, x_test))
    bases = {}
    for name, (rotations, plain) in _bases(estimator, network, x, training).items():
        on = [_sparsities(layers, rotations, plain) for layers in (training, held_out)]
        bases[name] = BasisSparsity(*(float(np.mean(sparsities)) for sparsities in on))
    layers = []
    if isinstance(estimator, NetworkRotation):
        given, ours = (
            _sparsities(held_out, *how) for how in (({}, True), (estimator.rotations_, False))
        )
        layers = list(zip(given, ours, strict=True))
    outputs, others = _outputs(estimator, network, x_test.astype(np.float64), readout)
    same = None
    if _are_logits((readout or network).layers[-1], outputs):
        same = int(np.count_nonzero(outputs.argmax(axis=1) == others.argmax(axis=1)))
    return Comparison(
        bases=bases,
        layers=layers,
        difference=float(np.abs(others - outputs).max()),
        largest=float(np.abs(outputs).max()),
        same_predictions=same,
        n_held_out=len(x_test),
    )


def write_report(
    path: str | os.PathLike[str],
    estimator: NetworkEstimator,
    X_test: ArrayLike,
    comparison: Comparison,
    *,
    title: str = "A rotation",
    null: NullBaseline | None = None,
    stability: AxisStability | None = None,
    files: Mapping[str, str | os.PathLike[str]] | None = None,
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
    files : mapping of str to path-like, default=None
        What was read, by what it is; each is listed with its SHA-256.
    command : str, default=None
        The command that does it again.
    code : str, default=None
        Python code that goes on from here.
    messages : sequence of str, default=()
        Warnings of the run.

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
    html = _element("html", lang="en")
    head = _element(
        "head",
        _element("meta", charset="utf-8"),
        _element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # A browser, too, is told that nothing is to be loaded or run.
        _element(
            "meta",
            {
                "http-equiv": "Content-Security-Policy",
                "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
            },
        ),
        _element("title", f"{title} – jacrot"),
        _element("style", STYLE),
    )
    heading = _element("header", _element("h1", title), _element("p", "jacrot report"))
    html.extend([head, _element("body", _element("main", heading, *sections))])
    text = ElementTree.tostring(html, encoding="unicode", method="html")
    with whole(Path(path)) as partial:
        partial.write_text(f"<!doctype html>\n{text}\n", encoding="utf-8")


def _layers(estimator: Any, network: Network, X: Array) -> list[_Layer]:
    """List the Jacobians that are rotated: of the network, or of every layer of it."""
    if isinstance(estimator, NetworkRotation):
        layers = []
        for site, part in enumerate(_parts(network, X, np.random.RandomState(SCORE_SEED))):
            plain = _layer_jacobians(part, site, {}, None)
            own = plain
            if estimator._coordinates:
                own = _layer_jacobians(part, site, estimator._coordinates, None)
            layers.append(_Layer(plain.stack, plain.norms, own.stack, own.norms))
        return layers
    pairs = drawn_pairs(network, X, np.random.RandomState(SCORE_SEED))
    whole = network_jacobians(network, X, pairs)
    stack, _, norms = with_effect(whole)
    if estimator.coordinates == "neurons":
        return [_Layer(stack, norms, stack, norms)]
    own_stack, _, own_norms = with_effect(estimator._in_coordinates(whole))
    return [_Layer(stack, norms, own_stack, own_norms)]


def _found(estimator: Any) -> Rotations:
    """Give the rotations by site."""
    if isinstance(estimator, NetworkRotation):
        return estimator.rotations_
    P = estimator.output_rotation_
    return {0: estimator.rotation_} if P is None else {0: estimator.rotation_, 1: P}


def _bases(
    estimator: Any, network: Network, X: Array, layers: list[_Layer]
) -> dict[str, tuple[Rotations, bool]]:
    """Make the bases by name, and say which of them are of the plain Jacobians."""
    found = _found(estimator)
    tied = getattr(estimator, "rotate_output", None) == "tied"
    activations = [X]
    step = 1 if isinstance(estimator, NetworkRotation) else network.n_layers
    for first in range(0, network.n_layers, step):
        activations.append(network[first : first + step](activations[-1]))
    moments: dict[int, Matrix] = {}
    for number, layer in enumerate(layers):
        unit = layer.stack.scaled(1 / layer.norms)
        with one_blas_thread(), shared(unit) as apply:
            reading, writing = unit.moments(apply=apply)
        for site, moment in ((number, reading), (0 if tied else number + 1, writing)):
            moments[site] = moments.get(site, 0) + moment

    def axes(moments: Mapping[int, Matrix]) -> Rotations:
        return {
            site: _principal(moments[0 if tied else site])[: len(rotation)]
            for site, rotation in found.items()
        }

    covariances = {
        site: np.atleast_2d(np.cov(to_rows(activations[site]).T.astype(np.float64)))
        for site in found
    }
    bases: dict[str, tuple[Rotations, bool]] = {GIVEN: ({}, True), PCA: (axes(covariances), True)}
    bases[PRINCIPAL] = axes(moments), False
    stack = layers[0].stack
    if len(layers) == 1 and not tied and stack.n_matrices == 1:
        unit = stack.scaled(1 / layers[0].norms)
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in unit.rotated(None, None))
        left, _, right = np.linalg.svd(np.asarray(mean))
        of_sites = {0: right, 1: left.T}
        bases[MEAN] = {site: of_sites[site][: len(found[site])] for site in found}, False
    bases[OURS] = found, False
    return bases


def _principal(moment: Matrix) -> Matrix:
    """Find the eigenvectors of a second moment as rows, the largest first."""
    return np.linalg.eigh(moment)[1].T[::-1]


def _sparsities(layers: list[_Layer], rotations: Rotations, plain: bool) -> list[float]:
    return [
        mean_hoyer(
            layer.plain if plain else layer.stack,
            layer.plain_norms if plain else layer.norms,
            rotations.get(number + 1),
            rotations.get(number),
        )
        for number, layer in enumerate(layers)
    ]


def _outputs(
    estimator: Any, network: Network, X: Array, readout: Network | None
) -> tuple[Array, Array]:
    """Compute the outputs of a network, and those of the rotated one in the same basis."""
    outputs = network(X)
    n_outputs = outputs.shape[FEATURES_AXIS[outputs.ndim]]
    rotated = estimator.rotated_network()
    if isinstance(estimator, NetworkRotation):
        last = network.n_layers
        coordinates = estimator._coordinates.get(last)
        basis = SiteBasis.of(estimator.rotations_.get(last), coordinates, n_outputs)
        others = rotated(X)
    else:
        coordinates = estimator._outer
        basis = SiteBasis.of(estimator.output_rotation_, coordinates, n_outputs)
        others = rotated(at_positions(estimator.transform, X))
    mean = 0 if coordinates is None else coordinates.mean
    others = at_positions(lambda rows: rows @ basis.decoder.T + mean, others)
    return (outputs, others) if readout is None else (readout(outputs), readout(others))


def _are_logits(layer: Any, outputs: Array) -> bool:
    """Tell scores or probabilities of classes from activations."""
    linear = isinstance(layer, Dense) and layer.activation_name == "identity"
    return outputs.ndim == 2 and outputs.shape[1] > 1 and (linear or isinstance(layer, Softmax))


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
        _element(
            "div",
            _element("dt", name),
            _element("dd", value, {"class": "figure" if value[0].isdigit() else "phrase"}),
            _element("dd", note),
        )
        for name, (value, note) in figures.items()
    ]
    return _element("dl", *items, {"class": "figures"})


def _warnings(messages: Sequence[str]) -> ElementTree.Element:
    items = [_element("li", message) for message in messages]
    return _section("Warnings", _element("ul", *items, {"class": "warnings"}))


def _what_was_done(estimator: Any, n_held_out: int, messages: Sequence[str]) -> ElementTree.Element:
    whole = isinstance(estimator, NetworkRotation)
    network = estimator.network_
    parameters = estimator.get_params(deep=False)
    shape = estimator.provenance_["data"][0]["shape"]
    subject = "The network is" if whole else "The rotated activations are read by"
    sentences = [f"{subject} {network!r}."]
    sizes = {site: len(rotation) for site, rotation in _found(estimator).items()}
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
    return _section("What was done", " ".join(sentences))


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
        _table(("basis", "training", "held out"), rows, counts=2, last_row=True),
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
            _table(("layer", "given basis", "rotated"), layers, counts=2),
        ]
    if estimator.coordinates == "functional":
        parts.append(
            "In functional coordinates only the first two rows are of the plain Jacobians; the "
            "others are of those between whitened activations. Few connections are what these "
            "coordinates are for: jacrot.inspection.edge_curve counts them."
        )
    return _section("How sparse, beside other bases", *parts)


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
    if any(len(rotation) < rotation.shape[1] for rotation in _found(estimator).values()):
        text += (
            " Not all axes are kept, so that the rotated network computes with the projected "
            "activations, and the difference is what that costs."
        )
    return _section("Whether it computes the same", text)


def _jacobians(estimator: Any, X_test: ArrayLike) -> ElementTree.Element:
    x = estimator._activations(X_test, reset=False)
    layers = _layers(estimator, estimator.network_, x)
    found = _found(estimator)
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
        figures.append(_picture(figure, f"Jacobian{which} before and after the rotation"))
        if which:
            figures.insert(-1, _element("h3", f"Layer {number}"))
    text = (
        f"The size of every derivative, mean over {n_most:,} held-out samples, each scaled to root "
        "mean square 1. Left in the given basis, right in the new one, outputs and axes ordered so "
        "that the strongest links stand on the diagonal. The mean hides what differs from input to "
        "input; the sparsities above do not."
    )
    if len(layers) > MOST_LAYERS:
        text += f" The first {MOST_LAYERS} of {len(layers)} layers are drawn."
    return _section("The Jacobian before and after", text, *figures)


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
        return _section(
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
    return _section(
        title,
        _element("p", _element("strong", _sentence(_conclusion(null))), f" {_sentence(figures)}"),
        _table(("held out", "given basis", "rotated", "gain"), rows, counts=2, last_row=True),
        f"The same fit, on {n_runs} networks of each kind that learned nothing. A null that is as "
        "sparse means that the sparse picture is no evidence of learned structure. With "
        f"{n_runs} of each, a network no different from them comes out above all of a kind by "
        f"chance once in {n_runs + 1} times.",
        _picture(figure, null.verdict),
    )


def _axes_found_again(stability: AxisStability | None) -> ElementTree.Element:
    title = "Are the same axes found again?"
    if stability is None:
        return _section(
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
    return _section(
        title,
        f"The same fit from {starts} other start{'s' * (starts > 1)} and on {resamples} resampled "
        f"set{'s' * (resamples > 1)} of inputs. Mean |cos| between an axis and the one matched "
        "with it, axes weighted by their effect, and what axes of random rotations reach:",
        _table(("rotation", "found again", "chance"), rows, counts=1),
        _picture(figure, "How far every axis is found again, sorted"),
    )


def _convergence(estimator: Any) -> ElementTree.Element:
    title = "How the search went"
    history = estimator.history_
    if history["stage"].size == 0:
        return _section(title, "With a single axis there was nothing to search.")
    ended = "ended by itself" if estimator.converged_ else "was ended before it had converged"
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    ConvergenceDisplay.from_estimator(estimator, ax=figure.add_subplot())
    return _section(
        title,
        f"The search that was kept {ended}, after {estimator.n_iter_:,} steps of conjugate "
        f"gradient and {history['seconds'][-1]:.1f} seconds. Costs of two stages are not "
        "comparable.",
        _picture(figure, "Cost of the search, stage by stage"),
    )


def _going_on(code: str | None) -> ElementTree.Element:
    parts: list[str | ElementTree.Element] = []
    if code is not None:
        parts += ["In Python:", _element("pre", _element("code", code))]
    parts.append(
        "jacrot.inspection goes on from there: locality_curve moves an axis by a real step and "
        "counts the outputs that change, edge_curve removes connections and runs the network, "
        "axis_stability fits again from other starts, null_baseline fits networks that learned "
        "nothing."
    )
    return _section("How to go on", *parts)


def _provenance(
    estimator: Any,
    X_test: ArrayLike,
    files: Mapping[str, str | os.PathLike[str]],
    command: str | None,
) -> ElementTree.Element:
    provenance = estimator.provenance_
    parts: list[str | ElementTree.Element] = []
    if command is not None:
        parts += ["The command:", _element("pre", _element("code", command), {"class": "wrap"})]
    hashes = []
    for name, path in files.items():
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
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
        _table(("what", "SHA-256"), hashes, numbers=False),
    ]
    settings = {"estimator": provenance["estimator"], "seed": provenance["seed"]}
    # The network knows its own activations.
    settings |= {
        name: value for name, value in provenance["parameters"].items() if name != "activation"
    }
    tables = [
        _table(header, [(name, str(value)) for name, value in values.items()], numbers=False)
        for header, values in (
            (("parameter", "value"), settings),
            (("package", "version"), provenance["versions"]),
        )
    ]
    parts.append(_element("div", *tables, {"class": "beside"}))
    return _section("Where it comes from", *parts)


def _described(shape: Sequence[int], dtype: Any) -> str:
    return f"array {' × '.join(map(str, shape))} {dtype}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _element(
    tag: str, *content: str | ElementTree.Element | dict[str, str], **attributes: str
) -> ElementTree.Element:
    """Make an element; all text in it is escaped when it is written."""
    element = ElementTree.Element(tag, attributes)
    last: ElementTree.Element | None = None
    for part in content:
        if isinstance(part, dict):
            element.attrib |= part
        elif isinstance(part, str):
            text = "\n".join(map(printable, part.split("\n")))
            if last is None:
                element.text = (element.text or "") + text
            else:
                last.tail = (last.tail or "") + text
        else:
            element.append(part)
            last = part
    return element


def _section(title: str, *content: str | ElementTree.Element) -> ElementTree.Element:
    """Make a section of paragraphs and other elements."""
    parts = [_element("p", part) if isinstance(part, str) else part for part in content]
    return _element("section", _element("h2", title), *parts)


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: bool = True,
    counts: int | None = None,
    last_row: bool = False,
) -> ElementTree.Element:
    """Make a table, of numbers but for its first column; mark the column and the row that count."""

    def marked(column: int) -> dict[str, str]:
        return {"class": "counts"} if column == counts else {}

    names = [_element("th", name, marked(i), scope="col") for i, name in enumerate(columns)]
    head = _element("tr", *names)
    body = _element("tbody")
    for index, row in enumerate(rows):
        cells = [_element("th", row[0], scope="row")]
        cells += [_element("td", cell, marked(i)) for i, cell in enumerate(row[1:], start=1)]
        ours = last_row and index == len(rows) - 1
        body.append(_element("tr", *cells, {"class": "ours"} if ours else {}))
    kind = "numbers" if numbers else "words"
    table = _element("table", _element("thead", head), body, {"class": kind})
    # A wide table scrolls by itself on a narrow screen.
    return _element("div", table, {"class": "wide"})


def _picture(figure: Figure, description: str) -> ElementTree.Element:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return _element("figure", _element("img", src=source, alt=printable(description)))


STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --quiet: #5b6470; --paper: #fff; --line: #d5dae0;
  --tint: #eaf3fb; --warn: #fdf1e3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --quiet: #9da7b3; --paper: #15191e;
  --line: #39414b; --tint: #17293a; --warn: #382a18; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header p { margin: 0; color: var(--quiet); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 0; }
p { margin: .7rem 0; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
.figures div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.figures div:first-child { background: var(--tint); }
.figures dt { font-size: .85rem; color: var(--quiet); }
.figures dd { margin: 0; font-size: .85rem; color: var(--quiet); }
.figures .figure, .figures .phrase { font-weight: 600; color: var(--ink); }
.figures .figure { font-size: 1.35rem; line-height: 1.3; }
.figures .phrase { font-size: 1.05rem; line-height: 1.35; margin: .1rem 0; }
.warnings { background: var(--warn); border-radius: .5rem; padding: .8rem 1rem .8rem 2rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .95rem; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: 400; }
thead th { color: var(--quiet); font-size: .85rem; }
.numbers th + th, .numbers td { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; padding-left: .8rem; }
.numbers .counts { background: var(--tint); font-weight: 650; }
.ours th, .ours td { font-weight: 650; }
.words { width: 100%; font-size: .85rem; }
.words td { overflow-wrap: anywhere; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr));
  column-gap: 2rem; align-items: start; }
@media (max-width: 36rem) { table { font-size: .85rem; }
  .numbers th + th, .numbers td { padding-left: .4rem; padding-right: .4rem; } }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; padding: .8rem;
  font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: .5rem; }
@media print {
  :root { color-scheme: light; --ink: #000; --quiet: #444; --paper: #fff; --line: #bbb;
    --tint: #eee; --warn: #eee; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, tr, pre, .figures div { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  h2 { margin-top: 1.2rem; padding-top: .6rem; }
  th, td { padding-top: .15rem; padding-bottom: .15rem; }
}
"""
