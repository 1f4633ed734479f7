"""Recurrence of axes in fits from other starts and on resampled inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import resample
from sklearn.utils.parallel import delayed

from jacrot._estimators.base import NetworkEstimator
from jacrot._search.subspace import NEGLIGIBLE, sensitivities
from jacrot._utils.arrays import Matrix
from jacrot._utils.random import random_rotation, resolve_random_state
from jacrot._utils.result import Result
from jacrot.inspection._fitted import (
    check_as_fitted,
    check_count,
    fitted_network,
    in_parallel,
    refit,
    rotated_segments,
    spawn_seeds,
)
from jacrot.metrics import match_axes
from jacrot.network import Network
from jacrot.segments import RotatedSegment

# A rotation's name: "input", "output", or the site of a whole network.
Name = str | int
# Minimum number of random axes over which the chance level is averaged.
CHANCE_AXES = 1000


@dataclass(frozen=True, repr=False)
class AxisStability(Result):
    """Recurrence of the axes of every rotation.

    The keys of all dictionaries are the rotations: ``"input"`` and, if the outputs have a separate
    rotation, ``"output"``; for a :class:`jacrot.NetworkRotation` the sites.

    Parameters
    ----------
    cosines_of_starts : dict of ndarray of shape (n_starts, n_axes)
        ``|cos|`` between every axis and the matched axis of fits from other starts; NaN for axes
        without effect.
    cosines_of_samples : dict of ndarray of shape (n_resamples, n_axes)
        The same for fits on resampled inputs.
    effect : dict of ndarray of shape (n_axes,)
        Share of every axis in the mean square of the Jacobians, with every sample scaled to the
        same norm; inside a whole network, of the Jacobians on both sides of the site.
    chance : dict of float
        Mean ``|cos|`` of matched axes if one of the two rotations is random.

    Attributes
    ----------
    recurrence : dict of ndarray of shape (n_axes,)
        Mean ``|cos|`` of every axis over all fits; NaN for axes without effect.
    mean : dict of float
        Mean of the recurrence, weighted by effect.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.inspection import AxisStability
    >>> one = {"input": np.array([[1.0, 0.5]])}
    >>> stability = AxisStability(one, one, {"input": np.array([0.8, 0.2])}, {"input": 0.9})
    >>> print(f"{stability.mean['input']:.2f}")
    0.90
    >>> stability
    AxisStability(input axes recur by 0.90 (chance 0.90): weighted mean |cos| over 2 fits)
    """

    cosines_of_starts: dict[Any, Matrix]
    cosines_of_samples: dict[Any, Matrix]
    effect: dict[Any, Matrix]
    chance: dict[Any, float]

    @property
    def recurrence(self) -> dict[Any, Matrix]:
        """Mean ``|cos|`` of every axis over all fits."""
        return {
            name: np.concatenate([starts, self.cosines_of_samples[name]]).mean(axis=0)
            for name, starts in self.cosines_of_starts.items()
        }

    @property
    def mean(self) -> dict[Any, float]:
        """Mean of the recurrence, weighted by effect."""
        means = {}
        for name, recurrence in self.recurrence.items():
            has_effect = ~np.isnan(recurrence)
            weights = self.effect[name][has_effect]
            means[name] = float(np.average(recurrence[has_effect], weights=weights))
        return means

    def _finding(self) -> str:
        figures = ", ".join(
            f"{f'site {name}' if isinstance(name, int) else name} axes recur by {mean:.2f} (chance "
            f"{self.chance[name]:.2f})"
            for name, mean in self.mean.items()
        )
        fits = (self.cosines_of_starts, self.cosines_of_samples)
        n_fits = sum(len(next(iter(cosines.values()))) for cosines in fits)
        return f"{figures}: weighted mean |cos| over {n_fits} fits"

    def _table(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            name: []
            for name in ("rotation", "axis", "effect", "recurrence", "starts", "samples", "chance")
        }
        for name, recurrence in self.recurrence.items():
            n_axes = len(recurrence)
            columns["rotation"] += [name] * n_axes
            columns["axis"] += range(n_axes)
            columns["effect"] += self.effect[name].tolist()
            columns["recurrence"] += recurrence.tolist()
            columns["starts"] += self.cosines_of_starts[name].mean(axis=0).tolist()
            columns["samples"] += self.cosines_of_samples[name].mean(axis=0).tolist()
            columns["chance"] += [self.chance[name]] * n_axes
        return columns


def axis_stability(
    estimator: NetworkEstimator,
    X: ArrayLike,
    *,
    n_starts: int = 5,
    n_resamples: int = 5,
    keep: bool = False,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
) -> AxisStability:
    """Measure whether axes recur in fits from other starts and on resampled inputs.

    The axes of each fit are matched with those of `estimator` by the largest sum of ``|cos|``. An
    axis that recurs is a property of the network; other axes were chosen by chance among many that
    are equally sparse.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Estimator fitted to one network on `X`.
    X : array-like of shape (n_samples, n_features)
        Inputs for the fits.
    n_starts : int, default=5
        Number of fits to `X` from other starts, which are random rotations. A
        :class:`jacrot.NetworkRotation`, which starts from the rotations of its layers, is fitted
        with other seeds.
    n_resamples : int, default=5
        Number of fits, with the parameters of `estimator` and other seeds, to rows of `X` that are
        resampled with replacement.
    keep : bool, default=False
        Whether `estimator` keeps the result as ``axis_stability_``.
    random_state : int, RandomState instance or None, default=None
        Determines the starts, the resamples, and the random numbers of the fits.
    n_jobs : int, default=None
        Number of parallel fits, as in joblib.

    Returns
    -------
    AxisStability
        The cosines and the chance level.

    Raises
    ------
    TypeError
        If `estimator` is not an estimator of this package.
    NotFittedError
        If `estimator` was not fitted.
    ValueError
        If it was fitted to several blocks or to Jacobians computed elsewhere, its parameters were
        changed after the fit, `X` does not fit it, or a number of fits is below 1.
    RuntimeError
        If a worker process was killed.

    Notes
    -----
    In functional coordinates the axes are those of the whitened activations of each fit.

    Axes without any effect only complete the basis; their recurrence is NaN. Axes with little
    effect contribute little to the sparsity and recur less; `mean` weights axes by `effect`.

    Matched axes of random rotations are not orthogonal, because the best of many pairs are chosen.
    Compare the recurrence with this level, `chance`, which decreases with the number of axes. It
    is computed for rotations of the directions with an effect; with `n_components`, these are about
    the same in all fits.

    References
    ----------
    J. Himberg, A. Hyvärinen and F. Esposito, "Validating the independent components of
    neuroimaging time series via clustering and visualization", NeuroImage 22 (2004) (other starts
    and bootstrap, for independent components).

    Examples
    --------
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.inspection import axis_stability
    >>> problem = make_planted_problem(8, 24, density=0.2, random_state=0)
    >>> rotation = JacobianSparsityRotation(problem.network, tol=1e-2, random_state=0)
    >>> stability = axis_stability(
    ...     rotation.fit(problem.X), problem.X, n_starts=2, n_resamples=2, random_state=0
    ... )
    >>> print(f"{stability.mean['input']:.2f}, by chance {stability.chance['input']:.2f}")
    1.00, by chance 0.64
    """
    network = fitted_network(estimator)
    check_as_fitted(estimator)
    check_count(n_starts, "n_starts", 1)
    check_count(n_resamples, "n_resamples", 1)
    rotated = rotated_segments(estimator, X, "X")
    rng = resolve_random_state(random_state)
    axes = _rotations_by_site(rotated)
    effect, has_effect = _effects(rotated, axes)
    start, number = _differences(estimator, axes)
    plans = [(seed, False, start | number) for seed in spawn_seeds(rng, n_starts)]
    plans += [(seed, True, number) for seed in spawn_seeds(rng, n_resamples)]
    fits = in_parallel(
        (delayed(_cosines)(estimator, network, X, axes, has_effect, *plan) for plan in plans),
        n_jobs,
    )
    result = AxisStability(
        cosines_of_starts={name: np.array([fit[name] for fit in fits[:n_starts]]) for name in axes},
        cosines_of_samples={
            name: np.array([fit[name] for fit in fits[n_starts:]]) for name in axes
        },
        effect=effect,
        chance={
            name: chance_level(int(nonzero.sum()), rng) for name, nonzero in has_effect.items()
        },
    )
    if keep:
        estimator.axis_stability_ = result
    return result


def chance_level(n_axes: int, rng: np.random.RandomState) -> float:
    """Estimate the mean ``|cos|`` of matched axes of two unrelated rotations.

    Parameters
    ----------
    n_axes : int
        Number of axes and of dimensions.
    rng : numpy.random.RandomState
        Random number generator.

    Returns
    -------
    float
        The mean: 1 for a single axis, 0.83 for two, and less for more axes.
    """
    n_draws = -(-CHANCE_AXES // n_axes)
    identity = np.eye(n_axes)
    draws = [match_axes(identity, random_rotation(n_axes, rng))[1] for _ in range(n_draws)]
    return float(np.mean(draws))


def _rotations_by_site(rotated: list[RotatedSegment]) -> dict[Name, Matrix]:
    """Return the rotations of all segments by site."""
    axes: dict[Name, Matrix] = {}
    for one in rotated:
        axes |= one.rotations
    return axes


def _differences(
    estimator: NetworkEstimator, axes: dict[Name, Matrix]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of fits from other starts, and of all fits."""
    parameters = estimator.get_params()
    # Without the parameter, another seed gives another start.
    start = {"init": "random"} if "init" in parameters else {}
    # A share of the sensitivity may be another number of axes on other inputs.
    reduced = parameters.get("n_components") is not None
    return start, {"n_components": len(axes["input"])} if reduced else {}


