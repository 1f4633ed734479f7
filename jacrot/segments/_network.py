"""Segments of a Network: consecutive layers, on given inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from jacrot._jacobians.base import Indices, Jacobians, n_samples_in_working_memory
from jacrot._jacobians.coordinates import network_after, readout_moment
from jacrot._jacobians.dense import Source
from jacrot._jacobians.networks import (
    draw_samples,
    jacobian_source,
    network_jacobians,
    pool_jacobians,
)
from jacrot._utils.arrays import FEATURES_AXIS, Array, Matrix
from jacrot._utils.random import resolve_random_state
from jacrot.network import Network
from jacrot.positions import to_rows
from jacrot.segments._captured import Captured
from jacrot.segments._null_weights import change_weights, shuffle
from jacrot.segments._segment import Segment


class NetworkSegment(Segment):
    """Consecutive layers of a network; see :meth:`jacrot.Network.segment`.

    Parameters
    ----------
    network : Network
        The whole network, up to the logits.
    layers : range
        The layers.
    activations : ndarray
        Input of the first of these layers.
    samples : ndarray of int or None
        Pairs of input and position that are samples, as ``input * n_positions + position``;
        ``None`` for all pairs.

    Attributes
    ----------
    computation : Network
        The layers of the segment.
    written : ndarray
        Output of the last of these layers.

    Examples
    --------
    >>> from jacrot.datasets import load_digits_mlp
    >>> digits = load_digits_mlp()
    >>> segment = digits.network.segment(slice(1, 3), digits.X[:100])
    >>> segment.read, segment.write, segment.computation
    ('site 1', 'site 3', Network(64 → 64 → 10; relu, identity))
    >>> segment.forward(2 * segment.activations).shape
    (100, 10)
    """

    def __init__(
        self, network: Network, layers: range, activations: Array, samples: Indices | None
    ) -> None:
        self.network = network
        self.layers = layers
        self.samples = samples
        self.computation = network[layers.start : layers.stop]
        self._activations = activations

    @classmethod
    def draw(
        cls, network: Network, layers: range, activations: Array, rng: np.random.RandomState
    ) -> Self:
        """Create a segment, and draw its samples if positions mix and there are too many pairs.

        Parameters
        ----------
        network : Network
            The whole network.
        layers : range
            The layers.
        activations : ndarray
            Input of the first of these layers.
        rng : numpy.random.RandomState
            Random number generator.

        Returns
        -------
        NetworkSegment
            The segment.
        """
        computation = network[layers.start : layers.stop]
        return cls(network, layers, activations, draw_samples(computation, activations, rng))

    @property
    def read(self) -> str:
        return f"site {self.layers.start}"

    @property
    def write(self) -> str:
        return f"site {self.layers.stop}"

    @property
    def activations(self) -> Array:
        return self._activations

    @cached_property
    def written(self) -> Array:
        """Output of the last layer."""
        return self.forward(self.activations)

    @property
    def X(self) -> Array:
        rows = to_rows(self.activations)
        return rows if self.samples is None else rows[self.samples]

    @cached_property
    def d_write(self) -> int:
        outputs = self.forward(self.activations[:1])
        return outputs.shape[FEATURES_AXIS[outputs.ndim]]

    @cached_property
    def stack(self) -> Jacobians:
        return network_jacobians(self.computation, self.activations, self.samples)

    @property
    def jacobian_source(self) -> Source:
        return jacobian_source(self.computation, self.activations, self.samples)

    @property
    def jacobians(self) -> Any:
        source = self.jacobian_source
        n_entries = int(np.prod(source.shape[1:]))
        fits = source.shape[0] <= n_samples_in_working_memory(n_entries, np.float64)
        return source[:] if fits else source

    @cached_property
    def readout(self) -> Matrix:
        return readout_moment(network_after(self.network, self.layers.stop), self.written)

    @cached_property
    def reference_logits(self) -> Array:
        return self.logits_from(self.written)

    def forward(self, activations: Array) -> Array:
        return self.computation(activations)

    def logits_from(self, written: Array) -> Array:
        rest = network_after(self.network, self.layers.stop)
        return written if rest is None else rest(written)

    def shuffled(self, random_state: int | np.random.RandomState | None = None) -> Self:
        null = change_weights(self.computation, shuffle, resolve_random_state(random_state))
        layers = list(self.network.layers)
        layers[self.layers.start : self.layers.stop] = null.layers
        return type(self)(Network(layers), self.layers, self.activations, self.samples)


def pool(segments: Sequence[Segment | Captured]) -> Jacobians:
    """Build one stack of the Jacobians of segments that share their rotations.

    Parameters
    ----------
    segments : sequence of (Segment or Captured)
        One or more segments with the same numbers of features and outputs.

    Returns
    -------
    Jacobians
        The samples of all segments, in order.

    Raises
    ------
    ValueError
        If the Jacobians have different shapes.
    """
    if len(segments) == 1:
        return segments[0].stack
    return pool_jacobians([segment.jacobian_source for segment in segments])


def network_segments(
    network: Network, X: Array, rng: np.random.RandomState
) -> list[NetworkSegment]:
    """Return a segment for every layer of a network.

    Parameters
    ----------
    network : Network
        The network.
    X : ndarray
        Inputs of the network.
    rng : numpy.random.RandomState
        Random number generator for the samples.

    Returns
    -------
    list of NetworkSegment
        The segments, in order.
    """
    segments = []
    for number in range(network.n_layers):
        segment = NetworkSegment.draw(network, range(number, number + 1), X, rng)
        segments.append(segment)
        X = segment.written
    return segments
