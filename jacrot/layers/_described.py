"""Layers as plain data: what a file needs to make them again."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

import jacrot.layers
from jacrot.layers._base import BaseLayer

FORMAT = "jacrot.Network/1"
# What JSON makes of the arguments of layers that these themselves take as they are.
SCALARS = {
    "activation": (str,),
    "count_padding": (bool,),
    "eps": (int, float),
    "frozen": (bool,),
    "groups": (int,),
    "n_heads": (int,),
    "scale": (int, float, type(None)),
}


def described(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Describe a layer, or an argument of one, by what JSON can hold and arrays beside it.

    Parameters
    ----------
    value : object
        The layer or argument.
    name : str
        The place of the value, under which its arrays go.
    arrays : dict
        Takes the arrays.

    Returns
    -------
    object
        The description.

    Raises
    ------
    ValueError
        If it is a layer of a user's own, or holds a function.
    """
    if isinstance(value, BaseLayer) and type(value).__name__ in jacrot.layers.__all__:
        arguments = {
            key: described(argument, f"{name}.{key}", arrays)
            for key, argument in value.arguments.items()
        }
        return {"layer": type(value).__name__, "arguments": arguments}
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, (tuple, list)):
        return [described(item, f"{name}.{index}", arrays) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"layer {name}, {value!r}, is or holds a Python function or class of yours, which cannot "
        "be saved without pickle; save the arrays and keep the code."
    )


def restored(description: Any, arrays: dict[str, Any]) -> Any:
    """Make what was described.

    Parameters
    ----------
    description : object
        The description.
    arrays : dict
        The arrays beside it. Every one is taken out: it is described once.

    Returns
    -------
    object
        The layer or argument.

    Raises
    ------
    KeyError
        If a layer or an array is missing.
    TypeError
        If a layer does not take these arguments.
    ValueError
        If it does not take their values, or a number is not finite.
    """
    if isinstance(description, list):
        return [restored(item, arrays) for item in description]
    if isinstance(description, float) and not isfinite(description):
        raise ValueError(f"{description} is no finite number")
    if not isinstance(description, dict):
        return description
    if "array" in description:
        return arrays.pop(description["array"])
    kind = description["layer"]
    layer = getattr(jacrot.layers, kind, None)
    if not (isinstance(layer, type) and issubclass(layer, BaseLayer)) or kind == "Function":
        raise KeyError(kind)
    arguments = {}
    for name, value in description["arguments"].items():
        arguments[name] = restored(value, arrays)
        if name in SCALARS and type(value) not in SCALARS[name]:
            raise TypeError(f"{kind} takes no {name} of {type(value).__name__}")
    return layer(**arguments)
