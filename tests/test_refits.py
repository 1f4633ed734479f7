"""Inspections that fit again: of what was fitted, or an error before the first fit."""

import os
import signal

import numpy as np
import pytest
from builders import random_network
from sklearn.exceptions import NotFittedError

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot.inspection import axis_stability, locality_curve, null_baseline

X = np.random.default_rng(0).normal(size=(60, 5))
ONE, TWO = random_network([5, 4], ["tanh"]), random_network([5, 4, 3], ["tanh", "tanh"])
OPTIONS = {"tol": 0.1, "random_state": 0}


def stability_of(estimator, X=X, X_test=None, **options):
    return axis_stability(estimator, X, n_starts=1, n_resamples=1, random_state=0, **options)


def null_of(estimator, X=X, X_test=X, **options):
    return null_baseline(estimator, X, X_test, n_repeats=2, random_state=0, **options)


REFITS = pytest.mark.parametrize("inspect", [stability_of, null_of])


@REFITS
@pytest.mark.parametrize(
    "changes",
    [
        {"rotate_output": True},
        {"criterion": "quartimax"},
        {"criterion": "log", "coordinates": "functional"},
        {"n_components": 2},
        {"init": np.eye(5)},
        {"activation": "tanh"},
        {"max_iter": 7},
        {"readout": TWO[1:]},
    ],
)
def test_parameters_changed_after_the_fit_are_named(inspect, changes):
    estimator = JacobianSparsityRotation(ONE, **OPTIONS).fit(X).set_params(**changes)
    first = next(iter(changes))
    with pytest.raises(ValueError, match=rf"other parameters than those of its fit: .*{first} \("):
        inspect(estimator)


@REFITS
def test_parameters_of_a_whole_network_too(inspect):
    estimator = NetworkRotation(TWO, **OPTIONS).fit(X).set_params(rotate_input=True)
    with pytest.raises(ValueError, match=r"rotate_input \(False to True\)"):
        inspect(estimator)
    # Set back, it is the estimator of the fit again; what does not matter may change.
    estimator.set_params(rotate_input=False, random_state=3, verbose=0, on_interrupt="keep")
    inspect(estimator)


@REFITS
def test_a_file_gives_back_what_can_be_fitted_again(inspect, tmp_path):
    estimator = JacobianSparsityRotation(
        coordinates="functional",
        criterion="log",
        readout=[(TWO[1].weight, TWO[1].bias)],
        activation=["tanh"],
        n_components=3,
        **OPTIONS,
    ).fit(ONE, X)
    estimator.save(tmp_path / "rotation.npz")
    inspect(JacobianSparsityRotation.load(tmp_path / "rotation.npz"))


@pytest.mark.parametrize("inspect", [stability_of, null_of, locality_curve])
def test_what_is_not_fitted_or_does_not_fit(inspect):
    for estimator in (JacobianSparsityRotation(ONE), NetworkRotation(TWO)):
        with pytest.raises(NotFittedError):
            inspect(estimator, X)
        fitted = estimator.set_params(**OPTIONS).fit(X)
        for wrong in (X[:, :4], np.c_[X, X], X[0], np.full_like(X, np.nan), X[:0]):
            with pytest.raises(ValueError, match="X does not fit the estimator: "):
                inspect(fitted, wrong)
    with pytest.raises(TypeError, match="estimator is a Network; pass a fitted"):
        inspect(ONE, X)


def test_held_out_inputs_are_named():
    fitted = JacobianSparsityRotation(ONE, **OPTIONS).fit(X)
    with pytest.raises(ValueError, match=r"X_test does not fit the estimator: .*4 features"):
        null_of(fitted, X, X[:, :4])


class Killed:
    """A task that kills its process where that is not the test's, as one without memory is."""

    def __init__(self):
        self.process = os.getpid()

    def __call__(self, *arguments):
        if os.getpid() != self.process:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
@REFITS
def test_a_killed_worker_is_an_error(inspect, monkeypatch):
    fitted = JacobianSparsityRotation(ONE, **OPTIONS).fit(X)
    monkeypatch.setattr("jacrot.inspection._stability._cosines", Killed())
    monkeypatch.setattr("jacrot.inspection._null._scores", Killed())
    with pytest.raises(RuntimeError, match="a worker process was killed before the end of its fit"):
        inspect(fitted, n_jobs=2)
