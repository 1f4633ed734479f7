"""What the rest of the package knows of a layer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jacrot._arrays import Array


@runtime_checkable
class Layer(Protocol):
    """The protocol of a layer; see :mod:`jacrot.layers`."""

    @property
    def n_inputs(self) -> int | None:
        """Width of what the layer reads, ``None`` if any."""

    @property
    def n_outputs(self) -> int | None:
        """Width of what the layer writes, ``None`` if it follows from the input."""

    def __call__(self, x: Array) -> Array:
        """Compute the outputs of a batch."""

    def push(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        """Compute the outputs of a batch and push a stack of tangents forward."""

    def reading(self, rotation: Array) -> Layer:
        """Make the layer that reads ``rotation @ x``."""

    def writing(self, rotation: Array) -> Layer:
        """Make the layer that writes ``rotation @ y``."""
