"""
Comparison with null models
===========================

A fitted rotation makes every network look sparser, even one with weights in random order.
:class:`~jacrot.display.NullBaselineDisplay` compares a network with such null models, each rotated
by the same fit.
"""  # noqa: D205, D400

# %%
# The first example is a planted problem, whose sparse axes are known. Three null models of each
# kind and ``tol=1e-2`` keep it short; the default is ten.

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
# Look at how far the solid line is to the right of the filled dots. "Shuffled" has the weights of
# this network in random order, "same spectrum" has its singular values and random singular vectors.
# Both destroy everything that was learned; the second keeps the spectrum. The title states the
# verdict.
#
# The second example is the middle layer of a trained classifier of digits.

digits = load_digits_mlp()
network = digits.network
hidden, held_out = network[:1](digits.X[:200]), network[:1](digits.X_test)
rotation = JacobianSparsityRotation(network[1:2], tol=1e-2, random_state=0).fit(hidden)
trained = null_baseline(rotation, hidden, held_out, n_repeats=3, random_state=0)
print(trained.verdict.partition(":")[0])
display = NullBaselineDisplay.from_result(trained)

# %%
# This layer becomes *less* sparse than random maps with its spectrum, although the rotation more
# than doubles its sparsity: the increase alone is not a sign of structure. Compare also the gain,
# which is the distance from the open dots and the dashed line; the verdict covers both.
#
# Where it misleads
# -----------------
#
# - Three runs are not enough to estimate a spread. Use ten or more before you report "above".
# - A null model tests one hypothesis. A network that is sparser than these has weights whose
#   arrangement matters; its axes need not have a meaning.
# - Sparsity of derivatives is not the number of connections; see the example of edge curves.
