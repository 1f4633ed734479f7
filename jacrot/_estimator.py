"""What the estimators share: the door, the searches, the report."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from joblib import cpu_count, effective_n_jobs
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples, validate_data
from tqdm import tqdm

from jacrot import persistence, provenance
from jacrot._arrays import FEATURES_AXIS, Array, Matrix, real_array
from jacrot._callbacks import CallbackSupportMixin, Task
from jacrot._captured import Captured
from jacrot._threads import Apply, one_blas_thread
from jacrot._warnings import warn
from jacrot.activations import ACTIVATIONS
from jacrot.criteria import CRITERIA, hoyer_of_norms
from jacrot.jacobians import Indices, Jacobians
from jacrot.network import Network
from jacrot.network_jacobians import SINGLE_PRECISION_ENTRIES
from jacrot.positions import to_rows
from jacrot.problem import Problem
from jacrot.solver import Search, Solution, solve
from jacrot.subspace import NEGLIGIBLE
from jacrot.weights import chains_transposed, is_made_of_layers, transposed_hint


class NetworkEstimator(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    """An estimator whose network is given to its constructor or to ``fit``.

    Parameters are those of the subclass, among them ``network``, ``activation``, ``n_init``,
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

    # The fitted attributes, all of them, and their types.
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
    }

    network: Any
    activation: Any
    n_init: int
    max_iter: int
    tol: float
    on_interrupt: Literal["raise", "keep"]
    n_jobs: int | None
    verbose: int

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, and transform what was fitted on.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            What `fit` takes: the data, or the weights in the form ``fit_transform(weights, X)``.
        y : Ignored, or array-like of shape (n_samples, n_features)
            Ignored, or the data in the form ``fit_transform(weights, X)``.

        Returns
        -------
        ndarray of shape (n_samples, n_axes)
            What `transform` returns.
        """
        data = y if self.network is None else X
        if isinstance(X, Captured):
            data = X.X
        return self.fit(X, y).transform(data)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _fit_or_leave(self, X: Any, y: Any) -> Self:
        """Fit a copy, and take all that it found, or nothing where it failed or was interrupted."""
        attempt = copy.copy(self)
        for name in self._saved:
            attempt.__dict__.pop(name, None)
        attempt._fit(X, y)
        found = {name: value for name, value in vars(attempt).items() if name in self._saved}
        kept = {name: value for name, value in vars(self).items() if name not in self._saved}
        # One assignment: Ctrl-C comes before it or after it.
        self.__dict__ = kept | found
        return self

    def _fit(self, X: Any, y: Any) -> None:
        """Set the fitted attributes, one by one."""
        raise NotImplementedError

    def _who_has_the_network(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Tell the two forms of ``fit`` apart."""
        name = type(self).__name__
        forms = f"write {name}(network).fit(X), or {name}().fit(weights, X)"
        if isinstance(X, Captured):
            if self.network is not None or y is not None:
                raise ValueError(
                    f"what was captured has its own Jacobians and activations; pass {name}()"
                    ".fit(captured), or fit(*captured), without a network."
                )
            return X.jacobians, X.X
        if self.network is None and are_batches(y):
            return X, y
        if self.network is not None and y is None and are_batches(X):
            return self.network, X
        if self.network is None:
            if _is_network_like(y):
                raise ValueError(f"the weights stand where the activations belong: {forms}.")
            if y is None:
                raise ValueError(f"there is no network: {forms}.")
            if np.ndim(y) < 2:
                raise ValueError(
                    f"there is no network, or the activations have fewer than two dimensions: "
                    f"{forms} with X of shape (n_samples, n_features)."
                )
            return X, y
        # A second array of other length is no target of X, so X must have been meant as weights.
        if _is_network_like(X) or (getattr(y, "ndim", 0) == 2 and _num_samples(X) != len(y)):
            raise ValueError(f"there are two networks, in the constructor and in fit: {forms}.")
        return self.network, X

    def _network(self, weights: Any, X: Array) -> Network:
        # What is made of layers knows its own activations.
        network = Network(weights, "relu" if is_made_of_layers(weights) else self.activation)
        n_features = X.shape[FEATURES_AXIS[X.ndim]]
        if network.n_inputs not in (None, n_features):
            hint = "write the layers from these activations on, as network[1:] does."
            if chains_transposed(network.layers) and network.layers[0].n_outputs == n_features:
                hint = transposed_hint("out_in")
            raise ValueError(
                f"X has {n_features} features but the network reads {network.n_inputs}; {hint}"
            )
        return network

    def _activations(self, X: Any, reset: bool) -> Array:
        if getattr(X, "ndim", 2) in (3, 4):
            X = real_array(X, "X", ndim=(3, 4))
            validate_data(self, to_rows(X), dtype=[np.float64, np.float32], reset=reset)
            return X
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)

    def _search(
        self,
        problem: Problem,
        candidates: tuple[list[Matrix], list[Matrix]],
        start: list[Matrix] | None,
        rng: np.random.RandomState,
        task: Task,
        attributes: Callable[[list[Matrix]], dict[str, Any]],
    ) -> Solution:
        """Run ``n_init`` searches and keep the one of lowest exact cost."""
        seeds = rng.randint(np.iinfo(np.int32).max, size=self.n_init)
        n_processes = min(effective_n_jobs(self.n_jobs), self.n_init)
        searches = [(problem, *candidates, start, *of_restart) for of_restart in enumerate(seeds)]
        options = {
            "max_iter": self.max_iter,
            "tol": self.tol,
            "n_threads": max(1, cpu_count() // n_processes),
            "keep": self.on_interrupt == "keep",
        }
        solutions: list[Solution] = []
        interrupted = False
        with tqdm(desc="rotation", unit=" stages", disable=not self.verbose) as bar:
            watch = _Watch(bar, task, attributes)
            if n_processes == 1:
                found = (solve(*search, **options, watch=watch) for search in searches)
            else:
                # Nobody watches another process: there, whole searches are counted.
                found = Parallel(n_jobs=n_processes, return_as="generator")(
                    delayed(solve)(*search, **options) for search in searches
                )
            try:
                for solution in found:
                    solutions.append(solution)
                    interrupted = solution.ending == "interrupted"
                    if watch.found(solution) or interrupted:
                        break
            except KeyboardInterrupt:
                # Other processes were interrupted, or a search that had found nothing yet.
                if self.on_interrupt == "raise" or not solutions:
                    raise
                interrupted = True
        best = min(solutions, key=lambda solution: solution.cost)
        return replace(best, ending="interrupted") if interrupted else best

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file, without pickle.

        :meth:`load` gives it back: parameters, rotations, the network, and ``provenance_``. The
        file appears whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Where to, ending in ``.npz`` or ``.safetensors``.

        Raises
        ------
        ImportError
            If ``safetensors`` is needed and not installed.
        OSError
            If the file cannot be written; see :meth:`jacrot.Network.save`.
        ValueError
            If `path` has another ending or is a folder, a device or a pipe; or if the network
            holds a Python function or a layer of your own, which only pickle could store. A
            function among the parameters, or a ``RandomState``, is left out: after :meth:`load`
            its place says so.
        """
        persistence.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a fitted estimator that :meth:`save` wrote. Nothing in the file is executed.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        estimator
            As it was fitted.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or holds something else.
        """
        return persistence.load(cls, path)

    def _report(
        self,
        solution: Solution,
        seed: int | np.random.RandomState,
        batches: list[Array],
        analysed: Any,
    ) -> None:
        columns = ("stage", "iteration", "evaluations", "cost", "seconds")
        table = np.array(solution.history, dtype=np.float64).reshape(-1, len(columns))
        self.history_ = {
            name: column.astype(np.int64) if name in columns[:3] else column
            for name, column in zip(columns, table.T, strict=True)
        }
        self.stages_ = solution.stages
        self.n_iter_ = solution.n_iter
        self.converged_ = solution.converged
        self._interrupted = solution.ending == "interrupted"
        reasons = {
            "max_iter": f"the search did not converge in max_iter={self.max_iter} steps; raise "
            "max_iter or tol.",
            "interrupted": "the search was interrupted; the rotation is the best it had found.",
        }
        if solution.ending in reasons:
            warn(reasons[solution.ending], ConvergenceWarning)
        known = int(seed) if isinstance(seed, Integral) else None
        self.provenance_ = provenance.of_fit(self, known, batches, analysed)


class _Watch:
    """Tells a progress bar and scikit-learn's callbacks of searches and their stages."""

    def __init__(
        self, bar: Any, fit: Task, attributes: Callable[[list[Matrix]], dict[str, Any]]
    ) -> None:
        self.bar = bar
        self.fit = fit
        self.attributes = attributes
        self.search: Task | None = None
        self.stage: Task | None = None
        self.begun = False
        self.n_found = 0

    def begin(self, label: str) -> None:
        """Tell that a stage begins, the first one of a search that the search does too."""
        self.bar.set_postfix_str(label)
        self.bar.update()
        if self.search is None:
            # Before it is: Ctrl-C may leave a part of which only scikit-learn knows.
            self.begun = True
            self.search = self.fit.part(f"search {self.n_found + 1}", None)
        self.stage = self.search.part(label)

    def end(self, search: Search) -> bool:
        """Tell that a stage has ended; true where a callback asks to stop."""
        assert self.stage is not None
        return self.stage.end(search.log.last(), lambda: self._fitted(search.best()))

    def found(self, solution: Solution) -> bool:
        """Tell that a search has ended; true where a callback asks for no more."""
        self.n_found += 1
        if self.search is None:
            if self.begun:
                return False
            # It ran in another process, or there was nothing to search.
            self.bar.set_postfix_str(f"search {self.n_found} of {self.fit.estimator.n_init}")
            self.bar.update()
            self.search = self.fit.part(f"search {self.n_found}", None)
        record = {"cost": solution.cost, "n_iter": solution.n_iter, "ending": solution.ending}
        stop = self.search.end(record, lambda: self._fitted(solution))
        self.search, self.begun = None, False
        return stop

    def _fitted(self, solution: Solution | None) -> dict[str, Any]:
        assert solution is not None, "a stage has ended, so there is a point"
        return self.attributes(solution.point)


def are_batches(X: Any) -> bool:
    """Tell a list of arrays, one for each of several blocks, from one array."""
    return (
        isinstance(X, (list, tuple))
        and len(X) > 0
        and all(getattr(batch, "ndim", 0) >= 2 for batch in X)
    )


def _is_network_like(X: Any) -> bool:
    """Tell weights from activations where only one of them can stand."""
    if isinstance(X, (list, tuple)):
        # Rows of activations are lists of numbers: only weights have arrays inside.
        first = X[0] if len(X) else None
        if isinstance(first, (list, tuple)):
            return any(np.ndim(entry) for entry in first)
        return getattr(first, "ndim", 0) >= 2 or callable(first)
    # Some arrays are callable, and some of scipy's sparse ones are mappings.
    return not hasattr(X, "shape") and (isinstance(X, (Network, Mapping)) or callable(X))


def with_effect(jacobians: Jacobians) -> tuple[Jacobians, Matrix, Matrix]:
    """Leave out samples whose Jacobian is zero, with a warning; give the ℓ₁ and ℓ₂ norms too."""
    l1, l2 = jacobians.norms()
    if not np.isfinite(l2).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(l2))} of {len(l2)} samples have a Jacobian with NaN "
            "or infinity; look at the weights and activations (an overflow?), or leave these "
            "samples out."
        )
    alive = _alive(l2)
    if alive.size == l2.size:
        return jacobians, l1, l2
    return jacobians.subset(alive), l1[alive], l2[alive]


