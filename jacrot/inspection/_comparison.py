"""Comparison of a fitted basis with other bases, and of the rotated network with the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jacrot._estimators.base import NetworkEstimator
from jacrot._utils.arrays import Array, Matrix
from jacrot.inspection._fitted import fitted_network
from jacrot.layers import Dense, Softmax
from jacrot.network import Network
from jacrot.positions import to_rows
from jacrot.segments import RotatedSegment

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
    """Mean Hoyer sparsity of the Jacobians in one basis.

    Parameters
    ----------
    training, held_out : float
        On the training inputs, and on held-out inputs.

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
    """Sparsity in several bases, and agreement of the rotated network with the original.

    Parameters
    ----------
    bases : dict of str to BasisSparsity
        Mean Hoyer sparsity in every basis, from the given basis to that of the rotation.
    layers : list of tuple of float
        For a whole network, the held-out sparsity of every layer, given and rotated; else empty.
    difference, largest : float
        Largest difference between outputs of the network and of the rotated network, rotated back,
        and largest output, on held-out inputs.
    same_predictions : int or None
        Number of held-out inputs for which both have the same largest output; ``None`` if outputs
        are not logits.
    n_held_out : int
        Number of held-out inputs.

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
        """The other basis with the highest held-out sparsity."""
        others = {name: held_out for name, (_, held_out) in self.bases.items() if name != OURS}
        name = max(others, key=lambda name: others[name])
        return name, others[name]


def compare(
    estimator: NetworkEstimator,
    X: ArrayLike,
    X_test: ArrayLike,
    *,
    readout: Network | None = None,
) -> Comparison:
    """Compare the sparsity in the fitted basis with other bases, and run the rotated network.

    If the outputs are rotated, every basis has axes of the same kind for them; likewise for all
    sites of a network that are rotated.

    - ``"given basis"``: the neurons.
    - ``"principal components of the activations"``.
    - ``"principal directions of the Jacobians"``: eigenvectors of ``E[JᵀJ]`` and of ``E[JJᵀ]``, or
      of their sum for a site between two layers and for tied outputs.
    - ``"singular vectors of the mean Jacobian"``, if inputs and outputs have separate axes and a
      sample has one Jacobian. For a linear layer they are the singular vectors of its weights.
    - ``"jacrot"``: the basis of the estimator.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Estimator fitted to one network on `X`.
    X : array-like of shape (n_samples, n_features)
        Training inputs, from which the other bases are computed too.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs.
    readout : Network, default=None
        The network from the outputs to the logits; the two networks are then compared there.

    Returns
    -------
    Comparison
        The results.

    Raises
    ------
    TypeError
        If `estimator` is not an estimator of this package.
    ValueError
        If it was fitted to several blocks or to Jacobians computed elsewhere.

    Notes
    -----
    With functional coordinates, the sparsities in all but the first two bases are those of the
    Jacobians in these coordinates.

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
    training, held_out = (estimator.rotated_segments(inputs) for inputs in (X, X_test))
    x_test = held_out[0].segment.activations
    bases = {}
    for name, (rotations, given) in _bases(training).items():
        on = [_sparsities(segments, rotations, given) for segments in (training, held_out)]
        bases[name] = BasisSparsity(*(float(np.mean(sparsities)) for sparsities in on))
    layers = []
    if len(held_out) > 1:
        before = _sparsities(held_out, {}, True)
        after = _sparsities(held_out, rotations_by_place(held_out), False)
        layers = list(zip(before, after, strict=True))
    outputs, others = _outputs(estimator, held_out, network, x_test.astype(np.float64), readout)
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


def rotations_by_place(segments: list[RotatedSegment]) -> Rotations:
    """Return the rotations by site: site ``l`` is the input of segment ``l``."""
    found: Rotations = {}
    for place, one in enumerate(segments):
        sides = ((place, one.Q), (place + 1, one.P))
        found |= {place: rotation for place, rotation in sides if rotation is not None}
    return found


def _bases(segments: list[RotatedSegment]) -> dict[str, tuple[Rotations, bool]]:
    """Return the bases by name, and whether they apply to the Jacobians of neurons."""
    found = rotations_by_place(segments)
    first, last = segments[0], segments[-1]
    tied = first.sites[0] == first.sites[1]
    activations = [one.segment.activations for one in segments]
    activations.append(last.runnable.forward(last.segment.activations))
    moments: dict[int, Matrix] = {}
    for number, one in enumerate(segments):
        for place, moment in zip(
            (number, 0 if tied else number + 1), one.effective.moments, strict=True
        ):
            moments[place] = moments.get(place, 0) + moment

    def axes(moments: Mapping[int, Matrix]) -> Rotations:
        return {
            place: _principal(moments[0 if tied else place])[: len(rotation)]
            for place, rotation in found.items()
        }

    covariances = {place: _covariance(to_rows(activations[place])) for place in found}
    bases: dict[str, tuple[Rotations, bool]] = {GIVEN: ({}, True), PCA: (axes(covariances), True)}
    bases[PRINCIPAL] = axes(moments), False
    if len(segments) == 1 and not tied and first.effective.stack.n_matrices == 1:
        blocks = first.effective.unit.rotated(None, None)
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks)
        left, _, right = np.linalg.svd(np.asarray(mean))
        singular = {0: right, 1: left.T}
        bases[MEAN] = {place: singular[place][: len(found[place])] for place in found}, False
    bases[OURS] = found, False
    return bases


def _covariance(rows: Array) -> Matrix:
    """Compute the covariance of rows, up to a factor that does not change eigenvectors."""
    rows = rows.astype(np.float64)
    # Squares of very large or small numbers would overflow or vanish.
    return np.atleast_2d(np.cov(rows.T / (np.abs(rows).max() or 1.0)))


def _principal(moment: Matrix) -> Matrix:
    """Compute the eigenvectors of a second moment as rows, in decreasing order."""
    return np.linalg.eigh(moment)[1].T[::-1]


def _sparsities(segments: list[RotatedSegment], rotations: Rotations, given: bool) -> list[float]:
    return [
        (one.given if given else one.effective).sparsity(
            rotations.get(number + 1), rotations.get(number)
        )
        for number, one in enumerate(segments)
    ]


def _outputs(
    estimator: Any,
    segments: list[RotatedSegment],
    network: Network,
    X: Array,
    readout: Network | None,
) -> tuple[Array, Array]:
    """Compute the outputs of a network, and those of the rotated one in the same basis."""
    outputs = network(X)
    # The rotated network reads the new axes of one segment, but the inputs of a whole network.
    read = X if len(segments) > 1 else segments[0].read_basis.encode(X)
    others = segments[-1].write_basis.decode(estimator.rotated_network()(read))
    return (outputs, others) if readout is None else (readout(outputs), readout(others))


def _are_logits(layer: Any, outputs: Array) -> bool:
    """Check whether outputs are scores or probabilities of classes, not activations."""
    linear = type(layer) is Dense and layer.activation_name == "identity"
    return outputs.ndim == 2 and outputs.shape[1] > 1 and (linear or isinstance(layer, Softmax))
