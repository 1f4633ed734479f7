"""Measure time and peak memory as functions of features and samples.

Every fit runs in a separate process, whose peak memory is reported (including Python and the
packages, about 0.2 GB). Layers are random ReLU layers; the stack is sparse up to two random
rotations; the transformer's MLP is random, with GELU and four times as many neurons as features.

    python benchmarks/scaling.py
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
from _common import machine, options, table, timed

ONE_SIDED, TWO_SIDED, STACK = "layer, one-sided", "layer, two-sided", "stack, two-sided"
MLP = "transformer MLP, two-sided"


def fit(kind, n, n_samples):
    """Fit once; print seconds, sparsity and peak memory as JSON."""
    import resource

    from jacrot import JacobianSparsityRotation, Network
    from jacrot._utils.random import random_rotation

    rng = np.random.RandomState(0)
    model = JacobianSparsityRotation(rotate_output=kind != ONE_SIDED, random_state=0)
    if kind == STACK:
        P, Q = (random_rotation(n, rng).astype(np.float32) for _ in range(2))
        weights = np.empty((n_samples, n, n), np.float32)
        for matrix in weights:
            sparse = rng.standard_normal((n, n)) * (rng.uniform(size=(n, n)) < 0.1)
            matrix[:] = P.T @ sparse.astype(np.float32) @ Q
        X = np.ones((n_samples, n))
    elif kind == MLP:
        up, down = (rng.standard_normal(shape) for shape in ((4 * n, n), (n, 4 * n)))
        weights = Network(
            [(up / np.sqrt(n)).astype(np.float32), (down / np.sqrt(4 * n)).astype(np.float32)],
            activation=["gelu", "identity"],
        )
        X = rng.standard_normal((n_samples, n)).astype(np.float32)
    else:
        weights = rng.normal(size=(n, n)) / np.sqrt(n)
        X = rng.normal(size=(n_samples, n))
    _, wall, cpu = timed(model.fit, weights, X)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    gigabytes = peak / (1e9 if sys.platform == "darwin" else 1e6)
    result = [wall, cpu, model.sparsity_before_, model.sparsity_, gigabytes]
    print(json.dumps(result))


def main(argv=None):
    """Print the tables."""
    only = {"nargs": 3, "metavar": ("KIND", "N", "SAMPLES"), "help": "one fit, in this process"}
    arguments = options(__doc__.splitlines()[0], argv, fit=only)
    if arguments.fit:
        kind, n, n_samples = arguments.fit
        fit(kind, int(n), int(n_samples))
        return
    features = [(ONE_SIDED, n, 512) for n in (64, 128, 256, 512, 1024)]
    features += [(TWO_SIDED, n, 512) for n in (64, 128, 256)]
    features += [(STACK, n, 512) for n in (128, 768)]
    features += [(ONE_SIDED, 2048, 512), (MLP, 768, 512)]
    samples = [(TWO_SIDED, 100, n) for n in (100, 1000, 10_000, 100_000)]
    samples += [(ONE_SIDED, 100, n) for n in (1000, 100_000)]
    if arguments.quick:
        features, samples = [(ONE_SIDED, 16, 50)], [(TWO_SIDED, 16, 50)]
    print(machine())
    header = ["problem", "features", "samples", "wall s", "CPU s", "sparsity before", "after"]
    for title, cases in (("Samples", samples), ("Features", features)):
        rows = []
        for case in cases:
            command = [sys.executable, __file__, "--fit", *map(str, case)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            wall, cpu, before, after, peak = json.loads(run.stdout.splitlines()[-1])
            row = [*case, f"{wall:.1f}", f"{cpu:.1f}", f"{before:.3f}", f"{after:.3f}"]
            rows.append([*row, f"{peak:.2f}"])
            print(f"<!-- {rows[-1]} -->", flush=True)
        table(title, [*header, "peak GB"], rows)


if __name__ == "__main__":
    main()
