"""What fit takes for the network and what for activations, and models and tensors of others."""

import subprocess
import sys

import autograd.numpy as anp
import numpy as np
import pytest
from builders import framework, random_network
from sklearn.base import clone
from sklearn.neural_network import MLPRegressor

from jacrot import JacobianSparsityRotation, Network, NetworkRotation
from jacrot.layers import Dense, Function
from jacrot.readers import from_torch

ESTIMATORS = [JacobianSparsityRotation, NetworkRotation]
ORDER = r"pass \w+\(network\)\.fit\(X\), or \w+\(\)\.fit\(weights, X\), in this order"


@pytest.fixture
def data(rng):
    network = random_network([5, 6, 4], ["relu", "identity"])
    return network, rng.normal(size=(30, 5))


def networks(network):
    (W, b), (V, c) = ((layer.weight, layer.bias) for layer in network)
    return {
        "Network": network,
        "layers": list(network.layers),
        "a layer": network[0],
        "matrices": [W, V],
        "pairs": [(W, b), (V, c)],
        "flat list": [W, b, V, c],
        "mapping": {"W": W, "b": b},
        "callable": network.__call__,
        "one pair": [(W, b)],
    }


@pytest.mark.parametrize("kind", networks(random_network([2, 2, 2], ["relu", "identity"])))
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_activations_before_the_network_are_refused(estimator, kind, data):
    network, X = data
    weights = networks(network)[kind]
    with pytest.raises(ValueError, match=ORDER):
        estimator().fit(X, weights)
    with pytest.raises(ValueError, match=ORDER):
        estimator(X).fit(weights)
    with pytest.raises(ValueError, match=ORDER):
        estimator().fit(X.tolist(), weights)


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, "frame", "torch"])
def test_activations_before_jacobians_are_refused(form, data):
    network, X = data
    J = network.jacobians(X)
    if form == "frame":
        form = pytest.importorskip("pandas").DataFrame
    elif form == "torch":
        form = framework("torch").tensor
    arguments = form(X), J
    for several in (J, J[:, None]):
        if isinstance(arguments[0], list):
            continue
        with pytest.raises(ValueError, match=r"Jacobians come first: pass \w+\(\)\.fit\(jacobians"):
            JacobianSparsityRotation().fit(arguments[0], several)
        with pytest.raises(ValueError, match="Jacobians come first"):
            JacobianSparsityRotation(arguments[0]).fit(several)
        with pytest.raises(ValueError, match="Jacobians come first"):
            JacobianSparsityRotation().fit([arguments[0]] * 2, [several] * 2)


def test_a_weight_matrix_and_as_many_sequences_have_a_way_in(rng):
    W, X = rng.normal(size=(6, 5)), rng.normal(size=(6, 3, 5))
    with pytest.raises(ValueError, match=r"pass Network\(weights\) in its place"):
        JacobianSparsityRotation().fit(W, X)
    JacobianSparsityRotation(tol=1e-2).fit(Network(W), X)
    JacobianSparsityRotation(tol=1e-2).fit(W, X[:5])


def test_blocks_in_the_wrong_order_are_refused(data):
    network, X = data
    block = Network([np.eye(5)], "identity")
    for blocks in ([block, block], [[(np.eye(5), np.ones(5))]] * 2):
        with pytest.raises(ValueError, match=ORDER):
            JacobianSparsityRotation().fit([X, X], blocks)
        with pytest.raises(ValueError, match=ORDER):
            JacobianSparsityRotation([X, X]).fit(blocks)
    with pytest.raises(ValueError, match="X is a list of 2 arrays"):
        NetworkRotation().fit(network, [X, X])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_models_are_sent_to_their_reader(estimator, data):
    _, X = data
    for model, advice in (
        ("model.onnx", r"is a str; pass jacrot\.readers\.load"),
        (MLPRegressor(), r"is a scikit-learn estimator \(MLPRegressor\); .*from_sklearn"),
    ):
        with pytest.raises(TypeError, match=f"weights {advice}"):
            estimator().fit(model, X)
        with pytest.raises(TypeError, match=f"weights {advice}"):
            estimator(model).fit(X)
        with pytest.raises(TypeError, match=f"weights {advice}"):
            Network(model)
        with pytest.raises(ValueError, match=ORDER):
            estimator().fit(X, model)


