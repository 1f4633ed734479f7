"""Metrics of the outputs of a network, on given inputs and on resamples of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils import _safe_indexing

from jacrot._utils.arrays import Array, Matrix, any_array
from jacrot.inspection._fitted import check_count
from jacrot.layers import Activation, Dense, Layer, Softmax
from jacrot.network import Network

Rows = NDArray[np.intp]

NAMES = ("accuracy", "cross_entropy", "kl")
# Number of row indices of resamples that are drawn at a time: 8 MB.
DRAWN_AT_ONCE = 2**20
# Tolerance for the sum of a row of probabilities, in single precision.
SUM_TOL = 1e-5


class Metric(Protocol):
    """A metric of the logits of all inputs, and of every resample."""

    name: str
    greater_is_better: bool
    # Whether the result of `prepared` is small enough to be stored.
    keeps: bool

    def prepared(self, logits: Array) -> Array:
        """Compute the part that does not depend on the resample."""
        ...

    def value(self, prepared: Array) -> float:
        """Compute the metric on all inputs."""
        ...

    def resampled(self, prepared: Array, rows: Rows) -> Matrix:
        """Compute the metric on every resample, one for each row of `rows`."""
        ...


class _Mean:
    """The mean over inputs of one number for each input."""

    keeps = True

    def __init__(self, name: str, per_input: Callable[[Array], Array]) -> None:
        self.name = name
        self.greater_is_better = name == "accuracy"
        self.prepared = per_input

    def value(self, prepared: Array) -> float:
        return float(prepared.mean())

    def resampled(self, prepared: Array, rows: Rows) -> Matrix:
        return np.asarray(prepared[rows].mean(axis=1))


class _UserMetric:
    """A user's function ``metric(outputs, y)``; `last` maps logits to the outputs."""

    greater_is_better = True
    keeps = False

    def __init__(self, function: Callable[[Array, Any], float], y: Any, last: Layer | None) -> None:
        self.name = getattr(function, "__name__", "metric")
        self.function = function
        self.y = y
        self.last = last

    def prepared(self, logits: Array) -> Array:
        return logits if self.last is None else self.last(logits)

    def value(self, prepared: Array) -> float:
        return self._number(prepared, self.y)

    def resampled(self, prepared: Array, rows: Rows) -> Matrix:
        y = self.y
        return np.array(
            [
                self._number(prepared[drawn], None if y is None else _safe_indexing(y, drawn))
                for drawn in rows
            ]
        )

    def _number(self, outputs: Array, y: Any) -> float:
        value = any_array(self.function(outputs, y), f"the result of metric {self.name}")
        if value.ndim or value.dtype.kind not in "fiub":
            raise TypeError(
                f"metric {self.name} returned {value!r}; pass a function metric(outputs, y) that "
                "returns one number."
            )
        return float(value)


