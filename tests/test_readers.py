"""Reading files: good ones, and every kind of bad one."""

import numpy as np
import pytest
from builders import framework, random_network

from jacrot import Network
from jacrot.readers import list_arrays, load

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
    with pytest.raises(ValueError, match="do not pass activation, layout or names"):
        load(path, activation="gelu")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("[]", "was changed after save wrote it"),
        ("{", "was changed after save wrote it"),
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
        (
            '{"format": "jacrot.Network/9", "layers": []}',
            "this version reads has 'jacrot.Network/1'",
        ),
    ],
)
def test_foreign_header(tmp_path, header, message):
    path = tmp_path / "network.npz"
    np.savez(path, __jacrot__=np.array(header))
    with pytest.raises(ValueError, match=message):
        load(path)


FIRST, SECOND = NETWORK.layers
ARRAYS = {
    "0.weight": FIRST.weight,
    "0.bias": FIRST.bias,
    "10.weight": SECOND.weight,
    "10.bias": SECOND.bias,
}
LISTED = {"0.weight": (4, 3), "0.bias": (4,), "10.weight": (2, 4), "10.bias": (2,)}


def save_npz(path, arrays):
    np.savez(path, **arrays)


def save_safetensors(path, arrays):
    framework("safetensors.numpy").save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, path
    )


def save_pt(path, arrays):
    torch = framework("torch")
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)


FORMATS = pytest.mark.parametrize(
    ("suffix", "save"),
    [(".npz", save_npz), (".safetensors", save_safetensors), (".pt", save_pt), (".PTH", save_pt)],
)


@FORMATS
def test_every_format(tmp_path, suffix, save):
    path = tmp_path / f"network{suffix}"
    save(path, ARRAYS)
    activations = ["relu", "identity"]
    np.testing.assert_array_equal(load(path, activations)(X), NETWORK(X))
    listed = list_arrays(path)
    assert {name: info.shape for name, info in listed.items()} == LISTED
    assert {info.dtype for info in listed.values()} == {"float64"}
    part = load(str(path), "identity", names=["10.weight", "10.bias"])
    np.testing.assert_array_equal(part(FIRST(X)), NETWORK(X))
    save(path, {name: array.T for name, array in ARRAYS.items()})
    np.testing.assert_array_equal(load(path, activations, "in_out")(X), NETWORK(X))


@FORMATS
def test_names_that_are_wrong(tmp_path, suffix, save):
    path = tmp_path / f"network{suffix}"
    save(path, ARRAYS)
    with pytest.raises(ValueError, match=r"names has '10\.wieght'.*are '10\.weight', "):
        load(path, names=["10.wieght"])
    with pytest.raises(ValueError, match="lists an array twice"):
        load(path, names=["10.weight", "10.weight"])
    with pytest.raises(ValueError, match="is one string; pass a list"):
        load(path, names="10.weight")


@FORMATS
def test_damaged_and_missing_files_of_every_format(tmp_path, suffix, save):
    path = tmp_path / f"network{suffix}"
    for read in (load, list_arrays):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read(path)
    save(path, ARRAYS)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a file of this kind"):
        path.write_bytes(damaged)
        for read in (load, list_arrays):
            with pytest.raises(ValueError, match="path="):
                read(path)


def test_unknown_suffix(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"")
    for read in (load, list_arrays):
        with pytest.raises(ValueError, match=r"the suffix '\.h5'; pass .*\.npz, \.safetensors"):
            read(path)


def test_parts_of_a_saved_network_are_refused(tmp_path):
    path = tmp_path / "network.npz"
    NETWORK.save(path)
    listed = list_arrays(path)
    assert (4, 3) in {info.shape for info in listed.values()}
    with pytest.raises(ValueError, match="do not pass activation, layout or names"):
        load(path, names=list(listed)[:1])


