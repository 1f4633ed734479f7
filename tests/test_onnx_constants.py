"""Weights that a graph computes from stored tensors, and slopes for each feature."""

import numpy as np
import pytest
from builders import framework
from onnx_graphs import Builder, check

from jacrot.layers import Dense, Residual
from jacrot.readers import from_onnx

onnx = framework("onnx")
helper = onnx.helper
DOUBLE = onnx.TensorProto.DOUBLE


def quantized(b, *, dtype, axis=None, scale=0.02):
    """Store a quantized matrix, and write what makes numbers of it."""
    low, high = (0, 255) if dtype == np.uint8 else (-128, 127)
    n_scales = () if axis is None else 3
    stored = b.rng.integers(low, high, size=(3, 3), dtype=dtype)
    scales = np.full(n_scales, scale, b.dtype)
    zeros = np.full(n_scales, 5, dtype)
    options = {} if axis is None else {"axis": axis}
    return b("DequantizeLinear", *map(b.constant, (stored, scales, zeros)), **options)


def halves(b):
    [first, second] = b.several("Split", 2, b.random(3, 6), axis=1, num_outputs=2)
    return b("Sub", first, second)


WEIGHTS = {
    "concat": lambda b: b("Concat", b.random(3, 1), b.random(3, 2), axis=1),
    "slice": lambda b: b(
        "Slice", b.random(4, 7), *map(b.constant, ([1, 6], [4, 0], [0, 1], [1, -2]))
    ),
    "slice of all axes": lambda b: b("Slice", b.random(4, 3), b.constant([1]), b.constant([9])),
    "split": halves,
    "dequantized": lambda b: quantized(b, dtype=np.int8),
    "dequantized rows": lambda b: quantized(b, dtype=np.uint8, axis=0),
    "dequantized columns": lambda b: quantized(b, dtype=np.int8, axis=1),
    "gather": lambda b: b("Gather", b.random(3, 5), b.constant([4, 0, 4]), axis=1),
    "expand": lambda b: b("Expand", b.random(3, 1), b.constant([3, 3])),
    "low rank": lambda b: b("MatMul", b.random(3, 2), b.random(2, 3)),
    "masked": lambda b: b(
        "Where", b.constant(np.eye(3, dtype=bool)), b.random(3, 3), b.number(0.5)
    ),
    "diagonal": lambda b: b("Mul", b("EyeLike", b.random(3, 3), dtype=DOUBLE), b.random(3)),
    "stacked": lambda b: b(
        "Squeeze",
        b("Transpose", b("Reshape", b.random(9), b.constant([3, 1, -1])), perm=[2, 1, 0]),
        b.constant([1]),
    ),
    "normalised": lambda b: b(
        "Div",
        matrix := b.random(3, 3),
        b("ReduceL2", matrix, b.constant([1]), keepdims=1),
    ),
    "tiled and padded": lambda b: b(
        "Pad", b("Tile", b.random(1, 2), b.constant([3, 1])), b.constant([0, 0, 0, 1])
    ),
    "like another": lambda b: b("CastLike", b.constant(np.float32([[1, 2, 3]] * 3)), "x"),
    "half precision": lambda b: b(
        "Cast", b.constant(b.rng.normal(size=(3, 3)).astype(np.float16)), to=DOUBLE
    ),
}


@pytest.mark.parametrize("kind", sorted(WEIGHTS))
def test_computed_weights(kind):
    b = Builder((3,), seed=2)
    hidden = b("Tanh", b("Gemm", "x", WEIGHTS[kind](b), transB=1))
    network = check(b, b("MatMul", hidden, b("Identity", WEIGHTS[kind](b))))
    assert [layer.activation for layer in network] == ["tanh", "identity"]
    assert all(isinstance(layer, Dense) for layer in network)


def test_computed_weights_of_convolutions():
    b = Builder((2, 5, 5), seed=3)
    kernel = b("Concat", b.random(1, 2, 3, 3), b.random(2, 2, 3, 3), axis=0)
    bias = b("Slice", b.random(9), b.constant([3]), b.constant([6]))
    check(b, b("Flatten", b("Relu", b("Conv", "x", kernel, bias))))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        # Some hundred bytes that ask for half a gigabyte.
        (lambda b: b("Expand", b.number([[1.0]]), b.constant([3, 2**26])), "and arrays of"),
        (lambda b: b("Tile", b.number([[1.0]]), b.constant([3, 2**26])), "and arrays of"),
        (lambda b: b("ConstantOfShape", b.constant([2**14, 2**14])), "and arrays of"),
        (
            lambda b: b("Resize", b.random(3, 3), "", b.constant(np.float32([400, 400]))),
            "of slow operators",
        ),
        (lambda b: b("RandomNormal", shape=[3, 3], dtype=DOUBLE), "is computed, not stored"),
        (lambda b: b("RandomNormalLike", b.random(3, 3)), "is computed, not stored"),
        (lambda b: b("Mystery", b.random(3, 3), domain="custom"), "fails on its stored inputs"),
        (lambda b: b("Compress", b.random(3, 3), b.constant([True])), "shape of its result"),
    ],
)
def test_weights_that_are_not_computed(write, message):
    b = Builder((3,))
    model = b.model(b("MatMul", "x", write(b)), shape=["n", 3])
    with pytest.raises(ValueError, match=message):
        from_onnx(model)


