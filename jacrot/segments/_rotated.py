"""A segment with the fitted bases of its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jacrot._jacobians.coordinates import SiteBasis
from jacrot._jacobians.effective import EffectiveJacobians
from jacrot._utils.arrays import Array, Matrix
from jacrot.segments._captured import Captured
from jacrot.segments._segment import Segment


@dataclass(frozen=True)
class RotatedSegment:
    """A segment with the bases of its inputs and outputs.

    The Jacobians in the coordinates of the estimator are ``left J right``; they are rotated by
    ``P`` and ``Q``.

    Parameters
    ----------
    segment : Segment
        The segment, or activations and Jacobians that were captured.
    sites : tuple
        Names of the rotations of the inputs and of the outputs; equal if both have the same
        rotation.
    read_basis, write_basis : SiteBasis
        Encoder, decoder and mean of the inputs and of the outputs.
    Q, P : ndarray or None
        Rotations in the coordinates of the inputs and of the outputs; ``None`` for the identity.
    left, right : ndarray or None
        Factors of the Jacobians before the rotations, with 0 in null directions; ``None`` for the
        identity.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import NetworkRotation
    >>> from jacrot.datasets import load_digits_mlp
    >>> digits = load_digits_mlp()
    >>> model = NetworkRotation(digits.network, tol=0.1, random_state=0).fit(digits.X[:200])
    >>> first, middle, last = model.rotated_segments(digits.X_test)
    >>> middle.sites, middle.jacobians.shape
    ((1, 2), (500, 64, 64))
    >>> Z = middle.forward(middle.activations)
    >>> np.allclose(Z, model.transform(digits.X_test, site=2), atol=1e-4)
    True
    """

    segment: Segment | Captured
    sites: tuple[str | int, str | int]
    read_basis: SiteBasis
    write_basis: SiteBasis
    Q: Matrix | None
    P: Matrix | None
    left: Matrix | None = None
    right: Matrix | None = None

    @cached_property
    def given(self) -> EffectiveJacobians:
        """The nonzero Jacobians in the given bases."""
        return EffectiveJacobians.select(self.segment.stack)

    @cached_property
    def effective(self) -> EffectiveJacobians:
        """The nonzero Jacobians in the coordinates of the estimator."""
        if self.left is None and self.right is None:
            return self.given
        return EffectiveJacobians.select(self.segment.stack.transformed(self.left, self.right))

    @property
    def sparsity(self) -> float:
        """Mean Hoyer sparsity of the rotated Jacobians."""
        return self.effective.sparsity(self.P, self.Q)

    @property
    def rotations(self) -> dict[str | int, Matrix]:
        """The rotations by site, except for identities."""
        pairs = zip(self.sites, (self.Q, self.P), strict=True)
        return {site: rotation for site, rotation in pairs if rotation is not None}

    @cached_property
    def activations(self) -> Array:
        """Inputs of the segment in the new basis."""
        return self.read_basis.encode(self.segment.activations)

    @property
    def jacobians(self) -> Array:
        """The Jacobians in the new bases of inputs and outputs."""
        stack = self.segment.stack
        encoder, decoder = (
            None if basis.is_identity else matrix
            for basis, matrix in (
                (self.write_basis, self.write_basis.encoder),
                (self.read_basis, self.read_basis.decoder.T),
            )
        )
        rotated = np.concatenate(list(stack.rotated(encoder, decoder)))
        if stack.n_matrices > 1:
            rotated = rotated.reshape(-1, stack.n_matrices, *rotated.shape[1:])
        return rotated.astype(self.segment.activations.dtype, copy=False)

    @property
    def runnable(self) -> Segment:
        """The segment; raises ValueError if it has no model to run."""
        if isinstance(self.segment, Captured):
            raise ValueError(
                "the segment has captured activations and Jacobians and no model to run; pass a "
                "segment of a Network."
            )
        return self.segment

    def forward(self, Z: Array) -> Array:
        """Compute the outputs from the inputs, both in the new bases.

        Parameters
        ----------
        Z : ndarray
            Inputs in the new basis.

        Returns
        -------
        ndarray
            Outputs in the new basis.
        """
        return self.write_basis.encode(self.runnable.forward(self.read_basis.decode(Z)))
