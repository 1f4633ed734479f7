"""The computation between two places of a model, with its activations and Jacobians."""

from jacrot.segments._network import NetworkSegment
from jacrot.segments._rotated import RotatedSegment
from jacrot.segments._segment import Segment

__all__ = ["NetworkSegment", "RotatedSegment", "Segment"]
