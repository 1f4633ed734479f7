"""Number of outputs that a finite step along one axis changes, by intervention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot._estimators.base import NetworkEstimator
from jacrot._utils.arrays import Array, Matrix, real_array
from jacrot._utils.random import resolve_random_state
from jacrot._utils.result import Result
from jacrot._utils.threads import one_blas_thread
from jacrot.inspection._fitted import check_count, fitted_network, rotated_segments
from jacrot.segments import RotatedSegment

# Changes below this share of the largest output are rounding errors.
ROUNDING = 1e-11


@dataclass(frozen=True, repr=False)
class LocalityCurve(Result):
    """Number of outputs that a finite step changes, before and after a rotation.

    Parameters
    ----------
    steps : ndarray of shape (n_steps,)
        Sizes of the steps, in standard deviations of the activation that is moved.
    share : float
        An output counts as changed if it changes by more than this share of the largest change.
    n_outputs : int
        Number of outputs.
    before, after : ndarray of shape (n_steps, n_axes)
        Mean number of changed outputs, over the samples in which any output changes, for a step of
        each given activation and of each rotated one. NaN if no output changes in any sample.
    effect_before, effect_after : ndarray of shape (n_steps, n_axes)
        Mean square of the change of the outputs.

    Attributes
    ----------
    mean_before, mean_after : ndarray of shape (n_steps,)
        Mean of `before` and `after` over the axes that change any output.
    weighted_before, weighted_after : ndarray of shape (n_steps,)
        The same mean, weighted by effect.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.inspection import LocalityCurve
    >>> one, two = np.array([[4.0, 2.0]]), np.array([[1.0, np.nan]])
    >>> effects = np.array([[3.0, 1.0]]), np.array([[4.0, 0.0]])
    >>> curve = LocalityCurve(np.array([0.1]), 0.1, 5, one, two, *effects)
    >>> curve.mean_before, curve.weighted_before, curve.mean_after
    (array([3.]), array([3.5]), array([1.]))
    >>> print(repr(curve).partition(":")[0])
    LocalityCurve(a step of 0.1 standard deviations changes 1.0 of 5 outputs, before 3.5
    """

    steps: Matrix
    share: float
    n_outputs: int
    before: Matrix
    after: Matrix
    effect_before: Matrix
    effect_after: Matrix

    @property
    def mean_before(self) -> Matrix:
        """Mean number of outputs that a given activation changes."""
        return _mean(self.before, np.ones_like(self.before))

    @property
    def mean_after(self) -> Matrix:
        """Mean number of outputs that a rotated activation changes."""
        return _mean(self.after, np.ones_like(self.after))

    @property
    def weighted_before(self) -> Matrix:
        """Mean number of outputs that a given activation changes, weighted by effect."""
        return _mean(self.before, self.effect_before)

    @property
    def weighted_after(self) -> Matrix:
        """Mean number of outputs that a rotated activation changes, weighted by effect."""
        return _mean(self.after, self.effect_after)

    def _finding(self) -> str:
        # The step closest to one standard deviation.
        index = int(np.argmin(np.abs(np.log(self.steps))))
        return (
            f"a step of {self.steps[index]:g} standard deviations changes "
            f"{self.weighted_after[index]:.1f} of {self.n_outputs} outputs, before "
            f"{self.weighted_before[index]:.1f}: those that change by more than "
            f"{100 * self.share:g} % of the most changed one, axes weighted by effect"
        )

    def _table(self) -> dict[str, list[float]]:
        names = ("steps", "mean_before", "mean_after", "weighted_before", "weighted_after")
        return {name: getattr(self, name).tolist() for name in names}


def locality_curve(
    estimator: NetworkEstimator,
    X: ArrayLike,
    *,
    steps: Sequence[float] = (0.01, 0.1, 0.5, 1.0, 2.0),
    share: float = 0.1,
    max_samples: int = 200,
    random_state: int | np.random.RandomState | None = None,
) -> LocalityCurve | dict[int, LocalityCurve]:
    """Move one activation by a finite step, and count the outputs that change.

    The Jacobian describes an infinitesimal change. Here activation ``j`` is moved by ``step`` times
    its standard deviation over `X`, the network is evaluated, and the outputs ``a`` are counted for
    which ::

        |y_a(z + δ e_j) − y_a(z)| > share · max_b |y_b(z + δ e_j) − y_b(z)|

    in the basis of neurons, and with rotated activations (and rotated outputs, if the estimator
    rotates them). Every other sample is moved up, the others down.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Estimator fitted to one network.
    X : array-like of shape (n_samples, n_features)
        Inputs of that network, preferably held out.
    steps : sequence of float, default=(0.01, 0.1, 0.5, 1.0, 2.0)
        The steps, in standard deviations.
    share : float, default=0.1
        Share of the largest change above which an output counts as changed.
    max_samples : int, default=200
        Maximum number of samples; if there are more, this number is drawn.
    random_state : int, RandomState instance or None, default=None
        Determines the samples.

    Returns
    -------
    LocalityCurve or dict of int to LocalityCurve
        The counts. For a :class:`jacrot.NetworkRotation`, those of every layer by its number: the
        outputs of the layer that a step of one of its inputs changes.

    Raises
    ------
    TypeError
        If `estimator` is not an estimator of this package.
    NotFittedError
        If `estimator` was not fitted.
    ValueError
        If it was fitted to several blocks or to Jacobians computed elsewhere, if inputs or outputs
        of a network are not rows, or if a parameter is out of range.

    Notes
    -----
    There is one forward pass over the samples for every axis and step, in double precision. With
    fewer components than features, the rotated network is that of the projected activations.

    References
    ----------
    A. Geiger, H. Lu, T. Icard and C. Potts, "Causal abstractions of neural networks", NeurIPS
    2021, section 2 (interventions on activations).

    Examples
    --------
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.inspection import locality_curve
    >>> problem = make_planted_problem(16, 32, random_state=0)
    >>> rotation = JacobianSparsityRotation(problem.network, tol=1e-2, random_state=0)
    >>> curve = locality_curve(rotation.fit(problem.X), problem.X, steps=[0.1, 1], random_state=0)
    >>> bool((curve.mean_before > 9).all()), bool((curve.mean_after < 3).all())
    (True, True)
    """
    fitted_network(estimator)
    rotated = rotated_segments(estimator, X, "X")
    sizes = real_array(steps, "steps", ndim=1).astype(np.float64)
    if sizes.size == 0 or (sizes <= 0).any():
        raise ValueError(f"steps={steps!r} must be one or more positive numbers.")
    if not 0 <= share < 1:
        raise ValueError(f"share={share!r} must be at least 0 and below 1.")
    check_count(max_samples, "max_samples", 1)
    rng = resolve_random_state(random_state)
    curves = {}
    for site, one in enumerate(rotated):
        given, x = one.runnable, one.segment.activations
        n_outputs = _check_rows(one, f"layer {site}" if len(rotated) > 1 else "the network")
        rows = np.sort(rng.permutation(len(x))[:max_samples])
        # A forward pass is too small for several threads.
        with one_blas_thread():
            before = _counts(given.forward, x, rows, sizes, share)
            after = _counts(one.forward, one.activations, rows, sizes, share)
        curves[site] = LocalityCurve(
            steps=sizes,
            share=float(share),
            n_outputs=n_outputs,
            before=before[0],
            after=after[0],
            effect_before=before[1],
            effect_after=after[1],
        )
    return curves if len(curves) > 1 else curves[0]


def _check_rows(rotated: RotatedSegment, where: str) -> int:
    """Return the number of outputs; raise ValueError if inputs or outputs are not rows."""
    x = rotated.segment.activations
    written = rotated.runnable.forward(x[:1])
    for verb, activations in (("reads", x), ("writes", written)):
        if activations.ndim != 2:
            raise ValueError(
                f"{where} {verb} arrays of shape {activations.shape[1:]}, whose axes are not "
                "single activations; pass an estimator of a network of rows."
            )
    return int(written.shape[1])


def _counts(
    forward: Callable[[Array], Array],
    Z: Array,
    rows: NDArray[np.intp],
    steps: Matrix,
    share: float,
) -> tuple[Matrix, Matrix]:
    """Count the outputs that a step of each axis changes; return also the mean squared change."""
    deviations = Z.std(axis=0, dtype=np.float64)
    # Small differences of outputs would be lost in single precision.
    start = Z[rows].astype(np.float64)
    signs = np.where(np.arange(len(start)) % 2, -1.0, 1.0)
    outputs = forward(start)
    rounding = ROUNDING * np.abs(outputs).max()
    counts = np.full((len(steps), len(deviations)), np.nan)
    effects = np.zeros_like(counts)
    moved = start.copy()
    for axis, deviation in enumerate(deviations):
        for number, step in enumerate(steps):
            moved[:, axis] = start[:, axis] + signs * (step * deviation)
            change = np.abs(forward(moved) - outputs)
            largest = change.max(axis=1, keepdims=True)
            felt = largest[:, 0] > rounding
            if felt.any():
                counts[number, axis] = (change > share * largest)[felt].sum(axis=1).mean()
                effects[number, axis] = np.einsum("ia,ia->", change, change) / len(change)
        moved[:, axis] = start[:, axis]
    return counts, effects


def _mean(counts: Matrix, weights: Matrix) -> Matrix:
    """Average over the axes that change any output; NaN if none does."""
    known = ~np.isnan(counts)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (np.where(known, counts, 0) * weights).sum(axis=1) / (known * weights).sum(axis=1)
        )
