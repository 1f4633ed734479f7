"""Inputs are read once, and hashed as they are read; assumed activations come with a warning."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from builders import framework
from command import INPUTS, MIDDLE, NETWORK, OPTIONS, Text, files, fit, halves

import jacrot._estimators.base
from jacrot import JacobianSparsityRotation, Network
from jacrot._cli.arrays import _memory_limit, read_array
from jacrot.cli import main
from jacrot.provenance import fingerprint
from jacrot.readers import load
from jacrot.writers import to_onnx

pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")
ASSUMED = "does not say which activations follow its layers; taken were relu, relu, identity"


def changing(monkeypatch, change):
    """Change the files when the search begins."""
    solve = jacrot._estimators.base.solve

    def changed(*arguments, **options):
        change()
        return solve(*arguments, **options)

    monkeypatch.setattr("jacrot._estimators.base.solve", changed)


def truncate():
    for name in ("digits.npz", "inputs.npy", "test.npy"):
        os.truncate(name, 100)


def overwrite():
    for name in ("digits.npz", "inputs.npy", "test.npy"):
        with open(name, "r+b") as file:
            file.seek(200)
            file.write(bytes(5000))


def remove():
    for name in ("digits.npz", "inputs.npy", "test.npy"):
        Path(name).unlink()


@pytest.mark.parametrize("change", [truncate, overwrite, remove])
def test_files_that_change_during_the_fit(change, digits_folder, monkeypatch):
    X, X_test = halves()
    np.save("inputs.npy", X.astype(np.float64))
    np.save("test.npy", X_test.astype(np.float64))
    hashes = {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in ("digits.npz", "inputs.npy", "test.npy")
    }
    changing(monkeypatch, change)
    report = ["--report", "r.html", "--nulls", "0"] if change is overwrite else []
    assert fit(*MIDDLE, "--held-out", "test.npy", *report) == 0
    found = JacobianSparsityRotation.load("out.npz")
    hidden = NETWORK[:1](X.astype(np.float64))
    monkeypatch.undo()
    expected = JacobianSparsityRotation(**OPTIONS).fit(NETWORK[1:2], hidden)
    np.testing.assert_array_equal(found.rotation_, expected.rotation_)
    assert found.provenance_["data"][0]["sha256"] == fingerprint(hidden)
    if not report:
        return
    words = Text(digits_folder / "r.html").words
    for name, digest in hashes.items():
        assert f"file {name}{digest}" in words


@pytest.mark.parametrize("names", [("inputs.npy",), ("inputs.npz",)])
def test_a_file_that_changes_while_it_is_read(names, digits_folder, monkeypatch, capsys):
    np.savez("inputs.npz", INPUTS)

    def loaded(path, *arguments):
        network = load(path, *arguments)
        with open(path, "ab") as file:
            file.write(b"more")
        return network

    monkeypatch.setattr("jacrot._cli.inputs.load", loaded)
    before = files(digits_folder)
    assert fit(*MIDDLE, activations=names[0]) == 2
    message = "WEIGHTS 'digits.npz' changed while it was read; run again when nothing writes to it."
    assert capsys.readouterr().err == f"jacrot: error: {message}\n"
    assert files(digits_folder) == before


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<i4", ">i2", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_are_read_as_numpy_reads_them(dtype, order, suffix, tmp_path, rng):
    array = np.asarray(rng.integers(0, 2, size=(7, 3, 2)), dtype=dtype, order=order)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        np.savez_compressed(path, array)
    found, read = read_array(path, None, "ACTIVATIONS")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == (np.float32 if dtype in ("<f4", "<f2") else np.float64)
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    # Nothing is mapped into memory, which another process could change.
    base = found
    while base is not None:
        assert not isinstance(base, np.memmap)
        base = getattr(base, "base", None)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_more_than_the_memory(suffix, digits_folder, monkeypatch, capsys):
    np.savez("inputs.npz", INPUTS)
    n_bytes = INPUTS.nbytes
    monkeypatch.setattr("jacrot._cli.arrays._memory_limit", lambda: n_bytes - 1)
    assert fit(*MIDDLE, activations=f"inputs{suffix}") == 2
    err = capsys.readouterr().err
    assert err == (
        f"jacrot: error: ACTIVATIONS 'inputs{suffix}' has shape (150, 64), which takes {n_bytes:,} "
        f"bytes of memory, and there are {n_bytes - 1:,}; pass fewer rows.\n"
    )
    monkeypatch.setattr("jacrot._cli.arrays._memory_limit", lambda: n_bytes)
    assert fit(*MIDDLE, activations=f"inputs{suffix}") == 0


def test_the_memory_of_a_machine():
    assert 2**20 < _memory_limit() <= float("inf")


@pytest.mark.parametrize("name", ["inputs.npy", "./inputs.npy", "copy.npz", "link.npy"])
def test_held_out_rows_are_others(name, digits_folder, capsys):
    np.savez("copy.npz", INPUTS)
    os.symlink("inputs.npy", "link.npy")
    assert fit(*MIDDLE, "--held-out", name) == 2
    err = capsys.readouterr().err
    assert err.startswith("jacrot: error: --held-out holds the rows of ACTIVATIONS")
    assert err.count("\n") == 1


def test_assumed_activations_leave_logits_alone(digits_folder, capsys):
    assert fit("--from-inputs", "--layers", "1:", "--network", "rotated.npz") == 0
    err = capsys.readouterr().err
    assert err.count(ASSUMED) == 1
    found = JacobianSparsityRotation.load("out.npz")
    before, rest = NETWORK[:1], NETWORK[1:]
    X, X_test = (before(part) for part in halves())
    expected = JacobianSparsityRotation(**OPTIONS).fit(rest, X)
    np.testing.assert_array_equal(found.rotation_, expected.rotation_)
    outputs = load("rotated.npz")(found.transform(X_test))
    np.testing.assert_allclose(outputs, rest(X_test), atol=1e-10)
    assert outputs.min() < 0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--activation", "relu"], ["relu"] * 3),
        (["--activation", "tanh"], ["tanh"] * 3),
        (["--activation", "relu,tanh,relu"], ["relu", "tanh", "relu"]),
    ],
)
def test_activations_that_are_asked_for(options, names, digits_folder, capsys):
    # One name follows the last layer too.
    assert fit("--whole-network", *options, "--network", "rotated.npz") == 0
    assert ASSUMED not in capsys.readouterr().err
    found = [layer.activation_name for layer in load("rotated.npz").layers]
    assert found == names


def test_files_that_know_their_activations(digits_folder, capsys):
    Network([layer.weight for layer in NETWORK.layers], "tanh").save("known.npz")
    assert fit("--layers", "2:3", "--from-inputs", weights="known.npz") == 0
    assert "activations follow" not in capsys.readouterr().err
    assert fit("--layers", "2:3", "--activation", "gelu", weights="known.npz", out="o.npz") == 2
    assert "contains its layers and activations" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".onnx"])
def test_other_formats_without_activations(suffix, digits_folder, capsys):
    arrays = {
        f"{number}.{name}": np.array(getattr(layer, name))
        for number, layer in enumerate(NETWORK.layers)
        for name in ("weight", "bias")
    }
    path = f"digits{suffix}"
    if suffix == ".safetensors":
        framework("safetensors.numpy").save_file(arrays, path)
    elif suffix == ".pt":
        torch = framework("torch")
        torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)
    else:
        framework("onnx")
        to_onnx(Network([layer.weight for layer in NETWORK.layers], "tanh"), path)
    assert fit("--layers", "2:", "--from-inputs", "--network", "r.npz", weights=path) == 0
    known = suffix == ".onnx"
    assert (ASSUMED in capsys.readouterr().err) != known
    (layer,) = load("r.npz").layers
    assert layer.activation_name == ("tanh" if known else "identity")


def test_the_report_has_the_assumption(digits_folder):
    assert fit("--layers", "1:2", "--from-inputs", "--report", "r.html", "--nulls", "0") == 0
    assert ASSUMED in Text("r.html").words


def test_quiet_prints_the_assumption_too(digits_folder, capsys):
    assert fit("--layers", "1:2", "--from-inputs", "--quiet") == 0
    assert ASSUMED in capsys.readouterr().err


def test_activations_that_name_nothing(digits_folder, capsys):
    assert main(["fit", "digits.npz", "inputs.npy", "-o", "o.npz", "--activation", ","]) == 2
    assert "argument --activation: ',' names nothing" in capsys.readouterr().err