def _effects(
    rotated: list[RotatedSegment], axes: dict[Name, Matrix]
) -> tuple[dict[Name, Matrix], dict[Name, NDArray[np.bool_]]]:
    """Return the share of each axis in the mean square of the Jacobians, and if it is nonzero."""
    # By site, E[JᵀJ] of the segment that reads the axes plus E[JJᵀ] of the one that writes them.
    moments = {name: np.zeros((rotation.shape[1],) * 2) for name, rotation in axes.items()}
    for one in rotated:
        for name, moment in zip(one.sites, one.effective.moments, strict=True):
            if name in moments:
                moments[name] += moment
    effect, has_effect = {}, {}
    for name, moment in moments.items():
        squares = sensitivities(axes[name], moment)
        effect[name] = squares / np.trace(moment)
        has_effect[name] = squares > NEGLIGIBLE * np.linalg.norm(moment, 2)
    return effect, has_effect


def _cosines(
    estimator: NetworkEstimator,
    network: Network,
    X: ArrayLike,
    axes: dict[Name, Matrix],
    has_effect: dict[Name, NDArray[np.bool_]],
    seed: int,
    resampled: bool,
    parameters: dict[str, Any],
) -> dict[Name, Matrix]:
    """Repeat the fit, and match the axes with an effect."""
    rng = np.random.RandomState(seed)
    rows = resample(X, random_state=rng) if resampled else X
    found = _rotations_by_site(
        refit(estimator, network, rows, rng, **parameters).rotated_segments(rows)
    )
    cosines = {}
    for name, nonzero in has_effect.items():
        cosines[name] = np.full(len(nonzero), np.nan)
        cosines[name][nonzero] = match_axes(axes[name][nonzero], found[name])[1]
    return cosines
