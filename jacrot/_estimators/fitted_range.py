"""Where the fitted activations lie, and whether others lie far outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.utils.random import sample_without_replacement

from jacrot._jacobians.coordinates import ROUNDING
from jacrot._utils.arrays import Array, Matrix, power_of_two_scale
from jacrot._utils.warnings import warn
from jacrot.positions import to_rows

# Median squared distance, in units of that of the farthest fitted row, above which rows are far.
# Above 1, since distances in many dimensions are all alike, and other data a little longer.
FAR = 1.5
# Inputs below which no range is known, however many positions they have: positions are alike.
FEWEST = 10
# Rows that the covariance is made of, or twice as many as features: bounds the time and the memory
# that images need, which have a row for every position.
MOST_FITTED = 2_000
# Rows whose median is taken: enough for one, and little work beside transforming a thousand.
MOST_CHECKED = 100
# Draws these rows: with a stride, all rows of images might come from the same few positions.
DRAW_SEED = 0
# A multiple of the unit that is far in any case, and whose square is finite.
BEYOND = 1e100


@dataclass(frozen=True)
class FittedRange:
    """The ellipsoid around the fitted rows that goes through the farthest of them.

    Distances are Mahalanobis distances under the covariance of Ledoit and Wolf, which has some
    variance in every direction. The distance of a fitted row is what it is under the covariance of
    the others: a row that was not fitted is then farther than all ``n`` of them about once in
    ``n + 1`` times, even where ``n`` is the number of features, and the median of many rows never.
    Median squared distances in units of that of the farthest fitted row, for fits of 64 to 2,000
    rows:

    - other inputs: 0.1 to 0.6, of the inputs and the hidden layers of networks for digits and for
      MNIST; single rows are beyond ``FAR`` at most once in 400 times on average;
    - activations of another place of equal width: 1.5 and more for digits (2.0 and more from 100
      rows on), 0.8 and more for MNIST (2.7 and more from 1,000 rows on).

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        The centre.
    unit : float
        What `whitening` counts activations in.
    whitening : ndarray of shape (n_features, n_features)
        A lower triangular matrix: ``‖whitening (x − mean) / unit‖`` is 1 at the farthest row.
    """

    mean: Matrix
    unit: float
    whitening: Matrix

    @classmethod
    def of(cls, batches: list[Array]) -> Self | None:
        """Compute the range of the rows of all batches together.

        Parameters
        ----------
        batches : list of ndarray
            Rows, sequences or images.

        Returns
        -------
        FittedRange or None
            ``None`` where there are fewer rows than features, fewer inputs than ``FEWEST``, or all
            rows are equal.

        References
        ----------
        O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance
        matrices", Journal of Multivariate Analysis 88 (2004).
        """
        each = [to_rows(X) for X in batches]
        n_features = each[0].shape[1]
        if sum(map(len, batches)) < FEWEST or sum(map(len, each)) < n_features:
            return None
        most = -(-max(MOST_FITTED, 2 * n_features) // len(each))
        rows = np.concatenate([_drawn(X, most) for X in each])
        with np.errstate(over="ignore", invalid="ignore"):
            mean = rows.mean(axis=0)
            centred = rows - mean
        # Not so either of what overflows.
        if not ROUNDING * np.abs(rows).max() < np.abs(centred).max() < np.inf:
            return None
        unit = power_of_two_scale(centred)
        centred /= unit
        # Rows of two values leave nothing to shrink for; one more row might have any direction.
        shrinkage = max(ledoit_wolf_shrinkage(centred, assume_centered=True), 1 / len(centred))
        covariance = (1 - shrinkage) * (centred.T @ centred) / len(centred)
        covariance.flat[:: n_features + 1] += shrinkage * np.square(centred).sum() / centred.size
        root = np.linalg.cholesky(covariance)
        whitening = solve_triangular(root, np.eye(n_features), lower=True)
        distances = np.square(centred @ whitening.T).sum(axis=1)
        # What they are without the row itself in the covariance, as for rows that were not fitted.
        distances /= 1 - (1 - shrinkage) * distances / len(centred)
        return cls(mean, unit, whitening / np.sqrt(distances.max()))

    def check(self, X: Array, fitted: str, way_out: str) -> None:
        """Warn if most rows are much farther from the centre than all that were fitted.

        Parameters
        ----------
        X : ndarray
            Rows, sequences or images.
        fitted : str
            What was fitted.
        way_out : str
            What the rows may be instead, and what to pass.

        Warns
        -----
        UserWarning
            If they are.
        """
        rows = _drawn(to_rows(X), MOST_CHECKED)
        with np.errstate(over="ignore"):
            rows = np.clip((rows - self.mean) / self.unit, -BEYOND, BEYOND)
        distance = np.median(np.square(rows @ self.whitening.T).sum(axis=1))
        if distance > FAR:
            warn(
                f"X lies far outside the {fitted} that were fitted (median squared distance "
                f"{distance:.3g} times that of the farthest fitted row): {way_out}"
            )


def _drawn(rows: Array, most: int) -> Matrix:
    """Draw so many of the rows where there are more, always the same ones."""
    if len(rows) > most:
        rows = rows[sample_without_replacement(len(rows), most, random_state=DRAW_SEED)]
    return rows.astype(np.float64, copy=False)
