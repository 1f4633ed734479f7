"""scikit-learn's callbacks, and Ctrl-C: who follows a fit, stops it, or interrupts it."""

import warnings

import numpy as np
import pytest
from builders import interrupting, random_network
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot._search import warm_start
from jacrot.datasets import load_digits_mlp, make_planted_problem

pytestmark = pytest.mark.search

PLANTED = make_planted_problem(12, 24, random_state=0)
OPTIONS = {"tol": 1e-2, "random_state": 0}


class Follower:
    """A callback that writes down what it hears, and asks to stop at a task."""

    def __init__(self, stop=None):
        self.stop = stop
        self.heard = []
        self.ended = []

    def setup(self, estimator, context):
        self.heard.append("setup")

    def teardown(self, estimator, context):
        self.heard.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.heard.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, metadata=None, fitted_estimator=None):
        self.heard.append(f"end {context.task_name}")
        # What a whole network finds layer by layer is not its rotation yet.
        score = None if fitted_estimator is None else fitted_estimator.score(X)
        self.ended.append((context.task_name, metadata, score))
        return context.task_name == self.stop


def followed(estimator, *data, stop=None):
    pytest.importorskip("sklearn.callback")
    follower = Follower(stop)
    return estimator.set_callbacks(follower).fit(*data), follower


def test_every_stage_is_told_with_its_record_and_a_fitted_estimator():
    rotation, follower = followed(
        JacobianSparsityRotation(PLANTED.network, rotate_output=True, n_init=2, **OPTIONS),
        PLANTED.X,
    )
    assert follower.heard[:3] == ["setup", "begin fit", "begin search 1"]
    assert follower.heard[-3:] == ["end search 2", "end fit", "teardown"]
    searches = [i for i, (name, *_) in enumerate(follower.ended) if name.startswith("search")]
    costs = [follower.ended[i][1]["cost"] for i in searches]
    best = int(np.argmin(costs))
    first = [0, searches[0] + 1][best]
    stages = follower.ended[first : searches[best]]
    assert [name for name, *_ in stages] == rotation.stages_
    history = rotation.history_
    for number, (name, record, _) in enumerate(stages):
        row = np.flatnonzero(history["stage"] == number)[-1]
        assert record["stage"] == name
        for column in ("iteration", "evaluations", "cost", "seconds"):
            assert record[column] == history[column][row]
    scores = [score for *_, score in stages]
    # The best so far, so that a stage may lose nothing but what smoothing blurs.
    assert scores[-1] == pytest.approx(rotation.score(PLANTED.X), abs=1e-12)
    assert scores[-1] > rotation.sparsity_before_ + 0.1


def test_a_callback_ends_a_search_after_a_stage():
    estimator = JacobianSparsityRotation(PLANTED.network, **OPTIONS)
    full = clone(estimator).fit(PLANTED.X)
    with warnings.catch_warnings():
        # Who asks for it need not be warned.
        warnings.simplefilter("error")
        stopped, follower = followed(estimator, PLANTED.X, stop="ε=0.05")
    assert not stopped.converged_
    assert stopped.stages_ == full.stages_[: full.stages_.index("ε=0.05") + 1]
    assert follower.heard[-3:] == ["end search 1", "end fit", "teardown"]
    np.testing.assert_allclose(stopped.rotation_ @ stopped.rotation_.T, np.eye(12), atol=1e-10)
    assert stopped.sparsity_before_ < stopped.sparsity_ == pytest.approx(follower.ended[-1][2])


def test_a_callback_ends_the_searches():
    rotation, follower = followed(
        JacobianSparsityRotation(PLANTED.network, n_init=3, **OPTIONS), PLANTED.X, stop="search 2"
    )
    assert "end search 2" in follower.heard
    assert "begin search 3" not in follower.heard
    assert rotation.converged_


@pytest.mark.slow
def test_searches_in_other_processes_are_told_as_a_whole():
    _, follower = followed(
        JacobianSparsityRotation(PLANTED.network, n_init=2, n_jobs=2, **OPTIONS), PLANTED.X
    )
    told = ["search 1", "search 2"]
    expected = [f"{what} {name}" for name in told for what in ("begin", "end")]
    assert follower.heard == ["setup", "begin fit", *expected, "end fit", "teardown"]


@pytest.mark.slow
def test_a_whole_network_tells_its_layers_and_its_search():
    digits = load_digits_mlp()
    model, follower = followed(NetworkRotation(digits.network, **OPTIONS), digits.X[:100])
    begun = [line for line in follower.heard if line.startswith("begin")]
    assert begun[:4] == ["begin fit", "begin site 1 alone", "begin site 2 alone", "begin search 1"]
    assert [name for name, record, _ in follower.ended if record][:-1] == model.stages_
    assert follower.ended[-1][2] == pytest.approx(model.sparsity_)


