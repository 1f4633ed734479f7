"""Bases of activations, by name or from a fitted estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from jacrot._estimators.base import NetworkEstimator
from jacrot._estimators.rotation import JacobianSparsityRotation
from jacrot._jacobians.base import Jacobians
from jacrot._jacobians.coordinates import FunctionalCoordinates, SiteBasis, centring, network_after
from jacrot._search.subspace import effective_basis, principal_directions
from jacrot._utils.arrays import Array, Matrix, real_array
from jacrot._utils.random import random_rotation
from jacrot.inspection._pairing import check_fitted_to
from jacrot.layers import Dense
from jacrot.network import Network
from jacrot.segments import NetworkSegment

# Tolerance for a decoder as the inverse of its encoder, relative to the products that are summed:
# the rounding of single precision for some thousand axes.
INVERSE_TOL = 1e-5


class Part:
    """Consecutive layers of a network, with their activations on given inputs.

    Parameters
    ----------
    network : Network
        The whole network.
    layers : range
        The layers.
    X : ndarray of shape (n_samples, n_features)
        Inputs of the network.

    Attributes
    ----------
    segments : list of NetworkSegment
        One segment for every layer.
    activations : list of ndarray
        Inputs of the first layer, and outputs of each layer.
    """

    def __init__(self, network: Network, layers: range, X: Array) -> None:
        self.network = network
        self.layers = layers
        self.X = X
        self.segments: list[NetworkSegment] = []
        self.activations = [network[: layers[0]](X) if layers[0] else X]
        for number in layers:
            read = self.activations[-1]
            segment = NetworkSegment(network, range(number, number + 1), read, None)
            self.segments.append(segment)
            self.activations.append(segment.written)

    @property
    def stacks(self) -> list[Jacobians]:
        """The Jacobians of every layer."""
        return [segment.stack for segment in self.segments]

    @property
    def readouts(self) -> list[Matrix]:
        """Readout ``G = E[KᵀK]`` of the outputs of every layer."""
        return [segment.readout for segment in self.segments]

    @property
    def widths(self) -> list[int]:
        """Numbers of activations at the sites."""
        return [activations.shape[1] for activations in self.activations]

    @cached_property
    def inside(self) -> Matrix:
        """The directions of the inputs of the first layer with an effect, as rows."""
        basis = effective_basis(self.stacks[0].moments()[0])
        return np.eye(self.widths[0]) if basis is None else basis

    def orthogonal_bases(self, compute_axes: Callable[[Array], Matrix]) -> list[SiteBasis]:
        """Build orthonormal axes at every site; inputs only in directions with an effect."""
        first, *others = self.activations
        read = compute_axes(first @ self.inside.T) @ self.inside
        return [SiteBasis.from_axes(axes) for axes in (read, *map(compute_axes, others))]


def named_bases(name: str, part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    """Build bases by name.

    - ``"given"``: the neurons.
    - ``"random"``: a random rotation at every site.
    - ``"pca"``: principal components of the activations.
    - ``"svd"``: singular vectors of the weight of a dense layer.
    - ``"quartimax"``: inputs rotated by quartimax of factor analysis on the stacked Jacobians.
    - ``"interaction"``: the local interaction basis, eigenvectors of ``C^½ G C^½`` of whitened
      activations, where ``G_l = E[J_lᵀ G_{l+1} J_l]`` is computed backwards from the centred
      logits, and principal components of the logits.
    - ``"functional_svd"``: singular vectors of the mean ``E[G^½ J C^½]``.
    - ``"functional"``: the bases of a :class:`jacrot.JacobianSparsityRotation` with
      ``criterion="log"`` and ``rotate_output=True`` in functional coordinates.

    All except the first use only the directions of the inputs with an effect. The first three and
    ``"interaction"`` are bases of sites; the others belong to one layer.

    Parameters
    ----------
    name : str
        One of these names.
    part : Part
        One layer or several.
    rng : numpy.random.RandomState
        Random number generator.

    Returns
    -------
    list of SiteBasis
        Bases of the inputs of the first layer, and of the outputs of each layer.

    Raises
    ------
    ValueError
        If the name is unknown, or if its basis belongs to one layer or a dense layer and the part
        is not one.

    References
    ----------
    L. Bushnaq et al., "The Local Interaction Basis: identifying computationally-relevant and
    sparsely interacting features in neural networks", arXiv:2405.10928 (2024), section 3 (the
    Jacobian formula).

    J. O. Neuhaus and C. Wrigley, "The quartimax method", British Journal of Statistical Psychology
    7 (1954).
    """
    if name in _SITE_BASES:
        return _SITE_BASES[name](part, rng)
    if name not in _LAYER_BASES:
        raise ValueError(
            f"basis={name!r} is unknown; pass one of {BASES}, a fitted estimator, or a list with "
            "(encoder, decoder) of every site."
        )
    if len(part.layers) > 1:
        raise ValueError(
            f"basis={name!r} belongs to the two sides of one layer, but there are "
            f"{len(part.layers)} layers; pass one of {list(_SITE_BASES)}, or a fitted "
            "NetworkRotation."
        )
    return _LAYER_BASES[name](part, rng)


def read_bases(
    basis: Any, part: Part, network: Network, rng: np.random.RandomState
) -> list[SiteBasis]:
    """Validate the bases of all sites of a part.

    Parameters
    ----------
    basis : str, estimator or sequence of (encoder, decoder)
        The value that the user passed.
    part : Part
        One layer or several.
    network : Network
        The whole network that the user passed, possibly with a final softmax or sigmoid.
    rng : numpy.random.RandomState
        Random number generator.

    Returns
    -------
    list of SiteBasis
        Bases of the inputs of the first layer, and of the outputs of each layer.

    Raises
    ------
    TypeError
        If `basis` is not of these types.
    ValueError
        If it does not fit the part.
    """
    if isinstance(basis, str):
        return named_bases(basis, part, rng)
    if isinstance(basis, NetworkEstimator):
        check_is_fitted(basis)
        bases = fitted_bases(basis, part, network)
    elif isinstance(basis, Sequence):
        if not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in basis):
            raise TypeError(
                "basis is a list, but not of pairs; pass (encoder, decoder) for every site."
            )
        bases = [_pair_basis(*pair) for pair in basis]
    else:
        raise TypeError(
            f"basis is a {type(basis).__name__}; pass one of {BASES}, a fitted estimator, or a "
            "list with (encoder, decoder) of every site."
        )
    encoders = [basis.encoder.shape for basis in bases]
    decoders = [basis.decoder.shape[::-1] for basis in bases]
    if encoders != decoders or [width for _, width in encoders] != part.widths:
        raise ValueError(
            f"basis has encoders of shapes {encoders} and transposed decoders of {decoders}, but "
            f"the sites have {part.widths} activations; pass (n_axes, n_features) and (n_features,"
            " n_axes) for the inputs of the first layer and the outputs of each layer."
        )
    for number, basis in enumerate(bases):
        if not (_inverse(basis.encoder, basis.decoder) or _inverse(basis.decoder, basis.encoder)):
            raise ValueError(
                f"decoder {number} of basis is not the inverse of its encoder; pass "
                "np.linalg.pinv(encoder)."
            )
    return bases


def _pair_basis(encoder: Any, decoder: Any) -> SiteBasis:
    encoder, decoder = (
        real_array(side, "basis", 2).astype(np.float64) for side in (encoder, decoder)
    )
    return SiteBasis(encoder, decoder, np.zeros(len(decoder)))


def _inverse(left: Matrix, right: Matrix) -> bool:
    """Check whether a product is the identity up to rounding."""
    allowed = INVERSE_TOL * (np.abs(left) @ np.abs(right) + 1)
    return bool((np.abs(left @ right - np.eye(len(left))) <= allowed).all())


def fitted_bases(estimator: Any, part: Part, network: Network) -> list[SiteBasis]:
    """Return the bases of a fitted estimator.

    Parameters
    ----------
    estimator : JacobianSparsityRotation or NetworkRotation
        Fitted to the only layer of the part, or to the whole network.
    part : Part
        The layers.
    network : Network
        The whole network, to some layers of which the estimator was fitted.

    Returns
    -------
    list of SiteBasis
        Bases of the inputs of the first layer, and of the outputs of each layer.

    Raises
    ------
    ValueError
        If the estimator was not fitted to these layers.
    """
    start, stop = part.layers[0], part.layers[-1] + 1
    if len(estimator.segment_layers) > 1:
        check_fitted_to(estimator, network, "network")
        rotated = estimator.rotated_segments(part.X)[start:stop]
    else:
        fitted = estimator.network_
        if not isinstance(fitted, Network) or fitted.n_layers != 1 or len(part.layers) != 1:
            raise ValueError(
                f"basis is a {type(estimator).__name__}, whose axes belong to one layer; pass "
                "layer=l and an estimator that was fitted to network[l:l + 1]."
            )
        check_fitted_to(estimator, network[start:stop], f"network[{start}:{stop}]")
        rotated = estimator.rotated_segments(part.activations[0])
    bases = [rotated[0].read_basis, *(one.write_basis for one in rotated)]
    n_axes, n_features = bases[0].encoder.shape
    if n_axes < n_features:
        raise ValueError(
            f"basis keeps {n_axes} of {n_features} components, so that its axes do not span the "
            "activations; pass an estimator fitted with n_components=None."
        )
    return bases


def _given(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    return [SiteBasis.from_axes(np.eye(width)) for width in part.widths]


def _random(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    return part.orthogonal_bases(lambda activations: random_rotation(activations.shape[1], rng))


def _pca(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    return part.orthogonal_bases(_components)


def _components(activations: Array) -> Matrix:
    return principal_directions(np.atleast_2d(np.cov(activations.T)))[0]


def _interaction(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    last, stacks, logits = part.network.n_layers, part.stacks, part.activations[-1]
    readout = network_after(part.network, part.layers[-1] + 1)
    if readout is not None:
        rest = Part(readout, range(readout.n_layers), logits)
        stacks, logits = stacks + rest.stacks, rest.activations[-1]
    moments = [centring(logits.shape[1])]
    for stack in reversed(stacks):
        metric = FunctionalCoordinates.from_readout(moments[0]).metric
        moments.insert(0, stack.transformed(metric, None).moments()[0])
    bases = []
    for site, activations in enumerate(part.activations):
        number, moment = part.layers[0] + site, moments[site]
        if number == last:
            bases.append(SiteBasis.from_axes(_components(activations)))
            continue
        whitening = FunctionalCoordinates.from_activations(
            activations, part.inside if site == 0 else None
        )
        directions, _ = principal_directions(whitening.metric @ moment @ whitening.metric)
        bases.append(whitening.basis(directions, len(directions)))
    return bases


def _svd(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    layer = part.network[part.layers[0]]
    if type(layer) is not Dense or layer.output_rotation is not None:
        raise ValueError(
            f"basis='svd' requires a dense layer, but layer {part.layers[0]} is "
            f"{layer!r}; pass 'functional_svd'."
        )
    left, values, right = np.linalg.svd(layer.weight.astype(np.float64))
    return [SiteBasis.from_axes(right[: len(values)]), SiteBasis.from_axes(left.T)]


def _quartimax(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    return _fitted(part, rng, criterion="quartimax")


def _functional(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    return _fitted(
        part,
        rng,
        criterion="log",
        coordinates="functional",
        rotate_output=True,
        readout=network_after(part.network, part.layers[0] + 1),
    )


def _fitted(part: Part, rng: np.random.RandomState, **parameters: Any) -> list[SiteBasis]:
    number = part.layers[0]
    estimator = JacobianSparsityRotation(random_state=rng, **parameters)
    estimator.fit(part.network[number : number + 1], part.activations[0])
    return fitted_bases(estimator, part, part.network)


def _functional_svd(part: Part, rng: np.random.RandomState) -> list[SiteBasis]:
    inner = FunctionalCoordinates.from_activations(part.activations[0], part.inside)
    outer = FunctionalCoordinates.from_readout(part.readouts[0])
    # Only directions with an effect, since singular vectors of value zero would mix others in.
    stack = part.stacks[0].transformed(outer.metric, inner.metric @ part.inside.T)
    total = sum(block.sum(axis=0) for block in stack.rotated(None, None))
    left, _, right = np.linalg.svd(np.asarray(total))
    axes = right @ part.inside
    return [
        inner.basis(axes, len(axes)),
        outer.basis(left.T, len(left)),
    ]


Builder = Callable[[Part, np.random.RandomState], list[SiteBasis]]
_SITE_BASES: dict[str, Builder] = {
    "given": _given,
    "random": _random,
    "pca": _pca,
    "interaction": _interaction,
}
_LAYER_BASES: dict[str, Builder] = {
    "svd": _svd,
    "quartimax": _quartimax,
    "functional_svd": _functional_svd,
    "functional": _functional,
}
BASES = [*_SITE_BASES, *_LAYER_BASES]
