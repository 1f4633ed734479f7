"""What lies between two places of a model: activations, Jacobians, and running it on from there."""

from jacrot.segments._captured import Captured
from jacrot.segments._network import NetworkSegment, network_segments, pool
from jacrot.segments._rotated import RotatedSegment
from jacrot.segments._segment import Segment

__all__ = ["Captured", "NetworkSegment", "RotatedSegment", "Segment", "network_segments", "pool"]
