"""
The Jacobian before and after a rotation
========================================

:class:`~jacrot.display.JacobianDisplay` shows how much every output of a layer depends on each of
its inputs, in the basis of neurons and in the rotated basis. The examples are the middle layer of a
classifier of digits, a layer with 1,000 inputs, and a figure that misleads.
"""  # noqa: D205, D400

# %%
# Fit on 300 digits, and draw 500 others. ``tol=1e-2`` ends the search early, which is enough for a
# figure.

import numpy as np

from jacrot import JacobianSparsityRotation
from jacrot.datasets import load_digits_mlp, make_planted_problem
from jacrot.display import JacobianDisplay

digits = load_digits_mlp()
network = digits.network
hidden, held_out = network[:1](digits.X[:300]), network[:1](digits.X_test)
rotation = JacobianSparsityRotation(rotate_output=True, tol=1e-2, random_state=0)
rotation.fit(network[1:2], hidden)
before = network[1:2].jacobians(held_out)
print(f"mean Hoyer sparsity, 300 digits to fit: {rotation.sparsity_before_:.2f} in the given basis")
print(f"after the rotation: {rotation.sparsity_:.2f}; 500 others: {rotation.score(held_out):.2f}")
display = JacobianDisplay.from_estimator(rotation, held_out)

# %%
# Both panels share one colour scale. Its unit is the root mean square entry of the Jacobian of each
# sample, which no rotation changes: bright entries on the right imply dark ones. Look at how much
# of the right panel is black. The mean over samples hides which entries occur together; two single
# digits show it:

display = JacobianDisplay.from_estimator(rotation, held_out, samples=[0, 1])

# %%
# Neurons with a black row are those whose ReLU is off. After the rotation, output directions
# without effect are gathered at the end: for each of these digits about 50 of 64 directions remain.
#
# A thousand inputs
# -----------------
#
# A figure cannot show a million entries. Above 160 inputs or outputs a cell is the mean of several
# neighbours, as the note below the figure says. In this planted problem the sparse axes are known.
# The mean of absolute entries decreases as a Jacobian becomes sparser, so that the right panel is
# darker although single entries are not visible.

problem = make_planted_problem(1000, 1500, density=0.03, n_samples=5, random_state=0)
wide = problem.network.jacobians(problem.X)
sparse = wide @ problem.rotation.T
display = JacobianDisplay.from_jacobians(wide, sparse)

# %%
# To see single entries, draw only the strongest axes. They are 4 % of the inputs, and not a
# representative sample.

display = JacobianDisplay.from_jacobians(wide, sparse, max_axes=40)

# %%
# Where it misleads
# -----------------
#
# The rows of the right panel are ordered such that the strongest entries are on the diagonal. This
# creates a diagonal in *any* matrix, here in one under a random rotation. The diagonal is not
# evidence; dark entries beside it are, and the sparsity is a better measure.

rng = np.random.default_rng(0)
random = np.linalg.qr(rng.normal(size=(64, 64)))[0]
display = JacobianDisplay.from_jacobians(before, before @ random)
