"""ONNX graphs: outputs against the reference evaluator, Jacobians by finite differences."""

import pickle

import numpy as np
import pytest
from builders import framework
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import Builder, check, exact_erf

from jacrot.layers import Conv2d, Dense, GatedDense, Residual
from jacrot.readers import from_onnx

onnx = framework("onnx")
helper = onnx.helper
DOUBLE = onnx.TensorProto.DOUBLE


_exact_erf = pytest.fixture(autouse=True, scope="module")(exact_erf)


def gemm(b, x, width, n_outputs):
    weight = b.random(n_outputs, width)
    return b("Gemm", x, weight, b.random(n_outputs), transB=1, alpha=0.5, beta=2.0)


def plain_gemm(b, x, width, n_outputs):
    return b("Gemm", x, b.random(width, n_outputs))


def matmul(b, x, width, n_outputs):
    product = b("MatMul", x, b.random(width, n_outputs))
    return b("Add", b.random(1, n_outputs), product)


def scaled_matmul(b, x, width, n_outputs):
    weight = b("Transpose", b.random(n_outputs, width), perm=[1, 0])
    product = b("Mul", b("MatMul", x, b("Identity", weight)), b.number(0.7))
    product = b("Sub", b("Div", product, b.random(n_outputs, positive=True)), b.random(n_outputs))
    return b("Sub", b.number([0.3]), product)


def gelu_erf(b, x, order):
    erf = b("Add", b("Erf", b("Div", x, b.number(np.sqrt(2)))), b.number(1))
    if order == 0:
        return b("Mul", b("Mul", x, erf), b.number(0.5))
    if order == 1:
        return b("Mul", b("Mul", x, b.number(0.5)), erf)
    if order == 2:
        return b("Mul", b("Mul", b.number(0.5), erf), x)
    half = b(
        "Add", b("Mul", b("Erf", b("Mul", b.number(0.70710678), x)), b.number(0.5)), b.number(0.5)
    )
    return b("Mul", half, x)


def gelu_tanh(b, x, order):
    cube = b("Pow", x, b.number(3)) if order == 0 else b("Mul", b("Mul", x, x), x)
    inner = b("Add", x, b("Mul", b.number(0.044715), cube))
    tanh = b("Tanh", b("Mul", inner, b.number(np.sqrt(2 / np.pi))))
    one = b("Add", b.number(1), tanh)
    if order == 1:
        return b("Mul", b("Mul", b.number(0.5), x), one)
    return b("Mul", b.number(0.5), b("Mul", x, one))


def torch_softplus(b, x, beta=1.0, threshold=20.0):
    """Write what torch.onnx.export makes of nn.Softplus."""
    scaled = x if beta == 1 else b("Mul", x, b.number(beta))
    softplus = b("Softplus", scaled)
    softplus = softplus if beta == 1 else b("Div", softplus, b.number(beta))
    return b("Where", b("Greater", scaled, b.number(threshold)), x, softplus)


def torch_hardshrink(b, x, size=0.1):
    outside = [b("Greater", x, b.number(size)), b("Less", x, b.number(-size))]
    outside = b("Or", *[b("Cast", part, to=onnx.TensorProto.BOOL) for part in outside])
    return b("Where", outside, x, b.number(0))


def threshold(b, x, least, value=0.0):
    return b("Where", b("LessOrEqual", x, b.number(least)), b.number(value), x)


def leaky_where(b, x):
    return b("Where", b("Not", b("Less", x, b.number(0))), x, b("Mul", x, b.number(0.01)))


def log_of_root(b, x):
    return b("Log", b("Sqrt", b("Add", b("Mul", x, x), b.number(0.5))))


