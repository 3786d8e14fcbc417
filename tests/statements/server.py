"""A server that does what a test says, with bytes that a test can compare, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from tests.tap import PATIENCE


@dataclass(frozen=True)
class Asked:
    """One request as it came. Names of headers are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def rpc(self) -> str | None:
        """The method of the one JSON-RPC message in it."""
        message = json.loads(self.body) if self.body else None
        return message.get("method") if isinstance(message, dict) else None

    @property
    def id(self) -> Any:
        return json.loads(self.body)["id"]


class Reply:
    """What goes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, status: int, message: object = None, **headers: str) -> None:
        """Answer, with JSON where there is a message."""
        body = b"" if message is None else json.dumps(message).encode()
        kind = {} if message is None else {"content-type": "application/json"}
        await self.send(head(status, **kind, **headers, **{"content-length": str(len(body))}) + body)

    async def result(self, asked: Asked, **headers: str) -> None:
        """Answer the request with a result."""
        await self.answer(200, result(asked.id), **headers)

    async def open(self, **headers: str) -> None:
        """Begin an event stream."""
        await self.send(head(200, **{"content-type": "text/event-stream", "transfer-encoding": "chunked"}, **headers))

    async def event(self, message: object, *, id: str | None = None) -> None:  # noqa: A002
        """Send one event; a message of None is an event with empty data."""
        text = "" if message is None else json.dumps(message)
        data = (f"id: {id}\n" if id is not None else "").encode() + f"data: {text}\n\n".encode()
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """End the event stream in order."""
        await self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection, whatever was due on it."""
        self._writer.close()

    def reset(self) -> None:
        """Break the connection off."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def until_left(self) -> None:
        """Wait until the client leaves in the middle of the answer."""
        with contextlib.suppress(ConnectionResetError):
            assert await self._reader.read(1) == b""


Play = Callable[[Asked, Reply], Awaitable[None]]


class Server:
    """Opens legacy sessions by itself, accepts notifications, and leaves everything else to ``play``.

    ``session_id`` is what the next `initialize` is answered with: "new" for a new one each, None for none.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.session_id: str | None = "new"
        self.play: Play = _result
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def asked_for(self, method: str) -> list[Asked]:
        """Return the requests with an HTTP method."""
        return [asked for asked in self.asked if asked.method == method]

    def gate(self) -> Gate:
        """Return a gate that is shut."""
        return Gate(self._loop)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._guarded, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _guarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                await self._serve(await _read(reader), Reply(reader, writer))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # the client has left
        finally:
            writer.close()

    async def _serve(self, asked: Asked, reply: Reply) -> None:
        self.asked.append(asked)
        if asked.target != "/mcp":
            await reply.answer(404)
        elif asked.rpc == "initialize":
            session_id = uuid.uuid4().hex if self.session_id == "new" else self.session_id
            await reply.result(asked, **({} if session_id is None else {"mcp-session-id": session_id}))
        elif asked.rpc is not None and asked.rpc.startswith("notifications/"):
            await reply.answer(202)
        else:
            await self.play(asked, reply)


class Gate:
    """Something to wait for in the server's thread, opened by the test's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        await self._opened.wait()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._opened.set)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        yield server


def result(id: object) -> dict[str, Any]:  # noqa: A002
    """Return an answer."""
    return {"jsonrpc": "2.0", "id": id, "result": {}}


def head(status: int, **headers: str) -> bytes:
    """Return the head of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()


async def _result(asked: Asked, reply: Reply) -> None:
    if asked.method == "POST":
        await reply.result(asked)
    else:
        await reply.answer(405)


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    return Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
