"""The command line does what the estimators do."""

from pathlib import Path

import numpy as np
import pytest
from builders import framework, random_network
from command import (
    ACTIVATION,
    DIGITS,
    INPUTS,
    MIDDLE,
    NETWORK,
    OPTIONS,
    SHORT,
    Text,
    files,
    fit,
    halves,
)
from sklearn.model_selection import train_test_split

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.inspection import axis_stability, null_baseline
from jacrot.layers import Conv2d
from jacrot.readers import load

pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")


def test_a_fit_is_the_estimators_own(digits_folder, capsys):
    assert fit(*MIDDLE, "--seed", "3", "--network", "rotated.npz") == 0
    X, X_test = halves(seed=3)
    before, part = NETWORK[:1], NETWORK[1:2]
    expected = JacobianSparsityRotation(**OPTIONS | {"random_state": 3}).fit(part, before(X))
    found = JacobianSparsityRotation.load("out.npz")
    np.testing.assert_array_equal(found.rotation_, expected.rotation_)
    assert found.output_rotation_ is None
    assert found.provenance_["seed"] == 3
    A_test = before(X_test)
    Z = found.transform(A_test)
    np.testing.assert_allclose(load("rotated.npz")(Z), part(A_test), atol=1e-10)
    printed = capsys.readouterr().out
    assert printed.startswith("layer 1 of digits.npz: Network(64 → 64; relu)\n120 rows to fit, 30")
    lines = {line[:-20].strip(): line[-20:].split() for line in printed.splitlines()}
    assert lines["jacrot"] == [f"{expected.sparsity_:.3f}", f"{expected.score(A_test):.3f}"]
    assert lines["given basis"][0] == f"{expected.sparsity_before_:.3f}"
    assert "the same class for 30 of 30 held-out rows" in printed
    assert printed.endswith("written: out.npz, rotated.npz\n")
    assert files(digits_folder) == ["digits.npz", "inputs.npy", "out.npz", "rotated.npz"]


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["--rotate-output", "yes"], {"rotate_output": True}),
        (["--rotate-output", "tied"], {"rotate_output": "tied"}),
        (["--n-components", "9"], {"n_components": 9}),
        (["--n-components", "0.5"], {"n_components": 0.5}),
        (["--criterion", "l1", "--n-init", "2"], {"criterion": "l1", "n_init": 2}),
        (
            ["--criterion", "log", "--coordinates", "functional"],
            {"criterion": "log", "coordinates": "functional", "readout": NETWORK[2:]},
        ),
    ],
)
def test_options_are_those_of_the_estimator(digits_folder, options, parameters):
    assert fit(*MIDDLE, *options) == 0
    X, _ = halves()
    expected = JacobianSparsityRotation(**OPTIONS, **parameters).fit(NETWORK[1:2], NETWORK[:1](X))
    found = JacobianSparsityRotation.load("out.npz")
    np.testing.assert_array_equal(found.rotation_, expected.rotation_)
    if expected.output_rotation_ is not None:
        np.testing.assert_array_equal(found.output_rotation_, expected.output_rotation_)


@pytest.mark.parametrize("rotate_output", [False, True])
@pytest.mark.slow
def test_a_whole_network(digits_folder, rotate_output, capsys):
    options = ["--rotate-output", "yes"] if rotate_output else []
    assert fit("--whole-network", *ACTIVATION, *options, "--network", "rotated.npz") == 0
    X, X_test = halves()
    expected = NetworkRotation(rotate_output=rotate_output, **OPTIONS).fit(NETWORK, X)
    found = NetworkRotation.load("out.npz")
    assert found.rotations_.keys() == expected.rotations_.keys()
    for site, rotation in expected.rotations_.items():
        np.testing.assert_array_equal(found.rotations_[site], rotation)
    outputs = load("rotated.npz")(X_test)
    if rotate_output:
        outputs = outputs @ found.rotations_[3]
    np.testing.assert_allclose(outputs, NETWORK(X_test), atol=1e-4)
    printed = capsys.readouterr().out
    assert f"{expected.score(X_test):.3f}\n" in printed
    assert "layer 2, held out: " in printed


