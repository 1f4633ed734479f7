"""A change of basis as a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array
from jacrot.layers._base import (
    BaseLayer,
    along_features,
    broadcast_features,
    features_axis,
    identity_tangents,
)
from jacrot.layers._fields import Converted, matrix, optional_vector

# An entry that differs by less from the identity's is rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Basis(BaseLayer):
    """Affine map ``y = R x + c`` of the features, the same at every position.

    It rotates the inputs and outputs of layers that cannot fold a rotation into their weights.

    Parameters
    ----------
    matrix : array-like of shape (n_outputs, n_inputs)
        ``R``.
    offset : array-like of shape (n_outputs,), default=None
        ``c``, zero if ``None``.

    Raises
    ------
    ValueError
        If `matrix` is not a matrix, `offset` does not fit it, or an entry is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Basis
    >>> Basis([[0.0, 1.0], [1.0, 0.0]])(np.array([[1.0, 2.0]]))
    array([[2., 1.]])
    """

    matrix: Converted[ArrayLike, Array] = Converted(matrix)
    offset: Converted[ArrayLike | None, Array | None] = Converted(optional_vector, None)
    positionwise = True

    def __post_init__(self) -> None:
        if self.offset is not None and len(self.offset) != len(self.matrix):
            raise ValueError(
                f"offset has {self.offset.size} entries but matrix has {len(self.matrix)} rows; "
                "pass one for each row."
            )

    def __repr__(self) -> str:
        return f"Basis({self.n_inputs} → {self.n_outputs})"

    @property
    def n_inputs(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def n_outputs(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def is_identity(self) -> bool:
        """Whether it is the identity up to rounding."""
        square = self.n_inputs == self.n_outputs and self.offset is None
        return square and bool(np.abs(self.matrix - np.eye(self.n_inputs)).max() < ROUNDING)

    def __call__(self, x: Array) -> Array:
        axis = features_axis(x)
        y = along_features(self.matrix, x, axis)
        return y if self.offset is None else y + broadcast_features(self.offset, y, axis)

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        return self(x), along_features(self.matrix, tangents, features_axis(x))

    def rotate_inputs(self, rotation: Array) -> Basis:
        return Basis(self.matrix @ rotation.T, self.offset)

    def rotate_outputs(self, rotation: Array) -> Basis:
        offset = None if self.offset is None else rotation @ self.offset
        return Basis(rotation @ self.matrix, offset)
