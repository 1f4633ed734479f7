"""Files that describe what they hold: what ``save`` of a network or an estimator wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jacrot.layers._base import BaseLayer
from jacrot.layers._serialization import FORMAT, deserialize
from jacrot.network import Network

# What restoring runs into where somebody changed the description. RecursionError, where layers or
# brackets are nested too deep, is a RuntimeError.
ALTERED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def parsed(header: str, path: Path) -> dict[str, Any]:
    """Read the description of a file.

    Parameters
    ----------
    header : str
        JSON.
    path : Path
        The file, for the error.

    Returns
    -------
    dict
        The description, with its ``"format"``.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        description = json.loads(header)
        if isinstance(description["format"], str):
            return dict(description)
        raise TypeError("the format has no name")
    except ALTERED as error:
        raise altered(path, error) from error


def altered(path: Path, error: Exception) -> ValueError:
    """Make the error of a file whose description does not fit."""
    return ValueError(
        f"path={str(path)!r} is damaged, or not as save wrote it ({type(error).__name__}: "
        f"{error}); write it again with save."
    )


def described_network(
    layers: Any, arrays: dict[str, NDArray[Any]], rotated_sites: Any = ()
) -> Network:
    """Make a network of the descriptions of its layers.

    Parameters
    ----------
    layers : list
        The descriptions.
    arrays : dict of ndarray
        The arrays beside them.
    rotated_sites : list of int, default=()
        Its sites that were rotated.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    Exception
        One of `ALTERED`, if they do not fit.
    """
    made = [deserialize(layer, arrays) for layer in layers]
    if not all(isinstance(layer, BaseLayer) for layer in made):
        raise TypeError("something in it is not a layer")
    if any(type(site) is not int or not 0 <= site <= len(made) for site in rotated_sites):
        raise ValueError(f"rotated_sites is {rotated_sites}")
    return Network._with_rotated_sites(made, rotated_sites)


def saved_network(header: str, arrays: dict[str, NDArray[Any]], path: Path) -> Network:
    """Make the network that ``Network.save`` wrote.

    Parameters
    ----------
    header : str
        Its description.
    arrays : dict of ndarray
        The arrays beside it.
    path : Path
        The file, for the error.

    Returns
    -------
    Network
        The network.

    Raises
    ------
    ValueError
        If the file holds something else, or its description does not fit.
    """
    description = parsed(header, path)
    found = description["format"]
    if found != FORMAT:
        kind = found.removeprefix("jacrot.").partition("/")[0]
        hint = "write it again with this version."
        if kind != "Network":
            hint = f"write {kind}.load(path), and .rotated_network() for its network."
        raise ValueError(
            f"path={str(path)!r} has format {found!r}, but a network that this version reads has "
            f"{FORMAT!r}; {hint}"
        )
    try:
        sites = description.get("rotated_sites", ())
        return described_network(description["layers"], arrays, sites)
    except ALTERED as error:
        raise altered(path, error) from error
