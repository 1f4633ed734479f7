"""Shared by all tests."""

import functools
import importlib.util
import os
import signal

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from command import save_digits

from jacrot._estimator import NetworkEstimator
from jacrot._fitted_state import check_fitted_state

matplotlib.use("Agg")
# Keras computes with another framework: PyTorch's Jacobians need no compilation for every network
# that hypothesis draws.
os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def digits_folder(tmp_path, monkeypatch):
    """Run in a folder with a network and its inputs."""
    monkeypatch.chdir(tmp_path)
    save_digits()
    return tmp_path


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(autouse=True, scope="session")
def _heard_interrupts():
    """Hear Ctrl-C also where the run was started in the background, as shells do without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _checked_fits():
    """Check what every fit of every test leaves by what a file of it is checked by."""
    fit = NetworkEstimator._fit_or_leave

    @functools.wraps(fit)
    def checked(*arguments):
        fitted = fit(*arguments)
        check_fitted_state(fitted)
        return fitted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkEstimator, "_fit_or_leave", checked)
        yield
