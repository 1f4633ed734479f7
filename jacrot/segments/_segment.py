"""Interface of the estimators and inspections to the computation between two places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from jacrot._jacobians.base import Jacobians
from jacrot._jacobians.dense import Source
from jacrot._utils.arrays import Array, Matrix


class Segment(ABC):
    """The computation between two places of a model, on given inputs.

    A sample is an input or, for sequences and images, a position of an input.

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
        """Activations that are read, for all inputs and positions."""

    @property
    @abstractmethod
    def X(self) -> Array:
        """Activations of the samples, of shape ``(n_samples, d_read)``."""

    @property
    @abstractmethod
    def d_write(self) -> int:
        """Number of activations that are written, at each position."""

    @property
    @abstractmethod
    def stack(self) -> Jacobians:
        """The Jacobians of the samples, computed block by block."""

    @property
    @abstractmethod
    def jacobian_source(self) -> Source:
        """Array-like that computes the Jacobians of the samples with which it is indexed."""

    @property
    @abstractmethod
    def jacobians(self) -> Any:
        """The Jacobians of the samples, ``(n_samples[, n_positions_written], d_write, d_read)``.

        An array if it fits scikit-learn's ``working_memory``, otherwise an array-like that
        computes the samples with which it is indexed.
        """

    @property
    @abstractmethod
    def readout(self) -> Matrix | None:
        """Dependence of the logits on the outputs of the segment, ``G = E[KᵀK]``.

        ``K`` is the Jacobian of the centred logits with respect to the outputs. ``None`` if the
        logits are not known.
        """

    @property
    @abstractmethod
    def reference_logits(self) -> Array:
        """The logits of the original model."""

    @abstractmethod
    def forward(self, activations: Array) -> Array:
        """Compute the outputs of the segment from other activations.

        Parameters
        ----------
        activations : ndarray
            Activations instead of `activations`, for the same or for other inputs.

        Returns
        -------
        ndarray
            Outputs at all positions.
        """

    @abstractmethod
    def logits_from(self, written: Array) -> Array:
        """Compute the logits of the model from outputs of the segment.

        Parameters
        ----------
        written : ndarray
            Outputs, such as those that `forward` returns.

        Returns
        -------
        ndarray
            The logits.
        """

    @abstractmethod
    def shuffled(self, random_state: int | np.random.RandomState | None = None) -> Segment:
        """Return the segment with its weights in random order, as a null model.

        Parameters
        ----------
        random_state : int, RandomState instance or None, default=None
            Random number generator for the orders.

        Returns
        -------
        Segment
            The null model, on the same activations.
        """

    def __repr__(self) -> str:
        shape = self.activations.shape
        return f"{type(self).__name__}({self.read} to {self.write}; activations {shape})"
