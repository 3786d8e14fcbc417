"""Writing a recording: live rows in, one transaction a batch.

The numbers of rows (`pk`) and of writes (`change`) are counted in memory: there is one writer, and a lock sees to it.
A row keeps the number it was given even if its first write fails, and every write of a row is an upsert of all of
it, so a later write makes good for a lost one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import orjson

from mcp_tap.model import Connection, ConnectionState, ConnectionStatus, EndReason, Era, Origin, StoreError
from mcp_tap.store import queries
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite import file, folding, pruning, statements
from mcp_tap.store.sqlite.lines import body_statements, line_statements
from mcp_tap.store.sqlite.statements import transaction
from mcp_tap.store.sqlite.tallies import DAY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_tap.model import Batch
    from mcp_tap.store.sqlite.statements import Statements, Values

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds between checkpoints. With one each second a commit takes at most 9 ms; left to SQLite, up to 160 ms.
_CHECKPOINT: Final = 1.0

#: Seconds without a batch after which SQLite gives its pages back: up to 64 MB that were worth it under load.
_REST: Final = 5.0

#: Pages of 8 kB. A log that is longer than this after a checkpoint grows faster than it can be moved beside the writer.
_LONG_LOG: Final = 8000

#: How many small rows are remembered as stored, and how many connections as not stored, at most.
_REMEMBERED: Final = 10_000

_IDLE: Final = "SELECT pk FROM connection WHERE status = 'active' AND last_active < ? ORDER BY last_active"
#: Dated at the last activity, so that durations stay honest.
_END_IDLE: Final = """
UPDATE connection SET change = ?, status = 'ended', state = 'disconnected', end_reason = 'idle_timeout',
    ended_us = last_active_us, ended = last_active
WHERE pk = ? AND status = 'active' AND last_active < ?
"""

_WAITING: Final = "SELECT pk, at_us FROM timeline WHERE status = 'waiting_for_response' ORDER BY at_us, pk"
_ABANDON: Final = """
UPDATE timeline SET change = ?, status = 'failed', failure_reason = 'abandoned',
    message = 'the recording stopped before the answer was seen'
WHERE pk = ?
"""
_OPEN: Final = "SELECT pk FROM connection WHERE open_calls > 0 OR open_streams > 0"
_RESET: Final = "UPDATE connection SET change = ?, open_calls = 0, open_streams = 0 WHERE pk = ?"

#: A recorder that ends in order ends every connection. Those of the last one are among the newest.
_CUT: Final = """
SELECT max(last_active_us) FROM (SELECT status, last_active_us FROM connection ORDER BY last_active DESC LIMIT 1000)
WHERE status = 'active'
"""

_FOLDED_UNTIL: Final = "SELECT coalesce(max(start_us), 0) FROM folded"
_COUNTERS: Final = """
SELECT (SELECT coalesce(max(pk), 0) FROM connection), (SELECT coalesce(max(pk), 0) FROM timeline),
    max((SELECT coalesce(max(change), 0) FROM connection), (SELECT coalesce(max(change), 0) FROM timeline))
