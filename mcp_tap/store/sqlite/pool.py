"""The connections that a reader asks through: a few, so that a slow question holds up no other one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mcp_tap.model import StoreError
from mcp_tap.store.sqlite import file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mcp_tap.store import Row

T = TypeVar("T")

#: Questions that run at once. Opened as they are needed: a command asks one at a time.
_AT_ONCE: Final = 4

#: Seconds between two tries to stop a question that nobody waits for: one of several statements may be between two.
_AGAIN: Final = 0.02


class Pool:
    """Read-only connections to one recording, each with a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[file.Thread] = []
        self._all: list[file.Thread] = []
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._closed = False

    async def open(self) -> None:
        """Open the first connection; raise StoreError when that is not possible."""
        self._idle.append(await self._connect())

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns for one connection, in its thread, where it sees one state of the recording.

        When the caller is cancelled, so is the work. Raises StoreError.
        """
        async with self._free:
            if self._closed:
                raise StoreError(f"{self._path} cannot be read: it is closed")
            thread = self._idle.pop() if self._idle else await self._connect()
            running = asyncio.ensure_future(thread.run(lambda db: _in_one_state(db, work)))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                while not running.done():
                    thread.interrupt_now()
                    await asyncio.wait([running], timeout=_AGAIN)
                running.exception()
                raise
            except sqlite3.Error as error:
                raise file.explain(error, self._path, "read") from error
            finally:
                self._idle.append(thread)

    async def rest(self) -> None:
        """Give back the pages that idle connections keep in memory, up to 32 MB each."""
        for thread in [*self._idle]:
            with contextlib.suppress(sqlite3.Error, ValueError):  # the pool, or the file, was closed meanwhile
                await thread.run(lambda db: db.execute("PRAGMA shrink_memory").fetchone())

    async def close(self) -> None:
        """Wait for what is being asked, and let go of every connection."""
        self._closed = True
        for _ in range(_AT_ONCE):
            await self._free.acquire()
        for thread in self._all:
            await thread.close()
        self._all.clear()
        for _ in range(_AT_ONCE):
            self._free.release()

    async def _connect(self) -> file.Thread:
        thread = file.Thread(lambda: file.connect_readonly(self._path))
        await thread.open()
        self._all.append(thread)
        return thread


def _in_one_state(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN")
    try:
        return work(db)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def rows(db: sqlite3.Connection, sql: str, values: tuple[Any, ...] | dict[str, Any] = ()) -> list[Row]:
    """Return the rows of a statement by the names of their columns."""
    cursor = db.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
