"""Problems to try the method on: one with a known answer, and a small trained network."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from jacrot._utils.random import random_rotation, random_source
from jacrot.network import Network
from jacrot.readers import load

__all__ = ["load_digits_mlp", "make_planted_problem"]

_DIGITS_NETWORKS: dict[tuple[int, ...], str] = {
    (64, 64): "digits_mlp.npz",
    (48, 32): "digits_mlp_48_32.npz",
}


def make_planted_problem(
    n_features: int = 64,
    n_outputs: int = 128,
    *,
    density: float = 0.1,
    n_samples: int = 300,
    noise: float = 0.0,
    activation: str = "relu",
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Make a sparse layer hidden behind a random rotation, whose axes are to be found.

    The layer is ``f(W x)`` with ``W = S R + noise``: ``S`` is sparse with normal entries, ``R`` a
    random rotation, so that the Jacobians ``diag(f') W`` are sparse in the basis ``R`` only.

    Parameters
    ----------
    n_features, n_outputs : int, default=64 and 128
        Width of what the layer reads and writes. With fewer outputs than about one and a half
        times the features, no method can find all axes.
    density : float, default=0.1
        Share of the entries of ``S`` that are not zero, at least three in each column: with
        fewer an axis cannot be told from others.
    n_samples : int, default=300
        Number of activations, standard normal.
    noise : float, default=0.0
        Standard deviation of normal noise added to ``S``, whose own entries have 1.
    activation : str, default="relu"
        ``f``.
    random_state : int, RandomState instance or None, default=None
        Draws everything.

    Returns
    -------
    Bunch
        With ``network`` (the layer), ``weights`` (its matrix), ``X`` (the activations,
        ``(n_samples, n_features)``) and ``rotation`` (``R``, the axes as rows).

    Raises
    ------
    ValueError
        If `density` is not in (0, 1] or a size is not positive.

    Examples
    --------
    >>> from jacrot.datasets import make_planted_problem
    >>> problem = make_planted_problem(random_state=0)
    >>> problem.network
    Network(64 → 128; relu)
    """
    for name, size in (
        ("n_features", n_features),
        ("n_outputs", n_outputs),
        ("n_samples", n_samples),
    ):
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1.")
    if not 0 < density <= 1:
        raise ValueError(f"density={density} must be above 0 and at most 1.")
    rng = random_source(random_state)
    kept = rng.uniform(size=(n_outputs, n_features))
    threshold = np.sort(kept, axis=0)[min(3, n_outputs) - 1]
    sparse = rng.normal(size=kept.shape) * ((kept < density) | (kept <= threshold))
    rotation = random_rotation(n_features, rng)
    weights = (sparse + noise * rng.normal(size=kept.shape)) @ rotation
    return Bunch(
        network=Network(weights, activation),
        weights=weights,
        X=rng.normal(size=(n_samples, n_features)),
        rotation=rotation,
    )


def load_digits_mlp(hidden_layer_sizes: tuple[int, int] = (64, 64)) -> Bunch:
    """Load a classifier of scikit-learn's digits that was trained beforehand.

    Three layers with ReLU, 64 → 64 → 64 → 10 or 64 → 48 → 32 → 10, trained by
    ``examples/train_digits_mlp.py`` on the first 1,297 digits. Where all widths are equal, what
    belongs to one layer fits every other; unequal widths show such a mistake at once.

    Parameters
    ----------
    hidden_layer_sizes : {(64, 64), (48, 32)}, default=(64, 64)
        Widths of the hidden layers.

    Returns
    -------
    Bunch
        With ``network``, ``X`` and ``y`` (the digits it was trained on, pixels in [0, 1]) and
        ``X_test`` and ``y_test`` (the 500 others).

    Raises
    ------
    ValueError
        If no network with these widths comes with the package.

    Examples
    --------
    >>> from jacrot.datasets import load_digits_mlp
    >>> digits = load_digits_mlp()
    >>> digits.network
    Network(64 → 64 → 64 → 10; relu, relu, identity)
    >>> print((digits.network(digits.X_test).argmax(axis=1) == digits.y_test).mean() > 0.9)
    True
    """
    name = _DIGITS_NETWORKS.get(tuple(hidden_layer_sizes))
    if name is None:
        raise ValueError(
            f"hidden_layer_sizes={hidden_layer_sizes!r} is not among the networks that come with "
            f"jacrot; pass one of {list(_DIGITS_NETWORKS)}, or train your own."
        )
    X, y = load_digits(return_X_y=True)
    X = X / 16
    return Bunch(
        network=load(str(files("jacrot") / "data" / name)),
        X=X[:-500],
        y=y[:-500],
        X_test=X[-500:],
        y_test=y[-500:],
    )
