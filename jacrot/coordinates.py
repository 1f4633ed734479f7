"""Functional coordinates: what activations do, not only which way they point.

The Jacobian says what a small change does, but not how much the input varies, nor whether anything
reads the output. With ``C = cov(X)`` and ``G = E[KᵀK]``, ``K`` the Jacobian of the centred logits
with respect to the outputs, the Jacobian in the coordinates ``C^-½ (x − mean)`` and ``G^½ y`` is
``G^½ J C^½``: its inputs are uncorrelated with variance 1, and a change of its outputs by one is a
change of the logits by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from jacrot._arrays import Array, Matrix
from jacrot._random import random_source
from jacrot.layers import Basis, Dense, Layer, Sequential
from jacrot.network import Network
from jacrot.network_jacobians import drawn_pairs, network_jacobians
from jacrot.positions import to_rows

# A direction with less than this share of the largest variance (or effect) has none that counts.
NULL_SHARE = 1e-10


@dataclass(frozen=True)
class Coordinates:
    """Invertible coordinates ``z = forward (a − mean)``.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Where they are zero.
    forward, backward : ndarray of shape (n_features, n_features)
        A symmetric matrix and its inverse. Null directions have the length of the threshold
        below which they are null: they are carried along, and hardly do anything.
    metric : ndarray of shape (n_features, n_features)
        The root of the second moment: what ``backward`` or ``forward`` is, but 0 in null
        directions, so that they count for nothing in the search.
    """

    mean: Matrix
    forward: Matrix
    backward: Matrix
    metric: Matrix

    @classmethod
    def whitening(cls, X: Array, basis: Matrix | None = None) -> Self:
        """Make ``C^-½ (x − mean)`` from activations at all their positions.

        Parameters
        ----------
        X : ndarray
            Rows, sequences or images.
        basis : ndarray of shape (n_basis, n_features), default=None
            Orthonormal rows: the directions that have an effect, inside which the activations are
            whitened; others keep their length. ``None`` for all.

        Returns
        -------
        Coordinates
            In which the activations are uncorrelated with variance 1.

        Raises
        ------
        ValueError
            If they do not vary.
        """
        rows = to_rows(X).astype(np.float64, copy=False)
        mean = rows.mean(axis=0)
        inside = np.eye(rows.shape[1]) if basis is None else basis
        centred = (rows - mean) @ inside.T
        covariance = centred.T @ centred / len(rows)
        if not np.trace(covariance) > 0:
            raise ValueError(
                f"X has {len(rows)} rows that are all equal, so that there is nothing to whiten; "
                "write more samples."
            )
        metric, root, inverse = (inside.T @ part @ inside for part in _roots(covariance))
        rest = np.eye(len(metric)) - inside.T @ inside
        return cls(mean, inverse + rest, root + rest, metric)

    @classmethod
    def weighing(cls, readout: Matrix) -> Self:
        """Make ``G^½ y``, in which what is read of the outputs is the same along every axis.

        Parameters
        ----------
        readout : ndarray of shape (n_outputs, n_outputs)
            ``G``.

        Returns
        -------
        Coordinates
            Around zero.
        """
        metric, root, inverse = _roots(readout)
        return cls(np.zeros(len(readout)), root, inverse, metric)


@dataclass(frozen=True)
class SiteBasis:
    """Coordinates ``z = encoder (a − mean)`` of the activations at a site.

    Attributes
    ----------
    encoder : ndarray of shape (n_axes, n_features)
        What each axis reads.
    decoder : ndarray of shape (n_features, n_axes)
        What each axis writes: the inverse, at least for directions that have an effect.
    """

    encoder: Matrix
    decoder: Matrix

    @classmethod
    def orthogonal(cls, axes: Matrix) -> SiteBasis:
        """Make the basis of orthonormal rows."""
        return cls(axes, axes.T)

    @classmethod
    def of(cls, axes: Matrix | None, coordinates: Coordinates | None, size: int) -> SiteBasis:
        """Make the basis of a rotation in some coordinates; ``None`` is the identity."""
        axes = np.eye(size) if axes is None else axes
        if coordinates is None:
            return cls.orthogonal(axes)
        return cls(axes @ coordinates.forward, coordinates.backward @ axes.T)


def after(network: Network, site: int) -> Network | None:
    """Take what reads a site of a network.

    Parameters
    ----------
    network : Network
        The whole network.
    site : int
        What layer `site` reads.

    Returns
    -------
    Network or None
        From there on to the logits; ``None`` for the logits themselves.
    """
    return network[site:] if site < network.n_layers else None


def readout_moment(readout: Network | None, Y: Array) -> Matrix:
    """Compute how much what reads some outputs depends on them, ``G = E[KᵀK]``.

    ``K`` is the Jacobian of the logits with their mean taken out: a shift of all of them changes no
    probability.

    Parameters
    ----------
    readout : Network or None
        From the outputs on to the logits; ``None`` where the outputs are the logits.
    Y : ndarray
        The outputs: rows, sequences or images.

    Returns
    -------
    ndarray of shape (n_outputs, n_outputs)
        The second moment.
    """
    if readout is None:
        return centring(Y.shape[1])
    pairs = drawn_pairs(readout, Y, random_source(0))
    n_logits = readout(Y[:1]).shape[1]
    centred = readout.writing(centring(n_logits))
    stack = network_jacobians(centred, Y, pairs)
    moment, _ = stack.moments()
    return moment


def centring(size: int) -> Matrix:
    """Build the matrix that takes the mean out of logits, ``I − 11ᵀ/n``.

    Parameters
    ----------
    size : int
        ``n``. A single logit is left as it is: the other class has a logit of zero.

    Returns
    -------
    ndarray of shape (n, n)
        The projection.
    """
    return np.eye(size) - (1 / size if size > 1 else 0)


def read_by(layer: Layer, decoder: Matrix, mean: Matrix) -> Layer:
    """Make the layer that reads ``z`` in the place of ``x = decoder z + mean``.

    Parameters
    ----------
    layer : Layer
        What reads ``x``.
    decoder : ndarray of shape (n_inputs, n_axes)
        Any matrix.
    mean : ndarray of shape (n_inputs,)
        Offset.

    Returns
    -------
    Layer
        The same function of ``z``.
    """
    if isinstance(layer, Dense):
        return layer.reading(decoder.T).changed(bias=layer.bias + layer.weight @ mean)
    return Sequential([Basis(decoder, mean), layer])


def written_by(layer: Layer, encoder: Matrix, mean: Matrix) -> Layer:
    """Make the layer that writes ``encoder (y − mean)`` in the place of ``y``.

    Parameters
    ----------
    layer : Layer
        What writes ``y``.
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
        return layer.writing(encoder)
    return Sequential([layer, Basis(encoder, -encoder @ mean)])


def _roots(moment: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Compute ``M^½`` with zeros in null directions, the same without, and its inverse."""
    eigenvalues, vectors = np.linalg.eigh(moment)
    threshold = NULL_SHARE * eigenvalues[-1]
    roots = np.sqrt(np.where(eigenvalues > threshold, eigenvalues, 0))
    lengths = np.sqrt(np.maximum(eigenvalues, threshold))
    metric, root, inverse = (
        (vectors * scale) @ vectors.T for scale in (roots, lengths, 1 / lengths)
    )
    return metric, root, inverse
