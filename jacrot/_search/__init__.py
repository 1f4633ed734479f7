"""The search for rotations: the cost and its derivatives, the manifold, the stages, the moves."""
