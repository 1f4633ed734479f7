"""Writing a report: the values of its sections, in the template of the page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from jacrot._estimators.base import NetworkEstimator
from jacrot._io.files import atomic_write
from jacrot._utils.optional import import_optional
from jacrot._utils.text import escape_control_characters
from jacrot.inspection import AxisStability, NullBaseline
from jacrot.inspection._comparison import Comparison
from jacrot.report._sections import (
    FilePath,
    compare_bases,
    compare_refits,
    compare_with_nulls,
    describe_fit,
    draw_jacobians,
    draw_search,
    list_sources,
)


def write_report(
    path: str | os.PathLike[str],
    estimator: NetworkEstimator,
    X_test: ArrayLike,
    comparison: Comparison,
    *,
    title: str = "A rotation",
    null: NullBaseline | None = None,
    stability: AxisStability | None = None,
    files: Mapping[str, FilePath | tuple[FilePath, str]] | None = None,
    command: str | None = None,
    code: str | None = None,
    messages: Sequence[str] = (),
) -> None:
    """Write a report on a fit as one HTML file, which a browser opens.

    The file appears whole or not at all. The page loads nothing and runs nothing, and shows names
    that come from files as text.

    Parameters
    ----------
    path : str or path-like
        File to write.
    estimator : JacobianSparsityRotation or NetworkRotation
        Estimator fitted to one network.
    X_test : array-like of shape (n_test_samples, n_features)
        Held-out inputs, at which the Jacobians are drawn.
    comparison : Comparison
        Return value of :func:`compare`.
    title : str, default="A rotation"
        Title of the report, such as the name of what was rotated.
    null : NullBaseline, default=None
        Return value of :func:`jacrot.inspection.null_baseline`. If ``None``, the report says that
        it is missing.
    stability : AxisStability, default=None
        Return value of :func:`jacrot.inspection.axis_stability`. If ``None``, the report says that
        it is missing.
    files : mapping of str to path-like or (path-like, str), default=None
        Files that were read, by their role. Each is listed with its SHA-256: the second entry of
        the tuple, or the hash of the file as it is now.
    command : str, default=None
        Command that repeats the fit.
    code : str, default=None
        Python code that continues from the fit.
    messages : sequence of str, default=()
        Warnings of the run.

    Raises
    ------
    ImportError
        If jinja2 is not installed; ``pip install 'jacrot[cli]'`` installs it.
    OSError
        If the file cannot be written; see :meth:`jacrot.Network.save`.
    ValueError
        If `path` is a folder, a device or a pipe.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from jacrot import JacobianSparsityRotation
    >>> from jacrot.datasets import make_planted_problem
    >>> from jacrot.report import compare, write_report
    >>> problem = make_planted_problem(8, 16, density=0.2, random_state=0)
    >>> X, X_test = problem.X[:200], problem.X[200:]
    >>> rotation = JacobianSparsityRotation(problem.network, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "report.html"
    ...     write_report(path, rotation, X_test, compare(rotation, X, X_test))
    ...     path.read_text()[:15]
    '<!doctype html>'
    """
    template = _load_template()
    segments = estimator.rotated_segments(X_test)
    page = template.render(
        title=title,
        messages=messages,
        comparison=comparison,
        fit=describe_fit(estimator, segments),
        bases=compare_bases(comparison),
        jacobians=draw_jacobians(segments),
        null=compare_with_nulls(null),
        stability=compare_refits(stability),
        search=draw_search(estimator),
        code=code,
        command=command,
        sources=list_sources(estimator, segments[0].segment.activations, files or {}),
    )
    with atomic_write(path) as file:
        file.write(page.encode())


def _load_template() -> Any:
    """Load the template of the page, in an environment that escapes all values."""
    jinja2 = import_optional("jinja2", caller="write_report", extra="cli")
    markup = import_optional("markupsafe", caller="write_report", extra="cli").Markup

    def show(value: Any) -> Any:
        """Write out characters that a page would hide, but for line breaks."""
        # What the template's own macros return is markup.
        if isinstance(value, markup):
            return value
        return "\n".join(map(escape_control_characters, str(value).split("\n")))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jacrot.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=show,
        keep_trailing_newline=True,
    )
    # Numbers are formatted as Python does: {{ 0.1234|number(".3f") }}.
    environment.filters["number"] = format
    return environment.get_template("report.html.jinja")
