"""The main job on a network and data that are not ours.

The folder with ``mnist/`` and ``networks/`` is taken from the environment variable ``JACROT_DATA``.
"""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from jacrot import JacobianSparsityRotation
from jacrot.criteria import hoyer
from jacrot.readers import load

DATA = Path(os.environ.get("JACROT_DATA", "data"))
WEIGHTS = DATA / "networks" / "mnist_mlp_784_100_100_10.npz"
IMAGES = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"

pytestmark = [
    pytest.mark.search,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (WEIGHTS.exists() and IMAGES.exists()),
        reason="JACROT_DATA is not a folder with mnist/ and networks/",
    ),
]


@pytest.fixture(scope="module")
def mnist():
    content = gzip.decompress(IMAGES.read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784) / 255
    return load(WEIGHTS, ["relu", "relu", "identity"]), images


@pytest.mark.parametrize(("rotate_output", "least"), [(False, 0.728), (True, 0.735)])
@pytest.mark.parametrize("seed", [0, 1])
def test_middle_layer(mnist, rotate_output, least, seed):
    network, images = mnist
    images = images[np.random.default_rng(seed).permutation(len(images))]
    middle, activations = network[1:2], network[:1](images)
    estimator = JacobianSparsityRotation(rotate_output=rotate_output, random_state=seed)
    estimator.fit(middle, activations[:300])
    held_out = activations[300:1300]
    assert estimator.score(held_out) >= least
    given = middle.jacobians(held_out)
    assert hoyer(given[given.any(axis=(1, 2))]).mean() < 0.43
    sites = {1: estimator.rotation_}
    if rotate_output:
        sites[2] = estimator.output_rotation_
    logits, rotated = network(images), network.rotated(sites)(images)
    np.testing.assert_allclose(rotated, logits, atol=1e-10)
    np.testing.assert_array_equal(rotated.argmax(axis=1), logits.argmax(axis=1))
