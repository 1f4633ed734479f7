"""The circuit of a whole network in its new basis, as a picture."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from jacrot._utils.arrays import Matrix
from jacrot.display._figure import (
    BLUE,
    GREY,
    VERMILION,
    figure_of,
    one_axes,
    set_wrapped_title,
)
from jacrot.inspection._fitted import check_count

if TYPE_CHECKING:
    from jacrot.inspection import EdgeCurve

Indices = NDArray[np.intp]
Masks = tuple[NDArray[np.bool_], ...]

SIGNS = LinearSegmentedColormap.from_list("signs", [BLUE, "0.75", VERMILION])
# From dark to light, also in print without colours; grey is no change.
SHADES = "cividis"
# Lines of negative edges are broken, in widths of the line: dashes and gaps.
Dashes = tuple[float, tuple[float, ...]]
SOLID: Dashes = (0, ())
DASHES: Dashes = (0, (2.5, 0.8))
# Sizes in points, but the figure's in inches.
WIDTH, HEIGHT_OF_A_NODE, HEIGHT_OF_A_PICTURE, REST = 9.5, 0.28, 0.45, 2.0
WIDEST_EDGE, SMALLEST_NODE, LARGEST_NODE, LARGEST_IMAGE, GAP = 5.0, 4.0, 13.0, 42.0, 6.0
# Of the pixels of a picture, so many may be beyond the darkest shades.
SATURATED = 0.01
# Edges fade as they get weaker, down to this.
FAINTEST = 0.3
N_SWEEPS = 12
# A page has no room for more axes above one another.
MAX_AXES = 40
CAPTION = (
    "Strength: how far one standard deviation of an axis moves the logits through the edge. "
    "Dots: area by that of all their edges."
)
CAPTION_OF_IMAGES = (
    "Pictures: what a step along an input axis adds to the image; at site 1, "
    "what the axis responds to (yellow brighter, blue darker)."
)


class CircuitDisplay:
    """Graph of the strongest connections of a whole network: its circuit in some basis.

    Columns are the sites of the network from the inputs to the logits, dots their axes, lines the
    connections that are kept. A line is the wider the stronger its connection. Its colour is the
    sign, as far as there is one: the mean of the derivative as a share of the mean of its size,
    grey where the sign depends on the input; lines are broken where the mean is negative. The area
    of a dot is the strength of all its connections. Axes without a connection are left out, and
    those with the weakest ones where there is no room for all, as is then said in the title. A
    hollow dot is on no path from an input to a logit: it passes nothing on, or nothing that varies,
    and its lines still count. Axes stand in the order in which lines cross least, found by sweeps
    that move each to the mean of its neighbours.

    Of networks of images, the picture beside an input axis is what a step along it adds to the
    image, its column of the decoder; what it reads, in the rows of the encoder, is mostly noise of
    pixels that hardly vary where the inputs are whitened. The picture beside an axis of the first
    layer is the sum of these, by the connections kept: what it responds to.

    Parameters
    ----------
    result : EdgeCurve
        What :func:`jacrot.inspection.edge_curve` returned for all layers, ``layer=None``.
    n_edges : int
        How many connections to draw, such as ``curve.edges_needed(0.01)``.
    image_shape : tuple of int, default=None
        Height and width of the inputs, if they are images.

    Attributes
    ----------
    ax_ : Axes
        The picture.
    figure_ : Figure
        Its figure.
    edges_ : list of LineCollection
        The lines of every layer, weakest first.
    nodes_ : list of PathCollection
        The dots of every site.
    orders_ : list of ndarray
        Which axes of every site are drawn, from top to bottom.
    images_ : dict of (int, int) to AnnotationBbox
        Pictures, by site and axis.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from jacrot.datasets import load_digits_mlp
    >>> from jacrot.display import CircuitDisplay
    >>> from jacrot.inspection import edge_curve
    >>> digits = load_digits_mlp()
    >>> curve = edge_curve(
    ...     digits.network,
    ...     digits.X_test,
    ...     digits.y_test,
    ...     calibration=digits.X[:200],
    ...     basis="interaction",
    ... )
    >>> display = CircuitDisplay.from_result(curve, n_edges=100, image_shape=(8, 8))
    >>> sum(len(lines.get_segments()) for lines in display.edges_)
    100
    """

    def __init__(
        self, result: EdgeCurve, n_edges: int, *, image_shape: tuple[int, int] | None = None
    ) -> None:
        if len(result.strengths) < 2:
            raise ValueError(
                "result is the curve of a single layer, but a circuit goes from the inputs to the "
                "logits; write edge_curve(..., layer=None)."
            )
        most = int(result.n_edges[-1])
        check_count(n_edges, "n_edges", 1)
        if n_edges > most:
            raise ValueError(
                f"n_edges={n_edges} but only {most} edges have any strength; write at most so many."
            )
        n_inputs = len(result.bases[0].decoder)
        if image_shape is not None and int(np.prod(image_shape)) != n_inputs:
            raise ValueError(
                f"image_shape={image_shape} has {int(np.prod(image_shape))} pixels but the network "
                f"reads {n_inputs}; write the height and width of its inputs."
            )
        self.result = result
        self.n_edges = n_edges
        self.image_shape = image_shape

    @classmethod
    def from_result(
        cls,
        result: EdgeCurve,
        n_edges: int,
        *,
        image_shape: tuple[int, int] | None = None,
        max_axes: int = MAX_AXES,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the strongest connections of what ``edge_curve`` returned.

        Parameters
        ----------
        result : EdgeCurve
            That of all layers.
        n_edges : int
            How many connections to draw.
        image_shape : tuple of int, default=None
            Height and width of the inputs, if they are images.
        max_axes : int, default=40
            Draw at most so many axes of a site; see `plot`.
        ax : Axes, default=None
            Where to draw; ``None`` makes a new figure, the taller the more axes there are.

        Returns
        -------
        CircuitDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `result` is the curve of a single layer, or an argument does not fit it.
        """
        return cls(result, n_edges, image_shape=image_shape).plot(ax, max_axes=max_axes)

    def plot(self, ax: Axes | None = None, *, max_axes: int = MAX_AXES) -> Self:
        """Draw the graph.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; ``None`` makes a new figure.
        max_axes : int, default=40
            Draw at most so many axes of a site, those with the strongest connections.

        Returns
        -------
        CircuitDisplay
            The display.

        Raises
        ------
        ValueError
            If `max_axes` is no positive integer.
        """
        check_count(max_axes, "max_axes", 1)
        kept = self.result.kept(self.n_edges)
        tables = [
            np.where(mask, table, 0)
            for mask, table in zip(kept, self.result.strengths, strict=True)
        ]
        strongest = max(table.max() for table in tables)
        through = _through(tables)
        n_axes = [int((sums > 0).sum()) for sums in through]
        drawn = [_strongest(sums, max_axes) for sums in through]
        for table, (read, written) in zip(tables, pairwise(drawn), strict=True):
            table[~np.outer(written, read)] = 0
        self.orders_ = _orders(tables, drawn)
        tallest = max(map(len, self.orders_))
        height = HEIGHT_OF_A_NODE * tallest
        if self.image_shape is not None:
            height = max(height, HEIGHT_OF_A_PICTURE * len(self.orders_[1]))
        self.ax_ = one_axes(ax, WIDTH, REST + height)
        self.figure_ = figure_of(self.ax_)
        self._heights = [
            dict(zip(order.tolist(), 1 - (np.arange(len(order)) + 0.5) / len(order), strict=True))
            for order in self.orders_
        ]
        on_path = _on_path(kept)
        self._draw_edges(tables, strongest)
        self._draw_nodes(through, n_axes, on_path)
        lost = sum(
            int((mask & ~np.outer(after, before)).sum())
            for mask, (before, after) in zip(kept, pairwise(on_path), strict=True)
        )
        self._explain(n_axes, lost, strongest)
        margin = 0.5 / tallest
        self.ax_.set_xlim(-0.6 if self.image_shape else -0.2, len(tables) + 0.2)
        self.ax_.set_ylim(-margin, 1 + margin)
        self.ax_.set_axis_off()
        self.images_: dict[tuple[int, int], AnnotationBbox] = {}
        if self.image_shape is not None:
            self._draw_images(kept)
        return self

    def _draw_edges(self, tables: list[Matrix], strongest: float) -> None:
        t = np.linspace(0, 1, 25)
        bend = t**2 * (3 - 2 * t)
        self.edges_ = []
        for site, (table, signed) in enumerate(zip(tables, self.result.signed, strict=True)):
            outputs, inputs = np.nonzero(table)
            order = np.argsort(table[outputs, inputs], kind="stable")
            outputs, inputs = outputs[order], inputs[order]
            strengths = table[outputs, inputs]
            share = np.sqrt(strengths / strongest)
            colours = SIGNS((1 + signed[outputs, inputs] / strengths) / 2)
            colours[:, 3] = FAINTEST + (1 - FAINTEST) * share
            start = np.array([self._heights[site][axis] for axis in inputs])
            end = np.array([self._heights[site + 1][axis] for axis in outputs])
            y = start[:, None] + (end - start)[:, None] * bend
            negative = signed[outputs, inputs] < 0
            lines = LineCollection(
                [np.column_stack([site + t, row]) for row in y],
                colors=colours,
                linewidths=WIDEST_EDGE * share,
                linestyles=[DASHES if broken else SOLID for broken in negative],
                zorder=1,
            )
            self.ax_.add_collection(lines)
            self.edges_.append(lines)

    def _draw_nodes(
        self, through: list[Matrix], n_axes: list[int], on_path: list[NDArray[np.bool_]]
    ) -> None:
        last = len(through) - 1
        largest = max(sums.max() for sums in through)
        decoder = self.result.bases[-1].decoder
        classes = np.array_equal(decoder, np.eye(len(decoder)))
        self.nodes_ = []
        for site, order in enumerate(self.orders_):
            heights = [self._heights[site][axis] for axis in order.tolist()]
            sizes = LARGEST_NODE * np.sqrt(through[site][order] / largest)
            sizes = np.maximum(sizes, SMALLEST_NODE)
            self.nodes_.append(
                self.ax_.scatter(
                    np.full(len(order), site),
                    heights,
                    s=sizes**2,
                    color=np.where(on_path[site][order], GREY, "white"),
                    edgecolors=GREY,
                    linewidths=0.8,
                    zorder=2,
                )
            )
            logits = site == last
            for axis, height, size in zip(order.tolist(), heights, sizes, strict=True):
                self.ax_.annotate(
                    str(axis),
                    (site, height),
                    (12, 0) if logits else (0, size / 2 + 4),
                    textcoords="offset points",
                    ha="left" if logits else "center",
                    va="center",
                    fontsize="large" if logits else 7,
                    zorder=4,
                )
            name = "inputs" if site == 0 else "logits" if logits else f"site {site}"
            unit = "classes" if logits and classes else "axes"
            self.ax_.text(
                site,
                1,
                f"{name}\n{_count(len(order), n_axes[site])} {unit}",
                transform=self.ax_.get_xaxis_transform(),
                ha="center",
                va="bottom",
            )

    def _draw_images(self, kept: Masks) -> None:
        decoder = self.result.bases[0].decoder
        patterns = [decoder.T, (kept[0] * self.result.signed[0]) @ decoder.T]
        # Where the layout leaves the Axes how much room.
        self.figure_.draw_without_rendering()
        height = self.ax_.get_window_extent().height * 72 / self.figure_.dpi
        assert self.image_shape is not None
        for site, pattern in enumerate(patterns):
            order = self.orders_[site].tolist()
            room = height / (len(order) + 1)
            # Beside the inputs there is room for two columns.
            size = min(LARGEST_IMAGE, 0.92 * room * (2 if site == 0 else 1))
            for number, axis in enumerate(order):
                image = pattern[axis].reshape(self.image_shape)
                limit = np.quantile(np.abs(image), 1 - SATURATED) or 1.0
                offset = -GAP - size / 2
                if size > room and number % 2:
                    offset -= size + GAP
                box = OffsetImage(image, zoom=size / max(self.image_shape), cmap=SHADES)
                box.image.set_clim(-limit, limit)
                self.images_[site, axis] = AnnotationBbox(
                    box,
                    (site, self._heights[site][axis]),
                    (offset, 0),
                    boxcoords="offset points",
                    pad=0,
                    bboxprops={"linewidth": 0.4, "edgecolor": GREY},
                    arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": GREY},
                )
                self.images_[site, axis].set_in_layout(False)
                self.ax_.add_artist(self.images_[site, axis])

    def _explain(self, n_axes: list[int], lost: int, strongest: float) -> None:
        result = self.result
        value = result.measure(self.n_edges)
        title = (
            f"{self.n_edges:,} of {result.n_edges[-1]:,} edges: "
            f"{result.metric} {value:.4g}, full network {result.full:.4g}"
        )
        if lost:
            title += f"\n{lost:,} of them on no path from an input to a logit (hollow dots)"
        if sum(map(len, self.orders_)) < sum(n_axes):
            n_drawn = sum(len(lines.get_segments()) for lines in self.edges_)
            title += f"\ndrawn: {n_drawn:,} edges, between the axes with the strongest ones"
        set_wrapped_title(self.ax_, title, loc="center", pad=38)
        handles = [
            Line2D([], [], color=colour, linewidth=2, linestyle=dashes, label=label)
            for colour, dashes, label in (
                (VERMILION, SOLID, "positive"),
                (SIGNS(0.5), SOLID, "sign depends on the input"),
                (BLUE, DASHES, "negative"),
            )
        ]
        handles += [
            Line2D(
                [],
                [],
                color=GREY,
                linewidth=WIDEST_EDGE * np.sqrt(share),
                label=f"strength {share * strongest:.2g}",
            )
            for share in (0.04, 0.2, 1)
        ]
        caption = CAPTION if self.image_shape is None else f"{CAPTION}\n{CAPTION_OF_IMAGES}"
        self.ax_.legend(
            handles=handles,
            title=caption,
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=6,
            fontsize="small",
            title_fontsize="small",
            frameon=False,
        )