def test_npz_lists_without_reading(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, a=np.array([{}], dtype=object), b=np.zeros((2, 0), np.int8))
    assert list_arrays(path) == {"a": ((1,), "object"), "b": ((2, 0), "int8")}


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["W1", "b10", "W10", "b1"], ["W1", "b1", "W10", "b10"]),
        (["h.2.b", "h.2.w", "h.1.w"], ["h.1.w", "h.2.w", "h.2.b"]),
        (["kernel", "bias"], ["kernel", "bias"]),
    ],
)
def test_order_of_safetensors(tmp_path, names, order):
    # The format itself sorts its arrays by name.
    path = tmp_path / "sorted.safetensors"
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(size=3 if n[0] == "b" or n[-1] == "b" else (3, 3)) for n in names}
    save_safetensors(path, arrays)
    network = Network({name: arrays[name] for name in order})
    np.testing.assert_array_equal(load(path)(X), network(X))
    np.testing.assert_array_equal(load(path, names=order)(X), network(X))


@pytest.mark.parametrize(
    "names",
    [["first", "second"], ["a.1", "a.2", "b.3"], ["a.1", "a.1.b", "a.2"], ["a.1", "bias.2"]],
)
def test_order_of_safetensors_that_is_unknown(tmp_path, names):
    path = tmp_path / "sorted.safetensors"
    save_safetensors(path, {name: np.ones(3 if "bias" in name else (3, 3)) for name in names})
    with pytest.raises(
        ValueError, match=r"does not determine the order of dense layers; pass names="
    ):
        load(path)


def test_precisions_of_safetensors(tmp_path):
    torch = framework("torch")
    path = tmp_path / "halves.safetensors"
    weight = torch.randn(3, 3)
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        tensors = {"0.weight": weight.to(dtype), "0.bias": torch.ones(3)}
        framework("safetensors.torch").save_file(tensors, path)
        assert list_arrays(path)["0.weight"].dtype == str(dtype).removeprefix("torch.")
        [layer] = load(path)
        assert layer.weight.dtype == ("float64" if dtype == torch.float64 else "float32")
        np.testing.assert_array_equal(layer.weight, weight.to(dtype).double())
    tensors = {"0.weight": weight.to(torch.float8_e5m2)}
    framework("safetensors.torch").save_file(tensors, path)
    with pytest.raises(ValueError, match="has dtype f8_e5m2, which NumPy does not have"):
        load(path)


def test_checkpoints(tmp_path):
    torch = framework("torch")
    path = tmp_path / "checkpoint.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    torch.save({"epoch": 3, "model": model.state_dict()}, path)
    listed = list_arrays(path)
    assert listed["model.0.weight"] == ((4, 3), "float32")
    assert listed["model.1.num_batches_tracked"] == ((), "int64")
    with pytest.raises(ValueError, match=r"'model\.1\.running_mean'.* Or pass names="):
        load(path)
    [layer] = load(path, names=["model.0.weight", "model.0.bias"])
    np.testing.assert_array_equal(layer.weight, model[0].weight.detach())
    torch.save({"model": model[:1].state_dict()}, path)
    assert repr(load(path, "tanh")) == "Network(3 → 4; tanh)"


def test_pickled_modules_are_refused(tmp_path):
    torch = framework("torch")
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    for read in (load, list_arrays):
        with pytest.raises(ValueError, match=r"other objects than tensors.*state_dict\(\)"):
            read(path)
    torch.save(torch.ones(2, 2), path)
    with pytest.raises(ValueError, match="contains a Tensor, not a state dict"):
        load(path)


def test_onnx_files(tmp_path):
    onnx = framework("onnx")
    path = tmp_path / "network.onnx"
    tensors = [onnx.numpy_helper.from_array(array.T, name) for name, array in ARRAYS.items()]
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["a"]),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("Gemm", ["b", "10.weight", "10.bias"], ["y"]),
    ]
    double = onnx.TensorProto.DOUBLE
    ends = [
        onnx.helper.make_tensor_value_info(name, double, ["n", width])
        for name, width in (("x", 3), ("y", 2))
    ]
    graph = onnx.helper.make_graph(nodes, "mlp", ends[:1], ends[1:], tensors)
    onnx.save(onnx.helper.make_model(graph), path)
    assert list_arrays(path)["0.weight"] == ((3, 4), "float64")
    np.testing.assert_allclose(load(path)(X), NETWORK(X))
    with pytest.raises(ValueError, match="do not pass activation, layout or names"):
        load(path, "gelu")
    path.write_bytes(path.read_bytes()[:-30])
    for read in (load, list_arrays):
        with pytest.raises(ValueError, match="path="):
            read(path)
