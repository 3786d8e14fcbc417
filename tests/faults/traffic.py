"""Traffic that is counted at both ends: clients that call one after another, and the server that they call.

Every call has an id of its own, so that client, server and record can be compared call by call. Both ends live in one
thread of the test's process; what is between them are processes that may be killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httptools

from tests.faults.raw import INFO, LEGACY
from tests.tap import HEADERS, PATIENCE, rpc

T = TypeVar("T")

#: Seconds that a client waits before it connects again.
AGAIN: Final = 0.02


@dataclass
class Counts:
    """What the clients know at the end. Moments are on the monotonic clock, in ns."""

    answered: dict[int, tuple[int, int]] = field(default_factory=dict)  # id -> when it was asked and answered
    failed: dict[int, str] = field(default_factory=dict)  # id -> the status that was no 200, or the error

    @property
    def made(self) -> int:
        """How many calls were made."""
        return len(self.answered) + len(self.failed)


class Traffic:
    """A server, and clients for it. ``seen`` counts how often the server saw each call."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()
        self.counts = Counts()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._port = 0
        self._ids = itertools.count(1)
        self._ending = asyncio.Event()
        self._clients: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.start_server()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._stop_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self._port}/mcp"

    def start_server(self) -> None:
        """Listen, after a stop on the port that it was."""
        self._wait(self._listen())

    def stop_server(self) -> None:
        """Listen no more, and break off every connection as a process does that is killed."""
        self._wait(self._unlisten())

    def begin(self, url: str, *, clients: int = 8, pause: float = 0.0, size: int = 0, wait: float = 0.0) -> None:
        """Let clients call until `end`, each after a ``pause``, for ``size`` bytes after a ``wait`` (seconds)."""
        self._wait(self._begin(url, clients, pause, {"size": size, "wait": wait}))

    def end(self) -> Counts:
        """Make no more calls, wait for the last answers, and return what the clients counted since the start."""
        self._wait(self._end())
        return self.counts

    def until(self, made: int) -> None:
        """Wait until so many calls have been made in all."""
        deadline = time.monotonic() + PATIENCE
        while self.counts.made < made:
            assert time.monotonic() < deadline, self.counts.made
            time.sleep(0.005)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE * 2)

    # In the thread

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.transport.abort()

    async def _begin(self, url: str, clients: int, pause: float, asked: dict[str, float]) -> None:
        self._ending.clear()
        first = len(self._clients)
        names = [f"counted-{number}" for number in range(first, first + clients)]
        self._clients += [self._loop.create_task(self._call(url, name, pause, asked)) for name in names]

    async def _end(self) -> None:
        self._ending.set()
        clients, self._clients = self._clients, []
        await asyncio.gather(*clients)

    async def _stop_all(self) -> None:
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._unlisten()

    async def _call(self, url: str, name: str, pause: float, asked: dict[str, float]) -> None:
        client = _Client(url, name)
        while not self._ending.is_set():
            number = 0
            try:
                await client.open()
                number = next(self._ids)
                began = time.monotonic_ns()
                status = await client.call(number, asked)
                if status == 200:
                    self.counts.answered[number] = (began, time.monotonic_ns())
                else:
                    self.counts.failed[number] = str(status)
                    await asyncio.sleep(AGAIN)
            except (OSError, EOFError) as error:
                client.close()
                if number:
                    self.counts.failed[number] = type(error).__name__
                await asyncio.sleep(AGAIN)
            await asyncio.sleep(pause)
        client.close()


class _Client:
    """One client of the legacy era. Whatever goes wrong is an OSError or EOFError, after which it opens again."""

    def __init__(self, url: str, name: str) -> None:
        self._at = urlsplit(url)
        self._name = name
        self._session: dict[str, str] = {}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Be connected and, the first time, initialised."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._at.hostname, self._at.port, limit=1 << 22)
        if not self._session:
            info = INFO | {"name": self._name}
            opening = rpc("initialize", 0, protocolVersion=LEGACY, capabilities={}, clientInfo=info)
            status, head = await self._post(opening)
            if status != 200:
                raise ConnectionError(f"initialize: {status}")
            session = head.lower().partition(b"mcp-session-id:")[2].split()[0].decode()
            self._session = {"mcp-session-id": session, "mcp-protocol-version": LEGACY}

    async def call(self, number: int, asked: dict[str, float]) -> int:
        """Make one call and return the status of its answer."""
        status, _ = await self._post(rpc("tools/call", number, name="echo", arguments=asked))
        return status

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _post(self, message: dict[str, Any]) -> tuple[int, bytes]:
        assert self._streams is not None
        reader, writer = self._streams
        body = json.dumps(message).encode()
        headers = HEADERS | self._session | {"content-type": "application/json", "content-length": str(len(body))}
        lines = [
            f"POST {self._at.path} HTTP/1.1",
            f"host: {self._at.netloc}",
            *(f"{k}: {v}" for k, v in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        answer = await reader.readexactly(length)
        status = int(head.split(b" ", 2)[1])
        if status == 200:
            assert json.loads(answer)["id"] == message["id"]
        if b"connection: close" in head.lower():
            self.close()
        return status, head


class _Connection(asyncio.Protocol):
    """The server's end of one connection."""

    transport: asyncio.Transport

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._traffic._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._traffic._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        message, self._body = json.loads(self._body), b""
        number, method = message["id"], message["method"]
        session = ""
        if method == "initialize":
            session = f"mcp-session-id: {id(self)}-{time.monotonic_ns()}\r\n"
            server = {"name": "counting", "version": "1"}
            result: dict[str, Any] = {"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": server}
        else:
            self._traffic.seen[number] += 1
            asked = message["params"]["arguments"]
            result = {"content": [{"type": "text", "text": "x" * asked["size"]}]}
            if asked["wait"]:
                asyncio.get_running_loop().call_later(asked["wait"], self._answer, number, result)
                return
        self._answer(number, result, session)

    def _answer(self, number: int, result: dict[str, Any], session: str = "") -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{session}content-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)
