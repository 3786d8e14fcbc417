"""A closed loop of `tools/call` requests: each connection sends the next one when it has its answer.

``python -m benchmarks.load PORT CONNECTIONS SECONDS`` prints one JSON line: calls, errors, seconds and the
latencies in µs at the 50th and the 99th percentile and at most.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from typing import cast

import uvloop

from benchmarks.upstream import FIRST_ID, SIZE

ARGUMENTS = b'{"query":"what does it cost","limit":10,"cursor":null}'


def request(number: int, session: int) -> bytes:
    """Return one call as an SDK sends it."""
    body = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"search","arguments":%s}}' % (
        number,
        ARGUMENTS,
    )
    return (
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
        b"Content-Type: application/json\r\nUser-Agent: load/1.0\r\nMCP-Protocol-Version: 2025-11-25\r\n"
        b"Mcp-Session-Id: bench-%d\r\nContent-Length: %d\r\n\r\n%s" % (session, len(body), body)
    )


class Client(asyncio.Protocol):
    """One connection of the loop."""

    def __init__(self, session: int, until: float, latencies: list[int], extra: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls = 0
        self._session = session
        self._until = until
        self._latencies = latencies
        self._missing = 0
        self._size = SIZE + extra

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the answer: all answers have one length."""
        self._missing -= len(data)
        if self._missing > 0:
            return
        now = time.perf_counter_ns()
        self._latencies.append((now - self._sent) // 1000)
        self.calls += 1
        if time.monotonic() < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._missing = self._size
        self._sent = time.perf_counter_ns()
        self._transport.write(request(FIRST_ID + self.calls, self._session))


def _same(client: Client) -> Client:
    return client


async def main(port: int, connections: int, seconds: float, extra: int = 0) -> None:
    """Run the loop; ``extra`` is how many bytes a proxy adds to each answer."""
    loop = asyncio.get_running_loop()
    latencies: list[int] = []
    began = time.monotonic()
    clients = []
    for session in range(connections):
        client = Client(session, began + seconds, latencies, extra)
        await loop.create_connection(partial(_same, client), "127.0.0.1", port)
        clients.append(client)
    await asyncio.wait([client.done for client in clients], timeout=seconds + 10)
    latencies.sort()
    calls = sum(client.calls for client in clients)
    errors = sum(not client.done.done() for client in clients)
    at = {p: latencies[min(len(latencies) - 1, int(len(latencies) * p / 100))] for p in (50, 99)} if latencies else {}
    print(
        json.dumps(
            {
                "calls": calls,
                "errors": errors,
                "seconds": time.monotonic() - began,
                "p50": at.get(50),
                "p99": at.get(99),
                "max": latencies[-1] if latencies else None,
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int((sys.argv[4:] or ["0"])[0])))
