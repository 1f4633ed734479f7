"""Validation of the arguments of ``fit``: which is the network, and which the activations."""

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
    """Return the network and the activations, from either form of ``fit``.

    Parameters
    ----------
    estimator : str
        Name of the class, for error messages.
    network : object
        Argument of the constructor, or ``None``.
    X, y : object
        Arguments of ``fit``.

    Returns
    -------
    weights : object
        The network, in any accepted form.
    X : object
        The activations.

    Raises
    ------
    ValueError
        If there is no network, if there are two, or if network and activations are in the wrong
        order.
    """
    forms = f"pass {estimator}(network).fit(X), or {estimator}().fit(weights, X)"
    given = network is not None
    if read_segments(network) is not None:
        raise ValueError(
            f"network is a segment, which has its own activations; pass {estimator}().fit(segment)."
        )
    segments = read_segments(X)
    if segments is None and read_segments(y) is not None:
        raise ValueError(
            f"a segment was passed in place of the activations; pass {estimator}().fit(segment) "
            "without a network."
        )
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
            f"the network was passed in place of the activations: {forms}, in this order."
        )
    if are_batches(activations):
        if not isinstance(weights, Network) and not (
            are_batches(weights)
            or (isinstance(weights, (list, tuple)) and is_network_like(weights))
        ):
            raise ValueError(
                f"the activations are a list of {len(activations)} arrays, but the network is not "
                f"a list of the same length: if the list contains the weights, {forms}, in this "
                "order; if it contains the activations of several blocks, pass a list with one "
                "network for each of them."
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
    """Return segments as a list, or ``None`` for other arguments.

    Parameters
    ----------
    X : object
        First argument of ``fit``.

    Returns
    -------
    list of (Segment or Captured), or None
        ``None`` if `X` is anything else.

    Raises
    ------
    TypeError
        If `X` is a list of segments and other objects.
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
        f"X is a list of {', '.join(names)}; pass only segments of networks, or only captured "
        "segments."
    )


def read_network(weights: Any, activation: Any, X: Array) -> Network:
    """Build a network from the argument of a user, and check that it reads the activations.

    Parameters
    ----------
    weights : object
        The network, in any accepted form.
    activation : str, callable or list of them
        Activation functions for raw weights; ignored for layers.
    X : ndarray
        The activations.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError
        If the network reads another number of features.
    """
    network = Network(weights, "relu" if is_made_of_layers(weights) else activation)
    n_features = X.shape[FEATURES_AXIS[X.ndim]]
    if network.n_inputs not in (None, n_features):
        hint = "pass the layers that follow these activations, such as network[1:]."
        if chains_transposed(network.layers) and network.layers[0].n_outputs == n_features:
            hint = transposed_hint("out_in")
        raise ValueError(
            f"X has {n_features} features but the network reads {network.n_inputs}; {hint}"
        )
    return network


def are_batches(X: Any) -> bool:
    """Check whether activations are a list of arrays, one for each of several blocks.

    Parameters
    ----------
    X : object
        The activations.

    Returns
    -------
    bool
        Whether `X` is a list of arrays, not an array or rows of numbers.
    """
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(getattr(batch, "ndim", 0) >= 2 for batch in X)
    )


def is_network_like(X: Any) -> bool:
    """Check whether an argument can only be a network, not activations.

    Parameters
    ----------
    X : object
        The argument.

    Returns
    -------
    bool
        Whether `X` contains layers or weights and cannot be activations.
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
    """Check whether `X` and `y` are weights and activations, not samples and their targets."""
    if getattr(y, "ndim", 0) != 2 or _is_network(X) or describe_framework_model(X) is not None:
        return False
    return bool(_num_samples(X) != len(y))


def _check_order(estimator: str, weights: Any, activations: Any) -> None:
    """Check that Jacobians and their activations are not in the wrong order."""
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
