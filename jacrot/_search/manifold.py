"""The rotations as a manifold for pymanopt: square Stiefel matrices, moved in their Lie algebra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pymanopt.manifolds import Product
from pymanopt.manifolds.manifold import Manifold, RiemannianSubmanifold
from scipy.linalg import get_lapack_funcs

from jacrot._utils.arrays import Array, Matrix


class Rotations(RiemannianSubmanifold):
    """The orthogonal matrices ``Q``, the square case of the Stiefel manifold.

    The tangent vector ``Ω Q`` is represented by its skew matrix ``Ω``. It belongs to the planes of
    the axes, wherever these point: the metric ``⟨Ω, Ω'⟩`` is the Euclidean one of the tangent
    vectors, the gradient is ``skew(SᵀX)``, and a vector is transported by leaving it as it is.
    pymanopt's ``Stiefel`` pays four matrix products for what this needs none. The retraction is
    the Cayley transform.

    Parameters
    ----------
    size : int
        Number of axes.

    References
    ----------
    P.-A. Absil, R. Mahony and R. Sepulchre, "Optimization Algorithms on Matrix Manifolds",
    Princeton (2008), sections 3.5.3, 4.1 and 8.1.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"Rotations of {size} axes", size * (size - 1) // 2)

    def inner_product(
        self, point: Array, tangent_vector_a: Array, tangent_vector_b: Array
    ) -> float:
        """Compute ``⟨Ω, Ω'⟩``."""
        # A number of NumPy's: at a minimum pymanopt divides 0 by 0, which Python's refuse.
        return np.float64(np.vdot(tangent_vector_a, tangent_vector_b))

    def norm(self, point: Array, tangent_vector: Array) -> float:
        """Compute ``‖Ω‖``."""
        return float(np.linalg.norm(tangent_vector))

    def projection(self, point: Array, vector: Matrix) -> Matrix:
        """Return the skew part of a relative vector ``V``, which stands for ``V Q``."""
        return skew(vector)

    to_tangent_space = projection
    # The relative gradient ``G`` stands for the Euclidean one, ``G Q``.
    euclidean_to_riemannian_gradient = projection

    def retraction(self, point: Matrix, tangent_vector: Matrix) -> Matrix:
        """Turn the axes by the Cayley transform."""
        # pymanopt's numbers lift a direction in single precision to double.
        return cayley(tangent_vector.astype(point.dtype, copy=False), point)

    def transport(self, point_a: Array, point_b: Array, tangent_vector_a: Array) -> Array:
        """Return a tangent vector in its planes, unchanged."""
        return tangent_vector_a

    def zero_vector(self, point: Array) -> Array:
        """Return the tangent vector that turns nothing."""
        return np.zeros_like(point)

    def random_point(self) -> Any:
        """Raise: pymanopt would draw from the global random state."""
        raise NotImplementedError("a search starts from a given point.")

    def random_tangent_vector(self, point: Array) -> Any:
        """Raise: pymanopt would draw from the global random state."""
        raise NotImplementedError("a search starts from a given point.")


def rotations(sizes: Sequence[int]) -> Manifold:
    """Build the manifold of one rotation, or of several together.

    pymanopt's product spends as much on the book-keeping of a small rotation as its cost takes, so
    that one alone is not put into a product.

    Parameters
    ----------
    sizes : sequence of int
        Number of axes of each.

    Returns
    -------
    pymanopt manifold
        Its points and tangent vectors are matrices where there is one rotation, else lists.
    """
    manifolds = [Rotations(size) for size in sizes]
    return manifolds[0] if len(manifolds) == 1 else Product(manifolds)


def parts(element: Any) -> list[Matrix]:
    """List the matrices of a point or a tangent vector of :func:`rotations`.

    Parameters
    ----------
    element : ndarray or list of ndarray
        The point or tangent vector.

    Returns
    -------
    list of ndarray
        One for each rotation.
    """
    return [element] if isinstance(element, np.ndarray) else list(element)


def joined(matrices: list[Matrix]) -> Any:
    """Build a point of :func:`rotations` from its matrices: the inverse of :func:`parts`.

    Parameters
    ----------
    matrices : list of ndarray
        One for each rotation.

    Returns
    -------
    ndarray or list of ndarray
        The point.
    """
    return matrices if len(matrices) > 1 else matrices[0]


def skew(matrix: Matrix) -> Matrix:
    """Compute ``(M − Mᵀ)/2``.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        ``M``.

    Returns
    -------
    ndarray of shape (n, n)
        Its skew part.
    """
    return np.asarray(0.5 * (matrix - matrix.T))


def cayley(turn: Matrix, rotation: Matrix) -> Matrix:
    """Compute ``(I − Ω/2)⁻¹ (I + Ω/2) Q``, which is orthogonal and ``exp(Ω) Q`` up to ``‖Ω‖³/12``.

    Parameters
    ----------
    turn : ndarray of shape (n, n)
        A skew matrix ``Ω``.
    rotation : ndarray of shape (n, n)
        ``Q``.

    Returns
    -------
    ndarray of shape (n, n)
        The rotation after the turn.

    References
    ----------
    Z. Wen and W. Yin, "A feasible method for optimization with orthogonality constraints",
    Mathematical Programming 142 (2013), equation 7.
    """
    left = -0.5 * turn
    left.flat[:: len(left) + 1] += 1
    # (I − A)⁻¹ (I + A) = 2 (I − A)⁻¹ − I spares a product. NumPy would solve in double precision,
    # and SciPy's own functions take as long as LAPACK to look at a small matrix.
    (gesv,) = get_lapack_funcs(("gesv",), (left, rotation))
    *_, solution, _ = gesv(left, rotation, overwrite_a=True)
    return np.asarray(2 * solution - rotation)
