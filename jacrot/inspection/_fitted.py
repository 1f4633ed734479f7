"""Access of inspections to a fitted estimator: its network, its segments, and refits."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.parallel import Parallel
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.provenance import describe_parameters
from jacrot.network import Network
from jacrot.segments import RotatedSegment

# Parameters that may differ between a fit and its repetitions.
WITHOUT_CONSEQUENCE = ("random_state", "n_jobs", "verbose", "on_interrupt")

Estimator = TypeVar("Estimator", bound=NetworkEstimator)


def fitted_network(estimator: Any) -> Network:
    """Return the one network that an estimator was fitted to.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        The value that the user passed.

    Returns
    -------
    Network
        Its network.

    Raises
    ------
    TypeError
        If it is not an estimator of this package.
    NotFittedError
        If it was not fitted.
    ValueError
        If it was fitted to Jacobians computed elsewhere, or to several blocks.
    """
    if not isinstance(estimator, NetworkEstimator):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}; pass a fitted JacobianSparsityRotation "
            "or NetworkRotation."
        )
    check_is_fitted(estimator)
    network = estimator.network_
    if network is None:
        raise ValueError(
            "estimator was fitted to Jacobians computed elsewhere and has no network to compute "
            "others; pass an estimator that was fitted to a network."
        )
    if isinstance(network, tuple):
        raise ValueError(
            f"estimator was fitted to {len(network)} blocks that share a basis; pass an estimator "
            "that was fitted to a single network."
        )
    return network


def check_as_fitted(estimator: NetworkEstimator) -> None:
    """Check that an estimator has the parameters of its fit, with which it is fitted again.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted.

    Raises
    ------
    ValueError
        If parameters were changed after the fit, by ``set_params`` or assignment.
    """
    fitted = estimator.provenance_["parameters"]
    now = describe_parameters(estimator)
    changed = [
        f"{name} ({fitted[name]!r} to {value!r})"
        for name, value in now.items()
        if name not in WITHOUT_CONSEQUENCE and name in fitted and fitted[name] != value
    ]
    if changed:
        raise ValueError(
            f"estimator has other parameters than those of its fit: {', '.join(changed)}; its "
            "refits would not be comparable. Fit it again, or restore the parameters."
        )


def rotated_segments(estimator: NetworkEstimator, X: Any, name: str) -> list[RotatedSegment]:
    """Return the segments of an estimator on given inputs, in its bases.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted.
    X : array-like of shape (n_samples, n_features)
        The inputs.
    name : str
        Their name in the error message.

    Returns
    -------
    list of RotatedSegment
        One segment, or one for every layer.

    Raises
    ------
    ValueError
        If the inputs have the wrong number of features, or are not finite numbers.
    """
    try:
        return estimator.rotated_segments(X)
    except ValueError as error:
        raise ValueError(f"{name} does not fit the estimator: {error}") from error


def in_parallel(tasks: Iterable[Any], n_jobs: int | None) -> list[Any]:
    """Run tasks, in parallel if requested.

    Parameters
    ----------
    tasks : iterable
        Tasks built by ``delayed``.
    n_jobs : int or None
        Number of parallel tasks.

    Returns
    -------
    list
        Their results, in order.

    Raises
    ------
    RuntimeError
        If a process was killed.
    """
    try:
        return list(Parallel(n_jobs=n_jobs)(tasks))
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed before the end of its fit, perhaps because memory ran "
            f"out, and there is no result; pass a smaller n_jobs than {n_jobs}, or fewer samples."
        ) from error


def refit(
    estimator: Estimator,
    network: Network,
    X: ArrayLike,
    rng: np.random.RandomState,
    **parameters: Any,
) -> Estimator:
    """Repeat a fit with other random numbers, and optionally another network or parameters.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Estimator whose parameters are used; not modified.
    network : Network
        Network to fit to.
    X : array-like of shape (n_samples, n_features)
        Inputs of the network.
    rng : numpy.random.RandomState
        Random number generator of the fit.
    **parameters : dict
        Parameters that differ from those of the estimator.

    Returns
    -------
    JacobianSparsityRotation or NetworkRotation
        Fitted.
    """
    # Interrupted fits are not comparable.
    always = {"network": None, "random_state": rng, "on_interrupt": "raise", "verbose": 0}
    again = clone(estimator).set_params(**(always | parameters))
    # Callbacks of the estimator are not called for this fit.
    vars(again).pop("_skl_callbacks", None)
    return again.fit(network, X)


def spawn_seeds(rng: np.random.RandomState, n: int) -> list[int]:
    """Draw seeds for parallel tasks.

    Parameters
    ----------
    rng : numpy.random.RandomState
        Random number generator.
    n : int
        Number of seeds.

    Returns
    -------
    list of int
        The seeds.
    """
    return [int(seed) for seed in rng.randint(np.iinfo(np.int32).max, size=n)]


def check_count(value: Any, name: str, least: int) -> None:
    """Check a number of repeats.

    Parameters
    ----------
    value : object
        The value that the user passed.
    name : str
        Its name in error messages.
    least : int
        Smallest allowed value.

    Raises
    ------
    ValueError
        If it is not an integer, or smaller.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}.")
