"""Pictures, in the form of scikit-learn's Displays."""

from jacrot.display.axis_stability import AxisStabilityDisplay
from jacrot.display.circuit import CircuitDisplay
from jacrot.display.convergence import ConvergenceDisplay
from jacrot.display.edge_curve import EdgeCurveDisplay
from jacrot.display.jacobian import JacobianDisplay
from jacrot.display.locality import LocalityDisplay
from jacrot.display.null_baseline import NullBaselineDisplay

__all__ = [
    "AxisStabilityDisplay",
    "CircuitDisplay",
    "ConvergenceDisplay",
    "EdgeCurveDisplay",
    "JacobianDisplay",
    "LocalityDisplay",
    "NullBaselineDisplay",
]
