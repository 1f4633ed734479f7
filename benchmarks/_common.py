"""Helpers of the benchmarks: options, the machine, timing, tables, problems."""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import time
import warnings
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from jacrot import Network
from jacrot.datasets import make_planted_problem
from jacrot.readers import load

PACKAGES = (
    "jacrot",
    "numpy",
    "scipy",
    "autograd",
    "pymanopt",
    "scikit-learn",
    "torch",
    "geotorch",
    "python-picard",
    "statsmodels",
    "factor_analyzer",
)


def options(description, argv=None, **extra):
    """Parse the command line: ``--quick``, ``--data``, and the options of a script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, one seed: a few seconds")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("JACROT_DATA"),
        help="folder with mnist/ and networks/mnist_mlp_784_100_100_10.npz (default: $JACROT_DATA)",
    )
    for name, settings in extra.items():
        parser.add_argument("--" + name, **settings)
    return parser.parse_args(argv)


def machine():
    """Return the machine and the versions in one line."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{date.today()}; {cores} cores, {model}; Python {platform.python_version()}; "
        + ", ".join(versions)
    )


def table(title, header, rows):
    """Print a Markdown table."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "|".join("---" if k == 0 else "---:" for k in range(len(header))) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def timed(function, *args, **kwargs):
    """Call a function; return its result, wall seconds and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = function(*args, **kwargs)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def missing(error):
    """Return the cell of a method whose package is not installed."""
    return f"{error.name} is not installed: pip install '.[benchmarks]'"


def digits_network(width):
    """Train a classifier of scikit-learn's digits, 64 → width → width → 10."""
    digits = load_digits()
    classifier = MLPClassifier((width, width), random_state=0, max_iter=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(digits.data[:1200] / 16, digits.target[:1200])
    pairs = [(W.T, b) for W, b in zip(classifier.coefs_, classifier.intercepts_, strict=True)]
    return Network(pairs, ["relu", "relu", "identity"]), digits.data / 16


def mnist_network(folder):
    """Read the MNIST classifier 784 → 100 → 100 → 10, and the test images."""
    path = Path(folder) / "networks" / "mnist_mlp_784_100_100_10.npz"
    network = load(path, activation=["relu", "relu", "identity"])
    packed = (Path(folder) / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes()
    images = np.frombuffer(gzip.decompress(packed)[16:], np.uint8).reshape(-1, 784)
    return network, images / 255.0


def middle_layer(which, seed, n_samples, data=None, n_held_out=500):
    """Return a trained middle layer, and training and held-out activations."""
    network, inputs = mnist_network(data) if which == "mnist" else digits_network(which)
    hidden = network[:1](inputs)
    order = np.random.default_rng(seed).permutation(len(hidden))
    held_out = order[n_samples : n_samples + n_held_out]
    return network[1:2], hidden[order[:n_samples]], hidden[held_out]


def scaled(J):
    """Scale every nonzero Jacobian to root mean square 1, and drop the others."""
    sizes = np.sqrt(np.mean(J**2, axis=(1, 2), keepdims=True))
    return J[sizes[:, 0, 0] > 0] / sizes[sizes[:, 0, 0] > 0]


def exact_cost(J, P, Q):
    """Compute the mean absolute entry of ``P J_i Qᵀ``."""
    X = J @ Q.T
    return float(np.abs(X if P is None else P @ X).mean())


def planted_rows(n, seed=0, density=0.2, noise=0.1):
    """Build one planted matrix of 2n rows, scaled to root mean square 1."""
    problem = make_planted_problem(n, 2 * n, density=density, noise=noise, random_state=seed)
    return problem.weights / np.sqrt(np.mean(problem.weights**2))
