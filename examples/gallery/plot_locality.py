"""
Outputs changed by a finite step
================================

The Jacobian describes an infinitesimal step. :class:`~jacrot.display.LocalityDisplay` shows how
many outputs change when one activation makes a finite step. Is the layer more local in the new
basis, also for steps as large as the variation of the activations?
"""  # noqa: D205, D400

# %%
# Rotate inputs and outputs of the middle layer of a classifier of digits. ``tol=1e-2`` ends the
# search early. Each activation is moved on 200 held-out digits, by up to three standard deviations.

from jacrot import JacobianSparsityRotation
from jacrot.datasets import load_digits_mlp
from jacrot.display import LocalityDisplay
from jacrot.inspection import locality_curve

digits = load_digits_mlp()
network = digits.network
hidden, held_out = network[:1](digits.X[:300]), network[:1](digits.X_test)
rotation = JacobianSparsityRotation(network[1:2], rotate_output=True, tol=1e-2, random_state=0).fit(
    hidden
)
curve = locality_curve(rotation, held_out, steps=[0.01, 0.1, 0.5, 1, 3], random_state=0)
for step, before, after in zip(
    curve.steps, curve.weighted_before, curve.weighted_after, strict=True
):
    print(f"step {step:g}: {before:.0f} outputs of neurons change, {after:.0f} of new axes")
display = LocalityDisplay.from_result(curve)

# %%
# Look at the distance between squares and circles, and whether it persists to the right. If a curve
# is flat, the derivative describes finite steps as well. The dashed lines weight every axis by its
# effect; quote these. Half of the new axes may change almost nothing, and their counts are then
# meaningless.
#
# Where it misleads
# -----------------
#
# - An output "changes" if it changes by more than a tenth of the largest change in the same step.
#   Another ``share`` changes the numbers, but should not change the order of the two curves.
# - Inputs and outputs are both counted in the new basis. With fixed outputs the gain is smaller:

inputs_only = JacobianSparsityRotation(network[1:2], tol=1e-2, random_state=0).fit(hidden)
one_sided = locality_curve(inputs_only, held_out, steps=[0.01, 0.1, 0.5, 1, 3], random_state=0)
display = LocalityDisplay.from_result(one_sided)
