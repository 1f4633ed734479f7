"""
A custom layer
==============

A layer that jacrot does not have needs two methods: its outputs, and its jvp, the derivative of the
outputs along a stack of tangents.
"""  # noqa: D205, D400

# %%
# The example is a bilinear layer, ``(A x)(B x)``, with elementwise product. It has no activation
# function, and its Jacobian ``diag(B x) A + diag(A x) B`` is linear in the input. ``jvp`` receives
# the derivatives of ``x``, one in each column, or ``None`` if the layer is the first one.

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

from jacrot import JacobianSparsityRotation, Network
from jacrot.datasets import make_planted_problem
from jacrot.display import JacobianDisplay
from jacrot.layers import BaseLayer, identity_tangents
from jacrot.metrics import match_axes


@dataclass(frozen=True, eq=False)
class Bilinear(BaseLayer):
    """Products of two linear maps, ``(A x)(B x)``."""

    A: np.ndarray
    B: np.ndarray
    # Outputs at a position depend only on the inputs at this position.
    positionwise = True

    @property
    def n_inputs(self):
        """Number of input features."""
        return self.A.shape[1]

    @property
    def n_outputs(self):
        """Number of output features."""
        return len(self.A)

    def __call__(self, x):
        """Compute the outputs."""
        return (x @ self.A.T) * (x @ self.B.T)

    def jvp(self, x, tangents):
        """Compute the outputs and their derivatives."""
        tangents = identity_tangents(x) if tangents is None else tangents
        a, b = x @ self.A.T, x @ self.B.T
        return a * b, b[..., None] * (self.A @ tangents) + a[..., None] * (self.B @ tangents)


# %%
# Hide two sparse matrices behind one random rotation. First check the derivatives with central
# differences:

first = make_planted_problem(24, 48, random_state=0)
second = make_planted_problem(24, 48, random_state=1)
A, B = first.weights, second.weights @ second.rotation.T @ first.rotation
network = Network([Bilinear(A, B)])
X = first.X[:200]

step = 1e-5 * np.eye(24)
x = X[0]
differences = (network(x + step) - network(x - step)).T / 2e-5
error = np.abs(network.jacobians(x[None])[0] - differences).max()
print(f"derivatives equal central differences to 1e-8: {error < 1e-8}")

# %%
# The network can then be used like any other. The fit recovers most of the axes in which both
# matrices are sparse, without any information about them.

rotation = JacobianSparsityRotation(network, tol=1e-2, random_state=0).fit(X)
_, cosines = match_axes(first.rotation, rotation.rotation_)
print(f"sparsity {rotation.sparsity_before_:.2f} -> {rotation.sparsity_:.2f}")
print(f"{np.count_nonzero(cosines > 0.99)} of 24 hidden axes found")
same = rotation.rotated_network()(rotation.transform(X))
print(f"the rotated network is the same to 1e-10: {np.abs(same - network(X)).max() < 1e-10}")
display = JacobianDisplay.from_estimator(rotation, first.X[200:])

# %%
# Absolute entries of both matrices on the given axes and on the axes found:

# sphinx_gallery_thumbnail_number = 2
figure, panels = plt.subplots(2, 2, figsize=(7.4, 4.4), layout="constrained")
bases = {"given": np.eye(24), "found": rotation.rotation_}
for row, (axes, basis) in zip(panels, bases.items(), strict=True):
    for ax, matrix, name in zip(row, (A, B), "AB", strict=True):
        ax.imshow(np.abs(basis @ matrix.T), cmap="Greys", aspect="auto")
        ax.set(title=f"{name} on the axes {axes}", xlabel="output", ylabel="axis")

# %%
# Each output depends on few of the new axes. The first figure shows 100 held-out samples.
#
# Where it misleads
# -----------------
#
# A wrong ``jvp`` raises no error: the search makes the wrong derivatives sparse. Compare it with
# finite differences, as above, at an input without zeros. A layer that is a plain function does not
# need a class: ``Network`` accepts a callable written with ``autograd.numpy``.
