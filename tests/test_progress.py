"""The progress bar, and processes that search and are killed."""

import errno
import io
import os
import re
import signal
import sys
import time

import numpy as np
import pytest
from builders import random_network
from joblib.externals.loky.process_executor import TerminatedWorkerError
from sklearn.exceptions import ConvergenceWarning

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot._estimators import base, progress
from jacrot._jacobians.effective import EffectiveJacobians
from jacrot.criteria import hoyer

NETWORK = random_network([6, 5, 4], ["tanh", "identity"])
QUICK = {"random_state": 0, "tol": 1e-3, "max_iter": 200}
LOOK = re.compile(
    r"\| (?P<n>\d+)/(?P<total>\d+) steps \[[\d:]+, (at most (?P<left>[\d:]+) left, )?"
    r"(search \d+ of \d+, )?(?P<stage>[^,]+), step (?P<step>\d+)( of (?P<length>\d+))?, "
    r"cost (?P<cost>[\d.e+-]+)(, sparsity (?P<sparsity>[\d.]+))?"
)


@pytest.fixture
def always(monkeypatch):
    """Show every point, as if every step took long."""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setattr(progress, "SPARSITY_SHARE", np.inf)


@pytest.fixture
def X(rng):
    return rng.normal(size=(30, 6))


def looks(text):
    return [look.groupdict() for look in LOOK.finditer(text)]


@pytest.mark.parametrize("rotate_output", [False, True], ids=["one matrix", "warm start"])
def test_the_bar_moves_within_a_stage(rotate_output, always, X, capsys):
    options = {"rotate_output": rotate_output, "criterion": "l1", **QUICK}
    fitted = JacobianSparsityRotation(verbose=1, **options).fit(NETWORK, X)
    seen = looks(capsys.readouterr().err)
    history = fitted.history_
    for number, stage in enumerate(fitted.stages_):
        rows = np.flatnonzero(history["stage"] == number)
        shown = {int(look["step"]): float(look["cost"]) for look in seen if look["stage"] == stage}
        assert len(shown) > min(3, len(rows) - 1)
        if fitted.stages_.count(stage) == 1:
            costs = history["cost"][rows]
            for step, cost in shown.items():
                assert cost == pytest.approx(costs[step - 1], rel=1e-4)
    counts = [int(look["n"]) for look in seen]
    assert counts == sorted(counts)
    assert counts[-1] == fitted.n_iter_
    assert {look["total"] for look in seen} == {"200"}
    assert all(look["left"] for look in seen if look["n"] != "0")
    lengths = {look["length"] for look in seen if look["stage"] == "warm start"}
    assert lengths == ({"200"} if "warm start" in fitted.stages_ else set())


def test_the_sparsity_on_the_bar_is_that_of_the_samples(always, X, capsys):
    fitted = JacobianSparsityRotation(verbose=1, **QUICK).fit(NETWORK, X)
    # All of these fit on the bar.
    J = NETWORK.jacobians(X) @ fitted.rotation_.T
    last = float(looks(capsys.readouterr().err)[-1]["sparsity"])
    assert last == pytest.approx(hoyer(J).mean(), abs=5e-3)
    model = NetworkRotation(verbose=1, **QUICK).fit(NETWORK, X)
    text = capsys.readouterr().err
    assert "site 1 alone" in text
    assert float(looks(text)[-1]["sparsity"]) == pytest.approx(model.sparsity_, abs=5e-3)


@pytest.mark.parametrize("kind", [JacobianSparsityRotation, NetworkRotation])
def test_what_is_found_does_not_depend_on_the_bar(kind, always, X, capsys):
    silent = kind(**QUICK).fit(NETWORK, X)
    assert capsys.readouterr().err == ""
    shown = kind(verbose=1, **QUICK).fit(NETWORK, X)
    assert silent.sparsity_ == shown.sparsity_
    np.testing.assert_array_equal(silent.history_["cost"], shown.history_["cost"])


