"""The displays: what their artists show, and that their texts do not overlap."""

import inspect
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from builders import random_network
from matplotlib.colors import to_rgb
from matplotlib.text import Text

import jacrot.display
from jacrot import JacobianSparsityRotation
from jacrot.datasets import make_planted_problem
from jacrot.display import (
    AxisStabilityDisplay,
    CircuitDisplay,
    ConvergenceDisplay,
    EdgeCurveDisplay,
    JacobianDisplay,
    LocalityDisplay,
    NullBaselineDisplay,
)
from jacrot.display._circuit import CMAP
from jacrot.display._circuit_layout import find_paths, order_axes, sum_crossings
from jacrot.display._style import line_style
from jacrot.inspection import AxisStability, LocalityCurve, NullBaseline, edge_curve

pytestmark = pytest.mark.search

PROBLEM = make_planted_problem(8, 12, n_samples=40, random_state=0)
FITTED = JacobianSparsityRotation(rotate_output=False, random_state=0).fit(
    PROBLEM.network, PROBLEM.X
)


@pytest.mark.parametrize(
    ("against", "label"),
    [("seconds", "seconds"), ("evaluations", "passes over the samples of the stage")],
)
def test_convergence_has_a_line_for_every_stage(against, label):
    display = ConvergenceDisplay.from_estimator(FITTED, against=against)
    history = FITTED.history_
    assert len(display.lines_) == len(np.unique(history["stage"])) > 1
    for stage, line in enumerate(display.lines_):
        here = history["stage"] == stage
        np.testing.assert_array_equal(line.get_xdata(), history[against][here])
        np.testing.assert_array_equal(line.get_ydata(), history["cost"][here])
    colours = [line.get_color() for line in display.lines_[:3]]
    assert colours[0] == colours[2] != colours[1]
    assert display.ax_.get_xlabel() == label


def history(lengths):
    stage = np.repeat(np.arange(len(lengths)), np.array(lengths, dtype=int))
    return {"stage": stage, "cost": 1.0 + stage, "seconds": np.arange(float(len(stage)))}


def test_stages_have_their_names_where_there_is_room():
    names = ["warm start", "ε=0.1", "plane sweep", "ε=0.01"]
    display = ConvergenceDisplay(history([60, 6, 1, 33]), names).plot()
    labels = {label.get_text(): label for label in display.names_ax_.get_xticklabels()}
    # The third stage ends a hundredth of the width after it began.
    assert {name: label.get_rotation() for name, label in labels.items()} == {
        "warm start": 0,
        "ε=0.1": 90,
        "ε=0.01": 0,
    }
    np.testing.assert_allclose(display.names_ax_.get_xticks(), [30, 63, (67 + 99) / 2])
    title = display.ax_.get_title(loc="left")
    assert title.endswith("\ntoo short to be named: 1 of 4 stages")
    display = ConvergenceDisplay(history([60, 40]), names).plot()
    assert "named" not in display.ax_.get_title(loc="left")


def test_the_names_are_those_of_the_estimator():
    display = ConvergenceDisplay.from_estimator(FITTED)
    assert list(display.stages) == list(FITTED.stages_)
    numbers = np.unique(FITTED.history_["stage"])
    shown = [label.get_text() for label in display.names_ax_.get_xticklabels()]
    assert 0 < len(shown) <= len(numbers)
    assert set(shown) <= {FITTED.stages_[number] for number in numbers}


def test_histories_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="against='cost' must be 'seconds' or 'evaluations'"):
        ConvergenceDisplay(FITTED.history_, FITTED.stages_, against="cost")
    with pytest.raises(
        ValueError, match="history has no 'stage'; pass the history_ of an estimator"
    ):
        ConvergenceDisplay({"cost": [1.0]}, ["ε=1"])
    with pytest.raises(ValueError, match="stages has 1 names but history counts 2 stages"):
        ConvergenceDisplay(history([1, 1]), ["ε=1"])
    with pytest.raises(ValueError, match="there was nothing to search"):
        ConvergenceDisplay(history([]), [])


