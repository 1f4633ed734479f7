"""Example problems: planted problems with a known solution, and small trained networks."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from jacrot._utils.random import random_rotation, resolve_random_state
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
    """Generate a planted problem: a sparse layer, hidden by a random rotation of its inputs.

    The layer is ``f(W x)`` with ``W = (S + noise) R``. ``S`` is a sparse matrix with normal entries
    and ``R`` a random rotation, so that the Jacobians ``diag(f') W`` are sparse in the basis ``R``
    only.

    Parameters
    ----------
    n_features, n_outputs : int, default=64 and 128
        Numbers of inputs and outputs of the layer. With fewer outputs than about one and a half
        times the features, no method can recover all axes.
    density : float, default=0.1
        Share of nonzero entries of ``S``. Each column has at least three, because an axis with
        fewer is not identifiable.
    n_samples : int, default=300
        Number of activations, which are standard normal.
    noise : float, default=0.0
        Standard deviation of normal noise added to ``S``, whose entries have standard deviation 1.
    activation : str, default="relu"
        Activation function ``f``.
    random_state : int, RandomState instance or None, default=None
        Determines all random numbers.

    Returns
    -------
    Bunch
        With ``network`` (the layer), ``weights`` (its matrix), ``X`` (activations of shape
        ``(n_samples, n_features)``) and ``rotation`` (``R``, with the axes as rows).

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
    rng = resolve_random_state(random_state)
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
    """Load a trained classifier of scikit-learn's digits.

    It has three layers with ReLU, 64 → 64 → 64 → 10 or 64 → 48 → 32 → 10, and was trained by
    ``examples/train_digits_mlp.py`` on the first 1,297 digits. If all widths are equal, activations
    of one layer are accepted for any other; unequal widths reveal such a mistake.

    Parameters
    ----------
    hidden_layer_sizes : {(64, 64), (48, 32)}, default=(64, 64)
        Widths of the hidden layers.

    Returns
    -------
    Bunch
        With ``network``, ``X`` and ``y`` (the training digits, with pixels in [0, 1]), and
        ``X_test`` and ``y_test`` (the other 500 digits).

    Raises
    ------
    ValueError
        If the package has no network with these widths.

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
            f"hidden_layer_sizes={hidden_layer_sizes!r} is not available; "
            f"pass one of {list(_DIGITS_NETWORKS)}, or train your own."
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
