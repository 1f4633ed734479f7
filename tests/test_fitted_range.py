"""Activations far outside those that were fitted are warned of, and no others."""

import gzip
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot._estimators.fitted_range import FittedRange
from jacrot._io import archive
from jacrot.datasets import load_digits_mlp
from jacrot.layers import Conv2d
from jacrot.positions import at_positions
from jacrot.readers import load
from jacrot.readers._files import read_saved

pytestmark = pytest.mark.filterwarnings("ignore:the search did not converge")
DATA = Path(os.environ.get("JACROT_DATA", "data"))
DIGITS = load_digits_mlp()
NETWORK = DIGITS.network
OPTIONS = {"random_state": 0, "max_iter": 2, "tol": 1}


def activations(site, X):
    return NETWORK[:site](X) if site else X


def fitted(site, n_samples=200):
    """Fit one layer; all layers read 64 activations."""
    hidden = activations(site, DIGITS.X[:n_samples])
    return JacobianSparsityRotation(**OPTIONS).fit(NETWORK[site : site + 1], hidden)


def far(call, *arguments):
    with pytest.warns(UserWarning, match=r"far outside .* that were fitted") as found:
        call(*arguments)
    assert len(found) == 1
    # It points here.
    assert found[0].filename == __file__
    return str(found[0].message)


def near(call, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(*arguments)


@pytest.mark.parametrize("n_samples", [100, 1000])
@pytest.mark.parametrize("site", [0, 1, 2])
def test_activations_of_another_place(site, n_samples):
    rotation = fitted(site, n_samples)
    for other in range(3):
        X = activations(other, DIGITS.X_test)
        for call in (rotation.transform, rotation.score):
            (near if other == site else far)(call, X)
    near(rotation.jacobians, activations(site, DIGITS.X_test[:50]))


def test_the_message_says_what_to_pass():
    rotation = fitted(1)
    message = far(rotation.transform, DIGITS.X_test)
    assert "activations that were fitted" in message
    assert "pass what the fitted layer reads, such as network[:1](inputs)" in message
    far(rotation.jacobians, DIGITS.X_test[:20])


def test_the_whole_network_looks_at_its_inputs():
    model = NetworkRotation(NETWORK, rotate_input=True, **OPTIONS).fit(DIGITS.X[:100])
    for site in (0, 1, 2):
        near(model.transform, DIGITS.X_test, site)
        message = far(model.transform, activations(1, DIGITS.X_test), site)
        assert "inputs that were fitted" in message
        assert "pass inputs of the network" in message
    near(model.score, DIGITS.X_test)
    far(model.score, activations(1, DIGITS.X_test))
    # Pixels from 0 to 16 are another common mistake.
    far(model.score, 16 * DIGITS.X_test)


def test_single_rows_of_the_same_place():
    for site in (0, 1, 2):
        fit = FittedRange.from_batches([activations(site, DIGITS.X[:200])])
        rows = activations(site, DIGITS.X_test)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for row in rows:
                fit.check(row[None], "rows", "look")
        assert len(found) <= 10  # 1 of 50; the digits of the test were written by others


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1e6, 1e30])
def test_units_make_no_difference(unit, dtype):
    for site, other in ((1, 0), (2, 0)):
        fit = FittedRange.from_batches([(unit * activations(site, DIGITS.X[:200])).astype(dtype)])
        near(fit.check, (unit * activations(site, DIGITS.X_test)).astype(dtype), "rows", "look")
        far(fit.check, (unit * activations(other, DIGITS.X_test)).astype(dtype), "rows", "look")
        shifted = FittedRange.from_batches([activations(site, DIGITS.X[:200]) + 1e3])
        near(shifted.check, activations(site, DIGITS.X_test) + 1e3, "rows", "look")
        far(shifted.check, activations(site, DIGITS.X_test), "rows", "look")


