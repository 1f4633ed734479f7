"""The sparsity of a fit beside that of other bases, and whether the network is still the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jacrot._estimators.base import NetworkEstimator, mean_hoyer, shared, with_effect
from jacrot._estimators.network_rotation import NetworkRotation, _layer_jacobians, _parts
from jacrot._estimators.rotation import SCORE_SEED
from jacrot._jacobians.coordinates import SiteBasis
from jacrot._jacobians.networks import drawn_pairs, network_jacobians
from jacrot._jacobians.stacks import Jacobians
from jacrot._utils.arrays import FEATURES_AXIS, Array, Matrix
from jacrot._utils.threads import one_blas_thread
from jacrot.inspection._fitted import fitted_network
from jacrot.layers import Dense, Softmax
from jacrot.network import Network
from jacrot.positions import at_positions, to_rows

# Names of the bases that are compared.
GIVEN, PCA, PRINCIPAL, MEAN, OURS = (
    "given basis",
    "principal components of the activations",
    "principal directions of the Jacobians",
    "singular vectors of the mean Jacobian",
    "jacrot",
)

Rotations = dict[int, Matrix]


class BasisSparsity(NamedTuple):
    """Mean Hoyer sparsity of the Jacobians in some basis.

    Parameters
    ----------
    training, held_out : float
        On the inputs that were fitted, and on others.

    Examples
    --------
    >>> from jacrot.report import BasisSparsity
    >>> BasisSparsity(training=0.7, held_out=0.6).held_out
    0.6
    """

    training: float
    held_out: float


@dataclass(frozen=True)
class Comparison:
    """The sparsity in several bases, and whether the rotated network computes the same.

    Parameters
    ----------
    bases : dict of str to BasisSparsity
        The mean Hoyer sparsity in every basis, in the given one first and the rotation's last.
    layers : list of tuple of float
        Of a whole network the held-out sparsity of every layer, given and rotated; else empty.
    difference, largest : float
        The largest difference between an output of the network and that of the rotated one, turned
        back, and the largest output; on held-out inputs.
    same_predictions : int or None
        On how many of them both have the same largest output; ``None`` where outputs are no logits.
    n_held_out : int
        How many there are.

    Examples
    --------
    >>> from jacrot.report import BasisSparsity, Comparison
    >>> bases = {"given basis": BasisSparsity(0.3, 0.3), "jacrot": BasisSparsity(0.7, 0.6)}
    >>> Comparison(bases, [], 1e-14, 5.0, None, 100).sparsest_other
    ('given basis', 0.3)
    """

    bases: dict[str, BasisSparsity]
    layers: list[tuple[float, float]]
    difference: float
    largest: float
    same_predictions: int | None
    n_held_out: int

    @property
    def sparsest_other(self) -> tuple[str, float]:
        """The basis, but for the rotation's, that is sparsest on held-out inputs."""
        others = {name: held_out for name, (_, held_out) in self.bases.items() if name != OURS}
        name = max(others, key=lambda name: others[name])
        return name, others[name]


class AnalysedLayer(NamedTuple):
    """The Jacobians of a layer, or of the whole computation that is rotated at its two ends."""

    plain: Jacobians
    plain_norms: Matrix
    # The same in the estimator's coordinates.
    stack: Jacobians
    norms: Matrix


