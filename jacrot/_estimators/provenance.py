"""Where a result comes from: what was fitted, on which data, by which versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
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
from jacrot.segments._captured import Captured, source_of

# What the numbers of a result depend on.
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
        64 hexadecimal digits; ``None`` where a layer holds a Python function, which has no
        fingerprint.
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


def parameters_of(estimator: BaseEstimator) -> dict[str, Any]:
    """Return the parameters of an estimator, but its network, in what JSON can hold.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator.

    Returns
    -------
    dict
        By name: arrays and networks by their hashes, functions by their names.
    """
    parameters = estimator.get_params(deep=False)
    parameters.pop("network")
    return {name: _plain(value) for name, value in parameters.items()}


def of_fit(
    estimator: BaseEstimator, seed: int | None, segments: Sequence[Segment | Captured]
) -> dict[str, Any]:
    """Tell where a fit comes from, in what JSON can hold.

    Parameters
    ----------
    estimator : BaseEstimator
        The fitted estimator.
    seed : int or None
        What its randomness was drawn from, ``None`` where nobody knows.
    segments : sequence of (Segment or Captured)
        What was fitted.

    Returns
    -------
    dict
        ``"estimator"``, ``"parameters"``, ``"seed"``, ``"data"``, ``"networks"`` or
        ``"jacobians"`` (and ``"captured"``, where they were captured from a model), ``"versions"``,
        ``"scores"``.
    """
    network = estimator.network_
    if network is None:
        described = [_data(segment.jacobians) for segment in segments]
        known = [source_of(segment.jacobians) for segment in segments]
        # One is not in a list.
        source: dict[str, Any] = {"jacobians": described if len(segments) > 1 else described[0]}
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
        "parameters": parameters_of(estimator),
        "seed": seed,
        "data": [_data(segment.activations) for segment in segments],
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
    """Look the versions up, which takes as long as a small fit, once."""
    return {
        "jacrot": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _data(array: Array) -> dict[str, Any]:
    """Describe an array without its numbers."""
    shape = list(array.shape)
    return {"shape": shape, "dtype": str(array.dtype), "sha256": fingerprint(array)}


def _plain(value: Any) -> Any:
    """Give a parameter as JSON has it, or what tells it from others."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case np.ndarray():
            return _data(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case Network():
            return {"repr": repr(value), "sha256": network_fingerprint(value)}
    return getattr(value, "__name__", type(value).__name__)
