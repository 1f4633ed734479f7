"""What the rest of the package knows of a layer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jacrot._arrays import Array


@runtime_checkable
class Layer(Protocol):
    """The protocol of a layer: an immutable object with these members.

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
        """Compute the outputs ``(n_samples, n_outputs)`` of a batch ``(n_samples, n_inputs)``."""

    def push(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        """Compute the outputs of a batch and push a stack of tangents forward.

        Parameters
        ----------
        x : ndarray of shape (n_samples, n_inputs)
            Inputs.
        tangents : ndarray of shape (n_samples, n_inputs, k) or None
            Tangents, ``None`` for the identity.

        Returns
        -------
        outputs : ndarray of shape (n_samples, n_outputs)
            Outputs.
        tangents : ndarray of shape (n_samples, n_outputs, k)
            ``J @ tangents``, ``J`` the Jacobian of the layer at every sample.
        """

    def reading(self, rotation: Array) -> Layer:
        """Make the layer that reads ``rotation @ x`` in place of ``x``.

        Parameters
        ----------
        rotation : ndarray of shape (n_rotated, n_inputs)
            Orthonormal rows.

        Returns
        -------
        Layer
            The same function of the rotated inputs.
        """

    def writing(self, rotation: Array) -> Layer:
        """Make the layer that writes ``rotation @ y`` in place of ``y``.

        Parameters
        ----------
        rotation : ndarray of shape (n_rotated, n_outputs)
            Orthonormal rows.

        Returns
        -------
        Layer
            The same function with rotated outputs.
        """
