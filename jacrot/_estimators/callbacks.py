"""Tasks of a fit, told to scikit-learn's callbacks where it has them (1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """What stands for scikit-learn's mixin in versions before 1.9."""

        def set_callbacks(self, *callbacks: Any) -> Self:
            """Refuse callbacks.

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
                "callbacks need scikit-learn 1.9 or later; upgrade it, or write verbose=1 for a "
                "progress bar."
            )


class Task:
    """A part of a fit, with parts of its own.

    Parameters
    ----------
    estimator : BaseEstimator
        What is fitted.
    X : ndarray
        The activations.
    context : sklearn.callback.CallbackContext or None
        scikit-learn's record of the task, ``None`` where it has none.
    """

    def __init__(self, estimator: Any, X: Any, context: Any) -> None:
        self.estimator = estimator
        self.X = X
        self.context = context
        if context is not None:
            context.call_on_fit_task_begin(estimator=estimator, X=X)

    @classmethod
    def of_fit(cls, estimator: Any, X: Any, n_parts: int | None) -> Task:
        """Begin the fit of an estimator, which has so many parts."""
        if not hasattr(estimator, "_init_callback_context"):
            return cls(estimator, X, None)
        return cls(estimator, X, estimator._init_callback_context(max_subtasks=n_parts))

    def part(self, name: str, n_parts: int | None = 0) -> Task:
        """Begin a part, which has so many parts itself, ``None`` where that is not known."""
        context = self.context
        if context is not None:
            context = context.subcontext(task_name=name, max_subtasks=n_parts)
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
            What callbacks are told as `metadata`.
        attributes : callable, default=None
            Makes the fitted attributes of an estimator that ended here; called if one is wanted.

        Returns
        -------
        bool
            Whether a callback asks to stop.
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
    def handed_to(self, estimator: Any, name: str) -> Iterator[None]:
        """Let the fit of another estimator be a part."""
        if self.context is None:
            yield
            return
        context = self.context.subcontext(task_name=name)
        with context.propagate_callback_context(estimator):
            task = Task(self.estimator, self.X, context)
            yield
            task.end()
