"""Rotate the activations of a trained network so that its Jacobians become sparse."""

import importlib
from typing import TYPE_CHECKING, Any

from jacrot._version import __version__

if TYPE_CHECKING:
    from jacrot._estimators.network_rotation import NetworkRotation
    from jacrot._estimators.rotation import JacobianSparsityRotation
    from jacrot.network import Network

__all__ = ["JacobianSparsityRotation", "Network", "NetworkRotation", "__version__"]

# Imported when they are used: the optimiser imports every framework that is installed, which takes
# seconds.
_MODULES = {
    "JacobianSparsityRotation": "jacrot._estimators.rotation",
    "Network": "jacrot.network",
    "NetworkRotation": "jacrot._estimators.network_rotation",
}
_SUBMODULES = (
    "activations",
    "criteria",
    "datasets",
    "display",
    "inspection",
    "layers",
    "metrics",
    "positions",
    "provenance",
    "readers",
    "report",
    "segments",
    "writers",
)

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(_MODULES[name]), name)
        if name in _SUBMODULES:
            return importlib.import_module(f"jacrot.{name}")
        raise AttributeError(f"module 'jacrot' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
