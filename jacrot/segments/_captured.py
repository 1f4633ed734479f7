"""Captured activations and Jacobians of a live model, with their provenance."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cached_property, partial
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jacrot._jacobians.base import Jacobians
from jacrot._jacobians.dense import StackJacobians
from jacrot._utils.arrays import Array

# In `fit(*captured)` the arrays are separated from their source; it is looked up by the identity of
# the array while that exists.
_SOURCES: dict[int, tuple[weakref.ref[Array], dict[str, Any]]] = {}


def find_source(jacobians: Any) -> dict[str, Any] | None:
    """Return the source of captured Jacobians.

    Parameters
    ----------
    jacobians : object
        The array itself, not a copy.

    Returns
    -------
    dict or None
        ``Captured.source`` of the object that contains this array; ``None`` if there is none.
    """
    reference, source = _SOURCES.get(id(jacobians), (None, None))
    return source if reference is not None and reference() is jacobians else None


class _Pair(NamedTuple):
    jacobians: Array
    X: Array


class Captured(_Pair):
    """Activations and their Jacobians, to be fitted as ``fit(captured)`` or ``fit(*captured)``.

    Parameters
    ----------
    jacobians : ndarray of shape (n_samples, d_write, d_read)
        Derivatives of the activations at `write` with respect to those at `read`, with shape
        ``(n_samples, n_write_positions, d_write, d_read)`` if a sample has several.
    X : ndarray of shape (n_samples, d_read)
        The activations at `read`.
    samples : ndarray of shape (n_samples, 2), default=None
        The input and the position of every sample.
    source : dict, default=None
        Provenance: the model and a hash of its weights, the places, the numbers of drawn and of
        available samples, and the seed. A fit records it in ``provenance_["captured"]``.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.readers import Captured
    >>> rng = np.random.default_rng(0)
    >>> captured = Captured(jacobians=rng.normal(size=(20, 3, 4)), X=rng.normal(size=(20, 4)))
    >>> captured
    Captured(jacobians=(20, 3, 4), X=(20, 4))
    >>> JacobianSparsityRotation().fit(*captured).rotation_.shape
    (4, 4)
    """

    samples: NDArray[np.intp] | None = None
    source: dict[str, Any] | None = None

    def __new__(
        cls,
        jacobians: Array,
        X: Array,
        *,
        samples: NDArray[np.intp] | None = None,
        source: dict[str, Any] | None = None,
    ) -> Captured:
        """Create a pair, and register the source of its Jacobians."""
        self = super().__new__(cls, jacobians, X)
        self.samples, self.source = samples, source
        if source is not None:
            key = id(jacobians)
            forget = partial(_forget, key)
            _SOURCES[key] = weakref.ref(jacobians, forget), source
        return self

    def __reduce__(self) -> tuple[Callable[..., Captured], tuple[Any, ...]]:
        return partial(Captured, samples=self.samples, source=self.source), tuple(self)

    @property
    def read(self) -> str:
        """Name of the place whose activations are read."""
        return "read" if self.source is None else str(self.source["read"])

    @property
    def write(self) -> str:
        """Name of the place that is written."""
        return "write" if self.source is None else str(self.source["write"])

    @property
    def readout(self) -> None:
        """``None``, because the logits are not known."""
        return None

    @property
    def activations(self) -> Array:
        """The activations at `read`."""
        return self.X

    @property
    def jacobian_source(self) -> Array:
        """The Jacobians."""
        return self.jacobians

    @property
    def d_write(self) -> int:
        """Number of activations at `write`, at each position."""
        return int(self.jacobians.shape[-2])

    @cached_property
    def stack(self) -> Jacobians:
        """The Jacobians as a stack, which reads a memory map block by block."""
        return StackJacobians(self.jacobians)

    def _summary(self) -> dict[str, str]:
        summary = {"jacobians": str(self.jacobians.shape), "X": str(self.X.shape)}
        if self.source is not None:
            read, write = (repr(self.source[place]) for place in ("read", "write"))
            samples = f"{self.source['n_samples']} of {self.source['n_available']}"
            summary = {"read": read, "write": write, **summary, "samples": samples}
        return summary

    def __repr__(self) -> str:
        items = (f"{name}={value}" for name, value in self._summary().items())
        return f"Captured({', '.join(items)})"

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in self._summary().items()
        )
        return f"<table><caption>Captured</caption>{''.join(rows)}</table>"


def _forget(key: int, reference: weakref.ref[Array]) -> None:
    # Another array may be at the same address by now.
    if _SOURCES.get(key, (None,))[0] is reference:
        del _SOURCES[key]
