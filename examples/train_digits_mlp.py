"""Train the small classifier that ``jacrot.datasets.load_digits_mlp`` loads.

    python examples/train_digits_mlp.py jacrot/data/digits_mlp.npz
    python examples/train_digits_mlp.py jacrot/data/digits_mlp_48_32.npz --hidden 48 32

The weights are stored in single precision. They differ slightly between processors.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from jacrot import Network


def train(hidden: Sequence[int] = (64, 64), max_iter: int = 200) -> Network:
    """Train on all digits but the last 500."""
    X, y = load_digits(return_X_y=True)
    classifier = MLPClassifier(tuple(hidden), alpha=1e-2, max_iter=max_iter, random_state=0)
    classifier.fit(X[:-500] / 16, y[:-500])
    weights = [
        (coefficients.astype(np.float32), intercepts.astype(np.float32))
        for coefficients, intercepts in zip(classifier.coefs_, classifier.intercepts_, strict=True)
    ]
    return Network(weights, ["relu"] * len(hidden) + ["identity"], layout="in_out")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="the .npz file to write")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--max-iter", type=int, default=200)
    options = parser.parse_args(arguments)
    network = train(options.hidden, options.max_iter)
    X, y = load_digits(return_X_y=True)
    accuracy = np.mean(network(X[-500:] / 16).argmax(axis=1) == y[-500:])
    network.save(options.path)
    print(f"{network}: accuracy {accuracy:.3f} on 500 held-out digits, saved to {options.path}")


if __name__ == "__main__":
    main()
