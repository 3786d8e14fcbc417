"""Reading a recording, while it is being written or long after."""

from __future__ import annotations

import asyncio
import difflib
import re
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from mcp_tap.model import NotFoundError, StoreError, UsageError, hash_session_id
from mcp_tap.store import Row, Summary, Table, queries
from mcp_tap.store.operations import Span, times
from mcp_tap.store.rows import DIGITS, iso, number_id
from mcp_tap.store.sqlite import file

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: How many sessions or events an ambiguous reference lists.
_CANDIDATES: Final = 8

#: SQLite's virtual machine asks for the time every so many instructions: about every 10 µs.
_INSTRUCTIONS: Final = 1000

#: Bytes of one value, so that a query cannot ask for all memory at once. Far above any stored body.
_LENGTH: Final = 64 * 1000 * 1000

#: What a query of the user's own may do. A pragma only without an argument, or about one table.
_ALLOWED: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS: Final = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)


class Reader:
    """A recording to read, as `mcp_tap.store.Reader` describes it."""

    def __init__(self, path: Path, thread: file.Thread) -> None:
        self._path = path
        self._thread = thread
        self._closed = False
        self._session_key = b""
        self.replica = ""

    @classmethod
    async def open(cls, path: Path) -> Reader:
        """Open the recording at ``path``; raise StoreError when that is not possible."""
        thread = file.Thread(lambda: file.connect_readonly(path))
        await thread.open()
        reader = cls(path, thread)
        try:
            store = await reader._one("SELECT replica, session_key FROM store")
        except BaseException:
            await reader.close()
            raise
        reader.replica, reader._session_key = store["replica"], store["session_key"]
        return reader

    async def summary(self) -> Summary:
        """Count what there is."""
        row = await self._one(queries.SUMMARY)
        files = (self._path, Path(f"{self._path}-wal"))
        size = await asyncio.to_thread(lambda: sum(each.stat().st_size for each in files if each.exists()))
        return Summary(row["sessions"], row["active"], row["events"], size)

    async def sessions(self, *, since: int | None = None, limit: int = 50) -> list[Row]:
        """Return rows of the view `sessions`, newest first."""
        if since is None:
            return await self._all(queries.SESSIONS, limit=limit)
        return await self._all(queries.SESSIONS_SINCE, since=iso(since), limit=limit)

    async def session(self, ref: str) -> Row:
        """Return one row of the view `sessions`."""
        number = _number(ref)
        if number is not None and (rows := await self._all(queries.SESSION, pk=number)):
            return rows[0]
        found = await self._all(
            queries.SESSIONS_NAMED,
            ref=ref,
            end=ref + "\U0010ffff",
            hashed=hash_session_id(ref, self._session_key),
            limit=_CANDIDATES + 1,
        )
        best = {row["pk"]: row["name"] for row in found if row["rank"] == found[0]["rank"]}
        if not ref or not best:
            raise NotFoundError(f'no session "{ref}"', hint="list them:  mcp-tap sessions")
        if len(best) > 1:
            raise _ambiguous(ref, "sessions", list(best.values()))
        return await self._one(queries.SESSION, pk=next(iter(best)))

    async def events(
        self, *, session: str | None = None, since: int | None = None, limit: int = 200, newest: bool = False
    ) -> list[Row]:
        """Return rows of the view `events` in the order of time; ``session`` is a connection_id."""
        query = queries.EVENTS[session is not None, newest]
        values: dict[str, Any] = {"since": "" if since is None else iso(since), "limit": limit}
        if session is not None:
            values["session"] = session
        rows = await self._all(query, **values)
        return rows[::-1] if newest else rows

    async def event(self, ref: str) -> Row:
        """Return one row of the view `events` with everything else that is known of it."""
        pk = await self._event_pk(ref)

        def read(db: sqlite3.Connection) -> Row | None:
            rows = _rows(db, queries.EVENT, pk=pk)
            if not rows:
                return None
            row = rows[0] | _rows(db, queries.EVENT_DETAILS, pk=pk)[0]
            row["sse_events"] = orjson.loads(row["sse_events"] or "[]")
            spans = [Span(**span) for span in _rows(db, queries.OPERATION, pk=row.pop("operation_pk"))]
            row["operation"] = times(spans)._asdict() if len(spans) > 1 else None
            row["request_body"] = row["response_body"] = None
            for body in _rows(db, queries.BODIES, pk=pk):
                row[f"{body.pop('side')}_body"] = body
            return row

        row = await self._run(read)
        if row is None:
            raise _no_event(ref)
        return row

    async def changes(self, after: int, limit: int = 500) -> tuple[list[Row], int]:
        """Return the rows of `events` inserted or updated after a change number, and the number to go on from."""
        rows = await self._all(queries.CHANGES, after=after, limit=limit)
        return rows, rows[-1]["change"] if rows else after

    async def query(self, sql: str, *, limit: int = 1000, seconds: float = 5.0) -> Table:
        """Run one read-only statement of the user's, bounded in rows and in time.

        It has a connection and a thread of its own, so that a slow one delays no page.
        """
        return await asyncio.to_thread(_query, self._path, sql, limit, seconds)

    async def close(self) -> None:
        """Let go of the store."""
        if not self._closed:
            self._closed = True
            await self._thread.close()

    async def _event_pk(self, ref: str) -> int:
        number = _number(ref)
        if number is not None:
            return number
        for prefix in (f"sev_{self.replica}", f"smg_{self.replica}"):
            digits = ref.removeprefix(prefix)
            if ref.startswith(prefix) and len(digits) <= DIGITS and (digits.isdecimal() or not digits):
                break
        else:
            raise _no_event(ref)
        found = await self._all(
            queries.EVENTS_NUMBERED,
            first=int(digits.ljust(DIGITS, "0")),
            last=int(digits.ljust(DIGITS, "9")),
            limit=_CANDIDATES + 1,
        )
        if not found:
            raise _no_event(ref)
        if len(found) > 1:
            raise _ambiguous(ref, "events", [number_id(ref[:4], self.replica, row["pk"]) for row in found])
        pk: int = found[0]["pk"]
        return pk

    async def _one(self, sql: str, **values: Any) -> Row:
        rows = await self._all(sql, **values)
        if not rows:
            raise NotFoundError(f"{self._path} has lost a row that was there a moment ago")
        return rows[0]

    async def _all(self, sql: str, **values: Any) -> list[Row]:
        return await self._run(lambda db: _rows(db, sql, **values))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreError(f"{self._path} cannot be read: it is closed")
        try:
            return await self._thread.run(work)
        except sqlite3.Error as error:
            raise file.explain(error, self._path, "read") from error


