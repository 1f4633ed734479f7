"""``jacrot info`` describes files."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import framework, random_network
from command import ACTIVATION, MIDDLE, SHORT, fit

from jacrot import JacobianSparsityRotation, __version__
from jacrot.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")


def info(path, capsys, *options):
    assert main(["info", str(path), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_info_of_plain_arrays(digits_folder, capsys):
    out = info("digits.npz", capsys)
    assert "W1: (64, 64) float32" in out
    assert "network: Network(64 → 64 → 64 → 10; relu, relu, identity)" in out
    assert "--activation relu,relu,identity" in out
    found = json.loads(info("digits.npz", capsys, "--json"))
    assert found["arrays"]["b2"] == {"shape": [10], "dtype": "float32"}
    # The command that it proposes is one that works.
    command = found["commands"][0].split()
    assert command[:2] == ["jacrot", "fit"]
    command = [word.replace("INPUTS", "inputs") for word in command[1:]]
    assert main([*command, *SHORT, "--nulls", "0"]) == 0
    assert Path("report.html").exists()


def test_info_of_arrays_stored_the_other_way_round(digits_folder, capsys):
    rng = np.random.default_rng(0)
    np.savez("a b.npz", W0=rng.normal(size=(5, 4)), W1=rng.normal(size=(4, 3)))
    found = json.loads(info("a b.npz", capsys, "--json"))
    assert found["network"] == "Network(5 → 4 → 3; relu, identity)"
    assert len(found["commands"]) == 2
    for command in found["commands"]:
        assert command.startswith("jacrot fit 'a b.npz' INPUTS.npy ")
        assert " --layout in_out " in command


def test_info_of_a_single_matrix(digits_folder, capsys):
    np.savez("one.npz", W=np.ones((3, 4)))
    (command,) = json.loads(info("one.npz", capsys, "--json"))["commands"]
    assert command.startswith("jacrot fit one.npz ACTIVATIONS.npy --activation identity -o")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".onnx"])
def test_info_of_other_formats(suffix, digits_folder, capsys):
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


def test_info_of_arrays_that_are_not_a_network(digits_folder, capsys):
    np.savez("odd.npz", a=np.ones((2, 3)), b=np.ones((5, 7)), c=np.ones(()))
    out = info("odd.npz", capsys)
    assert "a: (2, 3) float64" in out
    assert "c: () float64" in out
    assert "problem: " in out
    assert "--names" in out


def test_info_of_results(digits_folder, capsys):
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
    assert "network: Network(64 → 64; relu; rotated at site 0)" in out


def test_info_of_a_whole_network_as_safetensors(digits_folder, capsys):
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
        ("weights.h5", b"", "has the suffix '.h5'; pass a file that ends in one of .npz"),
    ],
)
def test_info_of_garbage(name, content, message, digits_folder, capsys):
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
def test_info_of_invalid_headers(header, digits_folder, capsys):
    np.savez("odd.npz", __jacrot__=np.array(header))
    assert main(["info", "odd.npz"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jacrot: error: ")
    assert "odd.npz" in err
    assert err.count("\n") == 1


def test_names_in_files_cannot_steer_a_terminal(digits_folder, capsys):
    np.savez("odd.npz", **{"W\x1b[2J\nfake: line": np.ones((2, 3))})
    out = info("odd.npz", capsys)
    assert "\x1b" not in out
    assert "W\\x1b[2J\\nfake: line: (2, 3) float64" in out
