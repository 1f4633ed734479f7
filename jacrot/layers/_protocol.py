"""The protocol of layers, on which the rest of the package relies."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import Array


@runtime_checkable
class Layer(Protocol):
    """The protocol of a layer: an immutable object with these members.

    Derive a layer of your own from :class:`BaseLayer`, which leaves two of them to define. Batches
    are rows ``(n_samples, n_features)``, sequences ``(n_samples, n_positions, n_features)`` or
    images ``(n_samples, n_channels, height, width)``.

    Examples
    --------
    >>> from jacrot.layers import Dense, Layer
    >>> isinstance(Dense([[1.0]]), Layer)
    True
    """

    @property
    def n_inputs(self) -> int | None:
        """Width of what the layer reads, ``None`` if any."""

    @property
    def n_outputs(self) -> int | None:
        """Width of what the layer writes, ``None`` if it follows from the input."""

    def __call__(self, x: Array) -> Array:
        """Compute the outputs ``(n_samples, *output shape)`` of a batch."""

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        """Compute the outputs of a batch and their derivatives along tangents."""

    def rotate_inputs(self, rotation: Array) -> Layer:
        """Return the layer that reads ``rotation @ x`` in place of ``x``."""

    def rotate_outputs(self, rotation: Array) -> Layer:
        """Return the layer that writes ``rotation @ y`` in place of ``y``."""

    def reach(self, positions: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Find which output positions depend on some input positions, ``None`` for all."""
