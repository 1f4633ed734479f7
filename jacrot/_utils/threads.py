"""Thread limits for BLAS, sums over blocks shared among threads, and a lock for autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, reduce
from itertools import pairwise
from operator import iadd
from threading import Lock, RLock
from typing import Any

from threadpoolctl import ThreadpoolController

# ``map``, or the ``map`` of an executor, whose threads then share the work.
Apply = Callable[..., Iterable[Any]]

# Groups of blocks, at most one for each thread.
N_GROUPS = 8


@cache
def _blas_libraries() -> list[Any]:
    # Finding the libraries takes longer than a small search.
    libraries: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


# Most BLAS libraries have one limit for the process: the last of several threads to leave the
# context restores the limit from before the first.
_blas_lock = Lock()
_n_limiting = 0
_before_limiting: list[int] = []

# autograd numbers nested derivatives with one counter for the process, which is not thread-safe.
_autograd_lock = RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this process while the context is active.

    The threads of this package share blocks of samples. Additional BLAS threads would wait for one
    another, the longer the more other work the machine has. Contexts can be nested, and entered by
    several threads.

    Yields
    ------
    None
    """
    global _n_limiting, _before_limiting
    libraries = _blas_libraries()
    with _blas_lock:
        before = [library.num_threads for library in libraries]
        if _n_limiting == 0:
            _before_limiting = before
        _n_limiting += 1
        for library in libraries:
            _set_num_threads(library, 1)
    try:
        yield
    finally:
        with _blas_lock:
            _n_limiting -= 1
            for library, own, process in zip(libraries, before, _before_limiting, strict=True):
                if getattr(library, "threading_layer", None) == "openmp":
                    # OpenMP has a separate limit for every thread.
                    _set_num_threads(library, own)
                elif _n_limiting == 0:
                    _set_num_threads(library, process)


def _set_num_threads(library: Any, n_threads: int) -> None:
    # From threadpoolctl 3.8 on, only the thread that first set a limit of OpenBLAS can change it.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(n_threads)
    release(force=True)


@contextmanager
def exclusive_autograd() -> Iterator[None]:
    """Acquire the lock for differentiating with autograd, which is not thread-safe.

    autograd's warning about functions that do not depend on their input is ignored, because
    constant functions and constant slopes are legitimate here. Warning filters belong to the
    process as well, so that they are changed under the same lock.

    Yields
    ------
    None
    """
    with _autograd_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Output seems independent of input")
        yield


def sum_blocks(
    n_blocks: int, evaluate: Callable[[int], tuple[Any, ...]], apply: Apply
) -> list[Any]:
    """Sum the results of a function over blocks.

    Blocks are summed in a fixed number of groups, which are distributed over threads. The order of
    summation therefore does not depend on the number or the speed of threads.

    Parameters
    ----------
    n_blocks : int
        Number of blocks.
    evaluate : callable
        ``evaluate(number)`` returns the terms of one block, numbers or arrays.
    apply : callable
        ``map``, or the ``map`` of an executor.

    Returns
    -------
    list
        Sum of every term.
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
