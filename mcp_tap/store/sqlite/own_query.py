"""A statement of the user's own: read-only, bounded in rows and in time, and explained when it is wrong."""

from __future__ import annotations

import difflib
import re
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from mcp_tap.model import StoreError, UsageError
from mcp_tap.store import Table
from mcp_tap.store.sqlite import file

if TYPE_CHECKING:
    from pathlib import Path

#: SQLite's virtual machine asks for the time every so many instructions: about every 10 µs.
_INSTRUCTIONS: Final = 1000

#: Bytes of one value, so that a query cannot ask for all memory at once. Far above any stored body.
_LENGTH: Final = 64 * 1000 * 1000

#: What a query of the user's own may do. A pragma only without an argument, or about one table.
_ALLOWED: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS: Final = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)


def ask(path: Path, sql: str, limit: int, seconds: float) -> Table:
    """Return what the statement says of the recording at ``path``; see `mcp_tap.store.Reader.query`."""
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
