"""Checks that an estimator was fitted to a network, which equal widths do not ensure."""

from __future__ import annotations

from typing import Any

import numpy as np

from jacrot.layers._base import BaseLayer
from jacrot.network import Network

# Weights that differ by at most this share of the largest are equal up to single precision.
WEIGHTS_TOL = 1e-6


def same_network(first: Network, second: Network) -> bool:
    """Check whether two networks have the same layers, in the same order.

    Parameters
    ----------
    first, second : Network
        The networks.

    Returns
    -------
    bool
        Whether they are the same object, or their layers have the same types, the same arguments
        and the same weights up to single precision. Python functions and layers of other classes
        are compared with ``==``.
    """
    return first is second or _same(list(first.layers), list(second.layers))


def check_fitted_to(estimator: Any, network: Network, what: str) -> None:
    """Check that an estimator was fitted to a network.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        A fitted estimator.
    network : Network
        The network, or the part of a network, with which its axes are used.
    what : str
        Description of that network in the error message, such as ``"network[1:2]"``.

    Raises
    ------
    ValueError
        If the estimator was fitted to another network or to Jacobians.
    """
    fitted = estimator.network_
    if not isinstance(fitted, Network):
        kind = "Jacobians computed elsewhere" if fitted is None else f"{len(fitted)} blocks"
        raise ValueError(
            f"the {type(estimator).__name__} was fitted to {kind}, not to {what}; pass an "
            f"estimator that was fitted to {what}."
        )
    if same_network(fitted, network):
        return
    if fitted.n_layers != network.n_layers:
        reason = f"{fitted.n_layers} layer(s), not {network.n_layers}"
    else:
        pairs = enumerate(zip(fitted.layers, network.layers, strict=True))
        site = next(site for site, (ours, theirs) in pairs if not _same(ours, theirs))
        reason = f"another layer {site}" if network.n_layers > 1 else "another layer"
    raise ValueError(
        f"the {type(estimator).__name__} was fitted to {fitted!r}, which is not {what} (it has "
        f"{reason}), and its axes have no meaning there; pass an estimator that was fitted to "
        f"{what}, or use the estimator's network_."
    )


def check_same_widths(network: Network, other: Network, name: str) -> None:
    """Check that another network has layers with the same widths.

    Parameters
    ----------
    network : Network
        The network.
    other : Network
        The other network.
    name : str
        Name of its argument in the error message.

    Raises
    ------
    ValueError
        If the numbers of layers or their widths differ.
    """
    unknown = (None, None)
    ours, theirs = (
        [sides for layer in each if (sides := (layer.n_inputs, layer.n_outputs)) != unknown]
        for each in (network, other)
    )
    if ours != theirs:
        raise ValueError(
            f"{name} is {other!r}, but the estimator was fitted to {network!r}; pass a network "
            "with the same layers, in which only the weights differ."
        )


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        if first.shape != second.shape:
            return False
        if {first.dtype.kind, second.dtype.kind} != {"f"} or first.size == 0:
            return bool(np.array_equal(first, second))
        return bool(np.abs(first - second).max() <= WEIGHTS_TOL * np.abs(first).max())
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, BaseLayer) and type(first) is type(second):
        return _same(list(first.arguments.items()), list(second.arguments.items()))
    return bool(np.all(first == second))
