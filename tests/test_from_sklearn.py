"""Perceptrons of scikit-learn: outputs, and Jacobians by finite differences."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jacrot.readers import from_sklearn

MODELS = {
    "widths": st.lists(st.integers(1, 6), max_size=3),
    "activation": st.sampled_from(["identity", "logistic", "tanh", "relu"]),
    "seed": st.integers(0, 1000),
}


def fitted(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.set_params(max_iter=3).fit(X, y)


def differences(function, X, step=1e-6):
    """Differentiate a function of rows, by central differences."""
    columns = [
        (function(X + step * axis) - function(X - step * axis)) / (2 * step)
        for axis in np.eye(X.shape[1])
    ]
    return np.stack(columns, axis=-1)


def check(network, function, X):
    np.testing.assert_allclose(network(X), function(X), rtol=1e-12, atol=1e-12)
    expected = differences(function, X)
    np.testing.assert_allclose(
        network.jacobians(X), expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-10
    )


@settings(max_examples=15, deadline=None)
@given(**MODELS, n_outputs=st.integers(1, 3))
def test_regressor(widths, activation, seed, n_outputs):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 4))
    model = MLPRegressor(hidden_layer_sizes=widths, activation=activation, random_state=seed)
    fitted(model, X, rng.normal(size=(30, n_outputs)).squeeze())
    for logits in (True, False):
        check(from_sklearn(model, logits=logits), lambda x: model.predict(x).reshape(len(x), -1), X)


@settings(max_examples=15, deadline=None)
@given(**MODELS, n_classes=st.integers(2, 4))
def test_classifier(widths, activation, seed, n_classes):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 4))
    model = MLPClassifier(widths, activation=activation, random_state=seed)
    fitted(model, X, np.arange(30) % n_classes)

    def probabilities(x):
        return model.predict_proba(x)[:, 1:] if n_classes == 2 else model.predict_proba(x)

    check(from_sklearn(model, logits=False), probabilities, X)
    logits = from_sklearn(model)(X)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = 1 / (1 + np.exp(-logits)) if n_classes == 2 else odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(expected, probabilities(X), rtol=1e-9)


def test_several_labels_have_a_column_each(rng):
    X = rng.normal(size=(30, 4))
    model = fitted(MLPClassifier([5], random_state=0), X, rng.integers(0, 2, size=(30, 3)))
    check(from_sklearn(model, logits=False), model.predict_proba, X)


def test_poisson_regressor(rng):
    X = rng.normal(size=(30, 4))
    try:
        model = MLPRegressor(
            hidden_layer_sizes=[5], activation="tanh", loss="poisson", random_state=0
        )
    except TypeError:
        pytest.skip("scikit-learn before 1.7 has no Poisson loss")
    fitted(model, X, rng.poisson(2, size=30))
    check(from_sklearn(model, logits=False), lambda x: model.predict(x)[:, None], X)
    np.testing.assert_allclose(np.exp(from_sklearn(model)(X))[:, 0], model.predict(X))


def test_single_precision_is_kept(rng):
    X = rng.normal(size=(30, 4)).astype(np.float32)
    network = from_sklearn(fitted(MLPRegressor(hidden_layer_sizes=[5], random_state=0), X, X[:, 0]))
    assert network(X).dtype == network.jacobians(X).dtype == np.float32


def test_unfitted_and_foreign_models_are_refused():
    with pytest.raises(ValueError, match=r"is not fitted.*call model\.fit"):
        from_sklearn(MLPRegressor())
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), MLPRegressor()), None):
        with pytest.raises(TypeError, match=f"MLPRegressor, got {type(model).__name__}"):
            from_sklearn(model)