# How each is written, and the name by which it is to be known.
ACTIVATIONS = {
    "relu": (lambda b, x: b("Relu", x), "relu"),
    "leaky": (lambda b, x: b("LeakyRelu", x), "leaky_relu"),
    "leakier": (lambda b, x: b("LeakyRelu", x, alpha=0.2), None),
    "elu": (lambda b, x: b("Elu", x), "elu"),
    "low elu": (lambda b, x: b("Elu", x, alpha=0.5), None),
    "selu": (lambda b, x: b("Selu", x), "selu"),
    "softplus": (lambda b, x: b("Softplus", x), "softplus"),
    "tanh": (lambda b, x: b("Tanh", x), "tanh"),
    "sigmoid": (lambda b, x: b("Sigmoid", x), "sigmoid"),
    "written sigmoid": (
        lambda b, x: b("Reciprocal", b("Add", b.number(1), b("Exp", b("Neg", x)))),
        "sigmoid",
    ),
    "silu": (lambda b, x: b("Mul", x, b("Sigmoid", x)), "silu"),
    "silu reversed": (lambda b, x: b("Mul", b("Sigmoid", x), x), "silu"),
    "gelu": (lambda b, x: b("Gelu", x), "gelu"),
    "gelu tanh": (lambda b, x: b("Gelu", x, approximate="tanh"), "gelu_tanh"),
    **{
        f"gelu erf {order}": (lambda b, x, order=order: gelu_erf(b, x, order), "gelu")
        for order in range(4)
    },
    **{
        f"gelu tanh {order}": (lambda b, x, order=order: gelu_tanh(b, x, order), "gelu_tanh")
        for order in range(3)
    },
    "relu6": (lambda b, x: b("Clip", x, b.number(0), b.number(6)), None),
    "clipped above": (lambda b, x: b("Clip", x, "", b.number(0.5)), None),
    "hard swish": (lambda b, x: b("HardSwish", x), None),
    "hard sigmoid": (lambda b, x: b("HardSigmoid", x), None),
    "mish": (lambda b, x: b("Mish", x), None),
    "softsign": (lambda b, x: b("Softsign", x), None),
    "written mish": (lambda b, x: b("Mul", x, b("Tanh", b("Softplus", x))), None),
    "torch softplus": (torch_softplus, "softplus"),
    "torch softplus 2": (lambda b, x: torch_softplus(b, x, 2.0, 5.0), None),
    "torch hardshrink": (torch_hardshrink, None),
    "threshold": (lambda b, x: threshold(b, x, 0.1), None),
    "low threshold": (lambda b, x: threshold(b, x, 0.01), None),
    "threshold of relu": (lambda b, x: threshold(b, x, 0), "relu"),
    "other threshold": (lambda b, x: threshold(b, x, -0.5, 2.0), None),
    "thresholded relu": (lambda b, x: b("ThresholdedRelu", x, alpha=0.05), None),
    "soft shrink": (lambda b, x: b("Shrink", x, lambd=0.05, bias=0.05), None),
    "celu": (lambda b, x: b("Celu", x), "elu"),
    "low celu": (lambda b, x: b("Celu", x, alpha=0.5), None),
    "prelu": (lambda b, x: b("PRelu", x, b.number([0.25])), None),
    "prelu that is leaky": (lambda b, x: b("PRelu", x, b.number(0.01)), "leaky_relu"),
    "where that is leaky": (leaky_where, "leaky_relu"),
    "log sigmoid": (lambda b, x: b("Log", b("Sigmoid", x)), None),
    "log of root": (log_of_root, None),
    "keras elu": (
        lambda b, x: b(
            "Where", b("Greater", x, b.number(0)), x, b("Sub", b("Exp", x), b.number(1))
        ),
        "elu",
    ),
    "mask": (
        lambda b, x: b("Mul", b("Cast", b("Greater", x, b.number(0)), to=DOUBLE), x),
        "relu",
    ),
    "relu of max": (lambda b, x: b("Max", x, b.number(0)), "relu"),
    "min": (lambda b, x: b("Min", x, b.number(0.5)), None),
    "silu of a copy": (lambda b, x: b("Mul", x, b("Identity", b("Sigmoid", x))), "silu"),
    "quick gelu": (lambda b, x: b("Mul", x, b("Sigmoid", b("Mul", x, b.number(1.702)))), None),
    "power of two": (lambda b, x: b("Pow", b.number(2), x), None),
    "sine": (lambda b, x: b("Sin", x), None),
    "nothing": (lambda b, x: b("Dropout", b("Cast", x, to=DOUBLE)), "identity"),
}


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    linear=st.lists(
        st.sampled_from([gemm, plain_gemm, matmul, scaled_matmul]), min_size=3, max_size=3
    ),
    names=st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=3, max_size=3),
    norm=st.booleans(),
    sequences=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_dense(widths, linear, names, norm, sequences, seed):
    b = Builder((2, widths[0]) if sequences else (widths[0],), seed)
    x = "x"
    known = []
    for index, n_outputs in enumerate(widths[1:]):
        layer = matmul if sequences and "gemm" in linear[index].__name__ else linear[index]
        write, name = ACTIVATIONS[names[index]]
        x = write(b, layer(b, x, widths[index], n_outputs))
        known.append(name)
        if norm and n_outputs > 2:
            x = b("LayerNormalization", x, b.random(n_outputs), b.random(n_outputs), epsilon=1e-3)
    network = check(b, x)
    found = [layer.activation for layer in network if isinstance(layer, Dense)]
    assert len(found) == len(known)
    assert all(name is None or name == at for name, at in zip(known, found, strict=True))
    assert all(name is not None or callable(at) for name, at in zip(known, found, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 2),
    size=st.tuples(st.integers(5, 7), st.integers(5, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.one_of(
        st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]),
        st.lists(st.integers(0, 2), min_size=4, max_size=4),
    ),
    groups=st.sampled_from([1, 2]),
    pool=st.sampled_from(["none", "AveragePool", "MaxPool"]),
    padded=st.integers(0, 1),
    end=st.sampled_from(
        ["images", "Flatten", "0, -1", "shape", "GlobalAveragePool", "ReduceMean", "Softmax"]
    ),
    seed=st.integers(0, 1000),
)
def test_convolution(
    channels, size, kernel, strides, dilations, pads, groups, pool, padded, end, seed
):
    b = Builder((groups * channels, *size), seed)
    geometry = {"auto_pad": pads} if isinstance(pads, str) else {"pads": pads}
    weight = b.random(4, channels, *kernel)
    options = {"strides": strides, "dilations": dilations, "group": groups}
    x = b("Conv", "x", weight, *[b.random(4)][:padded], **options, **geometry)
    statistics = [b.random(4, positive=place in (0, 3)) for place in range(4)]
    x = b("Tanh", b("BatchNormalization", x, *statistics, epsilon=1e-3))
    if pool != "none":
        counted = {"count_include_pad": padded} if pool == "AveragePool" else {}
        x = b(pool, x, kernel_shape=[2, 2], pads=[1, 0, 1, 1], strides=[1, 2], **counted)
    if end == "Flatten":
        x = b("Flatten", x)
    elif end == "0, -1":
        x = b("Reshape", x, b.constant([0, -1]))
    elif end == "shape":
        # As PyTorch writes x.view(x.size(0), -1).
        length = b("Gather", b("Shape", x), b.constant(0), axis=0)
        length = b("Unsqueeze", length, b.constant([0]))
        x = b("Reshape", x, b("Concat", length, b.constant([-1]), axis=0))
    elif end == "GlobalAveragePool":
        x = b("Squeeze", b("GlobalAveragePool", x), b.constant([2, 3]))
    elif end == "ReduceMean":
        x = b("ReduceMean", x, b.constant([-1, 2]), keepdims=padded)
    elif end == "Softmax":
        x = b("Softmax", b("Add", x, b.random(4, 1, 1)), axis=1)
    network = check(b, x)
    assert isinstance(network[0], Conv2d)
    assert network[0].activation == "tanh"


