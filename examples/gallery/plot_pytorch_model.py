"""
Your own PyTorch model
======================

:func:`jacrot.readers.capture` takes any PyTorch model, whatever is in it. Name the place whose
activations are to be rotated, and the place that is to depend on them sparsely.
"""  # noqa: D205, D400

# %%
# A small residual network for scikit-learn's digits, with a normalisation, an activation that
# jacrot has no layer for, and a skip connection; trained for two seconds.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from jacrot import JacobianSparsityRotation
from jacrot.display import JacobianDisplay
from jacrot.readers import capture


class Block(torch.nn.Module):
    """A residual block of a size."""

    def __init__(self, size, hidden):
        super().__init__()
        self.norm = torch.nn.LayerNorm(size)
        self.up = torch.nn.Linear(size, hidden)
        self.down = torch.nn.Linear(hidden, size)

    def forward(self, x):
        """Add what the block computes to what it reads."""
        h = self.up(self.norm(x))
        return x + self.down(h * torch.tanh(torch.nn.functional.softplus(h)))


torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(64, 32), Block(32, 48), Block(32, 48), torch.nn.Linear(32, 10)
)
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32)
labels = torch.tensor(labels)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(150):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images[:1297]), labels[:1297]).backward()
    optimizer.step()
with torch.no_grad():
    accuracy = (model(images[1297:]).argmax(dim=1) == labels[1297:]).float().mean()
print(f"accuracy on 500 held-out digits: {accuracy:.2f}")

# %%
# Places have the names of ``model.named_modules()``:

print([name for name, _ in model.named_modules() if name])

# %%
# The second block, from what its normalisation writes to what its last layer adds to the stream.
# Activations and exact Jacobians come as two arrays, which is what ``fit`` takes.

fitted = capture(model, images[:200], read="2.norm", write="2.down")
others = capture(model, images[1297:1397], read="2.norm", write="2.down")
print(f"Jacobians {fitted.jacobians.shape}, activations {fitted.X.shape}")

# %%
# Both sides are rotated. ``tol=1e-2`` ends the search early. What was captured belongs to its
# samples, so that held-out Jacobians are rotated by hand.

rotation = JacobianSparsityRotation(rotate_output=True, tol=1e-2, random_state=0).fit(*fitted)
P, Q = rotation.output_rotation_, rotation.rotation_
print(f"sparsity {rotation.sparsity_before_:.2f} -> {rotation.sparsity_:.2f}")
display = JacobianDisplay.from_jacobians(
    others.jacobians, P @ others.jacobians @ Q.T, rotated_output=True
)

# %%
# What to look at: the right panel of inputs that were not fitted. What do the first axes respond
# to? The held-out digits with the largest activations, an axis in each row:

Z = rotation.transform(others.X)
# sphinx_gallery_thumbnail_number = 2
figure, panels = plt.subplots(4, 8, figsize=(7.4, 4), layout="constrained")
for row, activations in zip(panels, Z.T, strict=False):
    for ax, digit in zip(row, np.argsort(-activations), strict=False):
        ax.imshow(images[1297 + digit].reshape(8, 8), cmap="gray_r")
        ax.set(xticks=[], yticks=[])
for axis, ax in enumerate(panels[:, 0]):
    ax.set_ylabel(f"axis {axis}")

# %%
# Put the rotation back into the model by two matrices, and nothing changes but the basis:

with torch.no_grad():
    turn = torch.tensor(Q, dtype=torch.float32)
    block = model[2]
    before = model(images[1297:])
    block.up.weight.copy_(block.up.weight @ turn.T)
    block.norm = torch.nn.Sequential(block.norm, torch.nn.Linear(32, 32, bias=False))
    block.norm[1].weight.copy_(turn)
    difference = (model(images[1297:]) - before).abs().max()
print(f"logits with the rotation folded in are the same to 1e-4: {bool(difference < 1e-4)}")

# %%
# Where it misleads
# -----------------
#
# - The Jacobian at ``2.down`` leaves the skip connection out; with ``write="2"`` it is in, as an
#   identity in the given basis that only ``rotate_output="tied"`` keeps sparse.
# - A block that adds little to its stream can be made sparse as easily as one that matters. Compare
#   with the same model before training, captured in the same way.
# - Dropout and batch statistics are off while capturing: the model runs in evaluation mode.
