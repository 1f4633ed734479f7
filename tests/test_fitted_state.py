"""Changed files of fitted estimators: the error names the part that is inconsistent."""

import copy
from functools import cache

import numpy as np
import pytest
from builders import framework, random_network

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot._io import archive
from jacrot.layers._serialization import serialize
from jacrot.readers._files import read_saved

pytestmark = pytest.mark.filterwarnings("ignore:the search")

NETWORK = random_network([5, 4, 4], ["tanh", "identity"])
OPTIONS = {"random_state": 0, "max_iter": 5}
FUNCTIONAL = {"coordinates": "functional", "criterion": "log"}
ESTIMATORS = {
    "plain": JacobianSparsityRotation(NETWORK, **OPTIONS),
    "both": JacobianSparsityRotation(NETWORK, rotate_output=True, n_components=3, **OPTIONS),
    "tied": JacobianSparsityRotation(NETWORK[1:], rotate_output="tied", **OPTIONS),
    "functional": JacobianSparsityRotation(
        NETWORK[:1], readout=NETWORK[1:], rotate_output=True, **FUNCTIONAL, **OPTIONS
    ),
    "whole": NetworkRotation(NETWORK, rotate_input=True, **OPTIONS),
    "whole, functional": NetworkRotation(NETWORK, rotate_input=True, **FUNCTIONAL, **OPTIONS),
}


@cache
def fitted(name):
    estimator = ESTIMATORS[name]
    X = np.random.default_rng(0).normal(size=(20, estimator.network.n_inputs))
    return estimator.fit(X)


def attribute(name, to):
    def change(description, arrays):
        description["attributes"][name] = to

    return change


def parameter(name, to):
    def change(description, arrays):
        description["parameters"][name] = to

    return change


def array(name, function):
    def change(description, arrays):
        assert name in arrays, sorted(arrays)
        arrays[name] = function(arrays[name].copy())

    return change


def item(name, key, to):
    """Change the value of a key, or leave it out."""

    def change(description, arrays):
        items = description["attributes"][name]["items"]
        assert key in dict(items)
        changed = [[k, v] for k, v in items if k != key]
        description["attributes"][name]["items"] = changed if to is None else [*changed, [key, to]]

    return change


def part(name, side, to):
    """Change an attribute of the coordinates, or of the range of what was fitted."""

    def change(description, arrays):
        (content,) = description["attributes"][name].values()
        described = dict(content["items"])
        assert side in described
        described[side] = to
        content["items"] = list(map(list, described.items()))

    return change


def other_network(widths):
    def change(description, arrays):
        layers = random_network(widths, ["tanh", "identity"][: len(widths) - 1]).layers
        description["attributes"]["network_"] = {"network": serialize(list(layers), "n", arrays)}

    return change


def names(*content):
    return attribute("feature_names_in_", {"names": list(content)})


def sites(name, to):
    """Rename the sites of a mapping by order."""

    def change(description, arrays):
        items = description["attributes"][name]["items"]
        for entry, site in zip(items, to, strict=True):
            entry[0] = site

    return change


def poked(value):
    def function(array):
        array.flat[0] = value
        return array

    return function


def turned(array):
    """Swap two rows: orthonormal still."""
    return array[::-1]


