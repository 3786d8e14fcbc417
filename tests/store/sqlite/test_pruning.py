"""Deleting from a recording beside the one who writes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mcp_tap.model import Batch, Body, Codec, Connection, ConnectionStatus, Side, Status, StoreError
from mcp_tap.store import Pruner, open_pruner
from tests.store.recording import T0, connection, event, reading, record, run, select, writing

SECOND = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tap.db"


def big(of: Connection, lines: int, since_us: int = T0) -> Batch:
    """Lines a second apart, each with 2 kB of body."""
    events = [event(of, at_us=since_us + n * SECOND, status=Status.SUCCEEDED) for n in range(lines)]
    of.last_active_us = events[-1].at_us
    return Batch([of], events, [Body(each, Side.REQUEST, Codec.AS_SEEN, f'"{"x" * 2000}"') for each in events])


def opened(path: Path) -> object:
    async def work() -> None:
        await (await open_pruner(f"sqlite:///{path}")).close()

    return run(work())


def test_what_is_foretold_is_what_goes(path: Path) -> None:
    record(path, big(connection(), 100))

    async def work() -> None:
        pruner: Pruner = await open_pruner(f"sqlite:///{path}")
        doomed = await pruner.older(T0 + 40 * SECOND)
        assert doomed == (40, "2026-03-14T10:09:23.998Z")
        assert await pruner.prune(T0 + 40 * SECOND) == 40
        assert await pruner.older(T0 + 40 * SECOND) == (0, None)
        await pruner.close()

    run(work())
    assert select(path, "SELECT count(*), min(time) FROM timeline") == [(60, "2026-03-14T10:09:24.998Z")]
    assert select(path, "SELECT count(*) FROM body") == [(60,)]


def test_a_recording_shrinks_to_a_size(path: Path) -> None:
    record(path, big(connection(), 2000))
    target = 2_000_000

    async def work() -> tuple[int, int]:
        pruner = await open_pruner(f"sqlite:///{path}")
        assert await pruner.size() > 4_000_000
        doomed = await pruner.beyond(target)
        gone = 0
        while count := await pruner.prune_to(target):
            gone += count
        while await pruner.vacuum():
            pass
        await pruner.close()
        assert await pruner.size() <= target
        return doomed.lines, gone

    doomed, gone = run(work())
    assert abs(doomed - gone) < 200  # what is foretold is an estimate
    (left, oldest) = select(path, "SELECT count(*), min(pk) FROM timeline")[0]
    assert (left, oldest) == (2000 - gone, gone + 1)  # the oldest went


def test_lines_of_one_millisecond_do_not_stop_it(path: Path) -> None:
    one = connection()
    events = [event(one, at_us=T0, status=Status.SUCCEEDED) for _ in range(600)]
    record(path, Batch([one], events, [Body(each, Side.REQUEST, Codec.AS_SEEN, "x" * 3000) for each in events]))

    async def work() -> None:
        async with writing(path) as writer:
            while await writer.prune_to(1_000_000):
                pass

    run(work())
    assert path.stat().st_size <= 1_000_000
    assert select(path, "SELECT count(*) > 0 FROM timeline") == [(1,)]


def test_the_writer_goes_on_writing_what_was_taken_from_under_it(path: Path) -> None:
    """A session whose every line was pruned, itself among it, is used again: its row comes back, and no batch fails."""
    one = connection(status=ConnectionStatus.ENDED)

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(big(one, 10))
            pruner = await open_pruner(f"sqlite:///{path}")
            assert [await pruner.prune(T0 + 3600 * SECOND) for _ in range(2)] == [10, 0]
            await pruner.close()
            assert select(path, "SELECT (SELECT count(*) FROM connection), (SELECT count(*) FROM session)") == [(0, 0)]
            late = event(one, at_us=T0 + 60 * SECOND)
            await writer.write(Batch([one], [late]))
            async with reading(path) as reader:
                assert (await reader.session(one.id))["session_id"] == one.session_id

    run(work())


def test_pruning_and_writing_take_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tap.store.sqlite.pruning._PART", 200)
    one, two = connection(1), connection(2)

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(big(one, 3000))
            pruner = await open_pruner(f"sqlite:///{path}")

            async def delete() -> None:
                while await pruner.prune(T0 + 5000 * SECOND):
                    await asyncio.sleep(0)

            deleting = asyncio.create_task(delete())
            written = 0
            while not deleting.done() or not written:
                await writer.write(big(two, 5, T0 + 10_000 * SECOND + written * 5 * SECOND))
                written += 1
            await deleting
            await pruner.close()
            kept = select(path, "SELECT connection, count(*) FROM timeline GROUP BY connection")
            assert kept == [(2, 5 * written)]

    run(work())


def test_what_is_no_recording_is_refused_and_not_made(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no recording"):
        opened(path)
    assert not path.exists()
    path.write_text("something else")
    with pytest.raises(StoreError, match="is not a database"):
        opened(path)
    assert path.read_text() == "something else"
