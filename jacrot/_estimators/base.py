"""Base class of the estimators: input validation, searches, and attributes of every fit."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from numbers import Integral, Real
from types import NoneType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from joblib import cpu_count, effective_n_jobs
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, validate_data

from jacrot._estimators import persistence, provenance
from jacrot._estimators.callbacks import CallbackSupportMixin, Task
from jacrot._estimators.fitted_range import FittedRange
from jacrot._estimators.inputs import read_segments
from jacrot._estimators.progress import Monitor, Progress
from jacrot._search.problem import Problem
from jacrot._search.solver import Ending, Solution, solve
from jacrot._utils.arrays import Array, Matrix, real_array
from jacrot._utils.frameworks import check_not_masked, detach_tensor
from jacrot._utils.threads import one_blas_thread
from jacrot._utils.warnings import warn
from jacrot.activations import ACTIVATIONS
from jacrot.criteria._minimised import CRITERIA
from jacrot.positions import to_rows
from jacrot.segments import RotatedSegment, Segment
from jacrot.segments._captured import Captured

# Seed that draws the pairs of input and position that are scored, if there are too many.
SCORE_SEED = 0


class NetworkEstimator(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    """Base class of estimators whose network is passed to the constructor or to ``fit``.

    The parameters are those of the subclass, which include ``network``, ``activation``, ``n_init``,
    ``max_iter``, ``tol``, ``on_interrupt``, ``n_jobs`` and ``verbose``.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "network": "no_validation",
        "activation": [StrOptions(set(ACTIVATIONS)), callable, list, tuple],
        "criterion": [StrOptions(set(CRITERIA)), callable],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "on_interrupt": [StrOptions({"raise", "keep"})],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    # Names and types of all fitted attributes.
    _saved: ClassVar[dict[str, Any]] = {
        "sparsity_": float,
        "sparsity_before_": float,
        "n_iter_": int,
        "history_": dict,
        "stages_": list,
        "converged_": bool,
        "_interrupted": bool,
        "provenance_": dict,
        "n_features_in_": int,
        "feature_names_in_": np.ndarray,
        "_fitted_range": (FittedRange, NoneType),
    }
    # Files of earlier versions have no range.
    _fitted_range: FittedRange | None = None

    # Name of the fitted activations, and advice for others that lie far outside.
    _fitted: ClassVar[tuple[str, str]] = (
        "activations",
        "are these inputs of the network instead of activations of the layer? pass what the "
        "fitted layer reads, such as network[:1](inputs).",
    )

    # Label of the progress bar.
    _bar_label = "rotation"
    _progress: Progress

    network: Any
    activation: Any
    n_init: int
    max_iter: int
    tol: float
    on_interrupt: Literal["raise", "keep"]
    n_jobs: int | None
    verbose: int

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit to data, then transform it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Input of `fit`: the data, or the weights in the form ``fit_transform(weights, X)``.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored, or the data in the form ``fit_transform(weights, X)``.

        Returns
        -------
        ndarray of shape (n_samples, n_axes)
            Activations in the new basis.
        """
        data = y if self.network is None else X
        segments = read_segments(X)
        if segments is not None:
            data = segments[0].X
        return self.fit(X, y).transform(data)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _fit_atomically(self, X: Any, y: Any) -> Self:
        """Fit a copy, and copy its fitted attributes if the fit succeeds."""
        attempt = copy.copy(self)
        for name in filter(self._is_fitted, vars(self)):
            del attempt.__dict__[name]
        # The number of BLAS threads changes rounding, and with it the start of the search.
        with one_blas_thread():
            attempt._fit(X, y)
        found = {name: value for name, value in vars(attempt).items() if self._is_fitted(name)}
        kept = {name: value for name, value in vars(self).items() if not self._is_fitted(name)}
        # A single assignment, which Ctrl-C cannot interrupt.
        self.__dict__ = kept | found
        return self

    def _is_fitted(self, name: str) -> bool:
        # Results of inspections, such as axis_stability_, belong to the fit too.
        return name in self._saved or name.endswith("_")

    @_fit_context(prefer_skip_nested_validation=True)
    def _fit(self, X: Any, y: Any) -> None:
        progress = Progress(self._bar_label, self.n_init, self.max_iter, disable=not self.verbose)
        with progress.display() as self._progress:
            self._progress.stage("Jacobians")
            self._set_attributes(X, y)

    def _set_attributes(self, X: Any, y: Any) -> None:
        """Set the fitted attributes, one by one."""
        raise NotImplementedError

    @property
    def interrupted_(self) -> bool:
        """Whether Ctrl-C, or a process that was killed, ended the search."""
        check_is_fitted(self)
        return self._interrupted

    def rotated_segments(self, X: Any) -> list[RotatedSegment]:
        """Return the segments that were fitted, on other inputs and in the fitted bases."""
        raise NotImplementedError

    @property
    def segment_layers(self) -> list[range]:
        """Layers of ``network_`` in each of the rotated segments."""
        raise NotImplementedError

    def _read_activations(self, X: Any, reset: bool) -> Array:
        if isinstance(X, (Segment, Captured)):
            raise TypeError("X is a segment; pass its activations, segment.X.")
        check_not_masked(X, "X")
        X = detach_tensor(X, "X")
        if getattr(getattr(X, "dtype", None), "kind", "f") in "mM":
            raise TypeError(f"X has dtype {X.dtype}; pass an array of real numbers.")
        dtype = [np.float64, np.float32]
        if getattr(X, "ndim", 2) in (3, 4):
            X = real_array(X, "X", ndim=(3, 4))
            validate_data(self, to_rows(X), dtype=dtype, reset=reset)
        else:
            try:
                X = validate_data(self, X, dtype=dtype, reset=reset)
            except OverflowError as error:
                raise ValueError(
                    f"X has numbers too large for float64 ({error}); pass smaller numbers."
                ) from error
        if self._fitted_range is not None and not reset:
            self._fitted_range.check(X, *self._fitted)
        return X

    def _search(
        self,
        problem: Problem,
        candidates: tuple[list[Matrix], list[Matrix]],
        start: list[Matrix] | None,
        rng: np.random.RandomState,
        task: Task,
        attributes: Callable[[list[Matrix]], dict[str, Any]],
        sparsity: Callable[[list[Matrix]], float],
    ) -> Solution:
        """Run ``n_init`` searches, and return the solution with the lowest exact cost."""
        seeds = rng.randint(np.iinfo(np.int32).max, size=self.n_init)
        n_processes = min(effective_n_jobs(self.n_jobs), self.n_init)
        searches = [(problem, *candidates, start, *restart) for restart in enumerate(seeds)]
        options = {
            "max_iter": self.max_iter,
            "tol": self.tol,
            "n_threads": max(1, cpu_count() // n_processes),
            "keep": self.on_interrupt == "keep",
        }
        self._progress.sparsity = sparsity
        monitor = Monitor(self._progress, task, attributes)
        # Searches in other processes end in any order, and are reported in order.
        finished: dict[int, Solution] = {}
        early_ending: Ending | None = None
        if n_processes == 1:
            found: Iterable[tuple[int, Solution]] = (
                (number, solve(*search, **options, watch=monitor))
                for number, search in enumerate(searches)
            )
        else:
            # Stages cannot be reported from other processes, only whole searches.
            found = Parallel(n_jobs=n_processes, return_as="generator_unordered")(
                delayed(_run_numbered_search)(number, *search, **options)
                for number, search in enumerate(searches)
            )
        try:
            for number, solution in found:
                finished[number] = solution
                stop = False
                while monitor.n_finished in finished and not stop:
                    stop = monitor.finish_search(finished[monitor.n_finished])
                if stop:
                    finished = {n: finished[n] for n in range(monitor.n_finished)}
                    break
                if solution.ending == "interrupted":
                    early_ending = "interrupted"
                    break
        except KeyboardInterrupt:
            # Other processes were interrupted, or a search without a solution so far.
            if self.on_interrupt == "raise" or not finished:
                raise
            early_ending = "interrupted"
        except BrokenProcessPool as error:
            if self.on_interrupt == "raise" or not finished:
                raise RuntimeError(
                    f"one of n_jobs={self.n_jobs} processes of the search was killed (out of "
                    f"memory?) when {len(finished)} of n_init={self.n_init} searches had "
                    "ended; use n_jobs=1, fewer samples, or on_interrupt='keep' to keep "
                    "searches that have ended."
                ) from error
            early_ending = "killed"
        self._progress.stage("sparsities")
        best = min((finished[n] for n in sorted(finished)), key=lambda solution: solution.cost)
        return best if early_ending is None else replace(best, ending=early_ending)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted estimator to a file, without pickle.

        The file has all that :meth:`load` needs: parameters, rotations, the network, and
        ``provenance_``. An incomplete file is never left behind.

        Parameters
        ----------
        path : str or path-like
            Path of the file, which ends in ``.npz`` or ``.safetensors``.

        Raises
        ------
        ImportError
            If ``safetensors`` is needed and not installed.
        OSError
            If the file cannot be written; see :meth:`jacrot.Network.save`.
        ValueError
            If `path` has another suffix or is a folder, a device or a pipe; or if the network
            contains a Python function or a layer of your own, which only pickle could store. A
            function or a ``RandomState`` among the parameters is not saved; :meth:`load` replaces
            it by a note.
        """
        persistence.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a fitted estimator that :meth:`save` has written, without executing code.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        estimator
            The fitted estimator.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or has other content.
        """
        return persistence.load(cls, path)

    def _set_search_attributes(
        self,
        solution: Solution,
        seed: int | np.random.RandomState,
        segments: Sequence[Segment | Captured],
    ) -> None:
        """Set the attributes that describe the search, and warn if it did not converge."""
        columns = ("stage", "iteration", "evaluations", "cost", "seconds")
        table = np.array(solution.history, dtype=np.float64).reshape(-1, len(columns))
        self.history_ = {
            name: column.astype(np.int64) if name in columns[:3] else column
            for name, column in zip(columns, table.T, strict=True)
        }
        self.stages_ = solution.stages
        self.n_iter_ = solution.n_iter
        self.converged_ = solution.converged
        self._fitted_range = FittedRange.from_batches([segment.activations for segment in segments])
        self._interrupted = solution.ending in ("interrupted", "killed")
        reasons = {
            "max_iter": f"the search did not converge in max_iter={self.max_iter} steps; raise "
            "max_iter or tol.",
            "interrupted": "the search was interrupted; the rotation is the best so far.",
            "killed": "a process of the search was killed (out of memory?); the rotation is the "
            f"best of the searches that had ended, fewer than n_init={self.n_init}.",
        }
        if solution.ending in reasons:
            warn(reasons[solution.ending], ConvergenceWarning)
        known_seed = int(seed) if isinstance(seed, Integral) else None
        self.provenance_ = provenance.fit_provenance(self, known_seed, segments)


def _run_numbered_search(number: int, *search: Any, **options: Any) -> tuple[int, Solution]:
    """Run a search in another process, and return its number with the solution."""
    return number, solve(*search, **options)
