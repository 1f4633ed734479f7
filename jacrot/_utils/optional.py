"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any


def import_optional(module: str, caller: str, extra: str) -> Any:
    """Import a module of an optional dependency.

    Parameters
    ----------
    module : str
        Name of the module.
    caller : str
        Public name that needs it, for the error message.
    extra : str
        Extra of ``jacrot`` that installs it.

    Returns
    -------
    module
        The module.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(
            f"{caller} needs {module.split('.')[0]}, which is not installed: "
            f"pip install 'jacrot[{extra}]'"
        ) from error
