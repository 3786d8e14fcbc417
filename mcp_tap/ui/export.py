"""Events on their way to other programs: JSON Lines and CSV, of any number, without holding more than a page of them.

JSON Lines have every value as it is, one object for each event. CSV is RFC 4180 for spreadsheets, where text is shown
harmlessly (unprintable characters as escapes) and never becomes a formula: a cell that begins with =, +, -, @ or a tab
gets a ' in front, but for plain numbers.
"""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from mcp_tap.model import Event, Kind
from mcp_tap.store import Paging
from mcp_tap.store.rows import event_row
from mcp_tap.ui.text import harmless, json_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mcp_tap.store import Reader, Row
    from mcp_tap.store.filters import Filter

Format = Literal["jsonl", "csv"]

FORMATS: Final[tuple[str, ...]] = get_args(Format)

MEDIA_TYPES: Final[dict[Format, str]] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
}

#: Characters of an mcp-session-id that are shown: enough to find it in a log, too few to use it.
SHOWN: Final = 8

#: Events that are asked for at once.
_PAGE: Final = 500

#: The columns of CSV: those of the view `events`, then whose event it was.
_COLUMNS: Final = (*event_row(Event(Kind.HTTP, "http", 0), "00000"), "client_name", "client_version", "mcp_session_id")
_BODIES: Final = ("request_body", "response_body")

#: What a spreadsheet takes for a formula, and what is a number and none.
_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")


def shortened(row: Row) -> Row:
    """Return the row with the beginning of its mcp-session-id alone: possession of the whole may be access."""
    whole = row.get("mcp_session_id")
    return row | {"mcp_session_id": whole[:SHOWN]} if whole else row


async def events(
    reader: Reader, where: Filter, form: Format, *, bodies: bool = False, reveal: bool = False
) -> AsyncIterator[bytes]:
    """Yield every event that fits, in the order of time, in pieces of whole lines of UTF-8.

    ``bodies`` adds `request_body` and `response_body`: in JSON Lines objects of ``codec``, ``data``, ``masked``, in
    CSV the data. ``reveal`` writes mcp-session-ids whole.
    """
    columns = (*_COLUMNS, *(_BODIES if bodies else ()))
    if form == "csv":
        yield _csv([columns])
    after: str | None = None
    while True:
        page = await reader.list_events(where, Paging(limit=_PAGE, order="asc", after=after))
        rows = [row if reveal else shortened(row) for row in page.rows]
        if bodies:
            stored = await reader.bodies([row["pk"] for row in rows])
            rows = [row | stored[row["pk"]] for row in rows]
        if rows and form == "csv":
            yield _csv([[_cell(row[column]) for column in columns] for row in rows])
        elif rows:
            yield "".join(f"{json_line(row)}\n" for row in rows).encode()
        if not page.more_after or not rows:
            return
        after = rows[-1]["event_id"]


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue().encode(errors="replace")


def _cell(value: Any) -> Any:
    if isinstance(value, dict):  # a body
        value = value["data"]
    if not isinstance(value, str):
        return value
    formula = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    shown = "\n".join(map(harmless, value.split("\n")))
    return f"'{shown}" if formula else shown
