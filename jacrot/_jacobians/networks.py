"""The Jacobians of networks, computed for requested samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from jacrot._jacobians.base import Indices, Jacobians
from jacrot._jacobians.dense import Source, StackJacobians
from jacrot._jacobians.layer import LayerJacobians
from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot.layers import BaseLayer, Sequential
from jacrot.layers._base import Positions
from jacrot.network import Network
from jacrot.positions import to_rows

# Above this number of entries, single-precision weights have Jacobians in single precision.
SINGLE_PRECISION_ENTRIES = 2**27
# Maximum number of pairs of input and position if positions mix: each needs a separate pass.
MAX_PAIRS = 1024
# Limit for the entries of the tangents of one jvp through a network of positions.
TANGENT_ENTRIES = 2**22


class _RowSource:
    """Jacobians ``(n_samples, n_outputs, n_inputs)`` of a network of rows."""

    def __init__(self, network: Network, X: Array) -> None:
        self.network = network
        self.X = X
        # Two samples, in order to detect callables that mix samples.
        self.shape = (len(X), *network.jacobians(X[:2]).shape[1:])

    def __getitem__(self, samples: Any) -> Array:
        return self.network.jacobians(self.X[samples])


class _PositionColouring:
    """The positions of the inputs of a network, and the output positions that they influence.

    Attributes
    ----------
    shape : tuple of int
        ``(n_positions,)`` or ``(height, width)``.
    targets : ndarray of int of shape (n_positions, n_reached)
        Output positions that each position can change, padded with the number of output positions
        if there are fewer than the maximum, as at the border of an image.
    colours : ndarray of int of shape (n_positions,)
        Positions of one colour do not influence a common output position.
    """

    def __init__(self, network: Network, X: Array) -> None:
        self.layer = Sequential(network.layers)
        self.shape = X.shape[2:] if X.ndim == 4 else X.shape[1:2]
        outputs = self.layer(X[:1])
        n_positions = int(np.prod(self.shape))
        n_out = outputs[0].size // outputs.shape[FEATURES_AXIS[outputs.ndim]]
        reached = [self._reached(place, n_out) for place in range(n_positions)]
        self.targets = np.full((n_positions, max(map(len, reached))), n_out)
        self.colours = np.zeros(n_positions, np.intp)
        # Output positions that a position of each colour already influences.
        taken = np.zeros((1, n_out), bool)
        for place, targets in enumerate(reached):
            self.targets[place, : len(targets)] = targets
            free = ~taken[:, targets].any(axis=1)
            if not free.any():
                taken, free = np.vstack([taken, np.zeros((1, n_out), bool)]), np.append(free, True)
            self.colours[place] = np.argmax(free)
            taken[self.colours[place], targets] = True

    def _reached(self, place: int, n_out: int) -> Indices:
        mask: Positions = np.zeros(self.shape, bool)
        mask.flat[place] = True
        reached = self.layer.reach(mask)
        return np.arange(n_out) if reached is None else np.flatnonzero(reached)


class _PositionSource:
    """Jacobians with respect to the features at one position of a sequence or an image.

    A sample is a pair of an input and a position. Its matrices are the derivatives of the outputs
    at the positions that it influences, ``(n_pairs, n_reached, n_outputs, n_features)``, padded
    with zeros. Positions that do not influence a common output share a pass, as columns of a sparse
    Jacobian do in Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices", IMA
    Journal of Applied Mathematics 13 (1974).
    """

    def __init__(self, network: Network, X: Array, pairs: Indices) -> None:
        self.colouring = _PositionColouring(network, X)
        self.X = X
        self.inputs, self.places = np.divmod(pairs, len(self.colouring.targets))
        self.n_features = X.shape[FEATURES_AXIS[X.ndim]]
        self.shape = (len(pairs), *self[:1].shape[1:])

    def __getitem__(self, samples: Any) -> Array:
        inputs, places = self.inputs[samples], self.places[samples]
        # Positions of one colour in one input share a pass.
        passes, shared = np.unique(
            np.stack([inputs, self.colouring.colours[places]]), axis=1, return_inverse=True
        )
        shared = shared.reshape(-1)
        step = max(1, TANGENT_ENTRIES // (self.X[0].size * self.n_features))
        result: Array | None = None
        for start in range(0, passes.shape[1], step):
            chosen = np.flatnonzero((shared >= start) & (shared < start + step))
            X = self.X[passes[0, start : start + step]]
            part = self._derivatives(X, shared[chosen] - start, places[chosen])
            if result is None:
                result = np.empty((len(places), *part.shape[1:]), part.dtype)
            result[chosen] = part
        assert result is not None
        return result

    def _derivatives(self, x: Array, rows: Indices, places: Indices) -> Array:
        """Compute the derivatives with respect to the features of some positions by a jvp."""
        axis = FEATURES_AXIS[x.ndim]
        tangents = np.zeros((*x.shape, self.n_features), x.dtype)
        # Positions first, so that one index sets the identity at all positions.
        here = (rows, *np.unravel_index(places, self.colouring.shape))
        np.moveaxis(tangents, axis, -2)[here] = np.eye(self.n_features)
        _, pushed = self.colouring.layer.jvp(x, tangents)
        pushed = np.moveaxis(pushed, FEATURES_AXIS[pushed.ndim - 1], -2)
        pushed = pushed.reshape(len(x), -1, *pushed.shape[-2:])
        padded = np.concatenate([pushed, np.zeros_like(pushed[:, :1])], axis=1)
        return padded[rows[:, None], self.colouring.targets[places]]


class _ConcatenatedSource:
    """Several sources of the same shape, concatenated."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.starts = np.cumsum([0, *(source.shape[0] for source in sources)])
        self.shape = (int(self.starts[-1]), *sources[0].shape[1:])

    def __getitem__(self, samples: Any) -> Array:
        indices = np.arange(self.shape[0])[samples]
        stack: Array | None = None
        for source, (start, stop) in zip(self.sources, pairwise(self.starts), strict=True):
            chosen = np.flatnonzero((indices >= start) & (indices < stop))
            if chosen.size == 0:
                continue
            part = source[indices[chosen] - start]
            if stack is None:
                stack = np.empty((len(indices), *self.shape[1:]), part.dtype)
            stack[chosen] = part
        assert stack is not None
        return stack


