"""Inspect fitted bases: connections, null models, other starts and interventions.

The network is the MNIST classifier if ``--data`` names its folder, and otherwise that of the
digits. For every seed, calibration inputs are drawn from all images except the last 2,000 (500),
which are held out. Connections are counted by forward passes, as in
``jacrot.inspection.edge_curve``.

    python benchmarks/inspection.py --data FOLDER
"""

from __future__ import annotations

import gzip
import sys
import warnings
from pathlib import Path

import numpy as np
from _common import machine, mnist_network, options, table
from sklearn.exceptions import ConvergenceWarning

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot.datasets import load_digits_mlp
from jacrot.inspection import axis_stability, edge_curve, locality_curve, null_baseline

BASES = ("given", "random", "pca", "svd", "quartimax", "interaction", "functional_svd")
TWO_SIDED_L1, OURS = "jacrot, ℓ₁ of neurons, two-sided", "jacrot, functional, log"
LOSSES, DIVERGENCE = (0.005, 0.01), 0.003


def problem(folder):
    """Load the network, inputs and labels, and the numbers of held-out and calibration inputs."""
    if folder is None:
        digits = load_digits_mlp()
        X = np.concatenate([digits.X, digits.X_test])
        return digits.network, X, np.concatenate([digits.y, digits.y_test]), 500, 300
    network, X = mnist_network(folder)
    packed = (Path(folder) / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes()
    return network, X, np.frombuffer(gzip.decompress(packed)[8:], np.uint8), 2000, 1000


def activations(network, layer, X):
    """Compute the inputs of a layer."""
    return network[:layer](X) if layer else X


def functional(network, layer, seed, tol):
    """Build the estimator in functional coordinates for one layer."""
    readout = network[layer + 1 :] if layer + 1 < network.n_layers else None
    return JacobianSparsityRotation(
        coordinates="functional",
        criterion="log",
        rotate_output=True,
        readout=readout,
        tol=tol,
        random_state=seed,
    )


def spread(counts):
    """Format the mean of the medians over the seeds, and the union of the intervals."""
    low, high = min(count.low for count in counts), max(count.high for count in counts)
    return f"{np.mean(counts):.0f} ({low} to {high})"


def needed(network, data, calibration, layer, basis, seed):
    """Count the connections needed, for accuracy and for divergence."""
    X, y = data
    arguments = {"calibration": calibration, "layer": layer, "random_state": seed}
    curve = edge_curve(network, X, y, basis=basis, **arguments)
    same = [(axes.encoder, axes.decoder) for axes in curve.bases]
    counts = [curve.edges_needed(loss) for loss in LOSSES]
    divergence = edge_curve(network, X, basis=same, metric="kl", **arguments)
    return curve, [*counts, divergence.edges_needed(DIVERGENCE)]


def connections(network, data, draws, layer, bases):
    """Compute the rows of the table for one layer, or for all."""
    rows, notes = [], {}
    for name, basis in bases.items():
        runs = []
        for seed, calibration in enumerate(draws):
            chosen = basis(calibration, seed) if callable(basis) else basis
            curve, counts = needed(network, data, calibration, layer, chosen, seed)
            runs.append(counts)
            notes.setdefault(seed, (curve.full, curve.affine, curve.ranks))
            print(f"layer {layer}, seed {seed}, {name}: {counts}", file=sys.stderr, flush=True)
        rows.append([name, *(spread(list(column)) for column in zip(*runs, strict=True))])
    full, affine = (f"{np.mean([note[k] for note in notes.values()]):.4f}" for k in (0, 1))
    ranks = ", ".join(map(str, notes[0][2]))
    return rows, f"accuracy {full}; affine map instead {affine}; rank of G {ranks}"


def evidence(network, layer, X, X_test, model, n_repeats):
    """Compare the basis of a layer with null models, other starts and inputs, and finite steps."""
    A, A_test = activations(network, layer, X), activations(network, layer, X_test)
    fitted = model.fit(network[layer : layer + 1], A)
    null = null_baseline(fitted, A, A_test, n_repeats=n_repeats, random_state=0)
    stability = axis_stability(fitted, A, n_starts=n_repeats, n_resamples=n_repeats, random_state=0)
    locality = locality_curve(fitted, A_test, random_state=0)
    steps = [int(np.flatnonzero(locality.steps == step)[0]) for step in (0.01, 1.0)]
    before, after = (
        " / ".join(f"{curve[step]:.1f}" for step in steps)
        for curve in (locality.weighted_before, locality.weighted_after)
    )
    row = [
        f"{null.given:.3f}",
        f"{null.score:.3f}",
        *(f"{null.mean[name]:.3f} ± {null.spread[name]:.3f}" for name in ("shuffled", "spectrum")),
        " / ".join(f"{value:.2f}" for value in stability.mean.values()),
        " / ".join(f"{value:.2f}" for value in stability.chance.values()),
        before,
        after,
    ]
    return row, null.verdict


def main(argv=None):
    """Print the tables."""
    arguments = options(__doc__.splitlines()[0], argv)
    warnings.simplefilter("ignore", ConvergenceWarning)
    quick = arguments.quick
    network, X, y, n_held_out, n_calibration = problem(arguments.data)
    if quick:
        n_held_out, n_calibration = 100, 60
    tol = 1e-1 if quick else 1e-4
    data = X[-n_held_out:], y[-n_held_out:]
    seeds = range(1 if quick else 3)
    draws = [
        X[np.random.default_rng(seed).permutation(len(X) - n_held_out)[:n_calibration]]
        for seed in seeds
    ]
    print(machine())
    header = ["basis", "0.5 % loss", "1 % loss", f"divergence {DIVERGENCE}"]

    layers = {"Middle layer": 1} if quick else {"First layer": 0, "Middle layer": 1}
    for title, layer in layers.items():

        def fit_neurons(calibration, seed, layer=layer):
            model = JacobianSparsityRotation(rotate_output=True, tol=tol, random_state=seed)
            return model.fit(network[layer : layer + 1], activations(network, layer, calibration))

        def fit_functional(calibration, seed, layer=layer):
            model = functional(network, layer, seed, tol)
            return model.fit(network[layer : layer + 1], activations(network, layer, calibration))

        bases = {name: name for name in (("given", "pca") if quick else BASES)}
        bases |= {TWO_SIDED_L1: fit_neurons, OURS: fit_functional}
        rows, note = connections(network, data, draws, layer, bases)
        table(f"{title}: connections needed ({note})", header, rows)

    def fit_network(calibration, seed, rotate_output=False):
        model = NetworkRotation(
            coordinates="functional",
            criterion="log",
            rotate_input=True,
            rotate_output=rotate_output,
            tol=tol,
            random_state=seed,
        )
        return model.fit(network, calibration)

    bases = {"given": "given", "pca": "pca", "interaction (logits too)": "interaction"}
    bases |= {
        "jacrot, NetworkRotation": fit_network,
        "the same, logits too": lambda *draw: fit_network(*draw, rotate_output=True),
    }
    rows, note = connections(network, data, draws, None, bases)
    table(f"The whole network: connections needed ({note})", header, rows)

    rows, verdicts = [], []
    n_repeats = 2 if quick else 5
    for title, layer in layers.items():
        models = {
            "neurons, ℓ₁, two-sided": JacobianSparsityRotation(
                rotate_output=True, tol=max(tol, 1e-3), random_state=0
            ),
            "functional, log": functional(network, layer, 0, max(tol, 1e-3)),
        }
        for name, model in models.items():
            row, verdict = evidence(network, layer, draws[0], data[0], model, n_repeats)
            rows.append([f"{title}, {name}", *row])
            verdicts.append(f"- {title}, {name}: {verdict}.")
    table(
        "The evidence: held-out Hoyer sparsity and null models; axes found again (inputs / "
        "outputs) and chance; outputs that change in a step of 0.01 / 1 standard deviations",
        [
            "rotation",
            "given",
            "rotated",
            "shuffled",
            "same spectrum",
            "found again",
            "chance",
            "changed before",
            "changed after",
        ],
        rows,
    )
    print("\n" + "\n".join(verdicts))


if __name__ == "__main__":
    main()
