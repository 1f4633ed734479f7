"""The diagonal preconditioner in the Lie algebra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jacrot._search.manifold import parts
from jacrot._search.objective import Objective
from jacrot._search.settings import DEFAULT_SETTINGS, SearchSettings
from jacrot._utils.arrays import Matrix

# Below this, all samples that the curvatures are computed on are as good as zero beside others.
# The square of its inverse is a number in single precision, and a criterion of the user's may be
# scaled by 1e-12.
NO_CURVATURE = 1e-15


def plane_preconditioner(
    objective: Objective, settings: SearchSettings = DEFAULT_SETTINGS
) -> Callable[[Any, Any], Any]:
    """Divide the gradient along every plane rotation by the curvature along it.

    A tangent vector of :class:`~jacrot._search.manifold.Rotations` is a skew matrix ``Ω``, whose
    entry ``(a, b)`` turns the plane of axes ``a`` and ``b``. Along it the cost has slope
    ``2 Ω_ab`` and curvature ``H_ab``, so that ``2 Ω_ab / |H_ab|`` is a Newton step; ``|H|`` is
    bounded from below by a share of its median. The curvatures are computed again after every few
    gradients.

    Parameters
    ----------
    objective : Objective
        Computes the curvatures; a small subset of the samples is enough.
    settings : SearchSettings
        The constants of the search.

    Returns
    -------
    callable
        ``preconditioner(point, tangent_vector)`` for pymanopt.

    References
    ----------
    P. Ablin, J.-F. Cardoso and A. Gramfort, "Faster ICA under orthogonal constraint", ICASSP
    2018, where such a diagonal is used for orthogonal ICA.
    """
    calls = 0
    scales: list[Matrix] = []

    def preconditioner(point: Any, tangent: Any) -> Any:
        nonlocal calls, scales
        if calls % settings.curvature_refresh == 0:
            curvatures = objective.curvatures(*parts(point))
            scales = [2 / _bounded(curvature, settings.curvature_floor) for curvature in curvatures]
        calls += 1
        if isinstance(tangent, np.ndarray):
            return tangent * scales[0]
        # pymanopt's product manifold has its own type of tangent vectors.
        return type(tangent)(turn * scale for turn, scale in zip(tangent, scales, strict=True))

    return preconditioner


def _bounded(curvature: Matrix, floor_share: float) -> Matrix:
    size = np.abs(curvature)
    floor = floor_share * np.median(size)
    # All curvatures zero: the cost does not bend, and the gradient is followed as it is.
    if floor > NO_CURVATURE:
        return np.maximum(size, floor)
    return np.where(size > NO_CURVATURE, size, 1.0)
