"""The subspaces in which axes turn, and how a point of the search becomes axes of all features."""

from __future__ import annotations

import numpy as np

from jacrot._jacobians.base import Jacobians, n_samples_in_working_memory
from jacrot._search.objective import OutputMode, Term
from jacrot._search.problem import Problem
from jacrot._search.settings import DEFAULT_SETTINGS, SearchSettings
from jacrot._search.subspace import (
    NEGLIGIBLE,
    complete_axes,
    effective_basis,
    fix_signs,
    leading_basis,
    nearest_rotation,
    principal_directions,
    sort_axes,
)
from jacrot._utils.arrays import Matrix
from jacrot._utils.threads import Apply
from jacrot.criteria._minimised import Criterion

# Where the stack is scaled as a whole, a sample of less than this share of the largest norm changes
# no cost by more than rounding, and its squares would vanish in single precision.
NEGLIGIBLE_NORM = 1e-12


class Frame:
    """The subspaces of inputs and outputs inside which a search turns the axes.

    Parameters
    ----------
    jacobians : Jacobians
        All samples; none of them zero.
    norms : ndarray of shape (n_samples,)
        Their Frobenius norms.
    output : {"fixed", "free", "tied"}
        How the outputs are rotated.
    n_components : int, float or None
        How many input axes, or which fraction of the sensitivity; ``None`` for all.
    apply : callable, default=map
        ``map``, or that of an executor.

    Attributes
    ----------
    reading, writing : ndarray
        ``E[JᵀJ]`` and ``E[JJᵀ]``.
    input_basis, output_basis : ndarray of shape (n_axes, n_features) or None
        Orthonormal rows inside which ``Q`` and ``P`` turn; ``None`` is the whole space.
    given, singular : list of ndarray
        The points of the search that stand for the given basis and for the eigenvectors of the
        second moments.
    """

    def __init__(
        self,
        jacobians: Jacobians,
        norms: Matrix,
        output: OutputMode,
        n_components: int | float | None,
        apply: Apply = map,
    ) -> None:
        self.jacobians = jacobians
        self.n_components = n_components
        self.norms = norms
        self.output = output
        n_samples, self.n_outputs, self.n_axes = jacobians.shape
        # Sensitivities are plain means, in units of the largest; whether a direction has an effect
        # is decided with the same weight for every sample.
        plain = jacobians.scaled(np.full(n_samples, 1 / norms.max()))
        self.reading, self.writing = plain.moments(apply=apply)
        unit = jacobians.scaled(1 / norms)
        reading, writing = unit.moments(apply=apply)
        if output == "tied":
            reading = reading + writing
        self.input_basis = effective_basis(reading)
        if n_components is not None:
            moment = self.reading + self.writing if output == "tied" else self.reading
            self.input_basis, self.n_axes = leading_basis(moment, n_components)
            if output == "free":
                _, writing = unit.moments(None, self.input_basis, apply)
        self.output_basis = None
        if output != "fixed":
            self.output_basis = self.input_basis if output == "tied" else effective_basis(writing)
        sides = [(reading, self.input_basis)]
        if output == "free":
            sides.insert(0, (writing, self.output_basis))
        self.given = [nearest_rotation(np.eye(len(moment)), basis) for moment, basis in sides]
        self.singular = [
            principal_directions(moment if basis is None else basis @ moment @ basis.T)[0]
            for moment, basis in sides
        ]

    def problem(
        self, criterion: Criterion, rng: np.random.RandomState, readout: Matrix | None = None
    ) -> Problem:
        """Scale the samples as the criterion requires, and draw those to search on."""
        jacobians, norms = self.jacobians, self.norms
        if self.n_components is not None:
            # Samples without effect through the components that are kept are left out.
            P = self.output_basis if self.output == "tied" else None
            _, inside = jacobians.norms(P, self.input_basis)
            kept = np.flatnonzero(inside > np.sqrt(NEGLIGIBLE) * norms)
            if kept.size == 0:
                raise ValueError(
                    f"n_components={self.n_components} keeps directions in which no sample has a "
                    "Jacobian that is not zero; pass more components."
                )
            jacobians, norms = jacobians.subset(kept), inside[kept]
        n_outputs = self.n_outputs if self.output == "fixed" else len(self.given[0])
        bases = (
            (self.output_basis, self.input_basis) if self.output == "free" else (self.input_basis,)
        )
        scaled = scale_samples(criterion, jacobians, norms, n_outputs * len(self.given[-1]))
        problem = Problem((Term.from_mode(scaled, self.output, readout),), criterion, bases)
        collapsed = problem.collapsed() if self.output == "fixed" else None
        if collapsed is not None:
            return collapsed
        return problem.with_stacks(lambda stack: draw_samples(stack, rng))

    def axes(self, point: list[Matrix]) -> tuple[Matrix | None, Matrix]:
        """Compute ``P`` and ``Q`` at a point: canonical, and completed by axes without effect."""
        Q = canonical_axes(point[-1], self.input_basis, self.reading, self.n_axes)
        if self.output == "fixed":
            return None, Q
        if self.output == "tied":
            return Q, Q
        return canonical_axes(point[0], self.output_basis, self.writing, self.n_outputs), Q