def test_callbacks_survive_clone_and_run_in_a_pipeline():
    pytest.importorskip("sklearn.callback")
    follower = Follower()
    rotation = JacobianSparsityRotation(PLANTED.network, **OPTIONS).set_callbacks(follower)
    clone(rotation).fit(PLANTED.X)
    n_heard = len(follower.heard)
    assert n_heard > 4
    make_pipeline(StandardScaler(), rotation).fit(PLANTED.X)
    assert follower.heard[n_heard:].count("begin search 1") == 1


def test_callbacks_change_nothing():
    plain = JacobianSparsityRotation(PLANTED.network, **OPTIONS).fit(PLANTED.X)
    watched, _ = followed(JacobianSparsityRotation(PLANTED.network, **OPTIONS), PLANTED.X)
    np.testing.assert_array_equal(plain.rotation_, watched.rotation_)


def test_older_scikit_learn_says_what_is_missing():
    try:
        import sklearn.callback  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"scikit-learn 1\.9"):
            JacobianSparsityRotation().set_callbacks(Follower())
    else:
        with pytest.raises(TypeError, match="FitCallback"):
            JacobianSparsityRotation().set_callbacks(object())


MODES = {
    "one side": {},
    "both sides": {"rotate_output": True},
    "table": {"rotate_output": True, "coordinates": "functional", "criterion": "log"},
}


@pytest.mark.parametrize("step", [2, 8])
@pytest.mark.parametrize("mode", MODES)
def test_an_interrupted_fit_keeps_its_best(mode, step, monkeypatch):
    interrupting(monkeypatch, step)
    estimator = JacobianSparsityRotation(on_interrupt="keep", random_state=0, **MODES[mode])
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        estimator.fit(PLANTED.network, PLANTED.X)
    assert not estimator.converged_
    np.testing.assert_allclose(estimator.rotation_ @ estimator.rotation_.T, np.eye(12), atol=1e-10)
    if mode != "table":
        assert estimator.sparsity_ >= estimator.sparsity_before_
    Z = estimator.transform(PLANTED.X)
    outputs = estimator.rotated_network()(Z)
    if mode == "one side":
        np.testing.assert_allclose(outputs, PLANTED.network(PLANTED.X), atol=1e-10)
    assert estimator.history_["cost"].size >= step - 1
    assert estimator.n_iter_ > 0


@pytest.mark.parametrize("step", [3, 20])
def test_steps_of_an_interrupted_search_are_counted(step, monkeypatch):
    estimator = JacobianSparsityRotation(random_state=0, on_interrupt="keep")
    interrupting(monkeypatch, step)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        estimator.fit(PLANTED.network, PLANTED.X)
    # One line search for every step, but for the last of a stage that ended.
    ended = len(estimator.stages_) - 1
    assert estimator.n_iter_ == step - 1 - ended
    # A row for every step, and one for the end of every stage.
    assert estimator.n_iter_ == estimator.history_["cost"].size - ended


def test_steps_of_an_interrupted_warm_start_are_counted(monkeypatch):
    original, calls = warm_start.cayley, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(warm_start, "cayley", interrupted)
    estimator = JacobianSparsityRotation(on_interrupt="keep", criterion="l1", rotate_output="tied")
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        estimator.fit(random_network([5, 5], ["tanh"]), np.eye(5))
    assert estimator.stages_ == ["warm start"]
    assert estimator.n_iter_ == estimator.history_["cost"].size == 10


def test_an_interrupt_is_raised_unless_asked_for(monkeypatch):
    interrupting(monkeypatch, 2)
    estimator = JacobianSparsityRotation(random_state=0)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(PLANTED.network, PLANTED.X)
    assert not hasattr(estimator, "rotation_")


def test_an_interrupt_before_there_is_a_rotation_is_raised(monkeypatch):
    def frame(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("jacrot._estimators.rotation.Frame", frame)
    estimator = JacobianSparsityRotation(on_interrupt="keep")
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(PLANTED.network, PLANTED.X)
    assert not hasattr(estimator, "rotation_")


def test_an_interrupt_keeps_the_searches_that_ended(monkeypatch):
    first = JacobianSparsityRotation(random_state=0, **MODES["both sides"])
    first.fit(PLANTED.network, PLANTED.X)
    # Line searches of the first search, and one more.
    interrupting(monkeypatch, first.n_iter_ + 2 * len(first.stages_) + 2)
    both = JacobianSparsityRotation(
        random_state=0, n_init=50, on_interrupt="keep", **MODES["both sides"]
    )
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        both.fit(PLANTED.network, PLANTED.X)
    assert both.sparsity_ >= first.sparsity_ - 1e-12


@pytest.mark.parametrize("step", [2, 400])
def test_an_interrupted_whole_network_keeps_its_function(step, monkeypatch):
    interrupting(monkeypatch, step)
    digits = load_digits_mlp()
    model = NetworkRotation(digits.network, on_interrupt="keep", random_state=0)
    with pytest.warns(ConvergenceWarning, match="interrupted") as heard:
        model.fit(digits.X[:100])
    assert len(heard) == 1
    assert not model.converged_
    assert model.n_iter_ > 0
    assert model.sparsity_ > model.sparsity_before_
    np.testing.assert_allclose(
        model.rotated_network()(digits.X), digits.network(digits.X), atol=1e-5
    )