CASES = {
    ("plain", "rotation_"): {
        "NaN": array("rotation_", poked(np.nan)),
        "infinite": array("rotation_", poked(np.inf)),
        "complex": array("rotation_", lambda Q: Q.astype(complex)),
        "single precision": array("rotation_", lambda Q: Q.astype(np.float32)),
        "text": array("rotation_", lambda Q: Q.astype(str)),
        "wider": array("rotation_", lambda Q: np.eye(6)),
        "fewer axes": array("rotation_", lambda Q: Q[:3]),
        "no axes": array("rotation_", lambda Q: Q[:0]),
        "three dimensions": array("rotation_", lambda Q: Q[None]),
        "a number": array("rotation_", lambda Q: Q[0, 0]),
        "scaled": array("rotation_", lambda Q: Q * 1.1),
        "missing": lambda description, arrays: description["attributes"].pop("rotation_"),
        "too few for n_components": parameter("n_components", 2),
    },
    ("plain", "output_rotation_"): {
        "rotate_output": parameter("rotate_output", True),
        "tied": parameter("rotate_output", "tied"),
    },
    ("plain", "n_features_in_"): {
        "other": attribute("n_features_in_", 6),
        "none": attribute("n_features_in_", 0),
        "negative": attribute("n_features_in_", -5),
        "a float": attribute("n_features_in_", 5.0),
        "a truth": attribute("n_features_in_", True),
        "other network": other_network([6, 4]),
    },
    ("plain", "feature_names_in_"): {
        "too few": names("a", "b"),
        "too many": names(*"abcdef"),
        "numbers": names(1, 2, 3, 4, 5),
        "nested": names(*[["a"]] * 5),
        "none": names(),
        "text": attribute("feature_names_in_", "abcde"),
    },
    ("plain", "sparsity_"): {
        "large": attribute("sparsity_", 17.0),
        "negative": attribute("sparsity_", -0.5),
        "NaN": attribute("sparsity_", float("nan")),
        "infinite": attribute("sparsity_", float("inf")),
        "text": attribute("sparsity_", "0.5"),
        "of another fit": attribute("sparsity_", 0.123),
    },
    ("plain", "sparsity_before_"): {"large": attribute("sparsity_before_", 17.0)},
    ("plain", "n_iter_"): {
        "negative": attribute("n_iter_", -1),
        "other": attribute("n_iter_", 10**6),
        "a truth": attribute("n_iter_", True),
    },
    ("plain", "converged_"): {
        "a number": attribute("converged_", 1),
        "interrupted": lambda description, arrays: description["attributes"].update(
            converged_=True, _interrupted=True
        ),
    },
    ("plain", "history_"): {
        "other length": array("history_.cost", lambda column: column[:-1]),
        "NaN": array("history_.cost", poked(np.nan)),
        "negative": array("history_.iteration", poked(-1)),
        "floats": array("history_.stage", lambda column: column.astype(float)),
        "too many stages": array("history_.stage", lambda column: column + 50),
        "stages out of order": array("history_.stage", poked(1)),
        "two dimensions": array("history_.seconds", lambda column: column[:, None]),
        "no column": item("history_", "cost", None),
        "another column": item("history_", "cost", 1),
        "no mapping": attribute("history_", [1, 2]),
    },
    ("plain", "stages_"): {
        "numbers": attribute("stages_", [1, 2]),
        "text": attribute("stages_", "stages"),
    },
    ("plain", "explained_sensitivity_ratio_"): {
        "large": array("explained_sensitivity_ratio_", lambda ratio: ratio + 1),
        "negative": array("explained_sensitivity_ratio_", poked(-0.2)),
        "NaN": array("explained_sensitivity_ratio_", poked(np.nan)),
        "more than all": array("explained_sensitivity_ratio_", lambda ratio: ratio * 1.5),
        "other length": array("explained_sensitivity_ratio_", lambda ratio: ratio[:-1]),
    },
    ("plain", "_fitted_range"): {
        "NaN": array("_fitted_range.mean", poked(np.nan)),
        "narrower": array("_fitted_range.mean", lambda mean: mean[:-1]),
        "not square": array("_fitted_range.whitening", lambda matrix: matrix[:-1]),
        "complex": array("_fitted_range.whitening", lambda matrix: matrix.astype(complex)),
        "zero": array("_fitted_range.whitening", lambda matrix: 0 * matrix),
        "upper": array("_fitted_range.whitening", np.transpose),
        "no unit": part("_fitted_range", "unit", 0.0),
        "text for a unit": part("_fitted_range", "unit", "1"),
        "a unit missing": part("_fitted_range", "unit", None),
        "a number": attribute("_fitted_range", 1),
        "of nothing": attribute("_fitted_range", {"fitted range": {"items": []}}),
    },
    ("plain", "network_"): {
        "a number": attribute("network_", 1),
        "no networks": attribute("network_", {"tuple": []}),
        "numbers": attribute("network_", {"tuple": [1, 2]}),
    },
    ("plain", "_inner"): {"functional": parameter("coordinates", "functional")},
    ("plain", "provenance_"): {
        "no scores": attribute("provenance_", {"items": [["estimator", "NetworkRotation"]]}),
        "nothing": attribute("provenance_", {"items": []}),
    },
    ("plain", "max_iter"): {
        "negative": parameter("max_iter", -1),
        "a float": parameter("max_iter", 2.5),
    },
    ("plain", "tol"): {"negative": parameter("tol", -1.0), "text": parameter("tol", "1")},
    ("plain", "criterion"): {"unknown": parameter("criterion", "entropy")},
    ("plain", "coordinates"): {
        "unsaved": parameter("coordinates", {"unsaved": "neurons"}),
        "unknown": parameter("coordinates", "polar"),
    },
    ("plain", "on_interrupt"): {"unknown": parameter("on_interrupt", "ignore")},
    ("both", "output_rotation_"): {
        "missing": attribute("output_rotation_", None),
        "not wanted": parameter("rotate_output", False),
        "not tied": parameter("rotate_output", "tied"),
        "wider": array("output_rotation_", lambda P: np.eye(5)),
        "fewer axes": array("output_rotation_", lambda P: P[:2]),
        "NaN": array("output_rotation_", poked(np.nan)),
        "scaled": array("output_rotation_", lambda P: P * 2),
    },
    ("both", "rotation_"): {
        "more axes": array("rotation_", lambda Q: np.eye(5)),
        "n_components": parameter("n_components", None),
    },
    ("tied", "output_rotation_"): {"another": array("output_rotation_", turned)},
    ("functional", "_inner"): {
        "missing": attribute("_inner", None),
        "not wanted": parameter("coordinates", "neurons"),
        "not inverse": array("_inner.forward", lambda matrix: 2 * matrix),
        "NaN": array("_inner.backward", poked(np.nan)),
        "complex": array("_inner.metric", lambda matrix: matrix.astype(complex)),
        "narrower": array("_inner.mean", lambda mean: mean[:-1]),
        "a matrix missing": part("_inner", "metric", None),
        "negative metric": array("_inner.metric", lambda matrix: -matrix),
        "another metric": array("_inner.metric", lambda matrix: np.diag(np.arange(1.0, 6))),
        "of nothing": attribute("_inner", {"coordinates": {"items": []}}),
    },
    ("functional", "_outer"): {
        "missing": attribute("_outer", None),
        "of the inputs": attribute("_outer", {"same": "_inner"}),
        "not inverse": array("_outer.backward", lambda matrix: matrix + 0.1),
        "no readout": parameter("readout", None),
    },
    ("functional", "mean_"): {
        "another": array("mean_", lambda mean: mean + 1),
        "missing": attribute("mean_", None),
    },
    ("functional", "whitening_"): {"another": array("whitening_", lambda matrix: 2 * matrix)},
    ("functional", "output_whitening_"): {
        "another": array("output_whitening_", lambda matrix: 2 * matrix)
    },
    ("whole", "rotations_"): {
        "text for a site": sites("rotations_", ["0", "1"]),
        "a float for a site": sites("rotations_", [0.0, 1.0]),
        "a truth for a site": sites("rotations_", [False, True]),
        "sites that are not there": sites("rotations_", [0, 7]),
        "a negative site": sites("rotations_", [0, -1]),
        "order": sites("rotations_", [1, 0]),
        "a site missing": item("rotations_", 1, None),
        "a number": item("rotations_", 1, 3),
        "NaN": array("rotations_.1", poked(np.nan)),
        "wider": array("rotations_.1", lambda R: np.eye(5)),
        "not square": array("rotations_.0", lambda R: R[:-1]),
        "scaled": array("rotations_.1", lambda R: R * 0.9),
        "parameters": parameter("rotate_output", True),
        "no inputs": parameter("rotate_input", False),
        "no mapping": attribute("rotations_", None),
    },
    ("whole", "sparsities_"): {
        "NaN": array("sparsities_", poked(np.nan)),
        "large": array("sparsities_", poked(3)),
        "fewer": array("sparsities_", lambda values: values[:-1]),
    },
    ("whole", "sparsity_"): {"not their mean": array("sparsities_", lambda values: values * 0.9)},
    ("whole", "_coordinates"): {"functional": parameter("coordinates", "functional")},
    ("whole", "network_"): {
        "one layer": other_network([5, 4]),
        "missing": attribute("network_", None),
    },
    ("whole, functional", "_coordinates"): {
        "a site missing": item("_coordinates", 1, None),
        "a number": item("_coordinates", 1, 3),
        "not inverse": array("_coordinates.1.forward", lambda matrix: 2 * matrix),
        "neurons": parameter("coordinates", "neurons"),
    },
    ("whole, functional", "means_"): {
        "another": array("means_.0", lambda mean: mean + 1),
        "missing": attribute("means_", None),
    },
    ("whole, functional", "whitenings_"): {"another": array("whitenings_.1", turned)},
}


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("kind", "named", "case"),
    [(*key, case) for key, cases in CASES.items() for case in cases],
)
def test_what_does_not_fit_is_refused_by_name(kind, named, case, ending, tmp_path):
    if ending == ".safetensors":
        framework("safetensors.numpy")
    path = tmp_path / f"saved{ending}"
    estimator = fitted(kind)
    estimator.save(path)
    description, arrays = read_saved(path)
    description = copy.deepcopy(description)
    CASES[kind, named][case](description, arrays)
    try:
        archive.write(path, description, arrays)
    except Exception:
        # Safetensors has no text and no complex numbers.
        assert ending == ".safetensors"
        return
    with pytest.raises(ValueError, match="was changed after save wrote it") as error:
        type(estimator).load(path)
    assert str(path) in str(error.value)
    # One of two that contradict each other is named.
    assert named in str(error.value)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_what_save_wrote_is_taken(kind, tmp_path):
    estimator = fitted(kind)
    estimator.save(tmp_path / "saved.npz")
    type(estimator).load(tmp_path / "saved.npz")


