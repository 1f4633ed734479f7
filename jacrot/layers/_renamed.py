"""The old names of the methods of layers, which users' own layers may still have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import takewhile
from typing import Any

from jacrot._utils.warnings import warn

RENAMED = {"push": "jvp", "reading": "rotate_inputs", "writing": "rotate_outputs"}


def deprecated_alias(method: Callable[..., Any], old: str) -> Any:
    """Build the method that warns and calls another one.

    Parameters
    ----------
    method : callable
        The method under its new name.
    old : str
        The old name.

    Returns
    -------
    callable
        The method under its old name.
    """
    message = f"{old} is deprecated; call {method.__name__} instead."

    @wraps(method)
    def alias(*arguments: Any, **named: Any) -> Any:
        warn(message, FutureWarning)
        return method(*arguments, **named)

    alias.__name__, alias.__doc__ = old, None
    # As warnings.deprecated of Python 3.13 marks it.
    vars(alias)["__deprecated__"] = message
    return alias


def keep_old_names(layer: type[Any]) -> None:
    """Add the new names of methods that a class defines under old names, and the reverse.

    A method that has its old name only gets the new one too, with a warning. A method that has its
    new name gets a deprecated alias, which calls this very method: ``super().push`` in a subclass
    then does what it did.

    Parameters
    ----------
    layer : type
        A subclass of ``BaseLayer`` that is being defined.
    """
    # The class and the mixins that come before other layers.
    bases = list(takewhile(lambda base: base is layer or not hasattr(base, "jvp"), layer.__mro__))
    for old, new in RENAMED.items():
        if new in vars(layer):
            if old not in vars(layer):
                setattr(layer, old, deprecated_alias(vars(layer)[new], old))
        elif found := [vars(base)[old] for base in bases if old in vars(base)]:
            warn(
                f"{layer.__name__} defines {old}, which is now called {new}; rename the method.",
                FutureWarning,
            )
            setattr(layer, new, found[0])