def test_a_search_of_one_point():
    display = ConvergenceDisplay(history([1]), ["plane sweep"]).plot()
    assert [line.get_ydata().tolist() for line in display.lines_] == [[1.0]]


NULL = NullBaseline(
    score=0.8,
    given=0.5,
    nulls={"shuffled": np.array([0.3, 0.4]), "spectrum": np.array([0.6, 0.7])},
    nulls_given={"shuffled": np.array([0.1, 0.2]), "spectrum": np.array([0.2, 0.3])},
)


def test_null_scores_stand_beside_the_network():
    display = NullBaselineDisplay.from_result(NULL)
    assert set(display.line_.get_xdata()) == {0.8}
    assert set(display.given_line_.get_xdata()) == {0.5}
    for name in NULL.nulls:
        np.testing.assert_array_equal(display.points_[name].get_xdata(), NULL.nulls[name])
        np.testing.assert_array_equal(
            display.given_points_[name].get_xdata(), NULL.nulls_given[name]
        )
    rows = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert rows == ["shuffled\nweights", "same\nspectrum"]
    assert display.ax_.get_title(loc="left").replace("\n", " ") == NULL.verdict
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert len(legend) == len(set(legend)) == 4


@pytest.mark.parametrize("n_axes", [10, 1000])
def test_recurrences_are_sorted_beside_chance(n_axes, rng):
    cosines = {1: rng.uniform(size=(2, n_axes)), 2: rng.uniform(size=(2, 3))}
    cosines[1][:, 4] = np.nan
    effect = {1: np.full(n_axes, 1 / n_axes), 2: np.full(3, 1 / 3)}
    stability = AxisStability(cosines, cosines, effect, {1: 0.4, 2: 0.7})
    display = AxisStabilityDisplay.from_result(stability)
    expected = np.sort(np.delete(cosines[1].mean(axis=0), 4))[::-1]
    np.testing.assert_allclose(display.lines_[1].get_ydata(), expected)
    assert len(display.lines_[2].get_ydata()) == 3
    assert set(display.chance_lines_[2].get_ydata()) == {0.7}
    assert display.lines_[1].get_label().startswith("site 1 (mean ")
    # If there are many axes, a few are marked.
    assert len(expected) / display.lines_[1].get_markevery() <= 40


def test_counts_against_steps():
    before, after = np.array([[4.0, 2.0], [4.0, 4.0]]), np.array([[1.0, np.nan], [2.0, 1.0]])
    weights = np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 3.0]])
    curve = LocalityCurve(np.array([0.1, 1.0]), 0.2, 6, before, after, *weights)
    display = LocalityDisplay.from_result(curve)
    counts = {name: line.get_ydata().tolist() for name, line in display.lines_.items()}
    assert counts == {
        "before": [3, 4],
        "weighted_before": [3.5, 4],
        "after": [1, 1.5],
        "weighted_after": [1, 1.25],
    }
    assert display.ax_.get_ylabel().endswith("20 % of the largest change")
    assert display.ax_.get_ylim()[0] == 0
    with pytest.raises(ValueError, match=r"result has the layers \[0, 1\]; pass one of them"):
        LocalityDisplay.from_result({0: curve, 1: curve})


NETWORK = random_network([12, 8, 7, 5], ["tanh", "tanh", "identity"])
DATA = np.random.default_rng(0).normal(size=(60, 12))
LABELS = NETWORK(DATA).argmax(axis=1)


def curve_in(basis, layer=None, metric="accuracy"):
    options = {"calibration": DATA, "basis": basis, "layer": layer, "metric": metric}
    return edge_curve(NETWORK, DATA, LABELS, **options, n_points=8)


