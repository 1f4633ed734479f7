"""How many connections a function needs, counted by removing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.utils.validation import check_is_fitted

from jacrot._arrays import Array, Matrix, any_array, real_array
from jacrot._estimator import NetworkEstimator
from jacrot._random import random_source
from jacrot.coordinates import NULL_SHARE, SiteBasis, read_by
from jacrot.inspection.bases import BASES, Part, fitted_bases, named_bases
from jacrot.network import Network

Metric = Callable[[Array, Any], float]


@dataclass(frozen=True, repr=False)
class EdgeCurve:
    """A function against the number of its connections that are kept; see :func:`edge_curve`.

    Parameters
    ----------
    n_edges : ndarray of int of shape (n_points,)
        How many connections are kept, rising.
    values : ndarray of shape (n_points,)
        The metric with so many.
    full : float
        The metric of the network itself.
    affine : float
        The metric where every layer is replaced by its least-squares affine map: where that
        passes, few edges mean low rank, not structure.
    ranks : tuple of int
        Rank of ``G`` at what each layer writes: no function of the logits needs more axes there.
    strengths : tuple of ndarray of shape (n_outputs, n_inputs)
        ``u_a E|J_ab| std(z_b)`` of every connection of each layer, by which they are ranked.
    signed : tuple of ndarray of shape (n_outputs, n_inputs)
        ``E[J_ab]`` in the same units: its sign is that of the connection on average.
    bases : tuple of SiteBasis
        Of what the first layer reads, and of what each layer writes.
    metric : str
        Name of the metric.
    measure : callable
        ``measure(n_edges)`` computes the metric with the `n_edges` strongest connections, by a
        forward pass.
    greater_is_better : bool
        Whether a greater metric is a better one.

    Examples
    --------
    Two of four connections carry everything:

    >>> import numpy as np
    >>> from jacrot import Network
    >>> from jacrot.inspection import edge_curve
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> network = Network([np.eye(2) + 1e-3, np.eye(2)], ["tanh", "identity"])
    >>> curve = edge_curve(network, X, calibration=X, layer=0, metric="kl", n_points=4)
    >>> curve
    EdgeCurve(kl from 1 to 4 edges; network 0, affine map 0.003325, rank of G 1)
    >>> curve.edges_needed(0.01), [mask.tolist() for mask in curve.kept(2)]
    (2, [[[True, False], [False, True]]])
    """

    n_edges: NDArray[np.int64]
    values: Matrix
    full: float
    affine: float
    ranks: tuple[int, ...]
    strengths: tuple[Matrix, ...]
    signed: tuple[Matrix, ...]
    bases: tuple[SiteBasis, ...]
    metric: str
    measure: Callable[[int], float]
    greater_is_better: bool

    def __repr__(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        return (
            f"EdgeCurve({self.metric} from {self.n_edges[0]} to {self.n_edges[-1]} edges; network "
            f"{self.full:.4g}, affine map {self.affine:.4g}, rank of G {ranks})"
        )

    def edges_needed(self, tolerance: float) -> int:
        """Count the connections that the metric needs, by more forward passes between the points.

        From the last point of the curve that falls short, halved to the count that does not.

        Parameters
        ----------
        tolerance : float
            How much worse than that of the network the metric may be.

        Returns
        -------
        int
            The number of connections.

        Raises
        ------
        ValueError
            If the metric falls short with all connections.
        """
        short = np.flatnonzero(self._losses > tolerance)
        if short.size == 0:
            return int(self.n_edges[0])
        if short[-1] == len(self.n_edges) - 1:
            raise ValueError(
                f"tolerance={tolerance} is less than the curve reaches at its last point, "
                f"{self.n_edges[-1]} edges; write a larger one, or calibrate on more inputs, so "
                "that every connection that matters has some strength."
            )
        few, enough = map(int, self.n_edges[short[-1] : short[-1] + 2])
        while enough - few > 1:
            middle = (few + enough) // 2
            if self._loss(self.measure(middle)) > tolerance:
                few = middle
            else:
                enough = middle
        return enough

    def kept(self, n_edges: int) -> tuple[NDArray[np.bool_], ...]:
        """Find the strongest connections.

        Parameters
        ----------
        n_edges : int
            How many, over all layers.

        Returns
        -------
        tuple of ndarray of bool of shape (n_outputs, n_inputs)
            Which connections of each layer are kept.
        """
        return _strongest(self.strengths, n_edges)

    @property
    def _losses(self) -> Matrix:
        return np.array([self._loss(value) for value in self.values])

    def _loss(self, value: float) -> float:
        return self.full - value if self.greater_is_better else value - self.full


def edge_curve(
    network: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    calibration: ArrayLike,
    layer: int | None = None,
    basis: Any = "given",
    metric: str | Metric = "accuracy",
    n_points: int = 20,
    random_state: int | np.random.RandomState | None = None,
) -> EdgeCurve:
    """Measure how many connections a network needs between the axes of given bases.

    A connection of a layer is a pair of an input axis ``b`` and an output axis ``a``. Its strength
    is ``u_a E|J_ab| std(z_b)``: ``J`` the Jacobian in these bases, ``z`` the input in its basis,
    ``u_a = √(d_aᵀ G d_a)`` how much the logits depend on output axis ``a``, with ``d_a`` what that
    axis writes and ``G = E[KᵀK]``, ``K`` the Jacobian of the centred logits with respect to what
    the layer writes. Where a connection is removed, its output axis sees the mean of ``z_b`` in
    the place of its value; each output axis so has an input of its own, and the network goes on
    from the activations that result. The strongest connections are kept, over all layers, and the
    metric is computed by forward passes.

    Parameters
    ----------
    network : Network or what makes one
        The whole network, from `X` to the logits.
    X : array-like of shape (n_samples, n_features)
        Inputs to measure on, held out from `calibration`.
    y : array-like of shape (n_samples,), default=None
        Labels, for ``"accuracy"`` and ``"cross_entropy"``; handed to a callable metric.
    calibration : array-like of shape (n_calibration, n_features)
        Inputs on which means, strengths and named bases are computed.
    layer : int, default=None
        The layer whose connections are removed; ``None`` removes those of all layers.
    basis : str, estimator or sequence of (encoder, decoder), default="given"
        ``"given"``, ``"random"``, ``"pca"``, ``"interaction"`` or, for one layer, ``"svd"``,
        ``"quartimax"``, ``"functional_svd"``, ``"functional"``: see
        :func:`jacrot.inspection.bases.named_bases`. A fitted
        :class:`jacrot.JacobianSparsityRotation` of ``network[layer:layer + 1]``, or a fitted
        :class:`jacrot.NetworkRotation`. Or an encoder ``(n_axes, n_features)`` and a decoder
        ``(n_features, n_axes)`` for what the first layer reads and what each layer writes.
    metric : {"accuracy", "cross_entropy", "kl"} or callable, default="accuracy"
        ``"kl"`` is the mean divergence of the probabilities from those of the network. A callable
        ``metric(logits, y)`` gives a number, the greater the better.
    n_points : int, default=20
        Points of the curve, from one connection to all that have any strength, evenly on a
        logarithmic scale.
    random_state : int, RandomState instance or None, default=None
        Draws the bases that are random.

    Returns
    -------
    EdgeCurve
        The curve; ``edges_needed(tolerance)`` answers how many connections are enough.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument does not fit the network, or is none of those named here.

    References
    ----------
    L. Bushnaq et al., "The Local Interaction Basis: identifying computationally-relevant and
    sparsely interacting features in neural networks", arXiv:2405.10928 (2024), where edges are
    removed in the same way.

    Examples
    --------
    >>> from jacrot.datasets import load_digits_mlp
    >>> from jacrot.inspection import edge_curve
    >>> digits = load_digits_mlp()
    >>> curve = edge_curve(
    ...     digits.network,
    ...     digits.X_test,
    ...     digits.y_test,
    ...     calibration=digits.X[:200],
    ...     layer=1,
    ...     basis="interaction",
    ... )
    >>> curve.edges_needed(0.01) < 0.05 * curve.strengths[0].size
    True
    """
    network = Network(network)
    X, calibration = _inputs(X, "X", network), _inputs(calibration, "calibration", network)
    if layer is not None and (not isinstance(layer, Integral) or not 0 <= layer < network.n_layers):
        raise ValueError(f"layer={layer!r} is none; write one from 0 to {network.n_layers - 1}.")
    if not isinstance(n_points, Integral) or n_points < 2:
        raise ValueError(f"n_points={n_points!r} must be an integer of 2 or more.")
    layers = range(network.n_layers) if layer is None else range(layer, layer + 1)
    measure, better = _metric(metric, y, len(X))
    part = Part(network, layers, calibration)
    bases = _bases(basis, part, random_source(random_state))
    given = network[: layers[0]](X) if layers[0] else X
    logits = network(X)

    def outputs(a: Array) -> Array:
        after = layers[-1] + 1
        return network[after:](a) if after < network.n_layers else a

    cut = _Cut(part, bases, given)

    def evaluate(n_edges: int) -> float:
        masks = _strongest(cut.strengths, n_edges)
        return float(measure(outputs(cut.activations(masks)), y, logits))

    strengths = np.concatenate([table.ravel() for table in cut.strengths])
    size = np.count_nonzero(strengths > NULL_SHARE * strengths.max())
    n_edges = np.unique(np.geomspace(1, size, n_points).round().astype(np.int64))
    return EdgeCurve(
        n_edges=n_edges,
        values=np.array([evaluate(int(n)) for n in n_edges]),
        full=float(measure(logits, y, logits)),
        affine=float(measure(outputs(_affine(part, given)), y, logits)),
        ranks=tuple(map(_rank, part.readouts)),
        strengths=cut.strengths,
        signed=cut.signed,
        bases=tuple(bases),
        metric=metric if isinstance(metric, str) else getattr(metric, "__name__", "metric"),
        measure=evaluate,
        greater_is_better=better,
    )


class _Cut:
    """The layers of a part in bases, from which connections are removed."""

    def __init__(self, part: Part, bases: Sequence[SiteBasis], given: Array) -> None:
        self.bases = bases
        self.means = [activations.mean(axis=0) for activations in part.activations]
        self.given = (given - self.means[0]) @ bases[0].encoder.T
        self.layers = [
            read_by(part.network[number], basis.decoder, mean)
            for number, basis, mean in zip(part.layers, bases[:-1], self.means[:-1], strict=True)
        ]
        tables = [
            _tables(stack, activations, sides, readout)
            for stack, activations, sides, readout in zip(
                part.stacks, part.activations[:-1], pairwise(bases), part.readouts, strict=True
            )
        ]
        self.strengths = tuple(strengths for strengths, _ in tables)
        self.signed = tuple(signed for _, signed in tables)

    def activations(self, masks: Sequence[NDArray[np.bool_]]) -> Array:
        """Compute what the last layer writes where only some connections are there."""
        z = self.given
        for layer, mask, basis, mean in zip(
            self.layers, masks, self.bases[1:], self.means[1:], strict=True
        ):
            nothing = (layer(np.zeros((1, z.shape[1]))) - mean) @ basis.encoder.T
            v = np.repeat(nothing, len(z), axis=0)
            identity = np.eye(z.shape[1])
            for axis in np.flatnonzero(mask.any(axis=1)):
                kept = np.flatnonzero(mask[axis])
                sees = layer.reading(identity[kept])
                v[:, axis] = (sees(z[:, kept]) - mean) @ basis.encoder[axis]
            z = v
        return np.asarray(z @ self.bases[-1].decoder.T + self.means[-1])


def _tables(
    stack: Any, activations: Array, sides: tuple[SiteBasis, SiteBasis], readout: Matrix
) -> tuple[Matrix, Matrix]:
    """Compute the strength of every connection of a layer, and its mean with its sign."""
    read, written = sides
    blocks = stack.rotated(written.encoder, read.decoder.T)
    absolute, signed = 0.0, 0.0
    for block in blocks:
        absolute = absolute + np.abs(block).sum(axis=0)
        signed = signed + block.sum(axis=0)
    D = written.decoder
    weights = np.sqrt(np.maximum(np.einsum("ka,kl,la->a", D, readout, D), 0))
    scale = weights[:, None] * (activations @ read.encoder.T).std(axis=0) / stack.shape[0]
    return np.asarray(scale * absolute), np.asarray(scale * signed)


def _strongest(strengths: Sequence[Matrix], n_edges: int) -> tuple[NDArray[np.bool_], ...]:
    flat = np.concatenate([table.ravel() for table in strengths])
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[:n_edges]] = True
    ends = np.cumsum([table.size for table in strengths])[:-1]
    return tuple(
        mask.reshape(table.shape)
        for mask, table in zip(np.split(kept, ends), strengths, strict=True)
    )


def _affine(part: Part, given: Array) -> Array:
    """Compute what the last layer writes where each is its least-squares affine map."""
    x = given @ part.inside.T
    for index, written in enumerate(part.activations[1:]):
        read = part.activations[index]
        read = read @ part.inside.T if index == 0 else read
        design = np.column_stack([read, np.ones(len(read))])
        solution, *_ = np.linalg.lstsq(design, written, rcond=None)
        x = np.column_stack([x, np.ones(len(x))]) @ solution
    return x


def _rank(moment: Matrix) -> int:
    eigenvalues = np.linalg.eigvalsh(moment)
    return int(np.count_nonzero(eigenvalues > NULL_SHARE * eigenvalues[-1]))


def _inputs(X: ArrayLike, name: str, network: Network) -> Array:
    x = real_array(X, name, ndim=2).astype(np.float64, copy=False)
    if network.n_inputs not in (None, x.shape[1]):
        raise ValueError(
            f"{name} has {x.shape[1]} features but the network reads {network.n_inputs}; write "
            "inputs of the whole network."
        )
    return x


def _bases(basis: Any, part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    if isinstance(basis, str):
        return named_bases(basis, part, rng)
    if isinstance(basis, NetworkEstimator):
        check_is_fitted(basis)
        bases = fitted_bases(basis, part)
    elif isinstance(basis, Sequence):
        bases = [
            SiteBasis(*(real_array(side, "basis", 2).astype(np.float64) for side in pair))
            for pair in basis
        ]
    else:
        raise TypeError(
            f"basis is a {type(basis).__name__}; write one of {BASES}, a fitted estimator, or a "
            "list with (encoder, decoder) of every site."
        )
    encoders = [basis.encoder.shape for basis in bases]
    decoders = [basis.decoder.shape[::-1] for basis in bases]
    if encoders != decoders or [width for _, width in encoders] != part.widths:
        raise ValueError(
            f"basis has encoders of shapes {encoders} and transposed decoders of {decoders}, but "
            f"the sites have {part.widths} activations; write (n_axes, n_features) and (n_features,"
            " n_axes) for what the first layer reads and what each layer writes."
        )
    return bases


def _metric(
    metric: str | Metric, y: Any, n_samples: int
) -> tuple[Callable[[Array, Any, Array], float], bool]:
    """Make ``measure(logits, y, logits of the network)``, and tell whether greater is better."""
    if callable(metric):
        return lambda logits, y, full: metric(logits, y), True
    if metric == "kl":
        return _divergence, False
    if metric not in ("accuracy", "cross_entropy"):
        raise ValueError(
            f"metric={metric!r} is unknown; write 'accuracy', 'cross_entropy', 'kl' or a callable "
            "metric(logits, y)."
        )
    if y is None or any_array(y, "y").shape != (n_samples,):
        raise ValueError(f"y must hold a label for each of {n_samples} samples of X.")
    if metric == "accuracy":
        return lambda logits, y, full: np.mean(logits.argmax(axis=1) == np.asarray(y)), True
    rows = np.arange(n_samples)
    return (
        lambda logits, y, full: -log_softmax(logits, axis=1)[rows, np.asarray(y)].mean(),
        False,
    )


def _divergence(logits: Array, y: Any, full: Array) -> float:
    ours, theirs = log_softmax(logits, axis=1), log_softmax(full, axis=1)
    return float((np.exp(theirs) * (theirs - ours)).sum(axis=1).mean())