def test_a_network_that_knows_its_activations_and_rows_of_a_file(digits_folder, capsys):
    NETWORK[1:].save("rest.npz")
    A, A_test = NETWORK[:1](INPUTS), NETWORK[:1](DIGITS.X_test[:40])
    np.savez("many.npz", a=A, b=A_test)
    np.savez("a.npz", A)
    np.save("b.npy", A_test)
    assert fit("--held-out", "b.npy", weights="rest.npz", activations="a.npz") == 0
    expected = JacobianSparsityRotation(**OPTIONS).fit(NETWORK[1:], A)
    found = JacobianSparsityRotation.load("out.npz")
    np.testing.assert_array_equal(found.rotation_, expected.rotation_)
    assert f"{expected.score(A_test):.3f}\n" in capsys.readouterr().out
    # One array of a file that holds several.
    assert fit("--array", "b", weights="rest.npz", activations="many.npz", out="b.npz") == 0
    A_test, _ = train_test_split(A_test, test_size=0.2, random_state=0)
    expected = JacobianSparsityRotation(**OPTIONS).fit(NETWORK[1:], A_test)
    rotation = JacobianSparsityRotation.load("b.npz").rotation_
    np.testing.assert_array_equal(rotation, expected.rotation_)


@pytest.mark.slow
def test_images_and_sequences(digits_folder):
    rng = np.random.default_rng(0)
    Network([Conv2d(rng.normal(size=(5, 4, 3, 3)), activation="relu")]).save("conv.npz")
    random_network([4, 6], ["tanh"]).save("dense.npz")
    np.save("images.npy", rng.normal(size=(10, 4, 5, 5)).astype(np.float16))
    np.save("sequences.npy", rng.normal(size=(10, 7, 4)).astype(np.float32))
    for weights, activations in (("conv.npz", "images.npy"), ("dense.npz", "sequences.npy")):
        options = ["--report", "r.html", "--nulls", "0", "--force"]
        assert fit(*options, weights=weights, activations=activations) == 0
        X = np.load(activations).astype(np.float32)
        X, _ = train_test_split(X, test_size=0.2, random_state=0)
        expected = JacobianSparsityRotation(**OPTIONS).fit(load(weights), X)
        found = JacobianSparsityRotation.load("out.npz")
        np.testing.assert_array_equal(found.rotation_, expected.rotation_)
        code, _ = Text("r.html").codes
        names = {}
        exec(code, names)
        assert names["Z"].shape == names["X_test"].shape


def test_layouts_and_names(digits_folder):
    arrays = dict(np.load("digits.npz"))
    swapped = {
        name: array.T if array.ndim == 2 else array for name, array in reversed(arrays.items())
    }
    np.savez("swapped.npz", **swapped)
    order = ["--names", "W0,b0", "--names", "W1,b1,W2,b2", "--layout", "in_out"]
    assert fit(*MIDDLE, *order, weights="swapped.npz") == 0
    assert fit(*MIDDLE, out="plain.npz") == 0
    found, plain = map(JacobianSparsityRotation.load, ("out.npz", "plain.npz"))
    np.testing.assert_array_equal(found.rotation_, plain.rotation_)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "onnx"])
def test_other_formats(digits_folder, kind):
    arrays = dict(np.load("digits.npz"))
    kinds = {"W": "weight", "b": "bias"}
    named = {f"{2 * int(name[1])}.{kinds[name[0]]}": array for name, array in arrays.items()}
    if kind == "safetensors":
        framework("safetensors.numpy").save_file(named, "model.safetensors")
        weights = "model.safetensors"
    elif kind == "torch":
        torch = framework("torch")
        torch.save({name: torch.tensor(array) for name, array in named.items()}, "model.pt")
        weights = "model.pt"
    else:
        framework("onnx")
        from jacrot.writers import to_onnx

        to_onnx(NETWORK, "model.onnx")
        weights = "model.onnx"
    options = MIDDLE if kind != "onnx" else MIDDLE[:3]
    assert fit(*options, weights=weights, out="out.npz") == 0
    assert fit(*MIDDLE, out="plain.npz") == 0
    found, plain = map(JacobianSparsityRotation.load, ("out.npz", "plain.npz"))
    np.testing.assert_allclose(found.rotation_, plain.rotation_, atol=1e-6)


def test_results_as_safetensors(digits_folder):
    framework("safetensors")
    assert fit(*MIDDLE, "--network", "rotated.safetensors", out="out.safetensors") == 0
    found = JacobianSparsityRotation.load("out.safetensors")
    assert found.rotation_.shape == (64, 64)


