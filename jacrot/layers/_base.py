"""The base class of layers, and functions that layers share."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from jacrot._utils.arrays import FEATURES_AXIS, Array, Immutable
from jacrot.layers._renamed import deprecated_alias, keep_old_names

if TYPE_CHECKING:
    from jacrot.layers._protocol import Layer

Positions = NDArray[np.bool_]
# Methods that are right for one function only, with their old names.
_FUNCTION_METHODS = ("rotate_inputs", "rotate_outputs", "reading", "writing", "jacobian_factors")


class BaseLayer(Immutable, ABC):
    """Base class of layers: a subclass defines the function and its derivatives.

    A subclass stores what its constructor is passed under the same names, as a frozen dataclass
    does, and defines ``__call__`` and ``jvp``. By default, rotations are layers of their own before
    and after it; a layer that can fold them into its weights also defines ``rotate_inputs`` and
    ``rotate_outputs``. A layer whose outputs at a position depend on the inputs at that position
    only sets ``positionwise = True``; one that reads only rows, sequences or images sets
    ``input_ndims`` to ``(2,)``, ``(3,)`` or ``(4,)``.

    Examples
    --------
    A layer that squares its inputs, whose Jacobian is ``diag(2x)``:

    >>> import numpy as np
    >>> from jacrot import Network
    >>> from jacrot.layers import BaseLayer, Dense, identity_tangents
    >>> class Square(BaseLayer):
    ...     positionwise = True
    ...
    ...     def __call__(self, x):
    ...         return x**2
    ...
    ...     def jvp(self, x, tangents):
    ...         tangents = identity_tangents(x) if tangents is None else tangents
    ...         return x**2, 2 * x[..., None] * tangents
    >>> network = Network([Square(), Dense([[1.0, 1.0]], activation="identity")])
    >>> network.jacobians(np.array([[1.0, 3.0]]))
    array([[[2., 6.]]])
    >>> rotated = network.rotated({0: [[0.6, 0.8], [-0.8, 0.6]]})
    >>> np.allclose(rotated(np.ones((1, 2))), 2)
    True
    """

    # Numbers of dimensions of the batches that the layer reads: rows, sequences, images.
    input_ndims: tuple[int, ...] = tuple(FEATURES_AXIS)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        keep_old_names(cls)
        computes = {"__call__", "jvp"}
        bases = cls.__mro__[1 : cls.__mro__.index(BaseLayer)]
        if computes & vars(cls).keys() and any(computes & vars(base).keys() for base in bases):
            # How a base class folds rotations does not hold for another function.
            for name in _FUNCTION_METHODS:
                if name not in vars(cls):
                    setattr(cls, name, vars(BaseLayer)[name])

    @property
    def positionwise(self) -> bool:
        """Whether the outputs at a position depend on the inputs at that position only."""
        return False

    @property
    def n_inputs(self) -> int | None:
        """Number of features that the layer reads, ``None`` if any."""
        return None

    @property
    def n_outputs(self) -> int | None:
        """Number of features that the layer writes, ``None`` if it follows from the input."""
        return None

    @abstractmethod
    def __call__(self, x: Array) -> Array:
        """Compute the outputs ``(n_samples, *output shape)`` of a batch."""

    @abstractmethod
    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        """Compute the outputs of a batch and their derivatives along tangents.

        Parameters
        ----------
        x : ndarray of shape (n_samples, *input shape)
            Inputs.
        tangents : ndarray of shape (n_samples, *input shape, k) or None
            Tangents, ``None`` for the identity.

        Returns
        -------
        outputs : ndarray of shape (n_samples, *output shape)
            Outputs.
        tangents : ndarray of shape (n_samples, *output shape, k)
            Derivatives of the outputs along the tangents.
        """

    def rotate_inputs(self, rotation: Array) -> Layer:
        """Return the layer that reads ``rotation @ x`` in place of ``x``.

        Parameters
        ----------
        rotation : ndarray of shape (n_rotated, n_inputs)
            Orthonormal rows.

        Returns
        -------
        Layer
            The same function of the rotated inputs.
        """
        from jacrot.layers._basis import Basis
        from jacrot.layers._sequential import Sequential

        return Sequential([Basis(rotation.T), self])

    def rotate_outputs(self, rotation: Array) -> Layer:
        """Return the layer that writes ``rotation @ y`` in place of ``y``.

        Parameters
        ----------
        rotation : ndarray of shape (n_rotated, n_outputs)
            Orthonormal rows.

        Returns
        -------
        Layer
            The same function with rotated outputs.
        """
        from jacrot.layers._basis import Basis
        from jacrot.layers._sequential import Sequential

        return Sequential([self, Basis(rotation)])

    reading = deprecated_alias(rotate_inputs, "reading")
    writing = deprecated_alias(rotate_outputs, "writing")

    def reach(self, positions: Positions) -> Positions | None:
        """Find which output positions depend on some input positions.

        Parameters
        ----------
        positions : ndarray of bool of shape (n_positions,) or (height, width)
            Positions of the inputs.

        Returns
        -------
        ndarray of bool or None
            The positions of the outputs that can change, ``None`` for all.
        """
        return positions if self.positionwise else None

    def jacobian_factors(
        self, x: Array, pairs: NDArray[np.intp] | None
    ) -> tuple[Array, Array] | None:
        """Return matrices and slopes whose products are the Jacobians, if they have this form.

        They are ``J_i = diag(slopes_i) matrix``; for images, ``J_ik = diag(slopes_ik) matrix_k``
        with respect to the features at one position. This form needs less memory and time.

        Parameters
        ----------
        x : ndarray of shape (n_samples, *input shape)
            Inputs.
        pairs : ndarray of int or None
            The samples where positions mix, ``input * n_positions + position``; ``None`` for rows.

        Returns
        -------
        tuple of ndarray or None
            Matrices ``(n_outputs, n_inputs)`` and slopes ``(n_samples, n_outputs)``, or matrices
            ``(n_matrices, n_outputs, n_inputs)`` and slopes ``(n_samples, n_matrices, n_outputs)``.
            By default ``None``.
        """
        return None

    def output_ndim(self, ndim: int) -> int | None:
        """Return the number of dimensions of the outputs of a batch.

        Parameters
        ----------
        ndim : int
            Number of dimensions of the batch: 2 for rows, 3 for sequences, 4 for images.

        Returns
        -------
        int or None
            That of the outputs, ``None`` if the layer does not read such batches.
        """
        return ndim if ndim in self.input_ndims else None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def changed(self, **changes: Any) -> Self:
        """Return the same layer with some arguments of its constructor changed.

        Parameters
        ----------
        **changes : dict
            Their new values.

        Returns
        -------
        BaseLayer
            The new layer.
        """
        return type(self)(**(self.arguments | changes))

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor: a pickled array forgets that it was read-only.
        return _rebuilt, (type(self), self.arguments)


def _rebuilt(layer: Any, arguments: dict[str, Any]) -> Any:
    return layer(**arguments)


def identity_tangents(x: Array) -> Array:
    """Return the tangents of all entries of the inputs, one after the other.

    Parameters
    ----------
    x : ndarray of shape (n_samples, *input shape)
        Inputs.

    Returns
    -------
    ndarray of shape (n_samples, *input shape, size)
        The identity for every sample, ``size`` the number of entries of one; read-only.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import identity_tangents
    >>> identity_tangents(np.zeros((1, 2)))
    array([[[1., 0.],
            [0., 1.]]])
    """
    shape = x.shape[1:]
    size = int(np.prod(shape))
    identity = np.eye(size, dtype=x.dtype).reshape(*shape, size)
    return np.broadcast_to(identity, (len(x), *identity.shape))


def features_axis(x: Array) -> int:
    """Return the axis of the features of rows, sequences or images.

    Parameters
    ----------
    x : ndarray
        A batch.

    Returns
    -------
    int
        The axis, in `x` and in a stack of tangents at `x`.
    """
    return FEATURES_AXIS[x.ndim]


def along_features(matrix: Array, x: Array, axis: int) -> Array:
    """Multiply every feature vector by a matrix.

    Parameters
    ----------
    matrix : ndarray of shape (n_out, n_features)
        The matrix.
    x : ndarray
        A batch, or tangents.
    axis : int
        The axis of the features.

    Returns
    -------
    ndarray
        The batch or tangents with ``n_out`` features.
    """
    if axis == x.ndim - 1:
        return np.asarray(x @ matrix.T)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    flat = x.reshape(*before, x.shape[axis], int(np.prod(after)))
    return np.matmul(matrix, flat).reshape(*before, len(matrix), *after)


def broadcast_features(vector: Array, x: Array, axis: int) -> Array:
    """Reshape a vector of features so that it broadcasts against a batch.

    Parameters
    ----------
    vector : ndarray of shape (n_features,)
        The vector.
    x : ndarray
        A batch, or tangents.
    axis : int
        The axis of the features.

    Returns
    -------
    ndarray
        A view.
    """
    return vector.reshape(-1, *[1] * (x.ndim - axis - 1))


def affine(layer: BaseLayer, weight: Array, bias: Array, x: Array) -> Array:
    """Compute ``W x + b`` of rows, or at every position of sequences.

    Parameters
    ----------
    layer : BaseLayer
        The layer that computes it, for the error.
    weight : ndarray of shape (n_outputs, n_inputs)
        ``W``.
    bias : ndarray of shape (n_outputs,)
        ``b``.
    x : ndarray of shape (n_samples, n_inputs) or (n_samples, n_positions, n_inputs)
        A batch.

    Returns
    -------
    ndarray of shape (n_samples, n_outputs) or (n_samples, n_positions, n_outputs)
        The affine map of the batch.

    Raises
    ------
    ValueError
        If `x` is a batch of images.
    """
    if x.ndim > 3:
        raise ValueError(
            f"{layer!r} reads rows or sequences, got shape {x.shape}; put Flatten() before it, or "
            "a 1 × 1 Conv2d in its place."
        )
    return x @ weight.T + bias
