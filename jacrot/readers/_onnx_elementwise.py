"""Activations that are written out in the operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import autograd.numpy as anp
import autograd.scipy.special as special
import numpy as np

from jacrot._arrays import Array
from jacrot.activations import ACTIVATIONS
from jacrot.readers._common import Clip


@dataclass(frozen=True)
class Expression:
    """An elementwise function, written out in operators.

    Parameters
    ----------
    steps : tuple
        For each operator its name, its inputs (the place of an earlier value, of which the first
        is the argument, or a constant) and its attributes.
    """

    steps: tuple[tuple[str, tuple[int | float | None, ...], tuple[tuple[str, Any], ...]], ...]

    @property
    def __name__(self) -> str:
        return "_".join(operator.lower() for operator, _, _ in self.steps)

    def __call__(self, x: Array) -> Array:
        """Compute the function of every entry."""
        values = [x]
        for operator, inputs, attributes in self.steps:
            arguments = [values[given] if isinstance(given, int) else given for given in inputs]
            values.append(ELEMENTWISE[operator](*arguments, **dict(attributes)))
        return values[-1]

    def name(self) -> str | None:
        """Find the name of the activation that this is to single precision, if it has one."""
        grid, named = _grid()
        with np.errstate(all="ignore"):
            close = np.abs(self(grid) - named) <= 1e-6 + 1e-6 * np.abs(named)
        same = close.all(axis=1)
        return list(ACTIVATIONS)[same.argmax()] if same.any() else None


@cache
def _grid() -> tuple[Array, Array]:
    """Compute the activations that have a name, one a row, at some points."""
    grid = np.concatenate(
        [np.linspace(-8, 8, 129), np.outer([-1, 1], [20, 100, 1e4, 1e20]).ravel()]
    )
    with np.errstate(all="ignore"):
        return grid, np.stack([activation.function(grid) for activation in ACTIVATIONS.values()])


def _where_positive(x: Array, positive: Array, negative: Callable[[Array], Array]) -> Array:
    return anp.where(x > 0, positive, negative(anp.where(x > 0, 0, x)))


def _clip(
    x: Array,
    low: float | None = None,
    high: float | None = None,
    min: float = -np.inf,
    max: float = np.inf,
) -> Array:
    return Clip(min if low is None else low, max if high is None else high)(x)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (anp.tanh(0.5 * x) + 1)


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return _clip(alpha * x + beta, 0.0, 1.0)


def _gelu(x: Array, approximate: bytes = b"none") -> Array:
    if approximate == b"tanh":
        return 0.5 * x * (1 + anp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    if approximate != b"none":
        raise TypeError(f"approximate={approximate!r}")
    return 0.5 * x * (1 + special.erf(x / np.sqrt(2)))


ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Abs": anp.abs,
    "Add": anp.add,
    "Clip": _clip,
    "Div": anp.divide,
    "Elu": lambda x, alpha=1.0: _where_positive(x, x, lambda t: alpha * anp.expm1(t)),
    "Erf": special.erf,
    "Exp": anp.exp,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, 1 / 6),
    "LeakyRelu": lambda x, alpha=0.01: _where_positive(x, x, lambda t: alpha * t),
    "Log": anp.log,
    "Mish": lambda x: x * anp.tanh(anp.logaddexp(x, 0)),
    "Mul": anp.multiply,
    "Neg": anp.negative,
    "Pow": anp.power,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: _where_positive(x, x, lambda t: 0 * t),
    "Selu": lambda x, alpha=1.6732632423543772, gamma=1.0507009873554805: (
        gamma * _where_positive(x, x, lambda t: alpha * anp.expm1(t))
    ),
    "Sigmoid": _sigmoid,
    "Softplus": lambda x: anp.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + anp.abs(x)),
    "Sqrt": anp.sqrt,
    "Sub": anp.subtract,
    "Tanh": anp.tanh,
}
