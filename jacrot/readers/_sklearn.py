"""scikit-learn's multilayer perceptrons."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.validation import check_is_fitted

from jacrot.activations import Elementwise
from jacrot.layers import Dense, Layer, Softmax
from jacrot.network import Network

_HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
# Softmax is not elementwise and becomes a separate layer.
_OUTPUT: dict[str, str | Elementwise] = {
    "identity": "identity",
    "logistic": "sigmoid",
    "softmax": "identity",
    "exp": anp.exp,
}


def from_sklearn(model: Any, *, logits: bool = True) -> Network:
    """Read a fitted multilayer perceptron of scikit-learn.

    Parameters
    ----------
    model : MLPClassifier or MLPRegressor
        The fitted model. Earlier steps of a pipeline are not part of the network: its inputs are
        those of the perceptron itself.
    logits : bool, default=True
        Whether to leave out the activation of the outputs, so that the network of a classifier
        returns logits. With ``False`` it returns ``predict_proba`` (the probability of the second
        of two classes, or of each label of a multilabel classifier), or ``predict`` of a
        regressor, as columns.

    Returns
    -------
    Network
        Dense layers in the dtype of the fit, followed by a softmax for ``logits=False`` and three
        or more classes.

    Raises
    ------
    TypeError
        If `model` is not a multilayer perceptron.
    ValueError
        If `model` is not fitted (scikit-learn's ``NotFittedError``).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neural_network import MLPRegressor
    >>> from jacrot.readers import from_sklearn
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> model = MLPRegressor(hidden_layer_sizes=[4], solver="lbfgs", random_state=0)
    >>> network = from_sklearn(model.fit(X, X[:, 0]))
    >>> network
    Network(3 → 4 → 1; relu, identity)
    >>> np.allclose(network(X)[:, 0], model.predict(X))
    True
    """
    if not isinstance(model, (MLPClassifier, MLPRegressor)):
        raise TypeError(
            f"from_sklearn reads MLPClassifier and MLPRegressor, got {type(model).__name__}; pass "
            "the fitted perceptron itself, such as pipeline[-1]."
        )
    try:
        check_is_fitted(model, "coefs_")
    except NotFittedError as error:
        raise NotFittedError(
            f"model={model!r} is not fitted and has no weights; call model.fit(X, y) first."
        ) from error
    last = "identity" if logits else _OUTPUT[model.out_activation_]
    activations = [_HIDDEN[model.activation]] * (len(model.coefs_) - 1) + [last]
    layers: list[Layer] = [
        Dense(weight.T, bias, activation)
        for weight, bias, activation in zip(
            model.coefs_, model.intercepts_, activations, strict=True
        )
    ]
    if not logits and model.out_activation_ == "softmax":
        layers.append(Softmax())
    return Network(layers)
