"""Any differentiable function of a batch, as a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from autograd import make_vjp
from numpy.typing import ArrayLike

from jacrot._utils.arrays import Array, read_only
from jacrot._utils.threads import exclusive_autograd
from jacrot.layers._base import BaseLayer
from jacrot.layers._fields import Converted


def _basis(value: ArrayLike | None, name: str, layer: object) -> Array | None:
    return None if value is None else read_only(value)


@dataclass(frozen=True, eq=False)
class Function(BaseLayer):
    """A callable ``y = P f(Qᵀ x)``, its Jacobians by reverse-mode autograd.

    One backward pass for each output gives a row of the Jacobian of every sample at once, so
    `function` must treat the rows of its argument independently.

    Parameters
    ----------
    function : callable
        Written with ``autograd.numpy``: ``(n_samples, n_inputs) -> (n_samples, n_outputs)``.
    input_rotation : array-like of shape (n_rotated, n_inputs), default=None
        ``Q``, the basis in which the layer reads; ``None`` is the identity.
    output_rotation : array-like of shape (n_rotated, n_outputs), default=None
        ``P``, the basis in which the layer writes; ``None`` is the identity.

    Raises
    ------
    TypeError
        If `function` is not callable.

    Examples
    --------
    >>> import autograd.numpy as anp
    >>> import numpy as np
    >>> from jacrot.layers import Function
    >>> layer = Function(lambda x: anp.sin(x) * x[:, ::-1])
    >>> outputs, jacobians = layer.jvp(np.array([[0.0, 1.0]]), None)
    >>> jacobians.round(3)
    array([[[1.   , 0.   ],
            [0.841, 0.   ]]])
    """

    function: Callable[[Any], Any]
    _: KW_ONLY
    input_rotation: Converted[ArrayLike | None, Array | None] = Converted(_basis, None)
    output_rotation: Converted[ArrayLike | None, Array | None] = Converted(_basis, None)

    input_ndims = (2,)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be a callable, got {type(self.function).__name__}.")

    def __repr__(self) -> str:
        return f"Function({getattr(self.function, '__name__', type(self.function).__name__)})"

    @property
    def n_inputs(self) -> int | None:
        return None if self.input_rotation is None else int(self.input_rotation.shape[0])

    @property
    def n_outputs(self) -> int | None:
        return None if self.output_rotation is None else int(self.output_rotation.shape[0])

    def __call__(self, x: ArrayLike) -> Array:
        x = self._read(x)
        outputs = self._checked(self.function(x), x)
        return outputs if self.output_rotation is None else outputs @ self.output_rotation.T

    def jvp(self, x: ArrayLike, tangents: Array | None) -> tuple[Array, Array]:
        """Compute the outputs of a batch and their derivatives along tangents.

        Parameters
        ----------
        x : array-like of shape (n_samples, n_inputs)
            Inputs.
        tangents : ndarray of shape (n_samples, n_inputs, k) or None
            Tangents, ``None`` for the identity.

        Returns
        -------
        outputs : ndarray of shape (n_samples, n_outputs)
            Outputs.
        tangents : ndarray of shape (n_samples, n_outputs, k)
            ``J @ tangents``, ``J`` the Jacobian of the function at every sample.

        Raises
        ------
        ValueError
            If autograd cannot differentiate the function, if it does not return one row for
            each sample, or if its rows depend on one another.
        """
        x = self._read(x)
        try:
            # A constant function has zero Jacobians, which is reported where it matters.
            with exclusive_autograd():
                vjp, outputs = make_vjp(self.function)(x)
        except Exception as error:
            raise ValueError(
                f"{self!r} cannot be differentiated by autograd "
                f"({type(error).__name__}: {error}); use the functions of autograd.numpy in it."
            ) from error
        outputs = self._checked(outputs, x)
        bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
        if bad.size:
            raise ValueError(
                f"{self!r} returns NaN or infinity for {bad.size} of {len(x)} samples, the first "
                f"of them sample {bad[0]}; correct the function, or leave these samples out."
            )
        scale = np.abs(outputs).max(initial=0)
        if len(x) > 1 and not np.allclose(
            self.function(x[:1]), outputs[:1], rtol=1e-4, atol=1e-6 * scale
        ):
            raise ValueError(
                f"{self!r} returns another output for a sample in another batch; pass a "
                "function that treats the rows of its argument independently."
            )
        jacobians = np.empty((len(x), outputs.shape[1], x.shape[1]), dtype=x.dtype)
        with exclusive_autograd():
            for output in range(outputs.shape[1]):
                cotangent = np.zeros_like(outputs)
                cotangent[:, output] = 1
                jacobians[:, output] = vjp(cotangent)
        if self.input_rotation is not None:
            jacobians = jacobians @ self.input_rotation.T
        if tangents is not None:
            jacobians = np.matmul(jacobians, tangents)
        if self.output_rotation is not None:
            outputs = outputs @ self.output_rotation.T
            jacobians = np.matmul(self.output_rotation, jacobians)
        return outputs, jacobians

    def rotate_inputs(self, rotation: Array) -> Function:
        if self.input_rotation is not None:
            rotation = rotation @ self.input_rotation
        return Function(
            self.function, input_rotation=rotation, output_rotation=self.output_rotation
        )

    def rotate_outputs(self, rotation: Array) -> Function:
        if self.output_rotation is not None:
            rotation = rotation @ self.output_rotation
        return Function(self.function, input_rotation=self.input_rotation, output_rotation=rotation)

    def _read(self, x: ArrayLike) -> Array:
        x = np.asarray(x)
        if x.ndim != 2:
            raise ValueError(
                f"{self!r} reads rows (n_samples, n_inputs), got shape {x.shape}; for sequences "
                "and images derive a layer of your own from jacrot.layers.BaseLayer."
            )
        return x if self.input_rotation is None else x @ self.input_rotation

    def _checked(self, outputs: Any, x: Array) -> Array:
        # A copy: the function may return its argument.
        outputs = np.array(outputs)
        if outputs.dtype.kind not in "fiub":
            raise ValueError(
                f"{self!r} returned values of {outputs.dtype} type, which autograd cannot follow; "
                "pass a function written with autograd.numpy."
            )
        if outputs.ndim != 2 or len(outputs) != len(x) or outputs.shape[1] == 0:
            raise ValueError(
                f"{self!r} returned shape {outputs.shape} for {len(x)} samples; pass a function "
                "(n_samples, n_inputs) -> (n_samples, n_outputs) with at least one output."
            )
        return outputs
