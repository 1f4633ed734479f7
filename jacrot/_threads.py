"""Who has the cores: our threads, or those of BLAS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import cache, reduce
from itertools import pairwise
from operator import iadd
from typing import Any

from threadpoolctl import ThreadpoolController

# ``map``, or that of an executor, whose threads then share the work.
Apply = Callable[..., Iterable[Any]]

# Groups of blocks, at most one for each thread.
N_GROUPS = 8

# Looking for the libraries takes longer than a small search.
_controller = cache(ThreadpoolController)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to one thread in this process for as long as the context lasts.

    Our threads share blocks of samples. Threads of BLAS inside them, or in the libraries of NumPy
    and SciPy at once, would wait for one another, and for ever longer on a machine that has other
    work.

    Returns
    -------
    context manager
        The context.
    """
    return _controller().limit(limits=1, user_api="blas")


def summed(n_blocks: int, evaluate: Callable[[int], tuple[Any, ...]], apply: Apply) -> list[Any]:
    """Sum what is evaluated on every block.

    Blocks are summed in a fixed number of groups, which threads share: neither their number nor
    which one is faster changes the order of the sum.

    Parameters
    ----------
    n_blocks : int
        Number of blocks.
    evaluate : callable
        ``evaluate(number)`` gives the terms of a block, numbers or arrays.
    apply : callable
        ``map``, or that of an executor.

    Returns
    -------
    list
        The sums of the terms.
    """

    def group(bounds: tuple[int, int]) -> list[Any]:
        sums: list[Any] = []
        for number in range(*bounds):
            values = list(evaluate(number))
            sums = list(map(iadd, sums, values)) if sums else values
        return sums

    bounds = [round(n_blocks * k / N_GROUPS) for k in range(N_GROUPS + 1)]
    if n_blocks < N_GROUPS:
        bounds = list(range(n_blocks + 1))
    if n_blocks == 1:
        apply = map
    groups = apply(group, pairwise(bounds))
    return [reduce(iadd, values) for values in zip(*groups, strict=True)]
