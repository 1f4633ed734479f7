"""Threads of this package, of the user and of BLAS: exact sums, and limits that are lifted."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import autograd.numpy as anp
import numpy as np
import pytest
from builders import random_network
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot._utils.threads import N_GROUPS, exclusive_autograd, one_blas_thread, sum_blocks


def blas_threads():
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


@pytest.fixture
def two_blas_threads():
    """Allow BLAS two threads in spite of OMP_NUM_THREADS, so that a limit has an effect."""
    before = blas_threads()
    set_blas_threads([2] * len(before))
    yield blas_threads()
    set_blas_threads(before)


def set_blas_threads(numbers):
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    for library, number in zip(libraries, numbers, strict=True):
        library.set_num_threads(number)
        getattr(library, "clear_controlling_thread", lambda: None)()


@pytest.mark.parametrize("n_blocks", [1, 3, N_GROUPS, N_GROUPS + 1, 100])
def test_every_block_is_summed_once(n_blocks):
    total, squares = sum_blocks(n_blocks, lambda number: (number, np.full(2, number**2)), map)
    assert total == sum(range(n_blocks))
    np.testing.assert_array_equal(squares, [sum(k**2 for k in range(n_blocks))] * 2)


def test_threads_do_not_change_a_bit():
    values = np.random.default_rng(0).normal(size=(200, 5)) * 10.0 ** np.arange(5)
    alone = sum_blocks(200, lambda number: (values[number].copy(),), map)
    for n_threads in (1, 2, 7):
        with ThreadPoolExecutor(n_threads) as pool:
            shared = sum_blocks(200, lambda number: (values[number].copy(),), pool.map)
        np.testing.assert_array_equal(shared[0], alone[0])


def test_blas_keeps_to_one_thread_and_gets_its_own_back(two_blas_threads):
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas_threads()) <= {1}
        assert set(blas_threads()) <= {1}
    assert blas_threads() == two_blas_threads


def test_blas_gets_its_own_back_after_an_error(two_blas_threads):
    with pytest.raises(RuntimeError), one_blas_thread():
        raise RuntimeError
    assert blas_threads() == two_blas_threads


def test_the_last_of_several_threads_gives_back_the_threads_of_blas(two_blas_threads):
    entered, leave = Barrier(2), [Event(), Event()]
    seen = []

    def work(number):
        with one_blas_thread():
            entered.wait()
            leave[number].wait()
            seen.append(set(blas_threads()) <= {1})

    threads = [Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    # The first one in is the first one out.
    for number, thread in enumerate(threads):
        leave[number].set()
        thread.join()
    assert seen == [True, True]
    assert blas_threads() == two_blas_threads


def test_the_users_own_limit_comes_back(two_blas_threads):
    def limited():
        with one_blas_thread():
            pass

    with threadpool_limits(1, user_api="blas"):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(limited).result()
        limited()
        assert set(blas_threads()) <= {1}
    assert blas_threads() == two_blas_threads


def test_fits_in_threads_find_what_they_find_alone(rng, two_blas_threads):
    X, network = rng.normal(size=(120, 8)), random_network([8, 7, 5], ["tanh", "identity"])

    def softened(x):
        return anp.sqrt(x**2 + 0.01)

    def fitted(kind):
        if kind == "network":
            return NetworkRotation(random_state=0, max_iter=20).fit(network, X).rotations_[1]
        criterion = softened if kind == "autograd" else "log"
        return (
            JacobianSparsityRotation(
                random_state=0,
                max_iter=20,
                rotate_output=True,
                coordinates="functional",
                criterion=criterion,
            )
            .fit(network, X)
            .rotation_
        )

    kinds = ["network", "log", "autograd", "autograd"] * 2
    filters = warnings.filters[:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the search did not converge")
        alone = {kind: fitted(kind) for kind in set(kinds)}
        with ThreadPoolExecutor(len(kinds)) as pool:
            together = list(pool.map(fitted, kinds))
    for kind, rotation in zip(kinds, together, strict=True):
        np.testing.assert_array_equal(rotation, alone[kind])
    assert blas_threads() == two_blas_threads
    assert warnings.filters == filters


def test_one_thread_at_a_time_differentiates_and_the_filters_of_warnings_come_back():
    filters, inside, leave, order = warnings.filters[:], Event(), Event(), []

    def first():
        with exclusive_autograd():
            inside.set()
            leave.wait()
            order.append("first")

    def second():
        with exclusive_autograd(), exclusive_autograd():
            order.append("second")

    threads = [Thread(target=first), Thread(target=second)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    threads[1].join(0.1)
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "second"]
    assert warnings.filters == filters
