"""Layers as plain data: what a file needs to build them again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

import jacrot.layers
from jacrot.layers._base import BaseLayer
from jacrot.layers._fields import Converted

FORMAT = "jacrot.Network/1"
# Types of fields that JSON holds as they are.
_PLAIN = {bool, float, int, str, type(None)}


def is_built_in(layer: type[Any]) -> bool:
    """Check whether a class is one of the package's layers, and not derived from one.

    Parameters
    ----------
    layer : type
        A class.

    Returns
    -------
    bool
        Whether ``jacrot.layers`` exports this very class as a layer to use.
    """
    return issubclass(layer, BaseLayer) and (
        vars(jacrot.layers).get(layer.__name__) is layer is not BaseLayer
    )


def serialize(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Convert a layer, or an argument of one, to JSON-serialisable data and arrays beside it.

    Parameters
    ----------
    value : object
        The layer or argument.
    name : str
        Name of the value, under which its arrays are stored.
    arrays : dict
        The arrays are added to it.

    Returns
    -------
    object
        Data that JSON can hold.

    Raises
    ------
    ValueError
        If it is a layer of a user's own, or holds a function.
    """
    if is_built_in(type(value)):
        arguments = {
            key: serialize(argument, f"{name}.{key}", arrays)
            for key, argument in value.arguments.items()
        }
        return {"layer": type(value).__name__, "arguments": arguments}
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, (tuple, list)):
        return [serialize(item, f"{name}.{index}", arrays) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"layer {name}, {value!r}, is or holds your own Python function or class, which cannot "
        "be saved without pickle; save the arrays and keep the code."
    )


def deserialize(data: Any, arrays: dict[str, Any]) -> Any:
    """Build a layer, or an argument of one, of the data that `serialize` returned.

    Parameters
    ----------
    data : object
        The data, from a file that anyone may have changed.
    arrays : dict
        The arrays beside it. Each is removed: it belongs to one layer.

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
    if isinstance(data, list):
        return [deserialize(item, arrays) for item in data]
    if isinstance(data, float) and not isfinite(data):
        raise ValueError(f"{data} is not a finite number")
    if not isinstance(data, dict):
        return data
    if "array" in data:
        return arrays.pop(data["array"])
    kind = data["layer"]
    layer = getattr(jacrot.layers, kind, None)
    if not (isinstance(layer, type) and is_built_in(layer)):
        raise KeyError(kind)
    arguments = {}
    for name, value in data["arguments"].items():
        arguments[name] = deserialize(value, arrays)
        allowed = _plain_fields(layer).get(name)
        if allowed is not None and type(value) not in allowed:
            raise TypeError(f"{kind} takes no {name} of {type(value).__name__}")
    return layer(**arguments)


@cache
def _plain_fields(layer: type[Any]) -> dict[str, set[Any]]:
    """List the fields that JSON holds as they are, with the types that it makes of their values.

    The other fields are arrays, layers or geometries, which the layer itself checks.
    """
    allowed = {}
    for name, hint in get_type_hints(layer).items():
        accepted = get_args(hint)[0] if get_origin(hint) is Converted else hint
        is_union = get_origin(accepted) in (Union, UnionType)
        members = get_args(accepted) if is_union else (accepted,)
        # No file holds a function, though a field may.
        kinds = {member for member in members if get_origin(member) is not Callable}
        if kinds <= _PLAIN:
            allowed[name] = kinds | {int} if float in kinds else kinds
    return allowed