@pytest.mark.parametrize("unit", [1e-290, 1e-200, 1e200, 1e300])
def test_no_unit_overflows(unit, rng):
    X = unit * rng.normal(size=(100, 5))
    fit = FittedRange.from_batches([X])
    near(fit.check, unit * rng.normal(size=(50, 5)), "rows", "look")
    far(fit.check, 100 * X, "rows", "look")
    far(
        FittedRange.from_batches([X / unit]).check,
        1e5 * rng.normal(size=(50, 5)) * 1e300,
        "rows",
        "look",
    )


def test_distances_are_those_of_mahalanobis(rng):
    from sklearn.covariance import LedoitWolf

    mixing = rng.normal(size=(6, 6))
    X, others = (rng.normal(size=(n, 6)) @ mixing + 3 for n in (60, 40))
    fit = FittedRange.from_batches([X])
    found = np.square((others - fit.mean) / fit.unit @ fit.whitening.T).sum(axis=1)
    estimate = LedoitWolf().fit(X)
    expected = estimate.mahalanobis(others)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-8)
    # The farthest fitted row, with that row left out of the covariance but not of the shrinkage.
    centred, d = X - X.mean(axis=0), estimate.shrinkage_
    distances = []
    for row in centred:
        outer = np.outer(row, row) / len(X)
        covariance = estimate.covariance_ - (1 - d) * outer
        distances.append(row @ np.linalg.solve(covariance, row))
    np.testing.assert_allclose(found, expected / max(distances), rtol=1e-8)


def test_few_rows_are_no_range(rng):
    assert FittedRange.from_batches([rng.normal(size=(19, 20))]) is None
    assert FittedRange.from_batches([rng.normal(size=(20, 20))]) is not None
    # Positions of few inputs are alike.
    assert FittedRange.from_batches([rng.normal(size=(9, 50, 3))]) is None
    rotation = fitted(1, 63)
    assert rotation._fitted_range is None
    near(rotation.transform, DIGITS.X_test)


def test_constant_features(rng):
    X = rng.normal(size=(100, 8))
    X[:, :3] = [0, 5, -1e6]
    fit = FittedRange.from_batches([X])
    assert np.isfinite(fit.whitening).all()
    others = rng.normal(size=(50, 8))
    others[:, :3] = [0, 5, -1e6]
    near(fit.check, others, "rows", "look")
    others[:, 1] = 500
    far(fit.check, others, "rows", "look")


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-300, 1e300])
def test_equal_rows_are_no_range(value):
    X = np.full((50, 4), value)
    assert FittedRange.from_batches([X]) is None
    assert FittedRange.from_batches([X[:, :1]]) is None


def test_rows_of_two_values(rng):
    """Nothing is left to shrink for: the covariance of Ledoit and Wolf is singular."""
    axis = rng.normal(size=5)
    X = np.outer(np.resize([1.0, -1.0], 40), axis)
    fit = FittedRange.from_batches([X])
    near(fit.check, X.astype(np.float32), "rows", "look")
    far(fit.check, 10 * X, "rows", "look")
    far(fit.check, X + 10 * rng.normal(size=5), "rows", "look")


@pytest.mark.parametrize("ndim", [3, 4])
def test_positions(ndim, rng):
    """Features of very different size, so that another axis would be noticed."""
    mean, size = np.array([0.0, 100, 0, -5]), np.array([1.0, 0.1, 30, 2])

    def drawn(n_samples):
        sequences = mean + size * rng.normal(size=(n_samples, 12, 4))
        if ndim == 3:
            return sequences
        return np.moveaxis(sequences.reshape(n_samples, 3, 4, 4), -1, 1)

    fit = FittedRange.from_batches([drawn(300)])
    assert fit.mean.shape == (4,)
    near(fit.check, drawn(300), "rows", "look")
    far(fit.check, 3 * drawn(300), "rows", "look")