class Evaluations:
    """The metric of a network with the strongest connections only, cached by their number.

    Parameters
    ----------
    logits_with : callable
        Maps a number of connections to the logits of all inputs.
    metric : Metric
        The metric.
    full : ndarray of shape (n_inputs, n_logits)
        Logits of the network itself.
    n_resamples : int
        Number of resamples of the inputs.
    seed : int
        Seed of the resamples.
    """

    def __init__(
        self,
        logits_with: Callable[[int], Array],
        metric: Metric,
        full: Array,
        n_resamples: int,
        seed: int,
    ) -> None:
        self.logits_with = logits_with
        self.metric = metric
        self._full = metric.prepared(full)
        self.full = self.evaluate(full, "the network itself")
        self.n_resamples = n_resamples
        self.seed = seed
        self._kept: dict[int, Array] = {}
        self._losses: dict[int, Matrix] = {}

    def value(self, n_edges: int) -> float:
        """Compute the metric with a number of connections; raise ValueError if it is invalid."""
        check_count(n_edges, "n_edges", 0)
        value = self.metric.value(self._prepared(n_edges))
        self._check(value, f"{n_edges} connections")
        return value

    def evaluate(self, logits: Array, what: str) -> float:
        """Compute the metric of other logits."""
        value = self.metric.value(self.metric.prepared(logits))
        self._check(value, what)
        return value

    def losses(self, counts: Sequence[int]) -> Matrix:
        """Compute the loss of the metric compared with the network itself, for every resample.

        The resamples are the same for all numbers of connections, so that losses are paired.

        Parameters
        ----------
        counts : sequence of int
            Numbers of connections.

        Returns
        -------
        ndarray of shape (n_resamples, n_counts)
            The losses.
        """
        new = [n_edges for n_edges in counts if n_edges not in self._losses]
        if new:
            full = self._on_resamples(self._full)
            for n_edges in new:
                worse = full - self._on_resamples(self._prepared(n_edges))
                self._check(worse, f"a resample of the inputs and {n_edges} connections")
                self._losses[n_edges] = worse if self.metric.greater_is_better else -worse
        return np.column_stack([self._losses[n_edges] for n_edges in counts])

    def _prepared(self, n_edges: int) -> Array:
        if n_edges in self._kept:
            return self._kept[n_edges]
        prepared = self.metric.prepared(self.logits_with(n_edges))
        if self.metric.keeps:
            self._kept[n_edges] = prepared
        return prepared

    def _on_resamples(self, prepared: Array) -> Matrix:
        parts = [self.metric.resampled(prepared, rows) for rows in self._resamples()]
        return np.concatenate(parts)

    def _resamples(self) -> Iterator[Rows]:
        rng = np.random.RandomState(self.seed)
        n_inputs = len(self._full)
        size = max(1, DRAWN_AT_ONCE // n_inputs)
        for start in range(0, self.n_resamples, size):
            n_drawn = min(size, self.n_resamples - start)
            yield rng.randint(n_inputs, size=(n_drawn, n_inputs))

    def _check(self, values: Any, what: str) -> None:
        if not np.isfinite(values).all():
            raise ValueError(
                f"metric {self.metric.name} is NaN or infinite for {what}; pass a metric that is "
                "finite for all outputs."
            )


def without_probabilities(network: Network, n_outputs: int) -> tuple[Network, Layer | None]:
    """Split a network into the part that computes logits and a final softmax or sigmoid.

    Parameters
    ----------
    network : Network
        The whole network.
    n_outputs : int
        Number of outputs of the network.

    Returns
    -------
    network : Network
        The network without a final softmax, or without the sigmoid of a single output.
    last : Layer or None
        The layer that was removed.

    Raises
    ------
    ValueError
        If no other layer is left.
    """
    *before, last = network.layers
    one_sigmoid = _is_sigmoid(last) and n_outputs == 1
    # A layer derived from Dense may compute something else.
    if type(last) is Dense:
        if one_sigmoid and last.output_rotation is None:
            logits = last.changed(activation="identity")
            return Network([*before, logits]), Activation("sigmoid")
    elif isinstance(last, Softmax) or one_sigmoid:
        if not before:
            raise ValueError(
                f"network={network!r} only maps logits to probabilities, so that it has no "
                "connections to remove; pass a network with layers of weights."
            )
        return Network(before), last
    return network, None


def read_metric(metric: Any, y: Any, logits: Array, network: Network, last: Layer | None) -> Metric:
    """Validate a metric and its labels.

    Parameters
    ----------
    metric : {"accuracy", "cross_entropy", "kl"} or callable
        The value that the user passed.
    y : array-like or None
        Labels.
    logits : ndarray of shape (n_inputs, n_logits)
        Logits of the network itself.
    network : Network
        The network that computes the logits.
    last : Layer or None
        Layer that maps the logits to outputs.

    Returns
    -------
    Metric
        The metric of logits.

    Raises
    ------
    ValueError
        If the metric is unknown, the labels do not fit, or the outputs are not logits.
    """
    n_inputs, n_logits = logits.shape
    if callable(metric):
        if y is not None and (not hasattr(y, "__len__") or len(y) != n_inputs):
            raise ValueError(
                f"y must have an entry for each of {n_inputs} samples of X, which are resampled "
                f"together; got {type(y).__name__}."
            )
        return _UserMetric(metric, y, last)
    if not isinstance(metric, str) or metric not in NAMES:
        raise ValueError(
            f"metric={metric!r} is unknown; pass 'accuracy', 'cross_entropy', 'kl' or a callable "
            "metric(outputs, y)."
        )
    _check_logits(metric, logits, network)
    if metric == "kl":
        theirs = log_softmax(_class_logits(logits), axis=1)
        probabilities = np.exp(theirs)

        def divergence(logits: Array) -> Array:
            ours = log_softmax(_class_logits(logits), axis=1)
            return np.asarray((probabilities * (theirs - ours)).sum(axis=1))

        return _Mean(metric, divergence)
    labels = _labels(y, n_inputs, max(n_logits, 2))
    if metric == "accuracy":
        return _Mean(
            metric, lambda logits: (_class_logits(logits).argmax(axis=1) == labels).astype(float)
        )
    rows = np.arange(n_inputs)
    return _Mean(metric, lambda logits: -log_softmax(_class_logits(logits), axis=1)[rows, labels])


def _class_logits(logits: Array) -> Array:
    """Return logits of at least two classes; the softmax of (0, x) is the sigmoid of x."""
    return np.pad(logits, ((0, 0), (1, 0))) if logits.shape[1] == 1 else logits


def _labels(y: Any, n_inputs: int, n_classes: int) -> Rows:
    """Validate labels as indices of logits."""
    if y is None:
        raise ValueError(f"y must have a label for each of {n_inputs} samples of X, got None.")
    labels = any_array(y, "y")
    if labels.shape != (n_inputs,):
        raise ValueError(
            f"y must have a label for each of {n_inputs} samples of X, in one dimension, but has "
            f"shape {labels.shape}."
        )
    if labels.dtype.kind not in "iub":
        raise ValueError(
            f"y has labels of dtype {labels.dtype}; pass the number of the logit that belongs to "
            f"each label, integers from 0 to {n_classes - 1}, such as np.unique(labels, "
            "return_inverse=True)[1] or y.astype(int)."
        )
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest >= n_classes:
        raise ValueError(
            f"y has labels from {lowest} to {highest}, but the network has logits of {n_classes} "
            f"classes; pass integers from 0 to {n_classes - 1}."
        )
    return labels.astype(np.intp)


def _check_logits(metric: str, logits: Array, network: Network) -> None:
    """Check that a network returns logits and not probabilities."""
    last = network.layers[-1]
    if type(last) is Dense and last.activation == "identity":
        return
    advice = (
        f"but metric={metric!r} reads logits; pass the network without that activation, or a "
        "callable metric(outputs, y)."
    )
    n_logits = logits.shape[1]
    if _is_sigmoid(last):
        raise ValueError(f"network ends in a sigmoid of {n_logits} separate outputs, {advice}")
    in_range = logits.min() >= 0 and logits.max() <= 1
    if in_range and (n_logits == 1 or np.abs(logits.sum(axis=1) - 1).max() < SUM_TOL):
        raise ValueError(
            f"network ends in {last!r} and returns what look like probabilities, {advice}"
        )


def _is_sigmoid(layer: Layer) -> bool:
    return type(layer) in (Dense, Activation) and getattr(layer, "activation", None) == "sigmoid"
