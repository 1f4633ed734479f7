"""Save fitted estimators to files of arrays with a JSON description, and load them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.fitted_range import FittedRange
from jacrot._estimators.fitted_state import Unsaved, check_fitted_state
from jacrot._io import archive
from jacrot._jacobians.coordinates import Coordinates, FunctionalCoordinates, NeuronCoordinates
from jacrot.layers._serialization import deserialize, serialize
from jacrot.network import Network
from jacrot.readers._files import read_saved
from jacrot.readers._saved import ALTERED, build_network, invalid_file_error

Estimator = TypeVar("Estimator", bound=BaseEstimator)
VERSION = 1


def save(estimator: BaseEstimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see :meth:`jacrot.JacobianSparsityRotation.save`.

    Parameters
    ----------
    estimator : BaseEstimator
        A fitted estimator whose class lists in ``_saved`` the types of its fitted attributes.
    path : str or path-like
        Path of the file.
    """
    check_is_fitted(estimator)
    try:
        check_fitted_state(estimator)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{error}: the estimator was changed after its fit; fit it again, or set the "
            "parameters back to those of the fit."
        ) from error
    writer = _Writer()
    parameters = estimator.get_params(deep=False)
    # The fitted network is saved as `network_`.
    has_network = parameters.pop("network") is not None
    fitted = {name: vars(estimator)[name] for name in estimator._saved if name in vars(estimator)}
    try:
        attributes = {name: writer.serialize(value, name) for name, value in fitted.items()}
    except ValueError as error:
        raise ValueError(
            f"{error} Or save the rotations alone: numpy.savez(path, rotation=...)."
        ) from error
    description = {
        "format": _format(type(estimator)),
        "metadata": estimator.provenance_,
        "parameters": {
            name: writer.serialize_parameter(value, f"parameter.{name}")
            for name, value in parameters.items()
        },
        "has_network": has_network,
        "attributes": attributes,
    }
    archive.write(path, description, writer.arrays)


def load(kind: type[Estimator], path: str | os.PathLike[str]) -> Estimator:
    """Read what :func:`save` wrote.

    Parameters
    ----------
    kind : type
        The class of the estimator.
    path : str or path-like
        The file.

    Returns
    -------
    estimator
        The fitted estimator.

    Raises
    ------
    ValueError
        If the file is damaged, or has other content.
    """
    description, arrays = read_saved(path)
    found = description["format"]
    if found != _format(kind):
        raise ValueError(
            f"path={str(path)!r} has format {found!r}, but {kind.__name__}.load reads "
            f"{_format(kind)!r}; use the load of the class that was saved."
        )
    try:
        reader = _Reader(arrays)
        parameters = description["parameters"]
        estimator = kind(
            **{name: reader.deserialize(value, "") for name, value in parameters.items()}
        )
        attributes = description["attributes"]
        for name in kind._saved:
            if name in attributes:
                value = reader.deserialize_attribute(name, attributes[name])
                # Files have null for neurons.
                if value is None and kind._saved[name] is Coordinates:
                    value = NeuronCoordinates()
                setattr(estimator, name, value)
        check_fitted_state(estimator)
        if description["has_network"]:
            network = estimator.network_
            estimator.network = Unsaved("Jacobians") if network is None else network
    except ALTERED as error:
        raise invalid_file_error(Path(path), error) from error
    return estimator


def _format(kind: type) -> str:
    return f"jacrot.{kind.__name__}/{VERSION}"


class _Writer:
    """Represent values in JSON, and collect the arrays in them."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def serialize(self, value: Any, name: str) -> Any:
        """Return the JSON form of a value; raise ValueError if it contains a Python function."""
        match value:
            case Network():
                layers = serialize(list(value.layers), name, self.arrays)
                if value.rotated_sites:
                    return {"rotated network": [layers, list(value.rotated_sites)]}
                return {"network": layers}
            case NeuronCoordinates():
                return None
            case FunctionalCoordinates():
                # Tied outputs share the coordinates object of the inputs.
                first = self._names.setdefault(id(value), name)
                if first != name:
                    return {"same": first}
                return {"coordinates": self.serialize(vars(value), name)}
            case FittedRange():
                return {"fitted range": self.serialize(vars(value), name)}
            case Mapping():
                items = value.items()
                return {"items": [[k, self.serialize(item, f"{name}.{k}")] for k, item in items]}
            case tuple() | list():
                serialized = [
                    self.serialize(item, f"{name}.{index}") for index, item in enumerate(value)
                ]
                return {"tuple": serialized} if isinstance(value, tuple) else serialized
            case np.generic():
                return value.item()
            case np.ndarray() if value.dtype == object:
                return {"names": value.tolist()}
        return serialize(value, name, self.arrays)

    def serialize_parameter(self, value: Any, name: str) -> Any:
        """Return the JSON form of a parameter, or a note that it cannot be saved."""
        if isinstance(value, Unsaved):
            return {"unsaved": value.text}
        try:
            return self.serialize(value, name)
        except ValueError:
            return {"unsaved": getattr(value, "__name__", type(value).__name__)}


class _Reader:
    """Build values from their JSON form."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays
        self._coordinates: dict[str, FunctionalCoordinates] = {}

    def deserialize_attribute(self, name: str, description: Any) -> Any:
        """Build the value of an attribute; raise ValueError if its JSON form is invalid."""
        try:
            return self.deserialize(description, name)
        except ALTERED as error:
            raise ValueError(f"{name} has no valid description ({error!r})") from error

    def deserialize(self, description: Any, name: str) -> Any:
        """Build a value; raise KeyError, TypeError or ValueError if its JSON form is invalid."""
        if isinstance(description, list):
            return [self.deserialize(item, "") for item in description]
        if not isinstance(description, dict):
            return description
        ((kind, content),) = description.items()
        match kind:
            case "network":
                return build_network(content, self.arrays)
            case "rotated network":
                layers, sites = content
                return build_network(layers, self.arrays, sites)
            case "coordinates":
                self._coordinates[name] = FunctionalCoordinates(**self.deserialize(content, ""))
                return self._coordinates[name]
            case "fitted range":
                return FittedRange(**self.deserialize(content, ""))
            case "same":
                return self._coordinates[content]
            case "items":
                return {key: self.deserialize(item, "") for key, item in content}
            case "tuple":
                return tuple(self.deserialize(content, ""))
            case "names":
                return np.array(content, dtype=object)
            case "unsaved":
                return Unsaved(str(content))
        return deserialize(description, self.arrays)
