"""Rotate the middle layer of a 3-layer classifier such that its Jacobian becomes sparse.

    python examples/mnist_jacobian.py

trains a small network on scikit-learn's digits (offline), prints the sparsity of the middle
layer's Jacobian in several bases, checks that the rotated network computes the same function, and
draws the Jacobian before and after. For MNIST pass ``--data DIR`` with its IDX files, or ``--data
openml``. For a network trained elsewhere pass ``--weights FILE.npz`` with ``W0 b0 W1 b1 W2 b2``.
"""

import argparse
import gzip
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import fetch_openml, load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from jacrot import JacobianSparsityRotation, Network
from jacrot.criteria import hoyer
from jacrot.display import JacobianDisplay
from jacrot.readers import load

ACTIVATIONS = ["relu", "relu", "identity"]


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read one of MNIST's IDX files, compressed or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            content = gzip.decompress(path.read_bytes()) if path.suffix else path.read_bytes()
            n_dimensions = content[3]
            shape = np.frombuffer(content, ">i4", n_dimensions, offset=4)
            return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)
    raise SystemExit(f"--data: neither {name} nor {name}.gz is in {folder}")


def load_images(data: str, seed: int) -> list[np.ndarray]:
    """Load X_train, X_test, y_train and y_test, with pixels in [0, 1]."""
    if data == "digits":
        images, labels = load_digits(return_X_y=True)
        images, n_test = images / 16, 500
    elif data == "openml":
        try:
            images, labels = fetch_openml("mnist_784", return_X_y=True, as_frame=False)
        except ImportError as error:
            raise SystemExit(
                f"--data openml: {error}; install the extra: pip install '.[examples]'"
            ) from error
        images, labels, n_test = images / 255, labels.astype(int), 10_000
    else:
        folder = Path(data)
        parts = []
        for part in ("train", "t10k"):
            if part == "t10k" or list(folder.glob("train-images*")):
                pixels = read_idx(folder, f"{part}-images-idx3-ubyte")
                parts.append(
                    (
                        pixels.reshape(len(pixels), -1) / 255,
                        read_idx(folder, f"{part}-labels-idx1-ubyte"),
                    )
                )
        if len(parts) == 2:
            (X_train, y_train), (X_test, y_test) = parts
            return [X_train, X_test, y_train, y_test]
        ((images, labels),) = parts
        n_test = 15 * len(images) // 100
    return train_test_split(images, labels, test_size=n_test, random_state=seed)


def train(X: np.ndarray, y: np.ndarray, hidden: int, max_iter: int, seed: int) -> Network:
    """Train a classifier and export its weights."""
    classifier = MLPClassifier(
        (hidden, hidden), max_iter=max_iter, tol=1e-3, alpha=0.01, random_state=seed
    )
    classifier.fit(X, y)
    weights = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    return Network(weights, ACTIVATIONS, layout="in_out")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, openml, or a folder of IDX files")
    parser.add_argument(
        "--weights", help=".npz file of a 3-layer ReLU classifier; by default, one is trained"
    )
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layers")
    parser.add_argument("--epochs", type=int, default=200, help="maximum number of training epochs")
    parser.add_argument("--samples", type=int, default=300, help="inputs to fit the rotation on")
    parser.add_argument("--held-out", type=int, default=1000, help="held-out inputs for the score")
    parser.add_argument("--max-iter", type=int, default=5000, help="steps of the search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", default="jacobian.png", help="file of the figure")
    options = parser.parse_args(arguments)

    X_train, X_test, y_train, y_test = load_images(options.data, options.seed)
    if options.weights:
        network = load(options.weights, ACTIVATIONS)
    else:
        network = train(X_train, y_train, options.hidden, options.epochs, options.seed)
    print(f"{network}, {len(y_test)} test images")

    # The middle layer and its inputs.
    middle, first = network[1:2], network[:1]
    A_train = first(X_train[: options.samples])
    A_test = first(X_test[: options.held_out])
    J_train, J_test = middle.jacobians(A_train), middle.jacobians(A_test)

    def row(basis: str, Q: np.ndarray, P: np.ndarray | None, seconds: str = "") -> None:
        sparsities = []
        for J in (J_train, J_test):
            J = J[J.any(axis=(1, 2))] @ Q.T
            sparsities.append(hoyer(J if P is None else P @ J).mean())
        # Two digits: further ones depend on the rounding of the machine in training and search.
        print(f"{basis:<42}{sparsities[0]:>9.2f}{sparsities[1]:>10.2f}{seconds:>9}")

    n_features = A_train.shape[1]
    rng = np.random.default_rng(options.seed)
    left, _, right = np.linalg.svd(middle.layers[0].weight)
    print(f"\nmean Hoyer sparsity of the Jacobian of {middle} (0: dense, 1: a single entry)")
    print(f"{'basis':<42}{'training':>9}{'held out':>10}{'seconds':>9}")
    row("given", np.eye(n_features), None)
    row("random", np.linalg.qr(rng.normal(size=(n_features, n_features)))[0], None)
    if len(A_train) >= n_features:
        row("PCA of the activations", PCA().fit(A_train).components_, None)
    row("right singular vectors of the weights", right, None)
    row("both sets of singular vectors", right, left.T)
    rotations = []
    for label, rotate_output in (("jacrot", False), ("jacrot, outputs rotated too", True)):
        rotation = JacobianSparsityRotation(
            rotate_output=rotate_output, max_iter=options.max_iter, random_state=options.seed
        )
        start = time.perf_counter()
        rotation.fit(middle, A_train)
        seconds = f"{time.perf_counter() - start:.1f}"
        row(label, rotation.rotation_, rotation.output_rotation_, seconds)
        rotations.append(rotation)

    print(f"\n{'network':<42}{'accuracy':>9}{'same predictions':>19}{'logits differ by':>19}")
    logits = network(X_test)
    names = ("given", "rotated", "rotated, outputs too")
    networks = [network]
    for rotation in rotations:
        sites = {1: rotation.rotation_}
        if rotation.output_rotation_ is not None:
            sites[2] = rotation.output_rotation_
        networks.append(network.rotated(sites))
    for name, candidate in zip(names, networks, strict=True):
        others = candidate(X_test)
        predictions = others.argmax(axis=1)
        same = np.count_nonzero(predictions == logits.argmax(axis=1))
        accuracy = np.mean(predictions == y_test)
        share, error = f"{same} of {len(logits)}", f"{np.abs(others - logits).max():.0e}"
        print(f"{name:<42}{accuracy:>9.4f}{share:>19}{error:>19}")

    figure, axes = plt.subplots(2, 2, figsize=(9.5, 8), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)
    for panels, rotation in zip(axes, rotations, strict=True):
        JacobianDisplay.from_estimator(rotation, A_test, ax=panels)
    axes[1, 1].set_title("rotated basis, outputs rotated too")
    figure.suptitle("Mean absolute Jacobian of the middle layer, held-out inputs")
    figure.savefig(options.picture, dpi=110)
    print(f"\nbefore and after: {options.picture}")


if __name__ == "__main__":
    main()
