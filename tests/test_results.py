"""Results print what was found, and have tables."""

import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from jacrot._utils.result import SHOWN_ROWS
from jacrot.inspection import AxisStability, LocalityCurve, NullBaseline, edge_curve

pytest.importorskip("pandas")

RUNS = {"shuffled": np.array([0.40, 0.42, 0.44]), "spectrum": np.array([0.5, 0.52, 0.51])}
NULL = NullBaseline(0.8, 0.5, RUNS, {name: np.full(3, 0.3) for name in RUNS})


def stability(names, n_axes):
    rng = np.random.default_rng(0)
    cosines = {name: rng.uniform(size=(2, n_axes)) for name in names}
    for each in cosines.values():
        each[:, -1] = np.nan
    effect = {name: np.r_[np.full(n_axes - 1, 1 / (n_axes - 1)), 0] for name in names}
    return AxisStability(cosines, cosines, effect, dict.fromkeys(names, 0.25))


def locality(steps=(0.01, 0.5, 2.0)):
    rng = np.random.default_rng(0)
    counts = rng.uniform(1, 8, size=(4, len(steps), 6))
    return LocalityCurve(np.array(steps), 0.1, 8, *counts)


def edges(rng):
    X = rng.normal(size=(50, 2))
    network = [(np.eye(2) + 0.1, np.zeros(2)), (np.eye(2), np.zeros(2))]
    return edge_curve(network, X, calibration=X, layer=0, metric="kl", n_points=3)


@pytest.fixture
def results(rng):
    return [NULL, stability(["input", "output"], 5), stability([1, 2], 30), locality(), edges(rng)]


def test_results_print_their_finding(results):
    for result in results:
        text = repr(result)
        assert text == str(result)
        assert text.startswith(f"{type(result).__name__}(")
        assert "array" not in text
        assert "\n" not in text
        assert len(text) < 300


def test_findings_are_those_of_the_figures():
    assert repr(NULL) == f"NullBaseline({NULL.verdict})"
    two = stability(["input", "output"], 5)
    for name in ("input", "output"):
        assert f"{name} axes recur by {two.mean[name]:.2f} (chance 0.25)" in repr(two)
    assert repr(two).endswith("over 4 fits)")
    assert f"site 2 axes recur by {stability([1, 2], 5).mean[2]:.2f}" in repr(stability([1, 2], 5))
    # The step nearest to one standard deviation, as a factor.
    for steps, index in (((0.01, 0.4, 2.0), 2), ((0.01, 0.8, 2.0), 1), ((7.0,), 0)):
        curve = locality(steps)
        before, after = curve.weighted_before[index], curve.weighted_after[index]
        expected = f"a step of {steps[index]:g} standard deviations changes {after:.1f} of 8"
        assert expected in repr(curve)
        assert f"before {before:.1f}: " in repr(curve)


def test_tables_hold_the_figures(rng):
    frame = NULL.to_frame()
    assert frame["network"].tolist() == ["this network"] + ["shuffled"] * 3 + ["spectrum"] * 3
    np.testing.assert_allclose(frame["sparsity"][1:4], RUNS["shuffled"])
    np.testing.assert_allclose(frame["gain"], frame["sparsity"] - frame["given"])
    assert frame["gain"][0] == NULL.gain
    two = stability(["input", "output"], 5)
    frame = two.to_frame()
    assert len(frame) == 10
    inputs = frame[frame["rotation"] == "input"]
    np.testing.assert_array_equal(inputs["axis"], range(5))
    np.testing.assert_allclose(inputs["recurrence"], two.recurrence["input"])
    np.testing.assert_allclose(inputs["effect"], two.effect["input"])
    frame = locality().to_frame()
    np.testing.assert_allclose(frame["weighted_after"], locality().weighted_after)
    curve = edges(rng)
    frame = curve.to_frame()
    np.testing.assert_array_equal(frame["n_edges"], curve.n_edges)
    np.testing.assert_array_equal(frame["kl"], curve.values)


def test_notebooks_show_finding_and_table(results):
    for result in results:
        html = result._repr_html_()
        ElementTree.fromstring(f"<div>{html}</div>")
        assert html.count("<tr>") == 1 + min(len(result.to_frame()), SHOWN_ROWS)
        assert html.count("<th>") == result.to_frame().shape[1]
    assert "20 of 60 rows; to_frame() has all" in results[2]._repr_html_()
    hostile = {"<script>": np.array([0.40, 0.42, 0.44])}
    assert "<script>" not in NullBaseline(0.8, 0.5, hostile, hostile)._repr_html_()


def test_missing_pandas_is_named(monkeypatch, results):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for result in results:
        name = type(result).__name__
        message = rf"{name}\.to_frame needs pandas, .* pip install 'jacrot\[pandas\]'"
        with pytest.raises(ImportError, match=message):
            result.to_frame()
        assert result._repr_html_()
