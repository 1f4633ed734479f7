"""Shared by all tests."""

import importlib.util
import os
import signal

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from command import save_digits

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