@settings(max_examples=15, deadline=None)
@given(depth=st.integers(1, 3), width=st.integers(1, 4), seed=st.integers(0, 1000))
def test_residual_and_gated_networks(depth, width, seed):
    b = Builder((width,), seed)
    x = "x"
    for _ in range(depth):
        y = gemm(b, b("Relu", gemm(b, x, width, 5)), 5, width)
        x = b("Add", x, y)
        gate = b("Sigmoid", matmul(b, x, width, 3))
        up = matmul(b, x, width, 3)
        gated = b("Mul", *[gate, up][:: (-1) ** seed])
        x = b("Add", matmul(b, gated, 3, width), x)
    network = check(b, b("Add", x, x))
    first = network[0]
    assert isinstance(first, Residual)
    assert isinstance(network[1].branch.layers[0], GatedDense)


def test_sum_of_a_tensor_and_its_own_activation_is_no_activation():
    b = Builder((3,))
    hidden = gemm(b, "x", 3, 4)
    check(b, b("Add", b("Mul", hidden, hidden), b("Relu", hidden)))


def test_parts_of_a_graph():
    b = Builder((3,))
    hidden = b("Tanh", gemm(b, "x", 3, 4))
    inner = gemm(b, hidden, 4, 4)
    output = gemm(b, b("Add", inner, hidden), 4, 2)
    model = b.model(output)
    x = b.draw()
    for start, stop in [
        ("x", hidden),
        (hidden, inner),
        (hidden, output),
        (hidden, b.nodes[-2].output[0]),
    ]:
        network = from_onnx(model, start=start, stop=stop)
        given = x if start == "x" else from_onnx(model, stop=start)(x)
        expected = from_onnx(model, stop=stop)(x)
        np.testing.assert_allclose(network(given), expected, atol=1e-12)
    with pytest.raises(
        ValueError, match=rf"depends on 'x', which is not computed from start='{inner}'"
    ):
        from_onnx(model, start=inner)
    with pytest.raises(ValueError, match=f"start='hiden' is not a tensor.*'{hidden}'"):
        from_onnx(model, start="hiden")
    with pytest.raises(ValueError, match="stop='x' is not a tensor"):
        from_onnx(model, stop="x")
    with pytest.raises(ValueError, match="start and stop are both"):
        from_onnx(model, start=hidden, stop=hidden)
    with pytest.raises(ValueError, match="has 2 candidates for start: 'x', 'z'; pass start='name'"):
        from_onnx(b.model(output, inputs=("x", "z")))


