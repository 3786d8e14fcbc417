"""Requests to the desk that are too long, too slow, too many or none at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from mcp_tap.api import heads
from mcp_tap.api.safety import HEADERS
from mcp_tap.app import _Server, application
from mcp_tap.config import Address
from mcp_tap.relay.sockets import listening_sockets
from tests.api.asking import Asking, desk, run

ASK = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
END = b"\r\n"

Connect = Callable[[], Coroutine[None, None, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@asynccontextmanager
async def served(asking: Asking) -> AsyncIterator[Connect]:
    """Serve the desk as the recorder does and yield what connects to it."""
    [sock] = listening_sockets(Address("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with desk(asking.path) as of:
        server = _Server(application(of))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        writers: list[asyncio.StreamWriter] = []

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            return reader, writer

        try:
            yield connect
        finally:
            for writer in writers:
                writer.close()
            server.should_exit = True
            await serving


async def told(connect: Connect, data: bytes) -> bytes:
    """Send something and return all that is answered, up to the end of the connection."""
    reader, writer = await connect()
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:  # it does not read what is too much, and the rest is the kernel's to refuse
        return b""


NO_REQUESTS = {
    b"\x16\x03\x01\x02\x00\x01\x00": 400,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 400,
    ASK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    ASK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd": 400,
    ASK + b" folded: yes\r\n\r\n": 400,
    ASK + b"x: a\0b\r\n\r\n": 400,
    b"GET / HTTP/1.1\nhost: localhost\n\n": 400,
    b"CONNECT elsewhere.example:80 HTTP/1.1\r\nhost: localhost\r\n\r\n": 400,
    b"GET /" + b"a" * heads.MOST_OF_AN_ADDRESS + b" HTTP/1.1\r\nhost: localhost\r\n\r\n": 414,
    ASK + b"x: " + b"a" * heads.MOST_OF_A_HEAD + b"\r\n\r\n": 431,
    ASK + b"x: 1\r\n" * heads.MOST_FIELDS + END: 431,
}


@pytest.mark.parametrize(("data", "status"), NO_REQUESTS.items(), ids=range(len(NO_REQUESTS)))
def test_what_is_no_request_is_answered_like_everything_else(asking: Asking, data: bytes, status: int) -> None:
    async def work() -> None:
        async with served(asking) as connect:
            answer = await told(connect, data)
        lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        assert lines[0].split()[1] == str(status)
        assert {f"{name}: {value}" for name, value in HEADERS.items()} <= {*lines}
        assert "cache-control: no-store" in lines
        assert b"mcp-tap:" in answer
        assert b"aaaa" not in answer

    run(work())


@pytest.mark.parametrize("part", [b"x: 1\r\n" * 1000, b"a" * 10_000, b"\r\n" * 1000], ids=["fields", "field", "lines"])
def test_a_head_without_end_ends(asking: Asking, part: bytes) -> None:
    async def work() -> int:
        sent = 0
        async with served(asking) as connect:
            reader, writer = await connect()
            writer.write(b"" if part == b"\r\n" * 1000 else ASK + (b"x: " if part[:1] == b"a" else b""))
            answered = asyncio.create_task(reader.read())
            while not answered.done() and sent < 100 * heads.MOST_OF_A_HEAD:
                writer.write(part)
                sent += len(part)
                try:
                    await writer.drain()
                except ConnectionError:
                    break
                await asyncio.sleep(0)
            await asyncio.wait([answered])
            answered.exception()
        return sent

    # what the kernel buffers is sent beside what was read
    assert run(work()) < 60 * heads.MOST_OF_A_HEAD


def test_a_head_within_the_bounds_is_read(asking: Asking) -> None:
    async def work() -> None:
        async with served(asking) as connect:
            for fields in (b"x: 1\r\n" * (heads.MOST_FIELDS - 2), b"x: " + b"a" * 90_000 + b"\r\n"):
                assert (await told(connect, ASK + b"connection: close\r\n" + fields + END)).startswith(b"HTTP/1.1 200")
            # of one connection each head counts for itself
            reader, writer = await connect()
            for _ in range(3):
                writer.write(ASK + b"x: " + b"a" * 60_000 + b"\r\n\r\n")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(length)
                assert head.startswith(b"HTTP/1.1 200")

    run(work())


def test_a_head_that_takes_too_long(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "PATIENCE", 0.2)

    async def work() -> None:
        async with served(asking) as connect:
            assert await told(connect, b"") == b""
            assert (await told(connect, ASK)).startswith(b"HTTP/1.1 408")
            # a stream that is open, and one that is kept for the next question, are not waited for
            stream, writer = await connect()
            writer.write(b"GET /api/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await stream.readuntil(b"event: status")
            rest = asyncio.create_task(stream.read())
            await told(connect, ASK)
            assert not rest.done()
            rest.cancel()
            await asyncio.wait([rest])

    run(work())


def test_more_connections_than_it_has_pages_for(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "MOST_CONNECTIONS", 3)

    async def work() -> None:
        async with served(asking) as connect:
            first = [await connect() for _ in range(3)]
            for _, writer in first:  # each is accepted for sure
                writer.write(ASK + END)
            for reader, _ in first:
                await reader.readuntil(b"\r\n\r\n")
            assert (await told(connect, b"")).startswith(b"HTTP/1.1 503")
            first[0][1].close()
            await first[0][1].wait_closed()
            while not (await told(connect, ASK + b"connection: close\r\n" + END)).startswith(b"HTTP/1.1 200"):
                pass

    run(work())


def test_questions_that_come_before_an_answer(asking: Asking) -> None:
    async def work() -> None:
        async with served(asking) as connect:
            few = await told(connect, (ASK + END) * heads.MOST_WAITING + ASK + b"connection: close\r\n\r\n")
            assert few.count(b"HTTP/1.1 200") == heads.MOST_WAITING + 1
            many = await told(connect, (ASK + END) * 1000)
            assert many.count(b"HTTP/1.1 ") < 3 * heads.MOST_WAITING

    run(work())


def test_junk_behind_a_question_is_not_put_into_its_answer(asking: Asking) -> None:
    async def work() -> None:
        async with served(asking) as connect:
            answer = await told(connect, b"GET /api/live HTTP/1.1\r\nhost: localhost\r\n\r\n\x00junk")
            assert answer.count(b"HTTP/1.1 ") <= 1

    run(work())