def test_edge_curves_and_their_levels():
    curves = {basis: curve_in(basis) for basis in ("given", "pca", "interaction")}
    display = EdgeCurveDisplay.from_result(curves)
    for name, curve in curves.items():
        np.testing.assert_array_equal(display.lines_[name].get_xdata(), curve.n_edges)
        np.testing.assert_array_equal(display.lines_[name].get_ydata(), curve.values)
    one = curves["given"]
    assert set(display.full_line_.get_ydata()) == {one.full} == {1.0}
    assert set(display.affine_line_.get_ydata()) == {one.affine}
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    levels = ["full network (1)", f"affine map ({one.affine:.4g})"]
    assert legend == [*levels, "given", "pca", "interaction"]
    title = display.ax_.get_title(loc="left").replace("\n", " ")
    rank = "7, 4, 4 directions of what each layer writes reach the logits (rank of G)"
    assert title == f"{rank} bands: 95 % intervals over the inputs"
    for name, curve in curves.items():
        (band,) = display.bands_[name].get_paths()
        np.testing.assert_allclose(band.vertices[:, 0].max(), curve.n_edges[-1])
        np.testing.assert_allclose(band.vertices[:, 1].min(), curve.intervals[0].min())
        np.testing.assert_allclose(band.vertices[:, 1].max(), curve.intervals[1].max())
    assert display.ax_.get_xscale() == "log"
    assert display.ax_.get_ylabel() == "accuracy"


def test_one_edge_curve():
    display = EdgeCurveDisplay.from_result(curve_in("given", layer=1, metric="kl"))
    assert list(display.lines_) == ["kept edges"]
    title = display.ax_.get_title(loc="left")
    assert title.startswith("4 directions of what the layer writes reach the logits (rank of G)\n")
    assert display.ax_.get_ylabel() == "KL divergence from the full network"
    assert display.ax_.get_yscale() == "symlog"
    # A divergence is never negative.
    bottom, _ = display.ax_.get_ylim()
    assert -1e-3 < bottom <= 0


def test_more_edge_curves_than_colours():
    display = EdgeCurveDisplay.from_result({str(number): curve_in("given") for number in range(12)})
    looks = [(line.get_linestyle(), line.get_marker()) for line in display.lines_.values()]
    # In print without colours too.
    assert len(set(looks)) == 12
    assert len({tuple(line_style(index).values()) for index in range(105)}) == 105


def test_edge_curves_of_different_layers_or_metrics_are_refused():
    with pytest.raises(ValueError, match="result holds no curve"):
        EdgeCurveDisplay.from_result({})
    for other in (curve_in("given", layer=1), curve_in("given", metric="kl")):
        with pytest.raises(ValueError, match="curves of different metrics, samples or layers"):
            EdgeCurveDisplay.from_result({"one": curve_in("pca"), "other": other})


