"""Where the axes may turn, and how a point of the search becomes axes of all features."""

from __future__ import annotations

import numpy as np

from jacrot._arrays import Matrix
from jacrot._threads import Apply
from jacrot.criteria import Criterion
from jacrot.jacobians import Jacobians, n_samples_in_working_memory
from jacrot.objective import OutputMode, Term
from jacrot.problem import Problem
from jacrot.subspace import (
    NEGLIGIBLE,
    completed,
    effective_basis,
    leading_basis,
    nearest_rotation,
    ordered,
    principal_directions,
    signed,
)

# More samples than this change the rotation less than another seed does, and cost time. Where they
# do not fit the working memory, fewer are drawn.
MAX_SEARCH_SAMPLES = 1024
MIN_SEARCH_SAMPLES = 256


class Frame:
    """The subspaces of inputs and outputs inside which a search turns the axes.

    Parameters
    ----------
    jacobians : Jacobians
        All samples; none of them zero.
    norms : ndarray of shape (n_samples,)
        Their Frobenius norms.
    output : {"fixed", "free", "tied"}
        What the output rotation is.
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
        # Sensitivities are plain means, in units of the largest; for having an effect at all every
        # sample counts the same.
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
                _, writing = unit.moments(self.input_basis, apply)
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

    def problem(self, criterion: Criterion, rng: np.random.RandomState) -> Problem:
        """Scale the samples as the criterion wants them, and draw those to search on."""
        jacobians, norms = self.jacobians, self.norms
        if self.n_components is not None:
            # Samples that have no effect through the components that are kept say nothing.
            P = self.output_basis if self.output == "tied" else None
            _, inside = jacobians.norms(P, self.input_basis)
            kept = np.flatnonzero(inside > np.sqrt(NEGLIGIBLE) * norms)
            if kept.size == 0:
                raise ValueError(
                    f"n_components={self.n_components} keeps directions in which no sample has a "
                    "Jacobian that is not zero; write more components."
                )
            jacobians, norms = jacobians.subset(kept), inside[kept]
        n_outputs = self.n_outputs if self.output == "fixed" else len(self.given[0])
        size = jacobians.n_matrices * n_outputs * len(self.given[-1])
        scales = np.sqrt(size) / norms
        if not criterion.per_sample:
            scales = np.full(len(norms), np.sqrt(size) / np.sqrt(np.mean(norms**2)))
        bases = (
            (self.output_basis, self.input_basis) if self.output == "free" else (self.input_basis,)
        )
        scaled = jacobians.scaled(scales)
        problem = Problem((Term.of_mode(scaled, self.output),), criterion, bases)
        collapsed = problem.collapsed() if self.output == "fixed" else None
        if collapsed is not None:
            return collapsed
        fitting = n_samples_in_working_memory(jacobians.n_entries_each, np.float32)
        n_drawn = np.clip(fitting, MIN_SEARCH_SAMPLES, MAX_SEARCH_SAMPLES)
        drawn = rng.permutation(len(norms))[:n_drawn]
        # The search itself is in single precision, but for one sample.
        dtype = np.float32 if len(drawn) > 1 else np.float64
        return problem.with_stacks(lambda stack: stack.cast(dtype).subset(drawn))

    def axes(self, point: list[Matrix]) -> tuple[Matrix | None, Matrix]:
        """Make ``P`` and ``Q`` of a point: canonical, completed by what has no effect."""
        Q = _axes(point[-1], self.input_basis, self.reading, self.n_axes)
        if self.output == "fixed":
            return None, Q
        if self.output == "tied":
            return Q, Q
        return _axes(point[0], self.output_basis, self.writing, self.n_outputs), Q


def _axes(rotation: Matrix, basis: Matrix | None, moment: Matrix, n_axes: int) -> Matrix:
    axes = rotation if basis is None else rotation @ basis
    return signed(completed(ordered(axes, moment), n_axes))
