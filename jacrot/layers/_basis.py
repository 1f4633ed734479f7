"""A change of basis as a layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array, read_only, real_array
from jacrot.layers._base import (
    BaseLayer,
    along_features,
    broadcast_features,
    features_axis,
    identity_tangents,
)

# An entry that differs by less from the identity's is rounding.
ROUNDING = 1e-12


class Basis(BaseLayer):
    """Affine map ``y = R x + c`` of the features, the same at every position.

    It is how layers that cannot take a rotation into their weights read and write one.

    Parameters
    ----------
    matrix : array-like of shape (n_outputs, n_inputs)
        ``R``.
    offset : array-like of shape (n_outputs,), default=None
        ``c``, zero if ``None``.

    Raises
    ------
    ValueError
        If `matrix` is no matrix, `offset` does not fit it, or an entry is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Basis
    >>> Basis([[0.0, 1.0], [1.0, 0.0]])(np.array([[1.0, 2.0]]))
    array([[2., 1.]])
    """

    matrix: Array
    offset: Array | None
    positionwise = True

    def __init__(self, matrix: ArrayLike, offset: ArrayLike | None = None) -> None:
        matrix = read_only(real_array(matrix, "matrix", ndim=2))
        if offset is not None:
            offset = read_only(real_array(offset, "offset", ndim=1))
            if offset.shape != matrix.shape[:1]:
                raise ValueError(
                    f"offset has {offset.size} entries but matrix has {len(matrix)} rows; write "
                    "one for each row."
                )
        vars(self).update(matrix=matrix, offset=offset)

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
        """Whether it changes nothing but roundings."""
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