"""


class _Work(NamedTuple):
    """What writing a batch takes, and what is known once it is done."""

    statements: Statements
    known: set[tuple[str, str]]
    connections: dict[Connection, Values | None]  # what does not move of each, None where it ended


class Writer:
    """The one writer of a recording, as `mcp_tap.store.Writer` describes it."""

    def __init__(self, path: Path, lock: file.Lock, thread: file.Thread, checkpoints: file.Thread) -> None:
        self._path = path
        self._lock = lock
        self._thread = thread
        self._checkpoints = checkpoints
        self._written = asyncio.Event()  # since the last checkpoint
        self._checkpointing: asyncio.Task[None] | None = None
        self._closed = False
        self._known: set[tuple[str, str]] = set()  # (table, identity) of small rows that are surely stored
        self._fixed: dict[int, Values] = {}  # what is stored, of connections in use, that does not move
        self._unsaved: dict[Connection, None] = {}  # connections whose last write may have failed
        self._last_connection = self._last_event = self._last_change = 0
        self._folded_until = 0  # what is written before then may be counted ahead already
        self._late: set[tuple[str, int]] = set()  # spans into which something was written meanwhile
        self._files: dict[str, file.Identity] = {}  # what the names of the recording led to
        self.replica = ""
        self.session_key = b""
        self.cut_us: int | None = None
        self.abandoned = 0

    @classmethod
    async def open(cls, path: Path) -> Writer:
        """Open the recording at ``path``; raise StoreError when that is not possible."""
        lock = await asyncio.to_thread(file.prepare, path)
        threads = [file.Thread(lambda: file.connect(path)) for _ in range(2)]
        opened: list[file.Thread] = []
        try:
            for thread in threads:
                await thread.open()
                opened.append(thread)
            writer = cls(path, lock, *threads)
            await writer._run("opened", writer._take_over)
            writer._files = await asyncio.to_thread(file.identities, path)
        except BaseException:
            for thread in opened:
                await thread.close()
            lock.release()
            raise
        writer._checkpointing = asyncio.create_task(writer._checkpoint())
        return writer

    async def write(self, batch: Batch) -> None:
        """Write a batch in one transaction; see `mcp_tap.store.Writer`."""
        work = self._statements(batch)  # all of it before anything is awaited: rows are live
        try:
            await self._run("written", lambda db: _write(db, work.statements))
        except StoreError as error:
            if not isinstance(error.__cause__, sqlite3.IntegrityError):
                raise
            # pruning, here or in another process, took a row that was stored
            self._known.clear()
            self._fixed.clear()
            work = self._statements(batch)
            await self._run("written", lambda db: _write(db, work.statements))
        self._remember(work)
        self._written.set()

    def _remember(self, work: _Work) -> None:
        """Note what is stored now."""
        for kept in (self._known, self._fixed):
            if len(kept) > _REMEMBERED:
                kept.clear()
        self._known |= work.known
        for connection, fixed in work.connections.items():
            self._unsaved.pop(connection, None)
            if fixed is None:
                self._fixed.pop(connection.pk, None)
            else:
                self._fixed[connection.pk] = fixed

    async def recent(self, since_us: int, limit: int) -> list[Connection]:
        """Return what a late request may still belong to, newest first; see `mcp_tap.store.Writer`."""
        found = await self._run("read", lambda db: _rows(db, queries.RECENT, since=iso(since_us), limit=limit))
        return [_connection(row) for row in found]

    async def end_idle(self, before_us: int) -> int:
        """End what a dead recorder left active and nobody used since; see `mcp_tap.store.Writer`."""
        before = iso(before_us)
        idle = await self._run("read", lambda db: db.execute(_IDLE, (before,)).fetchall())
        ends = [(change, pk, before) for change, (pk,) in enumerate(idle, self._last_change + 1)]
        self._last_change += len(ends)
        await self._run("written", lambda db: _write(db, [(_END_IDLE, ends)]))
        return len(ends)

    async def prune(self, before_us: int) -> int:
        """Delete what is older, a bounded part at a time; see `mcp_tap.store.Writer`."""
        before = iso(before_us)
        pruned = await self._run("pruned", lambda db: pruning.prune(db, before))
        self._written.set()
        return pruned

    async def prune_to(self, size: int) -> int:
        """Delete the oldest, a bounded part at a time, while it takes more bytes; see `mcp_tap.store.Writer`."""
        pruned = await self._run("pruned", lambda db: pruning.prune_to(db, size))
        self._written.set()
        return pruned

    async def fold(self, now_us: int) -> int:
        """Count the calls of past hours and days ahead, a bounded part at a time; see `mcp_tap.store.Writer`."""
        self._folded_until = max(self._folded_until, now_us - folding.GRACE_US)
        self._late.clear()
        try:
            made = await self._checkpoints.run(lambda db: folding.folds(db, now_us))  # beside the writer
        except sqlite3.Error as error:
            raise file.explain(error, self._path, "read") from error
        # what was written into a span while it was counted is not in its figures
        work = folding.kept(fold for fold in made if (fold.span, fold.start_us) not in self._late)
        await self._run("written", lambda db: _write(db, work))
        return len(made)

    def moved(self) -> str | None:
        """Say what was deleted or replaced; see `mcp_tap.store.Writer`."""
        now = file.identities(self._path)
        for part, known in self._files.items():
            if now[part] != known:
                return f"{self._path}{part} was {'deleted' if now[part] is None else 'replaced'}"
        return None

    async def leave(self) -> None:
        """Let go of what was moved; see `mcp_tap.store.Writer`."""
        self._closed = True
        try:
            await self._thread.run(_passive_checkpoint)
        except sqlite3.Error as error:
            log.warning("%s: the last checkpoint failed: %s", self._path, error)
        await asyncio.to_thread(file.discard_log, self._path, self._files)
        self._lock.release()

    async def close(self) -> None:
        """Write the log back into the file and let go of it."""
        if self._closed:
            return
        self._closed = True
        if self._checkpointing is not None:
            self._checkpointing.cancel()
            await asyncio.wait([self._checkpointing])
        try:
            await self._thread.run(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
        except sqlite3.Error as error:  # nothing is lost: it stays in the -wal file
            log.warning("%s: the last checkpoint failed: %s", self._path, error)
        finally:
            await self._checkpoints.close()
            await self._thread.close()
            self._lock.release()

    async def _run(self, verb: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreError(f"{self._path} cannot be {verb}: it is closed")
        try:
            return await self._thread.run(work)
        except sqlite3.Error as error:
            raise file.explain(error, self._path, verb) from error

    async def _checkpoint(self) -> None:
        """Move what was written from the log into the file, on a connection of its own beside the writer."""
        failing = False
        while True:
            try:
                async with asyncio.timeout(_REST):
                    await self._written.wait()
            except TimeoutError:
                await self._rest()
                await self._written.wait()
            self._written.clear()
            try:
                _, pages, _ = await self._checkpoints.run(_passive_checkpoint)
                if pages > _LONG_LOG:  # in the writer's own thread, between two writes, it comes to an end
                    await self._thread.run(_passive_checkpoint)
                failing = False
            except sqlite3.Error as error:
                if not failing:
                    log.warning("%s: checkpoint failed, the -wal file grows: %s", self._path, error)
                failing = True
            await asyncio.sleep(_CHECKPOINT)

    async def _rest(self) -> None:
        """Give memory back. What is known to be stored goes, too: each name of a session holds a page of Python's."""
        self._known.clear()
        for thread in (self._thread, self._checkpoints):
            try:
                await thread.run(lambda db: db.execute("PRAGMA shrink_memory").fetchone())
            except sqlite3.Error as error:
                log.warning("%s: SQLite keeps its memory: %s", self._path, error)

    # ----------------------------------------------------------------------------------------- from rows to values

    def _statements(self, batch: Batch) -> _Work:
        """Give every row its numbers, and return what to run."""
        connections = dict.fromkeys([*self._unsaved, *batch.connections])
        events = list(dict.fromkeys([*batch.events, *(body.event for body in batch.bodies if not body.event.pk)]))
        first = pk = self._last_event + 1
        for event in events:
            if not event.pk:
                event.pk, pk = pk, pk + 1
        self._last_event = pk - 1
        for event in events:  # grows: nothing may point to a row that has no number
            if event.connection is not None and not event.connection.pk:
                connections[event.connection] = None
            if event.operation is not None or event.parent is not None:
                for other in (event.operation, event.parent):
                    if other is not None and not other.pk:
                        other.pk = self._last_event = self._last_event + 1
                        events.append(other)
        for tool in batch.tools:
            if not tool.connection.pk:
                connections[tool.connection] = None

        surroundings = statements.Surroundings(self._known)
        new: list[Values] = []
        moved: list[Values] = []
        fixed: dict[Connection, Values | None] = {}
        change = self._last_change
        for connection in connections:
            if not connection.pk:
                connection.pk = self._last_connection = self._last_connection + 1
            connection.change = change = change + 1
            fixed[connection] = its = statements.fixed_values(connection)
            if self._fixed.get(connection.pk) == its:
                moved.append(statements.moved_values(connection, change))
            else:
                new.append(statements.connection_values(connection, change))
                surroundings.add(connection)
            if connection.status is ConnectionStatus.ENDED:
                fixed[connection] = None
        lines = line_statements(events, change, first)
        self._last_change = change + len(events)
        late = {event.at_us for event in events if event.at_us < self._folded_until and folding.counts(event)}
        spans = folding.spans_of(late)
        self._late |= spans
        for tool in batch.tools:
            surroundings.add_definition(tool)
        if len(self._unsaved) < _REMEMBERED:
            self._unsaved |= connections
        return _Work(
            [
                *surroundings.statements(),
                (statements.CONNECTION, new),
                (statements.CONNECTION_MOVED, moved),
                *lines,
                *body_statements(batch.bodies, first),
                (statements.TOOL_SEEN, [statements.seen_values(tool) for tool in batch.tools]),
                *folding.undone(spans),
            ],
            surroundings.added,
            fixed,
        )

    # -------------------------------------------------------------------------------------------- after a restart

    def _take_over(self, db: sqlite3.Connection) -> None:
        """Read where the counters stand, and close what the recorder before this one left open."""
        self.replica, self.session_key = db.execute("SELECT replica, session_key FROM store").fetchone()
        self._last_connection, self._last_event, change = db.execute(_COUNTERS).fetchone()
        self.cut_us = db.execute(_CUT).fetchone()[0]
        waiting = db.execute(_WAITING).fetchall()
        abandoned: list[Values] = [(number, pk) for number, (pk, _) in enumerate(waiting, change + 1)]
        change += len(abandoned)
        reset: list[Values] = [(number, pk) for number, (pk,) in enumerate(db.execute(_OPEN), change + 1)]
        self._last_change = change + len(reset)
        late = folding.spans_of(at_us for _, at_us in waiting)
        _write(db, [(_ABANDON, abandoned), (_RESET, reset), *folding.undone(late)])
        self._folded_until = db.execute(_FOLDED_UNTIL).fetchone()[0] + DAY
        self.abandoned = len(abandoned)


