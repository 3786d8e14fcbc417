"""Memory that is kept for the next piece, and given back after a flood."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys

import pytest
import uvloop

from mcp_tap.channel import Kind
from mcp_tap.config import Proxy
from mcp_tap.relay import feed as feed_module
from mcp_tap.relay import memory
from mcp_tap.relay import streams as streams_module
from mcp_tap.relay.feed import Channel
from mcp_tap.relay.memory import Ebb
from mcp_tap.relay.splice import Half, Stream
from tests.relay.cases import CALL, OK
from tests.relay.process import ROOT, answering, serving
from tests.relay.test_listener import Tapped, run, upstream

GLIBC = pytest.mark.skipif(
    not (hasattr(os, "confstr") and os.confstr_names.get("CS_GNU_LIBC_VERSION")), reason="needs glibc"
)


class Begun(Ebb):
    """Counts what it is told."""

    times = 0

    def begin(self) -> None:
        self.times += 1


def test_an_ebb_gives_back_once_and_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(memory, "PAUSE", 0.01)
        monkeypatch.setattr(memory, "give_back", lambda: given.append(loop.time()))
        ebb, began = Ebb(), loop.time()
        for _ in range(3):
            ebb.begin()
        assert given == []
        while not given:
            await asyncio.sleep(0)
        assert given[0] - began >= 0.01
        ebb.begin()
        while len(given) < 2:
            await asyncio.sleep(0)

    asyncio.run(work())
    assert len(given) == 2


def test_a_crowd_that_halves_is_an_ebb_and_a_few_who_leave_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "CROWD", 8)
    ebb = Begun()

    async def work(tapped: Tapped) -> None:
        tapped.streams._ebb = ebb
        for crowd, times in ((7, 0), (8, 1), (8, 2)):
            ends = [await tapped.connect() for _ in range(crowd)]
            for reader, writer in ends:
                writer.write(CALL)
                assert await reader.readexactly(len(OK)) == OK
            for _, writer in ends:
                writer.close()
            while tapped.streams.open:
                await asyncio.sleep(0)
            assert ebb.times == times

    with serving(answering) as port:
        run(Proxy(upstream("127.0.0.1", port)), work)


def test_a_queue_that_was_long_is_an_ebb_when_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "FLOOD", 10_000)
    ebb = Begun()

    async def work() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            channel = Channel(1 << 20, ebb)
            channel.attach(ours)
            for size, times in ((1000, 0), (30_000, 1), (1000, 1)):
                channel.put(1, Kind.SERVER, 1, bytes(size))
                await channel.drained()
                assert ebb.times == times
            channel.detach()

    uvloop.run(work())


def test_a_stream_that_has_ended_is_gone_without_a_collector() -> None:
    async def work(tapped: Tapped) -> None:
        reader, writer = await tapped.connect()
        writer.write(CALL)
        assert await reader.readexactly(len(OK)) == OK
        (stream,) = tapped.streams.open.values()
        writer.close()
        del stream
        while tapped.streams.open:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert [each for each in gc.get_objects() if isinstance(each, Stream | Half)] == []

    gc.collect()
    gc.disable()
    try:
        with serving(answering) as port:
            run(Proxy(upstream("127.0.0.1", port)), work)
    finally:
        gc.enable()


@GLIBC
def test_malloc_keeps_what_a_piece_of_traffic_takes() -> None:
    code = """if True:
        import resource
        from mcp_tap.relay import memory
        memory.keep()
        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        before = faults()
        for _ in range(100):
            pieces = [b"x" * 250_000 for _ in range(8)]
            del pieces
        print(faults() - before)
    """
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(said.stdout) < 2000  # each piece is 62 pages
    memory.give_back()  # can be asked for at any time
