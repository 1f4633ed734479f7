"""Comparison with null models: the same fit on networks that learned nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.parallel import delayed

from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.inputs import read_network
from jacrot._utils.arrays import Array, Matrix
from jacrot._utils.random import resolve_random_state
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
from jacrot.inspection._pairing import check_same_widths
from jacrot.network import Network
from jacrot.segments import RotatedSegment
from jacrot.segments._null_weights import (
    Change,
    change_weights,
    draw_singular_vectors,
    shuffle,
)

# A score differs from a null model if it is this number of standard deviations from the mean and
# beyond all runs, and if the difference is visible in the digits of the verdict.
DISTINCT = 2.0
VISIBLE = 1e-3
ABOVE, BELOW, SAME = "above", "below", "not distinguishable from"


@dataclass(frozen=True, repr=False)
class NullBaseline(Result):
    """Held-out sparsity of a network and of null models after the same fit.

    Parameters
    ----------
    score, given : float
        Mean Hoyer sparsity of the network's Jacobians on held-out inputs, in the new basis and in
        the given basis.
    nulls, nulls_given : dict of str to ndarray of shape (n_repeats,)
        The same for every null model, by kind.

    Attributes
    ----------
    mean, spread : dict of str to float
        Mean and standard deviation of `nulls`.
    z_score : dict of str to float
        Difference of `score` from the mean, in standard deviations.
    gain : float
        Increase of the sparsity by the rotation, ``score - given``.
    nulls_gain : dict of str to ndarray of shape (n_repeats,)
        The same for every null model.
    gain_z_score : dict of str to float
        Difference of `gain` from the mean of `nulls_gain`, in standard deviations.
    verdict : str
        The conclusion in one line.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.inspection import NullBaseline
    >>> runs = {"shuffled": np.array([0.40, 0.42, 0.44])}
    >>> null = NullBaseline(0.80, 0.50, runs, {"shuffled": np.full(3, 0.3)})
    >>> print(f"{null.z_score['shuffled']:.0f}; {null.verdict.partition(':')[0]}")
    19; sparser than every null
    >>> print(repr(null).partition(";")[0])
    NullBaseline(sparser than every null: sparsity 0.800 is above shuffled (0.420 ± 0.020)
    """

    score: float
    given: float
    nulls: dict[str, Matrix]
    nulls_given: dict[str, Matrix]

    @property
    def mean(self) -> dict[str, float]:
        """Mean of the null scores."""
        return {name: float(runs.mean()) for name, runs in self.nulls.items()}

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation of the null scores."""
        return {name: _spread(runs) for name, runs in self.nulls.items()}

    @property
    def z_score(self) -> dict[str, float]:
        """Difference of the score from the mean of each null model, in standard deviations."""
        return {name: _z_score(self.score, runs) for name, runs in self.nulls.items()}

    @property
    def gain(self) -> float:
        """Increase of the sparsity by the rotation."""
        return self.score - self.given

    @property
    def nulls_gain(self) -> dict[str, Matrix]:
        """Increase of the sparsity by the rotation of every null model."""
        return {name: runs - self.nulls_given[name] for name, runs in self.nulls.items()}

    @property
    def gain_z_score(self) -> dict[str, float]:
        """Difference of the gain from the mean of each null model, in standard deviations."""
        return {name: _z_score(self.gain, runs) for name, runs in self.nulls_gain.items()}

    @property
    def verdict(self) -> str:
        """The conclusion in one line."""
        sparser = {name for name, runs in self.nulls.items() if _outcome(self.score, runs) == ABOVE}
        others = [name for name in self.nulls if name not in sparser]
        return (
            f"{f'no sparser than {_join(others)}' if others else 'sparser than every null'}: "
            f"{_describe_outcomes('sparsity', self.score, self.nulls)}; "
            f"{_describe_outcomes('gain', self.gain, self.nulls_gain)}"
        )

    def _finding(self) -> str:
        return self.verdict

    def _table(self) -> dict[str, list[Any]]:
        names, scores, given = ["this network"], [self.score], [self.given]
        for name, runs in self.nulls.items():
            names += [name] * len(runs)
            scores += runs.tolist()
            given += self.nulls_given[name].tolist()
        gains = np.subtract(scores, given).tolist()
        return {"network": names, "sparsity": scores, "given": given, "gain": gains}


def null_baseline(
    estimator: NetworkEstimator,
    X: ArrayLike,
    X_test: ArrayLike,
    *,
    initial: Any = None,
    n_repeats: int = 10,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
) -> NullBaseline:
    """Compare the sparsity of a network with null models after the same fit.

    A linear map is sparse in its singular basis regardless of what it computes, so that sparsity
    alone is not evidence of structure. The null models are

    - ``"shuffled"``: the entries of every weight array with two or more dimensions in random order;
    - ``"spectrum"``: every such array with the same singular values and random singular vectors
      (arrays with more dimensions are reshaped to ``(n_outputs, rest)``);
    - ``"initial"``, if passed: the network before training, fitted with other seeds.

    Biases and other arrays with one dimension are kept. All null models are evaluated on the same
    `X`; for a :class:`jacrot.NetworkRotation` these are the inputs, from which the inner
    activations are computed. A `readout` of the estimator is kept as well.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Estimator fitted to one network on `X`; not modified.
    X : array-like of shape (n_samples, n_features)
        Inputs for the fits of the null models.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs for all scores.
    initial : Network or array-likes, default=None
        The network before training, or its weights, with the `activation` of the estimator.
    n_repeats : int, default=10
        Number of null models of each kind.
    random_state : int, RandomState instance or None, default=None
        Determines the null models and the random numbers of their fits.
    n_jobs : int, default=None
        Number of parallel fits, as in joblib.

    Returns
    -------
    NullBaseline
        The scores and the verdict.

    Raises
    ------
    TypeError
        If `estimator` is not an estimator of this package.
    NotFittedError
        If `estimator` was not fitted.
    ValueError
        If it was fitted to several blocks, to Jacobians computed elsewhere, or to a network
        without weights that can be shuffled, or its parameters were changed after the fit; if
        `n_repeats` is below 2, or `X`, `X_test` or `initial` does not fit.
    RuntimeError
        If a worker process was killed.

    Notes
    -----
    ``"initial"`` is a single network: its spread is that of the search only, and its z-score does
    not account for other initial weights.

    In the verdict, above (below) a null model means more than two standard deviations from its
    mean, and beyond all of its runs. With 10 runs of a null model from which the network does not
    differ, each happens with probability at most 1/11. The gain is the increase by the rotation: a
    network can be sparser than a null model because it already is in the basis of neurons.

    References
    ----------
    J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, section 3 (the comparison
    with randomised weights).

    Examples
    --------
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.inspection import null_baseline
    >>> problem = make_planted_problem(8, 16, density=0.2, random_state=0)
    >>> X, X_test = problem.X[:200], problem.X[200:]
    >>> rotation = JacobianSparsityRotation(problem.network, tol=1e-2, random_state=0).fit(X)
    >>> null = null_baseline(rotation, X, X_test, n_repeats=3, random_state=0)
    >>> bool(null.score > max(null.nulls["shuffled"]))
    True
    """
    network = fitted_network(estimator)
    check_as_fitted(estimator)
    check_count(n_repeats, "n_repeats", 2)
    fitted = rotated_segments(estimator, X, "X")
    held_out = rotated_segments(estimator, X_test, "X_test")
    sources: dict[str, tuple[Network, Change | None]] = {
        "shuffled": (network, shuffle),
        "spectrum": (network, draw_singular_vectors),
    }
    if not _count_weights(network):
        raise ValueError(
            f"{network!r} has no array of two dimensions or more that could be shuffled; pass a "
            "network with weights."
        )
    if initial is not None:
        untrained = read_network(initial, estimator.activation, fitted[0].segment.activations)
        check_same_widths(network, untrained, "initial")
        sources["initial"] = (untrained, None)
    rng = resolve_random_state(random_state)
    tasks = (
        delayed(_scores)(estimator, *source, X, X_test, seed)
        for source in sources.values()
        for seed in spawn_seeds(rng, n_repeats)
    )
    runs = np.array(in_parallel(tasks, n_jobs)).reshape(len(sources), n_repeats, 2)
    return NullBaseline(
        score=estimator.score(X_test),
        given=_given_sparsity(held_out),
        nulls={name: runs[index, :, 0] for index, name in enumerate(sources)},
        nulls_given={name: runs[index, :, 1] for index, name in enumerate(sources)},
    )


def _count_weights(network: Network) -> int:
    count = 0

    def counted(weight: Array, rng: np.random.RandomState) -> Array:
        nonlocal count
        count += 1
        return weight

    change_weights(network, counted, resolve_random_state(0))
    return count


def _scores(
    estimator: NetworkEstimator,
    network: Network,
    change: Change | None,
    X: ArrayLike,
    X_test: ArrayLike,
    seed: int,
) -> tuple[float, float]:
    """Fit a null model, and return its scores in the new and in the given basis."""
    rng = np.random.RandomState(seed)
    null = network if change is None else change_weights(network, change, rng)
    fitted = refit(estimator, null, X, rng)
    return fitted.score(X_test), _given_sparsity(fitted.rotated_segments(X_test))


def _given_sparsity(rotated: list[RotatedSegment]) -> float:
    """Compute the ``score`` without a rotation."""
    return float(np.mean([one.given.given_sparsity for one in rotated]))


def _spread(runs: Matrix) -> float:
    return float(runs.std(ddof=1))


def _z_score(value: float, runs: Matrix) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((value - runs.mean()) / np.float64(_spread(runs)))


def _describe_outcomes(what: str, value: float, nulls: dict[str, Matrix]) -> str:
    """Return a clause that lists the null models above, below and at a value."""
    outcomes: dict[str, list[str]] = {}
    for name, runs in nulls.items():
        figures = f"{name} ({runs.mean():.3f} ± {_spread(runs):.3f})"
        outcomes.setdefault(_outcome(value, runs), []).append(figures)
    clauses = [f"{outcome} {_join(names)}" for outcome, names in outcomes.items()]
    return f"{what} {value:.3f} is {', '.join(clauses)}"


def _join(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _outcome(value: float, runs: Matrix) -> str:
    z = _z_score(value, runs)
    if z > DISTINCT and value > runs.max() and value - runs.mean() > VISIBLE:
        return ABOVE
    if z < -DISTINCT and value < runs.min() and runs.mean() - value > VISIBLE:
        return BELOW
    return SAME