def compare(
    estimator: NetworkEstimator,
    X: ArrayLike,
    X_test: ArrayLike,
    *,
    readout: Network | None = None,
) -> Comparison:
    """Compute the sparsity in the basis found and in others, and run the rotated network.

    Where the outputs are rotated, every basis has axes of its own kind for them; where all sites of
    a network are, for each of these.

    - ``"given basis"``: the neurons.
    - ``"principal components of the activations"``.
    - ``"principal directions of the Jacobians"``: eigenvectors of ``E[JᵀJ]`` and of ``E[JJᵀ]``, of
      their sum for a site between two layers and for tied outputs.
    - ``"singular vectors of the mean Jacobian"``, where inputs and outputs have axes of their own
      and a sample has one Jacobian. Those of a linear layer are those of its weights.
    - ``"jacrot"``: the estimator's.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted to one network on `X`.
    X : array-like of shape (n_samples, n_features)
        Training inputs: the other bases, too, are made of them.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs.
    readout : Network, default=None
        What reads the outputs, on to the logits; the two networks are then compared there.

    Returns
    -------
    Comparison
        The figures.

    Raises
    ------
    TypeError
        If `estimator` is none of this package's.
    ValueError
        If it was fitted to several blocks or to Jacobians computed elsewhere.

    Notes
    -----
    In functional coordinates the figures of all but the first two bases are those of the Jacobians
    in these coordinates.

    Examples
    --------
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.report import compare
    >>> problem = make_planted_problem(16, 32, random_state=0)
    >>> X, X_test = problem.X[:200], problem.X[200:]
    >>> rotation = JacobianSparsityRotation(problem.network, random_state=0).fit(X)
    >>> comparison = compare(rotation, X, X_test)
    >>> print(f"{comparison.bases['jacrot'].held_out:.2f}")
    0.84
    >>> comparison.difference < 1e-12
    True
    """
    network = fitted_network(estimator)
    x, x_test = (estimator._activations(inputs, reset=False) for inputs in (X, X_test))
    training, held_out = (analysed_layers(estimator, network, inputs) for inputs in (x, x_test))
    bases = {}
    for name, (rotations, plain) in _bases(estimator, network, x, training).items():
        on = [_sparsities(layers, rotations, plain) for layers in (training, held_out)]
        bases[name] = BasisSparsity(*(float(np.mean(sparsities)) for sparsities in on))
    layers = []
    if isinstance(estimator, NetworkRotation):
        given, ours = (
            _sparsities(held_out, *how) for how in (({}, True), (estimator.rotations_, False))
        )
        layers = list(zip(given, ours, strict=True))
    outputs, others = _outputs(estimator, network, x_test.astype(np.float64), readout)
    same = None
    if _are_logits((readout or network).layers[-1], outputs):
        same = int(np.count_nonzero(outputs.argmax(axis=1) == others.argmax(axis=1)))
    return Comparison(
        bases=bases,
        layers=layers,
        difference=float(np.abs(others - outputs).max()),
        largest=float(np.abs(outputs).max()),
        same_predictions=same,
        n_held_out=len(x_test),
    )


def analysed_layers(estimator: Any, network: Network, X: Array) -> list[AnalysedLayer]:
    """List the Jacobians that are rotated: of the network, or of every layer of it."""
    if isinstance(estimator, NetworkRotation):
        layers = []
        for site, part in enumerate(_parts(network, X, np.random.RandomState(SCORE_SEED))):
            plain = _layer_jacobians(part, site, {}, None)
            own = plain
            if estimator._coordinates:
                own = _layer_jacobians(part, site, estimator._coordinates, None)
            layers.append(AnalysedLayer(plain.stack, plain.norms, own.stack, own.norms))
        return layers
    pairs = drawn_pairs(network, X, np.random.RandomState(SCORE_SEED))
    whole = network_jacobians(network, X, pairs)
    stack, _, norms = with_effect(whole)
    if estimator.coordinates == "neurons":
        return [AnalysedLayer(stack, norms, stack, norms)]
    own_stack, _, own_norms = with_effect(estimator._in_coordinates(whole))
    return [AnalysedLayer(stack, norms, own_stack, own_norms)]


def found_rotations(estimator: Any) -> Rotations:
    """Return the rotations by site."""
    if isinstance(estimator, NetworkRotation):
        return estimator.rotations_
    P = estimator.output_rotation_
    return {0: estimator.rotation_} if P is None else {0: estimator.rotation_, 1: P}


