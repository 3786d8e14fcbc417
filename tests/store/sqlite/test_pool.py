from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_tap.model import Batch, StoreError
from mcp_tap.store.sqlite.pool import Pool

from ..recording import connection, event, record, run, writing

#: Runs until somebody stops it.
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    one = connection()
    record(tmp_path / "tap.db", Batch([one], [event(one)]))
    return tmp_path / "tap.db"


def endless(begun: threading.Event) -> Callable[[sqlite3.Connection], object]:
    def work(db: sqlite3.Connection) -> object:
        begun.set()
        return db.execute(ENDLESS).fetchone()

    return work


async def counted(pool: Pool) -> int:
    count: int = await pool.run(lambda db: db.execute("SELECT count(*) FROM timeline").fetchone()[0])
    return count


def test_a_slow_question_holds_up_no_other(path: Path) -> None:
    async def work() -> None:
        pool = Pool(path)
        await pool.open()
        begun = [threading.Event() for _ in range(3)]
        slow = [asyncio.create_task(pool.run(endless(each))) for each in begun]
        await asyncio.to_thread(lambda: [each.wait() for each in begun])
        assert await counted(pool) == 1
        for task in slow:
            task.cancel()
        await asyncio.wait(slow)
        assert all(task.cancelled() for task in slow)
        # what was stopped can be asked again
        assert await asyncio.gather(*(counted(pool) for _ in range(20))) == [1] * 20
        await pool.close()

    run(work())


def test_a_question_sees_one_state_of_the_recording(path: Path) -> None:
    async def work() -> None:
        async with writing(path) as writer:
            pool = Pool(path)
            await pool.open()
            first, written = threading.Event(), threading.Event()

            def twice(db: sqlite3.Connection) -> list[int]:
                before = db.execute("SELECT count(*) FROM timeline").fetchone()[0]
                first.set()
                written.wait()
                return [before, db.execute("SELECT count(*) FROM timeline").fetchone()[0]]

            asking = asyncio.create_task(pool.run(twice))
            await asyncio.to_thread(first.wait)
            one = connection(2)
            await writer.write(Batch([one], [event(one)]))  # a reader holds no writer up
            written.set()
            assert await asking == [1, 1]
            assert await counted(pool) == 2
            await pool.close()

    run(work())


def test_a_closed_pool_says_so(path: Path) -> None:
    async def work() -> None:
        pool = Pool(path)
        await pool.open()
        asking = asyncio.create_task(counted(pool))
        await asyncio.sleep(0)
        await pool.close()
        assert await asking == 1  # what was asked before is answered
        with pytest.raises(StoreError, match="closed"):
            await counted(pool)
        await pool.close()

    run(work())


def test_connections_at_rest_give_their_pages_back(path: Path) -> None:
    async def work() -> None:
        pool = Pool(path)
        await pool.open()
        told: list[str] = []
        together = threading.Barrier(2)

        def watched(db: sqlite3.Connection) -> None:
            together.wait()
            db.set_trace_callback(told.append)

        await asyncio.gather(pool.run(watched), pool.run(watched))
        told.clear()
        await pool.rest()
        assert told == ["PRAGMA shrink_memory"] * 2
        assert await counted(pool) == 1
        await pool.close()
        await pool.rest()

    run(work())
