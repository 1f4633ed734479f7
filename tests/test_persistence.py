"""Fitted estimators and networks, written to files and read again."""

import json
import os
import pickle

import numpy as np
import pytest
from builders import framework
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot._io import archive
from jacrot.datasets import load_digits_mlp
from jacrot.readers import load, metadata
from jacrot.readers._files import read_saved

DIGITS = load_digits_mlp()
NETWORK, X = DIGITS.network, DIGITS.X[:80]
MIDDLE, HIDDEN = NETWORK[1:2], NETWORK[:1](X)
OPTIONS = {"random_state": 0, "tol": 1e-1, "max_iter": 20}
FUNCTIONAL = {"coordinates": "functional", "criterion": "log"}
# Constructor, and what fit and score are given.
ESTIMATORS = {
    "one side": (JacobianSparsityRotation(**OPTIONS), (MIDDLE, HIDDEN), HIDDEN),
    "in the constructor": (
        JacobianSparsityRotation(MIDDLE, rotate_output=True, n_components=10, **OPTIONS),
        (HIDDEN,),
        HIDDEN,
    ),
    "functional": (
        JacobianSparsityRotation(rotate_output=True, readout=NETWORK[2:], **FUNCTIONAL, **OPTIONS),
        (MIDDLE, HIDDEN),
        HIDDEN,
    ),
    "tied and functional": (
        JacobianSparsityRotation(rotate_output="tied", **FUNCTIONAL, **OPTIONS),
        (MIDDLE, HIDDEN),
        HIDDEN,
    ),
    "blocks": (
        JacobianSparsityRotation(init=np.eye(64), **OPTIONS),
        ([MIDDLE, MIDDLE], [HIDDEN, HIDDEN]),
        [HIDDEN, HIDDEN],
    ),
    "whole network": (NetworkRotation(NETWORK, **OPTIONS), (X,), X),
    "whole network, functional": (
        NetworkRotation(rotate_output=True, **FUNCTIONAL, **OPTIONS),
        (NETWORK, X),
        X,
    ),
}
pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path):
    if request.param == ".safetensors":
        framework("safetensors.numpy")
    return tmp_path / f"saved{request.param}"


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_is_loaded_is_what_was_saved(name, path):
    estimator, data, held_out = ESTIMATORS[name]
    fitted = clone(estimator).fit(*data)
    fitted.save(path)
    loaded = type(fitted).load(path)
    assert loaded.score(held_out) == fitted.score(held_out)
    batch = held_out[0] if isinstance(held_out, list) else held_out
    if isinstance(fitted, NetworkRotation):
        np.testing.assert_array_equal(loaded.transform(batch, 1), fitted.transform(batch, 1))
    else:
        np.testing.assert_array_equal(loaded.transform(batch), fitted.transform(batch))
        Z = fitted.transform(batch)
        np.testing.assert_array_equal(loaded.inverse_transform(Z), fitted.inverse_transform(Z))
    assert repr(loaded.rotated_network()) == repr(fitted.rotated_network())
    assert loaded.provenance_ == fitted.provenance_
    assert (loaded.stages_, loaded.converged_) == (fitted.stages_, fitted.converged_)
    for column, values in fitted.history_.items():
        np.testing.assert_array_equal(loaded.history_[column], values)
    left = {key for key in vars(fitted) if not key.startswith("_skl")} - set(vars(loaded))
    assert left == set()


def test_a_loaded_estimator_finds_the_same_again(path):
    fitted = JacobianSparsityRotation(MIDDLE, rotate_output=True, **OPTIONS).fit(HIDDEN)
    fitted.save(path)
    again = clone(JacobianSparsityRotation.load(path)).fit(HIDDEN)
    np.testing.assert_array_equal(again.rotation_, fitted.rotation_)


