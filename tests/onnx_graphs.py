"""Graphs of ONNX for the tests, and what they compute."""

import numpy as np
import pytest
from builders import framework
from scipy import special

from jacrot.readers import from_onnx

onnx = framework("onnx")
reference = framework("onnx.reference")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


class Builder:
    """Writes a graph, node after node."""

    def __init__(self, shape, seed=0, dtype=np.float64):
        self.rng, self.dtype, self.shape = np.random.default_rng(seed), dtype, shape
        self.nodes, self.stored = [], []

    def random(self, *shape, positive=False):
        array = self.rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant((np.abs(array) + 0.5 if positive else array).astype(self.dtype))

    def number(self, value):
        return self.constant(np.array(value, self.dtype))

    def constant(self, array):
        name = f"stored{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, operator, *inputs, **attributes):
        name = f"{operator}{len(self.nodes)}"
        node = helper.make_node(operator, inputs, [name], name=f"the {name}", **attributes)
        self.nodes.append(node)
        return name

    def several(self, operator, n_outputs, *inputs, **attributes):
        names = [f"{operator}{len(self.nodes)}/{index}" for index in range(n_outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def model(self, output, opset=21, inputs=("x",), shape=None):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info(name, kind, ["n", *self.shape]) for name in inputs],
            [helper.make_tensor_value_info(output, kind, shape)]
            if shape
            else [helper.make_empty_tensor_value_info(output)],
            self.stored,
        )
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("custom", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)

    def draw(self, n_samples=3):
        return self.rng.normal(size=(n_samples, *self.shape)).astype(self.dtype)


def differences(function, x, step=1e-6):
    """Differentiate a function of a batch, by central differences."""
    columns = []
    for place in np.ndindex(x.shape[1:]):
        axis = np.zeros(x.shape[1:])
        axis[place] = step
        columns.append((function(x + axis) - function(x - axis)) / (2 * step))
    slopes = np.stack(columns, axis=-1)
    return slopes.reshape(*slopes.shape[:-1], *x.shape[1:])


def exact_erf():
    """Patch the evaluator to compute erf in double precision, also inside Gelu."""
    operator = pytest.importorskip("onnx.reference.ops.op_erf").Erf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "_run", lambda self, x: (special.erf(x),))
        yield


def check(build, output, **options):
    model = build.model(output, **options)
    network = from_onnx(model)
    evaluator = reference.ReferenceEvaluator(model)
    x = build.draw()

    def function(x):
        return evaluator.run(None, {"x": x})[0]

    expected = function(x)
    # Attributes are in single precision.
    np.testing.assert_allclose(
        network(x), expected, rtol=0, atol=1e-6 * max(1, abs(expected).max())
    )
    expected = differences(function, x)
    # That much is lost in the differences themselves.
    atol = 1e-5 * abs(expected).max() + 1e-9
    np.testing.assert_allclose(network.jacobians(x), expected, rtol=0, atol=atol)
    return network
