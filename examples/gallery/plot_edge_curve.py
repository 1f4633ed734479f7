"""
How many connections a layer needs
==================================

:class:`~jacrot.display.EdgeCurveDisplay` plots the accuracy of a network when only its strongest
connections are kept, in one basis or in several. A good basis needs few connections.
"""  # noqa: D205, D400

# %%
# The middle layer of a classifier of digits, in four bases that need no search and in functional
# coordinates, which account for the variance of the inputs and the readout of the outputs.
# Connections are ranked on 300 digits, and removed on 500 others. ``tol=1e-2`` ends the search
# early.

from jacrot import JacobianSparsityRotation
from jacrot.datasets import load_digits_mlp
from jacrot.display import EdgeCurveDisplay
from jacrot.inspection import edge_curve

digits = load_digits_mlp()
network = digits.network
calibration = digits.X[:300]
functional = JacobianSparsityRotation(
    rotate_output=True,
    criterion="log",
    coordinates="functional",
    readout=network[2:],
    tol=1e-2,
    random_state=0,
).fit(network[1:2], network[:1](calibration))

bases = {"neurons": "given", "random": "random", "PCA": "pca", "interaction": "interaction"}
curves = {
    name: edge_curve(
        network,
        digits.X_test,
        digits.y_test,
        calibration=calibration,
        layer=1,
        basis=basis,
        random_state=0,
    )
    for name, basis in (bases | {"functional": functional}).items()
}
for name, curve in curves.items():
    print(f"{name:<12}{curve.edges_needed(0.01)!r:>20} connections for 1 % less accuracy")
display = EdgeCurveDisplay.from_result(curves)

# %%
# Look at how far to the left a curve reaches the level of the full network. The scale is
# logarithmic: a step to the left is a factor.
#
# Where it misleads
# -----------------
#
# - The dashed line is the network with this layer replaced by its best affine map. If it is as
#   high as the full network, as it nearly is here, a matrix can replace the layer, and few
#   connections only show that the matrix has low rank. The title gives that rank: the number of
#   directions on which the logits depend.
# - Accuracy is coarse. The divergence from the network's own probabilities is stricter:

divergences = {
    name: edge_curve(
        network,
        digits.X_test,
        calibration=calibration,
        layer=1,
        basis=basis,
        metric="kl",
        random_state=0,
    )
    for name, basis in (bases | {"functional": functional}).items()
}
display = EdgeCurveDisplay.from_result(divergences)

# %%
# Its scale is linear below 0.001, in order to show zero.
