"""Checks of the state of a fitted estimator, before it is saved and after it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import validate_parameter_constraints

from jacrot._estimators.fitted_range import FittedRange
from jacrot._jacobians.coordinates import FunctionalCoordinates
from jacrot._utils.arrays import Matrix
from jacrot.network import ORTHOGONALITY_TOL, Network

# Tolerance for sparsities and shares outside their bounds, from rounding in single precision.
BOUNDS_TOL = 1e-5
# Tolerance for the product of coordinates and their inverse; null directions make them
# ill-conditioned.
INVERSE_TOL = 1e-5
# Additional tolerance, in units of the rounding error of one product of their entries.
ROUNDING_UNITS = 10

# Parameters that may be functions or random number generators.
MAYBE_UNSAVED = ("network", "activation", "criterion", "readout", "random_state")

COUNTS = ("stage", "iteration", "evaluations")
COLUMNS = (*COUNTS, "cost", "seconds")


class Unsaved:
    """Placeholder of a parameter that only pickle could save, such as a function.

    Parameters
    ----------
    text : str
        Description of the parameter.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<not saved: {self.text}>"


def check_fitted_state(estimator: Any) -> None:
    """Check that the parameters and fitted attributes of an estimator are consistent.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        A fitted estimator, from `fit` or from a file.

    Raises
    ------
    TypeError, ValueError
        If an attribute is missing, has the wrong type or shape, is not finite, or contradicts
        the parameters or another attribute. The message begins with its name.
    """
    _check_parameters(estimator)
    _check_types(estimator)
    _check_features(estimator)
    _check_search(estimator)
    if hasattr(estimator, "rotations_"):
        _check_sites(estimator)
    else:
        _check_two_sides(estimator)
    _check_provenance(estimator)


def _require(condition: Any, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _check_parameters(estimator: Any) -> None:
    known = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if not (name in MAYBE_UNSAVED and isinstance(value, Unsaved))
    }
    constraints = {name: estimator._parameter_constraints[name] for name in known}
    validate_parameter_constraints(constraints, known, type(estimator).__name__)


def _check_types(estimator: Any) -> None:
    attributes = vars(estimator)
    for name, types in estimator._saved.items():
        # Names are optional, and files of earlier versions have no range.
        if name in ("feature_names_in_", "_fitted_range") and name not in attributes:
            continue
        _require(name in attributes, f"{name} is missing")
        value = attributes[name]
        allowed = types if isinstance(types, tuple) else (types,)
        is_bool = isinstance(value, bool)
        if not isinstance(value, allowed) or (is_bool and bool not in allowed):
            raise TypeError(f"{name} is a {type(value).__name__}")


def _check_features(estimator: Any) -> None:
    size = estimator.n_features_in_
    _require(size >= 1, f"n_features_in_ is {size}")
    if hasattr(estimator, "feature_names_in_"):
        names = estimator.feature_names_in_
        _require(
            names.shape == (size,) and all(isinstance(name, str) for name in names),
            f"feature_names_in_ is not one string for each of {size} features",
        )
    for network in _networks(estimator):
        _require(
            network.n_inputs in (None, size),
            f"n_features_in_ is {size}, but network_ reads {network.n_inputs}",
        )
    if estimator._fitted_range is not None:
        _check_range(estimator._fitted_range, size)


def _networks(estimator: Any) -> tuple[Network, ...]:
    network = estimator.network_
    networks = network if isinstance(network, tuple) else () if network is None else (network,)
    _require(
        network is None or (networks and all(isinstance(each, Network) for each in networks)),
        "network_ is not a Network or a tuple of them",
    )
    return networks


def _check_search(estimator: Any) -> None:
    """Check the results of the search: counts, history and sparsities."""
    _require(estimator.n_iter_ >= 0, f"n_iter_ is {estimator.n_iter_}")
    _require(
        not (estimator.converged_ and estimator._interrupted),
        "converged_ is true, but the search was interrupted",
    )
    stages, history = estimator.stages_, estimator.history_
    _require(all(isinstance(label, str) for label in stages), "stages_ are not all strings")
    _require(set(history) == set(COLUMNS), f"history_ has columns {list(history)}")
    for name, column in history.items():
        dtype = np.int64 if name in COUNTS else np.float64
        _check_array(column, f"history_[{name!r}]", (len(history["stage"]),), dtype)
        _require(name == "cost" or (column >= 0).all(), f"history_[{name!r}] is negative")
    index = history["stage"]
    _require((index < len(stages)).all(), "history_['stage'] counts more stages than stages_")
    for name in ("stage", "evaluations", "seconds"):
        _require((np.diff(history[name]) >= 0).all(), f"history_[{name!r}] does not increase")
    for name in ("sparsity_", "sparsity_before_"):
        _check_shares(np.array([getattr(estimator, name)]), name)