@pytest.mark.parametrize("basis", ["given", "interaction"])
def test_circuit_shows_every_kept_edge(basis):
    curve = curve_in(basis)
    display = CircuitDisplay.from_result(curve, 40)
    kept = curve.kept(40)
    # Where every axis stands.
    places = [
        dict(zip(map(float, dots.get_offsets()[:, 1]), order.tolist(), strict=True))
        for dots, order in zip(display.nodes_, display.orders_, strict=True)
    ]
    drawn = 0
    for site, lines in enumerate(display.edges_):
        strengths, seen = [], np.zeros_like(kept[site])
        dashes = [pattern for _, pattern in lines.get_linestyle()]
        for line, colour, broken in zip(
            lines.get_segments(), lines.get_colors(), dashes, strict=True
        ):
            read, written = places[site][line[0, 1]], places[site + 1][line[-1, 1]]
            assert (line[0, 0], line[-1, 0]) == (site, site + 1)
            seen[written, read] = True
            strength, signed = (t[site][written, read] for t in (curve.strengths, curve.signed))
            strengths.append(strength)
            # Vermilion has more red than blue.
            if abs(signed) > 0.1 * strength:
                assert (colour[0] > colour[2]) == (signed > 0)
            assert bool(broken) == (signed < 0)
        np.testing.assert_array_equal(seen, kept[site])
        widths = np.array(lines.get_linewidths())
        np.testing.assert_allclose(widths**2 / widths[-1] ** 2, strengths / max(strengths))
        assert (np.diff(strengths) >= 0).all()
        drawn += len(strengths)
    assert drawn == 40
    read = [mask.any(axis=0) for mask in kept]
    written = [mask.any(axis=1) for mask in kept]
    used = [read[0], written[0] | read[1], written[1] | read[2], written[2]]
    for order, mask in zip(display.orders_, used, strict=True):
        assert sorted(order) == np.flatnonzero(mask).tolist()
    title = display.ax_.get_title()
    share = f"40 of {curve.n_edges[-1]:,} edges: accuracy {curve.measure(40):.4g}, full network 1"
    assert title.startswith(share)
    lost = 40 - sum(
        (mask & np.outer(after, before)).sum()
        for mask, before, after in zip(kept, find_paths(kept), find_paths(kept)[1:], strict=False)
    )
    assert (f"{lost} of them on no path" in title) == (lost > 0)
    texts = [text.get_text() for text in display.ax_.texts]
    unit = "classes" if basis == "given" else "axes"
    assert f"logits\n{len(display.orders_[-1])} {unit}" in texts
    assert f"inputs\n{len(display.orders_[0])} axes" in texts
    numbers = [str(axis) for order in display.orders_ for axis in order]
    assert sorted(text for text in texts if text.isdigit()) == sorted(numbers)
    assert display.images_ == {}


def test_circuit_areas_are_strengths():
    curve = curve_in("given")
    display = CircuitDisplay.from_result(curve, 150)
    tables = [mask * table for mask, table in zip(curve.kept(150), curve.strengths, strict=True)]
    through = np.concatenate([tables[0].sum(axis=0), tables[1].sum(axis=0) + tables[0].sum(axis=1)])
    order = np.concatenate([display.orders_[0], 12 + display.orders_[1]])
    areas = np.concatenate([dots.get_sizes() for dots in display.nodes_[:2]])
    large = areas > areas.min()
    ratio = areas[large] / through[order][large]
    np.testing.assert_allclose(ratio, ratio[0])


def test_circuit_of_images_shows_what_axes_write_and_respond_to():
    curve = curve_in("interaction")
    display = CircuitDisplay.from_result(curve, 30, image_shape=(3, 4))
    decoder, signed = curve.bases[0].decoder, np.where(curve.kept(30)[0], curve.signed[0], 0)
    sites = [(site, axis) for site in (0, 1) for axis in display.orders_[site]]
    assert set(display.images_) == set(sites)
    for site, axis in sites:
        shown = display.images_[site, axis].offsetbox.get_data()
        expected = decoder[:, axis] if site == 0 else decoder @ signed[axis]
        np.testing.assert_allclose(shown, expected.reshape(3, 4))


def test_circuit_of_the_strongest_axes():
    curve = curve_in("given")
    everything = CircuitDisplay.from_result(curve, 150)
    display = CircuitDisplay.from_result(curve, 150, max_axes=4)
    kept = [mask * table for mask, table in zip(curve.kept(150), curve.strengths, strict=True)]
    through = [kept[0].sum(axis=0), kept[0].sum(axis=1) + kept[1].sum(axis=0)]
    through += [kept[1].sum(axis=1) + kept[2].sum(axis=0), kept[2].sum(axis=1)]
    drawn = [np.sort(np.argsort(-sums)[:4]) for sums in through]
    for order, expected in zip(display.orders_, drawn, strict=True):
        assert sorted(order) == expected.tolist()
    n_edges = sum(
        np.count_nonzero(table[np.ix_(written, read)])
        for table, read, written in zip(kept, drawn, drawn[1:], strict=False)
    )
    assert sum(len(lines.get_segments()) for lines in display.edges_) == n_edges
    title = display.ax_.get_title()
    # What is measured is the whole circuit.
    assert title.startswith(everything.ax_.get_title())
    assert title.endswith(f"\ndrawn: {n_edges} edges, between the axes with the strongest ones")
    texts = {text.get_text() for text in display.ax_.texts}
    assert {"inputs\n4 of 12 axes", "logits\n4 of 5 classes"} <= texts
    # Dots keep their areas.
    areas = dict(zip(everything.orders_[1], everything.nodes_[1].get_sizes(), strict=True))
    for axis, area in zip(display.orders_[1], display.nodes_[1].get_sizes(), strict=True):
        np.testing.assert_allclose(area, areas[axis])
    with pytest.raises(ValueError, match="max_axes=0 must be an integer of at least 1"):
        CircuitDisplay.from_result(curve, 150, max_axes=0)
    # The two strongest axes of neighbouring sites need not be connected.
    assert len(CircuitDisplay.from_result(curve, 150, max_axes=1).edges_) == 3


