"""What the search minimises: even functions ``φ_ε`` of the entries, with two derivatives.

They are applied to the entries of the rotated Jacobians, scaled to root mean square 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from autograd import elementwise_grad

from jacrot._utils.arrays import Array
from jacrot._utils.threads import exclusive_autograd


class Criterion(ABC):
    """An even function ``φ_ε(x)`` with two derivatives, to be minimised.

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
    of_table : bool
        Whether ``φ_ε`` is applied to the table ``M_ab = mean_i X²_{i,ab}`` in the place of the
        entries ``X_{i,ab}``.
    """

    degree: int | None = None
    per_sample: bool = True
    smoothed: bool = False
    concurrent: bool = True
    of_table: bool = False

    def collapsed(self, n_entries: int) -> Criterion:
        """Make the same criterion of the entries of one matrix, of root mean square 1."""
        return self

    @abstractmethod
    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``φ_ε`` and its derivatives up to `order` (0, 1 or 2) at every entry."""


class L1(Criterion):
    """``φ_ε(x) = √(x² + ε²) − ε``, which tends to ``|x|``; the stack is scaled as a whole."""

    degree = 1
    per_sample = False
    smoothed = True

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``φ_ε``, ``x/√(x² + ε²)`` and ``ε²/(x² + ε²)^(3/2)``."""
        if smoothing == 0 and order == 0:
            return (np.abs(x),)
        root = x * x
        root += smoothing**2
        np.sqrt(root, out=root)
        if order == 0:
            root -= smoothing
            return (root,)
        slope = x / root
        if order == 1:
            root -= smoothing
            return root, slope
        return root - smoothing, slope, smoothing**2 / root**3


class Hoyer(L1):
    """The same function with every sample scaled to root mean square 1.

    Rotations keep the Frobenius norm, so that for ``ε → 0`` the cost is an affine function of
    the mean Hoyer sparsity.
    """

    per_sample = True


class Quartimax(Criterion):
    """``φ(x) = −x⁴/4``, factor analysis' quartimax of the stacked rows of the Jacobians."""

    degree = 4
    per_sample = False

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``−x⁴/4``, ``−x³`` and ``−3x²``."""
        square = x * x
        return (-0.25 * square * square, -x * square, -3 * square)[: order + 1]


class LogCosh(Criterion):
    """``φ(x) = log cosh x``, the contrast of FastICA and Picard for heavy-tailed sources."""

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``log cosh x``, ``tanh x`` and ``1 − tanh² x``."""
        absolute = np.abs(x)
        value = absolute + np.log1p(np.exp(-2 * absolute)) - np.log(2).astype(x.dtype)
        if order == 0:
            return (value,)
        slope = np.tanh(x)
        return (value, slope, 1 - slope * slope)[: order + 1]


class Cauchy(Criterion):
    """``φ_ε(x) = ε/2 · log(1 + x²/ε²)``, Cauchy's loss, whose slope is bounded and falls to zero.

    Not a criterion of its own but a start: large entries cost little more than others, so that
    sparse axes have valleys of their own, which ``ℓ₁`` alone misses where they are hard to find.
    """

    smoothed = True

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``φ_ε``, ``εx/(x² + ε²)`` and ``ε (ε² − x²)/(x² + ε²)²``."""
        square = x * x
        width = smoothing**2
        # In single precision seven times as fast as log1p, whose small values no cost needs.
        value = square / width
        value += 1
        np.log(value, out=value)
        value *= 0.5 * smoothing
        if order == 0:
            return (value,)
        total = square + width
        slope = x / total
        slope *= smoothing
        if order == 1:
            return value, slope
        return value, slope, smoothing * (width - square) / total**2


class LogTable(Criterion):
    """``φ_τ(M) = log(1 + M/(τ² ΣM))`` of the table ``M_ab = mean_i X²_{i,ab}``.

    It counts connections: what a pair of axes carries over all samples, not what each sample uses.
    ``τ`` is the share of ``√ΣM`` below which a connection as good as vanishes: a tenth of the
    smoothing, and 0.001 at last.
    """

    degree = 2
    per_sample = False
    smoothed = True
    of_table = True

    def collapsed(self, n_entries: int) -> Criterion:
        """Make ``log(1 + x²/(τ² N))`` of the entries of one matrix: its table are their squares."""
        return _LogEntries(n_entries)

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``log(1 + M/ε²)``, ``1/(ε² + M)`` and ``−1/(ε² + M)²``, ``ε² = τ² ΣM``.

        ``ΣM`` counts as a constant.
        """
        width = _share(smoothing) ** 2 * x.sum()
        slope = 1 / (width + x)
        return (np.log1p(x / width), slope, -slope * slope)[: order + 1]


class _LogEntries(Criterion):
    """``φ_τ(x) = log(1 + x²/(τ² N))`` of the ``N`` entries of one matrix, of root mean square 1."""

    smoothed = True

    def __init__(self, n_entries: int) -> None:
        self.n_entries = n_entries

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute ``log(1 + x²/ε²)``, ``2x/(ε² + x²)`` and ``2 (ε² − x²)/(ε² + x²)²``."""
        width = _share(smoothing) ** 2 * self.n_entries
        square = x * x
        total = width + square
        return (np.log1p(square / width), 2 * x / total, 2 * (width - square) / total**2)[
            : order + 1
        ]


def _share(smoothing: float) -> float:
    """Give ``τ`` of both."""
    return max(smoothing / 10, 1e-3)


class CallableCriterion(Criterion):
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

    def derivatives(self, x: Array, smoothing: float, order: int) -> tuple[Array, ...]:
        """Compute the function and its derivatives at every entry."""
        functions = (self.function, self._slope, self._curvature)[: order + 1]
        with exclusive_autograd():
            return tuple(np.asarray(function(x), dtype=x.dtype) for function in functions)

    def _check(self) -> None:
        name = getattr(self.function, "__name__", repr(self.function))
        # Away from 0, where |x| and its like have a kink that the search never meets exactly.
        right_half = np.array([0.047, 0.31, 0.83, 2.1, 7.3, 100.0])
        points = np.concatenate([-right_half[::-1], right_half])
        step = 1e-6 * np.maximum(np.abs(points), 0.1)
        try:
            value, slope, curvature = self.derivatives(points, 0.0, 2)
            at_zero = self.derivatives(np.zeros(1), 0.0, 2)
            right, left = (
                self.derivatives(points + step, 0, 1),
                self.derivatives(points - step, 0, 1),
            )
            alone = [self.derivatives(points[i : i + 1], 0.0, 0)[0] for i in range(points.size)]
        except Exception as error:
            raise ValueError(
                f"criterion {name} cannot be evaluated and differentiated by autograd "
                f"({type(error).__name__}: {error}); write an elementwise function with "
                "autograd.numpy."
            ) from error
        if value.shape != points.shape or not np.allclose(
            np.concatenate(alone), value, equal_nan=True
        ):
            raise ValueError(
                f"criterion {name} is not elementwise; write a function that maps every entry on "
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
    """Make the criterion of a name or of a user's function.

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
        If the name is unknown or the function unfit.
    """
    if callable(criterion):
        return CallableCriterion(criterion)
    if criterion not in CRITERIA:
        raise ValueError(
            f"criterion={criterion!r} is unknown; write one of {sorted(CRITERIA)} or an even "
            "elementwise function."
        )
    return CRITERIA[criterion]()
