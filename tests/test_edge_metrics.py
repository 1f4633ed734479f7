"""Metrics of edge curves: one logit or several, probabilities, labels, and functions of users."""

import numpy as np
import pytest
from builders import framework, random_network
from scipy.special import expit, softmax
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, log_loss
from sklearn.neural_network import MLPClassifier

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.inspection import edge_curve
from jacrot.inspection._metrics import without_probabilities
from jacrot.layers import Activation, Dense, Sequential, Softmax
from jacrot.readers import from_sklearn

X = np.random.default_rng(0).normal(size=(200, 4))
CALIBRATION, X_TEST = X[:120], X[120:]
CLASSES = {2: X[:, 0] * X[:, 1] > 0, 3: np.digitize(X[:, 0] + X[:, 1] ** 2, [0.2, 1.2])}


def classifier(n_classes):
    y = CLASSES[n_classes].astype(int)
    model = MLPClassifier((6, 5), "tanh", solver="lbfgs", max_iter=60, tol=1e-2, random_state=0)
    return model.fit(X, y), y[120:]


@pytest.fixture(scope="module")
def binary():
    return classifier(2)


@pytest.fixture(scope="module")
def three():
    return classifier(3)


def curve_of(network, y=None, metric="accuracy", layer=None, basis="given", **options):
    arguments = {"calibration": CALIBRATION, "n_points": 6, "n_resamples": 50, "random_state": 0}
    return edge_curve(
        network, X_TEST, y, metric=metric, layer=layer, basis=basis, **arguments | options
    )


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("name", ["binary", "three"])
def test_a_classifier_is_measured_as_scikit_learn_does(name, logits, request):
    model, y = request.getfixturevalue(name)
    network = from_sklearn(model, logits=logits)
    assert curve_of(network, y).full == model.score(X_TEST, y)
    probabilities = model.predict_proba(X_TEST)
    crossing = curve_of(network, y, "cross_entropy")
    np.testing.assert_allclose(crossing.full, log_loss(y, probabilities))
    divergence = curve_of(network, metric="kl")
    assert divergence.full == 0
    # The affine map of the last layer is the layer itself, that of the middle layer is not.
    np.testing.assert_allclose(curve_of(network, metric="kl", layer=2).affine, 0, atol=1e-9)
    # The last layer without any connection writes the logits of the mean of what it reads.
    logits = from_sklearn(model)
    (none,) = logits[2:](logits[:2](CALIBRATION).mean(axis=0)[None])
    none = softmax(none) if len(none) > 1 else np.array([expit(-none[0]), expit(none[0])])
    got = curve_of(network, metric="kl", layer=2).measure(0)
    np.testing.assert_allclose(got, entropy(probabilities, none[None], axis=1).mean(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy", "kl"])
def test_probabilities_are_traced_back_to_their_logits(metric, binary, three):
    for model, y in (binary, three):
        logits, probabilities = (from_sklearn(model, logits=which) for which in (True, False))
        for layer in (None, 0, 1, 2):
            one, other = (curve_of(net, y, metric, layer) for net in (logits, probabilities))
            np.testing.assert_array_equal(one.n_edges, other.n_edges)
            np.testing.assert_allclose(one.values, other.values, atol=1e-9)


OF_SITES = ["given", "random", "pca", "interaction"]
OF_A_LAYER = [*OF_SITES, "svd", "quartimax", "functional_svd", "functional"]
EVERYWHERE = [(basis, layer) for basis in OF_A_LAYER for layer in range(3)]
EVERYWHERE += [(basis, None) for basis in OF_SITES]


@pytest.mark.parametrize(("basis", "layer"), EVERYWHERE)
@pytest.mark.slow
def test_all_edges_of_a_network_with_one_output(basis, layer):
    network = random_network([4, 3, 2, 1], ["tanh", "softplus", "identity"], seed=3)
    y = (network(X_TEST)[:, 0] > 0).astype(int)
    for metric in ("accuracy", "cross_entropy", "kl"):
        curve = curve_of(network, y, metric, layer, basis)
        np.testing.assert_allclose(curve.values[-1], curve.full, atol=1e-7)
        # One logit: what follows the last layer reads one direction, what follows another fewer
        # than it has outputs.
        assert curve.ranks[-1] >= 1
    assert curve_of(network, y, "accuracy", layer, basis).full == 1


def test_the_metric_of_a_user_sees_what_the_network_writes(binary):
    model, y = binary
    seen = {}
    for logits in (True, False):

        def metric(outputs, y, logits=logits):
            seen[logits] = outputs
            return accuracy_score(y, outputs[:, 0] > (0 if logits else 0.5))

        curve = curve_of(from_sklearn(model, logits=logits), y, metric, n_resamples=5)
        curve.measure(10**6)
        assert curve.full == model.score(X_TEST, y)
    seen.clear()
    curve.measure(10**6)
    np.testing.assert_allclose(seen[False], model.predict_proba(X_TEST)[:, 1:])


def test_a_keras_classifier_with_a_sigmoid():
    framework("keras")
    import keras

    from jacrot.readers import from_keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(5, "relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(1, "sigmoid")])
    y = np.arange(len(X_TEST)) % 2
    p = np.asarray(model.predict(X_TEST, verbose=0)).astype(np.float64)[:, 0]
    assert curve_of(from_keras(model), y).full == np.mean((p > 0.5) == y)
    crossing = curve_of(from_keras(model), y, "cross_entropy").full
    np.testing.assert_allclose(crossing, log_loss(y, p), rtol=1e-5)


HIDDEN = Dense(np.random.default_rng(1).normal(size=(3, 4)), activation="tanh")
LOGITS = Dense(np.random.default_rng(2).normal(size=(3, 3)), activation="identity")
ONE = Dense(np.ones((1, 3)), activation="identity")


def logistic(t):
    return 1 / (1 + np.exp(-t))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([HIDDEN, LOGITS.changed(activation="sigmoid")], "a sigmoid of 3 separate outputs"),
        ([HIDDEN, LOGITS, Activation("sigmoid")], "a sigmoid of 3 separate outputs"),
        ([HIDDEN, Sequential([LOGITS, Softmax()])], "what look like probabilities"),
        ([HIDDEN, ONE, Activation("softplus"), Activation("tanh")], "what look like probabilities"),
        ([Softmax()], "has no connections to remove"),
    ],
)
@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy", "kl"])
def test_other_probabilities_are_refused(layers, metric, message):
    y = np.zeros(len(X_TEST), int)
    with pytest.raises(ValueError, match=message):
        curve_of(Network(layers), y, metric)


Y = np.arange(len(X_TEST)) % 3


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y + 1, r"labels from 1 to 3, but the network has logits of 3 classes; pass integers from"),
        (Y - 1, r"labels from -1 to 1"),
        (Y.astype(float), r"labels of dtype float64; pass the number of the logit"),
        (np.where(Y, Y, np.nan), r"labels of dtype float64"),
        (Y.astype(str), r"labels of dtype <U\d+; pass the number"),
        (np.array(["a", 1], dtype=object)[Y % 2], r"labels of dtype object"),
        (Y[:, None], r"but has shape \(80, 1\)"),
        (Y[:-1], r"but has shape \(79,\)"),
        (None, r"y must have a label for each of 80 samples of X, got None"),
    ],
)
@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
def test_labels_that_match_no_logit_are_refused(y, metric, message):
    with pytest.raises(ValueError, match=message):
        curve_of(Network([HIDDEN, LOGITS]), y, metric)


