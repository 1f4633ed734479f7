"""Plot of the circuit of a whole network."""

from __future__ import annotations

from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from jacrot.display._base import Display
from jacrot.display._circuit_layout import lay_out_circuit
from jacrot.display._style import BLUE, GREY, VERMILION, set_wrapped_title
from jacrot.inspection import EdgeCurve
from jacrot.inspection._fitted import check_count

SIGNS = LinearSegmentedColormap.from_list("signs", [BLUE, "0.75", VERMILION])
# From dark to light, also where it is printed without colours. Grey means no change.
CMAP = "cividis"
# Lines of negative edges are dashed; lengths of dashes and gaps are in line widths.
Dashes = tuple[float, tuple[float, ...]]
SOLID: Dashes = (0, ())
DASHED: Dashes = (0, (2.5, 0.8))
# Figure sizes, in inches: the width, and the height of a node, of an image and of all the rest.
WIDTH, NODE_HEIGHT, IMAGE_HEIGHT, REST = 9.5, 0.28, 0.45, 2.0
# Sizes in the plot, in points.
WIDEST_EDGE, SMALLEST_NODE, LARGEST_NODE, LARGEST_IMAGE, GAP = 5.0, 4.0, 13.0, 42.0, 6.0
# Share of the room beside its axis that an image fills.
IMAGE_SHARE = 0.92
# Share of the pixels of an image that may be beyond the ends of the colour map.
SATURATED = 0.01
# Weaker edges are more transparent, down to this opacity.
LOWEST_ALPHA = 0.3
# Points of a curved line.
CURVE_POINTS = 25
# A page has no room for more axes above one another.
MAX_AXES = 40
CAPTION = (
    "Strength: how far one standard deviation of an axis moves the logits through the edge. "
    "Dots: area by that of all their edges."
)
IMAGE_CAPTION = (
    "Pictures: what a step along an input axis adds to the image; at site 1, "
    "what the axis responds to (yellow brighter, blue darker)."
)


