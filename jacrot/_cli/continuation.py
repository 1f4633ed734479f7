"""Python code that continues from the files of a fit."""

from __future__ import annotations

from jacrot._cli.arrays import ReadFile
from jacrot._cli.inputs import Inputs, one_or_each
from jacrot._cli.options import FitOptions


def continuation(options: FitOptions, inputs: Inputs) -> str:
    """Return Python code that loads the data and the rotation of a fit.

    Parameters
    ----------
    options : FitOptions
        The options of ``jacrot fit``.
    inputs : Inputs
        What was read.

    Returns
    -------
    str
        The code.
    """
    name = "NetworkRotation" if options.whole_network else "JacobianSparsityRotation"
    imports = [f"from jacrot import {name}"]
    lines = [f"X = {_load_expression(inputs.files['activations'])}"]
    if "held out" in inputs.files:
        lines.append(f"X_test = {_load_expression(inputs.files['held out'])}")
    else:
        imports.append("from sklearn.model_selection import train_test_split")
        split = f"test_size={options.held_out!r}, random_state={options.seed}"
        lines.append(f"X, X_test = train_test_split(X, {split})")
    if inputs.start and options.from_inputs:
        imports.append("from jacrot.readers import load")
        arguments = [repr(str(options.weights))]
        if options.activation:
            arguments.append(f"activation={one_or_each(options.activation)!r}")
        if options.layout != "out_in":
            arguments.append(f"layout={options.layout!r}")
        if options.names:
            arguments.append(f"names={options.names!r}")
        lines.append(f"before = load({', '.join(arguments)})[:{inputs.start}]")
        lines.append("X, X_test = before(X), before(X_test)  # what is rotated")
    lines.append(f"rotation = {name}.load({str(options.out)!r})")
    lines.append("print(rotation.score(X_test))  # sparsity")
    if options.whole_network:
        transformed = "rotation.transform(X_test, site=min(rotation.rotations_))"
    elif inputs.X.ndim == 2:
        transformed = "rotation.transform(X_test)"
    else:
        imports.append("from jacrot.positions import at_positions")
        transformed = "at_positions(rotation.transform, X_test)"
    lines.append(f"Z = {transformed}  # activations in the new basis")
    lines.append("rotated = rotation.rotated_network()  # the same function, rotations folded in")
    return "\n".join(["import numpy as np", *sorted(imports), "", *lines])


def _load_expression(file: ReadFile) -> str:
    """Return the expression that reads an array."""
    loaded = f"np.load({str(file.path)!r})"
    return loaded if file.array is None else f"{loaded}[{file.array!r}]"
