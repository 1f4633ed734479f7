"""Report on a fit as one HTML file, and the comparison of bases that it shows."""

from jacrot.inspection._comparison import BasisSparsity, Comparison, compare
from jacrot.report._report import write_report

__all__ = ["BasisSparsity", "Comparison", "compare", "write_report"]
