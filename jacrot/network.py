"""A network: a chain of layers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot._io import archive
from jacrot._utils.arrays import FEATURES_AXIS, Array, Immutable, real_array
from jacrot._utils.random import resolve_random_state
from jacrot.layers import Basis, Dense, Layer
from jacrot.layers._renamed import deprecated_alias
from jacrot.layers._serialization import FORMAT, serialize
from jacrot.layers._weights import (
    ActivationLike,
    Layout,
    chains_transposed,
    layers_from_weights,
    transposed_hint,
)

if TYPE_CHECKING:
    from jacrot.segments import NetworkSegment

# Largest error of Q Qᵀ of an orthogonal matrix of some thousand axes in single precision.
ORTHOGONALITY_TOL = 1e-5


class Network(Immutable):
    """An immutable chain of layers, made of exported weights.

    Parameters
    ----------
    weights : array-like, sequence, mapping, callable or Layer
        One matrix ``(n_out, n_in)``; a list of matrices; a list of ``(W, b)`` pairs; a flat list
        ``W, b, W, b``; a mapping of names to arrays in layer order (an ``.npz`` file too); a
        list of :mod:`jacrot.layers`; or a callable ``(n, d_in) -> (n, d_out)`` written with
        ``autograd.numpy``.
    activation : str, callable or sequence of them, default="relu"
        Applied after every layer of raw weights, including the last; a sequence has one for each
        layer (``["relu", "relu", "identity"]`` for a classifier with two hidden layers). Names
        are in ``jacrot.activations.ACTIVATIONS``. Layers and callables have their own.
    layout : {"out_in", "in_out"}, default="out_in"
        Whether a matrix of raw weights is stored ``(n_out, n_in)``, as PyTorch does, or
        ``(n_in, n_out)``, as Keras, Flax and scikit-learn do.

    Attributes
    ----------
    layers : tuple of Layer
        The layers, in order.
    rotated_sites : tuple of int
        Sites whose activations are in another basis, by :meth:`rotated`, :meth:`rotate_inputs` or
        :meth:`rotate_outputs`; site ``l`` is what layer ``l`` reads.

    Raises
    ------
    TypeError
        If `weights` is an object of another kind.
    ValueError
        If the layers do not chain, `weights` is empty, has an array of the wrong dimensions, or
        holds NaN or infinity, or an activation is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot import Network
    >>> rng = np.random.default_rng(0)
    >>> network = Network(
    ...     [rng.normal(size=(5, 3)), rng.normal(size=(4, 5)), rng.normal(size=(2, 4))],
    ...     activation=["relu", "relu", "identity"],
    ... )
    >>> network
    Network(3 → 5 → 4 → 2; relu, relu, identity)
    >>> X = rng.normal(size=(10, 3))
    >>> hidden = network[:1](X)
    >>> np.allclose(network[1:](hidden), network(X))
    True
    >>> network[1:2].jacobians(hidden).shape
    (10, 4, 5)
    """

    layers: tuple[Layer, ...]
    rotated_sites: tuple[int, ...]

    def __init__(
        self, weights: Any, activation: ActivationLike = "relu", layout: Layout = "out_in"
    ) -> None:
        layers = tuple(layers_from_weights(weights, activation, layout))
        for index, (first, second) in enumerate(pairwise(layers)):
            if None not in (first.n_outputs, second.n_inputs) and (
                first.n_outputs != second.n_inputs
            ):
                hint = (
                    transposed_hint(layout)
                    if chains_transposed(layers)
                    else "pass the layers in the order in which they are computed."
                )
                raise ValueError(
                    f"weights do not chain: layer {index} writes {first.n_outputs} activations "
                    f"but layer {index + 1} reads {second.n_inputs}; {hint}"
                )
        sites = weights.rotated_sites if isinstance(weights, Network) else ()
        vars(self).update(layers=layers, rotated_sites=sites)

    @classmethod
    def _with_rotated_sites(cls, layers: Sequence[Layer], sites: Iterable[int]) -> Network:
        """Build a network of layers that are in other bases at some sites."""
        network = cls(layers)
        vars(network).update(rotated_sites=tuple(sorted(set(sites))))
        return network

    def __reduce__(self) -> tuple[Any, ...]:
        return Network._with_rotated_sites, (self.layers, self.rotated_sites)

    def __sklearn_clone__(self) -> Network:
        # Immutable, so that a clone may share the weights.
        return self

    def __repr__(self) -> str:
        rotated = ""
        if self.rotated_sites:
            plural = "s" if len(self.rotated_sites) > 1 else ""
            rotated = f"; rotated at site{plural} {', '.join(map(str, self.rotated_sites))}"
        if not all(isinstance(layer, Dense) for layer in self.layers):
            return f"Network({', '.join(map(repr, self.layers))}{rotated})"
        widths = [self.n_inputs, *(layer.n_outputs for layer in self.layers)]
        names = [layer.activation_name for layer in self.layers if isinstance(layer, Dense)]
        return f"Network({' → '.join(map(str, widths))}; {', '.join(names)}{rotated})"

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def n_inputs(self) -> int | None:
        """Width of what the network reads, ``None`` if any width fits."""
        return self.layers[0].n_inputs

    @property
    def n_outputs(self) -> int | None:
        """Width of what the network writes, ``None`` if it follows from the input."""
        return self.layers[-1].n_outputs

    @overload
    def __getitem__(self, index: int) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> Network: ...

    def __getitem__(self, index: int | slice) -> Layer | Network:
        """Return one layer, or a part of the network as a network."""
        if isinstance(index, slice):
            layers = self.layers[index]
            if not layers or index.step not in (None, 1):
                raise IndexError(
                    f"network[{index.start}:{index.stop}:{index.step}] is not a part of a network "
                    f"of {self.n_layers} layers; slice at least one layer, in order."
                )
            start, stop, _ = index.indices(self.n_layers)
            sites = (site - start for site in self.rotated_sites if start <= site <= stop)
            return Network._with_rotated_sites(layers, sites)
        return self.layers[index]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __call__(self, X: ArrayLike) -> Array:
        """Compute the outputs of a batch.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_inputs)
            Inputs; for layers that read them, sequences ``(n_samples, n_positions, n_inputs)`` or
            images ``(n_samples, n_inputs, height, width)``.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs)
            Outputs; sequences or images where the last layer writes them.

        Raises
        ------
        ValueError
            If `X` has another shape, or holds NaN or infinity.
        """
        x = self._batch(X)
        for layer in self.layers:
            x = layer(x)
        return x

    def jacobians(self, X: ArrayLike) -> Array:
        """Compute the Jacobian of the outputs with respect to the inputs at every sample.

        The chain rule in forward mode: ``J = J_L ... J_1``, every factor exact.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_inputs)
            Inputs; sequences or images for layers that read them.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs, n_inputs)
            ``jacobians[i, a, b]`` is the derivative of output ``a`` with respect to input ``b``;
            ``(n_samples, *output shape, *input shape)`` for sequences and images.

        Raises
        ------
        ValueError
            If `X` has another shape or holds NaN or infinity, or if a callable cannot be
            differentiated.
        """
        x = self._batch(X)
        tangents: Array | None = None
        for layer in self.layers:
            x, tangents = layer.jvp(x, tangents)
        assert tangents is not None
        return tangents.reshape(*tangents.shape[:-1], *np.shape(X)[1:])

    def rotate_inputs(self, rotation: Array) -> Network:
        """Return the network that reads ``rotation @ x`` in place of ``x``.

        Parameters
        ----------
        rotation : ndarray of shape (n_rotated, n_inputs)
            Orthonormal rows; with fewer rows than columns the rest of ``x`` is taken as zero.

        Returns
        -------
        Network
            The same function of the rotated inputs.
        """
        layers = [self.layers[0].rotate_inputs(rotation), *self.layers[1:]]
        return Network._with_rotated_sites(layers, (0, *self.rotated_sites))

    def rotate_outputs(self, rotation: Array) -> Network:
        """Return the network that writes ``rotation @ y`` in place of ``y``.

        Parameters
        ----------
        rotation : ndarray of shape (n_rotated, n_outputs)
            Orthonormal rows.

        Returns
        -------
        Network
            The same function with rotated outputs.
        """
        layers = [*self.layers[:-1], self.layers[-1].rotate_outputs(rotation)]
        return Network._with_rotated_sites(layers, (*self.rotated_sites, self.n_layers))

    reading = deprecated_alias(rotate_inputs, "reading")
    writing = deprecated_alias(rotate_outputs, "writing")

    def rotated(self, rotations: Mapping[int, ArrayLike]) -> Network:
        """Change the basis of activations inside the network.

        At site ``l`` (what layer ``l`` reads) the activations become ``z = Q a``: ``Q`` is folded
        into layer ``l - 1``, ``Qᵀ`` into layer ``l``. The function from the inputs to the outputs
        stays the same.

        Parameters
        ----------
        rotations : mapping of int to array-like of shape (n_features, n_features)
            An orthogonal matrix for each site. Sites ``1`` to ``n_layers - 1`` are between two
            layers. At site 0 the inputs are given, so a first layer that computes ``Q x`` is put
            before the others.

        Returns
        -------
        Network
            The same function in the new basis.

        Raises
        ------
        ValueError
            If a site does not exist, or a matrix has the wrong shape or is not orthogonal.
        TypeError
            If `rotations` is not a mapping.

        Examples
        --------
        >>> import numpy as np
        >>> from jacrot import Network
        >>> network = Network([np.eye(2), [[1.0, 1.0], [0.0, 2.0]]])
        >>> rotated = network.rotated({1: [[0.6, 0.8], [-0.8, 0.6]]})
        >>> rotated
        Network(2 → 2 → 2; relu, relu; rotated at site 1)
        >>> x = np.array([[1.0, 2.0]])
        >>> rotated[:1](x), rotated(x), network(x)
        (array([[2.2, 0.4]]), array([[3., 4.]]), array([[3., 4.]]))
        """
        if not isinstance(rotations, Mapping):
            raise TypeError(
                f"rotations is a {type(rotations).__name__}; pass a mapping {{site: Q}}."
            )
        layers = list(self.layers)
        inputs: list[Layer] = []
        for site, given in rotations.items():
            if not isinstance(site, Integral) or site not in range(self.n_layers):
                raise ValueError(
                    f"rotations has site {site!r}; pass a site from 0 to {self.n_layers - 1}: "
                    "site l is what layer l reads."
                )
            rotation = orthogonal(given, f"rotations[{site}]", self._width(site))
            layers[site] = layers[site].rotate_inputs(rotation)
            if site > 0:
                layers[site - 1] = layers[site - 1].rotate_outputs(rotation)
            else:
                inputs = [Basis(rotation)]
        # A layer before the others shifts their sites by one.
        sites = (site + len(inputs) for site in {*self.rotated_sites, *map(int, rotations)})
        return Network._with_rotated_sites([*inputs, *layers], sites)

    def segment(
        self,
        layers: int | slice,
        inputs: ArrayLike,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> NetworkSegment:
        """Return some layers of the network as a segment, on inputs of the whole network.

        Parameters
        ----------
        layers : int or slice
            One layer, or consecutive layers.
        inputs : array-like of shape (n_samples, n_inputs)
            Inputs of the whole network; sequences or images for layers that read them.
        random_state : int, RandomState instance or None, default=None
            Draws the samples, pairs of an input and a position, where positions mix and there are
            more than 1024.

        Returns
        -------
        NetworkSegment
            What ``fit`` of :class:`jacrot.JacobianSparsityRotation` takes in the place of weights
            and activations.

        Raises
        ------
        IndexError
            If there are no such layers.
        TypeError
            If `layers` is something else.
        ValueError
            If the network does not read `inputs`.

        Examples
        --------
        >>> from jacrot.datasets import load_digits_mlp
        >>> digits = load_digits_mlp()
        >>> segment = digits.network.segment(1, digits.X[:100])
        >>> segment
        NetworkSegment(site 1 to site 2; activations (100, 64))
        >>> segment.jacobians.shape, segment.readout.shape
        ((100, 64, 64), (64, 64))
        """
        # A segment consists of networks, so that its module imports this one.
        from jacrot.segments import NetworkSegment

        if isinstance(layers, slice):
            chosen = range(*layers.indices(self.n_layers))
        elif isinstance(layers, Integral) and not isinstance(layers, bool):
            chosen = range(int(layers), int(layers) + 1)
        else:
            raise TypeError(
                f"layers is a {type(layers).__name__}; pass the number of a layer, or a slice."
            )
        if chosen.step != 1 or len(chosen) == 0 or chosen.start < 0 or chosen.stop > self.n_layers:
            raise IndexError(
                f"layers={layers!r} does not exist; pass a number from 0 to {self.n_layers - 1}, "
                "or a slice of consecutive layers."
            )
        x = self._batch(inputs)
        activations = self[: chosen.start](x) if chosen.start else x
        return NetworkSegment.draw(self, chosen, activations, resolve_random_state(random_state))

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
        """Write the network to an ``.npz`` or ``.safetensors`` file, without pickle.

        ``jacrot.readers.load`` reads it. If saving fails, no file appears and an existing one stays
        as it was. A file that is replaced keeps its permissions; a symbolic link is followed.

        Parameters
        ----------
        path : str or path-like
            The file, ending in ``.npz`` or ``.safetensors``.
        metadata : mapping, default=None
            JSON-serialisable data to store beside the layers, such as the ``provenance_`` of the
            estimator whose rotation was folded in; :func:`jacrot.readers.metadata` reads it.

        Raises
        ------
        ImportError
            If ``safetensors`` is needed and not installed.
        TypeError
            If `metadata` is not JSON-serialisable.
        OSError
            If the file cannot be written: its folder does not exist, it is write-protected, its
            name is too long, or the disk is full.
        ValueError
            If `path` has another ending or is a folder, a device or a pipe; or if a layer is a
            user's own or holds a user's function, which only pickle could store.
        """
        arrays: dict[str, Any] = {}
        layers = [serialize(layer, str(index), arrays) for index, layer in enumerate(self.layers)]
        description = {"format": FORMAT, "layers": layers, "metadata": dict(metadata or {})}
        if self.rotated_sites:
            description["rotated_sites"] = list(self.rotated_sites)
        archive.write(path, description, arrays)

    def _width(self, site: int) -> int | None:
        width = self.layers[site].n_inputs
        return self.layers[site - 1].n_outputs if width is None and site else width

    def _batch(self, X: ArrayLike) -> Array:
        x = real_array(X, "X", ndim=tuple(FEATURES_AXIS))
        n_features = x.shape[FEATURES_AXIS[x.ndim]]
        if self.n_inputs not in (None, n_features):
            raise ValueError(
                f"X has {n_features} features but the network reads {self.n_inputs}; pass the "
                "activations that its first layer reads."
            )
        return x


def orthogonal(matrix: ArrayLike, name: str, n_features: int | None) -> NDArray[np.float64]:
    """Convert an orthogonal matrix to double precision.

    Parameters
    ----------
    matrix : array-like of shape (n_features, n_features)
        The matrix that the user passed.
    name : str
        Name of the argument, for errors.
    n_features : int or None
        The size it must have, ``None`` for any.

    Returns
    -------
    ndarray of shape (n_features, n_features)
        The matrix, or the nearest that is orthogonal to double precision.

    Raises
    ------
    ValueError
        If it is not square, has another size or is not orthogonal.
    """
    rotation = real_array(matrix, name, ndim=2).astype(np.float64)
    size = rotation.shape[0] if n_features is None else n_features
    if rotation.shape != (size, size):
        raise ValueError(f"{name} has shape {rotation.shape}; pass a matrix ({size}, {size}).")
    error = np.abs(rotation @ rotation.T - np.eye(size)).max()
    if error > ORTHOGONALITY_TOL:
        raise ValueError(
            f"{name} is not orthogonal: Q Qᵀ differs from the identity by {error:.1e}; pass "
            "orthonormal rows (np.linalg.qr gives them)."
        )
    # A matrix that was computed or stored in single precision would change the function by as much.
    if error > 1e-13:
        left, _, right = np.linalg.svd(rotation)
        return np.asarray(left @ right)
    return rotation
