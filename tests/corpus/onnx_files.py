"""Hostile files of ONNX."""

from __future__ import annotations

import os

import numpy as np

from corpus.parts import DATA, B, W


def graph(nodes, stored=(), x=("n", 3), y=("n", None), opset=17, functions=()):
    """Build a model of lines ``operator inputs > outputs``, of nodes, and of stored arrays."""
    from onnx import TensorProto, helper, numpy_helper

    made = []
    for line in nodes:
        if isinstance(line, str):
            (kind, *inputs), outputs = (side.split() for side in line.split(">"))
            line = helper.make_node(kind, inputs, outputs)
        made.append(line)
    tensors = [
        item if hasattr(item, "dims") else numpy_helper.from_array(np.asarray(item), name)
        for name, item in dict(stored).items()
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)]
        for name, shape in (("x", x), ("y", y))
    ]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("f", 1)]
    content = helper.make_graph(made, "g", *ends, tensors)
    return helper.make_model(content, opset_imports=opsets, functions=functions, ir_version=8)


def node(kind, inputs="x", outputs="y", **attributes):
    """Build a node with attributes."""
    from onnx import helper

    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def function(name, called, times=1):
    """Build a function of a model that calls another one several times."""
    from onnx import helper

    domain = "" if called == "Relu" else "f"
    inner = [
        helper.make_node(called, [f"a{n}"], [f"a{n + 1}"], domain=domain) for n in range(times)
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a0"], [f"a{times}"], inner, opsets)


def calling(*functions):
    """Build a model that calls a function A."""
    return graph([node("A", domain="f")], functions=[function(*given) for given in functions])


def images(*args, **attributes):
    """Build a model of one node that reads images."""
    kernel = {"W": np.ones((4, 3, 3, 3))}
    return graph([node(*args, **attributes)], kernel, ("n", 3, 8, 8), ("n", "c", "h", "w"))


def times(kind=11, dims=(3, 4), raw=DATA, **fields):
    """Build a product with a stored tensor of any kind and content."""
    from onnx import TensorProto

    fields |= {} if raw is None else {"raw_data": raw}
    weights = TensorProto(name="W", dims=dims, data_type=kind, **fields)
    return graph(["MatMul x W > y"], {"W": weights})


def folded(operator, *arrays, **attributes):
    """Build a sum of the input and of what an operator makes of stored arrays."""
    names = [f"c{n}" for n in range(len(arrays))]
    made = node(operator, " ".join(names), "c", **attributes)
    return graph([made, "Add x c > y"], zip(names, arrays, strict=True))


def chain(kind, length):
    """Write a chain of one operator."""
    names = ["x", *(f"t{n}" for n in range(1, length)), "y"]
    return [f"{kind} {names[n]} > {names[n + 1]}" for n in range(length)]


def numbers(*values):
    """Build an array of whole numbers."""
    return np.array(values, np.int64)


def sums_of_sums(length):
    """Write sums that share one product of weights, through an activation each."""
    nodes = ["MatMul x W > t", "Relu x > s0"]
    for k in range(length):
        nodes += [f"Elu t > u{k}", f"Add x u{k} > v{k}", f"Add s{k} v{k} > s{k + 1}"]
    return graph([*nodes, f"Relu s{length} > y"], {"W": np.ones((300, 300))}, ("n", 300))


def onnx_graphs():
    """List functions that make a model, by name."""
    dense, wide = "MatMul x W > a", {"W": np.ones((300, 300))}
    nested = [n for k in range(900) for n in (f"Tanh t{k} > u{k}", f"Add x u{k} > t{k + 1}")]
    residual = [n for k in range(300) for n in (f"Tanh t{k} > u{k}", f"Add t{k} u{k} > t{k + 1}")]
    before = [f"Add t{n} t{n + 1} > t{n + 2}" for n in range(60)]
    again = [f"MatMul t{n} W > t{n + 1}" for n in range(1000)]
    negated = [f"Neg c{n} > c{n + 1}" for n in range(5000)]
    norm = "BatchNormalization a s s s v > y"
    tall, flat = np.ones((10**5, 1)), np.ones((1, 10**5))
    many = numbers(10**6, 10**6)
    fan = [("A", "B0", 10), *((f"B{n}", f"B{n + 1}", 10) for n in range(12)), ("B12", "Relu", 1)]
    return {
        "cycle": lambda: graph(["Add x b > a", "Relu a > b", "Relu b > y"]),
        "input that there is not": lambda: graph(["Add x nowhere > y"]),
        "output that there is not": lambda: graph(["Relu x > z"]),
        "one output twice": lambda: graph(["Relu x > y", "Tanh x > y"]),
        "no nodes": lambda: graph([]),
        "operator that there is not": lambda: graph(["Shell x > y"]),
        "domain that there is not": lambda: graph([node("Relu", domain="os")]),
        "operator set -1": lambda: graph(["Relu x > y"], opset=-1),
        "function of itself": lambda: calling(("A", "A")),
        "functions of each other": lambda: calling(("A", "B"), ("B", "A")),
        "functions of functions": lambda: calling(*fan),
        "sums of the two before": lambda: graph(
            ["Relu x > t0", "Tanh x > t1", *before, "Relu t61 > y"]
        ),
        "sums in sums": lambda: graph(["Relu x > t0", *nested, "Relu t900 > y"]),
        "weights in a thousand sums": lambda: sums_of_sums(1000),
        "weights a thousand times": lambda: graph(
            ["Relu x > t0", *again, "Relu t1000 > y"], wide, ("n", 300)
        ),
        "thirty thousand nodes": lambda: graph(chain("Tanh", 30_000)),
        "a thousand operators without a name": lambda: graph(chain("Exp", 1000)),
        "five thousand on stored tensors": lambda: graph(
            [*negated, "Add x c5000 > y"], {"c0": B[:3]}
        ),
        "sum of a row and a column": lambda: folded("Add", tall, flat),
        "squares of squares": lambda: graph(
            [*(f"Mul c{n} r > c{n + 1}" for n in range(40)), "Add x c40 > y"],
            {"c0": np.ones((3000, 1)), "r": np.ones((1, 3000))},
        ),
        "ConstantOfShape": lambda: folded("ConstantOfShape", many),
        "Range": lambda: folded("Range", numbers(0)[0], numbers(10**12)[0], numbers(1)[0]),
        "Expand": lambda: folded("Expand", B[:1], many),
        "Tile": lambda: folded("Tile", B[:1], numbers(10**12)),
        "Pad": lambda: folded("Pad", B[:1], many),
        "Cast to text": lambda: folded("Cast", B[:3], to=8),
        "Cast to nothing": lambda: folded("Cast", B[:3], to=99),
        "Reshape to what does not fit": lambda: folded("Reshape", B[:3], numbers(-1, -1)),
        "Reshape to a hundred dimensions": lambda: folded("Reshape", B[:1], numbers(*[1] * 100)),
        "division by zero": lambda: folded("Div", B[:3], np.zeros(3)),
        "Constant of text": lambda: graph(
            [node("Constant", "", "c", value_string="a"), "Add x c > y"]
        ),
        "Constant in another file": lambda: graph(
            [node("Constant", "", "c", value=outside(location="/etc/passwd")), "Add x c > y"]
        ),
        "stride of zero": lambda: images("MaxPool", kernel_shape=[2, 2], strides=[0, 0]),
        "stride of zero, same padding": lambda: images(
            "Conv", "x W", strides=[0, 0], auto_pad="SAME_UPPER"
        ),
        "one stride": lambda: images("Conv", "x W", strides=[1]),
        "three pads": lambda: images("Conv", "x W", pads=[1, 1, 1]),
        "negative pads": lambda: images("Conv", "x W", pads=[-1, -1, -1, -1]),
        "padding that there is not": lambda: images("Conv", "x W", auto_pad="SAME"),
        "groups of zero": lambda: images("Conv", "x W", group=0),
        "window of zero": lambda: images("AveragePool", kernel_shape=[0, 0]),
        "axis 10**9": lambda: images("Softmax", axis=10**9),
        "axis 10**9 + 1": lambda: images("Softmax", axis=10**9 + 1),
        "axis of a number": lambda: graph([node("Flatten", axis=1)], x=(), y=("n", "k")),
        "Gemm of NaN": lambda: graph([node("Gemm", "x W", alpha=float("nan"))], {"W": W.T}),
        "Gemm without weights": lambda: graph([node("Gemm", "x")]),
        "Gemm of images": lambda: graph([node("Gemm", "x W")], {"W": np.ones((1, 3, 4))}),
        "norm of other features": lambda: graph(
            [dense, norm], {"W": W.T, "s": np.ones(7), "v": np.ones(7)}
        ),
        "norm of negative variance": lambda: graph([dense, norm], {"W": W.T, "s": B, "v": -B}),
        "products that are no gate": lambda: graph(
            ["MatMul x W > a", "Tanh x > b", "Mul a b > y"], {"W": np.ones((3, 3))}
        ),
        "weights of text": lambda: times(8, raw=None, string_data=[b"1"] * 12),
        "weights of complex numbers": lambda: graph(["MatMul x W > y"], {"W": W.T + 1j}),
        "weights of NaN": lambda: graph(["MatMul x W > y"], {"W": W.T * np.nan}),
        "weights of 10**18 numbers": lambda: times(dims=(10**9, 10**9)),
        "weights whose product overflows": lambda: times(dims=(2**32, 2**32), raw=b""),
        "weights of negative size": lambda: times(dims=(-3, -4)),
        "weights of more bytes": lambda: times(dims=(3, 3)),
        "weights of another type": lambda: times(77),
        "weights of two kinds": lambda: times(double_data=[1.0]),
        "good: number added to 10**12 features": lambda: graph(
            ["Add x c > y"], {"c": B[1:2]}, ("n", 10**12), ("n", 10**12)
        ),
        "good: three hundred residual sums": lambda: graph(
            ["Relu x > t0", *residual, "Relu t300 > y"]
        ),
        "window of 2**62": lambda: images("MaxPool", kernel_shape=[2**62, 2**62]),
        "good: window of 10**9": lambda: images("MaxPool", kernel_shape=[10**9, 10**9]),
        "blocks of 2**32": lambda: images("DepthToSpace", blocksize=2**32),
        "shape of three bytes": lambda: graph(
            [
                node("Constant", "", "s", value=times(7, (1,), b"abc").graph.initializer[0]),
                "Reshape x s > y",
            ]
        ),
        "good: dense": lambda: times(),
    }


def outside(**entries):
    """Build a stored tensor in another file."""
    from onnx import TensorProto

    stored = TensorProto(name="W", dims=[3, 4], data_type=11, data_location=TensorProto.EXTERNAL)
    for key, value in {"offset": 0, "length": 96, **entries}.items():
        stored.external_data.add(key=key, value=str(value))
    return stored


def beside(path, entries, n_tensors=1):
    """Build a model whose weights are in another file, and files of all kinds beside it."""
    folder = path.parent
    (folder / "weights").write_bytes(DATA * 10**5)
    (folder.parent / "secret").write_bytes(DATA)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zeros").symlink_to("/dev/zero")
    (folder / "link").symlink_to("../secret")
    stored = {f"W{n}": outside(**entries) for n in range(n_tensors)}
    for name, item in stored.items():
        item.name = name
    return graph(["MatMul x W0 > y"], stored).SerializeToString()


def field(number, content):
    """Write a field of a protobuf message."""
    size, header = len(content), bytes([number << 3 | 2])
    while size >= 128:
        header, size = header + bytes([size & 127 | 128]), size >> 7
    return header + bytes([size]) + content


def onnx_cases():
    """List models, by name."""
    places = {
        "/etc/passwd": {"location": "/etc/passwd"},
        "another folder": {"location": "../secret"},
        "another folder by a detour": {"location": "folder/../../secret"},
        "a file behind a link": {"location": "link"},
        "a folder": {"location": "folder"},
        "a pipe": {"location": "pipe"},
        "a device": {"location": "zeros"},
        "no file": {"location": "nowhere"},
        "a name with a zero": {"location": "a\0b"},
        "a name of ten thousand letters": {"location": "n" * 10_000},
        "10**15 bytes": {"location": "weights", "length": 10**15},
        "2**64 bytes": {"location": "weights", "length": 2**64},
        "fewer than no bytes": {"location": "weights", "length": -1},
        "bytes before the first": {"location": "weights", "offset": -96},
        "many bytes": {"location": "weights", "length": "many"},
    }
    deep = b""
    for _ in range(400):
        deep = field(1, field(5, field(6, deep)))
    graphs = {
        "no graph": b"",
        "zeros": bytes(100),
        "text": b"import os",
        "a million nodes": field(7, field(1, b"") * 10**6),
        "a million attributes": field(7, field(1, field(5, b"") * 10**6)),
        "a million stored tensors": field(7, field(5, b"") * 10**6),
        "names that are no Unicode": field(7, field(2, b"\xff\xfe") + field(1, field(1, b"\xff"))),
        "branches in branches": field(7, deep),
    }
    whole_file = {"location": "weights", "length": 96 * 10**5}
    return {
        **{
            name: lambda _, make=make: make().SerializeToString()
            for name, make in onnx_graphs().items()
        },
        **{
            f"weights in {name}": lambda path, entries=entries: beside(path, entries)
            for name, entries in places.items()
        },
        **{name: b"\x08\x08" + content for name, content in graphs.items()},
        "one file for a thousand tensors": lambda path: beside(path, whole_file, 1000),
        "good: weights beside the model": lambda path: beside(path, {"location": "weights"}),
        "half a file": lambda _: times().SerializeToString()[:100],
    }
