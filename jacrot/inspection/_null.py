"""How sparse the same fit makes networks that learned nothing."""

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
    drawn_seeds,
    fitted_network,
    in_parallel,
    refit,
    rotated_segments,
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

# So many standard deviations from the mean of a null count as a difference, if no run of it is
# beyond; one that the figures of the verdict do not show does not.
DISTINCT = 2.0
VISIBLE = 1e-3
ABOVE, BELOW, SAME = "above", "below", "not distinguishable from"


@dataclass(frozen=True, repr=False)
class NullBaseline(Result):
    """Held-out sparsity of a network, and of the same fit on networks that learned nothing.

    Parameters
    ----------
    score, given : float
        Mean Hoyer sparsity of the network's Jacobians on held-out inputs: in the new basis, and
        in the given one.
    nulls, nulls_given : dict of str to ndarray of shape (n_repeats,)
        The same of every null network, by kind of null.

    Attributes
    ----------
    mean, spread : dict of str to float
        Mean and standard deviation of `nulls`.
    z_score : dict of str to float
        How many standard deviations `score` is above the mean.
    gain : float
        What the rotation added, ``score - given``.
    nulls_gain : dict of str to ndarray of shape (n_repeats,)
        The same of every null network.
    gain_z_score : dict of str to float
        How many standard deviations `gain` is above their mean.
    verdict : str
        What follows from the figures, in one line.

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
        """How many standard deviations the score is above the mean of each null."""
        return {name: _z_score(self.score, runs) for name, runs in self.nulls.items()}

    @property
    def gain(self) -> float:
        """What the rotation added to the sparsity in the given basis."""
        return self.score - self.given

    @property
    def nulls_gain(self) -> dict[str, Matrix]:
        """What the rotation added in every null network."""
        return {name: runs - self.nulls_given[name] for name, runs in self.nulls.items()}

    @property
    def gain_z_score(self) -> dict[str, float]:
        """How many standard deviations the gain is above the mean of each null."""
        return {name: _z_score(self.gain, runs) for name, runs in self.nulls_gain.items()}

    @property
    def verdict(self) -> str:
        """What follows from the figures, in one line."""
        sparser = {name for name, runs in self.nulls.items() if _outcome(self.score, runs) == ABOVE}
        others = [name for name in self.nulls if name not in sparser]
        return (
            f"{f'no sparser than {_listed(others)}' if others else 'sparser than every null'}: "
            f"{_compared('sparsity', self.score, self.nulls)}; "
            f"{_compared('gain', self.gain, self.nulls_gain)}"
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
    """Fit null networks as a network was fitted, and compare their sparsity with its own.

    A linear map is sparse in its singular basis, whatever it computes, so that sparsity alone
    shows no structure. Of the weights, every null keeps only what is said here:

    - ``"shuffled"``: the entries of every weight array of two dimensions or more, in random order;
    - ``"spectrum"``: the same singular values of every such array (one of more dimensions taken as
      ``(n_outputs, rest)``) between random singular vectors;
    - ``"initial"``, if those are given: the weights before training, the fit from other seeds.

    Biases, and other arrays of one dimension, stay. All nulls read the same `X`; of a
    :class:`jacrot.NetworkRotation` these are the inputs, and the activations inside follow. A
    `readout` of the estimator stays too.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted to one network on `X`; stays as it is.
    X : array-like of shape (n_samples, n_features)
        What to fit the nulls on.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs, to score them and the network itself.
    initial : Network or anything that makes one, default=None
        The same network before training; raw weights with the estimator's `activation`.
    n_repeats : int, default=10
        Number of null networks of each kind.
    random_state : int, RandomState instance or None, default=None
        Draws the nulls, and the randomness of their fits.
    n_jobs : int, default=None
        Number of fits at once, as in joblib.

    Returns
    -------
    NullBaseline
        The scores, and what follows from them.

    Raises
    ------
    TypeError
        If `estimator` is none of this package's.
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
    ``"initial"`` is one network: its spread is that of the search alone, and its z-score says
    nothing of other initial weights.

    In the verdict, above (below) a null means: more than two standard deviations from its mean,
    and beyond all of its runs. With 10 runs of a null from which the network does not differ, each
    happens at most once in 11 times. The gain is what the rotation adds: a network can be sparser
    than a null because its neurons are so already.

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
        for seed in drawn_seeds(rng, n_repeats)
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
    """Fit a null network, and score it in its new and in its given basis."""
    rng = np.random.RandomState(seed)
    null = network if change is None else change_weights(network, change, rng)
    fitted = refit(estimator, null, X, rng)
    return fitted.score(X_test), _given_sparsity(fitted.rotated_segments(X_test))


def _given_sparsity(rotated: list[RotatedSegment]) -> float:
    """Compute what ``score`` is with no rotation at all."""
    return float(np.mean([one.given.given_sparsity for one in rotated]))


def _spread(runs: Matrix) -> float:
    return float(runs.std(ddof=1))


def _z_score(value: float, runs: Matrix) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((value - runs.mean()) / np.float64(_spread(runs)))


def _compared(what: str, value: float, nulls: dict[str, Matrix]) -> str:
    """Say above which nulls a figure is, below which, and from which it cannot be told."""
    outcomes: dict[str, list[str]] = {}
    for name, runs in nulls.items():
        figures = f"{name} ({runs.mean():.3f} ± {_spread(runs):.3f})"
        outcomes.setdefault(_outcome(value, runs), []).append(figures)
    clauses = [f"{outcome} {_listed(names)}" for outcome, names in outcomes.items()]
    return f"{what} {value:.3f} is {', '.join(clauses)}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _outcome(value: float, runs: Matrix) -> str:
    z = _z_score(value, runs)
    if z > DISTINCT and value > runs.max() and value - runs.mean() > VISIBLE:
        return ABOVE
    if z < -DISTINCT and value < runs.min() and runs.mean() - value > VISIBLE:
        return BELOW
    return SAME
