"""What the estimators and the inspections need of a model between two of its places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from jacrot._jacobians.base import Jacobians
from jacrot._jacobians.dense import Source
from jacrot._utils.arrays import Array, Matrix


class Segment(ABC):
    """The computation between two places of a model, on given inputs.

    A sample is an input or, of sequences and images, an input and a position of it.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import load_digits_mlp
    >>> digits = load_digits_mlp()
    >>> training, test = (digits.network.segment(1, X) for X in (digits.X[:200], digits.X_test))
    >>> rotation = JacobianSparsityRotation(tol=1e-2, random_state=0).fit(training)
    >>> bool(rotation.score(test) > 0.5)
    True
    >>> np.allclose(test.logits_from(test.forward(test.activations)), test.reference_logits)
    True
    """

    @property
    @abstractmethod
    def read(self) -> str:
        """Name of the place whose activations are read."""

    @property
    @abstractmethod
    def write(self) -> str:
        """Name of the place that is written."""

    @property
    @abstractmethod
    def activations(self) -> Array:
        """What is read on all inputs, at all their positions."""

    @property
    @abstractmethod
    def X(self) -> Array:
        """The activations of the samples, of shape ``(n_samples, d_read)``."""

    @property
    @abstractmethod
    def stack(self) -> Jacobians:
        """The Jacobians of the samples, computed block by block."""

    @property
    @abstractmethod
    def jacobian_source(self) -> Source:
        """What computes the Jacobians of those samples for which it is indexed."""

    @property
    @abstractmethod
    def jacobians(self) -> Any:
        """The Jacobians of the samples, ``(n_samples[, n_positions_written], d_write, d_read)``.

        An array where they fit scikit-learn's ``working_memory``; else what has this shape and
        computes those samples for which it is indexed.
        """

    @property
    @abstractmethod
    def readout(self) -> Matrix | None:
        """How much the logits depend on what is written, ``G = E[KᵀK]``.

        ``K`` is the Jacobian of the centred logits with respect to what is written. ``None``
        where the logits are not known.
        """

    @property
    @abstractmethod
    def reference_logits(self) -> Array:
        """The logits of the model as it is."""

    @abstractmethod
    def forward(self, activations: Array) -> Array:
        """Compute what is written when these activations are read.

        Parameters
        ----------
        activations : ndarray
            In the place of `activations`, for as many inputs or for others.

        Returns
        -------
        ndarray
            What is written at all positions.
        """

    @abstractmethod
    def logits_from(self, written: Array) -> Array:
        """Compute the logits of the model when these activations are written.

        Parameters
        ----------
        written : ndarray
            In the place of what `forward` returns.

        Returns
        -------
        ndarray
            The logits.
        """

    @abstractmethod
    def shuffled(self, random_state: int | np.random.RandomState | None = None) -> Segment:
        """Return the same segment with its weights in random order: a null model.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None
            Draws the orders.

        Returns
        -------
        Segment
            On the same activations.
        """

    def __repr__(self) -> str:
        shape = self.activations.shape
        return f"{type(self).__name__}({self.read} to {self.write}; activations {shape})"