def test_hollow_dots_are_on_no_path():
    # One of the two hidden axes reads the inputs, and the logits read the other.
    kept = (
        np.array([[True, True], [False, False]]),
        np.array([[True, False], [False, True]]),
        np.array([[True, False]]),
    )
    expected = [[True, True], [True, False], [True, False], [True]]
    assert [mask.tolist() for mask in find_paths(kept)] == expected


def test_order_undoes_a_permutation(rng):
    # Nine chains side by side, shuffled.
    tables = [np.eye(9)[rng.permutation(9)] for _ in range(4)]
    orders = order_axes(tables, [np.full(9, True)] * 5)
    for table, read, written in zip(tables, orders, orders[1:], strict=False):
        np.testing.assert_array_equal(table[np.ix_(written, read)], np.eye(9))


def test_crossings_are_counted_in_pairs(rng):
    table = rng.uniform(size=(5, 6)) * (rng.uniform(size=(5, 6)) < 0.6)
    edges = [(i, j) for i in range(5) for j in range(6)]
    expected = sum(
        table[one] * table[other]
        for one in edges
        for other in edges
        if one[0] < other[0] and one[1] > other[1]
    )
    np.testing.assert_allclose(sum_crossings(table), expected)


def test_circuits_that_cannot_be_drawn_are_refused():
    curve = curve_in("given")
    with pytest.raises(ValueError, match="result is the curve of a single layer"):
        CircuitDisplay.from_result(curve_in("given", layer=1), 3)
    for n_edges in (0, 2.5):
        with pytest.raises(ValueError, match=f"n_edges={n_edges} must be an integer of at least 1"):
            CircuitDisplay.from_result(curve, n_edges)
    with pytest.raises(ValueError, match="n_edges=1000 but only 187 edges have any strength"):
        CircuitDisplay.from_result(curve, 1000)
    with pytest.raises(
        ValueError, match=r"image_shape=\(3, 3\) has 9 pixels but the network reads"
    ):
        CircuitDisplay.from_result(curve, 3, image_shape=(3, 3))


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: ConvergenceDisplay.from_estimator(FITTED, ax=ax),
        lambda ax: NullBaselineDisplay.from_result(NULL, ax=ax),
        lambda ax: EdgeCurveDisplay.from_result(curve_in("given"), ax=ax),
        lambda ax: CircuitDisplay.from_result(curve_in("given"), 20, image_shape=(3, 4), ax=ax),
    ],
)
def test_one_axes_given_is_drawn_into(draw):
    figure, axes = plt.subplots(1, 2)
    display = draw(axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure


def test_several_axes_are_refused_where_one_is_drawn_into():
    _, axes = plt.subplots(1, 2)
    with pytest.raises(TypeError, match="ax is a ndarray; pass a single matplotlib Axes"):
        NullBaselineDisplay.from_result(NULL, ax=axes)


def test_all_displays_have_one_form():
    for name in jacrot.display.__all__:
        display = getattr(jacrot.display, name)
        makers = [maker for maker in dir(display) if maker.startswith("from_")]
        assert makers
        first, *others = list(inspect.signature(display.plot).parameters.values())[1:]
        assert (first.name, first.default) == ("ax", None)
        for maker in makers:
            parameters = inspect.signature(getattr(display, maker)).parameters
            assert parameters["ax"].default is None
            # What plot takes, the constructors that draw take too.
            for option in others:
                assert option.name in parameters or "kwargs" in parameters


def texts_of(figure):
    """Return the texts that are drawn, and their boxes."""
    texts = []
    draw = Text.draw

    def record(text, renderer):
        if text.get_visible() and text.get_text().strip():
            texts.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, renderer)

    figure.draw_without_rendering()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        figure.canvas.draw()
    assert texts
    return texts


