"""What the search minimises: functions ``φ_ε`` of the rotated Jacobians, with their derivatives.

Entrywise criteria are applied to the entries, scaled to root mean square 1; criteria of the table
to the mean squares of the entries over the samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from autograd import elementwise_grad

from jacrot._utils.arrays import Array
from jacrot._utils.threads import exclusive_autograd


class Slopes(NamedTuple):
    """A criterion and its first derivative at every entry."""

    value: Array
    slope: Array


class Curvatures(NamedTuple):
    """A criterion and its first two derivatives at every entry."""

    value: Array
    slope: Array
    curvature: Array


class Criterion(ABC):
    """A function ``φ_ε`` to be minimised.

    Attributes
    ----------
    degree : int or None
        ``p`` where the cost depends on ``Σ_i |X_i|^p`` alone, as it does where ``φ₀(x)`` is
        proportional to ``|x|^p``: samples of one dense layer then collapse into one matrix.
        ``None`` elsewhere.
    per_sample : bool
        Whether every sample is scaled to root mean square 1, or the stack as a whole.
    smoothed : bool
        Whether ``φ_ε`` depends on ``ε``, so that the search lowers it stage by stage.
    concurrent : bool
        Whether several threads may evaluate it at once.
    """

    degree: int | None = None
    per_sample: bool = True
    smoothed: bool = False
    concurrent: bool = True

    def collapsed(self, n_entries: int) -> Criterion:
        """Return the same criterion for the entries of one matrix, of root mean square 1."""
        return self

    @abstractmethod
    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``φ_ε`` at every entry."""

    @abstractmethod
    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute ``φ_ε`` and its derivative at every entry."""


class EntrywiseCriterion(Criterion):
    """An even function ``φ_ε(x)`` of the entries ``X_{i,ab}``, with two derivatives."""

    @abstractmethod
    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute ``φ_ε`` and its two derivatives at every entry."""


class TableCriterion(Criterion):
    """A concave function ``φ_ε(M)`` of the table ``M_ab = mean_i X²_{i,ab}``."""


class L1(EntrywiseCriterion):
    """``φ_ε(x) = √(x² + ε²) − ε``, which tends to ``|x|``; the stack is scaled as a whole."""

    degree = 1
    per_sample = False
    smoothed = True

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``√(x² + ε²) − ε``."""
        if smoothing == 0:
            return np.abs(x)
        root = self._root(x, smoothing)
        root -= smoothing
        return root

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute the value and ``x/√(x² + ε²)``."""
        root = self._root(x, smoothing)
        slope = x / root
        root -= smoothing
        return Slopes(root, slope)

    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute value, slope and ``ε²/(x² + ε²)^(3/2)``."""
        root = self._root(x, smoothing)
        return Curvatures(root - smoothing, x / root, smoothing**2 / root**3)

    def _root(self, x: Array, smoothing: float) -> Array:
        root = x * x
        root += smoothing**2
        return np.sqrt(root, out=root)


class Hoyer(L1):
    """The same function with every sample scaled to root mean square 1.

    Rotations keep the Frobenius norm, so that for ``ε → 0`` the cost is an affine function of
    the mean Hoyer sparsity.
    """

    per_sample = True


class Quartimax(EntrywiseCriterion):
    """``φ(x) = −x⁴/4``, factor analysis' quartimax of the stacked rows of the Jacobians."""

    degree = 4
    per_sample = False

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``−x⁴/4``."""
        square = x * x
        return -0.25 * square * square

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute ``−x⁴/4`` and ``−x³``."""
        square = x * x
        return Slopes(-0.25 * square * square, -x * square)

    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute ``−x⁴/4``, ``−x³`` and ``−3x²``."""
        return Curvatures(*self.slopes(x, smoothing), -3 * x * x)


class LogCosh(EntrywiseCriterion):
    """``φ(x) = log cosh x``, the contrast of FastICA and Picard for heavy-tailed sources."""

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``log cosh x``, without overflow."""
        absolute = np.abs(x)
        return np.asarray(absolute + np.log1p(np.exp(-2 * absolute)) - np.log(2).astype(x.dtype))

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute ``log cosh x`` and ``tanh x``."""
        return Slopes(self.value(x, smoothing), np.tanh(x))

    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute ``log cosh x``, ``tanh x`` and ``1 − tanh² x``."""
        value, slope = self.slopes(x, smoothing)
        return Curvatures(value, slope, 1 - slope * slope)


