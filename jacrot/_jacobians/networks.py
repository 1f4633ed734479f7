"""The Jacobians of networks, made for the samples that are asked for."""

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

# Above so many entries, Jacobians of single-precision weights are computed in single precision.
SINGLE_PRECISION_ENTRIES = 2**27
# Pairs of input and position at most, where positions mix: each takes a pass of its own.
MAX_PAIRS = 1024
# Entries of the tangents that are pushed through a network of positions at once.
PUSHED_ENTRIES = 2**22


class _AtRows:
    """Jacobians ``(n_samples, n_outputs, n_inputs)`` of a network that reads rows."""

    def __init__(self, network: Network, X: Array) -> None:
        self.network = network
        self.X = X
        # Two samples: with one, a callable that mixes samples would not be found out.
        self.shape = (len(X), *network.jacobians(X[:2]).shape[1:])

    def __getitem__(self, samples: Any) -> Array:
        return self.network.jacobians(self.X[samples])


class _Grid:
    """The positions of the inputs of a network, and what each of them reaches.

    Attributes
    ----------
    shape : tuple of int
        ``(n_positions,)`` or ``(height, width)``.
    targets : ndarray of int of shape (n_positions, n_reached)
        The output positions that each can change; where it changes fewer than the most, as at the
        border of an image, the number of output positions follows.
    colours : ndarray of int of shape (n_positions,)
        Positions of one colour reach nothing in common.
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
        # Output positions that some position of a colour reaches already.
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


class _AtPositions:
    """Jacobians with respect to the features at one position of a sequence or an image.

    A sample is a pair of an input and a position; its matrices are the derivatives of the outputs
    at the positions that it can reach, ``(n_pairs, n_reached, n_outputs, n_features)``, with zeros
    after the last. Positions that reach nothing in common share a pass, as the columns of a sparse
    Jacobian do in Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices", IMA
    Journal of Applied Mathematics 13 (1974).
    """

    def __init__(self, network: Network, X: Array, pairs: Indices) -> None:
        self.grid = _Grid(network, X)
        self.X = X
        self.inputs, self.places = np.divmod(pairs, len(self.grid.targets))
        self.n_features = X.shape[FEATURES_AXIS[X.ndim]]
        self.shape = (len(pairs), *self[:1].shape[1:])

    def __getitem__(self, samples: Any) -> Array:
        inputs, places = self.inputs[samples], self.places[samples]
        # What shares a pass: positions of one colour in one input.
        passes, shared = np.unique(
            np.stack([inputs, self.grid.colours[places]]), axis=1, return_inverse=True
        )
        shared = shared.reshape(-1)
        step = max(1, PUSHED_ENTRIES // (self.X[0].size * self.n_features))
        result: Array | None = None
        for start in range(0, passes.shape[1], step):
            chosen = np.flatnonzero((shared >= start) & (shared < start + step))
            X = self.X[passes[0, start : start + step]]
            part = self._pushed(X, shared[chosen] - start, places[chosen])
            if result is None:
                result = np.empty((len(places), *part.shape[1:]), part.dtype)
            result[chosen] = part
        assert result is not None
        return result

    def _pushed(self, x: Array, rows: Indices, places: Indices) -> Array:
        """Push the features of some positions, each of one of the inputs."""
        axis = FEATURES_AXIS[x.ndim]
        tangents = np.zeros((*x.shape, self.n_features), x.dtype)
        # Positions first, so that one index sets the identity at all of them.
        here = (rows, *np.unravel_index(places, self.grid.shape))
        np.moveaxis(tangents, axis, -2)[here] = np.eye(self.n_features)
        _, pushed = self.grid.layer.jvp(x, tangents)
        pushed = np.moveaxis(pushed, FEATURES_AXIS[pushed.ndim - 1], -2)
        pushed = pushed.reshape(len(x), -1, *pushed.shape[-2:])
        padded = np.concatenate([pushed, np.zeros_like(pushed[:, :1])], axis=1)
        return padded[rows[:, None], self.grid.targets[places]]


class _OneAfterTheOther:
    """Several sources of one shape, as one."""

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
    """Make the stack of a network's Jacobians that does the least work.

    One dense layer, or one convolution, stays in its factors. Anything else is a dense stack:
    stored when it fits scikit-learn's ``working_memory``, else recomputed whenever a block of it
    is needed.

    Parameters
    ----------
    network : Network
        What follows the activations.
    X : ndarray of shape (n_inputs, n_features), or of sequences or images
        The activations.
    pairs : ndarray of int, default=None
        Which pairs of input and position are samples, ``input * n_positions + position``; ``None``
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
    """Draw pairs of input and position, where positions mix and there are too many for all.

    Parameters
    ----------
    network : Network
        What follows the activations.
    X : ndarray
        The activations: rows, sequences or images.
    rng : numpy.random.RandomState
        Draws them.

    Returns
    -------
    ndarray of int or None
        The pairs, in order; ``None`` for all.
    """
    n_pairs = X.size // X.shape[FEATURES_AXIS[X.ndim]]
    if X.ndim == 2 or n_pairs <= MAX_PAIRS or Sequential(network.layers).positionwise:
        return None
    # Whole passes: they cost as much with one position as with all that share one.
    colours = _Grid(network, X).colours
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
        Those of each segment, of as many features and outputs.

    Returns
    -------
    Jacobians
        The stack, the samples of one segment after those of another.

    Raises
    ------
    ValueError
        If their Jacobians have different shapes.
    """
    shapes = sorted({source.shape[1:] for source in sources})
    if len(shapes) > 1:
        raise ValueError(
            f"the blocks have Jacobians of shapes {' and '.join(map(str, shapes))} (matrices, "
            "outputs, inputs); blocks that share a basis need as many of each."
        )
    return _stack(_OneAfterTheOther(sources))


def jacobian_source(network: Network, X: Array, pairs: Indices | None) -> Source:
    """Return what computes the Jacobians of the samples for which it is indexed.

    Parameters
    ----------
    network : Network
        What follows the activations.
    X : ndarray
        The activations.
    pairs : ndarray of int or None
        Which pairs of input and position are samples, ``None`` for all.

    Returns
    -------
    Source
        Of shape ``(n_samples[, n_positions_written], n_outputs, n_features)``.
    """
    return _source(network, *_rows_or_pairs(network, X, pairs))


def _rows_or_pairs(
    network: Network, X: Array, pairs: Indices | None
) -> tuple[Array, Indices | None]:
    """Return rows where positions do not mix; else the activations, and the pairs to take."""
    X = X.astype(np.float64, copy=False)
    if X.ndim == 2:
        return X, None
    rows = to_rows(X)
    if Sequential(network.layers).positionwise:
        return rows if pairs is None else rows[pairs], None
    return X, np.arange(len(rows)) if pairs is None else pairs


def _source(network: Network, X: Array, pairs: Indices | None) -> _AtRows | _AtPositions:
    def source(X: Array) -> _AtRows | _AtPositions:
        return _AtRows(network, X) if pairs is None else _AtPositions(network, X, pairs)

    double = source(X)
    return source(X.astype(np.float32)) if _is_large(double) else double


def _stack(source: Source) -> Jacobians:
    stack = StackJacobians(source, dtype=np.float32 if _is_large(source) else np.float64)
    return stack.in_memory() if stack.fits_working_memory else stack


def _is_large(source: Source) -> bool:
    return float(np.prod(source.shape, dtype=float)) > SINGLE_PRECISION_ENTRIES