def assert_legible(figure):
    """Assert that no text overlaps another or leaves the figure."""
    texts = texts_of(figure)
    width, height = figure.bbox.size
    for name, box in texts:
        assert min(box.x0, box.y0) > -1, name
        assert max(box.x1 - width, box.y1 - height) < 1, name
    for (name, one), (other, two) in combinations(texts, 2):
        wide = min(one.x1, two.x1) - max(one.x0, two.x0)
        high = min(one.y1, two.y1) - max(one.y0, two.y0)
        assert min(wide, high) < 1, (name, other)


@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize("max_axes", [None, 64])
@pytest.mark.slow
def test_jacobians_of_any_size_are_legible(size, max_axes, rng):
    before, after = rng.exponential(size=(2, 1, size + size // 2, size))
    display = JacobianDisplay(before, after, rotated_output=True).plot(max_axes=max_axes)
    assert_legible(display.figure_)


@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.slow
def test_stability_and_locality_of_any_size_are_legible(size, rng):
    cosines = {site: rng.uniform(size=(2, size)) for site in range(8)}
    effect = {site: np.full(size, 1 / size) for site in cosines}
    stability = AxisStability(cosines, cosines, effect, dict.fromkeys(cosines, 0.2))
    assert_legible(AxisStabilityDisplay.from_result(stability).figure_)
    counts = rng.uniform(0, size, size=(2, 4, size))
    steps = np.array([0.01, 0.1, 1.0, 2.0])
    curve = LocalityCurve(steps, 0.1, size, *counts, np.ones((4, size)), np.ones((4, size)))
    assert_legible(LocalityDisplay.from_result(curve).figure_)


@pytest.mark.parametrize("n_stages", [1, 9, 60])
def test_searches_of_any_length_are_legible(n_stages, rng):
    lengths = rng.integers(1, 300, size=n_stages)
    names = ["plane sweep" if number % 4 == 3 else "ε=0.003" for number in range(n_stages)]
    assert_legible(ConvergenceDisplay(history(lengths), names).plot().figure_)


@pytest.mark.parametrize("width", [10, 120])
@pytest.mark.slow
def test_circuits_of_any_size_are_legible(width):
    network = random_network([width, width, width, 10], ["tanh", "tanh", "identity"])
    X = np.random.default_rng(0).normal(size=(30, width))
    curve = edge_curve(network, X, calibration=X, metric="kl", n_points=2)
    display = CircuitDisplay.from_result(curve, 15 * width)
    assert max(map(len, display.orders_)) == min(width, 40)
    assert_legible(display.figure_)


def test_other_displays_are_legible():
    assert_legible(NullBaselineDisplay.from_result(NULL).figure_)
    curves = {basis: curve_in(basis) for basis in ("given", "pca", "interaction")}
    assert_legible(EdgeCurveDisplay.from_result(curves).figure_)
    curve = curve_in("interaction")
    assert_legible(CircuitDisplay.from_result(curve, 30, image_shape=(3, 4)).figure_)


@pytest.mark.parametrize(
    "name", [inspect.signature(JacobianDisplay.plot).parameters["cmap"].default, CMAP]
)
def test_colour_maps_get_lighter_from_end_to_end(name):
    colours = np.array([to_rgb(plt.get_cmap(name)(share)) for share in np.linspace(0, 1, 256)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1e-3).all()
    assert luminance[-1] - luminance[0] > 0.5
