"""The joint problem of all layers of a network: coordinates, Jacobians, terms and starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from jacrot._jacobians.coordinates import FunctionalCoordinates
from jacrot._jacobians.effective import EffectiveJacobians
from jacrot._search.frame import draw_samples, scale_samples
from jacrot._search.objective import Term
from jacrot._search.problem import Problem
from jacrot._search.subspace import effective_basis, nearest_rotation, principal_directions
from jacrot._utils.arrays import Matrix
from jacrot._utils.warnings import silenced
from jacrot.criteria._minimised import Criterion, TableCriterion
from jacrot.positions import to_rows
from jacrot.segments import NetworkSegment


@dataclass(frozen=True)
class LayerJacobians:
    """The Jacobians of one layer that are rotated.

    Attributes
    ----------
    effective : EffectiveJacobians
        The nonzero Jacobians, in the coordinates of the two sites.
    readout : ndarray or None
        Readout of the outputs in functional coordinates.
    """

    effective: EffectiveJacobians
    readout: Matrix | None


@contextmanager
def prefix_errors(place: str) -> Iterator[None]:
    """Prefix errors with the name of a layer or a site."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def whiten_sites(
    segments: list[NetworkSegment], sites: list[int]
) -> dict[int, FunctionalCoordinates]:
    """Compute functional coordinates that whiten the activations at some sites.

    Parameters
    ----------
    segments : list of NetworkSegment
        All layers.
    sites : list of int
        The sites to rotate.

    Returns
    -------
    dict of int to FunctionalCoordinates
        Coordinates by site.
    """
    # Every sample and every layer has the same weight.
    moments = []
    for number, segment in enumerate(segments):
        with prefix_errors(f"layer {number}"), silenced():
            moments.append(EffectiveJacobians.select(segment.stack).moments)
    coordinates = {}
    for site in sites:
        with prefix_errors(f"site {site}"):
            if site == len(segments):
                coordinates[site] = FunctionalCoordinates.from_activations(segments[-1].written)
                continue
            effects = moments[site].inputs
            if site > 0:
                # Directions that only the preceding layer writes have an effect too.
                effects = effects + moments[site - 1].outputs
            activations = segments[site].activations
            coordinates[site] = FunctionalCoordinates.from_activations(
                activations, effective_basis(effects)
            )
    return coordinates


def coordinate_factors(
    segment: NetworkSegment, coordinates: Mapping[int, FunctionalCoordinates]
) -> tuple[Matrix | None, Matrix | None]:
    """Return the matrices that change the Jacobians of a layer to the coordinates of its sites.

    Parameters
    ----------
    segment : NetworkSegment
        One layer.
    coordinates : mapping of int to FunctionalCoordinates
        Coordinates by site; empty in the basis of neurons.

    Returns
    -------
    left, right : ndarray or None
        Factors from the left and from the right; ``None`` for the identity.
    """
    if not coordinates:
        return None, None
    inner, outer = (coordinates.get(site) for site in (segment.layers.start, segment.layers.stop))
    # Inputs that are not rotated are weighted by their standard deviations.
    right = np.diag(to_rows(segment.activations).std(axis=0)) if inner is None else inner.metric
    return None if outer is None else outer.forward, right


def read_layer(
    segment: NetworkSegment, coordinates: Mapping[int, FunctionalCoordinates]
) -> LayerJacobians:
    """Compute the Jacobians of a layer in the coordinates of its two sites.

    Parameters
    ----------
    segment : NetworkSegment
        One layer.
    coordinates : mapping of int to FunctionalCoordinates
        Coordinates by site; empty in the basis of neurons.

    Returns
    -------
    LayerJacobians
        The nonzero Jacobians.
    """
    stack = segment.stack
    readout = None
    outer = coordinates.get(segment.layers.stop)
    if coordinates:
        stack = stack.transformed(*coordinate_factors(segment, coordinates))
    if outer is not None:
        readout = outer.metric @ segment.readout @ outer.metric
    with prefix_errors(f"layer {segment.layers.start}"):
        return LayerJacobians(EffectiveJacobians.select(stack), readout)


