"""Compare cost and gradient with the matrix products that they need.

The products run on the same blocks and in the same precision: for a two-sided dense layer ``P (D
W)`` and the two products of the gradients, for a two-sided stack one more, for a one-sided stack
one of each. All use one thread; the fastest of several runs is reported.

    python benchmarks/kernel.py
"""

from __future__ import annotations

import time

import autograd.numpy as anp
import numpy as np
from _common import machine, missing, options, table
from autograd import value_and_grad
from threadpoolctl import threadpool_limits

from jacrot._jacobians.base import BLOCK_ENTRIES
from jacrot._jacobians.dense import StackJacobians
from jacrot._jacobians.layer import LayerJacobians
from jacrot._search.objective import Objective, Term
from jacrot._utils.random import random_rotation
from jacrot.criteria._minimised import get_criterion

SMOOTHING = 0.01
# Products with a rotation, and products of a stack with its slopes.
PRODUCTS = {"layer, two-sided": (1, 2), "stack, two-sided": (2, 2), "stack, one-sided": (1, 1)}


def best(function, repeats):
    """Return the time of the fastest of several calls."""
    function()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def products(kind, n, n_samples, dtype, rng):
    """Build a function that computes the products, block by block as the kernel does."""
    step = max(1, BLOCK_ENTRIES // n**2)
    stack = rng.normal(size=(n_samples * n, n)).astype(dtype)
    other = rng.normal(size=(n_samples * n, n)).astype(dtype)
    Q = rng.normal(size=(n, n)).astype(dtype)
    turns, squares = PRODUCTS[kind]

    def run():
        for start in range(0, n_samples * n, step * n):
            block, slope = stack[start : start + step * n], other[start : start + step * n]
            for _ in range(turns):
                block @ Q
            for _ in range(squares):
                slope.T @ block

    return run


def ours(kind, n, n_samples, dtype, rng):
    """Build a function that computes cost and gradient with jacrot."""
    if kind.startswith("layer"):
        weight, slopes = rng.normal(size=(n, n)), rng.normal(size=(n_samples, n))
        stack = LayerJacobians(weight.astype(dtype), slopes.astype(dtype))
    else:
        J = rng.normal(size=(n_samples, n, n)).astype(dtype)
        stack = StackJacobians(J, dtype=dtype)
    mode = "fixed" if kind.endswith("one-sided") else "free"
    objective = Objective([Term.from_mode(stack, mode)], get_criterion("hoyer"), SMOOTHING)
    point = [random_rotation(n, rng).astype(dtype) for _ in range(1 if mode == "fixed" else 2)]
    J = np.concatenate(list(stack.rotated(None, None)))

    def run():
        # A copy is a new point, whose results are not cached.
        objective.gradients(*(matrix.copy() for matrix in point))

    return run, J, point


def with_autograd(J, point):
    """Build a function that computes cost and gradient with autograd."""

    def cost(point):
        X = anp.matmul(J, point[-1].T)
        if len(point) == 2:
            X = anp.matmul(point[0], X)
        return anp.mean(anp.sqrt(X**2 + SMOOTHING**2))

    both = value_and_grad(cost)
    return lambda: both(point)


def with_torch(J, point):
    """Build a function that computes cost and gradient with PyTorch."""
    import torch

    torch.set_num_threads(1)
    stack = torch.from_numpy(J)
    leaves = [torch.from_numpy(matrix).requires_grad_() for matrix in point]

    def run():
        X = stack @ leaves[-1].T
        if len(leaves) == 2:
            X = leaves[0] @ X
        torch.sqrt(X**2 + SMOOTHING**2).mean().backward()

    return run


def main(argv=None):
    """Print the table."""
    arguments = options(__doc__.splitlines()[0], argv)
    sizes = [32] if arguments.quick else [64, 128, 256, 512]
    repeats = 2 if arguments.quick else 9
    entries = 2**16 if arguments.quick else 2**22
    rng = np.random.RandomState(0)
    rows = []
    with threadpool_limits(1):
        for kind in PRODUCTS:
            for n in sizes:
                for dtype in (np.float32, np.float64):
                    n_samples = max(4, entries // n**2)
                    alone = best(products(kind, n, n_samples, dtype, rng), repeats)
                    run, J, point = ours(kind, n, n_samples, dtype, rng)
                    seconds = [best(run, repeats), best(with_autograd(J, point), 2)]
                    ratios = [f"{second / alone:.2f}" for second in seconds]
                    try:
                        ratios.append(f"{best(with_torch(J, point), 3) / alone:.2f}")
                    except ModuleNotFoundError as error:
                        ratios.append(missing(error))
                    name = np.dtype(dtype).name
                    rows.append([kind, n, name, f"{1e3 * alone:.1f}", *ratios])
    print(machine())
    header = ["problem", "n", "dtype", "products ms", "jacrot ×", "autograd ×", "PyTorch ×"]
    table("Time of cost and gradient over that of their matrix products", header, rows)


if __name__ == "__main__":
    main()
