"""The command line does what the estimators do, and says in one line what is wrong."""

import importlib
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from builders import framework, interrupting, random_network
from sklearn.model_selection import train_test_split

from jacrot import JacobianSparsityRotation, Network, NetworkRotation, __version__
from jacrot.cli import main
from jacrot.datasets import load_digits_mlp
from jacrot.inspection import axis_stability, null_baseline
from jacrot.layers import Conv2d, Function
from jacrot.readers import load

DIGITS = load_digits_mlp()
NETWORK, INPUTS = DIGITS.network, DIGITS.X[:150]
ACTIVATION = ["--activation", "relu,relu,identity"]
MIDDLE = ["--from-inputs", "--layers", "1:2", *ACTIVATION]
# Searches that are short, and say so.
SHORT = ["--tol", "1e-1", "--max-iter", "20"]
OPTIONS = {"tol": 1e-1, "max_iter": 20, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Run commands in a folder with a network and its inputs."""
    monkeypatch.chdir(tmp_path)
    arrays = {}
    for number, layer in enumerate(NETWORK.layers):
        arrays |= {f"W{number}": layer.weight, f"b{number}": layer.bias}
    np.savez("digits.npz", **arrays)
    np.save("inputs.npy", INPUTS)
    return tmp_path


def fit(*options, weights="digits.npz", activations="inputs.npy", out="out.npz"):
    return main(["fit", weights, activations, "-o", out, *SHORT, *options])


def halves(seed=0, held_out=0.2):
    return train_test_split(INPUTS, test_size=held_out, random_state=seed)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


class Text:
    """The text of a report and the cells of its tables, by another parser's eyes."""

    def __init__(self, path):
        content = Path(path).read_text(encoding="utf-8").removeprefix("<!doctype html>\n")
        # HTML leaves these open; XML does not.
        for tag in ("meta", "img"):
            before, *parts = content.split(f"<{tag} ")
            parts = [part.replace(">", "/>", 1) for part in parts]
            content = f"<{tag} ".join([before, *parts])
        root = ElementTree.fromstring(content)
        self.words = " ".join("".join(root.find("body").itertext()).split())
        self.codes = ["".join(code.itertext()) for code in root.iter("code")]
        self.images = [image.get("src") for image in root.iter("img")]


def test_a_fit_is_the_estimators_own(folder, capsys):
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
    assert files(folder) == ["digits.npz", "inputs.npy", "out.npz", "rotated.npz"]


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
def test_options_are_those_of_the_estimator(folder, options, parameters):
    assert fit(*MIDDLE, *options) == 0
    X, _ = halves()
    expected = JacobianSparsityRotation(**OPTIONS, **parameters).fit(NETWORK[1:2], NETWORK[:1](X))
    found = JacobianSparsityRotation.load("out.npz")
    np.testing.assert_array_equal(found.rotation_, expected.rotation_)
    if expected.output_rotation_ is not None:
        np.testing.assert_array_equal(found.output_rotation_, expected.output_rotation_)


@pytest.mark.parametrize("rotate_output", [False, True])
def test_a_whole_network(folder, rotate_output, capsys):
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


def test_a_network_that_knows_its_activations_and_rows_of_a_file(folder, capsys):
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


def test_images_and_sequences(folder):
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


def test_layouts_and_names(folder):
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
def test_other_formats(folder, kind):
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


def test_results_as_safetensors(folder):
    framework("safetensors")
    assert fit(*MIDDLE, "--network", "rotated.safetensors", out="out.safetensors") == 0
    found = JacobianSparsityRotation.load("out.safetensors")
    assert found.rotation_.shape == (64, 64)


def test_the_report_of_a_fit(folder, capsys):
    options = [*MIDDLE, "--report", "report.html", "--nulls", "2", "--n-init", "2"]
    assert fit(*options) == 0
    out, err = capsys.readouterr()
    X, X_test = map(NETWORK[:1], halves())
    estimator = JacobianSparsityRotation(n_init=2, **OPTIONS).fit(NETWORK[1:2], X)
    null = null_baseline(estimator, X, X_test, n_repeats=2, random_state=0)
    once = JacobianSparsityRotation(n_init=1, **OPTIONS)
    once.__dict__.update({k: v for k, v in vars(estimator).items() if k != "n_init"})
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
def test_the_code_of_the_report_runs(folder, options, activations, capsys):
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


def test_nulls_are_left_out_without_a_report(folder, monkeypatch, capsys):
    monkeypatch.setattr("jacrot.cli.null_baseline", None)
    monkeypatch.setattr("jacrot.cli.axis_stability", None)
    assert fit(*MIDDLE, "--n-init", "2") == 0
    assert fit(*MIDDLE, "--report", "r.html", "--nulls", "0", "--force") == 0
    assert "No null baseline was fitted" in Text("r.html").words
    assert "That was not asked" in Text("r.html").words
    assert "null" not in capsys.readouterr().out


def test_quiet_and_verbose(folder, capsys):
    assert fit(*MIDDLE, "--quiet", "--report", "r.html", "--nulls", "2") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("jacrot: warning: ") for line in err.splitlines())
    assert fit(*MIDDLE, "-v", "--force") == 0
    assert "rotation: " in capsys.readouterr().err


