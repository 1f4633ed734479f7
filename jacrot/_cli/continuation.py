"""Python code that goes on from what a fit wrote."""

from __future__ import annotations

import argparse

from jacrot._cli.inputs import Inputs, ReadFile, single
from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.network_rotation import NetworkRotation


def continuation(options: argparse.Namespace, estimator: NetworkEstimator, inputs: Inputs) -> str:
    """Return Python code that goes on from what was written.

    Parameters
    ----------
    options : Namespace
        The options of ``jacrot fit``.
    estimator : NetworkEstimator
        What was fitted.
    inputs : Inputs
        What was read.

    Returns
    -------
    str
        The code.
    """
    name = type(estimator).__name__
    imports = [f"from jacrot import {name}"]
    lines = [f"X = {_loading(inputs.files['activations'])}"]
    if "held out" in inputs.files:
        lines.append(f"X_test = {_loading(inputs.files['held out'])}")
    else:
        imports.append("from sklearn.model_selection import train_test_split")
        split = f"test_size={options.held_out!r}, random_state={options.seed}"
        lines.append(f"X, X_test = train_test_split(X, {split})")
    if inputs.start and options.from_inputs:
        imports.append("from jacrot.readers import load")
        arguments = [repr(str(options.weights))]
        if options.activation:
            arguments.append(f"activation={single(options.activation)!r}")
        if options.layout != "out_in":
            arguments.append(f"layout={options.layout!r}")
        if options.names:
            arguments.append(f"names={options.names!r}")
        lines.append(f"before = load({', '.join(arguments)})[:{inputs.start}]")
        lines.append("X, X_test = before(X), before(X_test)  # what is rotated")
    lines.append(f"rotation = {name}.load({str(options.out)!r})")
    lines.append("print(rotation.score(X_test))  # sparsity")
    if isinstance(estimator, NetworkRotation):
        transformed = f"rotation.transform(X_test, site={min(estimator.rotations_)})"
    elif len(estimator.provenance_["data"][0]["shape"]) == 2:
        transformed = "rotation.transform(X_test)"
    else:
        imports.append("from jacrot.positions import at_positions")
        transformed = "at_positions(rotation.transform, X_test)"
    lines.append(f"Z = {transformed}  # activations in the new basis")
    lines.append("rotated = rotation.rotated_network()  # the same function, rotations folded in")
    return "\n".join(["import numpy as np", *sorted(imports), "", *lines])


def _loading(file: ReadFile) -> str:
    """Return the expression that reads an array."""
    loaded = f"np.load({str(file.path)!r})"
    return loaded if file.array is None else f"{loaded}[{file.array!r}]"
