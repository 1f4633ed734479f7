"""Draw the circuit of a classifier in the basis with the fewest edges, and run sanity checks.

    python examples/mnist_circuit.py

loads a trained classifier of scikit-learn's digits (offline), counts the edges that its layers need
in several bases, rotates the whole network and checks that it computes the same function, compares
with null models, and draws the results. For MNIST pass ``--data DIR`` with ``mnist/`` (the test
images and labels, IDX files) and ``networks/mnist_mlp_784_100_100_10.npz``.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from mnist_jacobian import ACTIVATIONS, read_idx
from sklearn.utils import Bunch

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot.datasets import load_digits_mlp
from jacrot.display import (
    AxisStabilityDisplay,
    CircuitDisplay,
    ConvergenceDisplay,
    EdgeCurveDisplay,
    NullBaselineDisplay,
)
from jacrot.inspection import axis_stability, edge_curve, locality_curve, null_baseline
from jacrot.readers import load

N_HELD_OUT = 2000
# Tolerated losses of accuracy, and divergence from the network's probabilities in nats.
LOSSES, DIVERGENCE = (0.005, 0.01), 0.01
LAYER_BASES = ("given", "random", "pca", "svd", "quartimax", "interaction", "functional_svd")
NETWORK_BASES = ("given", "pca", "interaction")
FUNCTIONAL = {"criterion": "log", "coordinates": "functional"}


def load_problem(data: str, n_samples: int | None, seed: int) -> Bunch:
    """Load a network, calibration inputs, and held-out inputs with their labels."""
    if data == "digits":
        digits = load_digits_mlp()
        pool, X, y = digits.X, digits.X_test, digits.y_test
        network, image_shape, n_samples = digits.network, (8, 8), n_samples or 400
    else:
        folder = Path(data)
        network = load(folder / "networks" / "mnist_mlp_784_100_100_10.npz", ACTIVATIONS)
        images = read_idx(folder / "mnist", "t10k-images-idx3-ubyte").reshape(-1, 784) / 255
        y = read_idx(folder / "mnist", "t10k-labels-idx1-ubyte")[-N_HELD_OUT:]
        pool, X = images[:-N_HELD_OUT], images[-N_HELD_OUT:]
        image_shape, n_samples = (28, 28), n_samples or 1000
    chosen = np.random.default_rng(seed).choice(len(pool), n_samples, replace=False)
    return Bunch(network=network, calibration=pool[chosen], X=X, y=y, image_shape=image_shape)


def count_edges(problem: Bunch, title: str, bases: dict, layer: int | None, seed: int) -> dict:
    """Print the number of edges needed in every basis, with intervals; return the curves."""

    def compute_curve(basis, metric: str):
        return edge_curve(
            problem.network,
            problem.X,
            problem.y,
            calibration=problem.calibration,
            layer=layer,
            basis=basis,
            metric=metric,
            random_state=seed,
        )

    curves = {name: compute_curve(basis, "accuracy") for name, basis in bases.items()}
    one = curves["given"]
    ranks = ", ".join(map(str, one.ranks))
    print(f"\n{title}: accuracy {one.full:.4f}, affine map {one.affine:.4f}, rank of G {ranks}")
    if one.full - one.affine <= LOSSES[-1]:
        print("the affine map is as accurate: few edges mean low rank here, not structure")
    columns = [f"{100 * loss:g} % accuracy" for loss in LOSSES] + [f"{DIVERGENCE:g} nats"]
    print(
        f"{'edges needed in basis':<24}" + "".join(f"{column:>24}" for column in (*columns, "of"))
    )
    for name, curve in curves.items():
        same = [(basis.encoder, basis.decoder) for basis in curve.bases]
        needed = [curve.edges_needed(loss) for loss in LOSSES]
        needed.append(compute_curve(same, "kl").edges_needed(DIVERGENCE))
        counts = "".join(f"{count!r:>24}" for count in needed)
        print(f"{name:<24}{counts}{curve.n_edges[-1]:>24}")
    return curves


def examine(rotation: JacobianSparsityRotation, A: np.ndarray, A_test: np.ndarray, options) -> list:
    """Print the sanity checks of a layer: null models, other starts and inputs, interventions."""
    repeats, seed = options.repeats, options.seed
    null = null_baseline(rotation, A, A_test, n_repeats=repeats, random_state=seed)
    stability = axis_stability(
        rotation, A, n_starts=repeats, n_resamples=repeats, random_state=seed
    )
    locality = locality_curve(rotation, A_test, steps=[1], random_state=seed)
    print(f"nulls: {null.verdict}")
    for name, mean in stability.mean.items():
        print(f"stability: {name} axes recur by {mean:.2f}, by chance {stability.chance[name]:.2f}")
    print(
        "intervention: a step of one standard deviation changes "
        f"{locality.weighted_after[0]:.1f} of {locality.n_outputs} outputs noticeably, "
        f"{locality.weighted_before[0]:.1f} in the given basis"
    )
    return [null, stability]


def save(figure: plt.Figure, folder: Path, name: str) -> None:
    figure.savefig(folder / f"{name}.png", dpi=130)
    plt.close(figure)
    print(folder / f"{name}.png")


def draw_one_below_the_other(display: type, results: dict, folder: Path, name: str) -> None:
    """Draw one figure with a panel for every part of the network."""
    figure, axes = plt.subplots(
        len(results), figsize=(8, 4 * len(results)), layout="constrained", squeeze=False
    )
    for ax, (title, result) in zip(axes[:, 0], results.items(), strict=True):
        display.from_result(result, ax=ax)
        below = ax.get_title(loc="left") or ax.get_title()
        ax.set_title("", loc="left")
        ax.set_title(f"{title}\n{below}" if below else title, fontsize="medium")
    save(figure, folder, name)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, or a folder with MNIST")
    parser.add_argument(
        "--samples", type=int, help="calibration inputs (400 digits, 1000 of MNIST)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="null models of each kind, starts, resamples"
    )
    parser.add_argument("--max-iter", type=int, default=5000, help="steps of a search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the figures")
    options = parser.parse_args(arguments)

    problem = load_problem(options.data, options.samples, options.seed)
    network, calibration = problem.network, problem.calibration
    print(f"{network}, {len(calibration)} calibration inputs, {len(problem.y)} held out")
    search = {**FUNCTIONAL, "max_iter": options.max_iter, "random_state": options.seed}

    curves, nulls, stabilities = {}, {}, {}
    for layer, title in enumerate(("first layer", "middle layer")):
        A, A_test = calibration, problem.X
        if layer:
            A, A_test = network[:layer](A), network[:layer](A_test)
        rotation = JacobianSparsityRotation(
            rotate_output=True, readout=network[layer + 1 :], **search
        ).fit(network[layer : layer + 1], A)
        bases = {name: name for name in LAYER_BASES} | {"functional": rotation}
        curves[title] = count_edges(problem, title, bases, layer, options.seed)
        nulls[title], stabilities[title] = examine(rotation, A, A_test, options)

    rotation = NetworkRotation(network, rotate_input=True, **search).fit(calibration)
    bases = {name: name for name in NETWORK_BASES} | {"functional": rotation}
    title = "whole network"
    curves[title] = count_edges(problem, title, bases, None, options.seed)
    logits, rotated = network(problem.X), rotation.rotated_network()(problem.X)
    same = np.count_nonzero(rotated.argmax(axis=1) == logits.argmax(axis=1))
    print(
        f"the rotated network agrees on {same} of {len(logits)} predictions; "
        f"logits differ by {np.abs(rotated - logits).max():.0e}"
    )

    print("\nfigures:")
    options.output.mkdir(parents=True, exist_ok=True)
    circuit = curves[title]["functional"]
    n_edges = circuit.edges_needed(LOSSES[-1])
    display = CircuitDisplay.from_result(circuit, n_edges, image_shape=problem.image_shape)
    save(display.figure_, options.output, "circuit")
    draw_one_below_the_other(EdgeCurveDisplay, curves, options.output, "edge_curves")
    draw_one_below_the_other(NullBaselineDisplay, nulls, options.output, "nulls")
    draw_one_below_the_other(AxisStabilityDisplay, stabilities, options.output, "stability")
    display = ConvergenceDisplay.from_estimator(rotation)
    save(display.figure_, options.output, "convergence")


if __name__ == "__main__":
    main()