def test_existing_files_are_kept_unless_forced(folder, capsys):
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


ERRORS = {
    "no command": ([], "the following arguments are required: COMMAND"),
    "no such command": (["foo"], "invalid choice: 'foo'"),
    "no output": (["fit", "digits.npz", "inputs.npy"], "required: -o/--out (jacrot fit --help)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_commands(case, capsys):
    arguments, message = ERRORS[case]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jacrot: error: ")
    assert message in err
    assert err.count("\n") == 1


def save_bad_files():
    rng = np.random.default_rng(0)
    Path("text.npy").write_text("hello")
    Path("text.npz").write_text("hello")
    Path("empty.npy").write_bytes(b"")
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez("pickled.npz", np.array([{}], dtype=object))
    np.savez("several.npz", a=INPUTS, b=INPUTS)
    np.savez("none.npz")
    np.save("narrow.npy", INPUTS[:, :10])
    np.save("flat.npy", INPUTS[0])
    np.save("nan.npy", np.where(INPUTS == 0, np.nan, INPUTS))
    np.save("text_array.npy", np.array([["a", "b"]]))
    np.save("complex.npy", INPUTS.astype(complex))
    np.save("two.npy", INPUTS[:2])
    np.save("no_rows.npy", INPUTS[:0])
    np.save("sequences.npy", INPUTS.reshape(-1, 2, 64))
    np.savez("unchained.npz", a=rng.normal(size=(3, 4)), b=rng.normal(size=(5, 6)))
    Path("a_folder.npz").mkdir()
    Path("inputs.csv").write_text("1,2")


BAD = {
    "--array inputs": "--array chooses one of several arrays of an .npz",
    "--array c --held-out several.npz": "--array 'c' is not in --held-out 'several.npz', with 'a'",
    "--layers 1": "argument --layers: '1' is no START:STOP, such as 1:2, 1: or :2",
    "--layers 2:1": "--layers 2:1 is no part of the 3 layers",
    "--layers 1:4": "write 0 <= START < STOP <= 3",
    "--layers 5:": "--layers 5: is no part",
    "--held-out 1": "1 is no share between 0 and 1, and no file",
    "--held-out nan": "nan is no share between 0 and 1, and no file",
    "--held-out missing.npy": "'missing.npy' does not exist",
    "--held-out narrow.npy": "--held-out has 10 features, but layer 0 reads 64",
    "--held-out no_rows.npy": "--held-out has shape (0, 64)",
    "--held-out sequences.npy": "--held-out has shape (75, 2, 64)",
    "--held-out 0.99": "ACTIVATIONS has 150 rows, of which 149 are held out; write 2 more",
    "--n-components 65": "n_components=65 must be at most n_features=64",
    "--n-components 1.5": "n_components",
    "--n-components x": "argument --n-components: 'x' is no number",
    "--n-init 0": "n_init",
    "--max-iter 0": "max_iter",
    "--tol -1": "tol",
    "--tol x": "argument --tol: invalid float value: 'x'",
    "--seed -1": "-1 is no integer from 0 to 4294967295",
    "--seed 4294967296": "is no integer from 0",
    "--seed 0.5": "0.5 is no integer from 0",
    "--nulls 1": "1 is neither 0 nor an integer from 2",
    "--nulls 2.5": "2.5 is neither 0 nor an integer from 2",
    "--criterion foo": "invalid choice: 'foo'",
    "--rotate-output tied": "rotate_output='tied' shares one basis between 64 inputs and 10",
    "--coordinates functional --rotate-output tied --layers 1:2 --from-inputs": "criterion='log'",
    "--activation relu,gelu": "activation lists 2 activations for 3 layers",
    "--activation foo": "'foo'",
    "--layout in_out": "they fit when every matrix is transposed",
    "--layers 2:3 --from-inputs --array x": "--array chooses",
    "--names W0,b9": "names has 'b9'",
    "--whole-network --n-components 3": "--n-components has no meaning with --whole-network",
    "--whole-network --rotate-output tied": "--rotate-output tied has no meaning with",
    "--whole-network --layers 1:2 --from-inputs": "no hidden activations",
    "--whole-network --coordinates functional": "write criterion='log'",
    "--quiet --verbose": "not allowed with",
    "--report no/such/r.html": "--report 'no/such/r.html': the folder 'no/such' does not exist",
    "--report a_folder.npz": "--report 'a_folder.npz' is a folder",
    "--report out.npz": "--report 'out.npz' is -o too",
    "--report inputs.npy --force": "--report 'inputs.npy' is ACTIVATIONS too",
    "--network rotated.pt": "--network 'rotated.pt' must end in .npz or .safetensors",
    "--network ./digits.npz --force": "--network 'digits.npz' is WEIGHTS too",
    "--held-out two.npy --report two.npy --force": "--report 'two.npy' is --held-out too",
}
BAD_FILES = {
    ("missing.npz", "inputs.npy"): "path='missing.npz' does not exist",
    ("inputs.npy", "inputs.npy"): "write a file that ends in",
    ("a_folder.npz", "inputs.npy"): "'a_folder.npz'",
    ("text.npz", "inputs.npy"): "is not an .npz file",
    ("pickled.npz", "inputs.npy"): "without pickle",
    ("unchained.npz", "inputs.npy"): "weights do not chain",
    ("digits.npz", "missing.npy"): "path='missing.npy' does not exist",
    ("digits.npz", "inputs.csv"): "ACTIVATIONS 'inputs.csv' must end in .npy or .npz",
    ("digits.npz", "a_folder.npz"): "is a directory",
    ("digits.npz", "text.npy"): "ACTIVATIONS 'text.npy' is no .npy file, is damaged",
    ("digits.npz", "text.npz"): "'text.npz'",
    ("digits.npz", "empty.npy"): "ACTIVATIONS 'empty.npy' is no .npy file, is damaged",
    ("digits.npz", "pickled.npy"): "ACTIVATIONS 'pickled.npy' is no .npy file, is damaged, or",
    ("digits.npz", "pickled.npz"): "without pickle",
    ("digits.npz", "several.npz"): "holds 'a', 'b'; choose one with --array",
    ("digits.npz", "none.npz"): "none.npz' holds no array",
    ("digits.npz", "narrow.npy"): "has 10 features, but layer 0 reads 64 (the layers read 64, 64,",
    ("digits.npz", "flat.npy"): "ACTIVATIONS has 1 dimension(s)",
    ("digits.npz", "nan.npy"): "ACTIVATIONS contains NaN",
    ("digits.npz", "text_array.npy"): "ACTIVATIONS has dtype <U1",
    ("digits.npz", "complex.npy"): "ACTIVATIONS has dtype complex128",
    ("digits.npz", "two.npy"): "ACTIVATIONS has 2 rows, of which 1 are held out",
    ("digits.npz", "no_rows.npy"): "ACTIVATIONS has 0 rows",
}


@pytest.fixture
def no_search(folder, monkeypatch):
    """Bad files in a folder, and a search that must not begin."""
    save_bad_files()

    def search(*arguments, **options):
        raise AssertionError("the search began")

    monkeypatch.setattr("jacrot._estimator.solve", search)
    return folder


def assert_refused(status, message, folder, before, capsys):
    out, err = capsys.readouterr()
    assert status == 2, err
    assert out == ""
    assert err.startswith("jacrot: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert files(folder) == before


@pytest.mark.parametrize("options", BAD)
def test_bad_options(options, no_search, capsys):
    before = files(no_search)
    arguments = ["fit", "digits.npz", "inputs.npy", "-o", "out.npz", *options.split()]
    assert_refused(main(arguments), BAD[options], no_search, before, capsys)


@pytest.mark.parametrize("names", BAD_FILES)
def test_bad_files(names, no_search, capsys):
    before = files(no_search)
    weights, activations = names
    status = main(["fit", weights, activations, "-o", "out.npz"])
    assert_refused(status, BAD_FILES[names], no_search, before, capsys)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("out", "-o 'out' must end in .npz or .safetensors"),
        ("out.NPZ", "must end in .npz or .safetensors"),
        ("a_folder.npz", "is a folder"),
        ("no/out.npz", "the folder 'no' does not exist"),
        ("inputs.npy/out.npz", "the folder 'inputs.npy' does not exist"),
        ("digits.npz", "-o 'digits.npz' is WEIGHTS too"),
    ],
)
def test_bad_outputs(out, message, no_search, capsys):
    before = files(no_search)
    status = main(["fit", "digits.npz", "inputs.npy", "--force", "-o", out])
    assert_refused(status, message, no_search, before, capsys)


def test_a_folder_that_is_not_writable(no_search, monkeypatch, capsys):
    # The rights of a folder do not bind every user, so the answer of the system is given here.
    before = files(no_search)
    monkeypatch.setattr("os.access", lambda *arguments: False)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "out.npz"])
    assert_refused(status, "the folder '.' is not writable", no_search, before, capsys)


