"""Every script of the gallery runs, draws, and finds what it says."""

import ast
import re
import runpy

import matplotlib.pyplot as plt
import numpy as np
import pytest
from builders import EXAMPLES, framework

import jacrot.display

pytestmark = [pytest.mark.search, pytest.mark.slow]

GALLERY = EXAMPLES / "gallery"
SCRIPTS = {
    "plot_axis_stability": 1,
    "plot_circuit": 2,
    "plot_convergence": 2,
    "plot_edge_curve": 2,
    "plot_jacobian": 5,
    "plot_locality": 2,
    "plot_null_baseline": 2,
    "plot_numpy_weights": 2,
    "plot_own_criterion": 1,
    "plot_own_layer": 2,
    "plot_pytorch_model": 2,
}


def run(name):
    """Run a script; give its variables, once its pictures are seen to show something."""
    variables = runpy.run_path(str(GALLERY / f"{name}.py"))
    numbers = plt.get_fignums()
    assert len(numbers) == SCRIPTS[name]
    for number in numbers:
        figure = plt.figure(number)
        figure.canvas.draw()
        assert np.asarray(figure.canvas.buffer_rgba())[..., :3].std() > 10
    return variables


def test_every_script_is_tested():
    assert {path.stem for path in GALLERY.glob("plot_*.py")} == set(SCRIPTS)
    functions = {name for name in globals() if name.startswith("test_")}
    assert {f"test_{name.removeprefix('plot_')}" for name in SCRIPTS} <= functions


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_have_the_form_of_a_gallery(name):
    text = (GALLERY / f"{name}.py").read_text(encoding="utf-8")
    title, line = ast.get_docstring(ast.parse(text)).split("\n")[:2]
    assert line == "=" * len(title)
    assert "# Where it misleads\n# -----------------\n" in text
    # What is a picture is named, so that no page shows the address of an object.
    last = [cell.rstrip().rpartition("\n")[2] for cell in text.split("\n# %%\n")]
    assert not any(line.startswith(tuple(jacrot.display.__all__)) for line in last)


def test_every_display_is_in_the_gallery():
    texts = [path.read_text(encoding="utf-8") for path in GALLERY.glob("plot_*.py")]
    for name in jacrot.display.__all__:
        assert any(f":class:`~jacrot.display.{name}`" in text for text in texts)


def test_jacobian():
    found = run("plot_jacobian")
    rotation = found["rotation"]
    assert rotation.score(found["held_out"]) > rotation.sparsity_before_ + 0.4
    # A thousand inputs: the mean of the cells says which side is the sparser.
    wide = found["JacobianDisplay"].from_jacobians(found["wide"], found["sparse"])
    given, rotated = (image.get_array() for image in wide.images_[0])
    assert rotated.mean() < 0.4 * given.mean()
    # The last picture has a diagonal that no structure made.
    ordered = found["display"].images_[0, 1].get_array()[:50, :50]
    assert np.diag(ordered).mean() > 1.5 * ordered.mean()


def test_convergence(capsys):
    found = run("plot_convergence")
    rotation = found["rotation"]
    output = capsys.readouterr().out
    lines = re.findall(r"(\S.*?) +cost \d\.\d+ to \d\.\d+", output)
    assert [line.split(maxsplit=1)[1] for line in lines] == list(rotation.stages_)
    assert "warm start" in rotation.stages_
    assert rotation.converged_


def test_edge_curve():
    found = run("plot_edge_curve")
    needed = {name: curve.edges_needed(0.01) for name, curve in found["curves"].items()}
    assert needed["functional"] < needed["PCA"] / 4 < needed["neurons"] / 16
    one = found["curves"]["neurons"]
    # As the text says, the affine map nearly passes.
    assert one.affine > one.full - 0.01
    divergences = {name: curve.values[-1] for name, curve in found["divergences"].items()}
    assert max(divergences.values()) < 1e-6


def test_circuit():
    found = run("plot_circuit")
    n_edges = found["n_edges"]
    assert n_edges < found["given"].edges_needed(0.01) / 5
    # The median over resamples: on these 500 inputs a few of them, 0.2 % each, may be missing.
    assert found["curve"].measure(n_edges) >= found["curve"].full - 0.02
    assert found["curve"].measure(n_edges.high) >= found["curve"].full - 0.01
    assert found["given"].measure(1000) < 0.5


def test_null_baseline():
    found = run("plot_null_baseline")
    assert found["planted"].verdict.startswith("sparser than every null")
    assert found["trained"].verdict.startswith("no sparser than spectrum")


def test_axis_stability():
    found = run("plot_axis_stability")
    # All come back, as the text says of 0.9 or more; the one of least effect by 0.97 to 0.98, since
    # the searches end early.
    planted = found["stabilities"]["planted"]
    assert planted.recurrence["input"].min() > 0.9
    assert planted.mean["input"] > 0.99
    digits = found["stabilities"]["digits"]
    for side, recurrence in digits.recurrence.items():
        has_effect = recurrence[~np.isnan(recurrence)]
        assert has_effect.min() > digits.chance[side]
        # About half of them, as the text says.
        assert 0.35 < np.mean(has_effect >= 0.9) < 0.65


def test_locality():
    found = run("plot_locality")
    curve = found["curve"]
    assert (curve.weighted_after < curve.weighted_before / 4).all()
    one_sided = found["one_sided"]
    assert (one_sided.weighted_after > curve.weighted_after).all()
    assert (one_sided.weighted_after < one_sided.weighted_before).all()


def test_own_criterion():
    found = run("plot_own_criterion")
    sparsity, cosines = found["sparsity"], found["cosines"]
    np.testing.assert_allclose(sparsity["own: quartic"], sparsity["quartimax"], atol=0.005)
    assert sparsity["hoyer"] > sparsity["own: quartic"] + 0.05
    assert (cosines["hoyer"] > 0.99).all()
    assert np.mean(cosines["own: quartic"] > 0.99) < 0.2


def test_own_layer(capsys):
    found = run("plot_own_layer")
    assert found["error"] < 1e-8
    assert np.mean(found["cosines"] > 0.99) > 0.8
    assert np.abs(found["same"] - found["network"](found["X"])).max() < 1e-10
    assert "of 24 hidden axes found" in capsys.readouterr().out


def test_numpy_weights(capsys):
    found = run("plot_numpy_weights")
    assert found["same"].all()
    assert found["kept"].all()
    assert found["rotation"].score(found["held_out"]) > found["rotation"].sparsity_before_ + 0.3
    output = capsys.readouterr().out
    assert "Network(64 → 32 → 32 → 10; relu, relu, identity)\n" in output
    assert "Network(64 → 32 → 32 → 10; relu, relu, identity; rotated at sites 1, 2)\n" in output
    assert not found["path"].exists()


def test_pytorch_model():
    framework("torch")
    found = run("plot_pytorch_model")
    assert found["accuracy"] > 0.85
    assert found["rotation"].sparsity_ > found["rotation"].sparsity_before_ + 0.3
    assert found["difference"] < 1e-4
