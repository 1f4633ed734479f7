"""ONNX files of networks: what the reference evaluator and ONNX Runtime compute of them."""

import os
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from builders import CHAINS, framework, random_network, rotation
from hypothesis import HealthCheck, given, settings
from scipy import special
from test_layers import LAYERS, case, features_first, rotated

import jacrot.layers
from jacrot import Network, NetworkRotation
from jacrot.activations import ACTIVATIONS, Clip, Elu, LeakyRelu
from jacrot.datasets import load_digits_mlp
from jacrot.layers import (
    Activation,
    Attention,
    AvgPool2d,
    BaseLayer,
    BatchNorm,
    Conv2d,
    Dense,
    Flatten,
    Function,
    GatedDense,
    LayerNorm,
    MaxPool2d,
    Residual,
    RMSNorm,
    Sequential,
)
from jacrot.readers import from_onnx
from jacrot.readers._onnx_elementwise import Expression
from jacrot.writers import _onnx as writer
from jacrot.writers import layer_to_onnx, to_onnx
from jacrot.writers._onnx_activations import ACTIVATION_NODES

onnx = framework("onnx")
reference = framework("onnx.reference")

# Everything is drawn on import: no test depends on which others have run.
RNG = np.random.default_rng(0)
NAMES = sorted(set(LAYERS) - {"function"})
PARAMETRISED = [LeakyRelu(0.2), LeakyRelu(1.5), Elu(0.3), Clip(-0.5, 0.7), Clip(0.0, 6.0)]
# What ONNX Runtime does not have in double precision.
SINGLE_ONLY = {"Conv", "AveragePool", "Erf"}


@pytest.fixture(autouse=True, scope="module")
def _exact_erf():
    """Patch the evaluator to compute erf in double precision."""
    operator = pytest.importorskip("onnx.reference.ops.op_erf").Erf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "_run", lambda self, x: (special.erf(x),))
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.onnx"


def normal(*shape):
    return RNG.normal(size=shape) / np.sqrt(shape[-1])


def evaluated(path, x):
    return reference.ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})[0]


def computed(path, x):
    runtime = framework("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest)


def check(network, x, path, evaluate=(evaluated, computed)):
    """Compare outputs, in double and in single precision."""
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        to_onnx(network, path, input_shape=x.shape[1:], dtype=dtype)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        operators = {node.op_type for node in model.graph.node}
        for run in evaluate:
            if run is computed and dtype == "float64" and operators & SINGLE_ONLY:
                continue
            found = run(path, x.astype(dtype))
            assert found.dtype == dtype
            close(found, network(x), tolerance)


@pytest.mark.parametrize("evaluate", [evaluated, computed])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer(name, evaluate, path):
    layer, x = case(name)
    check(Network([layer]), x, path, [evaluate])
    Q, P = rotation(len(features_first(x))), rotation(len(features_first(layer(x))), seed=1)
    check(Network([layer.rotate_inputs(Q).rotate_outputs(P)]), rotated(Q, x), path, [evaluate])


def test_every_layer_and_activation_has_an_entry():
    public = [getattr(jacrot.layers, name) for name in jacrot.layers.__all__]
    known = {kind for kind in public if isinstance(kind, type) and issubclass(kind, BaseLayer)}
    assert known - {BaseLayer, Function} <= set(layer_to_onnx.registry)
    assert Function not in layer_to_onnx.registry
    parametrised = {*map(type, PARAMETRISED), Expression}
    assert set(ACTIVATION_NODES) == {*ACTIVATIONS, *parametrised}


@pytest.mark.parametrize("evaluate", [evaluated, computed])
@pytest.mark.parametrize("activation", [*sorted(ACTIVATIONS), *PARAMETRISED], ids=str)
def test_every_activation_far_from_zero_too(activation, evaluate, path):
    x = np.concatenate([np.linspace(-30, 30, 241), [-80, 80, 1e-9, -1e-9]])[:, None]
    network = Network([Activation(activation)])
    to_onnx(network, path)
    if evaluate is evaluated or activation != "gelu":
        np.testing.assert_allclose(evaluate(path, x), network(x), rtol=1e-12, atol=1e-12)
    to_onnx(network, path, dtype=np.float32)
    x = x.astype(np.float32)
    np.testing.assert_allclose(evaluate(path, x), network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", [((0, 1), (2, 0)), 2, ((3, 0), (0, 0)), 4])
def test_padding_of_pools(padding, path):
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 5))
    check(Network([AvgPool2d(3, 2, padding)]), x, path)
    if padding in (2, ((0, 1), (2, 0))):  # without windows that see nothing
        check(Network([AvgPool2d(3, 2, padding, count_padding=False)]), x, path)
        check(Network([MaxPool2d(3, 2, padding)]), x, path)
        check(Network([MaxPool2d((3, 3), 1, padding, dilation=(1, 2))]), x, path)


