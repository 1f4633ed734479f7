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
from perturbation import perturbed
from threadpoolctl import threadpool_limits

from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.fitted_state import check_fitted_state

matplotlib.use("Agg")
# Keras computes with another framework: PyTorch's Jacobians need no compilation for every network
# that hypothesis draws.
os.environ.setdefault("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")


def pytest_addoption(parser):
    parser.addoption(
        "--perturb",
        type=int,
        metavar="SEED",
        help="multiply the inputs of the tests marked `search` by 1 + 1e-6 noise",
    )


@pytest.fixture(autouse=True)
def _perturbed(request):
    """Show with other rounding that what a test asserts of a search holds on other machines."""
    seed = request.config.getoption("--perturb")
    marker = request.node.get_closest_marker("search")
    # Other processes are not perturbed: what compares them with this one asks for the same inputs.
    if seed is None or marker is None or marker.kwargs.get("other_processes", False):
        yield
        return
    with perturbed(seed):
        yield


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
def _draws_do_not_depend_on_other_tests(request):
    """Restore the generators that a module draws its constants from."""
    generators = [g for g in vars(request.module).values() if isinstance(g, np.random.Generator)]
    states = [generator.bit_generator.state for generator in generators]
    yield
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(autouse=True, scope="session")
def _one_blas_thread():
    """Spare the small matrices of the tests the threads of BLAS, which take longer to start."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(autouse=True, scope="session")
def _heard_interrupts():
    """Restore the handler of Ctrl-C, which shells disable for background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _checked_fits():
    """Check what every fit of every test leaves by what a file of it is checked by."""
    fit = NetworkEstimator._fit_atomically

    @functools.wraps(fit)
    def checked(*arguments):
        fitted = fit(*arguments)
        check_fitted_state(fitted)
        return fitted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NetworkEstimator, "_fit_atomically", checked)
        yield