class CircuitDisplay(Display):
    """Graph of the strongest connections of a whole network: its circuit in some basis.

    The columns are the sites of the network from the inputs to the logits. Dots are axes, and lines
    the connections that are kept. The width of a line is the strength of its connection. Its colour
    is the sign of the connection, as far as it has one: the mean of the derivative divided by the
    mean of its absolute value, grey where the sign depends on the input. A line is dashed where the
    mean is negative. The area of a dot is the sum of the strengths of its connections.

    Axes without connections are left out. If not all others fit, those with the weakest connections
    are left out too, which the title reports. A hollow dot is on no path from an input to a logit:
    it passes nothing on, or nothing that depends on the input. Its connections still count. The
    axes of a site are ordered so that lines cross little.

    In a network that reads images, the image beside an input axis is what a step along that axis
    adds to the input: its column of the decoder. (The row of the encoder, which is what the axis
    reads, mostly shows noise of nearly constant pixels where the inputs are whitened.) The image
    beside an axis of the first layer is the sum of the input images, weighted by the connections
    kept: what the axis responds to.

    Parameters
    ----------
    result : EdgeCurve
        Return value of :func:`jacrot.inspection.edge_curve` for all layers, ``layer=None``.
    n_edges : int
        Number of connections to draw, such as ``curve.edges_needed(0.01)``.
    image_shape : tuple of int, default=None
        Height and width of the inputs, if they are images.

    Attributes
    ----------
    ax_ : Axes
        Axes with the plot.
    figure_ : Figure
        Figure that contains the plot.
    edges_ : list of LineCollection
        The lines of every layer, weakest first.
    nodes_ : list of PathCollection
        The dots of every site.
    orders_ : list of ndarray
        The axes of every site that are drawn, from top to bottom.
    images_ : dict of (int, int) to AnnotationBbox
        The images, by site and axis.

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
                "logits; pass edge_curve(..., layer=None)."
            )
        most = int(result.n_edges[-1])
        check_count(n_edges, "n_edges", 1)
        if n_edges > most:
            raise ValueError(
                f"n_edges={n_edges} but only {most} edges have any strength; pass {most} or less."
            )
        n_inputs = len(result.bases[0].decoder)
        if image_shape is not None and int(np.prod(image_shape)) != n_inputs:
            raise ValueError(
                f"image_shape={image_shape} has {int(np.prod(image_shape))} pixels but the network "
                f"reads {n_inputs}; pass the height and width of its inputs."
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
        """Draw the strongest connections of an edge curve.

        Parameters
        ----------
        result : EdgeCurve
            Return value of :func:`jacrot.inspection.edge_curve` for all layers.
        n_edges : int
            Number of connections to draw.
        image_shape : tuple of int, default=None
            Height and width of the inputs, if they are images.
        max_axes : int, default=40
            Largest number of axes of a site to draw; those with the strongest connections are.
        ax : Axes, default=None
            Axes to draw into. If ``None``, a new figure is created, whose height depends on the
            number of axes.

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
            Axes to draw into. If ``None``, a new figure is created, whose height depends on the
            number of axes.
        max_axes : int, default=40
            Largest number of axes of a site to draw; those with the strongest connections are.

        Returns
        -------
        CircuitDisplay
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is not an Axes.
        ValueError
            If `max_axes` is not a positive integer.
        """
        check_count(max_axes, "max_axes", 1)
        kept = self.result.kept(self.n_edges)
        self._layout = lay_out_circuit(kept, self.result.strengths, max_axes)
        self.orders_ = self._layout.orders
        return super().plot(ax)

    @property
    def _size(self) -> tuple[float, float]:
        height = NODE_HEIGHT * max(map(len, self.orders_))
        if self.image_shape is not None:
            height = max(height, IMAGE_HEIGHT * len(self.orders_[1]))
        return WIDTH, REST + height

    def _draw(self) -> None:
        self._heights = self._layout.heights
        self._draw_edges()
        self._draw_nodes()
        self._draw_title()
        self._draw_legend()
        margin = 0.5 / max(map(len, self.orders_))
        self.ax_.set_xlim(-0.6 if self.image_shape else -0.2, len(self.edges_) + 0.2)
        self.ax_.set_ylim(-margin, 1 + margin)
        self.ax_.set_axis_off()
        self.images_: dict[tuple[int, int], AnnotationBbox] = {}
        if self.image_shape is not None:
            self._draw_images(self.image_shape)

    def _draw_edges(self) -> None:
        t = np.linspace(0, 1, CURVE_POINTS)
        bend = t**2 * (3 - 2 * t)
        self.edges_: list[LineCollection] = []
        for site, (table, signed) in enumerate(
            zip(self._layout.strengths, self.result.signed, strict=True)
        ):
            outputs, inputs = np.nonzero(table)
            order = np.argsort(table[outputs, inputs], kind="stable")
            outputs, inputs = outputs[order], inputs[order]
            strengths = table[outputs, inputs]
            share = np.sqrt(strengths / self._layout.strongest)
            colours = SIGNS((1 + signed[outputs, inputs] / strengths) / 2)
            colours[:, 3] = LOWEST_ALPHA + (1 - LOWEST_ALPHA) * share
            start = np.array([self._heights[site][axis] for axis in inputs.tolist()])
            end = np.array([self._heights[site + 1][axis] for axis in outputs.tolist()])
            y = start[:, None] + (end - start)[:, None] * bend
            negative = signed[outputs, inputs] < 0
            lines = LineCollection(
                [np.column_stack([site + t, row]) for row in y],
                colors=colours,
                linewidths=WIDEST_EDGE * share,
                linestyles=[DASHED if is_negative else SOLID for is_negative in negative],
                zorder=1,
            )
            self.ax_.add_collection(lines)
            self.edges_.append(lines)

    def _draw_nodes(self) -> None:
        layout = self._layout
        last = len(layout.totals) - 1
        largest = max(total.max() for total in layout.totals)
        decoder = self.result.bases[-1].decoder
        classes = np.array_equal(decoder, np.eye(len(decoder)))
        self.nodes_: list[PathCollection] = []
        for site, order in enumerate(self.orders_):
            heights = [self._heights[site][axis] for axis in order.tolist()]
            sizes = LARGEST_NODE * np.sqrt(layout.totals[site][order] / largest)
            sizes = np.maximum(sizes, SMALLEST_NODE)
            self.nodes_.append(
                self.ax_.scatter(
                    np.full(len(order), site),
                    heights,
                    s=sizes**2,
                    color=np.where(layout.on_path[site][order], GREY, "white"),
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
            n_drawn, n_axes = len(order), layout.n_axes[site]
            count = f"{n_drawn}" if n_drawn == n_axes else f"{n_drawn} of {n_axes:,}"
            self.ax_.text(
                site,
                1,
                f"{name}\n{count} {'classes' if logits and classes else 'axes'}",
                transform=self.ax_.get_xaxis_transform(),
                ha="center",
                va="bottom",
            )

    def _draw_images(self, shape: tuple[int, int]) -> None:
        decoder = self.result.bases[0].decoder
        responses = (self._layout.kept[0] * self.result.signed[0]) @ decoder.T
        # The layout engine sets the height of the Axes, on which the sizes of the images depend.
        self.figure_.draw_without_rendering()
        height = self.ax_.get_window_extent().height * 72 / self.figure_.dpi
        for site, images in enumerate((decoder.T, responses)):
            order = self.orders_[site].tolist()
            room = height / (len(order) + 1)
            # Beside the inputs there is room for two columns.
            size = min(LARGEST_IMAGE, IMAGE_SHARE * room * (2 if site == 0 else 1))
            for number, axis in enumerate(order):
                image = images[axis].reshape(shape)
                limit = np.quantile(np.abs(image), 1 - SATURATED) or 1.0
                offset = -GAP - size / 2
                if size > room and number % 2:
                    offset -= size + GAP
                box = OffsetImage(image, zoom=size / max(shape), cmap=CMAP)
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

    def _draw_title(self) -> None:
        result, layout = self.result, self._layout
        title = (
            f"{self.n_edges:,} of {result.n_edges[-1]:,} edges: "
            f"{result.metric} {result.measure(self.n_edges):.4g}, full network {result.full:.4g}"
        )
        if layout.n_off_path:
            title += (
                f"\n{layout.n_off_path:,} of them on no path from an input to a logit (hollow dots)"
            )
        if sum(map(len, self.orders_)) < sum(layout.n_axes):
            n_drawn = sum(len(lines.get_segments()) for lines in self.edges_)
            title += f"\ndrawn: {n_drawn:,} edges, between the axes with the strongest ones"
        set_wrapped_title(self.ax_, title, loc="center", pad=38)

    def _draw_legend(self) -> None:
        handles = [
            Line2D([], [], color=colour, linewidth=2, linestyle=dashes, label=label)
            for colour, dashes, label in (
                (VERMILION, SOLID, "positive"),
                (SIGNS(0.5), SOLID, "sign depends on the input"),
                (BLUE, DASHED, "negative"),
            )
        ]
        handles += [
            Line2D(
                [],
                [],
                color=GREY,
                linewidth=WIDEST_EDGE * np.sqrt(share),
                label=f"strength {share * self._layout.strongest:.2g}",
            )
            for share in (0.04, 0.2, 1)
        ]
        self.ax_.legend(
            handles=handles,
            title=CAPTION if self.image_shape is None else f"{CAPTION}\n{IMAGE_CAPTION}",
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            ncols=6,
            fontsize="small",
            title_fontsize="small",
            frameon=False,
        )
