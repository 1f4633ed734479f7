"""Reading files: good ones, and every kind of bad one."""

import numpy as np
import pytest
from builders import random_network

from jacrot import Network
from jacrot.readers import load

NETWORK = random_network([3, 4, 2], ["relu", "identity"])
X = np.random.default_rng(0).normal(size=(5, 3))


def test_plain_arrays_in_either_order_and_layout(tmp_path):
    path = tmp_path / "plain.npz"
    first, second = NETWORK.layers
    np.savez(path, W0=first.weight, W1=second.weight, b0=first.bias, b1=second.bias)
    np.testing.assert_array_equal(load(path, ["relu", "identity"])(X), NETWORK(X))
    np.savez_compressed(path, W0=first.weight.T, b0=first.bias, W1=second.weight.T, b1=second.bias)
    network = load(str(path), ["relu", "identity"], layout="in_out")
    np.testing.assert_array_equal(network(X), NETWORK(X))
    np.testing.assert_array_equal(
        Network(np.load(path), ["relu", "identity"], layout="in_out")(X), NETWORK(X)
    )


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*missing\.npz' does not exist"):
        load(tmp_path / "missing.npz")
    text = tmp_path / "text.npz"
    text.write_text("not a zip file")
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        load(text)


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, W=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read without pickle"):
        load(path)


def test_truncated_file(tmp_path):
    path = tmp_path / "network.npz"
    NETWORK.save(path)
    content = path.read_bytes()
    for n_bytes in (len(content) // 2, len(content) - 10, 30):
        path.write_bytes(content[:n_bytes])
        with pytest.raises(ValueError, match="path="):
            load(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_corrupted_array(tmp_path, save):
    path = tmp_path / "network.npz"
    save(path, W=np.arange(1000.0).reshape(10, 100))
    content = bytearray(path.read_bytes())
    content[300:310] = b"corruption"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


def test_saved_network_knows_its_own_activations(tmp_path):
    path = tmp_path / "network.npz"
    NETWORK.save(path)
    with pytest.raises(ValueError, match="leave activation and layout out"):
        load(path, activation="gelu")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "is not a network that Network.save wrote"),
        ("{", "is not a network that Network.save wrote"),
        ('{"format": "jacrot.Network/1"}', "KeyError"),
        ('{"format": "jacrot.Network/1", "layers": ["relu"]}', "TypeError"),
        ('{"format": "jacrot.Network/1", "layers": [{"layer": "Function"}]}', "KeyError"),
        ('{"format": "jacrot.Network/1", "layers": [{"layer": "os", "arguments": {}}]}', "'os'"),
        (
            '{"format": "jacrot.Network/1", "layers": [{"layer": "Dense", "arguments": []}]}',
            "AttributeError",
        ),
        (
            '{"format": "jacrot.Network/1", '
            '"layers": [{"layer": "Dense", "arguments": {"weight": {"array": "W"}}}]}',
            "'W'",
        ),
        ('{"format": "jacrot.Network/9", "layers": []}', "reads 'jacrot.Network/1'"),
    ],
)
def test_foreign_header(tmp_path, header, message):
    path = tmp_path / "network.npz"
    np.savez(path, __jacrot__=np.array(header))
    with pytest.raises(ValueError, match=message):
        load(path)