def test_a_missing_package_is_named(no_search, monkeypatch, capsys):
    before = files(no_search)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "out.safetensors"])
    message = "-o 'out.safetensors' needs safetensors, which is not installed: pip install"
    assert_refused(status, message, no_search, before, capsys)


def test_functions_are_refused(no_search, monkeypatch, capsys):
    # No reader gives one today.
    before = files(no_search)
    network = Network([Function(lambda x: x**2)])
    monkeypatch.setattr("jacrot.cli.load", lambda *arguments: network)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "out.npz"])
    assert_refused(status, "holds a function", no_search, before, capsys)


def npy(shape, descr="<f8", data=bytes(64)):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "shape", [(2**40, 8), (2**62, 4), (2**32, 2**32), (2**63,), (10**30, 64), (-1, 64), (3, 64)]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_size_that_is_only_declared_is_not_believed(shape, suffix, no_search, capsys):
    path = Path(f"huge{suffix}")
    path.write_bytes(npy(shape))
    if suffix == ".npz":
        with zipfile.ZipFile("made.npz", "w") as file:
            file.write(path, "huge.npy")
        Path("made.npz").rename(path)
    before = files(no_search)
    status = main(["fit", "digits.npz", str(path), "-o", "out.npz"])
    assert_refused(status, "damaged", no_search, before, capsys)


