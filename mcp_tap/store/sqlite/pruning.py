"""Deleting the oldest of a recording: by age, by size, a bounded part at a time.

The functions run in the thread of a connection that may write. `Pruner` is such a connection beside the one writer: it
gives rows no numbers, so it needs no right to them, and its transactions are short enough for a tap to wait for.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Final, TypeVar

from mcp_tap.store import Doomed
from mcp_tap.store.rows import iso, microseconds
from mcp_tap.store.sqlite import file, folding
from mcp_tap.store.sqlite.statements import transaction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_tap.store.sqlite.statements import Statements

T = TypeVar("T")

#: Rows of a timeline that one transaction deletes: a few milliseconds, in which nothing else is written.
_PART: Final = 5000
#: Pages of 8 kB that go back to the file system at a time: more than so many lines take.
_VACUUMED: Final = 2000

_OLD: Final = """
SELECT pk, time FROM timeline WHERE time < ? AND status IS NOT 'waiting_for_response' ORDER BY time, pk LIMIT ?
"""
_COUNT: Final = "SELECT count(*) FROM timeline WHERE time < ? AND status IS NOT 'waiting_for_response'"
#: About how many there are: counting millions would stop the writer for a while, and numbers have few gaps.
_LINES: Final = """
SELECT coalesce((SELECT max(pk) FROM timeline) - (SELECT min(pk) FROM timeline) + 1, 0)
"""
_LAST: Final = """
SELECT time FROM timeline WHERE status IS NOT 'waiting_for_response' ORDER BY time LIMIT 1 OFFSET max(?, 1) - 1
"""
_EMPTY: Final = """
SELECT pk FROM connection WHERE last_active < ? AND status = 'ended'
    AND NOT EXISTS (SELECT 1 FROM timeline WHERE timeline.connection = connection.pk) LIMIT ?
"""
_EMPTY_SESSIONS: Final = """
SELECT pk FROM session WHERE created < ?
    AND NOT EXISTS (SELECT 1 FROM connection WHERE connection.session = session.pk) LIMIT ?
"""
_PRUNED_BEFORE: Final = "UPDATE store SET pruned_before = max(?, coalesce(pruned_before, ''))"
#: After every time that can be written.
_NEVER: Final = "9999"


def prune(db: sqlite3.Connection, before: str) -> int:
    """Delete lines that are older; return how many went. What they leave empty goes with the next call."""
    old = db.execute(_OLD, (before, _PART)).fetchall()
    return _delete(db, old, before)


def prune_to(db: sqlite3.Connection, size: int) -> int:
    """Delete as many of the oldest lines as the rows are too large by, on average; return how many went."""
    count = _excess(db, size)
    old = db.execute(_OLD, (_NEVER, min(count, _PART - 1))).fetchall() if count else []
    # where no line goes any more, what the last ones left empty does
    before = old[-1][1] if old else db.execute("SELECT coalesce(pruned_before, '') FROM store").fetchone()[0]
    return _delete(db, old, before)


def _excess(db: sqlite3.Connection, size: int) -> int:
    """Return how many lines are too many, if all take the same room."""
    used = (_pragma(db, "page_count") - _pragma(db, "freelist_count")) * _pragma(db, "page_size")
    if used <= size:
        return 0
    lines: int = db.execute(_LINES).fetchone()[0]
    return max(1, (used - size) * lines // used)


def _delete(db: sqlite3.Connection, old: list[tuple[int, str]], before: str) -> int:
    numbers = [(pk,) for pk, _ in old]
    work: Statements = [
        ("DELETE FROM body WHERE timeline = ?", numbers),
        ("DELETE FROM timeline WHERE pk = ?", numbers),
    ]
    if old:
        # what began in the very millisecond of the last line that goes is not whole any more either
        work += [(_PRUNED_BEFORE, [(before,)]), *folding.undone_before(microseconds(before) + 1000)]
    if len(old) < _PART:
        empty = db.execute(_EMPTY, (before, _PART)).fetchall()
        work += [("DELETE FROM tool_seen WHERE connection = ?", empty), ("DELETE FROM connection WHERE pk = ?", empty)]
    transaction(db, work)
    if len(old) < _PART:
        sessions = db.execute(_EMPTY_SESSIONS, (before, _PART)).fetchall()
        transaction(db, [("DELETE FROM session WHERE pk = ?", sessions)])
    _vacuum(db)
    return len(old)


def _vacuum(db: sqlite3.Connection) -> int:
    free = _pragma(db, "freelist_count")
    if not free:
        return 0
    db.executescript(f"PRAGMA incremental_vacuum({_VACUUMED})")  # execute() would free a single page
    return free - _pragma(db, "freelist_count")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    number: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return number


# ------------------------------------------------------------------------------------------------ beside the writer


class Pruner:
    """Deleting from a recording that another process may be writing, as `mcp_tap.store.Pruner` describes it."""

    def __init__(self, path: Path, thread: file.Thread) -> None:
        self._path = path
        self._thread = thread

    @classmethod
    async def open(cls, path: Path) -> Pruner:
        """Open the recording at ``path``; raise StoreError when that is not possible."""
        thread = file.Thread(lambda: file.connect_beside(path))
        await thread.open()
        return cls(path, thread)

    async def size(self) -> int:
        """Return how many bytes the files of the recording take."""
        return await asyncio.to_thread(file.size, self._path)

    async def older(self, before_us: int) -> Doomed:
        """Say what `prune` would delete, all in all."""
        return await self._run("read", lambda db: _doomed(db, db.execute(_COUNT, (iso(before_us),)).fetchone()[0]))

    async def beyond(self, size: int) -> Doomed:
        """Say what `prune_to` would delete, about, all in all."""
        return await self._run("read", lambda db: _doomed(db, _excess(db, size)))

    async def prune(self, before_us: int) -> int:
        """Delete lines that are older, a bounded part; see `mcp_tap.store.Writer`."""
        return await self._run("pruned", lambda db: prune(db, iso(before_us)))

    async def prune_to(self, size: int) -> int:
        """Delete the oldest lines while the recording is larger, a bounded part; see `mcp_tap.store.Writer`."""
        return await self._run("pruned", lambda db: prune_to(db, size))

    async def vacuum(self) -> int:
        """Give free pages back to the file system, a bounded part; return how many went."""
        return await self._run("pruned", _vacuum)

    async def close(self) -> None:
        """Move what was written from the log into the file, as far as others let it, and let go of it."""
        try:
            # not TRUNCATE: it would keep a tap from writing while it waits for readers
            await self._run("pruned", lambda db: db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())
        finally:
            await self._thread.close()

    async def _run(self, verb: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._thread.run(work)
        except sqlite3.Error as error:
            raise file.explain(error, self._path, verb) from error


def _doomed(db: sqlite3.Connection, count: int) -> Doomed:
    last = db.execute(_LAST, (count,)).fetchone() if count else None
    return Doomed(count, last[0] if last else None)
