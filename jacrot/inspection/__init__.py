"""Whether a sparse basis means anything: edges removed, nulls, other starts, interventions."""

from jacrot.inspection.edge_count import EdgeCount
from jacrot.inspection.edges import EdgeCurve, edge_curve
from jacrot.inspection.locality import LocalityCurve, locality_curve
from jacrot.inspection.null import NullBaseline, null_baseline
from jacrot.inspection.stability import AxisStability, axis_stability

__all__ = [
    "AxisStability",
    "EdgeCount",
    "EdgeCurve",
    "LocalityCurve",
    "NullBaseline",
    "axis_stability",
    "edge_curve",
    "locality_curve",
    "null_baseline",
]
