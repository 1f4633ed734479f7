"""Fields of layers: what their constructors accept, and what they keep of it."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array, read_only, real_array

Given = TypeVar("Given")
Kept = TypeVar("Kept")
_REQUIRED: Any = object()


class Converted(Generic[Given, Kept]):
    """Descriptor of a field of a frozen dataclass that converts what the constructor is passed.

    ``bias: Converted[ArrayLike | None, Array] = Converted(convert, None)`` is an argument of type
    ``ArrayLike | None`` whose default is ``None``, and an attribute of type ``Array``.

    Parameters
    ----------
    convert : callable
        Called with what was passed, the name of the field and the layer, of which the fields before
        this one are set; returns what the layer keeps, or raises an error that names the field.
    default : object, optional
        Default of the argument, which is converted too; without it the argument is required.
    """

    def __init__(
        self, convert: Callable[[Given, str, Any], Kept], default: Given = _REQUIRED
    ) -> None:
        self.convert = convert
        self.default = default

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type[Any]) -> Given: ...

    @overload
    def __get__(self, layer: object, owner: type[Any]) -> Kept: ...

    def __get__(self, layer: object | None, owner: type[Any]) -> Given | Kept:
        if layer is not None and self.name in vars(layer):
            return vars(layer)[self.name]
        # Dataclasses ask the class for the default.
        if layer is not None or self.default is _REQUIRED:
            raise AttributeError(self.name)
        return self.default

    def __set__(self, layer: object, value: Given) -> None:
        vars(layer)[self.name] = self.convert(value, self.name, layer)


def integer(value: int, name: str, layer: object) -> int:
    """Convert a whole number, which may be NumPy's."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be a whole number.")
    return int(value)


def number(value: float, name: str, layer: object) -> float:
    """Convert a number of any type to a float."""
    return float(value)


def matrix(value: ArrayLike, name: str, layer: object) -> Array:
    """Copy a matrix."""
    return read_only(real_array(value, name, ndim=2))


def vector(value: ArrayLike, name: str, layer: object) -> Array:
    """Copy a vector."""
    return read_only(real_array(value, name, ndim=1))


def optional_vector(value: ArrayLike | None, name: str, layer: object) -> Array | None:
    """Copy a vector, unless it is None."""
    return None if value is None else vector(value, name, layer)


def weight_matrix(value: ArrayLike, name: str, layer: object) -> Array:
    """Copy a matrix that has rows and columns."""
    weight = matrix(value, name, layer)
    if 0 in weight.shape:
        raise ValueError(f"{name} has shape {weight.shape}; a layer needs both sides.")
    return weight


def bias_beside(weight: str) -> Callable[[ArrayLike | None, str, Any], Array]:
    """Build the converter of the bias that is added to the product with a weight.

    Parameters
    ----------
    weight : str
        Name of the field of the weight, outputs first.

    Returns
    -------
    callable
        A converter; ``None`` becomes zeros in the precision of the weight.
    """

    def convert(value: ArrayLike | None, name: str, layer: Any) -> Array:
        product: Array = getattr(layer, weight)
        n_outputs = len(product)
        given = np.zeros(n_outputs, product.dtype) if value is None else value
        bias = vector(given, name, layer)
        if bias.size != n_outputs:
            raise ValueError(
                f"{name} has {bias.size} entries but {weight} has shape {product.shape}, outputs "
                f"first: pass a bias of {n_outputs} entries."
            )
        return bias

    return convert


def basis_change(value: ArrayLike | None, name: str, layer: Any) -> Array | None:
    """Copy the change of basis after the activation of a layer that has a weight."""
    if value is None:
        return None
    rotation = matrix(value, name, layer)
    n_outputs = len(layer.weight)
    if rotation.shape[1] != n_outputs:
        raise ValueError(
            f"{name} has shape {rotation.shape} but the layer has {n_outputs} outputs: pass a "
            f"matrix of {n_outputs} columns."
        )
    return rotation


def check_equal_sizes(**vectors: Array | None) -> None:
    """Check that the parameters of a layer have as many entries as one another.

    Parameters
    ----------
    **vectors : ndarray or None
        Vectors by the names of their fields; ``None`` is left out.

    Raises
    ------
    ValueError
        If their sizes differ.
    """
    sizes = {name: vector.size for name, vector in vectors.items() if vector is not None}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} has {size} entries" for name, size in sizes.items())
        raise ValueError(f"{found}; pass as many for each.")
