"""Methods of a fitted rotation of one segment: transforming, scoring, folding into weights."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.base import SCORE_SEED, NetworkEstimator
from jacrot._estimators.inputs import are_batches, read_segments
from jacrot._estimators.segment_coordinates import SegmentCoordinates
from jacrot._jacobians.coordinates import (
    Coordinates,
    FunctionalCoordinates,
    SiteBasis,
    rotate_network,
)
from jacrot._jacobians.effective import EffectiveJacobians
from jacrot._utils.arrays import Array, Matrix, real_array
from jacrot.network import Network
from jacrot.segments import NetworkSegment, RotatedSegment, Segment
from jacrot.segments._captured import Captured
from jacrot.segments._network import pool


class FittedRotation(NetworkEstimator):
    """The methods of a rotation of one segment that use its fitted attributes."""

    rotate_output: bool | Literal["tied"]
    rotation_: Matrix
    output_rotation_: Matrix | None
    network_: Network | tuple[Network, ...] | None
    _inner: Coordinates
    _outer: Coordinates

    def transform(self, X: ArrayLike) -> Array:
        """Rotate activations: ``Z = X Qᵀ``, or ``(X − mean) C^-½ Qᵀ`` in functional coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Activations.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            The activations in the new basis, in the precision of `X`.

        See Also
        --------
        jacrot.positions.at_positions : Apply a function to sequences and images.
        """
        check_is_fitted(self)
        X = self._read_activations(X, reset=False)
        if X.ndim > 2:
            raise ValueError(
                f"X has shape {X.shape}, but transform takes rows; use "
                "jacrot.positions.at_positions(rotation.transform, X)."
            )
        return self._read_basis.encode(X)

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Rotate back: ``X = Z Q``, or ``mean + Z Q C^½`` in functional coordinates.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Activations in the new basis.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Activations; with fewer components than features, the projected activations.

        Raises
        ------
        ValueError
            If `X` has the wrong number of components.
        """
        check_is_fitted(self)
        Z = real_array(X, "X", ndim=2)
        if Z.shape[1] != len(self.rotation_):
            raise ValueError(
                f"X has {Z.shape[1]} components but the rotation has {len(self.rotation_)}; pass "
                "what transform returned."
            )
        return self._read_basis.decode(Z)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean Hoyer sparsity of the rotated Jacobians.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), Segment or list of them
            Activations, preferably held out; or segments with held-out inputs.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        float
            Sparsity between 0 (all entries of equal magnitude) and 1. Samples whose Jacobian is
            zero are left out, with a warning.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere, or all Jacobians are
            zero.
        """
        rotated = self.rotated_segments(X)
        if len(rotated) == 1:
            return rotated[0].sparsity
        stack = pool([one.segment for one in rotated])
        stack = stack.transformed(rotated[0].left, rotated[0].right)
        return EffectiveJacobians.select(stack).sparsity(rotated[0].P, rotated[0].Q)

    def rotated_segments(self, X: Any) -> list[RotatedSegment]:
        """Return the segments that were fitted, on other inputs and in the fitted bases.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), Segment or list of them
            Activations, in a list for several blocks; or segments with other inputs.

        Returns
        -------
        list of RotatedSegment
            One segment, or one for every block.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere and `X` holds activations
            alone.
        """
        check_is_fitted(self)
        segments = read_segments(X)
        if segments is None:
            rng = np.random.RandomState(SCORE_SEED)
            segments = [
                NetworkSegment.draw(network, range(network.n_layers), x, rng)
                for network, x in zip(self._networks, self._batches(X, reset=False), strict=True)
            ]
        else:
            for segment in segments:
                self._read_activations(segment.activations, reset=False)
        return [self._rotate(segment) for segment in segments]

    @property
    def segment_layers(self) -> list[range]:
        """Layers of ``network_`` in each of the rotated segments."""
        networks = () if self.network_ is None else self._networks
        return [range(network.n_layers) for network in networks]

    @property
    def _read_basis(self) -> SiteBasis:
        return self._inner.basis(self.rotation_, self.n_features_in_)

    def _write_basis(self, n_outputs: int) -> SiteBasis:
        return self._outer.basis(self.output_rotation_, n_outputs)

    def _rotate(self, segment: Segment | Captured) -> RotatedSegment:
        coordinates = SegmentCoordinates(self._inner, self._outer)
        return RotatedSegment(
            segment,
            ("input", "input" if self.rotate_output == "tied" else "output"),
            self._read_basis,
            self._write_basis(segment.d_write),
            self.rotation_,
            self.output_rotation_,
            coordinates.left,
            coordinates.right,
        )

    def jacobians(self, X: ArrayLike) -> Array:
        """Compute the rotated Jacobians ``P J_i Qᵀ``, those of :meth:`rotated_network`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Activations, in the given basis.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs, n_components)
            Derivatives of the (rotated) outputs with respect to the rotated activations. For
            sequences and images, every position is a sample, and the shape is ``(n_samples,
            n_matrices, n_outputs, n_components)`` if it acts on several positions.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere.
        """
        check_is_fitted(self)
        batches = self._batches(X, reset=False)
        return np.concatenate(
            [
                self._rotate(NetworkSegment(network, range(network.n_layers), x, None)).jacobians
                for network, x in zip(self._networks, batches, strict=True)
            ]
        )

    def rotated_network(self) -> Network | tuple[Network, ...]:
        """Return the network in the new basis, with ``Q`` and ``P`` folded into its weights.

        ``rotated_network()(transform(X))`` equals ``network_(X) @ P.T``; with fewer components
        than features, the network is evaluated on the projected activations. In functional
        coordinates the outputs are ``network_(X) @ output_whitening_ @ P.T``, or the transformed
        outputs if they are tied.

        Returns
        -------
        Network or tuple of Network
            The network that reads ``Z = X Qᵀ``; one for each block if there are several.

        Raises
        ------
        ValueError
            If the estimator was fitted to Jacobians computed elsewhere.
        """
        check_is_fitted(self)
        rotated = []
        for network in self._networks:
            bases = {0: self._read_basis}
            weighted = isinstance(self._outer, FunctionalCoordinates)
            if self.output_rotation_ is not None or weighted:
                bases[network.n_layers] = self._write_basis(0)
            rotated.append(rotate_network(network, bases, given_inputs=False))
        return tuple(rotated) if isinstance(self.network_, tuple) else rotated[0]

    @property
    def _n_features_out(self) -> int:
        return len(self.rotation_)

    def _batches(self, X: Any, reset: bool) -> list[Array]:
        """Read the activations, in a list with one array unless there are several blocks."""
        if not are_batches(X):
            return [self._read_activations(X, reset)]
        return [self._read_activations(x, reset and index == 0) for index, x in enumerate(X)]

    @property
    def _networks(self) -> tuple[Network, ...]:
        if self.network_ is None:
            raise ValueError(
                "this estimator was fitted to Jacobians computed elsewhere and has no network to "
                "compute others; rotate your Jacobians with np.matmul(J, rotation_.T), and with "
                "output_rotation_ from the left, and score them with jacrot.criteria.hoyer."
            )
        return self.network_ if isinstance(self.network_, tuple) else (self.network_,)
