"""The two forms of ``fit``: which argument is the network, and which the activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import _num_samples

from jacrot._utils.arrays import FEATURES_AXIS, Array
from jacrot._utils.frameworks import describe_framework_model
from jacrot.layers import Layer
from jacrot.layers._weights import chains_transposed, is_made_of_layers, transposed_hint
from jacrot.network import Network
from jacrot.segments import Segment
from jacrot.segments._captured import Captured


def resolve_fit_inputs(estimator: str, network: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Return the network and the activations, wherever they were passed.

    Parameters
    ----------
    estimator : str
        Name of the class, for error messages.
    network : object
        What the constructor got, or ``None``.
    X, y : object
        What ``fit`` got.

    Returns
    -------
    weights : object
        The network, in any of the forms in which it is accepted.
    X : object
        The activations.

    Raises
    ------
    ValueError
        If there is no network or there are two, or if the activations stand where the network
        belongs.
    """
    forms = f"pass {estimator}(network).fit(X), or {estimator}().fit(weights, X)"
    given = network is not None
    if read_segments(network) is not None:
        raise ValueError(
            f"network is a segment, which has its own activations; pass {estimator}().fit(segment)."
        )
    if read_segments(y) is not None and read_segments(X) is None:
        raise ValueError(
            f"a segment stands where the activations belong; pass {estimator}().fit(segment) "
            "without a network."
        )
    segments = read_segments(X)
    if segments is not None:
        if given or y is not None:
            raise ValueError(
                f"a segment has its own Jacobians and activations; pass {estimator}()"
                ".fit(segment) without a network, or fit(*captured)."
            )
        several = [segment.activations for segment in segments]
        return segments, several if isinstance(X, (list, tuple)) and len(X) > 1 else several[0]
    weights, activations = (network, X) if given else (X, y)
    if given and _are_two_arrays(X, y):
        raise ValueError(f"there are two networks, in the constructor and in fit: {forms}.")
    if activations is None:
        raise ValueError(f"there is no network: {forms}.")
    if is_network_like(activations) or describe_framework_model(activations) is not None:
        if given and (y is not None or is_network_like(network)):
            raise ValueError(f"there are two networks, in the constructor and in fit: {forms}.")
        raise ValueError(
            f"the network stands where the activations belong: {forms}, in this order."
        )
    if are_batches(activations):
        if not isinstance(weights, Network) and not (
            are_batches(weights)
            or (isinstance(weights, (list, tuple)) and is_network_like(weights))
        ):
            raise ValueError(
                f"the activations are a list of {len(activations)} arrays, but the network is not "
                f"a list of as many: if the list holds the weights, {forms}, in this order; if it "
                "holds the activations of several blocks, pass a list of as many networks too."
            )
        if isinstance(weights, (list, tuple)):
            for one, batch in zip(weights, activations, strict=False):
                _check_order(estimator, one, batch)
        return weights, activations
    if not given and np.ndim(activations) < 2:
        raise ValueError(
            f"there is no network, or the activations have fewer than two dimensions: {forms} with "
            "X of shape (n_samples, n_features)."
        )
    _check_order(estimator, weights, activations)
    return weights, activations


def read_segments(X: Any) -> list[Segment | Captured] | None:
    """Return the segments that a user passed.

    Parameters
    ----------
    X : object
        What the user passed as first argument.

    Returns
    -------
    list of (Segment or Captured), or None
        ``None`` where it is something else.

    Raises
    ------
    TypeError
        If it is a list of segments and other things.
    """
    kinds = (Segment, Captured)
    if isinstance(X, kinds):
        return [X]
    if not isinstance(X, (list, tuple)) or not any(isinstance(one, kinds) for one in X):
        return None
    for kind in kinds:
        if all(isinstance(one, kind) for one in X):
            return list(X)
    names = sorted({type(one).__name__ for one in X})
    raise TypeError(
        f"X is a list of {', '.join(names)}; pass segments of networks alone, or what was captured "
        "alone."
    )


def read_network(weights: Any, activation: Any, X: Array) -> Network:
    """Build the network that a user passed, and check that it reads the activations.

    Parameters
    ----------
    weights : object
        The network, in any of the forms in which it is accepted.
    activation : str, callable or list of them
        Of raw weights; what is made of layers knows its own.
    X : ndarray
        The activations.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError
        If it reads another number of features.
    """
    network = Network(weights, "relu" if is_made_of_layers(weights) else activation)
    n_features = X.shape[FEATURES_AXIS[X.ndim]]
    if network.n_inputs not in (None, n_features):
        hint = "pass the layers from these activations on, as network[1:] does."
        if chains_transposed(network.layers) and network.layers[0].n_outputs == n_features:
            hint = transposed_hint("out_in")
        raise ValueError(
            f"X has {n_features} features but the network reads {network.n_inputs}; {hint}"
        )
    return network


def are_batches(X: Any) -> bool:
    """Check for a list of arrays, one for each of several blocks.

    Parameters
    ----------
    X : object
        What the user passed as activations.

    Returns
    -------
    bool
        Whether it is one, and not an array or rows of numbers.
    """
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(getattr(batch, "ndim", 0) >= 2 for batch in X)
    )


def is_network_like(X: Any) -> bool:
    """Check for what can only be a network, where activations may stand too.

    Parameters
    ----------
    X : object
        What the user passed.

    Returns
    -------
    bool
        Whether it holds layers or weights and cannot be activations.
    """
    if isinstance(X, (list, tuple)):
        # Rows of activations are lists of numbers, blocks are arrays of two dimensions or more.
        if are_batches(X):
            return False
        first = X[0] if len(X) else None
        if isinstance(first, (list, tuple)):
            return not all(np.isscalar(entry) for entry in first)
        return getattr(first, "ndim", 0) >= 2 or isinstance(first, Mapping) or callable(first)
    return _is_network(X)


def _is_network(X: Any) -> bool:
    # Some arrays are callable, and some of scipy's sparse ones are mappings.
    return not hasattr(X, "shape") and (isinstance(X, (Network, Layer, Mapping)) or callable(X))


def _are_two_arrays(X: Any, y: Any) -> bool:
    """Check for a second array of another length: not a target of X, which was meant as weights."""
    if getattr(y, "ndim", 0) != 2 or _is_network(X) or describe_framework_model(X) is not None:
        return False
    return bool(_num_samples(X) != len(y))


def _check_order(estimator: str, weights: Any, activations: Any) -> None:
    """Refuse activations followed by a Jacobian for each of them."""
    if (
        getattr(weights, "ndim", 0) == 2
        and getattr(activations, "ndim", 0) in (3, 4)
        and tuple(weights.shape) == (activations.shape[0], activations.shape[-1])
    ):
        raise ValueError(
            f"the first array has shape {tuple(weights.shape)} and the second "
            f"{tuple(activations.shape)}, as activations and their Jacobians have. Jacobians come "
            f"first: pass {estimator}().fit(jacobians, X). If the first is a weight matrix and the "
            "second are sequences that it reads, pass Network(weights) in its place."
        )