@pytest.mark.parametrize("y", [Y % 2 + 1, 2 * (Y % 2) - 1, Y])
def test_labels_of_one_logit_are_zero_and_one(y):
    with pytest.raises(ValueError, match=r"logits of 2 classes; pass integers from 0 to 1"):
        curve_of(Network([HIDDEN, ONE]), y)
    assert curve_of(Network([HIDDEN, ONE]), y > 1).full <= 1


@pytest.mark.parametrize(
    ("metric", "error", "message"),
    [
        ("f1", ValueError, "metric='f1' is unknown; pass"),
        (None, ValueError, "metric=None is unknown"),
        (["kl"], ValueError, r"metric=\['kl'\] is unknown"),
        (lambda outputs, y: np.nan, ValueError, "metric <lambda> is NaN or infinite for the netw"),
        (lambda outputs, y: np.inf, ValueError, "metric <lambda> is NaN or infinite"),
        (lambda outputs, y: outputs, TypeError, "that returns one number"),
        (lambda outputs, y: None, TypeError, "that returns one number"),
        (lambda outputs, y: "0.5", TypeError, "that returns one number"),
        (lambda outputs, y: 1j, TypeError, "that returns one number"),
    ],
)
def test_a_metric_is_a_finite_number(metric, error, message):
    with pytest.raises(error, match=message):
        curve_of(Network([HIDDEN, LOGITS]), Y, metric)


