"""Base class of results, with a one-line finding and a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jacrot._utils.optional import import_optional

# Rows of a table that a notebook shows; ``to_frame`` returns all.
SHOWN_ROWS = 20


class Result(ABC):
    """Result of an inspection, with a sentence as its representation, and a table."""

    @abstractmethod
    def _finding(self) -> str:
        """Return the conclusion in one or two lines."""

    @abstractmethod
    def _table(self) -> Mapping[str, Sequence[Any]]:
        """Return the columns of the table by name, all of the same length."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._finding()})"

    def _repr_html_(self) -> str:
        table = self._table()
        rows = list(zip(*table.values(), strict=True))
        head = "".join(f"<th>{escape(name)}</th>" for name in table)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(_shown(cell))}</td>' for cell in row)}</tr>"
            for row in rows[:SHOWN_ROWS]
        )
        rest = f"<p>{SHOWN_ROWS} of {len(rows)} rows; to_frame() has all.</p>"
        return (
            f"<p><b>{type(self).__name__}</b>: {escape(self._finding())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{rest if len(rows) > SHOWN_ROWS else ''}"
        )

    def to_frame(self) -> Any:
        """Return the result as a table.

        Returns
        -------
        pandas.DataFrame
            The table.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        caller = f"{type(self).__name__}.to_frame"
        return import_optional("pandas", caller=caller, extra="pandas").DataFrame(
            dict(self._table())
        )


def _shown(cell: Any) -> str:
    return cell if isinstance(cell, str) else f"{cell:.4g}"