@pytest.mark.parametrize("n_bytes", [3, 20, 127, 5000])
def test_truncated_activations(n_bytes, no_search, capsys):
    content = Path("inputs.npy").read_bytes()
    Path("inputs.npy").write_bytes(content[:n_bytes])
    before = files(no_search)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "out.npz"])
    assert_refused(status, "damaged", no_search, before, capsys)


def test_names_cannot_steer_a_terminal(folder, capsys):
    name = "a\x1b[2J\nb.npz"
    assert main(["fit", name, "inputs.npy", "-o", "out.npz"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_ctrl_c_keeps_the_best_so_far(folder, monkeypatch, capsys):
    interrupting(monkeypatch, 10)
    monkeypatch.setattr("jacrot.cli.null_baseline", None)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "o.npz", *MIDDLE, "--report", "r.html"])
    assert status == 130
    out, err = capsys.readouterr()
    assert "interrupted: the rotation that was written is the best found by then." in err
    assert "written: o.npz, r.html" in out
    found = JacobianSparsityRotation.load("o.npz")
    assert not found.converged_
    assert found.sparsity_ > found.sparsity_before_
    report = Text("r.html").words
    assert "the search was interrupted" in report
    assert "No null baseline was fitted" in report


@pytest.mark.parametrize("stage", ["null_baseline", "axis_stability"])
def test_ctrl_c_after_the_search_leaves_the_rest_out(stage, folder, monkeypatch, capsys):
    original = getattr(importlib.import_module("jacrot.cli"), stage)

    def interrupted(*arguments, **options):
        # In the middle of a fit, of which nothing may be kept.
        interrupting(monkeypatch, 3)
        return original(*arguments, **options)

    monkeypatch.setattr(f"jacrot.cli.{stage}", interrupted)
    assert fit(*MIDDLE, "--report", "r.html", "--nulls", "2", "--n-init", "2") == 130
    out, err = capsys.readouterr()
    assert "written: out.npz, r.html" in out
    assert "interrupted: the rotation that was written is whole, the rest left out." in err
    report = Text("r.html").words
    assert "interrupted: what had not been computed by then is left out" in report
    assert ("No null baseline was fitted" in report) == (stage == "null_baseline")
    assert "That was not asked" in report
    found = JacobianSparsityRotation.load("out.npz")
    assert found.rotation_.shape == (64, 64)
    assert found.on_interrupt == "keep"


