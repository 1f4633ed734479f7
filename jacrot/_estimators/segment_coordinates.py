"""Coordinates in which the inputs and the outputs of a segment are rotated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jacrot._jacobians.coordinates import (
    Coordinates,
    FunctionalCoordinates,
    NeuronCoordinates,
    readout_moment,
)
from jacrot._jacobians.effective import EffectiveJacobians
from jacrot._search.objective import OutputMode
from jacrot._search.subspace import effective_basis
from jacrot._utils.arrays import FEATURES_AXIS, Array, Matrix
from jacrot.layers._weights import is_made_of_layers
from jacrot.network import Network
from jacrot.segments import Segment
from jacrot.segments._captured import Captured


class SegmentCoordinates(NamedTuple):
    """Coordinates of the inputs and the outputs of a segment.

    Attributes
    ----------
    inner, outer : Coordinates
        Coordinates of the inputs and of the outputs.
    """

    inner: Coordinates = NeuronCoordinates()
    outer: Coordinates = NeuronCoordinates()

    @property
    def left(self) -> Matrix | None:
        """Factor of the Jacobians from the left; ``None`` for the identity."""
        inner, outer = self
        # The problem weights tied outputs, not the factor.
        if isinstance(outer, FunctionalCoordinates) and outer is inner:
            return outer.forward
        return outer.factor

    @property
    def right(self) -> Matrix | None:
        """Factor of the Jacobians from the right; ``None`` for the identity."""
        return self.inner.factor


def functional_coordinates(
    segment: Segment | Captured,
    effective: EffectiveJacobians,
    output: OutputMode,
    criterion: Any,
    n_components: int | float | None,
    readout: Matrix | None,
) -> tuple[SegmentCoordinates, Matrix | None]:
    """Compute the functional coordinates of a segment.

    Parameters
    ----------
    segment : Segment or Captured
        The segment.
    effective : EffectiveJacobians
        Its Jacobians.
    output : {"fixed", "free", "tied"}
        Kind of the output rotation.
    criterion : str or callable
        The criterion to minimise.
    n_components : int, float or None
        Number of axes, or fraction of the effect.
    readout : ndarray of shape (n_outputs, n_outputs) or None
        Readout ``G`` of the outputs; ``None`` for the identity.

    Returns
    -------
    coordinates : SegmentCoordinates
        Coordinates of the inputs and the outputs.
    weights : ndarray of shape (n_outputs, n_outputs) or None
        Weights of tied outputs, which depend on the rotation.

    Raises
    ------
    ValueError
        If the coordinates are not defined for this criterion.
    """
    moments = effective.moments
    effects = moments.inputs + moments.outputs if output == "tied" else moments.inputs
    inner = FunctionalCoordinates.from_activations(
        segment.activations, effective_basis(effects), n_components
    )
    if output == "tied":
        if criterion != "log":
            raise ValueError(
                f"criterion={criterion!r} is not defined for rotate_output='tied' in functional "
                "coordinates, where the weights of the outputs depend on the rotation; pass "
                "criterion='log'."
            )
        weights = np.eye(len(inner.metric)) if readout is None else readout
        return SegmentCoordinates(inner, inner), inner.metric @ weights @ inner.metric
    if readout is None:
        return SegmentCoordinates(inner), None
    if output == "fixed":
        readout = np.diag(np.diag(readout))
    return SegmentCoordinates(inner, FunctionalCoordinates.from_readout(readout)), None


def read_readout(readout: Any, activation: Any, network: Network | None, X: Array) -> Matrix:
    """Compute the second moment ``G`` of the readout of a network.

    Parameters
    ----------
    readout : Network, or weights
        The network from the outputs to the logits.
    activation : str, callable or list of them
        Activation functions for raw weights.
    network : Network or None
        The network that computes the outputs.
    X : ndarray
        Inputs of the network.

    Returns
    -------
    ndarray of shape (n_outputs, n_outputs)
        The second moment.

    Raises
    ------
    ValueError
        If there is no network, or the readout does not read its outputs.
    """
    if network is None:
        raise ValueError(
            "readout needs the outputs of a network, but only Jacobians were passed; pass "
            "readout=None, or fit a network."
        )
    outputs = network(X)
    following = Network(readout, "relu" if is_made_of_layers(readout) else activation)
    n_outputs = outputs.shape[FEATURES_AXIS[outputs.ndim]]
    if following.n_inputs not in (None, n_outputs):
        raise ValueError(
            f"readout reads {following.n_inputs} activations but the network writes {n_outputs}; "
            "pass what follows the network, such as network[2:] after network[1:2]."
        )
    return readout_moment(following, outputs)
