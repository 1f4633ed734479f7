"""The nodes of activations in an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jacrot.activations import (
    GELU_TANH_CUBIC,
    GELU_TANH_SCALE,
    LEAK,
    SELU_ALPHA,
    SELU_SCALE,
    Clip,
    Elu,
    LeakyRelu,
)
from jacrot.readers._onnx_elementwise import Expression
from jacrot.writers._common import activation_key
from jacrot.writers._onnx_graph import OnnxGraph


def add_activation(graph: OnnxGraph, activation: Any, x: str) -> str:
    """Add the nodes of an activation.

    Parameters
    ----------
    graph : OnnxGraph
        The graph.
    activation : str or callable
        The activation.
    x : str
        Name of its input.

    Returns
    -------
    str
        Name of its output.
    """
    return ACTIVATION_NODES[activation_key(activation)](graph, x, activation)


# The parameters of an operator are in single precision, and ONNX Runtime has none of the operators
# below in double precision: there they are composed of others.


def _leaky_relu(graph: OnnxGraph, x: str, slope: float) -> str:
    if graph.single:
        return graph.node("LeakyRelu", x, alpha=slope)
    negative = graph.node("Mul", graph.number(slope), graph.node("Relu", graph.node("Neg", x)))
    return graph.node("Sub", graph.node("Relu", x), negative)


def _elu(graph: OnnxGraph, x: str, alpha: float) -> str:
    if graph.single:
        return graph.node("Elu", x, alpha=alpha)
    power = graph.node("Exp", graph.node("Neg", graph.node("Relu", graph.node("Neg", x))))
    negative = graph.node("Mul", graph.number(alpha), graph.node("Sub", power, graph.number(1)))
    return graph.node("Add", graph.node("Relu", x), negative)


def _selu(graph: OnnxGraph, x: str) -> str:
    if graph.single:
        return graph.node("Selu", x)
    return graph.node("Mul", graph.number(SELU_SCALE), _elu(graph, x, SELU_ALPHA))


def _gelu(graph: OnnxGraph, x: str) -> str:
    if graph.single:
        return graph.node("Gelu", x)
    erf = graph.node("Erf", graph.node("Mul", x, graph.number(np.sqrt(0.5))))
    return _half(graph, x, erf)


def _gelu_tanh(graph: OnnxGraph, x: str) -> str:
    if graph.single:
        return graph.node("Gelu", x, approximate="tanh")
    cube = graph.node("Mul", graph.node("Mul", x, x), x)
    inner = graph.node("Add", x, graph.node("Mul", graph.number(GELU_TANH_CUBIC), cube))
    return _half(
        graph, x, graph.node("Tanh", graph.node("Mul", graph.number(GELU_TANH_SCALE), inner))
    )


def _half(graph: OnnxGraph, x: str, odd: str) -> str:
    """Add the nodes of ``x (1 + odd) / 2``."""
    return graph.node(
        "Mul", graph.node("Mul", graph.number(0.5), x), graph.node("Add", odd, graph.number(1))
    )


def _silu(graph: OnnxGraph, x: str) -> str:
    if graph.single:
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    # ONNX Runtime 1.17 fuses the product into an operator that it has in single precision only.
    return graph.node(
        "Div", x, graph.node("Add", graph.node("Exp", graph.node("Neg", x)), graph.number(1))
    )


def _softplus(graph: OnnxGraph, x: str) -> str:
    if graph.single:
        return graph.node("Softplus", x)
    power = graph.node("Exp", graph.node("Neg", graph.node("Abs", x)))
    return graph.node(
        "Add", graph.node("Relu", x), graph.node("Log", graph.node("Add", power, graph.number(1)))
    )


def _clip(graph: OnnxGraph, x: str, low: float, high: float) -> str:
    return graph.node("Clip", x, graph.number(low), graph.number(high))


def _expression(graph: OnnxGraph, x: str, expression: Expression) -> str:
    """Add the nodes from which an activation was read."""
    values = [x]
    for operator, inputs, attributes in expression.steps:
        given = dict(attributes)
        if operator == "Clip" and given:
            # Before version 11 its bounds were attributes.
            inputs = (*inputs, given.pop("min", None), given.pop("max", None))
        names = [
            values[value]
            if isinstance(value, int)
            else ""
            if value is None
            else graph.number(value)
            for value in inputs
        ]
        values.append(graph.node(operator, *names, **given))
    return values[-1]


# By name, or by class if they have parameters.
ACTIVATION_NODES: dict[str | type[Any], Callable[[OnnxGraph, str, Any], str]] = {
    "elu": lambda graph, x, activation: _elu(graph, x, 1.0),
    "gelu": lambda graph, x, activation: _gelu(graph, x),
    "gelu_tanh": lambda graph, x, activation: _gelu_tanh(graph, x),
    "identity": lambda graph, x, activation: x,
    "leaky_relu": lambda graph, x, activation: _leaky_relu(graph, x, LEAK),
    "relu": lambda graph, x, activation: graph.node("Relu", x),
    "selu": lambda graph, x, activation: _selu(graph, x),
    "sigmoid": lambda graph, x, activation: graph.node("Sigmoid", x),
    "silu": lambda graph, x, activation: _silu(graph, x),
    "softplus": lambda graph, x, activation: _softplus(graph, x),
    "tanh": lambda graph, x, activation: graph.node("Tanh", x),
    Clip: lambda graph, x, activation: _clip(graph, x, activation.low, activation.high),
    Elu: lambda graph, x, activation: _elu(graph, x, activation.alpha),
    Expression: lambda graph, x, activation: _expression(graph, x, activation),
    LeakyRelu: lambda graph, x, activation: _leaky_relu(graph, x, activation.negative_slope),
}
