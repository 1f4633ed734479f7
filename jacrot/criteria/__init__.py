"""Measures of sparsity, to report; see the parameter ``criterion`` for what is minimised."""

from jacrot.criteria._measures import gini, hoyer, participation_ratio

__all__ = ["gini", "hoyer", "participation_ratio"]