def test_a_metric_that_is_nan_later_is_refused():
    calls = []

    def metric(outputs, y):
        calls.append(None)
        return np.nan if len(calls) > 3 else 0.5

    with pytest.raises(ValueError, match=r"metric metric is NaN or infinite for \d+ connections"):
        curve_of(Network([HIDDEN, LOGITS]), Y, metric)
    # Ten labels of one class each: a resample without some of them.
    with pytest.raises(ValueError, match=r"for a resample of the inputs and \d+ connections"):
        curve_of(
            Network([HIDDEN, LOGITS]),
            np.arange(80),
            lambda outputs, y: 1.0 if len(np.unique(y)) == 80 else np.nan,
        ).edges_needed(0.1)
    with pytest.raises(ValueError, match="y must have an entry for each of 80 samples"):
        curve_of(Network([HIDDEN, LOGITS]), Y[:-1], metric)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (None, {"calibration": CALIBRATION[:1]}, "calibration has 1 row"),
        (None, {"calibration": np.repeat(CALIBRATION[:1], 9, axis=0)}, "site 0 is the same for"),
        (
            [HIDDEN, Dense(np.zeros((3, 3)), activation="identity")],
            {},
            "centred logits are",
        ),
        (
            [HIDDEN, Dense(np.ones((3, 3)), activation="identity")],
            {},
            "centred logits are",
        ),
        ([Dense(-np.eye(4), np.full(4, -99)), Dense(np.ones((3, 4)))], {}, "site 1 is the same"),
        (None, {"n_resamples": 0}, "n_resamples=0 must be an integer of at least 1"),
        (None, {"n_points": 2.5}, r"n_points=2.5 must be an integer of at least 2"),
    ],
)
@pytest.mark.parametrize("basis", ["given", "pca", "interaction"])
@pytest.mark.parametrize("layer", [None, 1])
def test_nothing_that_varies_is_an_error(network, options, message, basis, layer):
    with pytest.raises(ValueError, match=message):
        curve_of(Network(network or [HIDDEN, LOGITS]), Y, layer=layer, basis=basis, **options)


def test_axes_of_a_network_that_ends_in_probabilities():
    y = np.zeros(len(X_TEST), int)
    sigmoids = [ONE.changed(activation="sigmoid")], [ONE, Activation("sigmoid")]
    for end in ([LOGITS, Softmax()], *sigmoids):
        network = Network([HIDDEN, *end])
        one = JacobianSparsityRotation(tol=0.1, random_state=0)
        one.fit(network[1:2], network[:1](CALIBRATION))
        whole = NetworkRotation(network, tol=0.1, random_state=0).fit(CALIBRATION)
        for basis, layer in ((one, 1), (whole, 1), (whole, None)):
            curve = curve_of(network, y, "cross_entropy", layer, basis)
            np.testing.assert_allclose(curve.values[-1], curve.full, atol=1e-7)
    logits, *others = (
        curve_of(Network([HIDDEN, *end]), y, "cross_entropy").values for end in ([ONE], *sigmoids)
    )
    for other in others:
        np.testing.assert_allclose(other, logits)
    with pytest.raises(ValueError, match="which is not network"):
        curve_of(Network([HIDDEN, LOGITS]), y, "kl", None, whole)


def test_a_layer_derived_from_dense_keeps_what_it_computes(rng):
    class Doubled(Dense):
        def __call__(self, x):
            return 2 * super().__call__(x)

        def jvp(self, x, tangents):
            y, pushed = super().jvp(x, tangents)
            return 2 * y, 2 * pushed

    weight = rng.normal(size=(1, 4))
    network = Network([Dense(rng.normal(size=(4, 3))), Doubled(weight, activation="sigmoid")])
    rest, last = without_probabilities(network, 1)
    assert rest.layers[-1] is network[-1]
    assert last is None