@pytest.mark.parametrize(
    ("shape", "slope"),
    [((4,), (4,)), ((4,), (1, 4)), ((3, 4), (4,)), ((4, 3, 2), (4, 1, 1)), ((4,), (1,))],
)
def test_slopes_for_each_feature(shape, slope):
    b = Builder(shape, seed=4)
    slopes = b.rng.normal(size=slope) if len(slope) == 1 else b.rng.uniform(size=slope)
    network = check(b, b("Tanh", b("PRelu", "x", b.constant(slopes))))
    assert isinstance(network[0], Residual) == (slopes.size > 1)


def test_slopes_for_each_entry_are_refused():
    b = Builder((4, 3, 2))
    with pytest.raises(ValueError, match="only scalars and vectors of features"):
        from_onnx(b.model(b("PRelu", "x", b.random(4, 3, 2))))


def test_logarithm_after_another_layer():
    b = Builder((3,))
    check(b, b("MatMul", b("Log", b("Softmax", "x")), b.random(3, 2)))
    b = Builder((3,))
    check(b, b("Sqrt", b("Add", b("Mul", "x", "x"), b.random(3, positive=True))))
    b = Builder((3,))
    # Where the root has no slope, it does not count.
    check(b, b("MatMul", b("Sqrt", b("Relu", "x")), b.random(3, 2)))


def test_what_is_not_read_names_the_ways_around_it():
    b = Builder((3, 3))
    hidden = b("Relu", b("MatMul", "x", b.random(3, 3)))
    turned = b("Transpose", hidden, perm=[0, 2, 1])
    model = b.model(b("MatMul", turned, b.random(3, 2)))
    with pytest.raises(
        ValueError, match=f"start='{turned}' for the part after it, or stop='{hidden}' for"
    ):
        from_onnx(model)
    assert from_onnx(model, start=turned).n_outputs == 2
    assert from_onnx(model, stop=hidden).n_outputs == 3
    with pytest.raises(
        ValueError, match=r"which from_onnx does not .* Pass stop='Relu1' for the part"
    ):
        from_onnx(model, stop=turned)
    b = Builder((3,))
    product = b("Mul", "x", b("Softmax", "x"))
    model = b.model(b("MatMul", product, b.random(3, 2)))
    with pytest.raises(
        ValueError, match=f"only such gated products are supported. Pass start='{product}' for"
    ):
        from_onnx(model)
    assert from_onnx(model, start=product).n_outputs == 2


@pytest.mark.parametrize(
    "write",
    [
        lambda b: b("Sign", "x"),
        lambda b: b("Where", b("Less", "x", b.number(0.1)), b.number(2), b.number(1)),
        lambda b: b("Cast", b("Greater", "x", b.number(0)), to=DOUBLE),
    ],
)
def test_steps_have_no_slope(write):
    b = Builder((3,))
    network = check(b, b("MatMul", write(b), b.random(3, 2)))
    assert not network.jacobians(b.draw()).any()


@pytest.mark.parametrize(
    "write",
    [
        lambda b: b("Max", "x", b("MatMul", "x", b.random(3, 3))),
        lambda b: b("Where", b("Greater", b("MatMul", "x", b.random(3, 3)), "x"), "x", b.number(0)),
        lambda b: b("Where", b("Greater", "x", b.number(0)), "x", b.random(3)),
        lambda b: b("Greater", "x", b.number(0)),
        lambda b: b("Cast", b("Div", b("Cast", "x", to=7), b.constant(2)), to=DOUBLE),
        lambda b: b("Cast", b("Cast", "x", to=onnx.TensorProto.BOOL), to=DOUBLE),
    ],
)
def test_functions_of_several_tensors_are_refused(write):
    b = Builder((3,))
    with pytest.raises(
        ValueError, match=r"one tensor and|to a type that is not floating|an integer division"
    ):
        from_onnx(b.model(write(b)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("dynamo", [True, False])
def test_activations_as_torch_exports_them(tmp_path, rng, dynamo):
    torch = framework("torch")
    nn = torch.nn
    activations = [nn.Softplus(), nn.Softplus(2.0), nn.PReLU(), nn.PReLU(6), nn.CELU(0.7)]
    activations += [nn.LogSigmoid(), nn.Mish(), nn.Hardswish(), nn.Hardshrink(0.05), nn.SELU()]
    activations += [nn.Hardsigmoid(), nn.Softshrink(0.03), nn.Tanhshrink(), nn.ReLU6(), nn.GELU()]
    if dynamo:
        framework("onnxscript")
        # The older exporter does not know it.
        activations.append(nn.Threshold(0.1, 0.0))
    runtime = framework("onnxruntime")
    torch.manual_seed(0)
    parts = [part for activation in activations for part in (nn.Linear(6, 6), activation)]
    model = nn.Sequential(*parts, nn.Linear(6, 3)).eval()
    for parameter in model.parameters():
        parameter.data *= 2
    x = rng.normal(size=(40, 6)).astype(np.float32)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.tensor(x),), path, dynamo=dynamo, verbose=False)
    network = from_onnx(path)
    session = runtime.InferenceSession(path)
    [output] = session.run(None, {session.get_inputs()[0].name: x})
    atol = 1e-5 * abs(output).max()
    np.testing.assert_allclose(network(x), model(torch.tensor(x)).detach(), atol=atol)
    total = torch.autograd.functional.jacobian(lambda x: model(x).sum(0), torch.tensor(x))
    expected = total.movedim(1, 0).numpy()
    np.testing.assert_allclose(network.jacobians(x), expected, atol=1e-4 * abs(expected).max())
