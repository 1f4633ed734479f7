"""Exported weights in the forms in which they are stored, converted to layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy.sparse import issparse

from jacrot._utils.arrays import Array, any_array, real_array
from jacrot._utils.frameworks import describe_framework_model
from jacrot.activations import Elementwise
from jacrot.layers import Dense, Function, Layer
from jacrot.layers._names import first_out_of_order, is_automatic, only_order

Layout = Literal["out_in", "in_out"]
ActivationLike = str | Elementwise | Sequence[str | Elementwise]
_Pair = tuple[str, Array, Array | None]

ACCEPTED = (
    "a Network, a matrix, a list of matrices, a list of (W, b) pairs, a flat list W, b, W, b, a "
    "mapping of names to arrays in layer order, a list of layers, or a callable written with "
    "autograd.numpy"
)


def layers_from_weights(
    weights: Any, activation: ActivationLike = "relu", layout: Layout = "out_in"
) -> list[Layer]:
    """Convert exported weights to a list of layers.

    Parameters
    ----------
    weights : array-like, sequence, mapping, callable or Layer
        See ``jacrot.Network``.
    activation : str, callable or sequence of them, default="relu"
        Applied after every layer of raw weights; a sequence has one for each layer.
    layout : {"out_in", "in_out"}, default="out_in"
        Whether a matrix is stored ``(n_out, n_in)``, as PyTorch does, or ``(n_in, n_out)``, as
        Keras, Flax and scikit-learn do.

    Returns
    -------
    list of Layer
        The layers, in order. Whether they chain is not checked here.

    Raises
    ------
    TypeError
        If `weights` is an object of another kind.
    ValueError
        If `weights` is empty, has an array of the wrong dimensions, or holds NaN or infinity;
        if `activation` is unknown or is a sequence of the wrong length.
    """
    if layout not in ("out_in", "in_out"):
        raise ValueError(f"layout={layout!r} is unknown; pass 'out_in' or 'in_out'.")
    layers = _ready_layers(weights)
    if layers is not None:
        if not (isinstance(activation, str) and activation == "relu") or layout != "out_in":
            raise ValueError(
                "activation and layout describe raw weights, but weights holds layers or a "
                "callable, which know their own; leave activation and layout out."
            )
        return layers
    pairs = _pairs(weights)
    if isinstance(activation, str) or callable(activation):
        activations: Sequence[str | Elementwise] = [activation] * len(pairs)
    else:
        try:
            activations = list(activation)
        except TypeError as error:
            raise TypeError(
                f"activation is a {type(activation).__name__}; pass a name, an elementwise "
                "function, or a list of one for each layer."
            ) from error
        if len(activations) != len(pairs):
            raise ValueError(
                f"activation lists {len(activations)} activations for {len(pairs)} layers; "
                "pass one for each layer ('identity' where there is none)."
            )
    if layout == "in_out":
        pairs = [(name, weight.T, bias) for name, weight, bias in pairs]
    if isinstance(weights, Mapping):
        _check_names(layer_names(weights), [weight for _, weight, _ in pairs])
    _check_biases(pairs, layout)
    return [
        Dense(weight, bias, function)
        for (_, weight, bias), function in zip(pairs, activations, strict=True)
    ]


def chains_transposed(layers: Sequence[Any]) -> bool:
    """Check whether dense layers chain when every matrix is transposed.

    Parameters
    ----------
    layers : sequence of Layer
        Layers that do not chain as they are.

    Returns
    -------
    bool
        Whether they do with ``layout`` the other way round.
    """
    return all(isinstance(layer, Dense) for layer in layers) and all(
        first.weight.shape[1] == second.weight.shape[0] for first, second in pairwise(layers)
    )


def is_made_of_layers(weights: Any) -> bool:
    """Check whether weights are layers, networks or callables, which have their activations.

    Parameters
    ----------
    weights : object
        Weights in any form.

    Returns
    -------
    bool
        Whether no activation can be passed beside them.
    """
    return _ready_layers(weights) is not None


def _ready_layers(weights: Any) -> list[Layer] | None:
    """List weights that are layers already; return ``None`` for raw weights."""
    if isinstance(weights, type):
        raise TypeError(f"weights is the class {weights.__name__}; pass an instance of it.")
    description = describe_framework_model(weights)
    if description is not None:
        raise TypeError(f"weights {description}.")
    if isinstance(weights, Layer):
        return [weights]
    if hasattr(weights, "push") and hasattr(weights, "reach"):
        raise TypeError(
            f"weights is a {type(weights).__name__}, a layer whose methods have their old names; "
            "derive it from jacrot.layers.BaseLayer, or rename push to jvp, reading to "
            "rotate_inputs and writing to rotate_outputs."
        )
    if isinstance(layers := getattr(weights, "layers", None), tuple):
        return list(layers)
    if isinstance(weights, (list, tuple)) and any(callable(item) for item in weights):
        ready: list[Layer] = []
        for index, item in enumerate(weights):
            layers = _ready_layers(item)
            if layers is None:
                raise TypeError(
                    f"weights[{index}] is a {type(item).__name__} among layers; pass it as a "
                    "jacrot.layers.Dense."
                )
            ready += layers
        return ready
    return [Function(weights)] if callable(weights) else None


def _pairs(weights: Any) -> list[_Pair]:
    """Convert raw weights to ``(name, W, b or None)``, one for each layer."""
    if issparse(weights):
        raise TypeError("weights is a sparse matrix; pass weights.toarray().")
    if isinstance(weights, Mapping):
        return _pairs_of_mapping(weights)
    if isinstance(weights, (list, tuple)):
        if len(weights) == 0:
            raise ValueError(f"weights is empty; pass {ACCEPTED}.")
        if all(np.isscalar(item) or _is_vector(item) for item in weights):
            # Rows of one matrix, written as nested lists.
            return [("weights", real_array(weights, "weights", ndim=2), None)]
        if any(_holds_arrays(item) for item in weights):
            return [_pair(f"weights[{index}]", item) for index, item in enumerate(weights)]
        return _pairs_of_flat_list(weights)
    if hasattr(weights, "__array__"):
        return [("weights", real_array(weights, "weights", ndim=2), None)]
    raise TypeError(f"weights is a {type(weights).__name__}; pass {ACCEPTED}.")


def _is_vector(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and all(np.isscalar(entry) for entry in item)


def _holds_arrays(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and any(hasattr(entry, "ndim") for entry in item)


def _pair(name: str, item: Any) -> _Pair:
    if not isinstance(item, (list, tuple)) or len(item) != 2:
        raise ValueError(
            f"{name} is not a pair (W, b) although others are; pass (W, b) for every layer, b None "
            "where there is none."
        )
    weight, bias = item
    matrix = real_array(weight, f"{name}[0]", ndim=2)
    return name, matrix, None if bias is None else real_array(bias, f"{name}[1]", ndim=1)


def _pairs_of_flat_list(weights: Sequence[Any]) -> list[_Pair]:
    pairs: list[_Pair] = []
    for index, item in enumerate(weights):
        name = f"weights[{index}]"
        array = any_array(item, name)
        if array.ndim == 2:
            pairs.append((name, real_array(array, name, ndim=2), None))
        elif array.ndim == 1 and pairs and pairs[-1][2] is None:
            first, weight, _ = pairs[-1]
            pairs[-1] = (first, weight, real_array(array, name, ndim=1))
        else:
            raise ValueError(
                f"{name} has shape {array.shape}, which is neither a matrix nor the bias of the "
                "matrix before it; pass matrices (n_out, n_in), each followed by its bias (n_out,)"
                " or by none."
            )
    return pairs


def _pairs_of_mapping(weights: Mapping[str, Any]) -> list[_Pair]:
    pairs: list[_Pair] = []
    for key, bias in layer_names(weights):
        name = f"weights[{key!r}]"
        matrix = real_array(weights[key], name, ndim=2)
        vector = None if bias is None else real_array(weights[bias], f"weights[{bias!r}]", ndim=1)
        pairs.append((name, matrix, vector))
    return pairs


def layer_names(weights: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Find the matrices in a mapping, and the bias of each by its place.

    Parameters
    ----------
    weights : mapping of str to array-like
        Matrices and biases in layer order.

    Returns
    -------
    list of (str, str or None)
        The name of every matrix, and that of its bias if it has one.

    Raises
    ------
    ValueError
        If the mapping is empty or holds something else, or it does not follow whose bias each
        vector is.
    """
    if len(weights) == 0:
        raise ValueError(f"weights is an empty mapping; pass {ACCEPTED}.")
    matrices: list[str] = []
    vectors: list[str] = []
    order = ""
    for key in weights:
        name = f"weights[{key!r}]"
        ndim = any_array(weights[key], name).ndim
        if ndim not in (1, 2):
            raise ValueError(
                f"{name} has shape {np.shape(weights[key])}; only matrices (n_out, n_in) and biases"
                " (n_out,) make dense layers. Leave it out, or pass the layers as jacrot.layers."
            )
        (matrices if ndim == 2 else vectors).append(key)
        order += "Wb"[ndim == 1]
    n_layers = len(matrices)
    if order in ("bW" * n_layers, "W" * n_layers + "b" * n_layers):
        return list(zip(matrices, vectors, strict=True))
    before, *after_each = order.split("W")
    if before or "bb" in order:
        raise ValueError(
            f"weights has matrices (W) and vectors (b) in the order {order}, from which it "
            "does not follow whose bias each vector is; pass W, b, W, b, or W, W, b, b."
        )
    remaining = iter(vectors)
    biases = [next(remaining) if bias else None for bias in after_each]
    return list(zip(matrices, biases, strict=True))


