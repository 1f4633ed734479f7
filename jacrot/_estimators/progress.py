"""Progress of the searches of a fit: a bar on stderr, and scikit-learn's callbacks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

from jacrot._estimators.callbacks import Task
from jacrot._search.solver import Solution
from jacrot._search.strategy import Candidate, Search
from jacrot._utils.arrays import Matrix
from jacrot._utils.text import UNWRITABLE, replace_unencodable

# Minimum seconds between two updates of the bar, and seconds between refreshes of its clock, which
# goes on during long steps.
INTERVAL, CLOCK_INTERVAL = 0.5, 1.0
# Maximum share of the time that is spent on the sparsity in the bar.
SPARSITY_SHARE = 0.02

BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}{postfix}]"


class Progress:
    """A progress bar over the steps of the searches.

    The percentage is that of the budget, ``max_iter`` steps of each search. Most searches converge
    long before, so that the time shown is an upper bound at the speed so far.

    Parameters
    ----------
    label : str
        Label of the bar.
    n_searches, max_iter : int
        The budget.
    disable : bool
        Whether to show nothing.

    Attributes
    ----------
    sparsity : callable
        ``sparsity(point)`` is the mean Hoyer sparsity of a few samples at a point of the search.
    """

    def __init__(
        self,
        label: str,
        n_searches: int,
        max_iter: int,
        disable: bool,
    ) -> None:
        self.n_searches = n_searches
        self.max_iter = max_iter
        self.disable = disable
        self.sparsity: Callable[[list[Matrix]], float] | None = None
        total = n_searches * max_iter
        # Without dynamic_ncols, tqdm reads the width of the terminal for sys.stderr itself only.
        self.bar = tqdm(
            desc=label,
            total=total,
            bar_format=BAR_FORMAT,
            disable=disable,
            file=_SafeStream(sys.stderr),
            dynamic_ncols=True,
        )
        self._next_update = self._next_sparsity = 0.0
        self._sparsity_text = ""

    @contextmanager
    def display(self) -> Iterator[Progress]:
        """Show the bar, with a clock that goes on during long steps."""
        closed = Event()

        def tick() -> None:
            while not closed.wait(CLOCK_INTERVAL):
                self.bar.refresh()

        clock = Thread(target=tick, daemon=True)
        with self.bar:
            if self.disable:
                yield self
                return
            try:
                clock.start()
                yield self
            finally:
                closed.set()
                # Ctrl-C may come before it has started.
                if clock.is_alive():
                    clock.join()

    def update(self, n_finished: int, search: Search) -> None:
        """Show the state of a search, at most once every ``INTERVAL`` seconds."""
        now = time.perf_counter()
        if self.disable or now < self._next_update:
            return
        log = search.log
        point = search.point if now >= self._next_sparsity else None
        if point is not None and self.sparsity is not None:
            self._sparsity_text = f"sparsity {self.sparsity(point):.3f}"
            took = time.perf_counter() - now
            self._next_sparsity = now + max(INTERVAL, took / SPARSITY_SHARE)
        *_, cost, seconds = log.history[-1]
        left = self.n_searches * self.max_iter - n_finished * self.max_iter - log.n_iter
        parts = [
            f"at most {tqdm.format_interval(left * seconds / log.n_iter)} left"
            if log.n_iter
            else "",
            f"search {n_finished + 1} of {self.n_searches}" if self.n_searches > 1 else "",
            f"{log.stages[-1]}, step {log.step}",
            f"cost {cost:.5g}",
            self._sparsity_text,
        ]
        self._show(n_finished * self.max_iter + log.n_iter, ", ".join(filter(None, parts)))
        self._next_update = time.perf_counter() + INTERVAL

    def stage(self, label: str) -> None:
        """Show that a stage of the fit begins."""
        self._show(self.bar.n, label)

    def finish_search(self, n_finished: int) -> None:
        """Show the number of searches that have ended."""
        self._show(n_finished * self.max_iter, f"search {n_finished} of {self.n_searches}")

    def _show(self, n: int, text: str) -> None:
        self.bar.n = n
        self.bar.set_postfix_str(text)


class _SafeStream:
    """A stream that ignores errors, because a progress bar must not end the fit."""

    def __init__(self, stream: Any) -> None:
        # None in a process without standard error.
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            with suppress(*UNWRITABLE):
                self._stream.write(replace_unencodable(text, encoding))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(*UNWRITABLE):
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Monitor:
    """Reports searches and their stages to a progress bar and to scikit-learn's callbacks.

    Parameters
    ----------
    progress : Progress
        The bar.
    fit : Task
        The task of the fit.
    attributes : callable
        Computes the fitted attributes at a point.
    """

    def __init__(
        self, progress: Progress, fit: Task, attributes: Callable[[list[Matrix]], dict[str, Any]]
    ) -> None:
        self.progress = progress
        self.fit = fit
        self.attributes = attributes
        self.search: Task | None = None
        self.stage: Task | None = None
        self.has_begun = False
        self.n_finished = 0

    def begin(self, label: str) -> None:
        """Report the beginning of a stage, and of the search with its first stage."""
        self.progress.stage(label)
        if self.search is None:
            # Set before the subtask begins: Ctrl-C may come in between.
            self.has_begun = True
            self.search = self.fit.begin_subtask(f"search {self.n_finished + 1}", None)
        self.stage = self.search.begin_subtask(label)

    def visit(self, search: Search) -> None:
        """Report a point that a search has visited."""
        self.progress.update(self.n_finished, search)

    def end(self, search: Search) -> bool:
        """Report the end of a stage; return whether a callback requests to stop."""
        assert self.stage is not None
        return self.stage.end(search.log.last(), lambda: self._attributes_at(search.best()))

    def finish_search(self, solution: Solution) -> bool:
        """Report the end of a search; return whether a callback requests to stop."""
        self.n_finished += 1
        if self.search is None:
            if self.has_begun:
                return False
            # The search ran in another process, or had no stages.
            self.progress.finish_search(self.n_finished)
            self.search = self.fit.begin_subtask(f"search {self.n_finished}", None)
        record = {"cost": solution.cost, "n_iter": solution.n_iter, "ending": solution.ending}
        stop = self.search.end(record, lambda: self._attributes_at(solution))
        self.search, self.has_begun = None, False
        return stop

    def _attributes_at(self, solution: Solution | Candidate | None) -> dict[str, Any]:
        assert solution is not None, "a stage that has ended has a point"
        return self.attributes(solution.point)
