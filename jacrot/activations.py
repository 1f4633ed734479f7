"""Elementwise activations and their slopes, in closed form for the named ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
from autograd import elementwise_grad
from autograd.scipy.special import erf
from scipy.special import expit, ndtr

from jacrot._utils.arrays import Array
from jacrot._utils.threads import exclusive_autograd

__all__ = ["ACTIVATIONS", "get_activation"]

Elementwise = Callable[[Array], Array]

# Self-normalising constants of Klambauer et al. (2017), equation 14.
SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772
# Slope of "leaky_relu" at negative numbers.
LEAK = 0.01
# Hendrycks and Gimpel (2016): Φ(x) is nearly (1 + tanh(a (x + b x³))) / 2.
GELU_TANH_SCALE = np.sqrt(2 / np.pi)
GELU_TANH_CUBIC = 0.044715


@dataclass(frozen=True)
class Activation:
    """An elementwise function and its slope (first derivative).

    Parameters
    ----------
    function : callable
        The function, applied entrywise.
    slope : callable
        Its first derivative, applied entrywise.
    """

    function: Elementwise
    slope: Elementwise


@dataclass(frozen=True)
class LeakyRelu:
    """``max(x, 0) + negative_slope * min(x, 0)``, for autograd."""

    negative_slope: float

    def __call__(self, x: Array) -> Array:
        return anp.where(x > 0, x, self.negative_slope * x)


@dataclass(frozen=True)
class Elu:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``, for autograd."""

    alpha: float

    def __call__(self, x: Array) -> Array:
        return anp.where(x > 0, x, self.alpha * anp.expm1(anp.where(x > 0, 0, x)))


@dataclass(frozen=True)
class Clip:
    """The nearest number between `low` and `high`, for autograd; its slope at both is zero."""

    low: float
    high: float

    def __call__(self, x: Array) -> Array:
        inside = (x > self.low) & (x < self.high)
        return anp.where(inside, x, np.clip(anp.where(inside, 0, x), self.low, self.high))


def leaky_relu(slope: float) -> str | Elementwise:
    """Return the leaky ReLU of some slope, by its name if it has one."""
    return {0.0: "relu", LEAK: "leaky_relu"}.get(slope) or LeakyRelu(slope)


def elu(alpha: float) -> str | Elementwise:
    """Return the exponential linear unit of some scale, by its name if it has one."""
    return "elu" if alpha == 1 else Elu(alpha)


def gelu(x: Array) -> Array:
    """Compute GELU, ``x Φ(x)``, in functions of autograd."""
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x: Array) -> Array:
    """Compute GELU by its approximation with tanh, in functions of autograd."""
    # Beyond 10 the tanh is ±1 in double precision; without the clip the cube overflows.
    t = anp.clip(x, -10, 10)
    return 0.5 * x * (1 + anp.tanh(GELU_TANH_SCALE * (t + GELU_TANH_CUBIC * t**3)))


def _elu(x: Array, alpha: float, scale: float) -> Array:
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _elu_slope(x: Array, alpha: float, scale: float) -> Array:
    return scale * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


def _gelu_slope(x: Array) -> Array:
    density = np.exp(-0.5 * np.minimum(np.abs(x), 40) ** 2) / np.sqrt(2 * np.pi)
    return ndtr(x) + x * density


def _gelu_tanh_slope(x: Array) -> Array:
    t = np.clip(x, -10, 10)
    tanh = np.tanh(GELU_TANH_SCALE * (t + GELU_TANH_CUBIC * t**3))
    inner_slope = GELU_TANH_SCALE * (1 + 3 * GELU_TANH_CUBIC * t**2)
    return 0.5 * (1 + tanh) + 0.5 * t * (1 - tanh**2) * inner_slope


def _silu_slope(x: Array) -> Array:
    s = expit(x)
    return s * (1 + x * expit(-x))


