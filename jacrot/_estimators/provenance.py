"""Provenance of a fit: parameters, data, networks and versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from copy import copy
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from jacrot._io.fingerprints import fingerprint
from jacrot._utils.arrays import Array
from jacrot._version import __version__
from jacrot.layers._serialization import serialize
from jacrot.network import Network
from jacrot.segments import Segment
from jacrot.segments._captured import Captured, find_source

# Packages whose versions may change results.
PACKAGES = ("numpy", "scipy", "scikit-learn", "pymanopt", "autograd")


def network_fingerprint(network: Network) -> str | None:
    """Hash the layers of a network.

    Parameters
    ----------
    network : Network
        The network.

    Returns
    -------
    str or None
        64 hexadecimal digits; ``None`` if a layer contains a Python function.
    """
    arrays: dict[str, Any] = {}
    try:
        layers = [serialize(layer, str(site), arrays) for site, layer in enumerate(network.layers)]
    except ValueError:
        return None
    digest = hashlib.sha256(json.dumps(layers).encode())
    for name, array in arrays.items():
        digest.update(f"{name} {fingerprint(array)}".encode())
    return digest.hexdigest()


def describe_parameters(estimator: BaseEstimator) -> dict[str, Any]:
    """Return the parameters of an estimator except its network, as JSON values.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator.

    Returns
    -------
    dict
        Parameters by name, with arrays and networks described by hashes, functions by names.
    """
    parameters = estimator.get_params(deep=False)
    parameters.pop("network")
    return {name: _describe_parameter(value) for name, value in parameters.items()}


def fit_provenance(
    estimator: BaseEstimator, seed: int | None, segments: Sequence[Segment | Captured]
) -> dict[str, Any]:
    """Return the provenance of a fit, as JSON values.

    Parameters
    ----------
    estimator : BaseEstimator
        The fitted estimator.
    seed : int or None
        Seed of its random numbers; ``None`` if it is not known.
    segments : sequence of (Segment or Captured)
        The segments that were fitted.

    Returns
    -------
    dict
        ``"estimator"``, ``"parameters"``, ``"seed"``, ``"data"``, ``"networks"`` or
        ``"jacobians"`` (and ``"captured"``, where they were captured from a model), ``"versions"``,
        ``"scores"``.
    """
    network = estimator.network_
    if network is None:
        jacobians = [_describe_array(segment.jacobians) for segment in segments]
        known = [copy(find_source(segment.jacobians)) for segment in segments]
        # A single segment is not recorded as a list.
        source: dict[str, Any] = {"jacobians": jacobians if len(segments) > 1 else jacobians[0]}
        if all(one is not None for one in known):
            source["captured"] = known if len(segments) > 1 else known[0]
    else:
        networks = [network] if isinstance(network, Network) else network
        source = {
            "networks": [
                {"repr": repr(network), "sha256": network_fingerprint(network)}
                for network in networks
            ]
        }
    return {
        "estimator": type(estimator).__name__,
        "parameters": describe_parameters(estimator),
        "seed": seed,
        "data": [_describe_array(segment.activations) for segment in segments],
        **source,
        "versions": dict(_versions()),
        "scores": {
            "sparsity": estimator.sparsity_,
            "sparsity_before": estimator.sparsity_before_,
            "n_iter": estimator.n_iter_,
            "converged": estimator.converged_,
        },
    }


@cache
def _versions() -> dict[str, str]:
    """Return the versions; cached, because reading them takes as long as a small fit."""
    return {
        "jacrot": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _describe_array(array: Array) -> dict[str, Any]:
    """Return shape, dtype and hash of an array."""
    shape = list(array.shape)
    return {"shape": shape, "dtype": str(array.dtype), "sha256": fingerprint(array)}


def _describe_parameter(value: Any) -> Any:
    """Return a parameter as a JSON value, or a description that identifies it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case np.ndarray():
            return _describe_array(value)
        case list() | tuple():
            return [_describe_parameter(item) for item in value]
        case Network():
            return {"repr": repr(value), "sha256": network_fingerprint(value)}
    return getattr(value, "__name__", type(value).__name__)
