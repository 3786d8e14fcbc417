"""Short lists in the order that a reader asks for: some hundred rows, sorted where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mcp_tap.store import Paging, Row


class Column(NamedTuple):
    """One column of a table of figures."""

    label: str
    sort: str = ""  # the word for it in a URL; "" is the order that the list has by itself
    value: Callable[[Row], Any] | None = None  # what it is sorted by; None for a column that sorts nothing
    number: bool = False  # set to the right, largest first
    hint: str = ""
    room: str = ""  # "spare" leaves it out of windows of medium width; folded rows have it again


def words(columns: Sequence[Column]) -> list[str]:
    """Return what a URL may say after `sort=`."""
    return [column.sort for column in columns if column.value and column.sort]


def ranked(rows: list[Row], columns: Sequence[Column], paging: Paging) -> list[Row]:
    """Return the rows in the order of ``paging``; what is not known stands last in both directions."""
    column = next((column for column in columns if column.sort == paging.sort and column.value), None)
    if column is None or column.value is None:
        return rows
    value = column.value
    known = [(_comparable(of), row) for row in rows if (of := value(row)) is not None]
    unknown = [row for row in rows if value(row) is None]
    known.sort(key=lambda each: each[0], reverse=paging.order == "desc")
    return [row for _, row in known] + unknown


def _comparable(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