@contextmanager
def shared(jacobians: Jacobians) -> Iterator[Apply]:
    """Share the blocks of a stack among threads."""
    with ThreadPoolExecutor(cpu_count() if jacobians.concurrent else 1) as pool:
        yield pool.map


def mean_hoyer(jacobians: Jacobians, norms: Matrix, P: Matrix | None, Q: Matrix | None) -> float:
    """Average the sparsity of ``P J_i Qᵀ`` over the samples that are more than rounding in it.

    In so many samples that rounding averages out, single precision halves the time.
    """
    stack = jacobians.scaled(1 / norms)
    if jacobians.n_entries > SINGLE_PRECISION_ENTRIES:
        stack = stack.cast(np.float32)
    with one_blas_thread(), shared(stack) as apply:
        l1, l2 = stack.norms(P, Q, apply)
    alive = _alive(np.where(l2 > np.sqrt(NEGLIGIBLE), l2, 0))
    _, n_outputs, n_inputs = jacobians.shape
    size = jacobians.n_matrices * (n_outputs if P is None else len(P))
    size *= n_inputs if Q is None else len(Q)
    return float(hoyer_of_norms(l1[alive], l2[alive], size).mean())


def _alive(norms: Matrix) -> Indices:
    """Find the samples whose Jacobian is not zero; warn of the others."""
    alive = np.flatnonzero(norms)
    if alive.size == 0:
        raise ValueError(
            f"the Jacobian is zero at every one of n_samples={norms.size}: nothing depends on "
            "these activations (dead units, a saturated activation, the wrong layer, or too few "
            "components?)."
        )
    if alive.size < norms.size:
        warn(
            f"{norms.size - alive.size} of {norms.size} samples have a zero Jacobian and are left "
            "out."
        )
    return alive