def test_ctrl_c_before_there_is_a_rotation(folder, monkeypatch, capsys):
    def frame(*arguments):
        raise KeyboardInterrupt

    before = files(folder)
    monkeypatch.setattr("jacrot.rotation.Frame", frame)
    assert fit(*MIDDLE) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", "jacrot: interrupted.\n")
    assert files(folder) == before


def test_what_was_written_before_an_error_is_said(folder, monkeypatch, capsys):
    def failing(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("jacrot.cli.write_report", failing)
    assert fit(*MIDDLE, "--report", "r.html", "--nulls", "0") == 2
    out, err = capsys.readouterr()
    assert out.endswith("written: out.npz\n")
    assert err.endswith("jacrot: error: disk full\n")


def info(path, capsys, *options):
    assert main(["info", str(path), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_info_of_plain_arrays(folder, capsys):
    out = info("digits.npz", capsys)
    assert "W1: (64, 64) float32" in out
    assert "network: Network(64 → 64 → 64 → 10; relu, relu, relu)" in out
    assert "--activation relu,relu,identity" in out
    found = json.loads(info("digits.npz", capsys, "--json"))
    assert found["arrays"]["b2"] == {"shape": [10], "dtype": "float32"}
    # The command that it proposes is one that works.
    command = found["commands"][0].split()
    assert command[:2] == ["jacrot", "fit"]
    command = [word.replace("INPUTS", "inputs") for word in command[1:]]
    assert main([*command, *SHORT, "--nulls", "0"]) == 0
    assert Path("report.html").exists()


def test_info_of_arrays_stored_the_other_way_round(folder, capsys):
    rng = np.random.default_rng(0)
    np.savez("a b.npz", W0=rng.normal(size=(5, 4)), W1=rng.normal(size=(4, 3)))
    found = json.loads(info("a b.npz", capsys, "--json"))
    assert found["network"] == "Network(5 → 4 → 3; relu, relu)"
    assert len(found["commands"]) == 2
    for command in found["commands"]:
        assert command.startswith("jacrot fit 'a b.npz' INPUTS.npy ")
        assert " --layout in_out " in command


def test_info_of_a_single_matrix(folder, capsys):
    np.savez("one.npz", W=np.ones((3, 4)))
    (command,) = json.loads(info("one.npz", capsys, "--json"))["commands"]
    assert command.startswith("jacrot fit one.npz ACTIVATIONS.npy --activation identity -o")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".onnx"])
def test_info_of_other_formats(suffix, folder, capsys):
    path = f"model{suffix}"
    arrays = {"0.weight": np.ones((3, 4), np.float32), "0.bias": np.ones(3, np.float32)}
    if suffix == ".safetensors":
        framework("safetensors.numpy").save_file(arrays, path)
    elif suffix == ".pt":
        torch = framework("torch")
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)
    else:
        framework("onnx")
        from jacrot.writers import to_onnx

        to_onnx(random_network([4, 3], ["tanh"]), path)
    found = json.loads(info(path, capsys, "--json"))
    assert found["format"] == suffix
    assert [3, 4] in [array["shape"] for array in found["arrays"].values()] or (
        [4, 3] in [array["shape"] for array in found["arrays"].values()]
    )
    assert found["network"].startswith("Network(4 → 3; ")
    assert ("--activation" in found["commands"][0]) == (suffix != ".onnx")
    assert "Network(4 → 3; " in info(path, capsys)


