"""The relay's end of the channel: order, bounds, and what is said about what was lost."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from mcp_tap.channel import COUNT, HEADER, Decoder, Kind, Record
from mcp_tap.relay import feed as feed_module
from mcp_tap.relay.feed import STREAM_BOUND, Channel

OPENING = json.dumps({"peer": "p", "upstream": "u", "resumed": False}).encode()


def with_pair(work: Callable[[socket.socket, socket.socket], Coroutine[Any, Any, None]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        uvloop.run(work(ours, theirs))


async def records(sock: socket.socket, count: int) -> list[Record]:
    decoder, found = Decoder(), list[Record]()
    while len(found) < count:
        found += decoder.feed(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 20), 5))
    return found


def test_records_arrive_in_the_order_in_which_they_were_put() -> None:
    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(1 << 20)
        channel.attach(ours)
        for number in range(500):
            channel.put(number % 7, Kind.CLIENT, number, b"%d" % number)
        found = await records(theirs, 500)
        assert [(r.stream, r.at_ns, r.payload) for r in found] == [(n % 7, n, b"%d" % n) for n in range(500)]
        channel.detach()

    with_pair(work)


def test_what_waits_is_bounded_and_what_is_dropped_is_said_before_the_next_record() -> None:
    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(1000)
        channel.put(1, Kind.OPEN, 1, OPENING)
        for at in range(10):
            channel.put(1, Kind.CLIENT, at, b"x" * 301)
        assert channel.dropped == 8
        channel.put(2, Kind.OPEN, 20, OPENING.ljust(900))  # no room: it is not announced yet
        channel.put(2, Kind.CLIENT, 21, b"y" * 900)
        channel.put(1, Kind.CLIENT_EOF, 30)
        channel.attach(ours)
        await channel.drained()
        channel.put(2, Kind.CLIENT, 40, b"z")
        found = await records(theirs, 8)
        assert [(r.stream, r.kind) for r in found] == [
            (1, Kind.OPEN), (1, Kind.CLIENT), (1, Kind.CLIENT), (1, Kind.LOST), (1, Kind.CLIENT_EOF),
            (2, Kind.OPEN), (2, Kind.LOST), (2, Kind.CLIENT),
        ]  # fmt: skip
        assert COUNT.unpack(found[3].payload) == (8, 8 * 301)
        assert found[5].json()["resumed"] is True
        assert COUNT.unpack(found[6].payload) == (1, 900)
        channel.detach()

    with_pair(work)


def test_a_stream_that_never_fitted_is_counted() -> None:
    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(600)
        channel.put(1, Kind.CLIENT, 1, b"x" * 560)
        channel.put(2, Kind.OPEN, 2, OPENING)
        channel.put(2, Kind.CLIENT, 3, b"y" * 100)
        channel.put(2, Kind.CLOSED, 4, b"y" * 100)
        channel.attach(ours)
        await channel.drained()
        channel.put(0, Kind.STOP, 9)
        found = await records(theirs, 3)
        assert [r.kind for r in found] == [Kind.CLIENT, Kind.GAP, Kind.STOP]
        assert found[1].json() == {"records": 3, "bytes": 100, "from_ns": 4, "to_ns": 4, "why": "the queue was full"}
        channel.detach()

    with_pair(work)


def test_one_stream_cannot_use_up_what_others_need() -> None:
    channel = Channel(64 * 1000 * 1000)
    piece = b"x" * 250_000
    for at in range(100):
        channel.put(1, Kind.SERVER, at, piece)
    assert channel.dropped == 100 - STREAM_BOUND // (len(piece) + HEADER.size)
    channel.put(2, Kind.SERVER, 1, piece)
    assert channel.dropped == 100 - STREAM_BOUND // (len(piece) + HEADER.size)


def test_a_slow_recorder_gets_everything_within_the_bound() -> None:
    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(64 * 1000 * 1000)
        channel.attach(ours)
        for number in range(100):
            channel.put(number, Kind.SERVER, number, b"x" * 100_000)
        found = await records(theirs, 100)
        assert [r.stream for r in found] == list(range(100))
        await channel.drained()
        assert channel.dropped == 0
        channel.detach()

    with_pair(work)


def test_what_died_with_a_recorder_becomes_a_gap_for_the_next() -> None:
    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(1 << 20)
        channel.attach(ours)
        channel.put(1, Kind.OPEN, 100, OPENING)
        channel.put(1, Kind.CLIENT, 101, b"abc")
        await channel.drained()
        channel.acknowledge(2, len(OPENING) + 3)
        channel.put(2, Kind.OPEN, 102, OPENING)
        channel.put(2, Kind.CLIENT, 103, b"defg")
        channel.put(2, Kind.CLOSED, 104, b"end")
        await channel.drained()
        channel.detach()
        channel.put(1, Kind.SERVER, 105, b"waits")
        channel.put(3, Kind.OPEN, 106, OPENING)
        await records(theirs, 5)

        channel.attach(ours)
        found = await records(theirs, 4)
        assert [(r.stream, r.kind) for r in found] == [
            (0, Kind.GAP), (1, Kind.OPEN), (1, Kind.SERVER), (3, Kind.OPEN),
        ]  # fmt: skip
        gap = {"records": 3, "bytes": len(OPENING) + 7, "from_ns": 102, "to_ns": 104, "why": "the recorder died"}
        assert found[0].json() == gap
        assert found[1].json()["resumed"] is True
        assert found[3].json()["resumed"] is False

        channel.detach()  # the second dies before it has said anything: nothing of the first gap is forgotten
        channel.attach(ours)
        again = (await records(theirs, 1))[0]
        assert again.kind == Kind.GAP
        assert again.json()["records"] == 3 + 4
        assert again.json()["from_ns"] == 102
        channel.detach()

    with_pair(work)


def test_how_long_pieces_take_is_reported_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "PACE_EVERY", 0)

    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(1 << 20)
        channel.attach(ours)
        at_ns = time.monotonic_ns()
        channel.put(1, Kind.OPEN, at_ns, OPENING)  # no piece of traffic: it passes through nothing
        await records(theirs, 1)
        channel.put(1, Kind.CLIENT, at_ns, b"x")
        piece, pace = await records(theirs, 2)
        after_ns = time.monotonic_ns() - at_ns
        assert (piece.kind, pace.stream, pace.kind) == (Kind.CLIENT, 0, Kind.PACE)
        pieces, took_ns = COUNT.unpack(pace.payload)
        assert pieces == 1
        assert 0 < took_ns < after_ns
        channel.detach()

    with_pair(work)


def test_nothing_is_raised_when_the_recorder_is_gone() -> None:
    async def work(ours: socket.socket, theirs: socket.socket) -> None:
        channel = Channel(1 << 20)
        channel.attach(ours)
        theirs.close()
        for _ in range(10):
            channel.put(1, Kind.CLIENT, 1, b"x" * feed_module.FLUSH_BYTES)
        await channel.drained()
        channel.put(1, Kind.CLIENT, 1, b"x")

    with_pair(work)
