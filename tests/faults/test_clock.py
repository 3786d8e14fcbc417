"""A wall clock that is set, or a machine that slept, while the recorder works: from the channel to the file."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_tap import recorder
from mcp_tap.channel import Kind, encode, encode_json
from mcp_tap.config import Redact
from mcp_tap.model import Batch
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.recorder import Recorder
from tests.store.recording import run, select, writing
from tests.tap import rpc

HOUR = 3_600_000_000_000

IN_CI = True

CASES = [("set", -HOUR), ("set", HOUR), ("set", 48 * HOUR), ("slept", HOUR), ("slept", 48 * HOUR)]


def call(number: int) -> bytes:
    body = json.dumps(rpc("tools/call", number, name="echo")).encode()
    return b"POST /mcp HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def answer(number: int) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "id": number, "result": {}}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class Clocks(SimpleNamespace):
    """The module `time` as the recorder sees it. ``set`` and ``slept`` are nanoseconds."""

    CLOCK_BOOTTIME = 7
    set = 0
    slept = 0
    monotonic = staticmethod(time.monotonic)
    monotonic_ns = staticmethod(time.monotonic_ns)

    def time_ns(self) -> int:
        return time.time_ns() + self.set + self.slept

    def clock_gettime_ns(self, _: int) -> int:
        return time.monotonic_ns() + self.slept


@pytest.mark.parametrize(("what", "step"), CASES)
def test_durations_and_order_hold(what: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks()
    for name, value in {"time": clocks, "TICK_EVERY": 0.01, "FLUSH_EVERY": 0.01}.items():
        monkeypatch.setattr(recorder, name, value)

    async def work() -> None:
        async with writing(tmp_path / "tap.db") as writer:
            written: list[Batch] = []
            tracker = Tracker(Redactor(Redact(), bodies="redacted", max_body=1000))
            ours = Recorder(tracker, writer, written=written.append, notice=lambda _: None)

            def say(kind: Kind, payload: bytes = b"") -> None:
                ours.data_received(encode(1, kind, time.monotonic_ns(), payload))

            running = asyncio.create_task(ours.run())
            opened = {"peer": "127.0.0.1:1", "upstream": "http://a/mcp", "resumed": False}
            ours.data_received(encode_json(1, Kind.OPEN, time.monotonic_ns(), opened))
            say(Kind.CLIENT, call(1))
            say(Kind.SERVER, answer(1))
            say(Kind.CLIENT, call(2))
            while not written:
                await asyncio.sleep(0.01)
            before = ours._clock_ns
            setattr(clocks, what, step)
            while ours._clock_ns == before:
                await asyncio.sleep(0.01)
            say(Kind.SERVER, answer(2))
            say(Kind.CLIENT, call(3))
            say(Kind.SERVER, answer(3))
            ours.data_received(encode(0, Kind.STOP, time.monotonic_ns()))
            await running

    run(work())
    rows: list[tuple[Any, ...]] = select(
        tmp_path / "tap.db",
        "SELECT jsonrpc_id, status, duration_us, at_us FROM timeline WHERE kind = 'request' ORDER BY connection, seq",
    )
    assert [row[:2] for row in rows] == [("1", "succeeded"), ("2", "succeeded"), ("3", "succeeded")]
    first, crossing, last = (row[2] for row in rows)
    assert 0 <= first < 5_000_000
    assert 0 <= last < 5_000_000
    slept_us = step // 1000 if what == "slept" else 0
    assert 0 <= crossing - slept_us < 5_000_000
    assert abs(rows[2][3] - rows[1][3] - step // 1000) < 5_000_000  # each has the time that the clock showed
    [(count, active)] = select(tmp_path / "tap.db", "SELECT count(*), sum(end_reason = 'shutdown') FROM connection")
    # nobody was idle, unless the machine slept for longer than a session may
    assert count == active or what == "slept"
