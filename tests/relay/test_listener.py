"""Connecting, the tap's own answers, TLS to the upstream, and draining, in one process with real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
import uvloop

from mcp_tap.channel import Closing, Kind
from mcp_tap.config import Address, Proxy, Settings, Upstream
from mcp_tap.relay import splice as splice_module
from mcp_tap.relay import streams as streams_module
from mcp_tap.relay.listener import Listener, host_check, host_to_send, notices, why_not
from mcp_tap.relay.sockets import listening_sockets
from mcp_tap.relay.streams import Streams
from tests.certificate import make
from tests.relay.cases import CALL, OK
from tests.relay.compare import Collector
from tests.relay.process import free_port, serving

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def upstream(host: str, port: int, scheme: str = "http") -> Upstream:
    return Upstream(f"{scheme}://{host}:{port}/mcp", scheme, host, port, "/mcp")


class Tapped:
    """A listener in front of an upstream, and what it recorded."""

    def __init__(self, proxy: Proxy) -> None:
        self.feed = Collector()
        self.streams = Streams(self.feed)
        self.listener = Listener(proxy, self.streams)
        self.sockets = listening_sockets(proxy.listen)
        self.address = self.sockets[0].getsockname()
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self.listener.start(self.sockets)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(0)
        for writer in self.writers:
            writer.close()

    async def drain(self, seconds: float) -> None:
        self.listener.close()
        await self.streams.drain(seconds)

    async def connect(self) -> Ends:
        reader, writer = await asyncio.open_connection(*self.address)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        reader, writer = await self.connect()
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 5)


def run(proxy: Proxy, work: Callable[[Tapped], Awaitable[None]]) -> Tapped:
    async def main() -> Tapped:
        async with Tapped(replace(proxy, listen=Address("127.0.0.1", 0))) as tapped:
            await work(tapped)
        return tapped

    return uvloop.run(main())


def test_an_upstream_that_is_not_there_is_a_502_in_text() -> None:
    port = free_port()

    async def work(tapped: Tapped) -> None:
        answer = (await tapped.ask(CALL)).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 502 Bad Gateway\r\n")
        assert "Content-Type: text/plain; charset=utf-8" in head
        assert "Connection: close" in head
        assert f"Content-Length: {len(body)}" in head
        assert body.splitlines() == [
            f"mcp-tap: cannot connect to http://127.0.0.1:{port} (connection refused)",
            "start the server, or correct the address",
        ]
        assert (await tapped.ask(b"HEAD / HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")

    feed = run(Proxy(upstream("127.0.0.1", port)), work).feed
    first = [(kind, payload) for stream, kind, _, payload in feed.records if stream == 1]
    assert next(kind for kind, _ in first) == Kind.OPEN
    assert {kind for kind, _ in first} >= {Kind.CLIENT, Kind.CONNECT_FAILED, Kind.OWN, Kind.CLOSED}
    assert dict(first)[Kind.CONNECT_FAILED] == b"connection refused"
    assert dict(first)[Kind.CLOSED] == Closing.REFUSED
    assert json.loads(first[0][1])["resumed"] is False


def test_an_answer_of_ours_waits_for_a_request() -> None:
    async def work(tapped: Tapped) -> None:
        reader, writer = await tapped.connect()
        while Kind.CONNECT_FAILED not in tapped.feed.kinds():
            await asyncio.sleep(0)
        assert Kind.OWN not in tapped.feed.kinds()
        writer.write(b"P")
        assert (await reader.read()).startswith(b"HTTP/1.1 502 ")

    run(Proxy(upstream("127.0.0.1", free_port())), work)


def test_a_client_that_is_still_sending_gets_the_answer_and_no_reset() -> None:
    async def work(tapped: Tapped) -> None:
        reader, writer = await tapped.connect()
        writer.write(CALL.replace(b"Content-Length: ", b"Content-Length: 9999"))
        assert b" 502 " in await reader.read()
        for _ in range(100):
            writer.write(b"x" * 10_000)
            await writer.drain()
        writer.write_eof()

    run(Proxy(upstream("127.0.0.1", free_port())), work)


def test_connecting_that_takes_too_long_is_a_504() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(3):  # the kernel takes one or two more than it was told
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            waiting.append(sock)

        async def work(tapped: Tapped) -> None:
            answer = await tapped.ask(CALL)
            assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
            assert b"\r\n\r\nmcp-tap: connecting to http://127.0.0.1:" in answer

        feed = run(Proxy(upstream("127.0.0.1", full.getsockname()[1]), connect_timeout=0.2), work).feed
        assert feed.bytes_of(Kind.CONNECT_FAILED) == b"timed out"
        for sock in waiting:
            sock.close()


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tls"))


def with_tls_server(certificate: Path, work: Callable[[int, list[bytes], list[str | None]], Awaitable[None]]) -> None:
    got: list[bytes] = []
    alpn: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        alpn.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        got.append(await reader.readuntil(b"tools/call"))
        writer.write(OK)
        await writer.drain()
        writer.close()

    async def main() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        try:
            await work(server.sockets[0].getsockname()[1], got, alpn)
        finally:
            server.close()

    uvloop.run(main())


def test_tls_to_the_upstream_with_its_ca(certificate: Path) -> None:
    async def work(port: int, got: list[bytes], alpn: list[str | None]) -> None:
        proxy = Proxy(upstream("localhost", port, "https"), Address("127.0.0.1", 0), tls_ca=str(certificate))
        async with Tapped(proxy) as tapped:
            assert await tapped.ask(CALL) == OK
        assert b"\r\nHost: localhost:%d\r\n" % port in got[0]
        assert alpn == ["http/1.1"]

    with_tls_server(certificate, work)


def test_a_certificate_that_nobody_vouches_for_is_a_502(certificate: Path) -> None:
    async def work(port: int, _got: list[bytes], _alpn: list[str | None]) -> None:
        proxy = Proxy(upstream("localhost", port, "https"), Address("127.0.0.1", 0))
        async with Tapped(proxy) as tapped:
            assert b"(certificate verify failed: self" in await tapped.ask(CALL)
        async with Tapped(replace(proxy, tls_verify=False, host="keep")) as tapped:
            assert await tapped.ask(CALL) == OK

    with_tls_server(certificate, work)


def test_tls_to_the_clients(certificate: Path) -> None:
    """An answer of ours ends a TLS connection in order too, however much the client still sends."""
    trust = ssl.create_default_context(cafile=certificate)

    async def work(tapped: Tapped) -> None:
        port = tapped.address[1]
        for extra in (0, 3_000_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
            body = CALL.replace(b"Content-Length: ", b"Content-Length: 9999999") if extra else CALL
            writer.write(body + b"x" * extra)
            assert b"\r\n\r\nmcp-tap: cannot connect to " in await asyncio.wait_for(reader.read(), 5)
            writer.close()
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CALL)  # plain HTTP: no handshake, no stream, no answer
        writer.close()

    feed = run(Proxy(upstream("127.0.0.1", free_port()), tls_cert=str(certificate)), work).feed
    assert feed.kinds().count(Kind.OPEN) == 2  # a handshake that fails makes no stream


def test_a_client_that_breaks_off_over_tls_is_broken_off_from_the_server(certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=certificate)

    async def work(tapped: Tapped, server: Server) -> None:
        _, writer = await asyncio.open_connection(*tapped.address, ssl=trust, server_hostname="localhost")
        writer.write(CALL)
        await server.asked.acquire()
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        while tapped.streams.open:
            await asyncio.sleep(0)

    assert draining(work, tls_cert=str(certificate)).feed.bytes_of(Kind.CLOSED) == Closing.CLIENT_RESET


def test_a_tls_client_that_leaves_before_the_server_is_there(
    certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trust = ssl.create_default_context(cafile=certificate)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())

        async def work(tapped: Tapped) -> None:
            _, writer = await asyncio.open_connection(*tapped.address, ssl=trust, server_hostname="localhost")
            while not tapped.streams.open:
                await asyncio.sleep(0)
            writer.close()
            while tapped.streams.open:
                await asyncio.sleep(0)

        proxy = Proxy(upstream("127.0.0.1", full.getsockname()[1]), tls_cert=str(certificate))
        assert run(proxy, work).feed.bytes_of(Kind.CLOSED) == Closing.END
        for sock in waiting:
            sock.close()
    assert caplog.records == []


def test_a_handshake_that_ends_during_a_drain(certificate: Path) -> None:
    """It is closed at once, and does not hold the stop up."""

    async def work(tapped: Tapped, server: Server) -> None:
        reader, writer = await tapped.connect()  # no hello yet
        tapped.streams.draining = True
        await writer.start_tls(ssl.create_default_context(cafile=certificate), server_hostname="localhost")
        assert await reader.read() == b""
        writer.close()

    assert draining(work, tls_cert=str(certificate)).feed.bytes_of(Kind.CLOSED) == Closing.DRAIN


# -- time


def quiet_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every limit there is so short that any that applied would strike at once."""
    monkeypatch.setattr(splice_module, "HALF_OPEN", 0.05)
    monkeypatch.setattr(splice_module, "LINGER", 0.05)
    monkeypatch.setattr(streams_module, "QUIET_NS", 1)