def _bases(
    estimator: Any, network: Network, X: Array, layers: list[AnalysedLayer]
) -> dict[str, tuple[Rotations, bool]]:
    """Make the bases by name, and say which of them are of the plain Jacobians."""
    found = found_rotations(estimator)
    tied = getattr(estimator, "rotate_output", None) == "tied"
    activations = [X]
    step = 1 if isinstance(estimator, NetworkRotation) else network.n_layers
    for first in range(0, network.n_layers, step):
        activations.append(network[first : first + step](activations[-1]))
    moments: dict[int, Matrix] = {}
    for number, layer in enumerate(layers):
        unit = layer.stack.scaled(1 / layer.norms)
        with one_blas_thread(), shared(unit) as apply:
            reading, writing = unit.moments(apply=apply)
        for site, moment in ((number, reading), (0 if tied else number + 1, writing)):
            moments[site] = moments.get(site, 0) + moment

    def axes(moments: Mapping[int, Matrix]) -> Rotations:
        return {
            site: _principal(moments[0 if tied else site])[: len(rotation)]
            for site, rotation in found.items()
        }

    covariances = {site: _covariance(to_rows(activations[site])) for site in found}
    bases: dict[str, tuple[Rotations, bool]] = {GIVEN: ({}, True), PCA: (axes(covariances), True)}
    bases[PRINCIPAL] = axes(moments), False
    stack = layers[0].stack
    if len(layers) == 1 and not tied and stack.n_matrices == 1:
        unit = stack.scaled(1 / layers[0].norms)
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in unit.rotated(None, None))
        left, _, right = np.linalg.svd(np.asarray(mean))
        of_sites = {0: right, 1: left.T}
        bases[MEAN] = {site: of_sites[site][: len(found[site])] for site in found}, False
    bases[OURS] = found, False
    return bases


def _covariance(rows: Array) -> Matrix:
    """Compute the covariance of rows, up to a factor that no eigenvector depends on."""
    rows = rows.astype(np.float64)
    # Squares of what is very large or small would overflow or vanish.
    return np.atleast_2d(np.cov(rows.T / (np.abs(rows).max() or 1.0)))


def _principal(moment: Matrix) -> Matrix:
    """Find the eigenvectors of a second moment as rows, the largest first."""
    return np.linalg.eigh(moment)[1].T[::-1]


def _sparsities(layers: list[AnalysedLayer], rotations: Rotations, plain: bool) -> list[float]:
    return [
        mean_hoyer(
            layer.plain if plain else layer.stack,
            layer.plain_norms if plain else layer.norms,
            rotations.get(number + 1),
            rotations.get(number),
        )
        for number, layer in enumerate(layers)
    ]


def _outputs(
    estimator: Any, network: Network, X: Array, readout: Network | None
) -> tuple[Array, Array]:
    """Compute the outputs of a network, and those of the rotated one in the same basis."""
    outputs = network(X)
    n_outputs = outputs.shape[FEATURES_AXIS[outputs.ndim]]
    rotated = estimator.rotated_network()
    if isinstance(estimator, NetworkRotation):
        last = network.n_layers
        coordinates = estimator._coordinates.get(last)
        basis = SiteBasis.of(estimator.rotations_.get(last), coordinates, n_outputs)
        others = rotated(X)
    else:
        coordinates = estimator._outer
        basis = SiteBasis.of(estimator.output_rotation_, coordinates, n_outputs)
        others = rotated(at_positions(estimator.transform, X))
    mean = 0 if coordinates is None else coordinates.mean
    others = at_positions(lambda rows: rows @ basis.decoder.T + mean, others)
    return (outputs, others) if readout is None else (readout(outputs), readout(others))


def _are_logits(layer: Any, outputs: Array) -> bool:
    """Check whether outputs are scores or probabilities of classes, not activations."""
    linear = isinstance(layer, Dense) and layer.activation_name == "identity"
    return outputs.ndim == 2 and outputs.shape[1] > 1 and (linear or isinstance(layer, Softmax))
