"""The estimator as a citizen of scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from builders import random_network
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_global_output_transform_pandas,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    parametrize_with_checks,
)

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.layers import Activation

RNG = np.random.default_rng(0)
W = RNG.normal(size=(12, 8))
X = RNG.normal(size=(50, 8))
y = (X[:, 0] > 0).astype(int)


def elementwise(x):
    """Compute a network of any width."""
    return x + 0.1 * x**2


@parametrize_with_checks([JacobianSparsityRotation(elementwise)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        JacobianSparsityRotation(elementwise, rotate_output=True),
        JacobianSparsityRotation(elementwise, rotate_output="tied"),
    ]
)
def test_scikit_learns_checks_with_outputs_rotated(estimator, check):
    check(estimator)


extra_checks = pytest.mark.parametrize(
    "check",
    [
        check_param_validation,
        check_set_output_transform,
        check_set_output_transform_pandas,
        check_global_output_transform_pandas,
        check_transformer_get_feature_names_out,
        check_transformer_get_feature_names_out_pandas,
    ],
)


@extra_checks
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names")
@pytest.mark.slow
def test_scikit_learns_extra_checks(check):
    check("JacobianSparsityRotation", JacobianSparsityRotation(elementwise))


def test_clone_shares_the_network_and_keeps_the_parameters():
    network = Network(W)
    estimator = JacobianSparsityRotation(network, n_components=3, tol=1e-3)
    copy = clone(estimator)
    assert copy.network is network
    assert copy.get_params() == estimator.get_params()
    assert "Network(8 → 12; relu)" in repr(estimator)


def test_pipeline_and_names():
    pipeline = make_pipeline(
        StandardScaler(), JacobianSparsityRotation(W, n_components=3), LogisticRegression()
    )
    assert 0 <= pipeline.fit(X, y).score(X, y) <= 1
    names = pipeline[:-1].get_feature_names_out()
    assert list(names) == [f"jacobiansparsityrotation{axis}" for axis in range(3)]


def test_frozen_in_a_pipeline():
    fitted = JacobianSparsityRotation(random_state=0).fit(W, X)
    pipeline = make_pipeline(FrozenEstimator(fitted), LogisticRegression()).fit(X, y)
    np.testing.assert_array_equal(pipeline[:-1].transform(X), fitted.transform(X))


def test_set_output_in_both_forms():
    frame = pd.DataFrame(X, columns=[f"unit {i}" for i in range(8)], index=range(100, 150))
    constructor = JacobianSparsityRotation(W, random_state=0).set_output(transform="pandas")
    prompt = JacobianSparsityRotation(random_state=0).set_output(transform="pandas")
    expected = constructor.fit_transform(frame)
    assert list(expected.index) == list(frame.index)
    assert list(expected.columns) == list(constructor.get_feature_names_out())
    assert list(constructor.feature_names_in_) == list(frame.columns)
    pd.testing.assert_frame_equal(prompt.fit_transform(W, frame), expected)
    pd.testing.assert_frame_equal(prompt.fit_transform([W], frame), expected)


def test_feature_names_are_checked():
    frame = pd.DataFrame(X, columns=[f"unit {i}" for i in range(8)])
    estimator = JacobianSparsityRotation(random_state=0).fit(W, frame)
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(frame[frame.columns[::-1]])


def test_cross_validation_scores_held_out_sparsity():
    estimator = JacobianSparsityRotation(W, random_state=0)
    scores = cross_val_score(estimator, X, cv=3)
    assert scores.shape == (3,)
    assert np.all((scores > estimator.fit(X).sparsity_before_) & (scores < 1))


@pytest.mark.slow
def test_grid_search_over_components_and_networks():
    networks = [Network(W), random_network([8, 6, 4], ["tanh", "gelu"])]
    grid = {"network": networks, "n_components": [2, 0.9, None]}
    search = GridSearchCV(JacobianSparsityRotation(random_state=0), grid, cv=2).fit(X)
    assert len(search.cv_results_["params"]) == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.network in networks
    assert search.best_estimator_.network is search.best_params_["network"]


# Two layers of any width.
ANY_WIDTH = [Activation("softplus"), Activation("tanh")]


@parametrize_with_checks([NetworkRotation(ANY_WIDTH, tol=1e-1)])
@pytest.mark.slow
def test_scikit_learns_checks_of_a_whole_network(estimator, check):
    check(estimator)


@extra_checks
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names")
@pytest.mark.slow
def test_scikit_learns_extra_checks_of_a_whole_network(check):
    check("NetworkRotation", NetworkRotation(ANY_WIDTH, tol=1e-1))


def test_a_whole_network_in_a_pipeline(rng):
    X = rng.normal(size=(50, 8))
    y = (X[:, 0] > 0).astype(int)
    network = random_network([8, 6, 5, 3], ["tanh", "tanh", "identity"])
    rotation = NetworkRotation(network, tol=1e-2, random_state=0)
    pipeline = make_pipeline(StandardScaler(), rotation, LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.5
    names = pipeline[:-1].get_feature_names_out()
    assert list(names) == [f"networkrotation{axis}" for axis in range(5)]
    Z = pipeline[:-1].transform(X)
    np.testing.assert_array_equal(Z, rotation.transform(pipeline[0].transform(X), site=2))
    # At what the logits read: folded in, the next layer reads these.
    logits = rotation.rotated_network()[2:](Z)
    np.testing.assert_allclose(logits, network(pipeline[0].transform(X)), atol=1e-10)


@pytest.mark.parametrize("rotate_output", [False, True])
def test_fit_transform_of_a_whole_network_in_both_forms(rotate_output, rng):
    X = rng.normal(size=(50, 8))
    network = random_network([8, 6, 3], ["tanh", "identity"])
    options = {"tol": 1e-2, "random_state": 0, "rotate_output": rotate_output}
    first = NetworkRotation(network, **options)
    Z = first.fit_transform(X)
    assert Z.shape == (50, 3 if rotate_output else 6)
    np.testing.assert_array_equal(NetworkRotation(**options).fit_transform(network, X), Z)
    np.testing.assert_array_equal(first.transform(X), Z)


def test_tables_of_a_whole_network(rng):
    frame = pd.DataFrame(rng.normal(size=(50, 8)), columns=[f"x{i}" for i in range(8)])
    network = random_network([8, 6, 5, 3], ["tanh", "tanh", "identity"])
    rotation = NetworkRotation(network, tol=1e-2, random_state=0)
    Z = rotation.fit(frame).transform(frame, site=1)
    rotation.set_output(transform="pandas")
    table = rotation.transform(frame)
    assert list(table.columns) == list(rotation.get_feature_names_out())
    assert list(table.index) == list(frame.index)
    with pytest.raises(ValueError, match=r"5 axes of site 2.*site=1 have shape \(50, 6\)"):
        rotation.transform(frame, site=1)
    rotation.set_output(transform="default")
    np.testing.assert_array_equal(rotation.transform(frame, site=1), Z)


def test_a_whole_network_is_searched_over_and_frozen(rng):
    X = rng.normal(size=(40, 8))
    networks = [random_network([8, width, 3], ["tanh", "identity"]) for width in (4, 6)]
    search = GridSearchCV(NetworkRotation(tol=1e-1), {"network": networks}, cv=2).fit(X)
    assert search.best_estimator_.network in networks
    frozen = make_pipeline(FrozenEstimator(search.best_estimator_), LogisticRegression())
    assert frozen.fit(X, X[:, 0] > 0).predict(X).shape == (40,)