def _check_two_sides(estimator: Any) -> None:
    """Check the attributes of a JacobianSparsityRotation."""
    size, Q, P = estimator.n_features_in_, estimator.rotation_, estimator.output_rotation_
    wanted = estimator.n_components
    _check_rotation(Q, "rotation_", size)
    fits = len(Q) == size
    if wanted is not None:
        fits = len(Q) == wanted if isinstance(wanted, Integral) else True
    _require(fits, f"rotation_ has {len(Q)} axes, but n_components is {wanted}")
    widths = (network.n_outputs for network in _networks(estimator))
    n_outputs = {width for width in widths if width is not None}
    _require(len(n_outputs) <= 1, f"network_ has blocks that write {n_outputs} activations")
    turned = estimator.rotate_output
    if turned is False:
        _require(P is None, "output_rotation_ is there, but rotate_output is False")
    else:
        _require(P is not None, f"output_rotation_ is missing, but rotate_output is {turned!r}")
        if turned == "tied":
            _require(np.array_equal(P, Q), "output_rotation_ is not rotation_, but tied to it")
            n_outputs |= {size}
        else:
            _check_rotation(P, "output_rotation_", P.shape[-1], square=True)
            n_outputs |= {len(P)}
        _require(len(n_outputs) == 1, f"output_rotation_ has shape {P.shape}, unlike network_")
    ratio = estimator.explained_sensitivity_ratio_
    _check_array(ratio, "explained_sensitivity_ratio_", (len(Q),), np.float64)
    _check_shares(np.append(ratio, ratio.sum()), "explained_sensitivity_ratio_")
    _check_two_coordinates(estimator, n_outputs)


def _check_two_coordinates(estimator: Any, n_outputs: set[int]) -> None:
    inner, outer = estimator._inner, estimator._outer
    functional = estimator.coordinates == "functional"
    weighed = functional and (estimator.rotate_output == "tied" or estimator.readout is not None)
    if functional and "segments" in estimator.provenance_:
        # A segment may have a readout of its own.
        weighed = isinstance(outer, FunctionalCoordinates)
    for part, name, expected in ((inner, "_inner", functional), (outer, "_outer", weighed)):
        _require(
            isinstance(part, FunctionalCoordinates) == expected,
            f"{name} is {'missing' if expected else 'there'}, which does not fit "
            f"coordinates={estimator.coordinates!r} and the other parameters",
        )
    if isinstance(inner, FunctionalCoordinates):
        _check_coordinates(inner, "_inner", estimator.n_features_in_)
    if isinstance(outer, FunctionalCoordinates):
        width = len(outer.mean)
        _require(n_outputs <= {width}, f"_outer has {width} outputs, but there are {n_outputs}")
        _check_coordinates(outer, "_outer", width)
        if estimator.rotate_output == "tied":
            _require(outer is inner, "_outer is not _inner, but the outputs are tied to the inputs")
    for name, part, side in (
        ("mean_", inner, "mean"),
        ("whitening_", inner, "forward"),
        ("output_whitening_", outer, "forward"),
    ):
        _check_same(getattr(estimator, name), getattr(part, side, None), name)


def _check_sites(estimator: Any) -> None:
    """Check the attributes of a NetworkRotation."""
    network, rotations = estimator.network_, estimator.rotations_
    last = network.n_layers
    _require(last >= 2, f"network_ has {last} layer")
    expected = range(not estimator.rotate_input, last + bool(estimator.rotate_output))
    functional = estimator.coordinates == "functional"
    for name, sites in (
        ("rotations_", expected),
        ("_coordinates", expected if functional else ()),
        ("means_", expected if functional else None),
        ("whitenings_", expected if functional else None),
    ):
        _check_keys(getattr(estimator, name), sites, name)
    for site, rotation in rotations.items():
        name = f"rotations_[{site}]"
        width = network.n_outputs if site == last else network._width(site)
        if site == 0:
            width = estimator.n_features_in_
        _check_rotation(rotation, name, rotation.shape[-1] if width is None else width, square=True)
        if functional:
            part = estimator._coordinates[site]
            _require(
                isinstance(part, FunctionalCoordinates), f"_coordinates[{site}] is not Coordinates"
            )
            _check_coordinates(part, f"_coordinates[{site}]", len(rotation))
            _check_same(estimator.means_[site], part.mean, f"means_[{site}]")
            _check_same(estimator.whitenings_[site], part.forward, f"whitenings_[{site}]")
    for name in ("sparsities_", "sparsities_before_"):
        values = getattr(estimator, name)
        _check_array(values, name, (last,), np.float64)
        _check_shares(values, name)
        mean = name.replace("sparsities", "sparsity")
        _require(
            abs(values.mean() - getattr(estimator, mean)) < BOUNDS_TOL,
            f"{mean} is not the mean of {name}",
        )