class Cauchy(EntrywiseCriterion):
    """``φ_ε(x) = ε/2 · log(1 + x²/ε²)``, Cauchy's loss, whose slope is bounded and falls to zero.

    It is not a criterion of its own but a start: large entries cost little more than others, so
    that sparse axes have valleys of their own, which ``ℓ₁`` alone misses where they are hard to
    find.
    """

    smoothed = True

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``ε/2 · log(1 + x²/ε²)``."""
        # In single precision seven times as fast as log1p, whose small values no cost needs.
        value = x * x
        value /= smoothing**2
        value += 1
        np.log(value, out=value)
        value *= 0.5 * smoothing
        return value

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute the value and ``εx/(x² + ε²)``."""
        total = x * x
        total += smoothing**2
        slope = x / total
        slope *= smoothing
        return Slopes(self.value(x, smoothing), slope)

    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute value, slope and ``ε (ε² − x²)/(x² + ε²)²``."""
        square, width = x * x, smoothing**2
        curvature = smoothing * (width - square) / (square + width) ** 2
        return Curvatures(*self.slopes(x, smoothing), curvature)


class LogTable(TableCriterion):
    """``φ_τ(M) = log(1 + M/(τ² ΣM))`` of the table ``M_ab = mean_i X²_{i,ab}``.

    It counts connections: what a pair of axes carries over all samples, not what each sample uses.
    ``τ`` is the share of ``√ΣM`` below which a connection as good as vanishes: a tenth of the
    smoothing, and 0.001 at last.
    """

    degree = 2
    per_sample = False
    smoothed = True

    def collapsed(self, n_entries: int) -> Criterion:
        """Return ``log(1 + x²/(τ² N))``: the table of one matrix is its squares."""
        return _LogEntries(n_entries)

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``log(1 + M/ε²)``, ``ε² = τ² ΣM``."""
        return np.log1p(x / self._width(x, smoothing))

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute ``log(1 + M/ε²)`` and ``1/(ε² + M)``, where ``ΣM`` counts as a constant."""
        return Slopes(self.value(x, smoothing), 1 / (self._width(x, smoothing) + x))

    def _width(self, x: Array, smoothing: float) -> Any:
        return _share(smoothing) ** 2 * x.sum()


class _LogEntries(EntrywiseCriterion):
    """``φ_τ(x) = log(1 + x²/(τ² N))`` of the ``N`` entries of one matrix, of root mean square 1."""

    smoothed = True

    def __init__(self, n_entries: int) -> None:
        self.n_entries = n_entries

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute ``log(1 + x²/ε²)``, ``ε² = τ² N``."""
        return np.log1p(x * x / self._width(smoothing))

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute ``log(1 + x²/ε²)`` and ``2x/(ε² + x²)``."""
        return Slopes(self.value(x, smoothing), 2 * x / (self._width(smoothing) + x * x))

    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute ``log(1 + x²/ε²)``, ``2x/(ε² + x²)`` and ``2 (ε² − x²)/(ε² + x²)²``."""
        square, width = x * x, self._width(smoothing)
        curvature = 2 * (width - square) / (width + square) ** 2
        return Curvatures(*self.slopes(x, smoothing), curvature)

    def _width(self, smoothing: float) -> float:
        return _share(smoothing) ** 2 * self.n_entries


def _share(smoothing: float) -> float:
    """Compute ``τ``."""
    return max(smoothing / 10, 1e-3)


