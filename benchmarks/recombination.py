"""Estimate how far the search ends above the lowest cost known, by recombining many solutions.

Every child has some output axes of one solution and the input axes that interact with them most,
with the other axes of another solution. It is minimised again, and replaces the worst solution or
the one that it resembles. This takes the time of hundreds of searches and is a yardstick, not a
method. Two-sided, 200 inputs, costs as in ``solver.py``.

    python benchmarks/recombination.py --data ../shared/data
"""

from __future__ import annotations

import time

import numpy as np
from _common import exact_cost, machine, middle_layer, options, scaled, table

from jacrot._jacobians.effective import EffectiveJacobians
from jacrot._jacobians.networks import network_jacobians
from jacrot._search.frame import Frame
from jacrot._search.log import Log
from jacrot._search.settings import DEFAULT_SETTINGS
from jacrot._search.solver import solve
from jacrot._search.strategy import Search
from jacrot._utils.threads import one_blas_thread
from jacrot.criteria._minimised import get_criterion
from jacrot.metrics import match_axes

MAX_ITER, TOL = 10**6, 1e-4
# |cos| above which axes are the same, and share of such axes above which solutions are the same.
SAME_AXIS, SAME_SOLUTION = 0.95, 0.9


def match_order(axes, others):
    """Return other axes in the order and with the signs of the given ones, and their |cos|."""
    columns, cosines = match_axes(axes, others)
    others = others[columns]
    signs = np.sign(np.sum(axes * others, axis=1, keepdims=True))
    return others * signs, cosines


def cross(one, other, interactions, rng):
    """Replace output axes that act alike, and their input axes, by those of another solution."""
    n_outputs = len(interactions)
    profiles = interactions / np.linalg.norm(interactions, axis=1, keepdims=True)
    alike = profiles @ profiles[rng.randint(n_outputs)]
    n_taken = rng.randint(n_outputs // 5, n_outputs // 2 + 1)
    outputs = np.isin(np.arange(n_outputs), np.argsort(-alike)[:n_taken])
    shares = interactions[outputs].sum(axis=0) / interactions.sum(axis=0)
    inputs = shares > np.quantile(shares, 1 - n_taken / n_outputs)
    child = []
    for axes, others, taken in zip(one, other, (outputs, inputs), strict=True):
        mixed = np.where(taken[:, None], match_order(axes, others)[0], axes)
        left, _, right = np.linalg.svd(mixed)
        child.append(left @ right)
    return child


def population(which, seed, n_solutions, n_children, data):
    """Return costs and CPU seconds of one search, of the best search, and after recombination."""
    layer, X, _ = middle_layer(which, seed, 200, data)
    J = scaled(layer.jacobians(X))
    rng = np.random.RandomState(seed)
    effective = EffectiveJacobians.select(network_jacobians(layer, X))
    frame = Frame(effective.stack, effective.l2, "free", None)
    problem = frame.problem(get_criterion("hoyer"), rng)

    def evaluate(point):
        return exact_cost(J, *frame.axes(point)), point

    def search(number):
        options = {"max_iter": MAX_ITER, "tol": TOL}
        return solve(problem, frame.given, frame.singular, None, 0, number, **options).point

    def minimise(point):
        moves = Search(problem, Log(MAX_ITER, TOL), rng, frame.given)
        return moves.descend(moves.candidate(point), DEFAULT_SETTINGS.keeping).point

    begin = time.process_time()
    pool = [evaluate(search(number)) for number in range(n_solutions)]
    costs = [np.mean([cost for cost, _ in pool]), min(cost for cost, _ in pool)]
    seconds = [(time.process_time() - begin) / n_solutions, time.process_time() - begin]
    for _ in range(n_children):
        one, other = (pool[number][1] for number in rng.choice(n_solutions, 2, replace=False))
        axes = [
            matrix if basis is None else matrix @ basis
            for matrix, basis in zip(one, problem.bases, strict=True)
        ]
        interactions = np.abs(axes[0] @ J @ axes[1].T).mean(axis=0)
        child = evaluate(minimise(cross(one, other, interactions, rng)))
        alike = [
            np.mean(match_order(point[1], child[1][1])[1] > SAME_AXIS) > SAME_SOLUTION
            for _, point in pool
        ]
        # Only one of two similar solutions is kept, to preserve diversity.
        rivals = [number for number in range(n_solutions) if alike[number]] or range(n_solutions)
        worst = max(rivals, key=lambda number: pool[number][0])
        if child[0] < pool[worst][0]:
            pool[worst] = child
    costs.append(min(cost for cost, _ in pool))
    seconds.append(time.process_time() - begin)
    return costs, seconds


def main(argv=None):
    """Print the table."""
    arguments = options(__doc__.splitlines()[0], argv)
    print(machine())
    cases, sizes = [(64, 1), ("mnist", 3)], (8, 40)
    if arguments.quick:
        cases, sizes = [(16, 1)], (2, 1)
    rows = []
    for which, seeds in cases:
        if which == "mnist" and arguments.data is None:
            print("\nMNIST: not run without --data.")
            continue
        for seed in range(seeds):
            with one_blas_thread():
                costs, seconds = population(which, seed, *sizes, arguments.data)
            for label, cost, cpu in zip(
                ("one search (mean)", f"best of {sizes[0]}", f"after {sizes[1]} children"),
                costs,
                seconds,
                strict=True,
            ):
                difference = f"{100 * (cost / costs[0] - 1):+.2f} %"
                rows.append([which, seed, label, f"{cost:.4f}", difference, f"{cpu:.1f}"])
                print(f"<!-- {rows[-1]} -->", flush=True)
    header = ["layer", "seed", "solutions", "cost", "against one search", "CPU s"]
    table("Recombination, two-sided, 200 inputs", header, rows)


if __name__ == "__main__":
    main()
