"""Count the planted axes that are recovered, and compare with ICA and factor rotation.

The problems are planted layers of ``make_planted_problem``. An axis is found if its |cos| with a
planted one is above 0.98 (0.95 with noise, which moves the best axes); "all" is the share of
problems in which every axis is found, "axes" the mean share of axes.

    python benchmarks/recovery.py
"""

from __future__ import annotations

import numpy as np
from _common import machine, missing, options, table, timed
from peers import ONE_SIDED

from jacrot import JacobianSparsityRotation
from jacrot.datasets import make_planted_problem
from jacrot.metrics import match_axes

PEERS = ("Picard-O", "FastICA", "statsmodels quartimax", "factor_analyzer varimax")


def found(axes, problem, threshold):
    """Return the share of the planted axes that are found."""
    return np.mean(match_axes(axes, problem.rotation)[1] > threshold)


def for_peers(rows):
    """Drop rows of zeros, by whose norms factor_analyzer would divide, and scale the others.

    The contrast of ICA expects a variance of 1.
    """
    rows = rows[rows.any(axis=1)]
    return rows / np.sqrt(np.mean(rows**2))


def main(argv=None):
    """Print the table."""
    arguments = options(__doc__.splitlines()[0], argv)
    # n, outputs for each feature, density, noise, seeds, starts, seeds of the other methods
    settings = [
        (64, 1.5, 0.1, 0.0, 20, 1, 0),
        (64, 2, 0.1, 0.0, 20, 1, 2),
        (64, 3, 0.1, 0.0, 20, 1, 2),
        (64, 2, 0.2, 0.0, 20, 1, 0),
        (64, 3, 0.2, 0.0, 20, 1, 0),
        (128, 2, 0.1, 0.0, 10, 1, 0),
        (128, 2, 0.2, 0.0, 10, 1, 0),
        (256, 2, 0.1, 0.0, 3, 1, 0),
        (256, 2, 0.2, 0.0, 3, 1, 0),
        (64, 2, 0.1, 0.02, 20, 1, 0),
        (64, 2, 0.2, 0.02, 20, 1, 0),
        (64, 2, 0.3, 0.0, 20, 1, 0),
        (64, 2, 0.3, 0.0, 20, 5, 0),
    ]
    if arguments.quick:
        settings = [(16, 2, 0.2, 0.0, 2, 1, 0)]
    rows = []
    for n, ratio, density, noise, seeds, n_init, peer_seeds in settings:
        threshold = 0.95 if noise else 0.98

        def ours(problem, seed, n_init=n_init):
            model = JacobianSparsityRotation(n_init=n_init, random_state=seed)
            return model.fit(problem.weights, problem.X).rotation_

        methods = {"jacrot" if n_init == 1 else f"jacrot, {n_init} starts": (ours, seeds)}
        for name in PEERS if peer_seeds else ():
            methods[name] = (
                lambda problem, seed, peer=ONE_SIDED[name]: peer(for_peers(problem.weights)),
                peer_seeds,
            )
        for name, (method, n_seeds) in methods.items():
            shares, seconds = [], []
            try:
                for seed in range(n_seeds):
                    problem = make_planted_problem(
                        n, int(ratio * n), density=density, noise=noise, random_state=seed
                    )
                    axes, _, cpu = timed(method, problem, seed)
                    shares.append(found(axes, problem, threshold))
                    seconds.append(cpu)
            except ModuleNotFoundError as error:
                print(f"<!-- {name}: {missing(error)} -->")
                continue
            all_found = f"{np.mean(np.array(shares) == 1):.0%}"
            share, cpu = f"{np.mean(shares):.0%}", f"{np.mean(seconds):.2f}"
            row = [n, f"{ratio:g}", density, noise, name, n_seeds, all_found, share, cpu]
            rows.append(row)
            print(f"<!-- {rows[-1]} -->", flush=True)
    print(machine())
    header = ["n", "m/n", "density", "noise", "method", "seeds", "all", "axes", "CPU s"]
    table("Hidden axes found", header, rows)


if __name__ == "__main__":
    main()
