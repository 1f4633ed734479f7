"""Plot of the Jacobian before and after a rotation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.gridspec import GridSpecFromSubplotSpec
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from jacrot._estimators.rotation import JacobianSparsityRotation
from jacrot._utils.arrays import Array, Matrix, real_array
from jacrot.display._style import root_figure
from jacrot.inspection._fitted import check_count

Indices = NDArray[np.intp]

# Cells of a panel in either direction: a picture has no room for more.
MAX_CELLS = 160
# Share of the cells of either side that the colour scale covers, unless `vmax` sets its top.
COVERED = 0.995


class JacobianDisplay:
    """Jacobian of a network before and after a rotation, side by side.

    Every panel shows the mean over samples of ``|J_i| / rms(J_i)``: the absolute derivatives, in
    units of the root mean square entry of each sample. The rotated panel is ordered so that its
    structure shows: outputs and axes are paired by their strongest links, strongest first.

    If there are more than 160 inputs or outputs, several neighbours share a cell, which shows their
    mean, as the label below the panel then says. A sparse Jacobian still looks darker than a dense
    one, since the mean of the absolute derivatives is what a rotation minimises. Single links are
    visible among the strongest axes only, with ``max_axes``.

    Parameters
    ----------
    before, after : array-like of shape (n_panels, n_outputs, n_inputs)
        Normalised absolute Jacobians, one for each row of panels.
    titles : sequence of str, default=None
        Titles of the rows of panels.
    rotated_output : bool, default=False
        Whether the outputs of `after` are rotated.

    Attributes
    ----------
    figure_ : Figure
        Figure that contains the panels.
    axes_ : ndarray of Axes of shape (n_panels, 2)
        The panels.
    images_ : ndarray of AxesImage of shape (n_panels, 2)
        The images in the panels.
    colorbar_ : Colorbar
        The colour scale, which all panels share.
    row_orders_, column_orders_ : list of ndarray
        Outputs and axes in the order in which the panels after the rotation show them.
    cell_ : tuple of int
        Number of outputs and of inputs that share a cell.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.display import JacobianDisplay
    >>> problem = make_planted_problem(n_features=16, n_outputs=32, random_state=0)
    >>> rotation = JacobianSparsityRotation(problem.network, random_state=0).fit(problem.X)
    >>> display = JacobianDisplay.from_estimator(rotation, problem.X)
    >>> display.axes_.shape
    (1, 2)
    """

    def __init__(
        self,
        before: ArrayLike,
        after: ArrayLike,
        *,
        titles: Sequence[str] | None = None,
        rotated_output: bool = False,
    ) -> None:
        self.before = real_array(before, "before", ndim=3)
        self.after = real_array(after, "after", ndim=3)
        n_titles = len(self.before) if titles is None else len(titles)
        if not len(self.before) == len(self.after) == n_titles:
            raise ValueError(
                f"before has {len(self.before)} panels, after {len(self.after)} and titles "
                f"{n_titles}; pass the same number of each."
            )
        self.titles = titles
        self.rotated_output = rotated_output

    @classmethod
    def from_estimator(
        cls,
        estimator: JacobianSparsityRotation,
        X: ArrayLike,
        *,
        samples: int | Sequence[int] | None = None,
        ax: Axes | ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the Jacobians of an estimator's network at some inputs.

        Parameters
        ----------
        estimator : JacobianSparsityRotation
            Fitted estimator.
        X : array-like of shape (n_samples, n_features)
            Activations, in the given basis.
        samples : int or sequence of int, default=None
            Rows of `X` to draw one by one. If ``None``, the mean over all rows is drawn.
        ax : Axes or array of Axes, default=None
            Axes to draw into, as in `plot`.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        JacobianDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a sample does not exist, or the estimator has no network.
        """
        titles = None
        if samples is not None:
            chosen, titles = _select_samples(samples, np.shape(X)[0])
            X = X.iloc[chosen] if hasattr(X, "iloc") else np.asarray(X)[chosen]
        segments = estimator.rotated_segments(X)
        before = np.concatenate([one.segment.jacobians[:] for one in segments])
        after = np.concatenate([one.jacobians for one in segments])
        return cls._from_stacks(
            before, after, titles, estimator.output_rotation_ is not None, ax, kwargs
        )

    @classmethod
    def from_jacobians(
        cls,
        before: ArrayLike,
        after: ArrayLike,
        *,
        samples: int | Sequence[int] | None = None,
        rotated_output: bool = False,
        ax: Axes | ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw stacks of Jacobians of the same samples before and after a rotation.

        Parameters
        ----------
        before, after : array-like of shape (n_samples, n_outputs, n_inputs)
            Jacobians in the given and in the new basis. If every sample has several, of shape
            ``(n_samples, n_matrices, n_outputs, n_inputs)``, their mean is drawn.
        samples : int or sequence of int, default=None
            Samples to draw one by one. If ``None``, the mean over all samples is drawn.
        rotated_output : bool, default=False
            Whether the outputs of `after` are rotated.
        ax : Axes or array of Axes, default=None
            Axes to draw into, as in `plot`.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        JacobianDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a sample does not exist, or all Jacobians are zero.
        """
        before, after = (
            real_array(stack, name, (3, 4))
            for stack, name in ((before, "before"), (after, "after"))
        )
        if len(before) != len(after):
            raise ValueError(
                f"before has {len(before)} samples and after {len(after)}; pass the same number of "
                "each."
            )
        titles = None
        if samples is not None:
            chosen, titles = _select_samples(samples, len(before))
            before, after = before[chosen], after[chosen]
        return cls._from_stacks(before, after, titles, rotated_output, ax, kwargs)

    @classmethod
    def _from_stacks(
        cls,
        before: Array,
        after: Array,
        titles: list[str] | None,
        rotated_output: bool,
        ax: Axes | ArrayLike | None,
        options: dict[str, Any],
    ) -> Self:
        """Draw every sample if there are titles for them, and their mean otherwise."""
        panels = [_normalise(before, "before"), _normalise(after, "after")]
        if titles is None:
            panels = [np.nanmean(stack, axis=0, keepdims=True) for stack in panels]
        display = cls(
            *(np.nan_to_num(stack) for stack in panels),
            titles=titles,
            rotated_output=rotated_output,
        )
        return display.plot(ax=ax, **options)

    def plot(
        self,
        ax: Axes | ArrayLike | None = None,
        *,
        max_axes: int | None = None,
        cmap: str = "inferno",
        vmax: float | None = None,
    ) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            Axes to draw into: a single one, which is divided among the panels, or an array of
            ``2 * n_panels``, row by row. If ``None``, a new figure is created.
        max_axes : int, default=None
            Largest number of inputs and of outputs of every panel; those of the largest mean square
            are drawn. If ``None``, all are drawn.
        cmap : str, default="inferno"
            Colour map.
        vmax : float, default=None
            Top of the colour scale, in units of the root mean square entry. If ``None``, the value
            that one cell in two hundred of either side exceeds.

        Returns
        -------
        JacobianDisplay
            The display itself.

        Raises
        ------
        ValueError
            If `ax` is an array of another size or an Axes that is not a subplot, or if `max_axes`
            is not a positive integer.
        """
        if max_axes is not None:
            check_count(max_axes, "max_axes", 1)
        n_panels = len(self.before)
        self._make_axes(ax, n_panels)
        self.row_orders_, self.column_orders_ = [], []
        shown = []
        for before, after in zip(self.before, self.after, strict=True):
            given, rotated = (_select_strongest(matrix, max_axes) for matrix in (before, after))
            rows, columns = order_by_links(after[np.ix_(*rotated)])
            self.row_orders_.append(rotated[0][rows])
            self.column_orders_.append(rotated[1][columns])
            shown += [before[np.ix_(*given)], after[np.ix_(*rotated)][np.ix_(rows, columns)]]
        n_outputs, n_inputs = (max(matrix.shape[axis] for matrix in shown) for axis in (0, 1))
        self.cell_ = -(-n_outputs // MAX_CELLS), -(-n_inputs // MAX_CELLS)
        cells = [_block_means(matrix, self.cell_) for matrix in shown]
        largest = float(max(matrix.max() for matrix in cells))
        if vmax is None:
            vmax = float(max(np.quantile(matrix, COVERED) for matrix in cells)) or largest or 1.0
        self.images_ = np.empty((n_panels, 2), dtype=object)
        for index, (matrix, whole) in enumerate(zip(cells, shown, strict=True)):
            panel, side = divmod(index, 2)
            image = self._draw_cells(self.axes_[panel, side], matrix, whole.shape)
            image.set(cmap=cmap, clim=(0, vmax))
            self.images_[panel, side] = image
            self._draw_labels(panel, side, whole.shape)
        self.colorbar_: Colorbar = self.figure_.colorbar(
            self.images_[0, 0],
            ax=self.axes_.ravel().tolist(),
            label="|derivative| / rms" + (", mean over samples" if self.titles is None else ""),
            extend="max" if largest > vmax else "neither",
            shrink=0.85,
        )
        return self

    def _make_axes(self, ax: Axes | ArrayLike | None, n_panels: int) -> None:
        if ax is None:
            layout = ConstrainedLayoutEngine(w_pad=0.14)
            self.figure_ = plt.figure(figsize=(9, 4.1 * n_panels), layout=layout)
            self.axes_ = self.figure_.subplots(n_panels, 2, squeeze=False)
        elif isinstance(ax, Axes):
            self.figure_ = root_figure(ax)
            place = ax.get_subplotspec()
            if place is None:
                raise ValueError(
                    "ax is not a subplot and cannot be divided; pass one from plt.subplots, or "
                    f"an array of {2 * n_panels} Axes."
                )
            ax.set_axis_off()
            grid = GridSpecFromSubplotSpec(n_panels, 2, place, wspace=0.3)
            self.axes_ = np.array(
                [[self.figure_.add_subplot(grid[i, j]) for j in range(2)] for i in range(n_panels)]
            )
        else:
            axes = np.asarray(ax, dtype=object)
            if axes.size != 2 * n_panels:
                raise ValueError(f"ax has {axes.size} Axes; pass {2 * n_panels}, or one.")
            self.axes_ = axes.reshape(n_panels, 2)
            self.figure_ = root_figure(self.axes_[0, 0])

    def _draw_cells(self, ax: Axes, cells: Matrix, shape: tuple[int, ...]) -> AxesImage:
        high, wide = np.multiply(cells.shape, self.cell_) - 0.5
        image = ax.imshow(cells, aspect="auto", extent=(-0.5, wide, high, -0.5))
        # The last cell may hold fewer entries than the others.
        ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        return image

    def _draw_labels(self, panel: int, side: int, shape: tuple[int, ...]) -> None:
        title = ("given basis", "rotated basis")[side]
        if self.titles is not None:
            title = f"{self.titles[panel]}, {title}"
        new_outputs = "output axis" if self.rotated_output else "output neuron"
        names = (("output neuron", "input neuron"), (new_outputs, "input axis"))[side]
        sizes = (self.before, self.after)[side].shape[1:]
        labels = []
        for name, n_shown, size in zip(names, shape, sizes, strict=True):
            notes = [f"{n_shown} strongest of {size:,}"] if n_shown < size else []
            if side == 1:
                notes.append("ordered")
            labels.append(f"{name} ({', '.join(notes)})" if notes else name)
        if max(self.cell_) > 1:
            labels[1] += "\neach cell: mean over {} outputs × {} inputs".format(*self.cell_)
        self.axes_[panel, side].set(title=title, ylabel=labels[0], xlabel=labels[1])


def _select_samples(samples: int | Sequence[int], n_samples: int) -> tuple[Indices, list[str]]:
    """Return the indices and the titles of samples."""
    chosen = np.atleast_1d(np.asarray(samples))
    whole = chosen.dtype.kind in "iu" and chosen.size > 0
    if not whole or chosen.min() < -n_samples or chosen.max() >= n_samples:
        raise ValueError(f"samples={samples} must be rows of the {n_samples} samples.")
    return chosen, [f"sample {index}" for index in chosen]


def _normalise(jacobians: Array, name: str) -> Matrix:
    """Scale the absolute Jacobians of every sample to root mean square 1; NaN if they are zero.

    If a sample has several matrices, they share a scale, and their mean is returned.
    """
    stack = np.abs(jacobians.astype(np.float64))
    if stack.ndim == 3:
        stack = stack[:, None]
    largest = stack.max(axis=(1, 2, 3), keepdims=True)
    if not largest.any():
        raise ValueError(f"{name}: all Jacobians are zero; there is nothing to draw.")
    with np.errstate(invalid="ignore"):
        stack /= largest
        stack /= np.sqrt(np.mean(stack**2, axis=(1, 2, 3), keepdims=True))
        return np.asarray(stack.mean(axis=1))


def order_by_links(matrix: Matrix) -> tuple[Indices, Indices]:
    """Order rows and columns so that the diagonal holds the strongest links, strongest first.

    Rows and columns without a partner follow, rows by the place of their strongest link.
    """
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    falling = np.argsort(-matrix[rows, columns], kind="stable")
    rows, columns = rows[falling], columns[falling]
    spare_columns = np.setdiff1d(np.arange(matrix.shape[1]), columns)
    columns = np.concatenate([columns, spare_columns])
    spare_rows = np.setdiff1d(np.arange(matrix.shape[0]), rows)
    place = matrix[np.ix_(spare_rows, columns)].argmax(axis=1)
    return np.concatenate([rows, spare_rows[np.argsort(place, kind="stable")]]), columns


def _select_strongest(matrix: Matrix, max_axes: int | None) -> tuple[Indices, Indices]:
    """Return the rows and the columns of the largest mean square, in falling order.

    All of them are returned, in their own order, if there are not more than `max_axes`.
    """
    chosen = []
    for axis, size in ((1, matrix.shape[0]), (0, matrix.shape[1])):
        if max_axes is None or size <= max_axes:
            chosen.append(np.arange(size))
        else:
            chosen.append(np.argsort(-(matrix**2).sum(axis=axis), kind="stable")[:max_axes])
    return chosen[0], chosen[1]


def _block_means(matrix: Matrix, shape: tuple[int, int]) -> Matrix:
    """Return the means over blocks of a matrix; the last blocks may be smaller."""
    for axis, size in enumerate(shape):
        starts = np.arange(0, matrix.shape[axis], size)
        counts = np.diff(np.append(starts, matrix.shape[axis]))
        sums = np.add.reduceat(matrix, starts, axis=axis)
        matrix = sums / (counts[:, None] if axis == 0 else counts)
    return matrix
