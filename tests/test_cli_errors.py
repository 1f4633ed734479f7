"""Errors of the command line are one line, before the search."""

import errno
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command import INPUTS, files

from jacrot import Network
from jacrot.cli import main
from jacrot.layers import Function

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
    "--layers 1": "argument --layers: '1' is not START:STOP, such as 1:2, 1: or :2",
    "--layers 2:1": "--layers 2:1 is not a part of the 3 layers",
    "--layers 1:4": "pass 0 <= START < STOP <= 3",
    "--layers 5:": "--layers 5: is not a part",
    "--held-out 1": "1 is neither a share between 0 and 1 nor a file",
    "--held-out nan": "nan is neither a share between 0 and 1 nor a file",
    "--held-out missing.npy": "'missing.npy' does not exist",
    "--held-out narrow.npy": "--held-out has 10 features, but layer 0 reads 64",
    "--held-out no_rows.npy": "--held-out has shape (0, 64)",
    "--held-out sequences.npy": "--held-out has shape (75, 2, 64)",
    "--held-out 0.99": "has 150 rows, of which 149 are held out; pass at least 2 to fit",
    "--n-components 65": "n_components=65 must be at most n_features=64",
    "--n-components 1.5": "n_components",
    "--n-components x": "argument --n-components: 'x' is not a number",
    "--n-init 0": "n_init",
    "--max-iter 0": "max_iter",
    "--tol -1": "tol",
    "--tol x": "argument --tol: invalid float value: 'x'",
    "--seed -1": "-1 is not an integer from 0 to 4294967295",
    "--seed 4294967296": "is not an integer from 0",
    "--seed 0.5": "0.5 is not an integer from 0",
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
    "--whole-network --coordinates functional": "pass criterion='log'",
    "--quiet --verbose": "--verbose has no meaning with --quiet",
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
    ("inputs.npy", "inputs.npy"): "pass a file that ends in",
    ("a_folder.npz", "inputs.npy"): "'a_folder.npz'",
    ("text.npz", "inputs.npy"): "is not an .npz file",
    ("pickled.npz", "inputs.npy"): "without pickle",
    ("unchained.npz", "inputs.npy"): "weights do not chain",
    ("digits.npz", "missing.npy"): "path='missing.npy' does not exist",
    ("digits.npz", "inputs.csv"): "ACTIVATIONS 'inputs.csv' must end in .npy or .npz",
    ("digits.npz", "a_folder.npz"): "is a directory",
    ("digits.npz", "text.npy"): "ACTIVATIONS 'text.npy' is not an .npy file, is damaged",
    ("digits.npz", "text.npz"): "'text.npz'",
    ("digits.npz", "empty.npy"): "ACTIVATIONS 'empty.npy' is not an .npy file, is damaged",
    ("digits.npz", "pickled.npy"): "ACTIVATIONS 'pickled.npy' is not an .npy file, is damaged, or",
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
def no_search(digits_folder, monkeypatch):
    """Bad files in a folder, and a search that must not begin."""
    save_bad_files()

    def search(*arguments, **options):
        raise AssertionError("the search began")

    monkeypatch.setattr("jacrot._estimators.base.solve", search)
    return digits_folder


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

    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "out.npz"])
    message = "-o 'out.npz': the folder '.' is not writable (Permission denied)."
    assert_refused(status, message, no_search, before, capsys)


@pytest.mark.parametrize(
    ("package", "options", "message"),
    [
        ("safetensors", "-o out.safetensors", "-o 'out.safetensors' needs safetensors"),
        ("jinja2", "-o out.npz --report r.html", "--report 'r.html' needs jinja2"),
    ],
)
def test_a_missing_package_is_named(package, options, message, no_search, monkeypatch, capsys):
    before = files(no_search)
    monkeypatch.setitem(sys.modules, package, None)
    status = main(["fit", "digits.npz", "inputs.npy", *options.split()])
    extra = {"jinja2": "cli"}.get(package, package)
    message = f"{message}, which is not installed: pip install 'jacrot[{extra}]'"
    assert_refused(status, message, no_search, before, capsys)


def test_functions_are_refused(no_search, monkeypatch, capsys):
    # No reader gives one today.
    before = files(no_search)
    network = Network([Function(lambda x: x**2)])
    monkeypatch.setattr("jacrot._cli.inputs.load", lambda *arguments: network)
    status = main(["fit", "digits.npz", "inputs.npy", "-o", "out.npz", "--activation", "relu"])
    assert_refused(status, "holds a function", no_search, before, capsys)


def npy(shape, descr="<f8", data=bytes(64)):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "shape", [(2**40, 8), (2**62, 4), (2**32, 2**32), (2**63,), (10**30, 64), (-1, 64), (3, 64)]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_declared_sizes_are_checked(shape, suffix, no_search, capsys):
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


def test_names_cannot_steer_a_terminal(digits_folder, capsys):
    name = "a\x1b[2J\nb.npz"
    assert main(["fit", name, "inputs.npy", "-o", "out.npz"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err
