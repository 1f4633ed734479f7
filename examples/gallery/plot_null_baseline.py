"""
Would a network that learned nothing be as sparse?
==================================================

Every rotation that is fitted to a network makes it look sparser, also one with weights in random
order. :class:`~jacrot.display.NullBaselineDisplay` puts a network beside such null networks, each
rotated by the same fit.
"""  # noqa: D205, D400

# %%
# First a layer that is known to have sparse axes: a sparse matrix hidden behind a random rotation.
# Three null networks of each kind, and ``tol=1e-2``, keep this short; ten are the default.

from jacrot import JacobianSparsityRotation
from jacrot.datasets import load_digits_mlp, make_planted_problem
from jacrot.display import NullBaselineDisplay
from jacrot.inspection import null_baseline

problem = make_planted_problem(24, 48, random_state=0)
train, test = problem.X[:200], problem.X[200:]
rotation = JacobianSparsityRotation(problem.network, tol=1e-2, random_state=0).fit(train)
planted = null_baseline(rotation, train, test, n_repeats=3, random_state=0)
print(planted.verdict.partition(":")[0])
display = NullBaselineDisplay.from_result(planted)

# %%
# What to look at: how far the solid line is to the right of the filled dots. "Shuffled" has the
# weights of this network in random order, "same spectrum" its singular values between random
# singular vectors. Both lose all that was learned, the second keeps the shape of the map. The title
# says what follows from the figures.
#
# Now the middle layer of a trained classifier of digits.

digits = load_digits_mlp()
network = digits.network
hidden, held_out = network[:1](digits.X[:200]), network[:1](digits.X_test)
rotation = JacobianSparsityRotation(network[1:2], tol=1e-2, random_state=0).fit(hidden)
trained = null_baseline(rotation, hidden, held_out, n_repeats=3, random_state=0)
print(trained.verdict.partition(":")[0])
display = NullBaselineDisplay.from_result(trained)

# %%
# This layer gets *less* sparse than random maps with its spectrum: that a rotation more than
# doubles its sparsity is by itself no sign of structure. Compare not only where the dots end but
# where they start (open dots, broken line): what the rotation adds is a fair question too, and the
# verdict answers both.
#
# Where it misleads
# -----------------
#
# - Three runs say little about a spread. Take ten or more before you write "above".
# - A null answers one question. Being sparser than these says that the arrangement of the weights
#   matters, not that an axis means anything.
# - Sparsity of derivatives is no count of connections; see the example of edge curves.