# ------------------------------------------------------------------------------------------------- in the thread


def _write(db: sqlite3.Connection, work: Statements) -> None:
    """Run all of it in one transaction, all of them or none."""
    try:
        transaction(db, work)
    except (UnicodeEncodeError, OverflowError):
        # A lone surrogate in a JSON string, a number beyond 64 bits: what no database takes must not cost the batch.
        transaction(db, [(sql, [tuple(map(_storable, row)) for row in rows]) for sql, rows in work])


def _passive_checkpoint(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Return whether it was blocked, the pages in the log, and how many of them are in the file now."""
    row: tuple[int, int, int] = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return row


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**63 - 1))
    return value


def _rows(db: sqlite3.Connection, sql: str, **values: Any) -> list[dict[str, Any]]:
    cursor = db.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _connection(row: dict[str, Any]) -> Connection:
    """Return the live object of a stored row."""
    same = (
        "id session_id created_us pk change origin_note mcp_session_id protocol_version transport client_name"
        " client_version client_capabilities client_address user_agent server_name server_version"
        " server_capabilities instructions started_us last_active_us ended_us messages calls open_calls errors"
        " dropped truncated open_streams request_bytes response_bytes replaces"
    )
    return Connection(
        **{name: row[name] for name in same.split()},
        origin=Origin(row["origin"]),
        era=row["era"] and Era(row["era"]),
        upstream=row["upstream"],
        status=ConnectionStatus(row["status"]),
        state=ConnectionState(row["state"]),
        end_reason=row["end_reason"] and EndReason(row["end_reason"]),
        seq=max(row["seq"], row["last_seq"] or 0),
        tools=orjson.loads(row["tools"]),
    )