def conv(n_out, n_in, size=3, activation="tanh", **geometry):
    return Conv2d(normal(n_out, n_in, size, size), normal(n_out), activation, **geometry)


NETWORKS = {
    "perceptron": random_network([5, 6, 4, 3], ["elu", "tanh", "identity"]),
    "convolutional": Network(
        [
            conv(4, 2, padding=1, stride=2, activation="relu"),
            BatchNorm(normal(4), np.ones(4), normal(4), normal(4)),
            MaxPool2d(2, 1),
            Residual([conv(4, 4, padding=1), conv(4, 4, padding=1, activation="identity")]),
            Activation("gelu"),
            AvgPool2d(),
            Flatten(),
            BatchNorm(normal(4), np.ones(4)),
            Dense(normal(3, 4), normal(3), "identity"),
        ]
    ),
    "transformer": Network(
        [
            Dense(normal(4, 5), normal(4), "identity"),
            Residual(
                [
                    LayerNorm(normal(4), normal(4)),
                    Attention(*[normal(4, 4) for _ in range(4)], n_heads=2, mask="causal"),
                ]
            ),
            Residual(
                [
                    RMSNorm(normal(4)),
                    GatedDense(normal(6, 4), normal(6, 4)),
                    Dense(normal(4, 6), normal(4), "identity"),
                ]
            ),
            LayerNorm(normal(4), normal(4)),
            Dense(normal(3, 4), normal(3), "identity"),
        ]
    ),
}
# Samples of some shapes, and the widths of the sites inside.
SHAPES = {
    "perceptron": [(5,), (7, 5)],
    "convolutional": [(2, 8, 7), (2, 9, 12)],
    "transformer": [(3, 5), (6, 5)],
}
WIDTHS = {"perceptron": [6, 4], "convolutional": [4] * 8, "transformer": [4] * 4}


def turned(name):
    sites = {site: rotation(width, site) for site, width in enumerate(WIDTHS[name], start=1)}
    return NETWORKS[name].rotated(sites)


@pytest.mark.parametrize("evaluate", [evaluated, computed])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_rotated_at_every_site(name, evaluate, path):
    for network in (NETWORKS[name], turned(name)):
        for shape in SHAPES[name]:
            x = np.random.default_rng(0).normal(size=(3, *shape))
            check(network, x, path, [evaluate])
            close(network(x), NETWORKS[name](x))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_axes_of_any_size(name, path):
    network = turned(name)
    to_onnx(network, path, dtype="float32")
    shapes = SHAPES[name][:1] if name == "perceptron" else SHAPES[name]
    for n_samples, shape in [(n, shape) for n in (1, 4) for shape in shapes]:
        x = np.random.default_rng(0).normal(size=(n_samples, *shape)).astype(np.float32)
        close(computed(path, x), network(x), 1e-5)


def names_of(path):
    """Return the names of the axes of the inputs, or their sizes."""
    [x] = onnx.load(path).graph.input
    return [axis.dim_param or axis.dim_value for axis in x.type.tensor_type.shape.dim]


def test_shape_of_the_inputs(path):
    network = NETWORKS["perceptron"]
    for input_shape, expected in (
        (None, [5]),
        ([None], [5]),
        ((None, None), ["n_positions", 5]),
        (np.zeros((1, 7, 5)).shape[1:], [7, 5]),
    ):
        to_onnx(network, path, input_shape=input_shape)
        assert names_of(path) == ["n_samples", *expected]
    to_onnx(NETWORKS["convolutional"], path, input_shape=(2, 9, None))
    assert names_of(path) == ["n_samples", 2, 9, "width"]
    to_onnx(Network([Activation("relu")]), path, input_shape=(None, np.int64(3), 4))
    assert names_of(path) == ["n_samples", "n_channels", 3, 4]
    to_onnx(NETWORKS["transformer"], path)
    assert names_of(path) == ["n_samples", "n_positions", 5]


@pytest.mark.filterwarnings("ignore:the search did not converge")
def test_rotated_in_functional_coordinates(path):
    digits = load_digits_mlp()
    X = digits.X[:100]
    model = NetworkRotation(
        digits.network,
        coordinates="functional",
        criterion="log",
        rotate_input=True,
        max_iter=2,
        random_state=0,
    ).fit(X)
    to_onnx(model.rotated_network(), path)
    # Weights are stored, none is an input to be given.
    assert [given.name for given in onnx.load(path).graph.input] == ["x"]
    close(computed(path, X), model.rotated_network()(X))
    close(computed(path, X), digits.network(X), 1e-10)