def _on_path(kept: Masks) -> list[NDArray[np.bool_]]:
    """Find the axes of every site that are on a path from an input to a logit."""
    reached = [kept[0].any(axis=0)]
    for mask in kept:
        reached.append(mask @ reached[-1])
    passing = [kept[-1].any(axis=1)]
    for mask in reversed(kept):
        passing.insert(0, passing[0] @ mask)
    return [np.asarray(one & other) for one, other in zip(reached, passing, strict=True)]


def _through(tables: list[Matrix]) -> list[Matrix]:
    """Sum the strengths of the edges of every axis at every site."""
    through = [table.sum(axis=0) for table in tables] + [np.zeros(len(tables[-1]))]
    for site, table in enumerate(tables, start=1):
        through[site] = through[site] + table.sum(axis=1)
    return through


def _strongest(sums: Matrix, most: int) -> NDArray[np.bool_]:
    """Choose at most so many axes, the strongest, of those that have any edges."""
    mask = np.zeros(len(sums), bool)
    mask[np.argsort(-sums, kind="stable")[:most]] = True
    return mask & (sums > 0)


def _count(n_drawn: int, n_axes: int) -> str:
    return f"{n_drawn}" if n_drawn == n_axes else f"{n_drawn} of {n_axes:,}"


def _orders(tables: list[Matrix], used: list[NDArray[np.bool_]]) -> list[Indices]:
    """Order the axes used at every site so that strong edges cross little."""
    last = len(tables)
    orders = [np.flatnonzero(mask) for mask in used]
    best, fewest = list(orders), np.inf
    for _ in range(N_SWEEPS):
        for site in range(1, last + 1):
            orders[site] = _moved(orders[site], orders[site - 1], tables[site - 1])
        for site in range(last - 1, -1, -1):
            orders[site] = _moved(orders[site], orders[site + 1], tables[site].T)
        crossings = sum(
            _crossings(table[np.ix_(written, read)])
            for table, (read, written) in zip(tables, pairwise(orders), strict=True)
        )
        if crossings < fewest:
            best, fewest = list(orders), crossings
    return best


def _moved(order: Indices, neighbours: Indices, table: Matrix) -> Indices:
    """Sort axes by the weighted mean place of their neighbours; without any they stay."""
    weights = table[np.ix_(order, neighbours)]
    total = weights.sum(axis=1)
    place = (np.arange(len(order)) + 0.5) / len(order)
    means = weights @ ((np.arange(len(neighbours)) + 0.5) / len(neighbours))
    place[total > 0] = means[total > 0] / total[total > 0]
    return order[np.argsort(place, kind="stable")]


def _crossings(table: Matrix) -> float:
    """Sum the products of the strengths of all pairs of edges that cross."""
    after_and_before = table[::-1].cumsum(axis=0)[::-1].cumsum(axis=1)
    return float((table[:-1, 1:] * after_and_before[1:, :-1]).sum())
