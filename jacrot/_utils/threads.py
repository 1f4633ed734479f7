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

# ``map``, or that of an executor, whose threads then share the work.
Apply = Callable[..., Iterable[Any]]

# Groups of blocks, at most one for each thread.
N_GROUPS = 8


@cache
def _blas_libraries() -> list[Any]:
    # Looking for the libraries takes longer than a small search.
    libraries: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return libraries


# The limit of most BLAS libraries holds for the process: the last of several threads that want it
# restores what was there before the first.
_blas_lock = Lock()
_n_limiting = 0
_before_limiting: list[int] = []

# autograd numbers nested derivatives in one counter for the process, which threads would confuse.
_autograd_lock = RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in this process for as long as the context lasts.

    Our threads share blocks of samples. Threads of BLAS inside them, or in the libraries of NumPy
    and SciPy at once, would wait for one another, and for ever longer on a machine that has other
    work. Contexts may be nested, and entered in several threads at once.

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
                    # Every thread has a limit of its own.
                    _set_num_threads(library, own)
                elif _n_limiting == 0:
                    _set_num_threads(library, process)


def _set_num_threads(library: Any, n_threads: int) -> None:
    # From threadpoolctl 3.8 on, OpenBLAS listens only to the thread that set a limit first.
    release = getattr(library, "clear_controlling_thread", lambda force: None)
    release(force=True)
    library.set_num_threads(n_threads)
    release(force=True)


@contextmanager
def exclusive_autograd() -> Iterator[None]:
    """Let one thread at a time differentiate with autograd.

    autograd's warning of a function that does not depend on its input is ignored: constant
    functions, and slopes that are constant, are legitimate here. Filters of warnings belong to the
    process too, so they are changed under the same lock.

    Yields
    ------
    None
    """
    with _autograd_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Output seems independent of input")
        yield


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
