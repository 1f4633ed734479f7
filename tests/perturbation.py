"""Inputs multiplied by ``1 + 1e-6 noise``, as another processor's rounding would, only more so.

Two things amplify rounding: the search, which may lead to another minimum of nearly the same cost,
and the training of a network. What a test asserts, or a page prints, of either must survive both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from sklearn.neural_network import MLPClassifier

import jacrot._estimators.base
import jacrot._search.solver
from jacrot._jacobians.base import Jacobians

# Relative size of the noise: ten times the rounding of single precision.
SIZE = 1e-6


def perturbed_stack(stack: Jacobians, rng: np.random.Generator) -> Jacobians:
    """Return ``J_i (I + SIZE · noise)``, whose entries differ from those of ``J_i`` by ``SIZE``."""
    n_inputs = stack.shape[2]
    noise = SIZE / np.sqrt(n_inputs) * rng.normal(size=(n_inputs, n_inputs))
    dtype = next(stack.subset(np.arange(1)).rotated(None, None)).dtype
    return stack.transformed(None, np.eye(n_inputs) + noise).cast(dtype)


@contextmanager
def perturbed(seed: int) -> Iterator[None]:
    """Perturb the inputs of all searches and classifiers in this process."""
    solve, train = jacrot._search.solver.solve, MLPClassifier.fit

    def perturbed_solve(problem: Any, *arguments: Any, **options: Any) -> Any:
        # The same noise at every call: what is to be the same twice stays so.
        rng = np.random.default_rng(seed)
        problem = problem.with_stacks(lambda stack: perturbed_stack(stack, rng))
        return solve(problem, *arguments, **options)

    def perturbed_train(self: MLPClassifier, X: Any, y: Any) -> MLPClassifier:
        noise = SIZE * np.random.default_rng(seed).normal(size=X.shape)
        return train(self, X * (1 + noise), y)

    with (
        mock.patch.object(jacrot._search.solver, "solve", perturbed_solve),
        mock.patch.object(jacrot._estimators.base, "solve", perturbed_solve),
        mock.patch.object(MLPClassifier, "fit", perturbed_train),
    ):
        yield
