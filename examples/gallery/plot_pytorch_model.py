"""
Your own PyTorch model
======================

:func:`jacrot.readers.capture` works with any PyTorch model. Name the hook point whose activations
are rotated, and the one whose Jacobian should become sparse.
"""  # noqa: D205, D400

# %%
# Train a small residual network for scikit-learn's digits for two seconds. It has a normalisation,
# a skip connection, and an activation for which jacrot has no layer.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from jacrot import JacobianSparsityRotation
from jacrot.display import JacobianDisplay
from jacrot.readers import capture


class Block(torch.nn.Module):
    """A residual block."""

    def __init__(self, size, hidden):
        super().__init__()
        self.norm = torch.nn.LayerNorm(size)
        self.up = torch.nn.Linear(size, hidden)
        self.down = torch.nn.Linear(hidden, size)

    def forward(self, x):
        """Add the output of the block to its input."""
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
# Capture the second block, from the output of its normalisation to the output of its last layer,
# which is added to the residual stream. The result unpacks to Jacobians and activations, the
# arguments of ``fit``.

fitted = capture(model, images[:200], read="2.norm", write="2.down")
others = capture(model, images[1297:1397], read="2.norm", write="2.down")
print(f"Jacobians {fitted.jacobians.shape}, activations {fitted.X.shape}")

# %%
# Rotate inputs and outputs. ``tol=1e-2`` ends the search early. Held-out Jacobians are captured
# separately and multiplied by the fitted rotations.

rotation = JacobianSparsityRotation(rotate_output=True, tol=1e-2, random_state=0).fit(*fitted)
P, Q = rotation.output_rotation_, rotation.rotation_
print(f"sparsity {rotation.sparsity_before_:.2f} -> {rotation.sparsity_:.2f}")
display = JacobianDisplay.from_jacobians(
    others.jacobians, P @ others.jacobians @ Q.T, rotated_output=True
)

# %%
# The right panel shows held-out inputs. To see what the first axes respond to, draw the held-out
# digits with the largest activations, with one axis in each row:

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
# Insert the rotation and its inverse into the model; only the basis changes:

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
# - The Jacobian at ``2.down`` does not include the skip connection. With ``write="2"`` it does, as
#   an identity matrix, which stays sparse only with ``rotate_output="tied"``.
# - A block with little effect can be made sparse as easily as one that matters. Compare with the
#   same model before training, captured in the same way.
# - Dropout and batch statistics are off while capturing: the model runs in evaluation mode.