class CallableCriterion(EntrywiseCriterion):
    """A user's even function, its derivatives by autograd, checked by finite differences.

    Parameters
    ----------
    function : callable
        Elementwise, written with ``autograd.numpy``; the less, the sparser.

    Raises
    ------
    ValueError
        If the function is not elementwise, finite, even and differentiable, or if autograd's
        derivatives are not those of its values.
    """

    concurrent = False

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function
        self._slope = elementwise_grad(function)
        self._curvature = elementwise_grad(self._slope)
        with np.errstate(all="ignore"):
            self._check()

    def value(self, x: Array, smoothing: float) -> Array:
        """Compute the function at every entry."""
        return self._evaluate(x, self.function)[0]

    def slopes(self, x: Array, smoothing: float) -> Slopes:
        """Compute the function and its derivative at every entry."""
        return Slopes(*self._evaluate(x, self.function, self._slope))

    def curvatures(self, x: Array, smoothing: float) -> Curvatures:
        """Compute the function and its two derivatives at every entry."""
        return Curvatures(*self._evaluate(x, self.function, self._slope, self._curvature))

    def _evaluate(self, x: Array, *functions: Callable[[Array], Array]) -> list[Array]:
        with exclusive_autograd():
            return [np.asarray(function(x), dtype=x.dtype) for function in functions]

    def _check(self) -> None:
        name = getattr(self.function, "__name__", repr(self.function))
        # Away from 0, where |x| and its like have a kink that the search never meets exactly.
        right_half = np.array([0.047, 0.31, 0.83, 2.1, 7.3, 100.0])
        points = np.concatenate([-right_half[::-1], right_half])
        step = 1e-6 * np.maximum(np.abs(points), 0.1)
        try:
            value, slope, curvature = self.curvatures(points, 0.0)
            at_zero = self.curvatures(np.zeros(1), 0.0)
            right, left = self.slopes(points + step, 0.0), self.slopes(points - step, 0.0)
            alone = [self.value(points[i : i + 1], 0.0) for i in range(points.size)]
        except Exception as error:
            raise ValueError(
                f"criterion {name} cannot be evaluated and differentiated by autograd "
                f"({type(error).__name__}: {error}); pass an elementwise function with "
                "autograd.numpy."
            ) from error
        if value.shape != points.shape or not np.allclose(
            np.concatenate(alone), value, equal_nan=True
        ):
            raise ValueError(
                f"criterion {name} is not elementwise; pass a function that maps every entry on "
                "its own (the search takes the mean itself)."
            )
        if not all(np.isfinite(array).all() for array in (value, slope, curvature, *at_zero)):
            raise ValueError(
                f"criterion {name} or a derivative of it is NaN or infinite between -100 and "
                "100; mend it, or smooth it: sqrt(x**2) has no derivative at 0 but "
                "sqrt(x**2 + 1e-4) has."
            )
        if not np.allclose(value, value[::-1], rtol=1e-8, atol=1e-12 * np.abs(value).max()):
            raise ValueError(
                f"criterion {name} is not even: φ(x) must equal φ(−x), since an axis has no sign."
            )
        for order, derivative in ((0, slope), (1, curvature)):
            difference = (right[order] - left[order]) / (2 * step)
            scale = np.abs(derivative).max() + np.abs(value).max()
            if not np.allclose(difference, derivative, rtol=1e-4, atol=1e-5 * scale):
                raise ValueError(
                    f"criterion {name}: derivative {order + 1} by autograd differs from finite "
                    f"differences by {np.abs(difference - derivative).max():.1e}; use "
                    "autograd.numpy throughout and define no derivative by hand."
                )


CRITERIA: dict[str, type[Criterion]] = {
    "hoyer": Hoyer,
    "l1": L1,
    "log": LogTable,
    "logcosh": LogCosh,
    "quartimax": Quartimax,
}


def get_criterion(criterion: str | Callable[[Array], Array]) -> Criterion:
    """Return the criterion of a name or of a user's function.

    Parameters
    ----------
    criterion : {"hoyer", "l1", "log", "logcosh", "quartimax"} or callable
        Name, or an even elementwise function written with ``autograd.numpy``.

    Returns
    -------
    Criterion
        What the search minimises.

    Raises
    ------
    ValueError
        If the name is unknown or the function is unfit.
    """
    if callable(criterion):
        return CallableCriterion(criterion)
    if criterion not in CRITERIA:
        raise ValueError(
            f"criterion={criterion!r} is unknown; pass one of {sorted(CRITERIA)} or an even "
            "elementwise function."
        )
    return CRITERIA[criterion]()