# PyTorch's conventions: the slope of relu and of leaky_relu at 0 is the left one.
_NAMED: dict[str, tuple[Elementwise, Elementwise]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)),
    "leaky_relu": (
        lambda x: np.where(x > 0, x, LEAK * x),
        lambda x: np.where(x > 0, 1, LEAK),
    ),
    "elu": (lambda x: _elu(x, 1.0, 1.0), lambda x: _elu_slope(x, 1.0, 1.0)),
    "selu": (
        lambda x: _elu(x, SELU_ALPHA, SELU_SCALE),
        lambda x: _elu_slope(x, SELU_ALPHA, SELU_SCALE),
    ),
    "gelu": (lambda x: x * ndtr(x), _gelu_slope),
    "gelu_tanh": (gelu_tanh, _gelu_tanh_slope),
    "silu": (lambda x: x * expit(x), _silu_slope),
    # sech² as a product keeps its relative accuracy where 1 - tanh² has lost it.
    "tanh": (np.tanh, lambda x: 4 * expit(2 * x) * expit(-2 * x)),
    "sigmoid": (expit, lambda x: expit(x) * expit(-x)),
    "softplus": (lambda x: np.logaddexp(x, 0), expit),
    "identity": (lambda x: x, np.ones_like),
}


def _keeping_dtype(function: Elementwise) -> Elementwise:
    return lambda x: np.asarray(function(x), dtype=x.dtype)


ACTIVATIONS: dict[str, Activation] = {
    name: Activation(_keeping_dtype(function), _keeping_dtype(slope))
    for name, (function, slope) in _NAMED.items()
}


def get_activation(activation: str | Elementwise) -> Activation:
    """Return a named activation, or build one of a user's elementwise function.

    The slope of a user's function comes from autograd, so ``autograd.numpy`` conventions
    hold at kinks (the slope of ``maximum(x, 0)`` at 0 is 0.5).

    Parameters
    ----------
    activation : str or callable
        One of the names in ``ACTIVATIONS`` or an elementwise function written with
        ``autograd.numpy``.

    Returns
    -------
    Activation
        The function and its slope.

    Raises
    ------
    ValueError
        If the name is unknown, or the function is not elementwise or cannot be
        differentiated by autograd.
    TypeError
        If `activation` is neither a string nor a callable.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.activations import get_activation
    >>> get_activation("relu").slope(np.array([-1.0, 0.0, 1.0]))
    array([0., 0., 1.])
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation={activation!r} is unknown; pass one of {sorted(ACTIVATIONS)} or "
                "an elementwise function written with autograd.numpy."
            )
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise TypeError(
            f"activation must be a name or a callable, got {type(activation).__name__}; pass one "
            f"of {sorted(ACTIVATIONS)} or an elementwise function written with autograd.numpy."
        )
    derivative = elementwise_grad(activation)

    def slope(x: Array) -> Array:
        # A root has no slope at zero, where its argument may be constant.
        with np.errstate(divide="ignore"), exclusive_autograd():
            return np.asarray(derivative(x))

    _check_elementwise(activation, slope)
    return Activation(_keeping_dtype(activation), _keeping_dtype(slope))


def activation_name(activation: str | Elementwise) -> str:
    """Return the name of an activation, for display.

    Parameters
    ----------
    activation : str or callable
        As passed to a layer.

    Returns
    -------
    str
        The name.
    """
    if isinstance(activation, str):
        return activation
    return getattr(activation, "__name__", type(activation).__name__)


def _check_elementwise(function: Elementwise, slope: Elementwise) -> None:
    x = np.array([[-1.3, 0.2, 0.7], [1.9, -0.4, 0.5]])
    name = getattr(function, "__name__", repr(function))
    try:
        # Some have no value at some of these points, as the logarithm at negative ones.
        with np.errstate(all="ignore"):
            value, derivative = np.asarray(function(x)), np.asarray(slope(x))
            alone = [np.asarray(function(x[i : i + 1, j : j + 1])) for i, j in np.ndindex(x.shape)]
    except Exception as error:
        raise ValueError(
            f"activation {name} cannot be evaluated and differentiated by autograd "
            f"({type(error).__name__}: {error}); use the functions of autograd.numpy in it."
        ) from error
    elementwise = value.shape == derivative.shape == x.shape and all(
        np.allclose(result, expected, equal_nan=True)
        for result, expected in zip(alone, value.ravel(), strict=True)
    )
    if not elementwise:
        raise ValueError(
            f"activation {name} is not elementwise: an entry of its result depends on other "
            "entries, or its shape differs from its argument's. Pass the whole layer as a "
            "callable network instead."
        )
