"""A TCP link that misbehaves on order: it passes bytes and endings on as they are, but for the faults it was given.

A fault holds for one direction of a connection and is a small class; several are applied one after another. They
begin to hold when the client has sent ``when``, so that one call of a long conversation can be hit. What was passed
to the server is kept: an injector without faults is a witness.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol, Self, cast

#: Where in the bytes of its direction a fault strikes: after so many, or after these were passed.
Place = int | bytes

_RESET: Final = struct.pack("ii", 1, 0)

Pieces = AsyncGenerator[bytes, None]


class Fault(Protocol):
    """What happens to the bytes of one direction."""

    def apply(self, pieces: Pieces, link: Link) -> Pieces:
        """Yield what is passed on. Returning ends this direction; `Broken` ends the whole connection."""


class Broken(Exception):  # noqa: N818 - what a fault does to a connection, no defect
    """End the connection on both sides: by a reset, else by closing it."""

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


@dataclass(frozen=True)
class Slice:
    """Pass bytes in pieces of ``size``, each in a segment of its own."""

    size: int = 1

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        async for data in pieces:
            for at in range(0, len(data), self.size):
                yield data[at : at + self.size]
                await asyncio.sleep(0)


@dataclass(frozen=True)
class Delay:
    """Pass every piece so many seconds late."""

    seconds: float

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        async for data in pieces:
            await asyncio.sleep(self.seconds)
            yield data


@dataclass(frozen=True)
class Throttle:
    """Pass so many bytes in a second."""

    rate: int

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        step = max(1, self.rate // 100)
        async for data in pieces:
            for at in range(0, len(data), step):
                yield data[at : at + step]
                await asyncio.sleep(min(step, len(data) - at) / self.rate)


@dataclass(frozen=True)
class Reset:
    """Break off: both ends see a reset."""

    at: Place

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        async for data, rest in _up_to(self.at, pieces):
            yield data
            if rest is not None:
                raise Broken(reset=True)


@dataclass(frozen=True)
class Close:
    """Close: both ends see the end of what the other one sends."""

    at: Place

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        async for data, rest in _up_to(self.at, pieces):
            yield data
            if rest is not None:
                raise Broken(reset=False)


@dataclass(frozen=True)
class HalfClose:
    """End this direction; what still comes is thrown away, and the other direction goes on."""

    at: Place

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        async for data, rest in _up_to(self.at, pieces):
            yield data
            if rest is not None:
                return


@dataclass(frozen=True)
class HalfCloseWhenAnswered:
    """End this direction as soon as the first bytes of an answer have passed in the other one."""

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        answered = asyncio.ensure_future(link.answered.wait())
        while not answered.done():
            piece = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait([piece, answered], return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                piece.cancel()
                await asyncio.wait([piece])
            elif (data := piece.result()) is not None:
                yield data
            else:
                answered.cancel()


@dataclass(frozen=True)
class StopReading:
    """Read no further until the injector says so."""

    at: Place

    async def apply(self, pieces: Pieces, link: Link) -> Pieces:
        async for data, rest in _up_to(self.at, pieces):
            yield data
            if rest is not None:
                link.injector.stopped.set()
                await link.injector.resumed.wait()
                yield rest
        async for data in pieces:
            yield data


async def _up_to(place: Place, pieces: Pieces) -> AsyncGenerator[tuple[bytes, bytes | None], None]:
    """Yield what comes before a place, with None; at the place what is left of the piece comes beside it."""
    seen, tail = 0, b""
    async for data in pieces:
        if isinstance(place, int):
            left = place - seen
        else:
            left = _end_of(place, tail, data)
            tail = (tail + data)[-len(place) :]
        if left <= len(data):
            yield data[:left], data[left:]
            return
        seen += len(data)
        yield data, None


def _end_of(what: bytes, tail: bytes, data: bytes) -> int:
    """Return where in ``data`` something ends that may have begun in the bytes before it, else more than its length."""
    found = (tail + data).find(what)
    return found + len(what) - len(tail) if found >= 0 else len(data) + 1


@dataclass(frozen=True)
class Faults:
    """What is wrong with a link, from when on. ``up`` is towards the server, ``down`` towards the client."""

    up: tuple[Fault, ...] = ()
    down: tuple[Fault, ...] = ()
    when: bytes = b""


class Link:
    """One connection through an injector."""

    def __init__(self, injector: Injector) -> None:
        self.injector = injector
        self.faults = injector.faults
        self.passed = bytearray()  # to the server
        self.returned = 0  # bytes passed to the client, in all
        self.answered = asyncio.Event()  # bytes have passed to the client since the faults hold
        self._armed = not self.faults.when
        self._writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, until both directions have ended or a fault ends them."""
        self._writers.append(writer)
        reset = False
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.injector.upstream)
            self._writers.append(server_writer)
            for each in self._writers:
                # what was drained is out of the process: no reset can take it back
                each.transport.set_write_buffer_limits(0)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pass(self._up(reader, server_writer), reader, server_writer))
                directions.create_task(self._pass(self._down(server_reader, writer), server_reader, writer))
        except* Broken as broken:
            reset = any(isinstance(each, Broken) and each.reset for each in broken.exceptions)
        except* OSError:
            reset = True
        finally:
            self.end(reset=reset)

    def end(self, *, reset: bool) -> None:
        """Close both sockets."""
        for writer in self._writers:
            if reset and not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            writer.close()

    async def _pass(self, pieces: Pieces, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for data in pieces:
            await self._write(writer, data)
        if not writer.is_closing():
            writer.write_eof()
        while await reader.read(65536):
            pass  # a fault ended this direction early: nobody will get the rest

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer is self._writers[0]:
            self.returned += len(data)
            if self._armed:
                self.answered.set()
        else:
            self.passed += data
        if data:
            writer.write(data)
            await writer.drain()

    def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Pieces:
        async def gate() -> Pieces:
            tail, when = b"", self.faults.when
            while data := await reader.read(65536):
                if not self._armed:
                    end = _end_of(when, tail, data)
                    tail = (tail + data)[-len(when) :]
                    self._armed = end <= len(data)
                    await self._write(writer, data[:end])
                    data = data[end:]
                if data:
                    yield data

        return self._through(self.faults.up, gate())

    def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Pieces:
        async def gate() -> Pieces:
            while data := await reader.read(65536):
                if self._armed:
                    yield data
                else:
                    await self._write(writer, data)

        return self._through(self.faults.down, gate())

    def _through(self, faults: tuple[Fault, ...], pieces: Pieces) -> Pieces:
        for fault in faults:
            pieces = fault.apply(pieces, self)
        return pieces


class Injector:
    """Listens at ``port`` and passes everything on to ``upstream``, in a thread of its own. Its faults may change."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.faults = Faults()
        self.links: list[Link] = []
        self.port = 0
        self.stopped = threading.Event()  # a link has stopped reading
        self.resumed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._running: set[asyncio.Task[None]] = set()
        self._end = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    @property
    def url(self) -> str:
        """The MCP endpoint behind the link."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def fail(self, faults: Faults) -> None:
        """Begin anew: end what is open, forget it, and have these faults from now on."""
        asyncio.run_coroutine_threadsafe(self._fail(faults), self._loop).result(10)

    def resume(self) -> None:
        """Go on reading where it was stopped."""
        self._loop.call_soon_threadsafe(self.resumed.set)

    def end(self, *, reset: bool) -> None:
        """End every link that is open."""

        def end() -> None:
            for link in self.links:
                link.end(reset=reset)

        self._loop.call_soon_threadsafe(end)

    async def _fail(self, faults: Faults) -> None:
        await self._end_all()
        self.faults = faults
        self.stopped.clear()
        self.resumed.clear()

    async def _end_all(self) -> None:
        for link in self.links:
            link.end(reset=True)
        self.resumed.set()
        await asyncio.gather(*self._running)
        self.links = []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        link = Link(self)
        self.links.append(link)
        await link.run(reader, writer)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._end.wait()
        server.close()
        await self._end_all()
        await asyncio.get_running_loop().shutdown_asyncgens()

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()
