"""Rotate the activations of a trained network so that its Jacobians become sparse."""

from jacrot._version import __version__
from jacrot.network import Network
from jacrot.network_rotation import NetworkRotation
from jacrot.rotation import JacobianSparsityRotation

__all__ = ["JacobianSparsityRotation", "Network", "NetworkRotation", "__version__"]
