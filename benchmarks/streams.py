"""Event streams as a client sees them: how late each event is, and many that stay open.

``python -m benchmarks.streams delays PORT [--streams 16] [--events 3000]`` reads streams with one event each
millisecond and prints one JSON line: events, errors, and how long after it was sent each was here, in µs at the 50th
and the 99th percentile and at most. With ``--large N`` a result of N bytes passes on another connection meanwhile,
every so many seconds (``--every``), read by a process of its own.

``python -m benchmarks.streams idle PORT --streams 1000`` opens streams on which nothing happens, one of each session,
prints a line when all are open, closes them and ends the sessions when it is given a line, and so on until it is given
none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from functools import partial
from typing import Any, Final, cast

import uvloop

from benchmarks.load import PATIENCE, at, request
from benchmarks.machine import allow_files
from benchmarks.upstream import FIRST_ID, TIME_MARK


class Chunks:
    """Takes the chunks of a body apart as they come (RFC 9112 §7.1): a proxy may cut them anywhere, and anew."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""  # an incomplete line with a size
        self._left = 0  # bytes of the chunk that are still to come

    def feed(self, data: bytes) -> bytes:
        """Return what of the body has come."""
        rest, at, parts = self._rest + data, 0, []
        while at < len(rest) and not self.ended:
            if self._left:
                parts.append(rest[at : at + self._left])
                at += len(parts[-1])
                self._left -= len(parts[-1])
                continue
            if (end := rest.find(b"\r\n", at)) < 0:
                break
            if end > at:  # else it is the end of the chunk before
                self._left = int(rest[at:end], 16)
                self.ended = not self._left
            at = end + 2
        self._rest = rest[at:]
        return b"".join(parts)


class Reader(asyncio.Protocol):
    """One paced stream: notes how late each event is."""

    def __init__(self, session: int, events: int, delays: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.missing = events
        self._events = events
        self._session = session
        self._delays = delays
        self._chunks: Chunks | None = None  # not before the head is over
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._transport.write(request(FIRST_ID, self._session, b"/mcp/paced/%d" % self._events))

    def data_received(self, data: bytes) -> None:
        """Take what has come; an event is here when the empty line behind it is."""
        now = time.monotonic_ns()
        if self._chunks is None:
            self._rest += data
            head, blank, data = self._rest.partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._transport.abort()
                return
            self._chunks, self._rest = Chunks(), b""
        rest = self._rest + self._chunks.feed(data)
        begin = 0
        while (end := rest.find(b"\n\n", begin)) >= 0:
            mark = rest.find(TIME_MARK, begin, end)
            if mark >= 0:
                digits = rest[mark + len(TIME_MARK) : end].partition(b",")[0]
                self._delays.append((now - int(digits)) / 1000)
                self.missing -= 1
            begin = end + 2
        self._rest = rest[begin:]
        if self._chunks.ended:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if not self.done.done():
            self.done.set_result(None)


async def delays(port: int, streams: int, events: int, large: int, every: float) -> None:
    """Read the streams to their end and print how late the events were."""
    loop = asyncio.get_running_loop()
    found: list[float] = []
    readers = [Reader(number, events, found) for number in range(streams)]
    for reader in readers:
        await loop.create_connection(partial(_same, reader), "127.0.0.1", port)
    beside = _beside(port, large, every, seconds=events / 1000) if large else None
    await asyncio.wait([reader.done for reader in readers], timeout=events / 1000 + PATIENCE)
    said: dict[str, Any] = {"calls": streams, "errors": sum(reader.missing for reader in readers), "large": 0}
    if beside is not None:
        seen = json.loads(beside.communicate()[0])
        said |= {"large": seen["calls"], "errors": said["errors"] + seen["errors"]}
    found.sort()
    said |= {"events": len(found), "p50": at(found, 50), "p99": at(found, 99), "max": at(found, 100)}
    print(json.dumps(said))


def _beside(port: int, size: int, every: float, seconds: float) -> subprocess.Popen[bytes]:
    """Start a client that asks for large results while the streams are read."""
    calls = max(1, int((seconds - 0.5) / every))
    options = ["--path", f"/mcp/json/{size}", "--calls", str(calls), "--rate", str(1 / every)]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.load", str(port), *options], stdout=subprocess.PIPE)


def _same(reader: asyncio.Protocol) -> asyncio.Protocol:
    return reader


class Idle(asyncio.Protocol):
    """One stream that stays open."""

    def __init__(self, session: int, opened: asyncio.Semaphore) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._session = session
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            b"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nUser-Agent: load/1.0\r\n"
            b"MCP-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: idle-%d\r\n\r\n" % self._session
        )

    def data_received(self, data: bytes) -> None:
        """Count it as open with its first comment."""
        if b": open" in data:
            self._opened.release()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if not self.closed.done():
            self.closed.set_result(None)


#: Streams that are opened at once: a server's queue of connections is bounded.
AT_ONCE: Final = 100


async def idle(port: int, streams: int) -> None:
    """Open and close streams as the lines of standard input say."""
    loop = asyncio.get_running_loop()
    while True:
        opened = asyncio.Semaphore(0)
        clients = []
        for number in range(streams):
            client = Idle(number, opened)
            await loop.create_connection(partial(_same, client), "127.0.0.1", port)
            clients.append(client)
            if number % AT_ONCE == AT_ONCE - 1 or number == streams - 1:
                for _ in range(number % AT_ONCE + 1):
                    await asyncio.wait_for(opened.acquire(), PATIENCE)
        print("open", flush=True)
        more = await asyncio.to_thread(sys.stdin.readline)
        for client in clients:
            client.transport.close()
        await asyncio.wait([client.closed for client in clients])
        await _end_sessions(port, streams)
        print("closed", flush=True)
        if not more or not await asyncio.to_thread(sys.stdin.readline):
            return


async def _end_sessions(port: int, sessions: int) -> None:
    """Say of every session that it is over, as clients do that are done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(sessions):
        writer.write(
            b"DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMCP-Protocol-Version: 2025-11-25\r\n"
            b"Mcp-Session-Id: idle-%d\r\n\r\n" % number
        )
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("delays", "idle"))
    parser.add_argument("port", type=int)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--events", type=int, default=3000)
    parser.add_argument("--large", type=int, default=0)
    parser.add_argument("--every", type=float, default=0.2)
    options = parser.parse_args()
    allow_files()
    if options.what == "idle":
        uvloop.run(idle(options.port, options.streams))
    else:
        uvloop.run(delays(options.port, options.streams, options.events, options.large, options.every))