@pytest.mark.slow
def test_a_seed_that_was_drawn_finds_the_same_again():
    fitted = JacobianSparsityRotation(rotate_output=True, tol=1e-1).fit(MIDDLE, HIDDEN)
    other = JacobianSparsityRotation(rotate_output=True, tol=1e-1).fit(MIDDLE, HIDDEN)
    assert fitted.provenance_["seed"] != other.provenance_["seed"]
    fitted.set_params(random_state=fitted.provenance_["seed"])
    again = clone(fitted).fit(MIDDLE, HIDDEN)
    np.testing.assert_array_equal(again.rotation_, fitted.rotation_)


def test_what_no_file_can_hold_says_so(path):
    def bounded(x):
        return x**2 / (1 + x**2)

    fitted = JacobianSparsityRotation(
        criterion=bounded, random_state=np.random.RandomState(0), tol=1e-1
    ).fit(MIDDLE, HIDDEN)
    fitted.save(path)
    loaded = JacobianSparsityRotation.load(path)
    assert loaded.score(HIDDEN) == fitted.score(HIDDEN)
    assert repr(loaded.criterion) == "<not saved: bounded>"
    loaded.save(path)
    assert repr(JacobianSparsityRotation.load(path).criterion) == "<not saved: bounded>"
    assert fitted.provenance_["seed"] is None
    with pytest.raises(ValueError, match=r"'criterion' parameter.*not saved: bounded"):
        loaded.fit(MIDDLE, HIDDEN)


def test_jacobians_computed_elsewhere_are_not_kept(path):
    J = MIDDLE.jacobians(HIDDEN)
    fitted = JacobianSparsityRotation(J, **OPTIONS).fit(HIDDEN)
    fitted.save(path)
    loaded = JacobianSparsityRotation.load(path)
    np.testing.assert_array_equal(loaded.rotation_, fitted.rotation_)
    assert loaded.network_ is None
    assert repr(loaded.network) == "<not saved: Jacobians>"
    assert path.stat().st_size < J.nbytes


def test_functions_are_refused_with_a_way_out(tmp_path):
    fitted = JacobianSparsityRotation(**OPTIONS).fit(
        lambda x: x @ MIDDLE.layers[0].weight.T, HIDDEN
    )
    with pytest.raises(ValueError, match=r"cannot be saved without pickle.*save the rotations"):
        fitted.save(tmp_path / "rotation.npz")
    assert os.listdir(tmp_path) == []


def test_nothing_is_saved_before_fit(tmp_path):
    with pytest.raises(NotFittedError):
        JacobianSparsityRotation().save(tmp_path / "rotation.npz")
    assert os.listdir(tmp_path) == []


def test_files_of_another_kind_are_refused(path):
    fitted = NetworkRotation(NETWORK, **OPTIONS).fit(X)
    fitted.save(path)
    with pytest.raises(ValueError, match=r"NetworkRotation/1.*JacobianSparsityRotation.load"):
        JacobianSparsityRotation.load(path)
    with pytest.raises(ValueError, match=r"NetworkRotation\.load"):
        load(path)
    NETWORK.save(path)
    with pytest.raises(ValueError, match=r"jacrot\.Network/1"):
        NetworkRotation.load(path)
    with pytest.raises(FileNotFoundError):
        NetworkRotation.load(path.with_name("absent.npz"))


def broken(change):
    """Save an estimator, change its description or arrays, and load it."""

    def run(path):
        JacobianSparsityRotation(**OPTIONS).fit(MIDDLE, HIDDEN).save(path)
        description, arrays = read_saved(path)
        change(description, arrays)
        archive.write(path, description, arrays)
        return JacobianSparsityRotation.load(path)

    return run


def set_(*keys, to):
    def change(description, arrays):
        for key in keys[:-1]:
            description = description[key]
        description[keys[-1]] = to

    return change