def _rows(db: sqlite3.Connection, sql: str, **values: Any) -> list[Row]:
    cursor = db.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


# ----------------------------------------------------------------------------------------------------- references


def _number(ref: str) -> int | None:
    """Return the number of `#12` or `12`, None for anything else; what no row can have is nobody's number."""
    digits = ref.removeprefix("#")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= DIGITS else None


def _no_event(ref: str) -> NotFoundError:
    return NotFoundError(f'no event "{ref}"', hint="list them:  mcp-tap session ID")


def _ambiguous(ref: str, what: str, names: list[str]) -> UsageError:
    shown = names[:_CANDIDATES]
    more = ["…"] if len(names) > _CANDIDATES else []
    return UsageError(f'"{ref}" fits several {what}', hint="\n".join([*shown, *more]), code="ambiguous")


# ------------------------------------------------------------------------------------------- the user's own query


def _query(path: Path, sql: str, limit: int, seconds: float) -> Table:
    db = file.connect_readonly(path)
    late = False

    def out_of_time() -> bool:
        nonlocal late
        late = time.monotonic() > deadline
        return late

    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH)
        db.set_authorizer(_authorize)
        deadline = time.monotonic() + seconds
        db.set_progress_handler(out_of_time, _INSTRUCTIONS)
        cursor = db.execute(sql)
        if cursor.description is None:
            raise UsageError("there is no statement that asks for anything", hint="try:  SELECT * FROM sessions")
        rows = cursor.fetchmany(limit + 1)
        return Table([column[0] for column in cursor.description], rows[:limit], more=len(rows) > limit)
    except (sqlite3.Error, sqlite3.Warning) as error:
        db.set_progress_handler(None, 0)
        db.set_authorizer(None)
        raise _explain_query(db, path, sql, error, seconds if late else None) from error
    finally:
        db.close()


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _ALLOWED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second != "load_extension":
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and (second is None or first in _PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _explain_query(
    db: sqlite3.Connection, path: Path, sql: str, error: Exception, seconds: float | None
) -> StoreError | UsageError:
    """Return what went wrong with the user's statement: what, where, and what to do."""
    if seconds is not None:
        return StoreError(
            f"the query took longer than {seconds:g} s and was stopped",
            hint="narrow it down:  … WHERE time >= '2026-01-31T10:00'  or  WHERE connection_id = '…'",
            code="query_timeout",
        )
    code = getattr(error, "sqlite_errorcode", None)
    text = str(error)
    if code == sqlite3.SQLITE_AUTH or "not authorized" in text or "prohibited" in text:
        return UsageError(
            "only reading is possible here", hint="write SELECT, WITH … SELECT, or EXPLAIN", code="query_readonly"
        )
    if "one statement at a time" in text:
        return UsageError("only one statement at a time", hint="run them one after the other", code="query")
    if code is None or code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH):
        return UsageError(text, hint=_where(db, sql, text), code="query")
    assert isinstance(error, sqlite3.Error)
    return file.explain(error, path, "read")


def _where(db: sqlite3.Connection, sql: str, text: str) -> str:
    """Return the line of the statement that an error names, and the name that was probably meant."""
    hints = []
    near = re.search(r'near "(.*)": syntax error', text)
    unknown = re.search(r"no such (column|table|function): (\S+)", text)
    name = (near and near[1]) or (unknown and unknown[2])
    if name:
        lines = [(number, line) for number, line in enumerate(sql.splitlines(), 1) if name in line]
        hints += [f"line {number}: {line.strip()}" for number, line in lines[:1]]
    if unknown and unknown[1] == "column":
        views = "SELECT name FROM pragma_table_info('sessions') UNION SELECT name FROM pragma_table_info('events')"
        hints += _meant(unknown[2], [row[0] for row in db.execute(views)])
    elif unknown and unknown[1] == "table":
        hints += _meant(unknown[2], [row[0] for row in db.execute("SELECT name FROM pragma_table_list")])
    return "\n".join(hints) or "the views are sessions and events:  mcp-tap sql  prints the tables"


def _meant(name: str, names: list[str]) -> list[str]:
    close = difflib.get_close_matches(name.rpartition(".")[2].strip('"'), names, n=2)
    return [f"did you mean {' or '.join(close)}?"] if close else []
