"""Plots of fitted estimators and of inspections, in the form of scikit-learn's Displays."""

from jacrot.display._axis_stability import AxisStabilityDisplay
from jacrot.display._circuit import CircuitDisplay
from jacrot.display._convergence import ConvergenceDisplay
from jacrot.display._edge_curve import EdgeCurveDisplay
from jacrot.display._jacobian import JacobianDisplay
from jacrot.display._locality import LocalityDisplay
from jacrot.display._null_baseline import NullBaselineDisplay

__all__ = [
    "AxisStabilityDisplay",
    "CircuitDisplay",
    "ConvergenceDisplay",
    "EdgeCurveDisplay",
    "JacobianDisplay",
    "LocalityDisplay",
    "NullBaselineDisplay",
]
