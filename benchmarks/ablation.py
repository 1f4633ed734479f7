"""What each piece of the search brings: the whole of it, and the whole without one piece.

Costs are exact, on the inputs fitted, means over seeds; differences are relative to the whole.

    python benchmarks/ablation.py --data ../shared/data
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
from _common import exact_cost, machine, middle_layer, options, scaled, table, timed

from jacrot import JacobianSparsityRotation
from jacrot._search.stages import Stage, descend
from jacrot.datasets import make_planted_problem

LAST = (Stage(0.01),)
# What conjugate gradient alone would do with a stack: few samples point the way.
GROWING = (Stage(1.0, 16, 10), Stage(0.2, 16, 10), Stage(0.1, 32, 10), Stage(0.03, 64, 10))


def plain(objective):
    """Leave the gradient as it is."""
    return lambda point, tangent: tangent


def stages_instead(problem, point, smoothing, rng, log):
    """Go through stages from that smoothing on, more samples in each."""
    stages = tuple(stage for stage in GROWING if stage.smoothing <= smoothing)
    return descend(problem, point, stages, log)


def no_warm_start(problem, point, smoothing, rng, log):
    """Stay at the start."""
    return point


PIECES = {
    "the whole": [],
    "without warm start": [("solver.warm_start", stages_instead)],
    "without continuation": [
        ("solver.warm_start", no_warm_start),
        ("solver.CONTINUATION", LAST),
        ("solver.PATIENT_CONTINUATION", LAST),
    ],
    "without preconditioner": [("stages.plane_preconditioner", plain)],
    "without start from the collapsed problem": [("problem.Problem.collapsed", lambda self: None)],
    "without single precision": [("stages.SINGLE_PRECISION_TOL", np.inf)],
    "without kept blocks": [("objective.KEPT_SHARE", 0.0)],
    "without sharpening": [
        ("solver.SHARPENING", LAST),
        ("solver.PATIENT_SHARPENING", LAST),
    ],
    "without plane sweep": [("solver.MAX_SWEEPS", 0)],
    "without patience": [("solver._is_small", lambda problem: False)],
    "without hops": [("solver.HOPS", ())],
    "without warm hops": [("solver.HOPS", ("far", "bounded", "bounded"))],
    "without bounded hops": [("solver.HOPS", ("far", "warm", "warm"))],
}
TWO_SIDED = (
    "the whole",
    "without warm start",
    "without continuation",
    "without preconditioner",
    "without start from the collapsed problem",
    "without single precision",
    "without kept blocks",
    "without sharpening",
)
ONE_MATRIX = (
    "the whole",
    "without continuation",
    "without preconditioner",
    "without sharpening",
    "without plane sweep",
    "without patience",
    "without hops",
    "without warm hops",
    "without bounded hops",
)


def measure(pieces, problems, two_sided):
    """Fit every problem with every set of pieces; give the rows of a table."""
    rows, whole = [], None
    for name in pieces:
        costs, seconds = [], []
        for seed, (network, X, J) in enumerate(problems):
            with ExitStack() as stack:
                for target, value in PIECES[name]:
                    stack.enter_context(patch("jacrot._search." + target, value))
                model = JacobianSparsityRotation(rotate_output=two_sided, random_state=seed)
                _, _, cpu = timed(model.fit, network, X)
            costs.append(exact_cost(J, model.output_rotation_, model.rotation_))
            seconds.append(cpu)
        cost, cpu = np.mean(costs), np.mean(seconds)
        whole = whole or (cost, cpu)
        differences = f"{100 * (cost / whole[0] - 1):+.2f} %", f"{cpu / whole[1]:.2f}"
        rows.append([name, f"{cost:.4f}", differences[0], f"{cpu:.2f}", differences[1]])
        print(f"<!-- {rows[-1]} -->", flush=True)
    return rows


def trained(which, seeds, n_samples, data):
    """Make the problems of a trained layer."""
    for seed in range(seeds):
        layer, X, _ = middle_layer(which, seed, n_samples, data)
        yield layer, X, scaled(layer.jacobians(X))


def planted(n, density, seeds):
    """Make the problems of planted layers."""
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
