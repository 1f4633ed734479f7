"""In which coordinates the two places of a segment are rotated."""

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
    """Coordinates of what is read and of what is written.

    Attributes
    ----------
    inner, outer : Coordinates
        Of what is read, and of what is written.
    """

    inner: Coordinates = NeuronCoordinates()
    outer: Coordinates = NeuronCoordinates()

    @property
    def left(self) -> Matrix | None:
        """What multiplies the Jacobians from the left."""
        inner, outer = self
        # Tied outputs are weighted by what is minimised.
        if isinstance(outer, FunctionalCoordinates) and outer is inner:
            return outer.forward
        return outer.factor

    @property
    def right(self) -> Matrix | None:
        """What multiplies the Jacobians from the right."""
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
        What is rotated.
    effective : EffectiveJacobians
        Its Jacobians.
    output : {"fixed", "free", "tied"}
        What the output rotation is.
    criterion : str or callable
        What is minimised.
    n_components : int, float or None
        How many axes are wanted, or which fraction of the effect.
    readout : ndarray of shape (n_outputs, n_outputs) or None
        ``G`` of what is written, ``None`` for the identity.

    Returns
    -------
    coordinates : SegmentCoordinates
        Of what is read and of what is written.
    weights : ndarray of shape (n_outputs, n_outputs) or None
        Weights of outputs that turn with the axes.

    Raises
    ------
    ValueError
        If the coordinates are not defined for this criterion.
    """
    moments = effective.moments
    effects = moments.inputs + moments.outputs if output == "tied" else moments.inputs
    inner = FunctionalCoordinates.whitening(
        segment.activations, effective_basis(effects), n_components
    )
    if output == "tied":
        if criterion != "log":
            raise ValueError(
                f"criterion={criterion!r} is not defined for rotate_output='tied' in functional "
                "coordinates, where the weights of the outputs turn with the axes; pass "
                "criterion='log'."
            )
        weights = np.eye(len(inner.metric)) if readout is None else readout
        return SegmentCoordinates(inner, inner), inner.metric @ weights @ inner.metric
    if readout is None:
        return SegmentCoordinates(inner), None
    if output == "fixed":
        readout = np.diag(np.diag(readout))
    return SegmentCoordinates(inner, FunctionalCoordinates.weighing(readout)), None


def read_readout(readout: Any, activation: Any, network: Network | None, X: Array) -> Matrix:
    """Compute ``G`` of what a network writes from what the user passed as its readout.

    Parameters
    ----------
    readout : Network or what makes one
        What reads the outputs.
    activation : str, callable or list of them
        Of raw weights.
    network : Network or None
        What writes the outputs.
    X : ndarray
        What the network reads.

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
            "readout needs the outputs of a network, but only Jacobians were given; leave it "
            "out, or fit a network."
        )
    outputs = network(X)
    reads = Network(readout, "relu" if is_made_of_layers(readout) else activation)
    n_outputs = outputs.shape[FEATURES_AXIS[outputs.ndim]]
    if reads.n_inputs not in (None, n_outputs):
        raise ValueError(
            f"readout reads {reads.n_inputs} activations but the network writes {n_outputs}; "
            "pass what follows the network, such as network[2:] after network[1:2]."
        )
    return readout_moment(reads, outputs)
