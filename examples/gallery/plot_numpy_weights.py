"""
From exported arrays
====================

No framework is needed if the weights are available as an ``.npz`` file, or as matrices and biases
in layer order.
"""  # noqa: D205, D400

# %%
# Train a small classifier of scikit-learn's digits for a few seconds, and save its weights to a
# file. Training is stopped early, hence the warning that is silenced.

import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from jacrot import JacobianSparsityRotation
from jacrot.display import JacobianDisplay
from jacrot.readers import list_arrays, load

images, labels = load_digits(return_X_y=True)
images = images / 16
train, test = slice(1297), slice(1297, None)
classifier = MLPClassifier((32, 32), max_iter=40, random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    classifier.fit(images[train], labels[train])

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "weights.npz"
arrays = {}
for number, (matrix, bias) in enumerate(
    zip(classifier.coefs_, classifier.intercepts_, strict=True)
):
    arrays |= {f"W{number}": matrix, f"b{number}": bias}
np.savez(path, **arrays)
for name, info in list_arrays(path).items():
    print(name, info.shape, info.dtype)

# %%
# The shapes show the layout: scikit-learn, Keras and Flax store ``(inputs, outputs)``, PyTorch
# ``(outputs, inputs)``. Here the rows are inputs.

widths = [matrix.shape[1] for matrix in classifier.coefs_]
figure, panels = plt.subplots(1, 3, figsize=(7.4, 5), width_ratios=widths, layout="constrained")
for number, (ax, matrix) in enumerate(zip(panels, classifier.coefs_, strict=True)):
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    ax.set_title(f"W{number}: {matrix.shape[0]} × {matrix.shape[1]}", fontsize="medium")
    ax.set(xlabel="output", ylabel="input")
colorbar = figure.colorbar(image, ax=panels, label="weight", extend="both")

# %%
# The file does not contain the activations; pass them.

network = load(path, activation=["relu", "relu", "identity"], layout="in_out")
print(network)

# %%
# First check that the network computes the same as the classifier. This check detects a wrong
# layout of square matrices, a forgotten activation, or a different scale of the inputs.

same = network(images[test]).argmax(axis=1) == classifier.predict(images[test])
print(f"{same.sum()} of {same.size} predictions are the same")
accuracy = np.mean(network(images[test]).argmax(axis=1) == labels[test])

# %%
# Then rotate the inputs of the middle layer, and draw held-out digits.

hidden, held_out = network[:1](images[:300]), network[:1](images[test])
rotation = JacobianSparsityRotation(rotate_output=True, tol=1e-2, random_state=0)
rotation.fit(network[1:2], hidden)
print(f"held-out sparsity: {rotation.score(held_out):.2f}, before {rotation.sparsity_before_:.2f}")
display = JacobianDisplay.from_estimator(rotation, held_out)

# %%
# Fold the rotation into the weights. The result consists of arrays that any framework can read.

rotated = network.rotated({1: rotation.rotation_, 2: rotation.output_rotation_})
kept = rotated(images[test]).argmax(axis=1) == network(images[test]).argmax(axis=1)
print(f"rotated, {kept.sum()} of {kept.size} predictions are the same; accuracy {accuracy:.2f}")
rotated.save(path.with_name("rotated.npz"))
print(load(path.with_name("rotated.npz")))
folder.cleanup()

# %%
# Where it misleads
# -----------------
#
# Two biases or two matrices in the wrong order often still fit together, and square matrices always
# do. Such a wrong network has Jacobians as well, and a rotation makes them sparse as well.