@pytest.mark.parametrize("outside", [False, True])
def test_files_in_single_precision(tmp_path, outside):
    runtime = framework("onnxruntime")
    b = Builder((2, 6, 6), dtype=np.float32)
    x = b("Conv", "x", b.random(40, 2, 3, 3), pads=[1, 1, 1, 1])
    x = b("Relu", b("BatchNormalization", x, *[b.random(40, positive=True)] * 4))
    model = b.model(
        b(
            "Softmax",
            plain_gemm(
                b, b("Flatten", b("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])), 360, 3
            ),
        )
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=outside, location="weights", size_threshold=64)
    assert (tmp_path / "weights").exists() == outside
    network = from_onnx(str(path))
    x = b.draw()
    outputs = network(x)
    assert outputs.dtype == np.float32
    session = runtime.InferenceSession(str(path))
    np.testing.assert_allclose(outputs, session.run(None, {"x": x})[0], atol=1e-6)
    if outside:
        with pytest.raises(ValueError, match="in another file; pass the path"):
            from_onnx(onnx.load(path, load_external_data=False))
        (tmp_path / "weights").unlink()
        with pytest.raises(ValueError, match="is damaged or not a valid ONNX model"):
            from_onnx(path)


def test_external_data_outside_of_the_folder_are_not_read(tmp_path):
    b = Builder((3,), dtype=np.float32)
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.onnx"
    onnx.save(
        b.model(plain_gemm(b, "x", 3, 9)),
        path,
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    (tmp_path / "folder" / "weights").rename(tmp_path / "weights")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="is damaged or not a valid ONNX model"):
        from_onnx(path)


def test_damaged_and_foreign_files(tmp_path):
    b = Builder((3,))
    content = b.model(gemm(b, "x", 3, 2)).SerializeToString()
    path = tmp_path / "model.onnx"
    for damaged in (b"", b"not a model", content[:-20], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"path='.*model\.onnx' is damaged or not a valid"):
            from_onnx(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        from_onnx(tmp_path / "missing.onnx")
    with pytest.raises(TypeError, match="model is a bytes; pass the path"):
        from_onnx(content)
    with pytest.raises(ValueError, match=r"operator set 7.*convert_version"):
        from_onnx(b.model(b.nodes[-1].output[0], opset=7))


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("size", [(5, 6), (6, 7)])
@pytest.mark.parametrize(
    "options", [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"ceil_mode": 1}]
)
def test_padding_of_pooling(operator, size, options):
    runtime = framework("onnxruntime")
    b = Builder((2, *size), dtype=np.float32)
    model = b.model(b(operator, "x", kernel_shape=[2, 3], strides=[2, 2], **options))
    if "ceil_mode" in options and (size[0] % 2, size[1] % 2) != (0, 1):
        with pytest.raises(ValueError, match=rf"is a {operator}, with ceil_mode=1"):
            from_onnx(model)
        return
    x = b.draw()
    expected = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(from_onnx(model)(x), expected, atol=1e-6)


def test_functions_of_a_model_are_read():
    b = Builder((3,))
    output = b("Square", gemm(b, "x", 3, 2), domain="custom")
    model = b.model(output, shape=["n", 2])
    body = [helper.make_node("Mul", ["a", "a"], ["b"])]
    imports = [helper.make_opsetid("", 21)]
    model.functions.append(helper.make_function("custom", "Square", ["a"], ["b"], body, imports))
    x = b.draw()
    np.testing.assert_allclose(
        from_onnx(model)(x), from_onnx(model, stop=b.nodes[0].output[0])(x) ** 2
    )


def test_written_out_activations_can_be_pickled():
    b = Builder((3,))
    network = from_onnx(b.model(ACTIVATIONS["written mish"][0](b, gemm(b, "x", 3, 2))))
    assert repr(network) == "Network(3 → 2; softplus_tanh_mul)"
    x = b.draw()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_softmax_of_old_operator_sets():
    b = Builder((3,))
    check(b, b("Softmax", gemm(b, "x", 3, 2)), opset=11)
    b = Builder((2, 3))
    with pytest.raises(ValueError, match="over all axes from 1, which"):
        from_onnx(b.model(b("Softmax", "x"), opset=11))


def unknown(operator, **attributes):
    return lambda b: b(operator, "x", **attributes)


@pytest.mark.parametrize(
    ("shape", "write", "message"),
    [
        ((3,), unknown("Floor"), r"node 'the Floor0' is a Floor, which from_onnx does not support"),
        ((3, 4), unknown("Transpose", perm=[0, 2, 1]), "is a Transpose, which"),
        (
            (3, 4),
            lambda b: b("MatMul", "x", b("Transpose", "x", perm=[0, 2, 1])),
            "is computed, not",
        ),
        ((3,), lambda b: b("MatMul", b.random(3, 3), "x"), "is stored, not computed"),
        ((3, 4), lambda b: b("Add", "x", b.random(3, 1)), r"of a tensor \('n', 3, 4\) and a stor"),
        ((3, 4, 4), lambda b: b("Mul", "x", b.random(4)), "only scalars and vectors of features"),
        ((3, 1), lambda b: b("Add", "x", b("MatMul", "x", b.random(1, 4))), "broadcasting is not"),
        ((3,), lambda b: b("Mul", "x", b("Softmax", "x")), "only such gated products"),
        ((3, 4), lambda b: b("Softmax", "x", axis=1), "over axis 1 of 3"),
        ((3, 4), lambda b: b("Reshape", "x", b.constant([0, 6, 2])), "only flattening"),
        ((3, 4), lambda b: b("Conv", "x", b.random(2, 3, 2)), "only images are supported"),
        ((2, 5, 5), unknown("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), "ceil_"),
        (
            (2, None, 5),
            lambda b: b("Conv", "x", b.random(1, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
            "depends on the size",
        ),
        ((3,), lambda b: b("Gemm", b.random(3, 2), "x"), "is stored, not computed"),
        ((3,), unknown("Cast", to=onnx.TensorProto.INT64), "to a type that is not floating"),
        ((2, 4, 4), lambda b: b("ReduceMean", "x", b.constant([1])), r"over axes \[1\]"),
        ((2, 4, 4), unknown("Flatten", axis=2), "over another axis than 1"),
    ],
)
def test_unknown_operators_are_refused_by_name(shape, write, message):
    b = Builder(shape)
    with pytest.raises(ValueError, match=message):
        from_onnx(b.model(write(b)))


def test_shapes_are_asked_for_where_they_matter():
    b = Builder((3,))
    hidden = b("Mystery", "x", domain="custom")
    model = b.model(gemm(b, hidden, 3, 2), shape=["n", 2])
    with pytest.raises(ValueError, match=r"'the Mystery0' is a custom\.Mystery, which from_onnx"):
        from_onnx(model)
    assert from_onnx(model, start=hidden).n_inputs == 3
    model = b.model(b("MatMul", hidden, b.random(3, 2)), shape=["n", 2])
    with pytest.raises(ValueError, match="'Mystery0' has no known number of dimensions"):
        from_onnx(model, start=hidden)
