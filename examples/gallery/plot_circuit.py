"""
The circuit of a classifier
===========================

:class:`~jacrot.display.CircuitDisplay` draws the strongest connections of a whole network, from
its inputs to its logits, in the basis of your choice.
"""  # noqa: D205, D400

# %%
# Fit one rotation for every site of a classifier of digits jointly, including inputs and logits.
# ``tol=1e-2`` and 200 digits keep the example short. The number of connections is chosen such that
# the network loses about 1 % of accuracy on 500 held-out digits.

from jacrot import NetworkRotation
from jacrot.datasets import load_digits_mlp
from jacrot.display import CircuitDisplay
from jacrot.inspection import edge_curve

digits = load_digits_mlp()
network, calibration = digits.network, digits.X[:200]
rotation = NetworkRotation(
    network,
    rotate_input=True,
    criterion="log",
    coordinates="functional",
    tol=1e-2,
    random_state=0,
).fit(calibration)
test = digits.X_test, digits.y_test
options = {"calibration": calibration, "random_state": 0}
curve = edge_curve(network, *test, **options, basis=rotation)
given = edge_curve(network, *test, **options)
n_edges = curve.edges_needed(0.01)
print(f"connections for 1 % less accuracy: {n_edges!r}, of neurons {given.edges_needed(0.01)!r}")
display = CircuitDisplay.from_result(curve, n_edges, image_shape=(8, 8))

# %%
# Look at thick lines first. The width of a line shows how much its connection changes the logits; a
# dashed line has a negative sign. The image next to an axis of the inputs shows what a step along
# the axis adds to the image; next to an axis of site 1, it shows what the axis responds to. Follow
# a class from right to left.
#
# The same network in the basis of neurons. A thousand connections are far too few there, as the
# title reports, and more than a figure can show: ``max_axes`` keeps the axes with the strongest
# connections, and the title counts the lines that are drawn.

display = CircuitDisplay.from_result(given, 1000, max_axes=20)

# %%
# Where it misleads
# -----------------
#
# - A few lines can be drawn for every network. The title reports whether they are enough: it gives
#   the accuracy with these connections only.
# - Strengths are means over inputs. A connection that matters for one class only looks weak, and
#   a connection whose sign depends on the input is grey.
# - The new axes of the inputs are those that this network uses, not the components of the images.
# - Signs of axes are a convention: the effect of a path is the product of its signs.
# - The order within a column is chosen only to reduce crossings of lines.
