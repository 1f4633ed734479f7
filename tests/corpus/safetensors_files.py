"""Hostile files of safetensors."""

from __future__ import annotations

import json

import numpy as np

from corpus.network_files import network_headers
from corpus.parts import DATA


def tensors_file(header, data=DATA, size=None):
    """Build a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def tensor(dtype="F64", shape=(4, 3), offsets=(0, 96)):
    """Describe a tensor, the only one of a safetensors file."""
    return {"W": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def saved_tensors(header):
    """Build a safetensors file that looks like that of a saved network."""
    text = header if isinstance(header, str) else json.dumps(header)
    return tensors_file({"__metadata__": {"__jacrot__": text}, "0.weight": tensor()["W"]})


def safetensors_cases():
    """List safetensors files, by name."""
    networks = {
        f"{name}, saved": saved_tensors(header)
        for name, header in network_headers().items()
        if not isinstance(header, np.ndarray)
    }
    many = {f"t{n}": tensor(shape=[0], offsets=[0, 0])["W"] for n in range(100_000)}
    headers = {
        "header of nothing": b"",
        "header that is no JSON": b"import os",
        "header that is a list": [1],
        "header of brackets": b"[" * 100_000,
        "header of brackets inside": b'{"W":' + b"[" * 100_000,
        "header that is no Unicode": b'{"\xff\xfe": {}}',
        "offsets out of the file": tensor(shape=(125_000,), offsets=(0, 10**6)),
        "offsets of 2**63": tensor(offsets=(2**63, 2**63 + 96)),
        "offsets that go back": tensor(offsets=(96, 0)),
        "offsets below zero": tensor(offsets=(-96, 0)),
        "offsets that overlap": tensor() | {"A": tensor()["W"]},
        "offsets with a gap": tensor(shape=(2, 3), offsets=(48, 96)),
        "bytes that belong to nothing": tensor(shape=(2, 3), offsets=(0, 48)),
        "shape of 10**18 numbers": tensor(shape=(10**9, 10**9)),
        "shape whose product overflows": tensor(shape=(2**32, 2**32)),
        "negative shape": tensor(shape=(-4, -3)),
        "shape of fractions": tensor(shape=(4.0, 3.0)),
        "dtype that there is not": tensor("__import__"),
        "dtype that NumPy has not": tensor("F8_E4M3", (12, 8)),
        "complex numbers": tensor("C64"),
        "a tensor that is a number": {"W": 5},
        "metadata that are no text": tensor() | {"__metadata__": {"a": 1}},
        "name of five thousand digits": {"9" * 5000: tensor(shape=(12,))["W"]},
        "good: name of another folder": {"../../W\n": tensor()["W"]},
        "good: truths": tensor("BOOL", (12, 8)),
    }
    return {name: tensors_file(header) for name, header in headers.items()} | {
        **networks,
        "nothing": b"",
        "header of 2**63 bytes": tensors_file({}, size=2**63),
        "header longer than the file": tensors_file(tensor(), size=10**6),
        "header of a hundred thousand tensors": tensors_file(many, b""),
        "shape of nothing and much": tensors_file(tensor(shape=(0, 10**18), offsets=(0, 0)), b""),
        "no dimensions": tensors_file(tensor(shape=(), offsets=(0, 8)), DATA[:8]),
        "no tensors": tensors_file({}, b""),
        "NaN": tensors_file(tensor(), b"\xff" * 96),
        "NaN of half a float": tensors_file(tensor("BF16", (12, 4)), b"\xff" * 96),
        "good: half of a float": tensors_file(tensor("BF16", (12, 4)), bytes(96)),
        "half a file": tensors_file(tensor())[:100],
        "slow: header of twenty megabytes": lambda _: tensors_file(
            b"{" + b" " * 20_000_000 + b"}", b""
        ),
    }
