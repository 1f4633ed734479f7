"""Hostile files of saved networks."""

from __future__ import annotations

import json

import numpy as np

from corpus.parts import COMMAND, W, saved


def network_file(header):
    """Build what looks like the file of a saved network; the header may be text already."""
    text = header if isinstance(header, (str, np.ndarray)) else json.dumps(header)
    return saved(np.savez_compressed, **{"0.weight": W, "m": W > 1}, __jacrot__=text)


def described(*listed):
    """Describe a network of some layers."""
    return {"format": "jacrot.Network/1", "layers": list(listed)}


def layer(kind="Dense", **arguments):
    """Describe a layer."""
    weight = {"weight": {"array": "0.weight"}} if kind == "Dense" else {}
    return {"layer": kind, "arguments": weight | arguments}


def sums(depth):
    """Write sums in sums."""
    start = '{"layer": "Residual", "arguments": {"branch": ' * depth
    inner = start + '{"layer": "Activation", "arguments": {"activation": "relu"}}' + "}}" * depth
    return '{"format": "jacrot.Network/1", "layers": [' + inner + "]}"


def network_headers():
    """List headers as Network.save's, by name."""
    dense = json.dumps(described(layer()))
    kinds = ("Function", "BaseLayer", "Layer", "fused", "identity_tangents", "__class__")
    kinds += ("__builtins__", "attention", "os.system", "", None, 5, ["Dense"], {"a": 1})
    return {
        **{f"layer {kind}": described(layer(kind, x={"array": "0.weight"})) for kind in kinds},
        "layer that is none": described("relu"),
        "array in place of a layer": described({"array": "0.weight"}),
        "no layers": described(),
        "layers that are a number": described() | {"layers": 7},
        "layers that are text": described() | {"layers": "Dense"},
        "layers that are a dictionary": described() | {"layers": layer()},
        "header that is a number": "7",
        "header that is no JSON": f"import os; os.system({COMMAND!r})",
        "header of brackets": "[" * 100_000,
        "header of bytes": np.array(dense.encode()),
        "header of two texts": np.array([dense, dense]),
        "header of objects": np.array([{"a": 1}], dtype=object),
        "header of letters that there are not": np.frombuffer(b"\xff" * 400, "<U100").reshape(()),
        "header with a zero": "\0" + dense,
        "other format": described() | {"format": ["x"] * 10},
        "array that there is not": described(layer(weight={"array": "nowhere"})),
        "array named by a list": described(layer(weight={"array": ["0.weight"]})),
        "array two thousand times": described(*[layer()] * 2000),
        "argument that there is not": described(layer(shell=COMMAND)),
        "arguments that are a list": described({"layer": "Dense", "arguments": [1]}),
        "brackets for a name": dense.replace('"0.weight"', "[" * 90_000 + "]" * 90_000),
        "sums in sums, five thousand": sums(5000),
        "NaN": described(layer("LayerNorm", eps=float("nan"))),
        "infinity": json.dumps(described(layer("LayerNorm", eps=7.5))).replace("7.5", "1e999"),
        "number of five thousand digits": dense.replace('"0.weight"', "9" * 5000),
        "number too large for a float": described(layer("LayerNorm", eps=10**400)),
        "activation that is a layer": described(layer(activation=layer("Softmax"))),
        "activation that there is not": described(layer(activation="exec")),
        "activation that is a number": described(layer("Activation", activation=3)),
        "weight that is text": described(layer(weight="W")),
        "weight that is nothing": described(layer(weight=None)),
        "weight that is ragged": described(layer(weight=[[1, 2], [3]])),
        "bias that is a matrix": described(layer(bias={"array": "m"})),
        "eps that is text": described(layer("LayerNorm", eps="1e-5")),
        "count_padding that is text": described(layer("AvgPool2d", size=2, count_padding="no")),
        "window of zero": described(layer("MaxPool2d", size=0)),
        "window of a fraction": described(layer("MaxPool2d", size=2.5)),
        "window of three sides": described(layer("MaxPool2d", size=[2, 2, 2])),
        "layers that do not chain": described(layer(), layer(weight=[[1.0, 2.0]])),
        "branch that is an array": described(layer("Residual", branch={"array": "0.weight"})),
        "branch of nothing": described(layer("Residual", branch=[])),
        "sequence that is a number": described(layer("Sequential", layers=3)),
        "good: window of 10**9": described(layer("MaxPool2d", size=10**9)),
        "good: sums in sums, twenty": sums(20),
        "good: ten thousand layers": described(*[layer("Flatten")] * 10_000),
        "good: metadata that are a number": described(layer()) | {"metadata": 7},
        "good: dense": dense,
    }


def saved_network_cases():
    """List files of Network.save's, by name."""
    slow = "slow: header of a hundred megabytes"
    return {name: network_file(header) for name, header in network_headers().items()} | {
        slow: lambda _: network_file(np.array(" " * 25_000_000))
    }
