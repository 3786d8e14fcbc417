"""What the recorder does beside recording: tending the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest

from mcp_tap import recorder
from mcp_tap.model import Batch, Body, Codec, Side, Status, StoreError
from mcp_tap.store import Writer
from tests.store.recording import T0, connection, event, run, select, writing

MINUTE = 60_000_000
DAY = 1440 * MINUTE


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEND_EVERY", "SIZE_EVERY", "TEND_PAUSE"):
        monkeypatch.setattr(recorder, name, 0.01)


async def tended(writer: Writer, until: asyncio.Event, *, keep_us: int | None, max_size: int | None) -> None:
    """Tend a store until something is the case."""
    tending = asyncio.create_task(recorder.tend(writer, now_us=lambda: T0 + DAY, keep_us=keep_us, max_size=max_size))
    async with asyncio.timeout(30):
        await until.wait()
    tending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await tending


def test_what_is_too_old_and_too_much_goes_and_the_past_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    one = connection()
    events = [event(one, at_us=T0 + n * MINUTE, status=Status.SUCCEEDED, duration_us=1000) for n in range(1000)]
    events.append(event(one, at_us=T0 - 20 * DAY, status=Status.SUCCEEDED, duration_us=1000))
    bodies = [Body(each, Side.REQUEST, Codec.AS_SEEN, "x" * 3000) for each in events]

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(Batch([one], events, bodies))
            done, fold = asyncio.Event(), writer.fold

            async def folded(now_us: int) -> int:
                spans = await fold(now_us)
                if not spans and not await writer.prune_to(1_500_000):
                    done.set()
                return spans

            writer.fold = folded  # type: ignore[method-assign]
            await tended(writer, done, keep_us=10 * DAY, max_size=1_500_000)

    run(work())
    assert path.stat().st_size <= 1_500_000
    [(oldest, lines)] = select(path, "SELECT min(at_us), count(*) FROM timeline")
    assert oldest >= T0
    assert 0 < lines < 1000
    assert select(path, "SELECT count(*) > 0 FROM folded") == [(1,)]


def test_a_store_that_fails_is_tended_later(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        asked = 0

        def __init__(self) -> None:
            self.enough = asyncio.Event()

        async def prune(self, before_us: int) -> int:
            assert before_us == T0 + DAY - 5
            self.asked += 1
            if self.asked > 2:
                self.enough.set()
            raise StoreError("disk full") if self.asked == 1 else ZeroDivisionError

    async def work() -> None:
        failing = Failing()
        await tended(failing, failing.enough, keep_us=5, max_size=None)  # type: ignore[arg-type]

    with caplog.at_level(logging.WARNING):
        run(work())
    assert "the store cannot be tended: disk full" in caplog.text
    assert "the store is not tended for a while" in caplog.text


class Failing:
    """A store that writes nothing until it is told to, and remembers what it wrote."""

    def __init__(self) -> None:
        self.tried = asyncio.Event()
        self.broken = True
        self.batches: list[Batch] = []

    def moved(self) -> None:
        """Stay where it is."""

    async def write(self, batch: Batch) -> None:
        for number, each in enumerate(batch.events):
            each.pk = each.pk or 100 * len(self.batches) + number + 1
        self.tried.set()
        if self.broken:
            raise StoreError("disk full")
        self.batches.append(batch)


def test_what_a_failing_store_has_no_room_for_is_counted_and_not_acknowledged_before_that_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "MAX_ROWS", 4)
    monkeypatch.setattr(recorder, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(recorder, "RETRY_MOST", 0.001)

    async def work() -> None:
        store = Failing()
        said: list[bytes] = []
        spool = recorder.Spool(store, written=lambda _: None, acknowledge=said.append, notice=lambda _: None)  # type: ignore[arg-type]
        running = asyncio.create_task(spool.run())
        one, other = connection(), connection()
        call = event(one, at_us=T0)
        spool.put(Batch([one], [call]), b"1")
        await store.tried.wait()
        while spool.failing is None:
            await asyncio.sleep(0)
        spool.put(Batch([one], [call]), b"2")  # its answer
        spool.put(Batch([other], [event(other, at_us=T0 + n) for n in (7, 5, 9)]), b"3")
        assert spool.lost == 0  # the answer made room, and goes with what comes next
        spool.put(Batch([one], [event(one, at_us=T0 + 20)]), b"4")
        assert (spool.lost, spool.lost_us) == (3, (T0 + 5, T0 + 9))
        store.broken = False
        while len(store.batches) < 2:
            await asyncio.sleep(0)
        lost, spool.lost = spool.lost, 0
        spool.put(Batch([], [event(one, at_us=T0 + 30)]), b"5", lost)
        spool.end()
        await running
        assert said == [b"5"]  # with the line that says so
        first, second, last = store.batches
        assert second.events[0] is call  # what was stored already has its last state
        assert last.connections == [other]
        assert [each.at_us - T0 for each in [*first.events, *second.events, *last.events]] == [0, 0, 20, 30]

    run(work())


def test_at_the_end_of_the_time_for_a_stop_what_waits_is_given_up() -> None:
    async def work() -> None:
        store = Failing()
        store.broken = False
        spool = recorder.Spool(store, written=lambda _: None, acknowledge=lambda _: None, notice=lambda _: None)  # type: ignore[arg-type]
        one = connection()
        for number in range(5):
            spool.put(Batch([one], [event(one, at_us=T0 + number)]), b"")
        spool.give_up()
        assert (spool.lost, spool.lost_us) == (4, (T0 + 1, T0 + 4))
        spool.end()
        await spool.run()
        assert [each.at_us for batch in store.batches for each in batch.events] == [T0]

    run(work())