CHANGES = {
    "no attributes": lambda description, arrays: description.pop("attributes"),
    "no parameters": lambda description, arrays: description.pop("parameters"),
    "an unknown parameter": set_("parameters", "unknown", to=1),
    "an absent array": lambda description, arrays: arrays.pop("rotation_"),
    "a rotation that is none": lambda description, arrays: arrays["rotation_"].__imul__(2),
    "a rotation with NaN": lambda description, arrays: arrays["rotation_"].fill(np.nan),
    "a number in an array's place": set_("attributes", "rotation_", to=1),
    "an unknown kind": set_("attributes", "network_", to={"pickle": "x"}),
    "a layer that is none": set_("attributes", "network_", to={"network": [{"layer": "Function"}]}),
    "an array for a layer": set_(
        "attributes", "network_", to={"network": [{"array": "rotation_"}]}
    ),
    "a network that is none": set_("attributes", "network_", to="network"),
    "coordinates of several spaces": set_(
        "attributes",
        "_inner",
        to={
            "coordinates": {
                "items": [[name, {"array": "rotation_"}] for name in ("mean", "metric")]
            }
        },
    ),
    "attributes that are no mapping": set_("attributes", to=[1]),
    "a rotation of other width": lambda description, arrays: arrays.update(rotation_=np.eye(3)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_refused(name, path):
    with pytest.raises(ValueError, match="was changed after save wrote it") as error:
        broken(CHANGES[name])(path)
    assert str(path) in str(error.value)


def test_a_file_sets_no_other_attributes(path):
    loaded = broken(set_("attributes", "transform", to="x"))(path)
    assert "transform" not in vars(loaded)


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    fitted = JacobianSparsityRotation(**OPTIONS).fit(MIDDLE, HIDDEN)
    fitted.save(path)
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_same_fit_gives_the_same_file(path):
    fitted = JacobianSparsityRotation(**OPTIONS).fit(MIDDLE, HIDDEN)
    fitted.history_["seconds"] = np.zeros_like(fitted.history_["seconds"])
    fitted.save(path)
    before = path.read_bytes()
    JacobianSparsityRotation.load(path).save(path)
    assert path.read_bytes() == before


def test_a_rotated_network_keeps_where_it_comes_from(path):
    fitted = JacobianSparsityRotation(**OPTIONS).fit(MIDDLE, HIDDEN)
    NETWORK.rotated({1: fitted.rotation_}).save(path, metadata=fitted.provenance_)
    assert metadata(path) == fitted.provenance_
    np.testing.assert_allclose(load(path)(X), NETWORK(X), atol=1e-5)


def test_an_estimator_of_a_rotated_network_keeps_what_was_rotated(path):
    network = NETWORK.rotated({1: np.linalg.qr(np.ones((64, 64)) + np.eye(64))[0]})
    NetworkRotation(**OPTIONS).fit(network, X).save(path)
    loaded = NetworkRotation.load(path)
    assert loaded.network_.rotated_sites == (1,)
    assert loaded.rotated_network().rotated_sites == (1, 2)


def test_metadata_that_json_cannot_hold_is_refused(path):
    with pytest.raises(TypeError, match="JSON"):
        NETWORK.save(path, metadata={"criterion": print})
    assert not path.exists()


def test_pickle_still_works():
    fitted = JacobianSparsityRotation(**OPTIONS).fit(MIDDLE, HIDDEN)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.transform(HIDDEN), fitted.transform(HIDDEN))


def test_a_network_in_every_format(path):
    network = Network([np.arange(6.0).reshape(2, 3).T, np.ones((1, 3), np.float32)])
    network.save(path)
    loaded = load(path)
    assert repr(loaded) == repr(network)
    for layer, other in zip(loaded.layers, network.layers, strict=True):
        np.testing.assert_array_equal(layer.weight, other.weight)
        assert layer.weight.dtype == other.weight.dtype


def test_provenance_is_what_json_can_hold():
    for name, (estimator, data, _) in ESTIMATORS.items():
        provenance = clone(estimator).fit(*data).provenance_
        assert json.loads(json.dumps(provenance)) == provenance, name


def test_names_of_features_are_kept(path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(HIDDEN, columns=[f"unit {index}" for index in range(64)])
    fitted = JacobianSparsityRotation(MIDDLE, **OPTIONS).fit(frame)
    fitted.save(path)
    loaded = JacobianSparsityRotation.load(path)
    np.testing.assert_array_equal(loaded.feature_names_in_, frame.columns)
    np.testing.assert_array_equal(loaded.transform(frame), fitted.transform(frame))
