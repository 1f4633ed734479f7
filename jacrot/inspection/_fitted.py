"""What is asked of a fitted estimator: its network, its parts, and the same fit again."""

from __future__ import annotations

from numbers import Integral
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from jacrot._arrays import Array
from jacrot._estimator import NetworkEstimator
from jacrot.network import Network
from jacrot.network_rotation import NetworkRotation

Estimator = TypeVar("Estimator", bound=NetworkEstimator)


def fitted_network(estimator: Any) -> Network:
    """Find the one network that an estimator was fitted to.

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
        If it is no estimator of this package.
    NotFittedError
        If it was not fitted.
    ValueError
        If it was fitted to Jacobians computed elsewhere, or to several blocks.
    """
    if not isinstance(estimator, NetworkEstimator):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}; write a fitted JacobianSparsityRotation "
            "or NetworkRotation."
        )
    check_is_fitted(estimator)
    network = estimator.network_
    if network is None:
        raise ValueError(
            "estimator was fitted to Jacobians computed elsewhere and has no network to compute "
            "others; write one that was fitted to a network."
        )
    if isinstance(network, tuple):
        raise ValueError(
            f"estimator was fitted to {len(network)} blocks that share a basis; write one that was "
            "fitted to a single network."
        )
    return network


def parts(estimator: NetworkEstimator, X: ArrayLike) -> list[tuple[Network, Array]]:
    """List the networks whose Jacobians are made sparse, and what each of them reads.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted to one network.
    X : array-like of shape (n_samples, n_features)
        What that network reads.

    Returns
    -------
    list of tuple
        The network and `X`, or every layer of it and its activations.
    """
    network = estimator.network_
    x = estimator._activations(X, reset=False)
    if not isinstance(estimator, NetworkRotation):
        return [(network, x)]
    layers = []
    for site in range(network.n_layers):
        layer = network[site : site + 1]
        layers.append((layer, x))
        x = layer(x)
    return layers


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
        If it is no integer, or smaller.
    """
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}.")
