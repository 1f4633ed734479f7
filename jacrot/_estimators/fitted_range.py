"""The range of the fitted activations, and a warning for others far outside."""

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
# Above 1, because in many dimensions all distances are similar, and those of new data larger.
FAR = 1.5
# Minimum number of inputs for a range; positions of one input are similar and do not count.
FEWEST = 10
# Maximum number of rows for the covariance (or twice the number of features), to limit time and
# memory for images, which have a row for every position.
MOST_FITTED = 2_000
# Maximum number of rows for the median distance: little work compared with `transform`.
MOST_CHECKED = 100
# Seed that draws these rows; with a stride, rows of images might come from a few positions only.
DRAW_SEED = 0
# Limit of scaled activations, far outside any range, whose square is finite.
BEYOND = 1e100


@dataclass(frozen=True)
class FittedRange:
    """The ellipsoid around the mean of the fitted rows, through the farthest of them.

    Distances are Mahalanobis distances under the covariance of Ledoit and Wolf, which has some
    variance in every direction. The distance of a fitted row is computed with the covariance of the
    other rows: a new row is then farther than all ``n`` fitted rows about once in ``n + 1`` times,
    even if ``n`` is the number of features, and the median of many rows never is. Median squared
    distances in units of that of the farthest fitted row, for fits of 64 to 2,000 rows:

    - other inputs: 0.1 to 0.6, for the inputs and the hidden layers of networks for digits and
      MNIST; single rows exceed ``FAR`` at most once in 400 times on average;
    - activations of another layer with the same width: at least 1.5 for digits (at least 2.0 from
      100 rows on), at least 0.8 for MNIST (at least 2.7 from 1,000 rows on).

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        The centre.
    unit : float
        Scale by which activations are divided before `whitening`.
    whitening : ndarray of shape (n_features, n_features)
        A lower triangular matrix: ``‖whitening (x − mean) / unit‖`` is 1 at the farthest row.
    """

    mean: Matrix
    unit: float
    whitening: Matrix

    @classmethod
    def from_batches(cls, batches: list[Array]) -> Self | None:
        """Compute the range of the rows of all batches together.

        Parameters
        ----------
        batches : list of ndarray
            Rows, sequences or images.

        Returns
        -------
        FittedRange or None
            ``None`` if there are fewer rows than features, fewer inputs than ``FEWEST``, or only
            equal rows.

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
        rows = np.concatenate([_subsample(X, most) for X in each])
        with np.errstate(over="ignore", invalid="ignore"):
            mean = rows.mean(axis=0)
            centred = rows - mean
        # Equal rows, or an overflow.
        if not ROUNDING * np.abs(rows).max() < np.abs(centred).max() < np.inf:
            return None
        unit = power_of_two_scale(centred)
        centred /= unit
        # The shrinkage of rows of two values is 0, but a new row may have any direction.
        shrinkage = max(ledoit_wolf_shrinkage(centred, assume_centered=True), 1 / len(centred))
        covariance = (1 - shrinkage) * (centred.T @ centred) / len(centred)
        covariance.flat[:: n_features + 1] += shrinkage * np.square(centred).sum() / centred.size
        root = np.linalg.cholesky(covariance)
        whitening = solve_triangular(root, np.eye(n_features), lower=True)
        distances = np.square(centred @ whitening.T).sum(axis=1)
        # Distances with the row itself left out of the covariance, as for new rows.
        distances /= 1 - (1 - shrinkage) * distances / len(centred)
        return cls(mean, unit, whitening / np.sqrt(distances.max()))

    def check(self, X: Array, fitted: str, advice: str) -> None:
        """Warn if most rows are much farther from the mean than all fitted rows.

        Parameters
        ----------
        X : ndarray
            Rows, sequences or images.
        fitted : str
            Name of the fitted activations in the message.
        advice : str
            What the rows may be instead, and what to pass.

        Warns
        -----
        UserWarning
            If most rows are far outside the range.
        """
        rows = _subsample(to_rows(X), MOST_CHECKED)
        with np.errstate(over="ignore"):
            rows = np.clip((rows - self.mean) / self.unit, -BEYOND, BEYOND)
        distance = np.median(np.square(rows @ self.whitening.T).sum(axis=1))
        if distance > FAR:
            warn(
                f"X lies far outside the {fitted} that were fitted (median squared distance "
                f"{distance:.3g} times that of the farthest fitted row): {advice}"
            )


def _subsample(rows: Array, most: int) -> Matrix:
    """Return at most this number of rows, drawn with a fixed seed."""
    if len(rows) > most:
        rows = rows[sample_without_replacement(len(rows), most, random_state=DRAW_SEED)]
    return rows.astype(np.float64, copy=False)
