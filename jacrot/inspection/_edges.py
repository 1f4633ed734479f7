"""The number of connections that a network needs, counted by removing the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot._jacobians.coordinates import NULL_SHARE, SiteBasis, centring, fold_decoder
from jacrot._utils.arrays import Array, Matrix, real_array
from jacrot._utils.random import resolve_random_state
from jacrot._utils.result import Result
from jacrot.inspection._bases import Part, read_bases
from jacrot.inspection._edge_count import LEVEL, EdgeCount, count_edges
from jacrot.inspection._fitted import check_count, spawn_seeds
from jacrot.inspection._metrics import Evaluations, read_metric, without_probabilities
from jacrot.network import Network

# Activations that differ by less than this share of the largest are equal up to rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, repr=False)
class EdgeCurve(Result):
    """Metric of a network as a function of the number of connections; see :func:`edge_curve`.

    Parameters
    ----------
    n_edges : ndarray of int of shape (n_points,)
        Numbers of connections that are kept, in increasing order.
    values : ndarray of shape (n_points,)
        The metric with these numbers of connections.
    full : float
        The metric of the network itself.
    affine : float
        The metric if every layer is replaced by its least-squares affine map. If it is as good as
        `full`, few edges mean low rank, not structure.
    ranks : tuple of int
        Rank of the readout ``G`` at the outputs of each layer, the number of axes on which the
        logits depend.
    strengths : tuple of ndarray of shape (n_outputs, n_inputs)
        ``u_a E|J_ab| std(z_b)`` of every connection of each layer, by which they are ranked.
    signed : tuple of ndarray of shape (n_outputs, n_inputs)
        ``E[J_ab]`` in the same units, whose sign is the average sign of the connection.
    bases : tuple of SiteBasis
        Bases of the inputs of the first layer, and of the outputs of each layer.
    metric : str
        Name of the metric.
    measure : callable
        ``measure(n_edges)`` computes the metric with the `n_edges` strongest connections, by a
        forward pass.
    resampled_losses : callable
        ``resampled_losses([n_edges, ...])`` computes the loss of the metric compared with the
        network itself, on every resample of the inputs, of shape ``(n_resamples, n_counts)``.
    greater_is_better : bool
        Whether a greater metric is a better one.

    Attributes
    ----------
    intervals : ndarray of shape (2, n_points)
        Intervals of `values`, from the middle 95 % of the losses on the resamples.

    Examples
    --------
    Two of four connections are enough:

    >>> import numpy as np
    >>> from jacrot import Network
    >>> from jacrot.inspection import edge_curve
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> network = Network([np.eye(2) + 1e-3, np.eye(2)], ["tanh", "identity"])
    >>> curve = edge_curve(network, X, calibration=X, layer=0, metric="kl", n_points=4)
    >>> curve
    EdgeCurve(kl from 1 to 4 edges; network 0, affine map 0.003325, rank of G 1)
    >>> curve.edges_needed(0.01), [mask.tolist() for mask in curve.kept(2)]
    (2 (2 to 2), [[[True, False], [False, True]]])
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
    resampled_losses: Callable[[Sequence[int]], Matrix]
    greater_is_better: bool

    def _finding(self) -> str:
        ranks = ", ".join(map(str, self.ranks))
        return (
            f"{self.metric} from {self.n_edges[0]} to {self.n_edges[-1]} edges; network "
            f"{self.full:.4g}, affine map {self.affine:.4g}, rank of G {ranks}"
        )

    def _table(self) -> dict[str, list[Any]]:
        worse = self.full - self.values if self.greater_is_better else self.values - self.full
        columns = {"n_edges": self.n_edges, self.metric: self.values, "loss": worse}
        return {name: column.tolist() for name, column in columns.items()}

    def edges_needed(self, tolerance: float) -> EdgeCount:
        """Count the connections that the metric needs, with an interval over resampled inputs.

        The inputs are resampled with replacement many times. On each resample, the loss is the
        difference of the metric from that of the network on the same resample, and the count is the
        point at which the best decreasing fit to the losses (isotonic regression) reaches the
        tolerance. The result is the median of these counts, with their middle 95 % as its interval.
        The network is evaluated at further numbers of connections inside the interval.

        Parameters
        ----------
        tolerance : float
            Accepted loss of the metric compared with the network itself, at least 0.

        Returns
        -------
        EdgeCount
            The median, an integer; ``low`` and ``high`` are the ends of the interval.

        Raises
        ------
        ValueError
            If `tolerance` is negative or not a number, or if it is exceeded with all connections.

        Notes
        -----
        The loss does not decrease with every connection: an input that is right with 300
        connections may be wrong with 1,500. The first count within the tolerance, and the last one
        outside, depend only on such inputs. One of ``n`` inputs changes the loss by ``1 / n`` of
        its own loss, and the decreasing fit by at most that, since isotonic regression is a
        contraction (Yang and Barber, section 2); the fit averages over counts, and the median over
        resamples. With 500 inputs, leaving out any one of them changed the median by at most a
        fifth for accuracies and a tenth for divergences, while the first count within the tolerance
        changed by up to a third and the last one outside by up to a half. The accuracy on few
        inputs is coarse: 0.5 % of 500 are 2.5 inputs, and the interval is wide. ``"kl"`` and
        ``"cross_entropy"`` use every input.

        The interval accounts only for the inputs, with these axes; it does not include the effect
        of other calibration inputs or another search.

        References
        ----------
        B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall (1993),
        chapter 13 (the percentile interval).

        F. Yang and R. F. Barber, "Contraction and uniform convergence of isotonic regression",
        Electronic Journal of Statistics 13 (2019).

        A. P. Oron and N. Flournoy, "Centered isotonic regression: point and interval estimation for
        dose-response studies", Statistics in Biopharmaceutical Research 9 (2017) (where such a fit
        reaches a target).

        M. Méloux et al., "Mechanistic interpretability as statistical estimation: a variance
        analysis of EAP-IG", arXiv:2510.00845 (2025) (resampled inputs for circuits).
        """
        return count_edges(self.resampled_losses, self.n_edges.tolist(), tolerance)

    @property
    def intervals(self) -> Matrix:
        """Ends of the intervals of `values`, of shape (2, n_points)."""
        losses = self.resampled_losses(self.n_edges.tolist())
        ends = np.quantile(losses, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return self.full - ends[::-1] if self.greater_is_better else self.full + ends

    def kept(self, n_edges: int) -> tuple[NDArray[np.bool_], ...]:
        """Return masks of the strongest connections.

        Parameters
        ----------
        n_edges : int
            Number of connections of all layers together.

        Returns
        -------
        tuple of ndarray of bool of shape (n_outputs, n_inputs)
            Which connections of each layer are kept.

        Raises
        ------
        ValueError
            If `n_edges` is negative or not an integer.
        """
        check_count(n_edges, "n_edges", 0)
        return _strongest(self.strengths, n_edges)


def edge_curve(
    network: Any,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    calibration: ArrayLike,
    layer: int | None = None,
    basis: Any = "given",
    metric: str | Callable[[Array, Any], float] = "accuracy",
    n_points: int = 20,
    n_resamples: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> EdgeCurve:
    """Measure a network with its strongest connections only, in given bases.

    A connection of a layer is a pair of an input axis ``b`` and an output axis ``a``. Its strength
    is ``u_a E|J_ab| std(z_b)``, where ``J`` is the Jacobian in these bases, ``z`` the input in its
    basis, and ``u_a = √(d_aᵀ G d_a)`` the effect of output axis ``a`` on the logits. Here ``d_a``
    is the direction that the axis writes and ``G = E[KᵀK]``, with ``K`` the Jacobian of the centred
    logits with respect to the outputs of the layer. Connections are removed by mean ablation: the
    output axis is computed with the mean of ``z_b`` instead of its value, so that each output axis
    has its own input, and the following layers run on the resulting activations. The strongest
    connections of all layers are kept, and the metric is computed by forward passes.

    Parameters
    ----------
    network : Network or array-likes
        The whole network, from `X` to the logits, or its weights. A final softmax, or the sigmoid
        of a single output, is ignored: connections are removed before it.
    X : array-like of shape (n_samples, n_features)
        Inputs for the metric, held out from `calibration`.
    y : array-like of shape (n_samples,), default=None
        Labels for ``"accuracy"`` and ``"cross_entropy"``: indices of logits, from 0. For a single
        logit, 0 is the label of negative and 1 that of positive values. Passed on to a callable
        metric.
    calibration : array-like of shape (n_calibration, n_features)
        Inputs for means, strengths and named bases.
    layer : int, default=None
        Layer whose connections are removed; ``None`` removes connections of all layers.
    basis : str, estimator or sequence of (encoder, decoder), default="given"
        ``"given"``, ``"random"``, ``"pca"``, ``"interaction"`` or, for one layer, ``"svd"``,
        ``"quartimax"``, ``"functional_svd"``, ``"functional"``: see
        :func:`jacrot.inspection._bases.named_bases`. A fitted
        :class:`jacrot.JacobianSparsityRotation` of ``network[layer:layer + 1]``, or a fitted
        :class:`jacrot.NetworkRotation`. Or an encoder ``(n_axes, n_features)`` and a decoder
        ``(n_features, n_axes)`` for the inputs of the first layer and the outputs of each layer.
    metric : {"accuracy", "cross_entropy", "kl"} or callable, default="accuracy"
        ``"kl"`` is the mean divergence of the probabilities from those of the network. They are
        the softmax of the logits, or the sigmoid of a single logit. A callable ``metric(outputs,
        y)`` returns a number for the outputs of the network, where greater is better; it is called
        for every resample.
    n_points : int, default=20
        Number of points of the curve, from one connection to all with nonzero strength, on a
        logarithmic scale.
    n_resamples : int, default=1000
        Number of resamples of `X` for the intervals of the counts. 200 are enough for an estimate,
        and faster with a slow callable metric.
    random_state : int, RandomState instance or None, default=None
        Determines the resamples and the random bases. With the same value, the curves of several
        bases have the same resamples.

    Returns
    -------
    EdgeCurve
        The curve; ``edges_needed(tolerance)`` counts the connections needed.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument does not fit the network or is unknown; if the labels do not fit the logits,
        or the network returns probabilities that cannot be converted to logits; if the logits do
        not vary on `calibration`.

    References
    ----------
    L. Bushnaq et al., "The Local Interaction Basis: identifying computationally-relevant and
    sparsely interacting features in neural networks", arXiv:2405.10928 (2024), where edges are
    removed in the same way.

    A. Conmy et al., "Towards automated circuit discovery for mechanistic interpretability", NeurIPS
    2023 (the divergence as the metric of a circuit).

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
    whole = Network(network)
    X, calibration = _inputs(X, "X", whole), _inputs(calibration, "calibration", whole)
    network, last = without_probabilities(whole, whole(X[:1]).shape[1])
    if layer is not None and (not isinstance(layer, Integral) or not 0 <= layer < network.n_layers):
        raise ValueError(
            f"layer={layer!r} does not exist; pass a number from 0 to {network.n_layers - 1}."
        )
    check_count(n_points, "n_points", 2)
    check_count(n_resamples, "n_resamples", 1)
    layers = range(network.n_layers) if layer is None else range(layer, layer + 1)
    logits = network(X)
    read = read_metric(metric, y, logits, network, last)
    _check_variation(network, calibration)
    rng = resolve_random_state(random_state)
    (seed,) = spawn_seeds(rng, 1)
    part = Part(network, layers, calibration)
    bases = read_bases(basis, part, whole, rng)
    given = network[: layers[0]](X) if layers[0] else X

    def outputs(a: Array) -> Array:
        after = layers[-1] + 1
        return network[after:](a) if after < network.n_layers else a

    cut = _Cut(part, bases, given)

    def logits_with(n_edges: int) -> Array:
        return outputs(cut.activations(_strongest(cut.strengths, n_edges)))

    evaluations = Evaluations(logits_with, read, logits, n_resamples, seed)
    strengths = np.concatenate([table.ravel() for table in cut.strengths])
    size = np.count_nonzero(strengths > NULL_SHARE * strengths.max())
    if size == 0:
        raise ValueError(
            "no connection has any strength: in this basis no axis that varies on calibration "
            "changes the logits; pass another basis or layer."
        )
    n_edges = np.unique(np.geomspace(1, size, n_points).round().astype(np.int64))
    return EdgeCurve(
        n_edges=n_edges,
        values=np.array([evaluations.value(int(n)) for n in n_edges]),
        full=evaluations.full,
        affine=evaluations.evaluate(outputs(_affine(part, given)), "the affine map"),
        ranks=tuple(map(_rank, part.readouts)),
        strengths=cut.strengths,
        signed=cut.signed,
        bases=tuple(bases),
        metric=read.name,
        measure=evaluations.value,
        resampled_losses=evaluations.losses,
        greater_is_better=read.greater_is_better,
    )


class _Cut:
    """The layers of a part in given bases, with some connections removed."""

    def __init__(self, part: Part, bases: Sequence[SiteBasis], given: Array) -> None:
        self.bases = bases
        self.means = [activations.mean(axis=0) for activations in part.activations]
        self.given = (given - self.means[0]) @ bases[0].encoder.T
        self.layers = [
            fold_decoder(part.network[number], basis.decoder, mean)
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
        """Compute the outputs of the last layer with some connections only."""
        z = self.given
        for layer, mask, basis, mean in zip(
            self.layers, masks, self.bases[1:], self.means[1:], strict=True
        ):
            nothing = (layer(np.zeros((1, z.shape[1]))) - mean) @ basis.encoder.T
            v = np.repeat(nothing, len(z), axis=0)
            identity = np.eye(z.shape[1])
            for axis in np.flatnonzero(mask.any(axis=1)):
                kept = np.flatnonzero(mask[axis])
                sees = layer.rotate_inputs(identity[kept])
                v[:, axis] = (sees(z[:, kept]) - mean) @ basis.encoder[axis]
            z = v
        return np.asarray(z @ self.bases[-1].decoder.T + self.means[-1])


def _tables(
    stack: Any, activations: Array, sides: tuple[SiteBasis, SiteBasis], readout: Matrix
) -> tuple[Matrix, Matrix]:
    """Compute the strength and the signed mean of every connection of a layer."""
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
    """Compute the outputs of the last layer if each layer is its least-squares affine map."""
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
            f"{name} has {x.shape[1]} features but the network reads {network.n_inputs}; pass "
            "inputs of the whole network."
        )
    if len(x) == 0:
        raise ValueError(f"{name} has no rows; pass inputs of the whole network.")
    return x


def _check_variation(network: Network, calibration: Array) -> None:
    """Check that the logits vary on the calibration inputs."""
    if len(calibration) < 2:
        raise ValueError(
            "calibration has 1 row, on which nothing varies; pass a few hundred inputs."
        )
    activations = calibration
    for site in range(network.n_layers + 1):
        largest, what = np.abs(activations).max(), f"site {site} is"
        if site == network.n_layers:
            activations, what = activations @ centring(activations.shape[1]), "centred logits are"
        if np.ptp(activations, axis=0).max() <= ROUNDING * largest:
            raise ValueError(
                f"{what} the same for all {len(calibration)} rows of calibration, so that no "
                "connection changes the logits (equal rows, or units that are never active?); pass "
                "other inputs or another network."
            )
        if site < network.n_layers:
            activations = network[site : site + 1](activations)