def test_the_clock_goes_on_while_a_step_takes_long(monkeypatch, X, capsys):
    monkeypatch.setattr(progress, "CLOCK_INTERVAL", 0.01)
    original = base.solve

    def slow(*arguments, **options):
        time.sleep(0.3)
        return original(*arguments, **options)

    monkeypatch.setattr(base, "solve", slow)
    JacobianSparsityRotation(verbose=1, **QUICK).fit(NETWORK, X)
    # Nothing but the clock was shown before the first stage.
    before, _, _ = capsys.readouterr().err.partition("ε=")
    assert before.count("Jacobians") > 5


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", ["ascii", "cp1252", "full", "closed", "none"])
def test_a_stream_that_cannot_show_the_bar_ends_no_fit(kind, monkeypatch, X):
    written = io.BytesIO()
    streams = {"full": FullDisk(), "closed": io.StringIO(), "none": None}
    streams["closed"].close()
    stream = streams[kind] if kind in streams else io.TextIOWrapper(written, kind)
    monkeypatch.setattr(sys, "stderr", stream)
    network = random_network((6, 8), ["identity"])
    rotation = JacobianSparsityRotation(tol=0.1, random_state=0, verbose=1).fit(network, X)
    assert rotation.converged_
    if kind not in streams:
        stream.flush()
        assert "eps=" in written.getvalue().decode(kind)


def test_looks_take_little_of_the_time(monkeypatch, X):
    """A sparsity that takes long is computed seldom."""
    spent = []

    def slow(*arguments):
        spent.append(time.perf_counter())
        time.sleep(0.02)
        return 0.5

    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setattr(EffectiveJacobians, "sparsity_of_first", slow)
    begin = time.perf_counter()
    JacobianSparsityRotation(verbose=1, **QUICK).fit(NETWORK, X)
    allowed = 1 + (time.perf_counter() - begin) * progress.SPARSITY_SHARE / 0.02
    assert 1 <= len(spent) <= allowed


def broken_pool(monkeypatch, order):
    """Simulate searches in other processes that end in a given order, and lose the others."""

    def parallel(**options):
        assert options == {"n_jobs": 2, "return_as": "generator_unordered"}

        def run(tasks):
            made = [(function, arguments, named) for function, arguments, named in tasks]
            for number in order:
                function, arguments, named = made[number]
                yield function(*arguments, **named)
            raise TerminatedWorkerError("a worker was killed")

        return run

    monkeypatch.setattr(base, "Parallel", parallel)
    monkeypatch.setattr(
        base, "delayed", lambda function: lambda *args, **named: (function, args, named)
    )


POOL = {"n_init": 3, "n_jobs": 2, **QUICK}


def test_a_killed_process_is_an_error_that_says_so(monkeypatch, X):
    broken_pool(monkeypatch, [1])
    with pytest.raises(
        RuntimeError, match=r"n_jobs=2 processes.*was killed.*1 of n_init=3 searches had ended"
    ):
        JacobianSparsityRotation(**POOL).fit(NETWORK, X)


@pytest.mark.parametrize("order", [[1], [2, 0], [0, 1]])
def test_searches_that_ended_before_one_was_killed_are_kept(order, monkeypatch, X):
    solutions = []
    original = base.solve

    def solve(*arguments, **options):
        solutions.append(original(*arguments, **options))
        return solutions[-1]

    monkeypatch.setattr(base, "solve", solve)
    broken_pool(monkeypatch, order)
    kept = JacobianSparsityRotation(on_interrupt="keep", **POOL)
    with pytest.warns(ConvergenceWarning, match=r"killed.*best of the searches that had ended"):
        kept.fit(NETWORK, X)
    assert len(solutions) == len(order)
    assert not kept.converged_
    best = min(solutions, key=lambda solution: solution.cost)
    np.testing.assert_array_equal(kept.history_["cost"], [row[3] for row in best.history])


def test_nothing_is_kept_where_nothing_had_ended(monkeypatch, X):
    broken_pool(monkeypatch, [])
    estimator = JacobianSparsityRotation(on_interrupt="keep", **POOL)
    with pytest.raises(RuntimeError, match="0 of n_init=3 searches had ended"):
        estimator.fit(NETWORK, X)
    assert not hasattr(estimator, "rotation_")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_process_that_the_system_kills(monkeypatch, X):
    original = base._run_numbered_search
    # Bound here: a process gets the function without its module.
    kill, own, number = os.kill, os.getpid, signal.SIGKILL

    def search(index, *arguments, **options):
        if index == 2:
            kill(own(), number)
        return original(index, *arguments, **options)

    monkeypatch.setattr(base, "_run_numbered_search", search)
    estimator = JacobianSparsityRotation(**POOL)
    with pytest.raises(RuntimeError, match=r"n_jobs=2 processes.*was killed.*n_init=3"):
        estimator.fit(NETWORK, X)
    assert not hasattr(estimator, "rotation_")
