"""Damaged, contradictory and malicious files, and good ones, for every format that is read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from corpus.network_files import saved_network_cases
from corpus.numpy_files import npz_cases
from corpus.onnx_files import calling, graph, node, onnx_cases
from corpus.parts import B, W, saved
from corpus.safetensors_files import safetensors_cases
from corpus.torch_files import torch_cases, torch_file
from jacrot import Network, layers

SUFFIXES = {
    "npz": ".npz",
    "saved network": ".npz",
    "safetensors": ".safetensors",
    "PyTorch": ".pt",
    "ONNX": ".onnx",
}
PACKAGES = {"safetensors": "safetensors", "PyTorch": "torch", "ONNX": "onnx"}


def no_file(path, what):
    """Create something other than a regular file."""
    match what:
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a link to nothing":
            path.symlink_to("nowhere")
        case _:
            path.touch()
            os.truncate(path, 2**40)


def hostile_cases(kind):
    """List the cases of a format: bytes by name, or a function that writes to a path.

    Those that begin with "good" must be read, the others refused; "slow" ones take a second or
    more to make.
    """
    listed = {
        "npz": npz_cases,
        "saved network": saved_network_cases,
        "safetensors": safetensors_cases,
        "PyTorch": torch_cases,
        "ONNX": onnx_cases,
    }[kind]()
    others = ("a folder", "a pipe", "a device", "a link to nothing", "a terabyte of nothing")
    return listed | {what: lambda path, what=what: no_file(path, what) for what in others}


def write(case, path):
    """Write the file of a case."""
    content = case(path) if callable(case) else case
    if content is not None:
        path.write_bytes(content)


def network_saved(listed, suffix):
    """Return the bytes of a saved network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"network{suffix}")
        Network(listed).save(path, metadata={"epochs": 3})
        return path.read_bytes()


def good_files(kind):
    """Build good files of a format."""
    rng = np.random.default_rng(0)
    square, kernel = rng.normal(size=(4, 4)), rng.normal(size=(4, 3, 3, 3))
    arrays = {"0.weight": W, "0.bias": B, "2.weight": rng.normal(size=(2, 4)), "2.bias": B[:2]}
    if kind == "npz":
        return [saved(np.savez, **arrays), saved(np.savez_compressed, **arrays)]
    if kind == "saved network":
        branch = [layers.Dense(square), layers.RMSNorm(B)]
        pool = [layers.MaxPool2d(2), layers.AvgPool2d(), layers.Flatten()]
        attention = layers.Attention(*[square] * 4, n_heads=2, mask="causal")
        networks = [
            [layers.Dense(W, B), layers.LayerNorm(B, B), layers.Residual(branch)],
            [layers.Conv2d(kernel, padding=1), layers.BatchNorm(B, B + 1), *pool],
            [attention, layers.GatedDense(square, square), layers.Activation("gelu")],
        ]
        return [network_saved(listed, ".npz") for listed in networks]
    if kind == "safetensors":
        from safetensors.numpy import save

        halves = {name: array.astype(np.float16) for name, array in arrays.items()}
        return [save(arrays), save(halves), network_saved([layers.Dense(W, B)], ".safetensors")]
    if kind == "PyTorch":
        import torch

        weights = {name: torch.tensor(array) for name, array in arrays.items()}
        nested = {"model": weights, "epoch": 3, "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}}
        old = torch_file(weights, _use_new_zipfile_serialization=False)
        return [torch_file(weights), torch_file(nested), old]
    gated = ["MatMul x W > a", "Add a b > c", "Sigmoid c > s", "Mul c s > d", "Add d a > e"]
    convolution = [
        node("Conv", "x K", "a", pads=[1, 1, 1, 1]),
        "BatchNormalization a b b b v > c",
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
        "GlobalAveragePool d > e",
        node("Constant", "", "two", value_float=2.0),
        node("Cast", "two", "double", to=11),
        "Flatten e > f",
        "Mul f double > g",
        node("Gemm", "g V b", "y", transB=1),
    ]
    stored = {"K": kernel, "V": square, "b": B, "v": B + 1}
    models = [
        graph([*gated, "Relu e > y"], {"W": W.T, "b": B}),
        graph(convolution, stored, ("n", 3, 8, 8)),
        calling(("A", "Relu", 3)),
    ]
    return [model.SerializeToString() for model in models]