def network_jacobians(network: Network, X: Array, pairs: Indices | None = None) -> Jacobians:
    """Build the stack of the Jacobians of a network, of the kind with the least work.

    One dense layer, or one convolution, is kept in factors. All other networks have a dense stack,
    which is stored if it fits scikit-learn's ``working_memory``, and otherwise computed again
    whenever a block is needed.

    Parameters
    ----------
    network : Network
        The network that follows the activations.
    X : ndarray of shape (n_inputs, n_features), or of sequences or images
        The activations.
    pairs : ndarray of int, default=None
        Pairs of input and position that are samples, ``input * n_positions + position``; ``None``
        for all.

    Returns
    -------
    Jacobians
        The stack, with a sample for every pair.
    """
    X, pairs = _rows_or_pairs(network, X, pairs)
    layer = network.layers[0]
    if network.n_layers == 1 and isinstance(layer, BaseLayer):
        factors = layer.jacobian_factors(X, pairs)
        if factors is not None:
            matrices, slopes = factors
            return LayerJacobians(matrices.astype(np.float64), slopes)
    return _stack(_source(network, X, pairs))


def draw_samples(network: Network, X: Array, rng: np.random.RandomState) -> Indices | None:
    """Draw pairs of input and position, if positions mix and there are too many pairs.

    Parameters
    ----------
    network : Network
        The network that follows the activations.
    X : ndarray
        The activations: rows, sequences or images.
    rng : numpy.random.RandomState
        Random number generator.

    Returns
    -------
    ndarray of int or None
        The pairs, in order; ``None`` for all.
    """
    n_pairs = X.size // X.shape[FEATURES_AXIS[X.ndim]]
    if X.ndim == 2 or n_pairs <= MAX_PAIRS or Sequential(network.layers).positionwise:
        return None
    # All positions that share a pass, since they cost no more than one of them.
    colours = _PositionColouring(network, X).colours
    n_colours = colours.max() + 1
    pairs: list[Indices] = []
    for drawn in rng.permutation(len(X) * n_colours):
        index, colour = divmod(drawn, n_colours)
        pairs.append(index * len(colours) + np.flatnonzero(colours == colour))
        if sum(map(len, pairs)) >= MAX_PAIRS:
            break
    return np.sort(np.concatenate(pairs)[:MAX_PAIRS])


def pool_jacobians(sources: Sequence[Source]) -> Jacobians:
    """Build one stack of the Jacobians of several segments, which share their rotations.

    Parameters
    ----------
    sources : sequence of Source
        Sources of the segments, with the same numbers of features and outputs.

    Returns
    -------
    Jacobians
        The stack, with the samples in the order of the segments.

    Raises
    ------
    ValueError
        If the Jacobians have different shapes.
    """
    shapes = sorted({source.shape[1:] for source in sources})
    if len(shapes) > 1:
        raise ValueError(
            f"the blocks have Jacobians of shapes {' and '.join(map(str, shapes))} (matrices, "
            "outputs, inputs); pass blocks with the same shapes to share a basis."
        )
    return _stack(_ConcatenatedSource(sources))


def jacobian_source(network: Network, X: Array, pairs: Indices | None) -> Source:
    """Return a source that computes the Jacobians of the samples by which it is indexed.

    Parameters
    ----------
    network : Network
        The network that follows the activations.
    X : ndarray
        The activations.
    pairs : ndarray of int or None
        Pairs of input and position that are samples, ``None`` for all.

    Returns
    -------
    Source
        Source of shape ``(n_samples[, n_positions_written], n_outputs, n_features)``.
    """
    return _source(network, *_rows_or_pairs(network, X, pairs))


def _rows_or_pairs(
    network: Network, X: Array, pairs: Indices | None
) -> tuple[Array, Indices | None]:
    """Return rows if positions do not mix, and otherwise the activations and the pairs."""
    X = X.astype(np.float64, copy=False)
    if X.ndim == 2:
        return X, None
    rows = to_rows(X)
    if Sequential(network.layers).positionwise:
        return rows if pairs is None else rows[pairs], None
    return X, np.arange(len(rows)) if pairs is None else pairs


def _source(network: Network, X: Array, pairs: Indices | None) -> _RowSource | _PositionSource:
    def source(X: Array) -> _RowSource | _PositionSource:
        return _RowSource(network, X) if pairs is None else _PositionSource(network, X, pairs)

    double = source(X)
    return source(X.astype(np.float32)) if _is_large(double) else double


def _stack(source: Source) -> Jacobians:
    stack = StackJacobians(source, dtype=np.float32 if _is_large(source) else np.float64)
    return stack.in_memory() if stack.fits_working_memory else stack


def _is_large(source: Source) -> bool:
    return float(np.prod(source.shape, dtype=float)) > SINGLE_PRECISION_ENTRIES
