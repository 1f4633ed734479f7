"""Random networks and rotations for the tests."""

import importlib.util
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.stats import ortho_group

from jacrot import Network
from jacrot._search.line_search import QuadraticLineSearcher
from jacrot._search.objective import Term
from jacrot._search.problem import Problem
from jacrot.activations import ACTIVATIONS
from jacrot.criteria._minimised import get_criterion

EXAMPLES = Path(__file__).parents[1] / "examples"

# What hypothesis draws of a chain of dense layers: more activations than it has layers.
CHAINS = {
    "widths": st.lists(st.integers(1, 6), min_size=2, max_size=5),
    "names": st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=4, max_size=4),
    "seed": st.integers(0, 10_000),
}


def framework(name):
    """Import an optional package, or skip; CI, which installs all of them, does not skip."""
    if os.environ.get("JACROT_ALL_FRAMEWORKS"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed")


def example(name):
    """Load a script of the examples anew; they import one another."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(EXAMPLES))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(EXAMPLES))
    return module


def random_network(widths, activations, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    pairs = [
        ((rng.normal(size=(m, n)) / np.sqrt(n)).astype(dtype), rng.normal(size=m).astype(dtype))
        for n, m in pairwise(widths)
    ]
    return Network(pairs, activations)


def rotation(size, seed=0):
    return -np.eye(1) if size == 1 else ortho_group(size, seed=seed).rvs()


def one_term_problem(stack, output="fixed", criterion="hoyer", input_basis=None):
    bases = (None, input_basis) if output == "free" else (input_basis,)
    return Problem((Term.from_mode(stack, output),), get_criterion(criterion), bases)


def interrupting(monkeypatch, step):
    """Interrupt at some line search, as Ctrl-C does."""
    original, steps = QuadraticLineSearcher.search, []

    def search(self, *arguments):
        steps.append(None)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(QuadraticLineSearcher, "search", search)
