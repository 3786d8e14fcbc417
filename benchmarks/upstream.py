"""A server that costs next to nothing: what it answers is said by the path.

``python -m benchmarks.upstream`` prints its port.

=====================  ==============================================================================================
POST /mcp              a JSON-RPC answer of about 600 bytes, as are the answers to all paths not named here
POST /mcp/json/N       one of N bytes
POST /mcp/sse/N        an event stream of N events of 300 bytes and the answer
POST /mcp/paced/N      the same, one event each millisecond, each with the time when it was sent
GET /mcp               an event stream on which nothing happens; DELETE is granted
GET /count             what was asked and answered so far
=====================  ==============================================================================================
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import uvloop

#: Ids have seven digits, so that every answer has the same length.
FIRST_ID: Final = 1_000_000

_TEXT: Final = b"All work and no play. " * 24
_BODY: Final = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' + _TEXT + b'"}]}}'
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_JSON_HEAD: Final = _HEAD % len(_BODY % FIRST_ID)
_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"

#: Bytes of one event, with the empty line that ends it.
EVENT_SIZE: Final = 300
#: Seconds between two events of a paced stream.
PACE: Final = 0.001
#: Streams that are served within one pace are served one after the other, spread over it.
SPREAD: Final = 16

_ROW: Final = (
    b'{"id":%d,"name":"product %d","price":{"amount":1250,"currency":"EUR"},"tags":["shoe","winter"],"stock":7},'
)


def answer(number: int) -> bytes:
    """Return the whole answer to a call on the path that has no size, with its head."""
    return _JSON_HEAD + _BODY % number


SIZE: Final = len(answer(FIRST_ID))


def event(data: bytes) -> bytes:
    """Return one event of a stream."""
    return b"event: message\ndata: " + data + b"\n\n"


def progress(at_ns: int) -> bytes:
    """Return an event of `EVENT_SIZE` bytes that says when it was sent, in ns of the monotonic clock."""
    head = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":%d,"message":"'
    data = head % at_ns
    return event(data + b"." * (EVENT_SIZE - len(event(data)) - 3) + b'"}}')


#: What comes before the time in an event, and how many digits it has.
TIME_MARK: Final = b'"progress":'

_IDLE_EVENT: Final = progress(1_000_000_000_000)


@cache
def _large(size: int) -> tuple[bytes, bytes]:
    """Return what is before and behind the id in a JSON-RPC answer of so many bytes: rows, and the same as text."""
    before, behind = b'{"jsonrpc":"2.0","id":', b',"result":{"structuredContent":{"rows":[%s]},"content":[%s]}}'
    text = b'{"type":"text","text":"%s"}'
    rows = b"".join(_ROW % (number, number) for number in range(max(1, size // 2 // len(_ROW)))).rstrip(b",")
    rest = size - len(before) - 7 - len(behind % (rows, text % b""))
    escaped = rows.replace(b'"', b'\\"')[: max(0, rest)].rstrip(b"\\")
    return before, behind % (rows, text % escaped.ljust(rest, b"."))


def body(path: bytes, number: int) -> bytes:
    """Return the body of the answer to a call, as a client has to get it whatever is between."""
    kind, size = _kind(path)
    if kind == b"json":
        before, behind = _large(size)
        return b"%s%d%s" % (before, number, behind)
    if kind in (b"sse", b"paced"):
        return _IDLE_EVENT * size + event(_BODY % number)
    return _BODY % number


def _kind(path: bytes) -> tuple[bytes, int]:
    """Return what a path asks for, and how much of it."""
    _, _, kind, *size = (*path.split(b"/"), b"", b"")[:4]
    return kind, int(size[0] or 0) if kind in (b"json", b"sse", b"paced") else 0


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Count:
    """What the server has seen and said: calls, and bytes of their bodies."""

    calls: int = 0
    request_bytes: int = 0
    response_bytes: int = 0


class Pacer(threading.Thread):
    """Sends one event each millisecond on every stream it is given, straight to the socket.

    A thread of its own, because the loop's timers count in whole milliseconds.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._streams: list[_Paced] = []
        self._more = threading.Condition()
        self._number = 0

    def add(self, fd: int, events: int, done: Callable[[], None]) -> None:
        """Begin a stream of so many events; ``done`` is called in this thread after the last."""
        with self._more:
            self._number += 1
            due = time.monotonic() // PACE * PACE + PACE * (1 + self._number % SPREAD / SPREAD)
            self._streams.append(_Paced(fd, events, done, due))
            self._more.notify()

    def run(self) -> None:
        """Send what is due until the process ends."""
        while True:
            with self._more:
                while not self._streams:
                    self._more.wait()
                first = min(self._streams, key=_due)
            if (wait := first.due - time.monotonic()) > 0:
                time.sleep(wait)
            try:
                os.write(first.fd, _chunk(progress(time.monotonic_ns())))
            except OSError:  # its client is gone, or reads nothing
                first.events = 0
            first.events -= 1
            first.due += PACE
            if first.events <= 0:
                with self._more:
                    self._streams.remove(first)
                first.done()


class _Paced:
    def __init__(self, fd: int, events: int, done: Callable[[], None], due: float) -> None:
        self.fd = fd
        self.events = events
        self.done = done
        self.due = due


def _due(stream: _Paced) -> float:
    return stream.due


class Server(asyncio.Protocol):
    """Reads of each request its path, its length and its id."""

    pacer: Pacer

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        rest = self._rest + data if self._rest else data
        answers = []
        while (end := rest.find(b"\r\n\r\n")) >= 0:
            head = rest[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(rest) < end + 4 + size:
                break
            id_at = rest.find(b'"id":', end) + 5
            number = int(rest[id_at : id_at + 7]) if id_at > 4 else FIRST_ID
            if rest.startswith(b"POST /mcp "):
                Count.calls += 1
                Count.request_bytes += size
                Count.response_bytes += SIZE - len(_JSON_HEAD)
                answers.append(answer(number))
            else:
                answers += self._other(rest[:end].split(b" ", 2), number)
            rest = rest[end + 4 + size :]
        self._rest = rest
        if answers:
            self._transport.write(b"".join(answers))

    def _other(self, line: list[bytes], number: int) -> list[bytes]:
        """Return the answer to what is not an ordinary call."""
        method, path, *_ = line
        kind, size = _kind(path)
        if path == b"/count":
            count = json.dumps({name: getattr(Count, name) for name in Count.__annotations__}).encode()
            return [_HEAD % len(count), count]
        if method == b"DELETE":
            return [_HEAD % 0]
        if method == b"GET":
            return [_SSE_HEAD, _chunk(b": open\n\n")]
        if kind == b"paced":
            self._transport.write(_SSE_HEAD)
            loop, last = asyncio.get_running_loop(), [_chunk(event(_BODY % number)), _LAST_CHUNK]
            fd = self._transport.get_extra_info("socket").fileno()
            self.pacer.add(fd, size, lambda: _end(loop, self._transport, b"".join(last)))
            return []
        whole = body(path, number)
        if kind == b"sse":
            return [_SSE_HEAD, *(_chunk(one + b"\n\n") for one in whole[:-2].split(b"\n\n")), _LAST_CHUNK]
        return [_HEAD % len(whole), whole]


def _end(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, last: bytes) -> None:
    loop.call_soon_threadsafe(transport.write, last)


async def main() -> None:
    """Serve until killed."""
    Server.pacer = Pacer()
    Server.pacer.start()
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
