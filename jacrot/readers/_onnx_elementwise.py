"""Activations that are exported as several operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import autograd.numpy as anp
import autograd.scipy.special as special
import numpy as np
from autograd.tracer import isbox
from numpy.typing import NDArray

from jacrot._utils.arrays import Array
from jacrot.activations import (
    ACTIVATIONS,
    SELU_ALPHA,
    SELU_SCALE,
    Clip,
    Elu,
    LeakyRelu,
    gelu,
    gelu_tanh,
)


@dataclass(frozen=True)
class Expression:
    """An elementwise function, as a sequence of operators.

    Parameters
    ----------
    steps : tuple
        Name, inputs and attributes of every operator. An input is the index of an earlier value,
        where 0 is the argument of the function, or a constant.
    """

    steps: tuple[tuple[str, tuple[int | float | None, ...], tuple[tuple[str, Any], ...]], ...]

    @property
    def __name__(self) -> str:
        return "_".join(operator.lower() for operator, _, _ in self.steps)

    def __call__(self, x: Array) -> Array:
        """Apply the function to every entry."""
        values = [x]
        for operator, inputs, attributes in self.steps:
            arguments = [values[given] if isinstance(given, int) else given for given in inputs]
            values.append(ELEMENTWISE[operator](*arguments, **dict(attributes)))
        result = values[-1]
        # autograd warns about functions whose slope is zero everywhere, such as a step.
        return result + 0 * x if isbox(x) and not isbox(result) else result

    def name(self) -> str | None:
        """Return the name of the activation that equals this function in single precision."""
        grid, named = _grid()
        with np.errstate(all="ignore"):
            same: NDArray[np.bool_] = np.asarray(_close(self(grid), named).all(axis=1))
            # Functions may differ only near one of their constants, such as a threshold.
            near = self._near_numbers() if same.any() else grid
            for found, (name, activation) in zip(same, ACTIVATIONS.items(), strict=True):
                if found and _close(self(near), activation.function(near)).all():
                    return name
        return None

    def _near_numbers(self) -> Array:
        """Return points near the constants of the function, where it may change its form."""
        numbers = {
            float(value)
            for _, inputs, attributes in self.steps
            for value in (*inputs, *(value for _, value in attributes))
            if isinstance(value, float)
        }
        pairs = [(first, second) for first in numbers | {1.0} for second in numbers | {1.0}]
        points = [
            point
            for first, second in pairs
            for point in (first * second, first + second, first - second, first / (second or 1.0))
        ]
        near = np.outer(np.unique(points), [-2, -1.001, -1, -0.999, -0.5, 0.5, 0.999, 1, 1.001, 2])
        return near[np.isfinite(near)]

    def is_total(self) -> bool:
        """Check whether the function has a value everywhere, unlike a logarithm."""
        grid, _ = _grid()
        with np.errstate(all="ignore"):
            return bool(np.isfinite(self(grid[np.abs(grid) < 10])).all())


@cache
def _grid() -> tuple[Array, Array]:
    """Return a grid of points, and the values of every named activation at them."""
    small, large = np.logspace(-6, 0, 25), [20, 100, 1e4, 1e20]
    grid = np.concatenate([np.linspace(-8, 8, 257), np.outer([-1, 1], [*small, *large]).ravel()])
    with np.errstate(all="ignore"):
        return grid, np.stack([activation.function(grid) for activation in ACTIVATIONS.values()])


def _close(values: Array, named: Array) -> Array:
    return np.asarray(np.abs(values - named) <= 1e-6 + 1e-6 * np.abs(named))


def _clip(
    x: Array,
    low: float | None = None,
    high: float | None = None,
    min: float = -np.inf,
    max: float = np.inf,
) -> Array:
    return Clip(min if low is None else low, max if high is None else high)(x)


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return _clip(alpha * x + beta, 0.0, 1.0)


def _gelu(x: Array, approximate: bytes = b"none") -> Array:
    if approximate == b"tanh":
        return gelu_tanh(x)
    if approximate != b"none":
        raise TypeError(f"approximate={approximate!r}")
    return gelu(x)


def _shrink(x: Array, bias: float = 0.0, lambd: float = 0.5) -> Array:
    return anp.where(x < -lambd, x + bias, anp.where(x > lambd, x - bias, 0.0))


# Operators with boolean results.
LOGICAL: dict[str, Callable[..., Array]] = {
    "And": anp.logical_and,
    "Equal": anp.equal,
    "Greater": anp.greater,
    "GreaterOrEqual": anp.greater_equal,
    "Less": anp.less,
    "LessOrEqual": anp.less_equal,
    "Not": anp.logical_not,
    "Or": anp.logical_or,
    "Xor": anp.logical_xor,
}
ELEMENTWISE: dict[str, Callable[..., Array]] = {
    **LOGICAL,
    "Abs": anp.abs,
    "Acos": anp.arccos,
    "Acosh": anp.arccosh,
    "Add": anp.add,
    "Asin": anp.arcsin,
    "Asinh": anp.arcsinh,
    "Atan": anp.arctan,
    "Atanh": anp.arctanh,
    "Celu": lambda x, alpha=1.0: anp.where(
        x > 0, x, alpha * anp.expm1(anp.where(x > 0, 0, x) / alpha)
    ),
    "Clip": _clip,
    "Cos": anp.cos,
    "Cosh": anp.cosh,
    "Div": anp.divide,
    "Elu": lambda x, alpha=1.0: Elu(alpha)(x),
    "Erf": special.erf,
    "Exp": anp.exp,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, 1 / 6),
    "LeakyRelu": lambda x, alpha=0.01: LeakyRelu(alpha)(x),
    "Log": anp.log,
    "Max": lambda *x: reduce(anp.maximum, x),
    "Min": lambda *x: reduce(anp.minimum, x),
    "Mish": lambda x: x * anp.tanh(anp.logaddexp(x, 0)),
    "Mul": anp.multiply,
    "Neg": anp.negative,
    "PRelu": lambda x, slope: LeakyRelu(slope)(x),
    "Pow": anp.power,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: anp.where(x > 0, x, 0.0),
    "Selu": lambda x, alpha=SELU_ALPHA, gamma=SELU_SCALE: gamma * Elu(alpha)(x),
    "Shrink": _shrink,
    "Sigmoid": special.expit,
    "Sign": anp.sign,
    "Sin": anp.sin,
    "Sinh": anp.sinh,
    "Softplus": lambda x: anp.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + anp.abs(x)),
    "Sqrt": anp.sqrt,
    "Sub": anp.subtract,
    "Swish": lambda x, alpha=1.0: x * special.expit(alpha * x),
    "Tan": anp.tan,
    "Tanh": anp.tanh,
    "ThresholdedRelu": lambda x, alpha=1.0: anp.where(x > alpha, x, 0.0),
    "Where": anp.where,
}
