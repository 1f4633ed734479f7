"""
The circuit of a classifier
===========================

:class:`~jacrot.display.CircuitDisplay` draws the strongest connections of a whole network, from
its inputs to its logits, in the basis of your choice.
"""  # noqa: D205, D400

# %%
# One rotation for every site of a classifier of digits, the inputs and the logits among them, found
# jointly. ``tol=1e-2`` and 200 digits keep this short; so many connections are drawn that the
# network loses about 1 % accuracy on 500 held-out digits.

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
# What to look at: thick lines first. A line is the wider the more its connection moves the logits;
# it is broken where more of its input means less of its output. The picture beside an axis of the
# inputs is what a step along it adds to the image; beside an axis of site 1, what that axis
# responds to. Follow a class from the right to the left.
#
# The same network in its own neurons. A thousand connections are far too few there, as the title
# says, and more than a picture holds: ``max_axes`` leaves the axes with the strongest ones, and the
# title counts what is drawn.

display = CircuitDisplay.from_result(given, 1000, max_axes=20)

# %%
# Where it misleads
# -----------------
#
# - A picture of few lines can be drawn of every network. Whether they suffice is in the title: the
#   accuracy with these connections and no others.
# - Strengths are means over inputs. A connection that matters for one class only looks weak, and
#   one whose sign depends on the input is grey.
# - The new axes of the inputs are those that this network needs, not what the images are made of.
# - Signs of axes are a convention: what a path does is the product of its signs.
# - The order within a column is only chosen so that lines cross little.