def site_moment(layers: list[LayerJacobians], site: int) -> Matrix:
    """Return the sum of the second moments of the layers that write and read a site.

    Parameters
    ----------
    layers : list of LayerJacobians
        All layers.
    site : int
        Site between the layers; layer ``site`` reads it.

    Returns
    -------
    ndarray of shape (n_features, n_features)
        The sum.
    """
    moments = []
    if site > 0:
        moments.append(layers[site - 1].effective.moments.outputs)
    if site < len(layers):
        moments.append(layers[site].effective.moments.inputs)
    return np.asarray(sum(moments))


def interaction_start(
    layers: list[LayerJacobians], bases: Mapping[int, Matrix | None]
) -> list[Matrix]:
    """Compute the axes of the local interaction basis, by decreasing effect on the logits.

    Parameters
    ----------
    layers : list of LayerJacobians
        All layers, in functional coordinates.
    bases : mapping of int to (ndarray or None)
        For every site to rotate, the rows that span the directions to rotate.

    Returns
    -------
    list of ndarray
        One rotation for every site.
    """
    point = []
    for site, basis in bases.items():
        readout = layers[max(site - 1, 0)].readout
        assert readout is not None
        moment = readout
        if site == 0:
            metric = FunctionalCoordinates.from_readout(readout).metric
            moment, _ = layers[0].effective.stack.transformed(metric, None).moments()
        directions, _ = principal_directions(moment)
        point.append(nearest_rotation(directions, basis))
    return point


def joint_problem(
    layers: list[LayerJacobians],
    bases: Mapping[int, Matrix | None],
    criterion: Criterion,
    rng: np.random.RandomState,
) -> Problem:
    """Build the joint problem: one term for every layer, which depends on two rotations.

    Parameters
    ----------
    layers : list of LayerJacobians
        All layers.
    bases : mapping of int to (ndarray or None)
        For every site to rotate, the rows that span the directions to rotate.
    criterion : Criterion
        The criterion to minimise.
    rng : numpy.random.RandomState
        Random number generator for the samples of the search.

    Returns
    -------
    Problem
        The problem.
    """
    index = {site: number for number, site in enumerate(bases)}
    terms = []
    if isinstance(criterion, TableCriterion):
        layers = _rescale_to_one_unit(layers)
    for number, layer in enumerate(layers):
        stack = layer.effective.stack
        output, input_ = index.get(number + 1), index.get(number)
        _, n_outputs, n_inputs = stack.shape
        size = 1
        for site, n_features in ((number + 1, n_outputs), (number, n_inputs)):
            basis = bases.get(site)
            size *= n_features if basis is None else len(basis)
        if not isinstance(criterion, TableCriterion):
            stack = scale_samples(criterion, stack, layer.effective.l2, size)
        terms.append(Term(draw_samples(stack, rng), output, input_, layer.readout))
    return Problem(tuple(terms), criterion, tuple(bases.values()))


def _rescale_to_one_unit(layers: list[LayerJacobians]) -> list[LayerJacobians]:
    """Scale all layers so that their connections have one common unit, of about 1."""
    # Sizes of the Jacobians and of their readout.
    sizes = [
        (
            layer.effective.l2.max(),
            1.0 if layer.readout is None else np.sqrt(np.trace(layer.readout)),
        )
        for layer in layers
    ]
    unit = max(size * weight for size, weight in sizes)
    scaled = []
    for (size, weight), layer in zip(sizes, layers, strict=True):
        factor, readout = 1 / unit, None
        if layer.readout is not None:
            factor, readout = 1 / size, (size * weight / unit) ** 2 * (layer.readout / weight**2)
        effective = layer.effective
        stack = effective.stack.scaled(np.full(len(effective.l2), factor))
        scaled.append(LayerJacobians(replace(effective, stack=stack), readout))
    return scaled
