"""The two-dimensional convolution."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jacrot._utils.arrays import Array, read_only, real_array
from jacrot.activations import Activation, Elementwise, activation_name, get_activation
from jacrot.layers._base import BaseLayer, Positions, along_features, identity_tangents
from jacrot.layers._fields import Converted, basis_change, bias_beside, integer
from jacrot.layers._windows import Padding, Pair, Sides, Windows, check_images, pair, sides


def _kernel(value: ArrayLike, name: str, layer: object) -> Array:
    kernel = real_array(value, name, ndim=4)
    if 0 in kernel.shape:
        raise ValueError(f"{name} has shape {kernel.shape}; a kernel needs all its sides.")
    return read_only(kernel)


@dataclass(frozen=True, eq=False)
class Conv2d(BaseLayer):
    """Convolution of images, ``y(p) = R f(Σ_δ W_δ x(s p + δ) + b)``, as PyTorch's.

    A sum over kernel offsets ``δ`` of matrices between channels, so that a rotation acts on the
    channels, the same at every position: ``W_δ Qᵀ``. The Jacobian of ``y(p)`` with respect to
    ``x(s p + δ)`` is ``R diag(f') W_δ``.

    Parameters
    ----------
    weight : array-like of shape (n_outputs, n_inputs // groups, height, width)
        The kernel.
    bias : array-like of shape (n_outputs,), default=None
        The vector ``b``, zero if ``None``.
    activation : str or callable, default="relu"
        ``f``: a name in ``jacrot.activations.ACTIVATIONS`` or an elementwise function
        written with ``autograd.numpy``.
    stride : int or pair of int, default=1
        Steps between the windows, of rows and columns.
    padding : int, pair of int, or pair of pairs of int, default=0
        Zeros around the image: rows and columns, or ``((top, bottom), (left, right))``.
    dilation : int or pair of int, default=1
        Steps between the entries of the kernel.
    groups : int, default=1
        Number of groups of channels; between two groups the kernel is zero.
    output_rotation : array-like of shape (n_rotated, n_outputs), default=None
        ``R``, a change of basis of the channels after the activation; ``None`` is the identity.

    Attributes
    ----------
    weight, bias, output_rotation : ndarray
        Read-only copies, in float32 or float64; ``output_rotation`` may be ``None``.
    offsets : ndarray of shape (n_offsets, n_outputs, n_inputs)
        The matrices ``W_δ``, row by row of the kernel, groups written out.

    Raises
    ------
    ValueError
        If a shape or a number is wrong, an entry is NaN or infinite, or the activation is
        unknown.
    TypeError
        If an array is not one of real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from jacrot.layers import Conv2d
    >>> layer = Conv2d(np.ones((1, 1, 3, 3)), padding=1, stride=2)
    >>> layer(np.ones((1, 1, 4, 4)))
    array([[[[4., 6.],
             [6., 9.]]]])
    """

    weight: Converted[ArrayLike, Array] = Converted(_kernel)
    bias: Converted[ArrayLike | None, Array] = Converted(bias_beside("weight"), None)
    activation: str | Elementwise = "relu"
    _: KW_ONLY
    stride: Converted[int | Pair, Pair] = Converted(pair, 1)
    padding: Converted[Padding, Sides] = Converted(sides, 0)
    dilation: Converted[int | Pair, Pair] = Converted(pair, 1)
    groups: Converted[int, int] = Converted(integer, 1)
    output_rotation: Converted[ArrayLike | None, Array | None] = Converted(basis_change, None)
    _activation: Activation = field(init=False)
    input_ndims = (4,)

    def __post_init__(self) -> None:
        n_outputs = len(self.weight)
        if self.groups < 1 or n_outputs % self.groups:
            raise ValueError(
                f"groups={self.groups} does not divide the {n_outputs} outputs of weight, which "
                f"has shape {self.weight.shape}: (n_outputs, n_inputs // groups, height, width)."
            )
        object.__setattr__(self, "_activation", get_activation(self.activation))

    def __repr__(self) -> str:
        kernel = " × ".join(map(str, self.weight.shape[2:]))
        name = activation_name(self.activation)
        return f"Conv2d({self.n_inputs} → {self.n_outputs}, {kernel}, {name})"

    @property
    def n_inputs(self) -> int:
        return int(self.weight.shape[1] * self.groups)

    @property
    def n_outputs(self) -> int:
        return int((self.weight if self.output_rotation is None else self.output_rotation).shape[0])

    @cached_property
    def windows(self) -> Windows:
        """The windows that the kernel slides over."""
        return Windows(self.weight.shape[2:], self.stride, self.dilation, self.padding)

    @property
    def offsets(self) -> Array:
        """The matrices between channels, one for each place in the kernel."""
        grouped = self._grouped()
        n_offsets, groups, n_rows, n_columns = grouped.shape
        whole = np.zeros((n_offsets, groups, n_rows, groups, n_columns), grouped.dtype)
        for group in range(groups):
            whole[:, group, :, group] = grouped[:, group]
        return whole.reshape(n_offsets, groups * n_rows, groups * n_columns)

    def __call__(self, x: Array) -> Array:
        y = self._activation.function(self._preactivation(x))
        return self._write(y)

    def slopes(self, x: Array) -> Array:
        """Compute the slope of the activation at every output position.

        Parameters
        ----------
        x : ndarray of shape (n_samples, n_inputs, height, width)
            Images.

        Returns
        -------
        ndarray of shape (n_samples, n_neurons, n_rows, n_columns)
            Slopes.
        """
        return self._activation.slope(self._preactivation(x))

    def jacobian_factors(
        self, x: Array, pairs: NDArray[np.intp] | None
    ) -> tuple[Array, Array] | None:
        if pairs is None or self.output_rotation is not None:
            return None
        return self.offsets, self._slopes_at(x, pairs)

    def jvp(self, x: Array, tangents: Array | None) -> tuple[Array, Array]:
        tangents = identity_tangents(x) if tangents is None else tangents
        preactivation = self._preactivation(x)
        slopes = self._activation.slope(preactivation)[..., None]
        pushed = self._convolved(tangents) * slopes
        return self._write(self._activation.function(preactivation)), self._write(pushed)

    def rotate_inputs(self, rotation: Array) -> Conv2d:
        # A rotation mixes the groups.
        matrices = self.offsets @ rotation.T
        kernel = matrices.transpose(1, 2, 0).reshape(
            len(self.weight), len(rotation), *self.weight.shape[2:]
        )
        return self.changed(weight=kernel, groups=1)

    def rotate_outputs(self, rotation: Array) -> Conv2d:
        if self.output_rotation is not None:
            rotation = rotation @ self.output_rotation
        if self.activation == "identity" and self.groups == 1:
            kernel = np.tensordot(rotation, self.weight, axes=1)
            return self.changed(weight=kernel, bias=rotation @ self.bias, output_rotation=None)
        return self.changed(output_rotation=rotation)

    def reach(self, positions: Positions) -> Positions:
        return self.windows.reach(positions)

    def _slopes_at(self, x: Array, pairs: NDArray[np.intp]) -> Array:
        """Return the slopes that each pair reaches by each offset, ``(n_pairs, n_offsets, n_out)``.

        Through the offset ``(i, j)`` of the kernel, the input at row ``r`` reaches the output at
        row ``(r + top - i · dilation) / stride`` if that is whole and exists.
        """
        slopes = self.slopes(x)
        windows = self.windows
        inputs, *place = np.unravel_index(pairs, (len(x), *x.shape[2:]))
        gathered = np.zeros((len(pairs), *self.weight.shape[2:], slopes.shape[1]), slopes.dtype)
        for offset in np.ndindex(windows.size):
            exists = np.ones(len(pairs), bool)
            seen_by = []
            for axis in range(2):
                first = windows.padding[axis][0] - offset[axis] * windows.dilation[axis]
                target, rest = np.divmod(place[axis] + first, windows.stride[axis])
                exists &= (rest == 0) & (target >= 0) & (target < slopes.shape[2 + axis])
                seen_by.append(target)
            rows, columns = (target[exists] for target in seen_by)
            gathered[exists, offset[0], offset[1]] = slopes[inputs[exists], :, rows, columns]
        return gathered.reshape(len(pairs), -1, slopes.shape[1])

    def _grouped(self) -> Array:
        """Return the kernel as ``(n_offsets, groups, n_outputs / groups, n_inputs / groups)``."""
        n_outputs, n_inputs, _, _ = self.weight.shape
        kernel = self.weight.reshape(self.groups, n_outputs // self.groups, n_inputs, -1)
        return kernel.transpose(3, 0, 1, 2)

    def _preactivation(self, x: Array) -> Array:
        x = check_images(np.asarray(x), self, self.n_inputs)
        return self._convolved(x) + self.bias[:, None, None]

    def _convolved(self, x: Array) -> Array:
        """Sum over the kernel's offsets; images, or tangents with one more axis."""
        total: Array | None = None
        for matrices, seen in zip(self._grouped(), self.windows.slices(x), strict=True):
            columns = seen.reshape(len(x), self.groups, seen.shape[1] // self.groups, -1)
            term = np.matmul(matrices, columns)
            total = term if total is None else np.add(total, term, out=total)
        assert total is not None
        return total.reshape(len(x), len(self.weight), *seen.shape[2:])

    def _write(self, y: Array) -> Array:
        return y if self.output_rotation is None else along_features(self.output_rotation, y, 1)
