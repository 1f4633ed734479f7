"""What lies between two places of a model: activations, Jacobians, and running it on from there."""

from jacrot.segments._network import NetworkSegment
from jacrot.segments._rotated import RotatedSegment
from jacrot.segments._segment import Segment

__all__ = ["NetworkSegment", "RotatedSegment", "Segment"]