@pytest.mark.slow
def test_the_report_of_a_fit(digits_folder, capsys):
    options = [*MIDDLE, "--report", "report.html", "--nulls", "2", "--n-init", "2"]
    assert fit(*options) == 0
    out, err = capsys.readouterr()
    X, X_test = map(NETWORK[:1], halves())
    estimator = JacobianSparsityRotation(n_init=2, **OPTIONS).fit(NETWORK[1:2], X)
    null = null_baseline(estimator, X, X_test, n_repeats=2, random_state=0)
    once = JacobianSparsityRotation(n_init=1, **OPTIONS)
    once.__dict__.update({k: v for k, v in vars(estimator).items() if k != "n_init"})
    parameters = estimator.provenance_["parameters"] | {"n_init": 1}
    once.provenance_ = estimator.provenance_ | {"parameters": parameters}
    stability = axis_stability(once, X, n_starts=1, n_resamples=1, random_state=0)
    assert f"null baseline, 2 of each kind: {null.verdict}\n" in out
    report = Text("report.html")
    assert null.verdict.partition(": sparsity")[2] in report.words
    assert f"{stability.mean['input']:.2f}{stability.chance['input']:.2f}" in report.words
    assert len(report.images) == 4
    # A search of twenty steps did not converge, and neither did those of the nulls.
    assert "did not converge" in report.words
    assert "null baseline: the search did not converge" in report.words
    assert err.count("jacrot: warning: the search did not converge") == 1
    command, code = report.codes[1], report.codes[0]
    assert command == " ".join(["jacrot fit digits.npz inputs.npy -o out.npz", *SHORT, *options])
    names = {}
    exec(code, names)
    assert names["rotation"].score(names["X_test"]) == pytest.approx(estimator.score(X_test))
    np.testing.assert_allclose(names["Z"], estimator.transform(X_test))
    assert float(capsys.readouterr().out) == pytest.approx(estimator.score(X_test))


@pytest.mark.parametrize(
    ("options", "activations"),
    [
        ([*MIDDLE, "--held-out", "test.npy", "--array", "y"], "a b'c.npz"),
        (["--whole-network", *ACTIVATION, "--held-out", "0.5"], "inputs.npy"),
        (["--layers", "2:", *ACTIVATION, "--from-inputs", "--seed", "4"], "one.npz"),
    ],
)
@pytest.mark.slow
def test_the_code_of_the_report_runs(digits_folder, options, activations, capsys):
    np.savez("a b'c.npz", x=INPUTS[:20], y=INPUTS)
    np.savez("one.npz", INPUTS)
    np.save("test.npy", DIGITS.X_test[:30])
    options = [*options, "--report", "r.html", "--nulls", "0"]
    assert fit(*options, activations=activations) == 0
    (printed,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("jacrot")
    )
    names = {}
    exec(Text("r.html").codes[0], names)
    score = float(capsys.readouterr().out)
    assert printed.split()[-1] == f"{score:.3f}"
    assert len(names["Z"]) == len(names["X_test"])


def test_nulls_are_left_out_without_a_report(digits_folder, monkeypatch, capsys):
    monkeypatch.setattr("jacrot._cli.fit.null_baseline", None)
    monkeypatch.setattr("jacrot._cli.fit.axis_stability", None)
    assert fit(*MIDDLE, "--n-init", "2") == 0
    assert fit(*MIDDLE, "--report", "r.html", "--nulls", "0", "--force") == 0
    assert "No null baseline was fitted" in Text("r.html").words
    assert "This was not computed" in Text("r.html").words
    assert "null" not in capsys.readouterr().out


def test_quiet_and_verbose(digits_folder, capsys):
    assert fit(*MIDDLE, "--quiet", "--report", "r.html", "--nulls", "2") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("jacrot: warning: ") for line in err.splitlines())
    assert fit(*MIDDLE, "-v", "--force") == 0
    assert "rotation: " in capsys.readouterr().err


def test_existing_files_are_kept_unless_forced(digits_folder, capsys):
    for flag in ("-o", "--report", "--network"):
        path = Path({"-o": "out.npz", "--report": "r.html", "--network": "n.npz"}[flag])
        path.write_text("mine")
        options = [] if flag == "-o" else [flag, str(path)]
        capsys.readouterr()
        assert fit(*MIDDLE, *options) == 2
        message = f"jacrot: error: {flag} {str(path)!r} exists; --force overwrites it.\n"
        assert capsys.readouterr().err == message
        assert path.read_text() == "mine"
        assert fit(*MIDDLE, *options, "--nulls", "0", "--force") == 0
        assert path.read_bytes()[:4] != b"mine"
        path.unlink()
        Path("out.npz").unlink(missing_ok=True)
