"""Files of which a network is only a part, or more than what is stored under its names."""

import json

import numpy as np
import pytest
from builders import framework

from jacrot.readers import list_arrays, load

torch = framework("torch")
safetensors = framework("safetensors.torch")
nn = torch.nn


def tied_model():
    """Build a model whose first layer computes once more as the third, with a bias of its own."""
    model = nn.Sequential(*[nn.Linear(5, 5) for _ in range(4)])
    model[2].weight = model[0].weight
    model[3] = model[1]
    return model


def check(network, model, x):
    expected = model(torch.as_tensor(x)).detach().numpy()
    np.testing.assert_allclose(network(x), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_tensors(tmp_path, rng, dtype):
    model = tied_model().to(dtype)
    x = rng.normal(size=(3, 5)).astype(np.float32)
    path = tmp_path / "tied.safetensors"
    safetensors.save_model(model, str(path), metadata={"format": "pt", "epoch": "3"})
    model = model.float()
    assert list_arrays(path).keys() == model.state_dict().keys()
    assert list_arrays(path)["3.bias"] == ((5,), str(dtype).removeprefix("torch."))
    check(load(path, "identity"), model, x)
    names = ["2.weight", "2.bias", "0.weight", "0.bias"]
    check(load(path, "identity", names=names), nn.Sequential(model[2], model[0]), x)
    torch.save(model.state_dict(), tmp_path / "tied.pt")
    check(load(tmp_path / "tied.pt", "identity"), model, x)


def shards(folder, model, index="model.safetensors.index.json", pattern="model-0000{}-of-00003"):
    """Save a model layer by layer, and an index of where each is."""
    state, places = model.state_dict(), {}
    metadata = {}
    for i in range(3):
        name = f"{pattern.format(i + 1)}.safetensors"
        part = {key: tensor.clone() for key, tensor in state.items() if key[0] == str(i)}
        part |= {key: state[key].clone() for key in state if i == 1 and key == "3.bias"}
        if i == 2:
            metadata = {"3.weight": "1.weight"}
        safetensors.save_file(part, folder / name, metadata=metadata)
        places |= dict.fromkeys(part, name)
    path = folder / index
    path.write_text(json.dumps({"metadata": {"total_size": 480}, "weight_map": places}))
    return path


@pytest.mark.parametrize(
    "index", ["model.safetensors.index.json", "diffusion.safetensors.index.fp16.json"]
)
def test_index_of_shards(tmp_path, rng, index):
    model = tied_model()
    path = shards(tmp_path, model, index)
    x = rng.normal(size=(3, 5)).astype(np.float32)
    check(load(path, "identity"), model, x)
    assert list_arrays(path).keys() == model.state_dict().keys()
    check(load(path, "identity", names=["3.weight", "3.bias"]), model[3], x)
    part = tmp_path / "model-00002-of-00003.safetensors"
    with pytest.raises(ValueError, match=f"is one of several shards.*pass '{index}' in the same"):
        load(part)
    check(load(part, "identity", names=["1.weight", "1.bias"]), model[1], x)


def test_shards_that_only_the_index_knows(tmp_path):
    path = shards(tmp_path, tied_model(), pattern="part_{}")
    with pytest.raises(ValueError, match=r"'model\.safetensors\.index\.json' in the same"):
        load(tmp_path / "part_1.safetensors")
    path.unlink()
    load(tmp_path / "part_1.safetensors")


def save_matrix(path):
    weight = torch.eye(3)
    match path.suffix:
        case ".pt":
            torch.save({"0.weight": weight}, path)
        case ".npz":
            np.savez(path, **{"0.weight": weight.numpy()})
        case _:
            safetensors.save_file({"0.weight": weight}, path)


@pytest.mark.parametrize(
    ("name", "sibling"),
    [
        ("model-00001-of-00002", None),
        ("part 2of4", "part 4of4"),
        ("net_1_of_2.fp16", "net_2_of_2.fp16"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
def test_shards_without_an_index(tmp_path, name, sibling, suffix):
    path = tmp_path / f"{name}{suffix}"
    save_matrix(path)
    if sibling is not None:
        save_matrix(tmp_path / f"{sibling}{suffix}")
    with pytest.raises(ValueError, match="is one of several shards of a model; join the shards"):
        load(path)
    assert load(path, names=["0.weight"]).n_layers == 1


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("run_1_of_3", []),
        # Runs of another series, and the same weights in another format.
        ("run_1_of_3", ["run_2_of_4", "other_run_2_of_3", "run_2_of_3.backup"]),
        ("model-00001-of-00001", ["model-00002-of-00001"]),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
def test_number_in_a_name_alone_does_not_make_a_shard(tmp_path, name, others, suffix):
    path = tmp_path / f"{name}{suffix}"
    save_matrix(path)
    for other in others:
        save_matrix(tmp_path / f"{other}{suffix}")
    (tmp_path / f"{name}.log").touch()
    assert load(path).n_layers == 1


def test_a_saved_network_is_whole_whatever_its_name(tmp_path):
    path = tmp_path / "layer-1-of-2.safetensors"
    safetensors.save_file({"0.weight": torch.eye(3)}, tmp_path / "net.safetensors")
    load(tmp_path / "net.safetensors").save(path)
    load(path)


def test_index_and_shards_that_contradict_each_other(tmp_path):
    path = shards(tmp_path, tied_model())
    index = json.loads(path.read_text())
    places = index["weight_map"]

    def write(changed):
        path.write_text(json.dumps({"weight_map": changed}))

    write(places | {"4.weight": places["0.weight"]})
    with pytest.raises(ValueError, match=r"contradict each other about '4\.weight'"):
        load(path)
    write({name: place for name, place in places.items() if name != "1.bias"})
    with pytest.raises(ValueError, match=r"contradict each other about '1\.bias'"):
        load(path)
    write(places | {"4.weight": "../model.safetensors"})
    with pytest.raises(ValueError, match="files in the folder of the index are read"):
        load(path)
    write(places | {"4.weight": "pytorch_model-00001-of-00002.bin"})
    with pytest.raises(ValueError, match="files in the folder of the index are read"):
        list_arrays(path)
    write(places | {"4.weight": "missing.safetensors"})
    with pytest.raises(FileNotFoundError, match="missing"):
        load(path)
    for damaged in ("{", "[]", '{"weight_map": {"0.weight": 1}}', '{"weight_map": {}}'):
        path.write_text(damaged)
        with pytest.raises(ValueError, match="is damaged, or not an index of shards"):
            load(path)


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_names_in_alphabetical_order(tmp_path, rng, suffix):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(11)])
    state = dict(sorted(model.state_dict().items()))
    path = tmp_path / f"sorted{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    with pytest.raises(ValueError, match=r"'10\.weight' before '2\.weight'.*names="):
        load(path)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    check(load(path, "identity", names=list(model.state_dict())), model, x)


def test_automatic_names_of_flax(tmp_path, rng):
    kernels = {f"params.Dense_{i}.kernel": rng.normal(size=(4, 4)) for i in range(2)}
    path = tmp_path / "flax.safetensors"
    framework("safetensors.numpy").save_file(kernels, path)
    with pytest.raises(ValueError, match=r"'params\.Dense_0', whose number counts constructions"):
        load(path, layout="in_out")
    names = list(kernels)[::-1]
    network = load(path, "identity", layout="in_out", names=names)
    np.testing.assert_array_equal(network[0].weight, kernels[names[0]].T)
