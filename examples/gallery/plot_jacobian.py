"""
The Jacobian before and after a rotation
========================================

:class:`~jacrot.display.JacobianDisplay` shows how much every output of a layer depends on each of
its inputs: in the basis of the neurons, and in the one that was found. Here it is the middle
layer of a classifier of digits, then a layer of 1,000 inputs, and last a picture that misleads.
"""  # noqa: D205, D400

# %%
# Fit on 300 digits, look at 500 others. ``tol=1e-2`` ends the search early, which is enough for a
# picture.

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
# Both panels have one colour scale. Its unit is the root mean square entry of the Jacobian of each
# sample, which no rotation changes: bright entries on the right are paid for by dark ones. Look at
# how much of the right panel is black. The mean over samples hides which entries belong together;
# two single digits show it:

display = JacobianDisplay.from_estimator(rotation, held_out, samples=[0, 1])

# %%
# Black rows of neurons are those whose ReLU is off. After the rotation what no input reaches is put
# together at the end: for each of these digits about 50 of 64 directions are left.
#
# A thousand inputs
# -----------------
#
# A picture has no room for a million entries. Above 160 inputs or outputs a cell is the mean of
# several neighbours, as is said below it. Here the sparse axes are known: a layer hidden behind a
# random rotation. The mean of absolute entries falls where a Jacobian gets sparser, so that the
# right panel is darker although no single entry can be seen.

problem = make_planted_problem(1000, 1500, density=0.03, n_samples=5, random_state=0)
wide = problem.network.jacobians(problem.X)
sparse = wide @ problem.rotation.T
display = JacobianDisplay.from_jacobians(wide, sparse)

# %%
# For single entries, ask for the strongest axes alone. They are 4 % of the inputs, and not a fair
# sample of them.

display = JacobianDisplay.from_jacobians(wide, sparse, max_axes=40)

# %%
# Where it misleads
# -----------------
#
# The right panel is put in order so that the strongest entries stand on the diagonal. That draws a
# diagonal into *any* matrix, here into one under a random rotation. The line proves nothing; what
# is dark beside it does, and the sparsity in figures does better.

rng = np.random.default_rng(0)
random = np.linalg.qr(rng.normal(size=(64, 64)))[0]
display = JacobianDisplay.from_jacobians(before, before @ random)
