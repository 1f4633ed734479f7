"""
Convergence of a search
=======================

:class:`~jacrot.display.ConvergenceDisplay` plots the cost of a search stage by stage. It shows
whether the search has converged, and which stages took the time.
"""  # noqa: D205, D400

# %%
# Both sides of a classifier's middle layer are rotated. The search first solves the inputs alone,
# with less and less smoothing ε, starts on both sides with mini-batches ("warm start"), and ends
# with conjugate gradient on all samples.

import numpy as np

from jacrot import JacobianSparsityRotation
from jacrot.datasets import load_digits_mlp
from jacrot.display import ConvergenceDisplay

digits = load_digits_mlp()
hidden = digits.network[:1](digits.X[:300])
rotation = JacobianSparsityRotation(rotate_output=True, random_state=0)
rotation.fit(digits.network[1:2], hidden)
display = ConvergenceDisplay.from_estimator(rotation)

# %%
# Every line should be flat at its end. The last line matters most, since its smoothing is the
# smallest. The same in numbers:

history = rotation.history_
for number in np.unique(history["stage"]):
    cost = history["cost"][history["stage"] == number]
    name = rotation.stages_[number]
    print(f"{number:2} {name:<11} cost {cost[0]:.2f} to {cost[-1]:.2f}")
print(f"converged: {rotation.converged_}")

# %%
# Seconds depend on the machine and its load. Passes over the samples do not:

display = ConvergenceDisplay.from_estimator(rotation, against="evaluations")

# %%
# Where it misleads
# -----------------
#
# - The cost goes *up* from stage to stage, and during the warm start: less smoothing means a higher
#   cost at the same point. Lines of different stages cannot be compared.
# - The warm start uses mini-batches of a few samples. Its noise is not a failure.
# - A flat line is *a* minimum, perhaps not the lowest. Raise ``n_init``, and check whether the same
#   axes recur, as in the example of axis stability.
