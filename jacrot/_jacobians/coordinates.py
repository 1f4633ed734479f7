"""Functional coordinates, in which inputs are whitened and outputs weighted by their readout.

The Jacobian describes the effect of a small change, but not how much the input varies, nor whether
the logits depend on the output. With ``C = cov(X)`` and ``G = E[KᵀK]``, where ``K`` is the Jacobian
of the centred logits with respect to the outputs, the Jacobian in the coordinates ``C^-½ (x −
mean)`` and ``G^½ y`` is ``G^½ J C^½``: its inputs are uncorrelated with variance 1, and a change of
its outputs by one is a change of the logits by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Self

import numpy as np

from jacrot._jacobians.networks import draw_samples, network_jacobians
from jacrot._utils.arrays import Array, Matrix, power_of_two_scale
from jacrot._utils.random import resolve_random_state
from jacrot._utils.warnings import warn
from jacrot.layers import Basis, Dense, Layer, Sequential
from jacrot.network import Network
from jacrot.positions import at_positions, to_rows

# Directions with less than this share of the largest variance (or effect) are null directions.
NULL_SHARE = 1e-10
# Activations that vary by less than this share of their size are constant up to rounding.
ROUNDING = 1e-14


class Coordinates(ABC):
    """Coordinates in which the activations at a site are rotated."""

    @property
    @abstractmethod
    def factor(self) -> Matrix | None:
        """Factor of the Jacobians before the rotation, ``None`` for the identity."""

    @abstractmethod
    def basis(self, rotation: Matrix | None, size: int) -> SiteBasis:
        """Return the basis of a rotation in these coordinates.

        Parameters
        ----------
        rotation : ndarray of shape (n_axes, n_features) or None
            Orthonormal rows; ``None`` for the identity.
        size : int
            Number of features.

        Returns
        -------
        SiteBasis
            The basis.
        """


@dataclass(frozen=True)
class NeuronCoordinates(Coordinates):
    """The activations themselves."""

    @property
    def factor(self) -> None:
        """The identity."""
        return None

    def basis(self, rotation: Matrix | None, size: int) -> SiteBasis:
        """Return the basis of orthonormal rows, around zero."""
        return SiteBasis.from_axes(np.eye(size) if rotation is None else rotation)


@dataclass(frozen=True)
class FunctionalCoordinates(Coordinates):
    """Invertible coordinates ``z = forward (a − mean)``.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Activations whose coordinates are zero.
    forward, backward : ndarray of shape (n_features, n_features)
        A symmetric matrix and its inverse. Null directions have a positive length, so that the
        inverse exists: for activations, the standard deviation expected for other inputs; for a
        readout, the threshold below which directions are null.
    metric : ndarray of shape (n_features, n_features)
        Square root of the second moment, equal to ``backward`` or ``forward`` except for null
        directions, where it is 0, so that the search ignores them.
    """

    mean: Matrix
    forward: Matrix
    backward: Matrix
    metric: Matrix

    @property
    def factor(self) -> Matrix:
        """The metric, which is zero in null directions."""
        return self.metric

    def basis(self, rotation: Matrix | None, size: int) -> SiteBasis:
        """Return the basis of a rotation in these coordinates."""
        if rotation is None:
            return SiteBasis(self.forward, self.backward, self.mean)
        encoder, decoder = rotation @ self.forward, self.backward @ rotation.T
        return SiteBasis(encoder, decoder, self.mean)

    @classmethod
    def from_activations(
        cls, X: Array, basis: Matrix | None = None, n_components: int | float | None = None
    ) -> Self:
        """Compute ``C^-½ (x − mean)`` from activations at all their positions.

        The samples do not show the variance of directions outside their span. Dividing by the
        rounding error there would amplify other inputs. With fewer rows than features, the standard
        deviation of every direction is therefore bounded from below by that expected of a new row
        in an unseen direction, estimated by leaving out one row at a time. In a direction that many
        rows do not have (a dead unit), it is the standard deviation after adding one row of average
        length.

        Parameters
        ----------
        X : ndarray
            Rows, sequences or images.
        basis : ndarray of shape (n_basis, n_features), default=None
            Orthonormal rows, the directions with an effect, inside which the activations are
            whitened; other directions keep their length. ``None`` for all directions.
        n_components : int, float or None, default=None
            Number of axes, or share of the effect, that is kept; ``None`` for all.

        Returns
        -------
        FunctionalCoordinates
            Coordinates in which the activations are uncorrelated with variance 1.

        Raises
        ------
        ValueError
            If the activations do not vary.

        Warns
        -----
        UserWarning
            If the rank of the covariance is limited by the number of rows, and below the number
            of axes.
        """
        rows = to_rows(X).astype(np.float64, copy=False)
        mean = rows.mean(axis=0)
        inside = np.eye(rows.shape[1]) if basis is None else basis
        centred = (rows - mean) @ inside.T
        if not np.abs(centred).max() > ROUNDING * np.abs(rows).max():
            raise ValueError(
                f"X has {len(rows)} rows that are all equal, so that there is nothing to whiten; "
                "pass more samples."
            )
        size = power_of_two_scale(centred)
        centred /= size
        eigenvalues, vectors, rank = _spectrum(centred.T @ centred / len(rows))
        lengths = np.sqrt(np.maximum(eigenvalues, 0))
        metric = np.where(np.arange(len(lengths)) < rank, lengths, 0)
        if rank < len(lengths):
            unseen = _unseen_variance(centred, rank)
            if unseen is not None:
                lengths = np.maximum(lengths, np.sqrt(unseen))
                if n_components is None or (
                    isinstance(n_components, Integral) and n_components > rank
                ):
                    _warn_about_rank(len(rows), rank, len(lengths))
            one_more_row = np.sqrt(eigenvalues[:rank].sum() / len(lengths) / (len(rows) + 1))
            lengths[rank:] = np.maximum(lengths[rank:], one_more_row)
        axes = vectors.T @ inside
        rest = np.eye(rows.shape[1]) - inside.T @ inside
        forward, backward, metric = (
            (axes.T * scale) @ axes
            for scale in (1 / (size * lengths), size * lengths, size * metric)
        )
        return cls(mean, forward + rest, backward + rest, metric)

    @classmethod
    def from_readout(cls, readout: Matrix) -> Self:
        """Compute ``G^½ y``, in which all axes have the same effect on the logits.

        Parameters
        ----------
        readout : ndarray of shape (n_outputs, n_outputs)
            ``G``.

        Returns
        -------
        FunctionalCoordinates
            Coordinates around zero.
        """
        size = power_of_two_scale(readout)
        eigenvalues, vectors, rank = _spectrum(readout / size)
        lengths = np.sqrt(np.maximum(eigenvalues, NULL_SHARE * eigenvalues[0]) * size)
        metric = np.where(np.arange(len(lengths)) < rank, lengths, 0)
        root, inverse, metric = (
            (vectors * scale) @ vectors.T for scale in (lengths, 1 / lengths, metric)
        )
        return cls(np.zeros(len(readout)), root, inverse, metric)


@dataclass(frozen=True)
class SiteBasis:
    """A basis of the activations at a site: ``z = encoder (a − mean)``.

    Attributes
    ----------
    encoder : ndarray of shape (n_axes, n_features)
        Directions that the axes read.
    decoder : ndarray of shape (n_features, n_axes)
        Directions that the axes write: the inverse, at least for directions with an effect.
    mean : ndarray of shape (n_features,)
        Activations whose coordinates are zero.
    """

    encoder: Matrix
    decoder: Matrix
    mean: Matrix

    @classmethod
    def from_axes(cls, axes: Matrix) -> SiteBasis:
        """Build the basis of orthonormal rows, around zero."""
        return cls(axes, axes.T, np.zeros(axes.shape[1]))

    @property
    def is_identity(self) -> bool:
        """Whether the axes are the neurons."""
        size = len(self.encoder)
        return self.encoder.shape == (size, size) and np.array_equal(self.encoder, np.eye(size))

    def encode(self, activations: Array) -> Array:
        """Compute ``encoder (a − mean)`` at all positions, in the precision of the activations.

        Parameters
        ----------
        activations : ndarray
            Rows, sequences or images.

        Returns
        -------
        ndarray
            In the new basis.
        """
        if self.mean.any():
            Z = at_positions(lambda rows: (rows - self.mean) @ self.encoder.T, activations)
            return Z.astype(activations.dtype, copy=False)
        encoder = self.encoder.astype(activations.dtype, copy=False)
        return at_positions(lambda rows: rows @ encoder.T, activations)

    def decode(self, Z: Array) -> Array:
        """Compute ``decoder z + mean`` at all positions, in the precision of the activations.

        Parameters
        ----------
        Z : ndarray
            Activations in the new basis: rows, sequences or images.

        Returns
        -------
        ndarray
            In the given basis.
        """
        if self.mean.any():
            activations = at_positions(lambda rows: rows @ self.decoder.T + self.mean, Z)
            return activations.astype(Z.dtype, copy=False)
        decoder = self.decoder.astype(Z.dtype, copy=False)
        return at_positions(lambda rows: rows @ decoder.T, Z)


def network_after(network: Network, site: int) -> Network | None:
    """Return the layers that follow a site of a network.

    Parameters
    ----------
    network : Network
        The whole network.
    site : int
        The site, the input of layer `site`.

    Returns
    -------
    Network or None
        The network from the site to the logits; ``None`` for the logits themselves.
    """
    return network[site:] if site < network.n_layers else None


def readout_moment(readout: Network | None, Y: Array) -> Matrix:
    """Compute the effect of outputs on the logits, ``G = E[KᵀK]``.

    ``K`` is the Jacobian of the centred logits, since a shift of all logits changes no probability.

    Parameters
    ----------
    readout : Network or None
        Network from the outputs to the logits; ``None`` if the outputs are the logits.
    Y : ndarray
        The outputs: rows, sequences or images.

    Returns
    -------
    ndarray of shape (n_outputs, n_outputs)
        The second moment.

    Raises
    ------
    ValueError
        If the second moment is zero.
    """
    if readout is None:
        # A single logit is compared with 0, not with other logits.
        return centring(Y.shape[1]) if Y.shape[1] > 1 else np.eye(1)
    pairs = draw_samples(readout, Y, resolve_random_state(0))
    n_logits = readout(Y[:1]).shape[1]
    centred = readout.rotate_outputs(centring(n_logits))
    stack = network_jacobians(centred, Y, pairs)
    moment, _ = stack.moments()
    if not moment.any():
        raise ValueError(
            "the readout does not depend on its inputs (dead units, or zero weights), so that "
            "functional coordinates are not defined; pass another readout, or "
            "coordinates='neurons'."
        )
    return moment


def centring(size: int) -> Matrix:
    """Build the matrix that subtracts the mean of logits, ``I − 11ᵀ/n``.

    Parameters
    ----------
    size : int
        ``n``. A single logit is not changed: the logit of the other class is zero.

    Returns
    -------
    ndarray of shape (n, n)
        The projection.
    """
    return np.eye(size) - (1 / size if size > 1 else 0)


def fold_decoder(layer: Layer, decoder: Matrix, mean: Matrix) -> Layer:
    """Build the layer with input ``z`` instead of ``x = decoder z + mean``.

    Parameters
    ----------
    layer : Layer
        Layer with input ``x``.
    decoder : ndarray of shape (n_inputs, n_axes)
        Any matrix.
    mean : ndarray of shape (n_inputs,)
        Offset.

    Returns
    -------
    Layer
        The same function of ``z``.
    """
    if not mean.any():
        return layer.rotate_inputs(decoder.T)
    if type(layer) is Dense:
        return layer.rotate_inputs(decoder.T).changed(bias=layer.bias + layer.weight @ mean)
    return Sequential([Basis(decoder, mean), layer])


def fold_encoder(layer: Layer, encoder: Matrix, mean: Matrix) -> Layer:
    """Build the layer with output ``encoder (y − mean)`` instead of ``y``.

    Parameters
    ----------
    layer : Layer
        Layer with output ``y``.
    encoder : ndarray of shape (n_axes, n_outputs)
        Any matrix.
    mean : ndarray of shape (n_outputs,)
        Origin.

    Returns
    -------
    Layer
        The same function in other coordinates.
    """
    if not mean.any():
        return layer.rotate_outputs(encoder)
    return Sequential([layer, Basis(encoder, -encoder @ mean)])


def rotate_network(
    network: Network, bases: Mapping[int, SiteBasis], *, given_inputs: bool
) -> Network:
    """Return the same function with its activations in other bases.

    Parameters
    ----------
    network : Network
        The network.
    bases : mapping of int to SiteBasis
        Bases by site, the input of layer ``site``; ``n_layers`` is the output of the network.
    given_inputs : bool
        Whether the inputs stay in the given basis, so that a first layer changes the basis of
        site 0; otherwise the inputs are in the new basis.

    Returns
    -------
    Network
        The network, with every basis folded into the layers before and after its site.
    """
    layers = list(network.layers)
    inputs: list[Layer] = []
    for site, basis in bases.items():
        if site < network.n_layers:
            layers[site] = fold_decoder(layers[site], basis.decoder, basis.mean)
        if site > 0:
            layers[site - 1] = fold_encoder(layers[site - 1], basis.encoder, basis.mean)
        elif given_inputs:
            offset = -basis.encoder @ basis.mean if basis.mean.any() else None
            inputs = [Basis(basis.encoder, offset)]
    # An additional first layer shifts the sites of the others.
    sites = (site + len(inputs) for site in {*network.rotated_sites, *bases})
    return Network._with_rotated_sites([*inputs, *layers], sites)


def _spectrum(moment: Matrix) -> tuple[Matrix, Matrix, int]:
    """Compute decreasing eigenvalues, eigenvectors as columns, and the numerical rank."""
    eigenvalues, vectors = np.linalg.eigh(moment)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    return eigenvalues, vectors, int(np.count_nonzero(eigenvalues > NULL_SHARE * eigenvalues[0]))


def _unseen_variance(centred: Matrix, rank: int) -> float | None:
    """Estimate the variance of new rows along a direction outside the span of these rows.

    Every row is left out in turn, and its squared distance from the span of the other rows is
    divided by the number of directions outside. With ``centred = U S Vᵀ`` the distance is
    ``(Σ_k U_ik²/S_k²)^-½``.

    Returns ``None`` unless every distinct row adds a direction, that is, unless the number of
    distinct rows limits the rank.
    """
    rows = _distinct_rows(centred, rank + 1)
    if len(rows) != rank + 1:
        return None
    left, singular, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    distances = 1 / ((left[:, :rank] / singular[:rank]) ** 2).sum(axis=1)
    return float(distances.mean()) / (rows.shape[1] - rank + 1)


def _distinct_rows(rows: Matrix, enough: int) -> Matrix:
    """Return distinct rows; not necessarily all of them if there are more than enough."""
    # In most cases a few rows are sufficient.
    for some in (rows[: 4 * enough], rows):
        distinct = np.unique(some, axis=0)
        if len(distinct) > enough:
            break
    return distinct


def _warn_about_rank(n_rows: int, rank: int, n_features: int) -> None:
    warn(
        f"the covariance of the activations has rank {rank} of {n_features}, because there are "
        f"only {n_rows} rows: in the other directions, and in those that vary least, the new "
        f"coordinates of other inputs are guesses; pass more samples, several times "
        f"{n_features}, or n_components of at most {rank}."
    )