def test_no_limit_strikes_headers_that_are_held_back_or_a_stream_that_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet_limits(monkeypatch)

    async def work(tapped: Tapped, server: Server) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await tapped.connect()
        writer.write(CALL)
        await server.asked.acquire()  # the server keeps its headers back
        # None of ours waits for a time to come: this loop can be asked.
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]
        server.go.set()
        assert await reader.readexactly(len(OK)) == OK
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]
        writer.write(CALL)
        assert await reader.readexactly(len(OK)) == OK

    draining(work, runner=asyncio.run, connect_timeout=0.5)


def test_a_side_left_half_open_without_a_byte_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet_limits(monkeypatch)

    async def work(tapped: Tapped, server: Server) -> None:
        reader, writer = await tapped.connect()
        writer.write(CALL)
        await server.asked.acquire()
        writer.write_eof()
        assert await reader.read() == b""

    assert draining(work).feed.bytes_of(Kind.CLOSED) == Closing.HALF_OPEN


# -- draining


class Server:
    """An upstream that reads a request and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.go = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"tools/call")
                self.asked.release()
                await self.go.wait()
                writer.write(OK)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()


def draining(
    work: Callable[[Tapped, Server], Awaitable[None]],
    *,
    runner: Callable[[Coroutine[Any, Any, Tapped]], Tapped] = uvloop.run,
    **proxy: Any,
) -> Tapped:
    async def main() -> Tapped:
        answering = Server()
        server = await asyncio.start_server(answering, "127.0.0.1", 0)
        where = upstream(*server.sockets[0].getsockname()[:2])
        async with Tapped(Proxy(where, Address("127.0.0.1", 0), **proxy)) as tapped:
            await work(tapped, answering)
        server.close()
        return tapped

    return runner(main())


def test_a_drain_ends_what_is_idle_and_waits_for_calls() -> None:
    async def work(tapped: Tapped, server: Server) -> None:
        idle, _ = await tapped.connect()
        reader, writer = await tapped.connect()
        writer.write(CALL)
        await server.asked.acquire()
        drain = asyncio.create_task(tapped.drain(5))
        while Kind.DRAIN not in tapped.feed.kinds():
            await asyncio.sleep(0)
        tapped.streams.busy([2], time.monotonic_ns())
        assert await idle.read() == b""
        assert not drain.done()
        tapped.streams.idle([2], 0)  # as of a time before its last bytes: it may have begun another call
        server.go.set()
        assert await reader.readexactly(len(OK)) == OK
        tapped.streams.idle([2], time.monotonic_ns())
        assert await reader.read() == b""
        await drain
        with pytest.raises(ConnectionRefusedError):
            await tapped.connect()

    feed = draining(work).feed
    assert feed.bytes_of(Kind.CLOSED) == Closing.DRAIN * 2


def test_without_an_answer_quiet_streams_count_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "ASK", 0.01)
    monkeypatch.setattr(streams_module, "QUIET_NS", 10_000_000)

    async def work(tapped: Tapped, server: Server) -> None:
        reader, writer = await tapped.connect()
        server.go.set()
        writer.write(CALL)
        assert await reader.readexactly(len(OK)) == OK
        await tapped.drain(30)
        assert await reader.read() == b""

    draining(work)


def test_what_is_left_at_the_deadline_is_reset() -> None:
    async def work(tapped: Tapped, server: Server) -> None:
        reader, writer = await tapped.connect()
        writer.write(CALL)
        await server.asked.acquire()
        drain = asyncio.create_task(tapped.drain(0.3))
        while Kind.DRAIN not in tapped.feed.kinds():
            await asyncio.sleep(0)
        tapped.streams.busy([1], time.monotonic_ns())
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await drain

    draining(work)


def test_a_client_that_waits_for_the_upstream_at_a_drain_gets_a_503() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())

        async def work(tapped: Tapped) -> None:
            reader, writer = await tapped.connect()
            writer.write(CALL)
            while Kind.CLIENT not in tapped.feed.kinds():
                await asyncio.sleep(0)
            drain = asyncio.create_task(tapped.drain(5))
            assert (await reader.read()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            writer.close()
            await drain

        run(Proxy(upstream("127.0.0.1", full.getsockname()[1])), work)
        for sock in waiting:
            sock.close()


# -- what is edited, and who may


@pytest.mark.parametrize(
    ("url", "host", "sent"),
    [
        (upstream("127.0.0.1", 9000), "auto", None),
        (upstream("localhost", 9000), "auto", None),
        (upstream("::1", 9000), "auto", None),
        (upstream("localhost", 9000), "upstream", b"localhost:9000"),
        (upstream("::1", 9000), "upstream", b"[::1]:9000"),
        (upstream("localhost", 9000, "https"), "auto", b"localhost:9000"),
        (upstream("api.example.com", 443, "https"), "auto", b"api.example.com"),
        (upstream("api.example.com", 443, "https"), "keep", None),
        (upstream("127.0.0.1", 9000), "mcp.example", b"mcp.example"),
    ],
)
def test_which_host_is_sent(url: Upstream, host: str, sent: bytes | None) -> None:
    assert host_to_send(Proxy(url, host=host)) == sent


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (b"localhost", True), (b"LOCALHOST:1", True), (b"127.0.0.1:6278", True), (b"127.9.9.9", True),
        (b"[::1]:6278", True), (b"[::1]", True), (b"tap.internal", True), (b"tap.internal:99", True),
        (b"named:7", True), (b"named:8", False), (b"named", False), (b"evil.example", False),
        (b"localhost.evil.example", False), (b"localhost@evil", False), (b"localhost:80:80", False), (b"", False),
        (b"[::1", False), (b"192.168.0.1", False), (b"\xff", False), (b"[::1]x", False),
    ],
)  # fmt: skip
def test_which_hosts_a_loopback_listener_answers_to(value: bytes, allowed: bool) -> None:
    proxy = Proxy(upstream("api.example.com", 80), Address("127.0.0.1", 6278), hosts=("Tap.Internal", "named:7"))
    assert host_check(proxy)(value) is allowed


def test_other_listeners_say_so_at_the_start_instead() -> None:
    proxy = Proxy(upstream("api.example.com", 443, "https"), Address("0.0.0.0", 6278))
    assert host_check(proxy)(b"anything")
    assert notices(Settings(proxy)) == [
        "warning: Host is re-written for clients of 0.0.0.0:6278: "
        "the upstream's own check against DNS rebinding cannot see theirs"
    ]
    assert notices(Settings(replace(proxy, host="keep"))) == []
    assert len(notices(Settings(replace(proxy, tls_verify=False)))) == 2


def test_reasons_are_short() -> None:
    assert why_not(socket.gaierror(-2, "Name or service not known")) == "name not known"
    assert why_not(OSError(113, "x")) == "no route to host"
    assert why_not(OSError("Multiple exceptions: [Errno 111] Connection refused, …")) == "connection refused"
    assert why_not(ValueError()) == "ValueError"


def test_a_large_answer_gives_way_to_others_after_each_piece() -> None:
    """A loop reads on from a socket that has more, 32 pieces of 256 kB in a row: nobody else gets a byte meanwhile."""
    size = 16 * 1000 * 1000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(CALL))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        writer.write(bytes(size))
        await writer.drain()
        await reader.read()

    async def work(tapped: Tapped) -> None:
        turns = 0
        seen: list[int] = []
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            ticking.append(loop.call_soon(turn))

        put = tapped.feed.put

        def noting(stream: int, kind: int, at_ns: int, payload: bytes = b"") -> None:
            if kind == Kind.SERVER and len(payload) >= splice_module.FULL:
                seen.append(turns)
            put(stream, kind, at_ns, payload)

        tapped.streams.feed = cast(Any, SimpleNamespace(put=noting))
        ticking = deque[asyncio.Handle](maxlen=1)
        turn()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        sock.setblocking(False)
        await loop.sock_connect(sock, tapped.address)
        await loop.sock_sendall(sock, CALL)
        got = 0
        while got < size:
            got += len(await loop.sock_recv(sock, 1 << 20))
        ticking[0].cancel()
        sock.close()
        assert len(seen) == len(set(seen))
        assert seen

    with serving(serve) as port:
        run(Proxy(upstream("127.0.0.1", port)), work)