@pytest.mark.parametrize("unit", [1e-14, 1e-12, 1e6])
def test_coordinates_of_any_unit_are_saved(unit, rng, tmp_path):
    # Directions without an effect keep their length in any unit of the others.
    weight = rng.normal(size=(5, 3)) @ rng.normal(size=(3, 7))
    rotation = JacobianSparsityRotation(
        coordinates="functional", criterion="log", max_iter=5, tol=0.1, random_state=0
    )
    X = unit * rng.normal(size=(40, 7))
    rotation.fit(weight, X).save(tmp_path / "saved.npz")
    again = JacobianSparsityRotation.load(tmp_path / "saved.npz")
    assert np.array_equal(again.transform(X), rotation.transform(X))


def test_an_estimator_that_was_changed_is_not_saved(tmp_path):
    estimator = copy.copy(fitted("plain"))
    estimator.set_params(rotate_output=True)
    with pytest.raises(ValueError, match=r"output_rotation_ is missing.*fit it again"):
        estimator.save(tmp_path / "changed.npz")
    estimator.set_params(rotate_output=False)
    estimator.rotation_ = estimator.rotation_ * 2
    with pytest.raises(ValueError, match="rotation_ does not have orthonormal rows"):
        estimator.save(tmp_path / "changed.npz")
    assert not list(tmp_path.iterdir())