def _check_provenance(estimator: Any) -> None:
    """Check that the provenance agrees with the attributes."""
    record = estimator.provenance_
    kind, scores = record.get("estimator"), record.get("scores")
    _require(kind == type(estimator).__name__, f"provenance_ is that of a {kind}")
    _require(isinstance(scores, Mapping), "provenance_ has no scores")
    for name, value in scores.items():
        known = value == getattr(estimator, f"{name}_", None)
        _require(known, f"provenance_ has a {name} of {value!r}, unlike {name}_")


def _check_keys(found: Any, expected: Iterable[int] | None, name: str) -> None:
    if expected is None:
        _require(found is None, f"{name} is there, but coordinates is 'neurons'")
        return
    sites = list(expected)
    _require(
        isinstance(found, Mapping)
        and all(type(site) is int for site in found)
        and list(found) == sites,
        f"{name} is not one value for each of the sites {sites}",
    )


def _check_array(array: Any, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        found = f"{getattr(array, 'dtype', type(array).__name__)} {np.shape(array)}"
        raise ValueError(f"{name} is {found}, not {np.dtype(dtype)} {shape}")
    _require(np.isfinite(array).all(), f"{name} has NaN or infinity")


def _check_rotation(rotation: Any, name: str, n_features: int, square: bool = False) -> None:
    n_axes = n_features if square or np.ndim(rotation) != 2 else len(rotation)
    _check_array(rotation, name, (n_axes, n_features), np.float64)
    _require(1 <= n_axes <= n_features, f"{name} has {n_axes} axes of {n_features} features")
    error = np.abs(rotation @ rotation.T - np.eye(n_axes)).max()
    _require(error < ORTHOGONALITY_TOL, f"{name} does not have orthonormal rows")


def _check_coordinates(part: FunctionalCoordinates, name: str, size: int) -> None:
    _check_array(part.mean, f"{name}.mean", (size,), np.float64)
    for side in ("forward", "backward", "metric"):
        matrix = getattr(part, side)
        _check_array(matrix, f"{name}.{side}", (size, size), np.float64)
        asymmetry = np.abs(matrix - matrix.T).max()
        _require(asymmetry <= INVERSE_TOL * np.abs(matrix).max(), f"{name}.{side} is not symmetric")
    # Directions outside the basis keep their length: their rounding error has its own size.
    largest = np.abs(part.forward).max() * np.abs(part.backward).max()
    rounding = ROUNDING_UNITS * np.finfo(np.float64).eps * size * largest
    _require(
        np.abs(part.forward @ part.backward - np.eye(size)).max() < INVERSE_TOL + rounding,
        f"{name}.backward is not the inverse of {name}.forward",
    )
    _check_metric(part, name)


def _check_metric(part: FunctionalCoordinates, name: str) -> None:
    """Check that the metric commutes with the coordinates and is positive semidefinite."""
    largest = np.abs(part.metric).max()
    product = part.metric @ part.forward
    scale = max(float(np.abs(product).max()), np.finfo(float).tiny)
    _require(
        np.abs(product - product.T).max() <= INVERSE_TOL * scale
        and np.linalg.eigvalsh(part.metric)[0] >= -INVERSE_TOL * largest,
        f"{name}.metric does not belong to {name}.forward",
    )


def _check_range(part: FittedRange, size: int) -> None:
    _check_array(part.mean, "_fitted_range.mean", (size,), np.float64)
    _check_array(part.whitening, "_fitted_range.whitening", (size, size), np.float64)
    _require(
        isinstance(part.unit, float) and 0 < part.unit < np.inf,
        f"_fitted_range.unit is {part.unit!r}",
    )
    _require(
        (np.diag(part.whitening) > 0).all() and not np.triu(part.whitening, 1).any(),
        "_fitted_range.whitening is not lower triangular with a positive diagonal",
    )


def _check_same(found: Any, expected: Matrix | None, name: str) -> None:
    same = found is None if expected is None else np.array_equal(found, expected)
    _require(same, f"{name} is not what the coordinates have")


def _check_shares(values: Matrix, name: str) -> None:
    _require(
        ((values >= -BOUNDS_TOL) & (values <= 1 + BOUNDS_TOL)).all(),
        f"{name} is {values.min():g} to {values.max():g}, outside 0 to 1",
    )