def _check_names(names: list[tuple[str, str | None]], matrices: list[Array]) -> None:
    """Check that the names in a mapping do not contradict its order."""

    def refuse(reason: str) -> ValueError:
        return ValueError(
            f"weights has {reason}, so that the order of the layers is not known; pass a list of "
            "(W, b) pairs, or names=[...] to jacrot.readers.load, in the order in which they "
            "compute."
        )

    numbers = [_numbers(key) for key, _ in names]
    for (key, bias), own in zip(names, numbers, strict=True):
        its = own if bias is None else _numbers(bias)
        # Names that count all arrays, as numpy.savez does, are of one layer and differ.
        if its != own and len(its) == len(own) and its in numbers:
            raise refuse(f"{bias!r} in the place of the bias of {key!r}")
    parts = [re.split(r"[./](?=[^./]*$)", str(key)) for key, _ in names]
    # The names of a weight itself, and of what has a weight as in PyTorch, are the user's.
    modules = [module for module, *leaf in parts if leaf not in ([], ["weight"])]
    automatic = next(filter(is_automatic, modules), None)
    if automatic is None:
        if (pair := first_out_of_order(str(key) for key, _ in names)) is not None:
            raise refuse(f"{pair[0]!r} before {pair[1]!r}, against the numbers in their names")
    elif all(after.shape[1] == before.shape[0] for before, after in pairwise(matrices)):
        follows = [
            [index for index, after in enumerate(matrices) if after.shape[1] == before.shape[0]]
            for before in matrices
        ]
        if only_order(follows) is None:
            raise refuse(
                f"{automatic!r}, whose number counts constructions and not calls, and matrices "
                "that chain in another order too"
            )


def _numbers(name: Any) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", str(name))]


def _check_biases(pairs: list[_Pair], layout: Layout) -> None:
    for name, weight, bias in pairs:
        if bias is not None and bias.size != weight.shape[0]:
            hint = (
                transposed_hint(layout)
                if all(b is None or b.size == w.shape[1] for _, w, b in pairs)
                else f"pass a bias of {weight.shape[0]} entries."
            )
            raise ValueError(
                f"{name}: the matrix has {weight.shape[0]} outputs but its bias has {bias.size} "
                f"entries; {hint}"
            )


def transposed_hint(layout: Layout) -> str:
    """Describe how to pass matrices that are stored the other way round.

    Parameters
    ----------
    layout : {"out_in", "in_out"}
        The layout that was passed.

    Returns
    -------
    str
        End of an error message.
    """
    other = {
        "out_in": "(n_in, n_out), as Keras, Flax and scikit-learn do, pass Network(weights, "
        "layout='in_out')",
        "in_out": "(n_out, n_in), as PyTorch does, pass Network(weights, layout='out_in')",
    }
    return f"they fit when every matrix is transposed: if they are stored {other[layout]}."