def scale_samples(
    criterion: Criterion, jacobians: Jacobians, norms: Matrix, n_entries: int
) -> Jacobians:
    """Scale Jacobians to root mean square 1: every sample, or the stack as a whole.

    Where the stack is scaled as a whole, samples that are nothing beside the largest are left out.

    Parameters
    ----------
    criterion : Criterion
        Decides which of the two.
    jacobians : Jacobians
        The stack.
    norms : ndarray of shape (n_samples,)
        Frobenius norms of the samples.
    n_entries : int
        Number of entries of a matrix, in the subspaces that are searched.

    Returns
    -------
    Jacobians
        The scaled stack.
    """
    size = np.sqrt(jacobians.n_matrices * n_entries)
    if criterion.per_sample:
        return jacobians.scaled(size / norms)
    shares = norms / norms.max()
    kept = np.flatnonzero(shares > NEGLIGIBLE_NORM)
    if len(kept) < len(norms):
        jacobians, shares = jacobians.subset(kept), shares[kept]
    root_mean_square = norms.max() * np.sqrt(np.mean(shares**2))
    return jacobians.scaled(np.full(len(shares), size / root_mean_square))


def draw_samples(
    jacobians: Jacobians,
    rng: np.random.RandomState,
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> Jacobians:
    """Draw the samples to search on, in random order and in the precision of the search.

    Parameters
    ----------
    jacobians : Jacobians
        The scaled stack.
    rng : numpy.random.RandomState
        Draws them.
    settings : SearchSettings
        How many at least and at most.

    Returns
    -------
    Jacobians
        The part of the stack, in single precision but for one sample.
    """
    fitting = n_samples_in_working_memory(jacobians.n_entries_each, np.float32)
    n_drawn = np.clip(fitting, settings.min_samples, settings.max_samples)
    drawn = rng.permutation(jacobians.shape[0])[:n_drawn]
    return jacobians.cast(np.float32 if len(drawn) > 1 else np.float64).subset(drawn)


def canonical_axes(rotation: Matrix, basis: Matrix | None, moment: Matrix, n_axes: int) -> Matrix:
    """Compute canonical axes of all features: sorted, with fixed signs, and completed.

    Parameters
    ----------
    rotation : ndarray of shape (n, n)
        What the search found.
    basis : ndarray of shape (n, n_features) or None
        Orthonormal rows inside which it turns, ``None`` for the whole space.
    moment : ndarray of shape (n_features, n_features)
        Second moment of the Jacobians, which orders the axes.
    n_axes : int
        Number of axes to return.

    Returns
    -------
    ndarray of shape (n_axes, n_features)
        Orthonormal rows.
    """
    axes = rotation if basis is None else rotation @ basis
    return fix_signs(complete_axes(sort_axes(axes, moment), n_axes))