def torch_models():
    torch = framework("torch")

    class Model(torch.nn.Module):
        pass

    linear = torch.nn.Linear(5, 3)
    return [torch.nn.Sequential(linear), Model(), torch.jit.trace(linear, torch.zeros(1, 5))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_torch_modules_are_sent_to_capture(estimator, data):
    for model in torch_models():
        advice = r"is a PyTorch module \(\w+\); pass what jacrot\.readers\.capture.*from_torch"
        with pytest.raises(TypeError, match=advice):
            estimator().fit(model, data[1])
        with pytest.raises(TypeError, match=advice):
            estimator().fit([model, model], data[1])
        with pytest.raises(ValueError, match=ORDER):
            estimator().fit(data[1], model)


@pytest.mark.parametrize("name", ["keras", "flax", "onnx"])
def test_other_models_are_sent_to_their_reader(name, data):
    package = framework(name)
    if name == "keras":
        model = package.Sequential([package.Input((5,)), package.layers.Dense(3)])
    elif name == "flax":
        from flax import linen

        model = linen.Dense(3)
    else:
        model = package.ModelProto()
    with pytest.raises(TypeError, match=rf"; pass jacrot\.readers\.from_{name}"):
        JacobianSparsityRotation().fit(model, data[1])


def test_nothing_is_imported_to_know_a_model():
    code = (
        "import sys; from jacrot import Network; from sklearn.svm import SVC\n"
        "try: Network(SVC())\n"
        "except TypeError: pass\n"
        "print([name for name in ('torch', 'jax', 'keras', 'onnx') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert result.stdout.strip() == b"[]"


# Tensors


@pytest.fixture
def torch_layers():
    torch = framework("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_parameters_and_activations_that_require_gradients_are_detached(torch_layers, dtype):
    torch = framework("torch")
    model = torch_layers.to(getattr(torch, dtype))
    X = torch.randn(30, 5).to(getattr(torch, dtype)).requires_grad_()
    parameters = list(model.parameters())
    expected_type = "float64" if dtype == "float64" else "float32"
    network = Network(parameters, ["tanh", "identity"])
    with torch.no_grad():
        expected = model(X).double().numpy()
    np.testing.assert_allclose(network(X), expected, rtol=0, atol=0.1 if "16" in dtype else 1e-6)
    rotation = JacobianSparsityRotation(activation="tanh", tol=1e-2, random_state=0)
    rotation.fit(parameters[:2], X)
    assert rotation.transform(X).dtype == expected_type or dtype == "float16"
    assert rotation.score(X) == pytest.approx(rotation.sparsity_, abs=1e-4)
    plain = clone(rotation).fit(
        [p.detach().float().numpy() for p in parameters[:2]], X.detach().float().numpy()
    )
    assert plain.sparsity_ == pytest.approx(rotation.sparsity_, abs=1e-2)
    assert all(p.requires_grad and p.grad is None for p in (*parameters, X))
    mapping = Network(dict(model.named_parameters()), ["tanh", "identity"])
    np.testing.assert_array_equal(mapping(X), network(X))


def test_jacobians_that_require_gradients(torch_layers):
    torch = framework("torch")
    X = torch.randn(30, 5, requires_grad=True)
    J = torch_layers[0].weight[None] * torch.rand(30, 6, 1)
    rotation = JacobianSparsityRotation(tol=1e-2, random_state=0).fit(J, X)
    again = clone(rotation).fit(J.detach().numpy(), X.detach().numpy())
    np.testing.assert_array_equal(rotation.rotation_, again.rotation_)


def test_tensors_that_are_not_plain_are_named(data):
    torch = framework("torch")
    W = torch.eye(5)
    for tensor, message in (
        (W.to("meta"), r"is a tensor on meta; pass .*\.cpu\(\)"),
        (W.to_sparse(), "is a sparse or quantized tensor"),
        (W * 1j, "complex"),
    ):
        with pytest.raises(TypeError, match=message):
            JacobianSparsityRotation().fit(tensor, data[1])
        with pytest.raises((TypeError, ValueError), match=message.replace("complex", "Complex")):
            JacobianSparsityRotation().fit(np.eye(5), tensor)


def test_arrays_of_jax(data):
    jnp = pytest.importorskip("jax.numpy")
    network, X = data
    for dtype in (jnp.float32, jnp.bfloat16):
        weights = [jnp.asarray(network[0].weight, dtype), jnp.asarray(network[0].bias, dtype)]
        rotation = JacobianSparsityRotation(tol=1e-2, random_state=0)
        rotation.fit(weights, jnp.asarray(X, dtype))
        exact = clone(rotation).fit([np.asarray(w, np.float32) for w in weights], X)
        assert rotation.sparsity_ == pytest.approx(exact.sparsity_, abs=1e-2)


# Arrays that are not just numbers


def bad_arrays():
    pandas = pytest.importorskip("pandas")
    sparse = pytest.importorskip("scipy.sparse")
    good = np.arange(20.0).reshape(4, 5)
    masked = np.ma.masked_equal(good, 7)
    frame = pandas.DataFrame(good)
    return {
        "masked": (masked, "masked array with 1 masked entries; pass array.filled"),
        "masked sequences": (
            np.ma.masked_equal(np.arange(40.0).reshape(4, 2, 5), 7),
            "masked array with 1 masked",
        ),
        "sparse": (sparse.csr_matrix(good), "[Ss]parse"),
        "sparse array": (sparse.csr_array(good), "[Ss]parse"),
        "complex": (good + 1j, "[Cc]omplex"),
        "strings": (np.full((4, 5), "a"), "string|<U1"),
        "objects": (np.full((4, 5), object()), "float|object"),
        "huge integers": (np.full((4, 5), 10**400, dtype=object), "too large|object"),
        "categories": (frame.astype(str).replace("7.0", "a").astype("category"), "string|object"),
        "NaN": (np.where(good == 7, np.nan, good), "NaN"),
        "infinity": (np.where(good == 7, np.inf, good), "inf"),
        "missing": (frame.convert_dtypes().mask(frame == 7), "NaN|NA|object"),
        "ragged": ([[1.0, 2.0], [1.0]], "inhomogeneous|sequence"),
        "dates": (np.full((4, 5), np.datetime64("2020-01-01")), "DType|datetime|dtype"),
    }


@pytest.mark.parametrize("kind", bad_arrays())
def test_arrays_that_are_not_just_numbers_are_refused(kind, data):
    network, X = data
    array, message = bad_arrays()[kind]
    rotation = JacobianSparsityRotation(tol=1e-2).fit(network, X)
    calls = [
        lambda: JacobianSparsityRotation().fit(network, array),
        lambda: rotation.transform(array),
        lambda: rotation.score(array),
    ]
    if getattr(array, "ndim", 2) == 2:
        calls += [lambda: JacobianSparsityRotation().fit(array, X), lambda: network(array)]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_arrays_that_are_read(data):
    pandas = pytest.importorskip("pandas")
    network, X = data
    expected = JacobianSparsityRotation(tol=1e-2, random_state=0).fit(network, X)
    forms = [
        X.tolist(),
        pandas.DataFrame(X),
        np.ma.MaskedArray(X),
        np.ma.MaskedArray(X, mask=False),
        X.astype(object),
        np.asfortranarray(X),
        pandas.DataFrame(X).astype("Float64"),
    ]
    for form in forms:
        again = JacobianSparsityRotation(tol=1e-2, random_state=0).fit(network, form)
        np.testing.assert_allclose(again.rotation_, expected.rotation_, atol=1e-8)
    integers = np.arange(150).reshape(30, 5) % 7
    for form in (integers, integers.astype(np.uint8), integers > 3):
        JacobianSparsityRotation(tol=1e-2).fit(network, form).transform(form)


# Few samples, few features


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_samples_and_no_features_are_refused(estimator, data):
    network, X = data
    for empty in (X[:0], X[:, :0], []):
        with pytest.raises(ValueError, match=r"0 sample|0 feature|two dimensions|minimum of 1"):
            estimator().fit(network, empty)
        with pytest.raises(ValueError, match=r"0 sample|0 feature|minimum of 1|Expected 2D"):
            estimator(network).fit(empty)
    for shape in ((0, 2, 5), (3, 0, 5)):
        with pytest.raises(ValueError, match=r"0 sample|minimum of 1"):
            estimator().fit(network, np.zeros(shape))


def test_one_sample_and_one_feature(data):
    network, X = data
    one = JacobianSparsityRotation(random_state=0).fit(network, X[:1])
    np.testing.assert_allclose(one.rotation_ @ one.rotation_.T, np.eye(5), atol=1e-12)
    NetworkRotation(tol=1e-2).fit(network, X[:1])
    narrow = Network([Dense(np.array([[-2.0], [1.0]])), Function(anp.square)])
    for rotate_output in (False, True):
        model = JacobianSparsityRotation(rotate_output=rotate_output).fit(narrow, X[:, :1])
        np.testing.assert_array_equal(model.rotation_, [[1.0]])
    with pytest.raises(ValueError, match="all equal"):
        JacobianSparsityRotation(coordinates="functional").fit(network, X[:1])
    for other in (X[:, :4], X[0]):
        with pytest.raises(ValueError, match=r"features|Expected 2D"):
            one.transform(other)


def test_jacobians_of_other_lengths_are_refused(data):
    network, X = data
    J = network.jacobians(X)
    for jacobians, x in ((J[:20], X), (J, X[:20]), (J[:, :, :4], X), (J, X[:, :4])):
        with pytest.raises(ValueError, match=r"one Jacobian .* for each sample"):
            JacobianSparsityRotation().fit(jacobians, x)
    with pytest.raises(TypeError, match="complex"):
        JacobianSparsityRotation().fit(J + 1j, X)
    masked = np.ma.masked_less(J, -0.5)
    with pytest.raises(ValueError, match="masked"):
        JacobianSparsityRotation().fit(masked, X)


def test_from_torch_still_reads_what_is_no_longer_taken_for_a_function(torch_layers, data):
    network = from_torch(torch_layers)
    JacobianSparsityRotation(tol=1e-2).fit(network, data[1])