def test_drawn_rows_come_from_all_positions(rng):
    """A stride would meet one of the positions only."""
    X = rng.normal(size=(4000, 2, 3))
    X[:, 1] += 100
    fit = FittedRange.from_batches([X])
    np.testing.assert_allclose(fit.mean, 50, atol=10)
    near(fit.check, X[::2], "rows", "look")


def test_convolutions(rng):
    network = Network([Conv2d(rng.normal(size=(3, 2, 3, 3)), activation="tanh")])
    X = rng.normal(size=(30, 2, 5, 5))
    rotation = JacobianSparsityRotation(network, **OPTIONS).fit(X)
    others = rng.normal(size=(20, 2, 5, 5))
    near(rotation.score, others)
    near(lambda: at_positions(rotation.transform, others))
    far(rotation.score, others + 20)
    far(lambda: at_positions(rotation.transform, others + 20))


def test_blocks_share_a_range(rng):
    X = [rng.normal(size=(60, 5)), 10 + rng.normal(size=(60, 5))]
    blocks = [Network(rng.normal(size=(5, 5)), "tanh") for _ in X]
    rotation = JacobianSparsityRotation(**OPTIONS).fit(blocks, X)
    near(rotation.score, [rng.normal(size=(60, 5)), 10 + rng.normal(size=(60, 5))])
    near(rotation.transform, X[1])
    far(rotation.transform, X[1] + 100)


def test_jacobians_computed_elsewhere(rng):
    X = rng.normal(size=(60, 5))
    rotation = JacobianSparsityRotation(**OPTIONS).fit(rng.normal(size=(60, 3, 5)), X)
    near(rotation.transform, rng.normal(size=(60, 5)))
    far(rotation.transform, 100 * X)


@pytest.mark.parametrize("whole", [False, True])
def test_files_keep_it(whole, tmp_path):
    network = NetworkRotation(NETWORK, **OPTIONS)
    estimator = network.fit(DIGITS.X[:100]) if whole else fitted(1)
    path = tmp_path / "saved.npz"
    estimator.save(path)
    for kept in (type(estimator).load(path), pickle.loads(pickle.dumps(estimator))):
        for name in ("mean", "unit", "whitening"):
            found, expected = (getattr(e._fitted_range, name) for e in (kept, estimator))
            np.testing.assert_array_equal(found, expected)
        far(kept.score, activations(2, DIGITS.X_test))
    # What was written before there was one.
    description, arrays = read_saved(path)
    del description["attributes"]["_fitted_range"]
    archive.write(path, description, arrays)
    older = type(estimator).load(path)
    near(older.score, activations(2, DIGITS.X_test))
    older.save(path)
    type(estimator).load(path)


def test_another_fit_has_its_own():
    rotation = fitted(1)
    rotation.fit(NETWORK[1:2], activations(1, DIGITS.X[:20]))
    near(rotation.transform, DIGITS.X_test)
    rotation = fitted(1)
    before = rotation._fitted_range
    with pytest.raises(ValueError, match="NaN"):
        rotation.fit(NETWORK[1:2], np.full((20, 64), np.nan))
    assert rotation._fitted_range is before


@pytest.mark.skipif(not (DATA / "networks").is_dir(), reason="JACROT_DATA has no networks/")
def test_mnist():
    """Other inputs of a network that is not ours, at all places and for fits of several sizes."""
    with gzip.open(DATA / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784) / 255
    network = load(str(DATA / "networks" / "mnist_mlp_784_100_100_10.npz"))
    places = [pixels, network[:1](pixels), network[:2](pixels)]
    for rows in places:
        width = rows.shape[1]
        for n_fitted in (width, 2 * width, 2000):
            fit = FittedRange.from_batches([rows[:n_fitted]])
            near(fit.check, rows[5000:], "rows", "look")
    for site, other in ((1, 2), (2, 1)):
        fit = FittedRange.from_batches([places[site][:1000]])
        far(fit.check, places[other][5000:], "rows", "look")
