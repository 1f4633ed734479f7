"""Tasks of a fit, reported to scikit-learn's callbacks (scikit-learn 1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replacement of scikit-learn's mixin for versions before 1.9."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Raise ImportError: callbacks are not supported.

            Parameters
            ----------
            *callbacks : object
                Not used.

            Raises
            ------
            ImportError
                Always.
            """
            raise ImportError(
                "callbacks need scikit-learn 1.9 or later; upgrade it, or pass verbose=1 for a "
                "progress bar."
            )


class Task:
    """A task of a fit, which may have subtasks.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator that is fitted.
    X : ndarray
        The activations.
    context : sklearn.callback.CallbackContext or None
        scikit-learn's context of the task; ``None`` if it does not support callbacks.
    """

    def __init__(self, estimator: Any, X: Any, context: Any) -> None:
        self.estimator = estimator
        self.X = X
        self.context = context
        if context is not None:
            context.call_on_fit_task_begin(estimator=estimator, X=X)

    @classmethod
    def begin_fit(cls, estimator: Any, X: Any, n_subtasks: int | None) -> Task:
        """Begin the fit of an estimator; ``n_subtasks=None`` if their number is not known."""
        if not hasattr(estimator, "_init_callback_context"):
            return cls(estimator, X, None)
        return cls(estimator, X, estimator._init_callback_context(max_subtasks=n_subtasks))

    def begin_subtask(self, name: str, n_subtasks: int | None = 0) -> Task:
        """Begin a subtask; ``n_subtasks=None`` if the number of its subtasks is not known."""
        context = self.context
        if context is not None:
            context = context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return Task(self.estimator, self.X, context)

    def end(
        self,
        record: dict[str, Any] | None = None,
        attributes: Callable[[], dict[str, Any]] | None = None,
    ) -> bool:
        """End the task.

        Parameters
        ----------
        record : dict, default=None
            Passed to callbacks as `metadata`.
        attributes : callable, default=None
            Computes the fitted attributes of the estimator at this point; called if a callback
            needs them.

        Returns
        -------
        bool
            Whether a callback requests to stop.
        """
        if self.context is None:
            return False
        stop: bool = self.context.call_on_fit_task_end(
            estimator=self.estimator,
            X=self.X,
            metadata=record,
            reconstruction_attributes=attributes,
        )
        return stop

    @contextmanager
    def propagate_to(self, estimator: Any, name: str) -> Iterator[None]:
        """Run the fit of another estimator as a subtask, with the same callbacks."""
        if self.context is None:
            yield
            return
        context = self.context.subcontext(task_name=name)
        with context.propagate_callback_context(estimator):
            task = Task(self.estimator, self.X, context)
            yield
            task.end()
