"""Who follows the searches of a fit: a progress bar on stderr, and scikit-learn's callbacks."""

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

# Seconds between two looks at a search, and between two refreshes of its clock where a step takes
# longer than that.
INTERVAL, TICK = 0.5, 1.0
# The sparsity on the bar may take this share of the time.
SPARSITY_SHARE = 0.02

BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}{postfix}]"


class Progress:
    """A progress bar over the steps of the searches.

    Its share is that of the budget, ``max_iter`` steps of each search. Most searches converge long
    before, so that the time left is the most that it can be at the speed so far.

    Parameters
    ----------
    label : str
        What is searched.
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
        # tqdm asks for the width of streams that it knows only once, of others every time.
        self.bar = tqdm(
            desc=label,
            total=total,
            bar_format=BAR_FORMAT,
            disable=disable,
            file=_Unfailing(sys.stderr),
            dynamic_ncols=True,
        )
        self._next_look = self._next_sparsity = 0.0
        self._shown = ""

    @contextmanager
    def shown(self) -> Iterator[Progress]:
        """Show the bar, whose clock goes on while a step takes long."""
        closed = Event()

        def tick() -> None:
            while not closed.wait(TICK):
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

    def look(self, n_found: int, search: Search) -> None:
        """Show where a search stands, unless it was shown a moment ago."""
        now = time.perf_counter()
        if self.disable or now < self._next_look:
            return
        log = search.log
        point = search.point if now >= self._next_sparsity else None
        if point is not None and self.sparsity is not None:
            self._shown = f"sparsity {self.sparsity(point):.3f}"
            took = time.perf_counter() - now
            self._next_sparsity = now + max(INTERVAL, took / SPARSITY_SHARE)
        *_, cost, seconds = log.history[-1]
        left = self.n_searches * self.max_iter - n_found * self.max_iter - log.n_iter
        parts = [
            f"at most {tqdm.format_interval(left * seconds / log.n_iter)} left"
            if log.n_iter
            else "",
            f"search {n_found + 1} of {self.n_searches}" if self.n_searches > 1 else "",
            f"{log.stages[-1]}, step {log.step}",
            f"cost {cost:.5g}",
            self._shown,
        ]
        self._show(n_found * self.max_iter + log.n_iter, ", ".join(filter(None, parts)))
        self._next_look = time.perf_counter() + INTERVAL

    def stage(self, label: str) -> None:
        """Show that a stage of the search, or of what comes before or after it, begins."""
        self._show(self.bar.n, label)

    def found(self, n_found: int) -> None:
        """Show that so many searches have ended."""
        self._show(n_found * self.max_iter, f"search {n_found} of {self.n_searches}")

    def _show(self, n: int, text: str) -> None:
        self.bar.n = n
        self.bar.set_postfix_str(text)


class _Unfailing:
    """A stream that leaves out what it cannot write: a bar must not end the fit that it shows."""

    def __init__(self, stream: Any) -> None:
        # None in a process without a standard error.
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
    """Passes searches and their stages on to a progress bar and to scikit-learn's callbacks.

    Parameters
    ----------
    progress : Progress
        The bar.
    fit : Task
        The task of the fit.
    attributes : callable
        Makes the fitted attributes of a point.
    """

    def __init__(
        self, progress: Progress, fit: Task, attributes: Callable[[list[Matrix]], dict[str, Any]]
    ) -> None:
        self.progress = progress
        self.fit = fit
        self.attributes = attributes
        self.search: Task | None = None
        self.stage: Task | None = None
        self.begun = False
        self.n_found = 0

    def begin(self, label: str) -> None:
        """Pass on that a stage begins; with the first one of a search, the search."""
        self.progress.stage(label)
        if self.search is None:
            # Before it is: Ctrl-C may leave a part of which only scikit-learn knows.
            self.begun = True
            self.search = self.fit.part(f"search {self.n_found + 1}", None)
        self.stage = self.search.part(label)

    def visit(self, search: Search) -> None:
        """Pass on that a search has visited a point."""
        self.progress.look(self.n_found, search)

    def end(self, search: Search) -> bool:
        """Pass on that a stage has ended; return whether a callback asks to stop."""
        assert self.stage is not None
        return self.stage.end(search.log.last(), lambda: self._fitted(search.best()))

    def found(self, solution: Solution) -> bool:
        """Pass on that a search has ended; return whether a callback asks for no more."""
        self.n_found += 1
        if self.search is None:
            if self.begun:
                return False
            # It ran in another process, or there was nothing to search.
            self.progress.found(self.n_found)
            self.search = self.fit.part(f"search {self.n_found}", None)
        record = {"cost": solution.cost, "n_iter": solution.n_iter, "ending": solution.ending}
        stop = self.search.end(record, lambda: self._fitted(solution))
        self.search, self.begun = None, False
        return stop

    def _fitted(self, solution: Solution | Candidate | None) -> dict[str, Any]:
        assert solution is not None, "a stage has ended, so there is a point"
        return self.attributes(solution.point)
