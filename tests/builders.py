"""Random networks and rotations for the tests."""

from itertools import pairwise

import numpy as np
from scipy.stats import ortho_group

from jacrot import Network


def random_network(widths, activations, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    pairs = [
        ((rng.normal(size=(m, n)) / np.sqrt(n)).astype(dtype), rng.normal(size=m).astype(dtype))
        for n, m in pairwise(widths)
    ]
    return Network(pairs, activations)


def rotation(size, seed=0):
    return -np.eye(1) if size == 1 else ortho_group(size, seed=seed).rvs()
