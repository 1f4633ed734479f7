"""A fit that fails or is interrupted leaves an estimator as it was, or as the new fit made it."""

import pickle
import sys
import threading
import warnings

import numpy as np
import pytest
from builders import random_network
from sklearn.exceptions import ConvergenceWarning

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot._estimators.base import NetworkEstimator

pytestmark = pytest.mark.filterwarnings("ignore:the search")

NETWORK = random_network([4, 3, 2], ["tanh", "identity"])
OTHER = random_network([3, 5, 2], ["tanh", "identity"], seed=1)
FUNCTIONAL = {"coordinates": "functional", "criterion": "log"}
QUICK = {"random_state": 0, "max_iter": 3}
ESTIMATORS = {
    "one layer": JacobianSparsityRotation(rotate_output=True, **QUICK),
    "one layer, functional": JacobianSparsityRotation(
        rotate_output="tied", **FUNCTIONAL, on_interrupt="keep", **QUICK
    ),
    "whole network": NetworkRotation(on_interrupt="keep", verbose=1, **QUICK),
    "whole network, functional": NetworkRotation(rotate_input=True, **FUNCTIONAL, **QUICK),
}
# Number of interrupts of a refit, spread over all its lines.
N_INTERRUPTS = [3, pytest.param(60, marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _fit_itself(monkeypatch):
    """Disable the checks of all fits in tests, whose lines do not belong to fit."""
    fit = NetworkEstimator._fit_atomically.__wrapped__
    monkeypatch.setattr(NetworkEstimator, "_fit_atomically", fit)


class Silent:
    """A callback, whose state scikit-learn keeps in the estimator."""

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context, *, X=None, metadata=None, fitted_estimator=None):
        return False


class Interrupt:
    """Counts the lines of this package and of scikit-learn, and interrupts at one of them."""

    def __init__(self, at=None):
        self.at = at
        self.n_lines = 0

    def __call__(self, frame, event, argument):
        return (
            self.line if frame.f_globals.get("__name__", "").startswith(("jacrot", "sk")) else None
        )

    def line(self, frame, event, argument):
        if event == "line":
            self.n_lines += 1
            if self.n_lines == self.at:
                raise KeyboardInterrupt
        return self.line

    def run(self, function, *arguments):
        assert threading.current_thread() is threading.main_thread()
        before = sys.gettrace()
        sys.settrace(self)
        try:
            function(*arguments)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)


def data(estimator, seed):
    """Draw data of another network, width and kind for every seed; names come and go with them."""
    rng = np.random.default_rng(seed)
    network = [NETWORK, OTHER][seed]
    X = rng.normal(size=(12, network.n_inputs))
    if seed == 0:
        pandas = pytest.importorskip("pandas")
        X = pandas.DataFrame(X, columns=list("abcd"))
    if isinstance(estimator, JacobianSparsityRotation):
        # Square, so that the outputs may be tied.
        weight = network.layers[0].weight
        network = random_network([weight.shape[1]] * 2, ["tanh"], seed)
    return network, X


def state(estimator):
    """Freeze what an estimator is, but for the time that it took."""
    attributes = dict(vars(estimator))
    if "history_" in attributes:
        attributes["history_"] = {
            name: values for name, values in attributes["history_"].items() if name != "seconds"
        }
    return {name: pickle.dumps(value) for name, value in sorted(attributes.items())}


def fresh(name):
    estimator = pickle.loads(pickle.dumps(ESTIMATORS[name]))
    if hasattr(estimator, "_init_callback_context"):
        estimator.set_callbacks(Silent())
    return estimator


@pytest.mark.parametrize("fitted_before", [True, False], ids=["second fit", "first fit"])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("n_interrupts", N_INTERRUPTS)
def test_an_interrupt_at_any_line_leaves_no_mixture(n_interrupts, name, fitted_before):
    estimator = fresh(name)
    second = data(estimator, 1)
    if fitted_before:
        estimator.fit(*data(estimator, 0))
    before, pickled = dict(vars(estimator)), state(estimator)
    after = state(fresh(name).fit(*second))
    counted = Interrupt()
    counted.run(estimator.fit, *second)
    assert counted.n_lines > 1000
    seen = set()
    last = np.arange(counted.n_lines - 3, counted.n_lines + 1)
    for at in [*np.linspace(1, counted.n_lines - 4, n_interrupts).astype(int), *last]:
        estimator.__dict__ = dict(before)
        Interrupt(at).run(estimator.fit, *second)
        now = state(estimator)
        if now == pickled:
            seen.add("before")
            assert all(vars(estimator)[key] is value for key, value in before.items())
        elif estimator.on_interrupt == "keep" and estimator._interrupted:
            seen.add("kept")
            assert now.keys() == after.keys()
            assert now["n_features_in_"] == after["n_features_in_"]
        else:
            seen.add("after")
            assert now == after
    assert {"before", "after"} <= seen


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    "where",
    [
        "_jacobians.effective.EffectiveJacobians.sparsity",
        "_estimators.base.FittedRange.from_batches",
    ],
)
def test_an_error_leaves_what_was(name, where, monkeypatch):
    estimator = fresh(name).fit(*data(fresh(name), 0))
    before = state(estimator)

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(f"jacrot.{where}", fail)
    with pytest.raises(MemoryError):
        estimator.fit(*data(estimator, 1))
    assert state(estimator) == before


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_warning_that_is_an_error_leaves_what_was(name):
    estimator = fresh(name)
    before = state(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning):
            estimator.fit(*data(estimator, 1))
    assert state(estimator) == before


def test_what_others_set_in_the_meantime_stays(monkeypatch):
    estimator = JacobianSparsityRotation(**QUICK)
    network, X = data(estimator, 1)
    original = JacobianSparsityRotation._search

    def search(self, *arguments):
        # As another thread might.
        estimator.set_params(tol=0.5)
        return original(self, *arguments)

    monkeypatch.setattr(JacobianSparsityRotation, "_search", search)
    assert estimator.fit(network, X).tol == 0.5


def test_what_an_inspection_kept_goes_with_its_fit():
    estimator = JacobianSparsityRotation(**QUICK)
    network, X = data(estimator, 1)
    estimator.fit(network, X)
    estimator.axis_stability_ = kept = object()
    with pytest.raises(ValueError, match="NaN"):
        estimator.fit(network, np.nan * X)
    assert estimator.axis_stability_ is kept
    assert not hasattr(estimator.fit(network, X), "axis_stability_")


def test_warnings_point_at_the_line_that_fitted():
    estimator = JacobianSparsityRotation(**QUICK)
    with pytest.warns(ConvergenceWarning) as heard:
        estimator.fit(*data(estimator, 1))
    assert heard[0].filename == __file__
