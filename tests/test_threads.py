"""Sums shared among threads: exact, in one order, with BLAS out of the way."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from jacrot._threads import N_GROUPS, one_blas_thread, summed


@pytest.mark.parametrize("n_blocks", [1, 3, N_GROUPS, N_GROUPS + 1, 100])
def test_every_block_is_summed_once(n_blocks):
    total, squares = summed(n_blocks, lambda number: (number, np.full(2, number**2)), map)
    assert total == sum(range(n_blocks))
    np.testing.assert_array_equal(squares, [sum(k**2 for k in range(n_blocks))] * 2)


def test_threads_do_not_change_a_bit():
    values = np.random.default_rng(0).normal(size=(200, 5)) * 10.0 ** np.arange(5)
    alone = summed(200, lambda number: (values[number].copy(),), map)
    for n_threads in (1, 2, 7):
        with ThreadPoolExecutor(n_threads) as pool:
            shared = summed(200, lambda number: (values[number].copy(),), pool.map)
        np.testing.assert_array_equal(shared[0], alone[0])


def test_blas_keeps_to_one_thread_and_gets_its_own_back():
    def threads():
        return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        assert set(threads()) <= {1}
    assert threads() == before
