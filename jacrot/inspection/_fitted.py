"""What inspections need of a fitted estimator: its network, its segments, the same fit again."""

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
from jacrot._estimators.provenance import parameters_of
from jacrot.network import Network
from jacrot.segments import RotatedSegment

# Parameters that do not change what a fit with other randomness is compared with.
WITHOUT_CONSEQUENCE = ("random_state", "n_jobs", "verbose", "on_interrupt")

Estimator = TypeVar("Estimator", bound=NetworkEstimator)


def fitted_network(estimator: Any) -> Network:
    """Return the one network that an estimator was fitted to.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        What the user gave.

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
            "others; pass one that was fitted to a network."
        )
    if isinstance(network, tuple):
        raise ValueError(
            f"estimator was fitted to {len(network)} blocks that share a basis; pass one that was "
            "fitted to a single network."
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
        If some were changed after the fit, by ``set_params`` or by hand.
    """
    fitted = estimator.provenance_["parameters"]
    now = parameters_of(estimator)
    changed = [
        f"{name} ({fitted[name]!r} to {value!r})"
        for name, value in now.items()
        if name not in WITHOUT_CONSEQUENCE and name in fitted and fitted[name] != value
    ]
    if changed:
        raise ValueError(
            f"estimator has other parameters than those of its fit: {', '.join(changed)}; fits "
            "with these would be compared with one without. Fit it again, or set them back."
        )


def rotated_segments(estimator: NetworkEstimator, X: Any, name: str) -> list[RotatedSegment]:
    """Return what an estimator was fitted to, on some inputs and in its bases.

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
        One, or one of every layer.

    Raises
    ------
    ValueError
        If their number of features is another, or some are not numbers.
    """
    try:
        return estimator.rotated_segments(X)
    except ValueError as error:
        raise ValueError(f"{name} does not fit the estimator: {error}") from error


def in_parallel(tasks: Iterable[Any], n_jobs: int | None) -> list[Any]:
    """Run tasks, at once where asked for.

    Parameters
    ----------
    tasks : iterable
        Made by ``delayed``.
    n_jobs : int or None
        Number of tasks at once.

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
            "a worker process was killed before its fit had ended, perhaps for want of memory, and "
            f"there is no result; pass a smaller n_jobs than {n_jobs}, or fewer samples."
        ) from error


def refit(
    estimator: Estimator,
    network: Network,
    X: ArrayLike,
    rng: np.random.RandomState,
    **parameters: Any,
) -> Estimator:
    """Fit again with other randomness, perhaps to another network or with other parameters.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Says how to fit; stays as it is.
    network : Network
        What to fit to.
    X : array-like of shape (n_samples, n_features)
        What the network reads.
    rng : numpy.random.RandomState
        All randomness of the fit.
    **parameters : dict
        Parameters that differ from the estimator's.

    Returns
    -------
    JacobianSparsityRotation or NetworkRotation
        Fitted.
    """
    # A fit that was cut short is no fit to compare with.
    always = {"network": None, "random_state": rng, "on_interrupt": "raise", "verbose": 0}
    again = clone(estimator).set_params(**(always | parameters))
    # Whoever follows the estimator's own fit neither hears of this one nor stops it.
    vars(again).pop("_skl_callbacks", None)
    return again.fit(network, X)


def drawn_seeds(rng: np.random.RandomState, n: int) -> list[int]:
    """Draw seeds for tasks that may run at once.

    Parameters
    ----------
    rng : numpy.random.RandomState
        Draws them.
    n : int
        How many.

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
        What the user gave.
    name : str
        Its name in error messages.
    least : int
        The smallest that makes sense.

    Raises
    ------
    ValueError
        If it is not an integer, or smaller.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}.")