def test_info_of_what_is_no_network(folder, capsys):
    np.savez("odd.npz", a=np.ones((2, 3)), b=np.ones((5, 7)), c=np.ones(()))
    out = info("odd.npz", capsys)
    assert "a: (2, 3) float64" in out
    assert "c: () float64" in out
    assert "problem: " in out
    assert "--names" in out


def test_info_of_results(folder, capsys):
    assert fit(*MIDDLE, "--network", "rotated.npz") == 0
    capsys.readouterr()
    estimator = JacobianSparsityRotation.load("out.npz")
    for path in ("out.npz", "rotated.npz"):
        out = info(path, capsys)
        provenance = json.loads(info(path, capsys, "--json"))["provenance"]
        assert provenance == estimator.provenance_
        assert estimator.provenance_["data"][0]["sha256"] in out
        assert f"jacrot: {__version__}" in out
        assert "seed: 0" in out
        assert f"sparsity: {estimator.sparsity_}" in out
        assert "shape: [120, 64]" in out
    assert "format: jacrot.Network/1" in out
    assert "network: Network(64 → 64; relu)" in out


def test_info_of_a_whole_network_as_safetensors(folder, capsys):
    framework("safetensors")
    assert fit("--whole-network", *ACTIVATION, out="out.safetensors") == 0
    capsys.readouterr()
    found = json.loads(info("out.safetensors", capsys, "--json"))
    assert found["format"] == "jacrot.NetworkRotation/1"
    assert found["provenance"]["estimator"] == "NetworkRotation"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npz", None, "does not exist"),
        ("garbage.npz", b"garbage", "garbage.npz"),
        ("garbage.safetensors", b"garbage" * 10, "garbage.safetensors"),
        ("garbage.pt", b"garbage", "garbage.pt"),
        ("garbage.onnx", b"garbage", "garbage.onnx"),
        ("weights.h5", b"", "has the suffix '.h5'; write a file that ends in one of .npz"),
    ],
)
def test_info_of_garbage(name, content, message, folder, capsys):
    package = {".safetensors": "safetensors", ".pt": "torch", ".onnx": "onnx"}.get(name[7:])
    if package:
        framework(package)
    if content is not None:
        Path(name).write_bytes(content)
    assert main(["info", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jacrot: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "header", ["[]", "{", "3", "{}", '{"format": 3}', '{"format": "jacrot.Network/1"}']
)
def test_info_of_foreign_headers(header, folder, capsys):
    np.savez("odd.npz", __jacrot__=np.array(header))
    assert main(["info", "odd.npz"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jacrot: error: ")
    assert "odd.npz" in err
    assert err.count("\n") == 1


def test_names_in_files_cannot_steer_a_terminal(folder, capsys):
    np.savez("odd.npz", **{"W\x1b[2J\nfake: line": np.ones((2, 3))})
    out = info("odd.npz", capsys)
    assert "\x1b" not in out
    assert "W\\x1b[2J\\nfake: line: (2, 3) float64" in out


def test_python_dash_m(folder):
    command = [sys.executable, "-m", "jacrot", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: jacrot ")
    assert "fit" in result.stdout
    assert result.stderr == ""


def test_a_reader_that_has_enough(folder):
    command = [sys.executable, "-m", "jacrot", "info", "digits.npz"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["info", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "usage: jacrot" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"jacrot {__version__}\n"


def test_the_command_that_is_installed_is_this_one():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    module, _, name = project["project"]["scripts"]["jacrot"].partition(":")
    assert getattr(importlib.import_module(module), name) is main
