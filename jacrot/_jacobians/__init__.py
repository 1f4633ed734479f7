"""Stacks of Jacobians, those of networks, and the coordinates in which they are rotated."""
