"""Whether a sparse basis means anything: edges removed, nulls, other starts, interventions."""

from jacrot.inspection._edge_count import EdgeCount
from jacrot.inspection._edges import EdgeCurve, edge_curve
from jacrot.inspection._locality import LocalityCurve, locality_curve
from jacrot.inspection._null import NullBaseline, null_baseline
from jacrot.inspection._stability import AxisStability, axis_stability

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
