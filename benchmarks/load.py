"""`tools/call` requests over so many connections: each sends the next one when it has its answer, or at a fixed rate.

``python -m benchmarks.load PORT [--path /mcp] [--connections 1] [--calls 1000] [--rate N]`` prints one JSON line:
calls, errors (answers that are not what the server sent, byte for byte, or never came), seconds, bytes of bodies in
both directions, and latencies in µs at the 50th and the 99th percentile and at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from functools import partial
from typing import Final, cast

import uvloop

from benchmarks.upstream import FIRST_ID, body

ARGUMENTS: Final = b'{"query":"what does it cost","limit":10,"cursor":null}'

#: Seconds without any progress after which the load gives up.
PATIENCE: Final = 20.0

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(number: int, session: int, path: bytes = b"/mcp") -> bytes:
    """Return one call as an SDK sends it."""
    content = _call(number)
    return (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
        b"Content-Type: application/json\r\nUser-Agent: load/1.0\r\nMCP-Protocol-Version: 2025-11-25\r\n"
        b"Mcp-Session-Id: bench-%d\r\nContent-Length: %d\r\n\r\n%s" % (path, session, len(content), content)
    )


def _call(number: int) -> bytes:
    return b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"search","arguments":%s}}' % (
        number,
        ARGUMENTS,
    )


def unchunked(data: bytes, at: int) -> bytes:
    """Return the body whose chunks begin at an offset (RFC 9112 §7.1; without trailers)."""
    parts: list[bytes] = []
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size


class Plan:
    """What all connections have in common."""

    def __init__(self, path: bytes, calls: int, connections: int, rate: float | None) -> None:
        self.path = path
        self.calls = -(-calls // connections)  # of each connection
        self.pause = connections / rate if rate else 0.0  # seconds between two calls of one connection
        self.latencies: list[float] = []  # µs
        self.request_bytes = 0
        self.response_bytes = 0


class Client(asyncio.Protocol):
    """One connection of the load."""

    def __init__(self, session: int, plan: Plan, due: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.calls = 0  # answered as they should be
        self._session = session
        self._plan = plan
        self._due = due  # when the next call is, in the loop's time
        self._parts: list[bytes] = []
        self._missing = 0  # bytes of the answer that are still to come; of a chunked one, unknown: 0
        self._chunked_from = 0  # where in the answer its chunks begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._next()

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer, and compare the whole with what was sent."""
        if not self._parts:
            end = data.find(b"\r\n\r\n") + 4
            length = _LENGTH.search(data, 0, end)
            self._missing = end + int(length[1]) if length else 0
            self._chunked_from = 0 if length else end
        self._parts.append(data)
        if self._chunked_from:
            if not (data if len(data) > 6 else b"".join(self._parts)).endswith(b"\r\n0\r\n\r\n"):
                return
        else:
            self._missing -= len(data)
            if self._missing > 0:
                return
        now = time.perf_counter_ns()
        self._plan.latencies.append((now - self._sent) / 1000)
        whole = data if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        expected = body(self._plan.path, FIRST_ID + self.calls)
        if self._chunked_from:
            same = unchunked(whole, self._chunked_from) == expected
        else:
            same = whole.endswith(expected) and not self._missing
        if not same or not whole.startswith(b"HTTP/1.1 200"):
            self._transport.abort()
            return
        self.calls += 1
        self._plan.response_bytes += len(expected)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if not self.done.done():
            self.done.set_result(None)

    def _next(self) -> None:
        if self.calls >= self._plan.calls:
            self._transport.close()
        elif self._plan.pause and (wait := self._due - self._loop.time()) > 0:
            self._loop.call_later(wait, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._due += self._plan.pause
        number = FIRST_ID + self.calls
        data = request(number, self._session, self._plan.path)
        self._plan.request_bytes += len(_call(number))
        self._sent = time.perf_counter_ns()
        self._transport.write(data)


def _same(client: Client) -> Client:
    return client


def at(sorted_values: list[float], percent: float) -> float | None:
    """Return the value below which so many percent of the values are."""
    return (
        sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * percent / 100))] if sorted_values else None
    )


async def main(port: int, plan: Plan, connections: int) -> None:
    """Make the calls and print what happened."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    clients = []
    for session in range(connections):
        client = Client(session, plan, began + plan.pause * session / connections)
        await loop.create_connection(partial(_same, client), "127.0.0.1", port)
        clients.append(client)
    waiting, calls = {client.done for client in clients}, 0
    while waiting:
        _, waiting = await asyncio.wait(waiting, timeout=PATIENCE)
        if calls == (calls := sum(client.calls for client in clients)) and waiting:
            break
    seconds = loop.time() - began
    calls = sum(client.calls for client in clients)
    latencies = sorted(plan.latencies)
    print(
        json.dumps(
            {
                "calls": calls,
                "errors": plan.calls * connections - calls,
                "seconds": seconds,
                "request_bytes": plan.request_bytes,
                "response_bytes": plan.response_bytes,
                "p50": at(latencies, 50),
                "p99": at(latencies, 99),
                "max": at(latencies, 100),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/mcp")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rate", type=float, help="calls a second, of all connections together")
    options = parser.parse_args()
    plan = Plan(options.path.encode(), options.calls, options.connections, options.rate)
    uvloop.run(main(options.port, plan, options.connections))
