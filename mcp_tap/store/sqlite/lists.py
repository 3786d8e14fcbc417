"""Lists and their pages. A page begins and ends at rows, not at counts: what is new neither shifts nor repeats one."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from mcp_tap.model import UsageError
from mcp_tap.store import COUNTED, SEARCHED, Page, Paging, Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite.pool import rows

if TYPE_CHECKING:
    from mcp_tap.store.conditions import Condition
    from mcp_tap.store.filters import Filter

_SIZE: Final = "timeline.request_bytes + timeline.response_bytes"
_LAST: Final = "coalesce(connection.ended_us, connection.last_active_us)"
_FIRST: Final = "coalesce(connection.started_us, connection.created_us)"

#: What lists can be sorted by; "" is time. Every key has a value in every row, so that it names a place.
EVENT_SORTS: Final = {
    "": "timeline.time",
    "time": "timeline.time",
    "latency_ms": "coalesce(timeline.duration_us, -1)",
    "size": f"({_SIZE})",
}
SESSION_SORTS: Final = {
    "": "connection.started",
    "started": "connection.started",
    "client_name": "lower(coalesce(connection.client_name, ''))",
    "duration_ms": f"max({_LAST} - {_FIRST}, 0)",
    "calls": "connection.calls",
    "errors": "connection.errors",
    "last_active": "connection.last_active",
}
_CONTEXT_SORTS: Final = {"": "session.created"}


class Listing(NamedTuple):
    """What one list is: its tables, the number of a row, its order, and what its rows have to fit."""

    source: str
    pk: str
    key: str  # what rows are ordered by, then by their number
    where: Condition


class _Place(NamedTuple):
    """A place in the order. That of a row which is gone lies right behind its neighbour, hence a half."""

    key: str | int
    pk: float


def page(db: sqlite3.Connection, listing: Listing, paging: Paging, place: _Place | None) -> tuple[list[int], Page]:
    """Return the numbers of the rows on a page, and the page without its rows."""
    forward = paging.after is not None or paging.before is None
    order = paging.order if forward else _turned(paging.order)
    found = _walk(db, listing, order, place, paging.limit + 1)
    more = len(found) > paging.limit
    # the row that was named counts among those on its other side
    behind = place is not None and bool(_walk(db, listing, _turned(order), place, 1, inclusive=True))
    found = found[: paging.limit]
    if not forward:
        found.reverse()
    complete = place is None and not more
    matched = len(found) if complete else _count(db, listing)
    return found, Page(
        [], more_before=behind if forward else more, more_after=more if forward else behind, matched=matched
    )


def _walk(
    db: sqlite3.Connection, listing: Listing, order: str, place: _Place | None, limit: int, *, inclusive: bool = False
) -> list[int]:
    source, pk, key, (where, values) = listing
    bound = ""
    if place is not None:
        bound = f" AND ({key}, {pk}) {'>' if order == 'asc' else '<'}{'=' if inclusive else ''} (?, ?)"
        values = (*values, *place)
    sql = f"SELECT {pk} FROM {source} WHERE {where}{bound} ORDER BY {key} {order}, {pk} {order} LIMIT ?"
    return [number for (number,) in db.execute(sql, (*values, limit))]


def _count(db: sqlite3.Connection, listing: Listing) -> int:
    where, values = listing.where
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {listing.source} WHERE {where} LIMIT ?)"
    count: int = db.execute(sql, (*values, COUNTED)).fetchone()[0]
    return count


def horizon(db: sqlite3.Connection, where: Filter, *, ranged: bool = True) -> str | None:
    """Return the time of the last line that is looked at, from the newest in range on; None where it is few lines."""
    since = where.since_us if ranged else None
    until = where.until_us
    bounds = ("" if since is None else iso(since), "~" if until is None else iso(until))
    row = db.execute(queries.HORIZON, (*bounds, SEARCHED)).fetchone()
    return row[0] if row else None


def _turned(order: str) -> str:
    return "desc" if order == "asc" else "asc"


def _place(db: sqlite3.Connection, listing: Listing, column: str, name: str | int, *, timely: bool) -> _Place:
    """Return where a row stands or, as far as the order is that of ids, where it stood.

    ``column`` holds the names of rows, ``timely`` says that the list has about the order of names.
    """
    select = f"SELECT {listing.key}, {listing.pk} FROM {listing.source} WHERE"
    if found := db.execute(f"{select} {column} = ?", (name,)).fetchone():
        return _Place(*found)
    if not timely:
        raise UsageError(
            "the row that this page begins at is gone", hint="begin again at the first page", code="cursor"
        )
    where, values = listing.where
    near = f"{column} < ? AND {where} ORDER BY {column} DESC LIMIT 1"
    if found := db.execute(f"{select} {near}", (name, *values)).fetchone():
        return _Place(found[0], found[1] + 0.5)
    kind = db.execute(f"SELECT typeof({listing.key}) FROM {listing.source} LIMIT 1").fetchone()
    return _Place("" if kind and kind[0] == "text" else -1, -1)


def _sorted_by(sorts: dict[str, str], sort: str) -> str:
    if sort not in sorts:
        there = ", ".join(name for name in sorts if name)
        raise UsageError(f'nothing can be sorted by "{sort}" here', hint=f"there is:  {there}", code="sort")
    return sorts[sort]


def _in_order(found: list[int], read: list[Row]) -> list[Row]:
    by_number = {row["pk"]: row for row in read}
    return [by_number[number] for number in found]


# ------------------------------------------------------------------------------------------------------- the lists


def sessions(db: sqlite3.Connection, where: Condition, paging: Paging) -> Page:
    """Return a page of connections."""
    key = _sorted_by(SESSION_SORTS, paging.sort)
    listing = Listing(queries.sessions(where[0]), "connection.pk", key, where)
    name = paging.before if paging.after is None else paging.after
    place = None
    if name is not None:
        if not name.startswith("scn_"):
            raise _no_place(name, "scn_…")
        place = _place(db, listing, "connection.id", name, timely=paging.sort in {"", "started"})
    found, empty = page(db, listing, paging, place)
    return empty._replace(rows=session_rows(db, found))


def session_rows(db: sqlite3.Connection, found: list[int]) -> list[Row]:
    """Return connections by their numbers, in that order."""
    read = rows(db, queries.SESSION_ROWS, (orjson.dumps(found).decode(),))
    for row in read:
        row["created"] = iso(row.pop("created_us"))
        row["updated"] = row["ended"] or row["last_active"]
        for name in ("client_capabilities", "server_capabilities", "tool_calls"):
            row[name] = _json(row[name])
    return _in_order(found, read)


def contexts(db: sqlite3.Connection, where: Condition, paging: Paging) -> Page:
    """Return a page of runtime contexts."""
    sql, values = where
    fits = (queries.CONTEXT_FITS.format(where=sql), values)
    listing = Listing(queries.CONTEXTS, "session.pk", _sorted_by(_CONTEXT_SORTS, paging.sort), fits)
    name = paging.before if paging.after is None else paging.after
    place = None
    if name is not None:
        if not name.startswith("ses_"):
            raise _no_place(name, "ses_…")
        place = _place(db, listing, "session.id", name, timely=True)
    found, empty = page(db, listing, paging, place)
    read = rows(db, queries.CONTEXT_ROWS, (orjson.dumps(found).decode(),))
    return empty._replace(rows=[_without_number(row) for row in _in_order(found, read)])


def events(
    db: sqlite3.Connection,
    where: Condition,
    paging: Paging,
    *,
    kinds: frozenset[str] | None,
    inside: list[int] | None,
    waiting: bool = False,
) -> Page:
    """Return a page of lines; ``inside`` are the numbers of the connections that they have to belong to.

    ``waiting`` says that the condition asks for calls without an answer.
    """
    sql, values = where
    key = _sorted_by(EVENT_SORTS, paging.sort)
    if inside is not None:
        sql += f" AND timeline.connection IN ({', '.join(map(str, inside))})"
        if len(inside) == 1 and paging.sort in {"", "time"}:
            key = "timeline.seq"
    if kinds is not None:
        sql += f" AND timeline.kind IN ({', '.join('?' * len(kinds))})"
        values = (*values, *sorted(kinds))
    source = queries.events(sql)
    if waiting:  # these are always few, which SQLite does not know: it would walk the whole range of time
        source = source.replace("timeline", "timeline INDEXED BY timeline_waiting", 1)
    listing = Listing(source, "timeline.pk", key, (sql, values))
    name = paging.before if paging.after is None else paging.after
    place = None
    if name is not None:
        number = re.fullmatch(r"s(?:mg|ev)_[0-9a-z]{5}(\d{12})", name)
        if number is None:
            raise _no_place(name, "smg_… or sev_…")
        place = _place(db, listing, "timeline.pk", int(number[1]), timely=paging.sort in {"", "time"})
    found, empty = page(db, listing, paging, place)
    return empty._replace(rows=event_rows(db, found))


def event_rows(db: sqlite3.Connection, found: list[int]) -> list[Row]:
    """Return lines by their numbers, in that order."""
    return _in_order(found, rows(db, queries.EVENT_ROWS, (orjson.dumps(found).decode(),)))


def _no_place(name: str, form: str) -> UsageError:
    return UsageError(f'"{name}" is not the id of a row in this list', hint=f"rows have ids like {form}", code="cursor")


def _without_number(row: Row) -> Row:
    del row["pk"]
    return row


def _json(text: Any) -> Any:
    """Return what JSON says, None where there is none that can be read."""
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