def test_precision_is_the_networks(path):
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    single = random_network([5, 6, 3], ["softplus", "identity"], dtype=np.float32)
    to_onnx(single, path)
    found = computed(path, x)
    assert found.dtype == np.float32
    close(found, single(x), 1e-6)
    # In part double: operators want one precision.
    network = single.rotated({1: rotation(6)})
    to_onnx(network, path)
    close(computed(path, x.astype(np.float64)), network(x.astype(np.float64)))


def test_single_precision_has_the_operators_by_name(path):
    operators = {"elu": "Elu", "selu": "Selu", "leaky_relu": "LeakyRelu", "softplus": "Softplus"}
    operators |= {"gelu": "Gelu", "gelu_tanh": "Gelu"}
    for activation, operator in operators.items():
        to_onnx(Network([Dense(np.eye(2), activation=activation)]), path, dtype="float32")
        found = [node.op_type for node in onnx.load(path).graph.node]
        assert found == ["MatMul", operator, "Identity"]
    to_onnx(Network([LayerNorm(np.ones(2))]), path, dtype="float32")
    assert onnx.load(path).graph.node[0].op_type == "LayerNormalization"


def test_versions_that_older_runtimes_know(path):
    to_onnx(NETWORKS["perceptron"], path)
    model = onnx.load(path)
    assert (model.ir_version, [item.version for item in model.opset_import]) == (9, [20])
    assert [tensor.name for tensor in model.graph.initializer][:2] == ["0.weight", "0.bias"]


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(**CHAINS)
def test_read_back(path, widths, names, seed):
    network = random_network(widths, names[: len(widths) - 1], seed)
    if len(widths) > 2:
        network = network.rotated({1: rotation(widths[1], seed)})
    x = np.random.default_rng(seed).normal(size=(4, widths[0]))
    to_onnx(network, path)
    again = from_onnx(path)
    close(again(x), network(x))
    # The reader may know an activation that is written out by its operators only.
    np.testing.assert_allclose(again.jacobians(x), network.jacobians(x), rtol=0, atol=1e-9)


