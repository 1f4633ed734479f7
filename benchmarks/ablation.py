"""What each piece of the search brings: the whole of it, and the whole with one setting changed.

Costs are exact, on the inputs fitted, means over seeds; differences are relative to the whole.

    python benchmarks/ablation.py --data ../shared/data
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from _common import exact_cost, machine, middle_layer, options, scaled, table, timed

from jacrot._jacobians.effective import EffectiveJacobians
from jacrot._jacobians.networks import network_jacobians
from jacrot._search.frame import Frame
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot._search.solver import solve
from jacrot.criteria._minimised import get_criterion
from jacrot.datasets import make_planted_problem

# Settings that take a piece away, or change what it costs.
ANY = {
    "the whole": {},
    "without preconditioner": {"curvature_floor": np.inf},
    "in double precision": {"single_precision_tol": np.inf},
    "without kept blocks": {"kept_share": 0.0},
    "last smoothing 0.01": {"last_smoothing": 0.01},
    "half the steps of Adam": {"steps_per_axis": 6, "min_steps": 200, "max_steps": 800},
    "twice the steps of Adam": {"steps_per_axis": 24, "min_steps": 800, "max_steps": 3200},
    "second decay 0.999": {"second_decay": 0.999},
}
TWO_SIDED = ANY | {
    "half the mini-batches": {"rows_per_axis": 8, "max_rows": 1024},
    "loosening 0.1": {"loosening": 0.1},
    "loosening 0.5": {"loosening": 0.5},
    "every stage of Q alone to the end": {"coarseness": 1},
}
ONE_MATRIX = ANY | {
    "one start": {"thorough_work": 0},
    "without the two starts more": {"exhaustive_work": 0},
    "bounded widths 1, 0.3": {"bounded_widths": (1.0, 0.3)},
    "without plane sweep": {"max_sweeps": 0},
    "tolerance as for a stack": {"one_matrix_tol": 1.0},
}


def measure(pieces, problems, two_sided):
    """Search every problem with every set of pieces; return the rows of a table."""
    rows, whole = [], None
    for name, changes in pieces.items():
        settings = replace(DEFAULT_SETTINGS, **changes)
        costs, seconds = [], []
        for seed, (network, X, J) in enumerate(problems):
            effective = EffectiveJacobians.select(network_jacobians(network, X))
            frame = Frame(effective.stack, effective.l2, "free" if two_sided else "fixed", None)
            problem = frame.problem(get_criterion("hoyer"), np.random.RandomState(seed))
            start = problem, frame.given, frame.singular, None, 0, seed
            solution, _, cpu = timed(solve, *start, max_iter=5000, tol=1e-4, settings=settings)
            costs.append(exact_cost(J, *frame.axes(solution.point)))
            seconds.append(cpu)
        cost, cpu = np.mean(costs), np.mean(seconds)
        whole = whole or (cost, cpu)
        differences = f"{100 * (cost / whole[0] - 1):+.2f} %", f"{cpu / whole[1]:.2f}"
        rows.append([name, f"{cost:.4f}", differences[0], f"{cpu:.2f}", differences[1]])
        print(f"<!-- {rows[-1]} -->", flush=True)
    return rows


def trained(which, seeds, n_samples, data):
    """Yield the problems of a trained layer."""
    for seed in range(seeds):
        layer, X, _ = middle_layer(which, seed, n_samples, data)
        yield layer, X, scaled(layer.jacobians(X))


def planted(n, density, seeds):
    """Yield the problems of planted layers."""
    for seed in range(seeds):
        problem = make_planted_problem(n, 2 * n, density=density, random_state=seed)
        yield problem.network, problem.X, scaled(problem.network.jacobians(problem.X))


def main(argv=None):
    """Print the tables."""
    arguments = options(__doc__.splitlines()[0], argv, only={"choices": ["one", "two"]})
    print(machine())
    header = ["search", "cost", "against the whole", "CPU s", "× the whole"]
    if arguments.quick:
        table("Quick", header, measure(ONE_MATRIX, list(planted(12, 0.2, 1)), False))
        return
    seeds = 3
    layers = [("n = 128", 128)]
    if arguments.data is not None:
        layers.insert(0, ("MNIST", "mnist"))
    for title, which in layers if arguments.only != "one" else []:
        problems = list(trained(which, seeds, 200, arguments.data))
        table(f"Two-sided, {title}, 200 inputs", header, measure(TWO_SIDED, problems, True))
    if arguments.only == "two":
        return
    for title, which in layers:
        problems = list(trained(which, seeds, 300, arguments.data))
        table(f"One-sided, {title}, 300 inputs", header, measure(ONE_MATRIX, problems, False))
    for density in (0.25, 0.3):
        problems = list(planted(64, density, 10))
        title = f"One-sided, planted, n = 64, density {density}"
        table(title, header, measure(ONE_MATRIX, problems, False))


if __name__ == "__main__":
    main()
