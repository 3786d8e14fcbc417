"""What the tests of the store share: a recording in a directory, and rows of every variety."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from mcp_tap.model import Batch, Connection, Event, Kind, Origin
from mcp_tap.store import Reader, Writer, open_reader, open_writer

T = TypeVar("T")

#: 14 March 2026, 10:08:44.998 UTC.
T0 = 1_773_482_924_998_000


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[Writer]:
    writer = await open_writer(f"sqlite:///{path}")
    try:
        yield writer
    finally:
        await writer.close()


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[Reader]:
    reader = await open_reader(f"sqlite:///{path}")
    try:
        yield reader
    finally:
        await reader.close()


def record(path: Path, *batches: Batch) -> None:
    """Write batches the way a whole run of the tap does."""

    async def work() -> None:
        async with writing(path) as writer:
            for batch in batches:
                await writer.write(batch)

    run(work())


def select(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Ask the file itself, without any of our code between."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql, values).fetchall()
    finally:
        db.close()


def connection(number: int = 1, **values: Any) -> Connection:
    given: dict[str, Any] = {
        "id": f"scn_{number:026d}",
        "session_id": f"ses_{number:026d}",
        "origin": Origin.HEADER,
        "created_us": T0 + number,
        "upstream": "http://127.0.0.1:9000/mcp",
        "last_active_us": T0 + number,
    }
    return Connection(**(given | values))


def event(of: Connection | None, at_us: int = T0, **values: Any) -> Event:
    if of is not None:
        of.seq += 1
    given: dict[str, Any] = {"kind": Kind.REQUEST, "type": "tools/call", "seq": 0 if of is None else of.seq}
    return Event(at_us=at_us, connection=of, **(given | values))
