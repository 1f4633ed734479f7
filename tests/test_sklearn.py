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

from jacrot import JacobianSparsityRotation, Network

RNG = np.random.default_rng(0)
W = RNG.normal(size=(12, 8))
X = RNG.normal(size=(50, 8))
y = (X[:, 0] > 0).astype(int)


def elementwise(x):
    """Compute a network of any width."""
    return x + 0.1 * x**2


@parametrize_with_checks(
    [
        JacobianSparsityRotation(elementwise),
        JacobianSparsityRotation(elementwise, rotate_output=True),
        JacobianSparsityRotation(elementwise, rotate_output="tied"),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
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
@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names")
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


def test_grid_search_over_components_and_networks():
    networks = [Network(W), random_network([8, 6, 4], ["tanh", "gelu"])]
    grid = {"network": networks, "n_components": [2, 0.9, None]}
    search = GridSearchCV(JacobianSparsityRotation(random_state=0), grid, cv=2).fit(X)
    assert len(search.cv_results_["params"]) == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.network in networks
    assert search.best_estimator_.network is search.best_params_["network"]
