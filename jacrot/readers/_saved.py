"""Descriptions in files that ``save`` of a network or an estimator wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jacrot.layers._base import BaseLayer
from jacrot.layers._serialization import FORMAT, deserialize
from jacrot.network import Network

# Errors of deserialising a description that was changed. RecursionError, for layers or brackets
# that are nested too deeply, is a RuntimeError.
ALTERED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def parse_description(header: str, path: Path) -> dict[str, Any]:
    """Parse the description of a file.

    Parameters
    ----------
    header : str
        The description as JSON.
    path : Path
        The file, for the error message.

    Returns
    -------
    dict
        The description, with its ``"format"``.

    Raises
    ------
    ValueError
        If it is not a description.
    """
    try:
        description = json.loads(header)
        if isinstance(description["format"], str):
            return dict(description)
        raise TypeError("the format has no name")
    except ALTERED as error:
        raise invalid_file_error(path, error) from error


def invalid_file_error(path: Path, error: Exception) -> ValueError:
    """Build the error for a file with an invalid description."""
    return ValueError(
        f"path={str(path)!r} is damaged, or was changed after save wrote it "
        f"({type(error).__name__}: {error}); save it again."
    )


def build_network(layers: Any, arrays: dict[str, NDArray[Any]], rotated_sites: Any = ()) -> Network:
    """Build a network from the descriptions of its layers.

    Parameters
    ----------
    layers : list
        Descriptions of the layers.
    arrays : dict of ndarray
        Arrays of the file by name.
    rotated_sites : list of int, default=()
        Sites that were rotated.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    Exception
        One of `ALTERED`, if the descriptions are invalid.
    """
    made = [deserialize(layer, arrays) for layer in layers]
    if not all(isinstance(layer, BaseLayer) for layer in made):
        raise TypeError("an entry of layers is not a layer")
    if any(type(site) is not int or not 0 <= site <= len(made) for site in rotated_sites):
        raise ValueError(f"rotated_sites is {rotated_sites}")
    return Network._with_rotated_sites(made, rotated_sites)


def saved_network(header: str, arrays: dict[str, NDArray[Any]], path: Path) -> Network:
    """Build a network from a file of ``Network.save``.

    Parameters
    ----------
    header : str
        Description of the network.
    arrays : dict of ndarray
        Arrays of the file by name.
    path : Path
        The file, for the error message.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError
        If the file contains another object, or its description is invalid.
    """
    description = parse_description(header, path)
    found = description["format"]
    if found != FORMAT:
        kind = found.removeprefix("jacrot.").partition("/")[0]
        hint = "save it again with this version."
        if kind != "Network":
            hint = f"use {kind}.load(path), and its rotated_network()."
        raise ValueError(
            f"path={str(path)!r} has format {found!r}, but a network that this version reads has "
            f"{FORMAT!r}; {hint}"
        )
    try:
        sites = description.get("rotated_sites", ())
        return build_network(description["layers"], arrays, sites)
    except ALTERED as error:
        raise invalid_file_error(path, error) from error
