"""Files of format 1, kept as they were written, load and compute what they did."""

from pathlib import Path

import numpy as np
import pytest
from builders import framework

from jacrot import JacobianSparsityRotation, NetworkRotation
from jacrot.readers import load

FOLDER = Path(__file__).parent / "data" / "format_1"
ESTIMATORS = {
    "one_sided": JacobianSparsityRotation,
    "two_sided": JacobianSparsityRotation,
    "functional": JacobianSparsityRotation,
    "tied": JacobianSparsityRotation,
    "network": NetworkRotation,
    "functional_network": NetworkRotation,
}


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ["images.npz", "tokens.npz", "rows.npz", "rows.safetensors"])
def test_networks(name, expected):
    if name.endswith(".safetensors"):
        framework("safetensors")
    stem = name.partition(".")[0]
    network = load(FOLDER / name)
    np.testing.assert_allclose(network(expected[f"{stem}.X"]), expected[f"{stem}.network"])


@pytest.mark.parametrize(("name", "kind"), ESTIMATORS.items())
def test_estimators(name, kind, expected):
    estimator = kind.load(FOLDER / f"{name}.npz")
    X = expected[f"{name}.X"]
    np.testing.assert_allclose(estimator.transform(X), expected[f"{name}.transform"])
    assert estimator.score(X) == pytest.approx(expected[f"{name}.score"])
    assert estimator.get_params()["max_iter"] == 20
    assert estimator.provenance_["seed"] == 0