def test_images_read_back(path):
    network = turned("convolutional")
    x = np.random.default_rng(0).normal(size=(3, 2, 8, 7))
    to_onnx(network, path)
    close(from_onnx(path)(x), NETWORKS["convolutional"](x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("opset", "nodes"),
    [
        (9, [("Clip", ["x"], "y", {"min": 0.0, "max": 6.0})]),
        (9, [("Clip", ["x"], "y", {"max": 0.5})]),
        (13, [("Clip", ["x", "", "half"], "y", {})]),
        (13, [("LeakyRelu", ["x"], "y", {"alpha": 0.25})]),
        (14, [("HardSwish", ["x"], "y", {})]),
        (13, [("Sub", ["half", "x"], "a", {}), ("Pow", ["a", "two"], "y", {})]),
        (
            13,
            [("Softplus", ["x"], "a", {}), ("Tanh", ["a"], "b", {}), ("Mul", ["x", "b"], "y", {})],
        ),
    ],
)
def test_activations_that_were_read_from_operators(dtype, opset, nodes, path):
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node(operator, inputs, [output], **attributes)
            for operator, inputs, output, attributes in nodes
        ],
        "activation",
        [helper.make_tensor_value_info("x", kind, ["n", 3])],
        [helper.make_tensor_value_info("y", kind, ["n", 3])],
        [
            onnx.numpy_helper.from_array(np.array(value, dtype), name)
            for name, value in (("half", 0.5), ("two", 2.0))
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(dtype) * 4
    network = from_onnx(model)
    to_onnx(network, path, dtype=dtype)
    expected = reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    close(evaluated(path, x), expected, 1e-6 if dtype == "float32" else 1e-12)


class Square(BaseLayer):
    """A user's own."""

    def __call__(self, x):
        return x**2

    def jvp(self, x, tangents):
        raise NotImplementedError


@dataclass(frozen=True)
class Power(BaseLayer):
    """A user's own, with a converter."""

    exponents: np.ndarray
    positionwise = True

    def __call__(self, x):
        return np.abs(x) ** self.exponents * x

    def jvp(self, x, tangents):
        raise NotImplementedError


@pytest.fixture
def power_converter():
    @layer_to_onnx.register(Power)
    def convert(layer, graph, x, ndim):
        exponents = graph.tensor("exponents", layer.exponents)
        return graph.node("Mul", graph.node("Pow", graph.node("Abs", x), exponents), x)

    yield convert
    del layer_to_onnx.registry[Power]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_of_ones_own_is_converted(power_converter, rng, dtype, path):
    weight = rng.normal(size=(3, 3)).astype(dtype)
    power = Power(np.array([0.5, 1, 2], dtype))
    network = Network([Residual([power, Dense(weight, activation="tanh")]), Sequential([power])])
    x = rng.normal(size=(5, 3)).astype(dtype)
    to_onnx(network, path)
    close(evaluated(path, x), network(x), 1e-6 if dtype == np.float32 else 1e-12)
    names = {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert {"0.branch.0.exponents", "1.0.exponents"} < names
    Q = rotation(3)
    turned = network.rotated({0: Q, 1: Q})
    to_onnx(turned, path)
    x = x.astype(np.float64)
    close(evaluated(path, x), turned(x), 1e-12)


def test_a_converter_is_for_its_class_only(power_converter, path):
    class Halved(Power):
        def __call__(self, x):
            return super().__call__(x) / 2

    with pytest.raises(ValueError, match=r"layer 0, .*Halved.* is your own Python code"):
        to_onnx(Network([Halved(np.ones(3))]), path)
    with pytest.raises(ValueError, match=r"Halved.*for which no converter is registered"):
        layer_to_onnx(Halved(np.ones(3)), None, "x", 2)


DENSE = Dense(np.eye(2))


@pytest.mark.parametrize(
    ("network", "options", "error", "message"),
    [
        ([np.eye(2)], {}, TypeError, r"network is a list; pass a jacrot.Network \(for several"),
        (
            Network([DENSE, Sequential([Square(), DENSE])]),
            {},
            ValueError,
            r"layer 1\.0, <.*Square.*>, is your own Python code, which to_onnx cannot convert; "
            r"register .*layer_to_onnx\.register, .* it, network\[:1\] and network\[2:\]",
        ),
        (Network(np.sin), {}, ValueError, r"layer 0, Function\(sin\), is your own Python code"),
        (
            Network([Dense(np.eye(2), activation=lambda x: x * x)]),
            {},
            ValueError,
            r"layer 0, Dense\(.*<lambda>\), has an activation .*'elu', .*activation='identity'",
        ),
        (Network([DENSE]), {"dtype": "float16"}, ValueError, "dtype='float16' must be 'float32'"),
        (Network([DENSE]), {"dtype": "floaty"}, ValueError, "dtype='floaty' must be 'float32'"),
        (
            Network([DENSE]),
            {"input_shape": (2, 3, 4)},
            ValueError,
            r"input_shape=\(2, 3, 4\), but the network reads rows \(n_features\) or sequences "
            r"\(n_positions, n_features\); pass a whole number for each axis",
        ),
        (
            Network([Residual([Flatten(), DENSE])]),
            {"input_shape": (1, 2)},
            ValueError,
            r"input_shape=\(1, 2\), but the network reads rows \(n_features\); pass",
        ),
        (Network([DENSE]), {"input_shape": 2}, ValueError, "input_shape=2, but the network reads"),
        (Network([DENSE]), {"input_shape": (0,)}, ValueError, r"input_shape=\(0,\), but"),
        (Network([DENSE]), {"input_shape": "2"}, ValueError, "input_shape='2', but"),
        (Network([DENSE]), {"input_shape": (3,)}, ValueError, r"has 3 features, but .* reads 2"),
        (
            Network([conv(3, 2), Dense(np.eye(3))]),
            {},
            ValueError,
            r"reads neither rows nor sequences nor images to its end; .*Flatten\(\)",
        ),
    ],
)
def test_what_cannot_be_written(network, options, error, message, path):
    with pytest.raises(error, match=message):
        to_onnx(network, path, **options)
    assert not path.exists()


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path='.*network\.npz' must end in '\.onnx'"):
        to_onnx(Network([DENSE]), tmp_path / "network.npz")


def test_files_that_onnx_cannot_hold_are_refused(path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_BYTES", 50)
    with pytest.raises(ValueError, match=r"weights take .* GB in float64, .*dtype='float32'"):
        to_onnx(Network(np.ones((2, 4))), path)
    to_onnx(Network(np.ones((2, 4))), path, dtype="float32")


def test_a_failed_write_leaves_the_old_file(path, tmp_path, monkeypatch):
    to_onnx(NETWORKS["perceptron"], path)
    before = path.read_bytes()

    def fail(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        to_onnx(NETWORKS["transformer"], path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_onnx_is_missing(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"to_onnx needs onnx.*jacrot\[onnx\]"):
        to_onnx(NETWORKS["perceptron"], path)
