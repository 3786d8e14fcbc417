"""Requests whose end two readers may see in two places, and targets that name another server.

In blind mode the bytes pass as they came, and the server decides, as it does without the tap; the record believes
nothing of what it cannot follow. In framed mode, where heads are edited, they are refused, and no byte reaches the
server.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tap import PATIENCE, Tap, running

CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"smuggled","arguments":{}}}'
HIDDEN = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (
    len(CALL)
)
HEAD = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"

#: Each shape, with a second request behind it where a lenient reader would see one.
SHAPES = {
    "CL.TE": HEAD + b"content-length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN + CALL,
    "TE.CL": HEAD + CHUNKED + b"content-length: 4\r\n\r\n5c\r\n" + HIDDEN + CALL,
    "two lengths": HEAD + b"content-length: 0\r\ncontent-length: 44\r\n\r\n" + HIDDEN + CALL,
    "two lengths in one": HEAD + b"content-length: 0, 44\r\n\r\n" + HIDDEN + CALL,
    "a signed length": HEAD + b"content-length: +0\r\n\r\n" + HIDDEN + CALL,
    "a length beyond 64 bits": HEAD + b"content-length: 18446744073709551616\r\n\r\n" + HIDDEN + CALL,
    "chunked and not last": HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN + CALL,
    "chunked twice": HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN + CALL,
    "chunked with a tail": HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN + CALL,
    "chunked in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN + CALL,
    "a chunk size with a sign": HEAD + CHUNKED + b"\r\n+0\r\n\r\n" + HIDDEN + CALL,
    "a chunk size in 0x": HEAD + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN + CALL,
    "a chunk size that overflows": HEAD + CHUNKED + b"\r\n10000000000000000\r\n\r\n" + HIDDEN + CALL,
    "a chunk longer than it says": HEAD + CHUNKED + b"\r\n1\r\nabc\r\n0\r\n\r\n" + HIDDEN + CALL,
    "a folded length": HEAD + b"content-length:\r\n 0\r\n\r\n" + HIDDEN + CALL,
    "white space before the colon": HEAD + b"content-length : 0\r\n\r\n" + HIDDEN + CALL,
    "a bare CR in a field": HEAD + b"x: a\rcontent-length: 44\r\n\r\n" + HIDDEN + CALL,
    "no version": b"GET /mcp\r\n\r\n" + HIDDEN + CALL,
    "no HTTP at all": b"\x16\x03\x01\x02\x00" + HIDDEN + CALL,
}

#: What only looks like one: framing is plain, and every reader sees the same. It passes in both modes.
PLAIN = {
    "bare LF": HEAD.replace(b"\r\n", b"\n") + b"content-length: 2\n\n{}",
    "two equal lengths": HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a request in a body": HEAD + b"content-length: %d\r\n\r\n" % len(HIDDEN + CALL) + HIDDEN + CALL,
    "a request in a chunk": HEAD + CHUNKED + b"\r\n%x\r\n" % len(HIDDEN + CALL) + HIDDEN + CALL + b"\r\n0\r\n\r\n",
    "absolute form": b"GET http://%b/secret HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "authority form": b"CONNECT %b HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "two slashes": b"GET //%b/secret HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


class Listening:
    """A server that keeps what each connection sends and answers none of it."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._more = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._read, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _read(self, connection: socket.socket) -> None:
        with connection:
            whole = b""
            try:
                while data := connection.recv(65536):
                    whole += data
            except OSError:
                pass
        with self._more:
            self.got.append(whole)
            self._more.notify()

    def next(self) -> bytes:
        """Return what the next connection sent, as soon as it has ended."""
        with self._more:
            assert self._more.wait_for(lambda: self.got, PATIENCE)
            return self.got.pop(0)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in (self._accepting, *self._threads):
            thread.join(PATIENCE)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Listening]:
    listening = Listening()
    yield listening
    listening.close()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Listening]:
    """Be a server inside of the network that nobody may be led to."""
    listening = Listening()
    yield listening
    listening.close()


@contextlib.contextmanager
def tapped(upstream: Listening, directory: Path, *options: str) -> Iterator[Tap]:
    with running(f"http://{upstream.address}/mcp", directory / "tap.db", *options) as tap:
        assert upstream.next() == b""  # whether anybody is here was looked at
        yield tap
        assert tap.stop() == 0


@pytest.fixture(scope="module")
def blind(upstream: Listening, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tap]:
    with tapped(upstream, tmp_path_factory.mktemp("blind")) as tap:
        yield tap


@pytest.fixture(scope="module")
def framed(upstream: Listening, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tap]:
    directory = tmp_path_factory.mktemp("framed")
    settings = directory / "mcp-tap.toml"
    settings.write_text('[proxy]\nhost = "upstream"\n')
    with tapped(upstream, directory, "-c", str(settings)) as tap:
        yield tap


def send(tap: Tap, data: bytes) -> bytes:
    """Send something to the tap, as one who has nothing more to say, and return what is answered."""
    host, _, port = tap.proxy.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        told = b""
        try:
            while more := sock.recv(65536):
                told += more
        except ConnectionResetError:
            pass
        return told


def recorded(tap: Tap, upstream: Listening, before: int) -> list[dict[str, object]]:
    """Return the lines of a timeline that came after a number, up to now."""
    marker = f"GET /marker/{before}"
    send(tap, f"{marker} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    upstream.next()
    query = f"SELECT type, name FROM events WHERE pk > {before} ORDER BY pk"
    tap.until(lambda: any(line["name"] == marker for line in tap.rows(query)))
    return [line for line in tap.rows(query) if line["name"] != marker]


def newest(tap: Tap) -> int:
    newest = tap.rows("SELECT coalesce(max(pk), 0) AS pk FROM events")[0]["pk"]
    assert isinstance(newest, int)
    return newest


@pytest.mark.parametrize("shape", SHAPES)
def test_blind_the_server_gets_what_was_sent(shape: str, blind: Tap, upstream: Listening) -> None:
    assert send(blind, SHAPES[shape]) == b""
    assert upstream.next() == SHAPES[shape]


def test_the_record_believes_nothing_of_what_may_stand_behind_a_request(blind: Tap, upstream: Listening) -> None:
    recorded(blind, upstream, newest(blind))  # what came before is written
    before = newest(blind)
    for shape in SHAPES.values():
        send(blind, shape)
        upstream.next()
    # of each the first request is there, and nothing else
    assert [line["type"] for line in recorded(blind, upstream, before)] == ["http"] * len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
def test_framed_what_may_be_a_second_request_never_reaches_the_server(
    shape: str, framed: Tap, upstream: Listening
) -> None:
    assert send(framed, SHAPES[shape]).startswith(b"HTTP/1.1 400 ")
    passed = upstream.next()
    # a head whose body turns out to have no end has passed already, and is reset before anything more does
    assert passed == b"" or (CHUNKED in passed and passed.endswith(b"\r\n"))
    assert b"smuggled" not in passed


@pytest.mark.parametrize("shape", PLAIN)
def test_whatever_a_target_names_only_the_server_is_asked(
    shape: str, blind: Tap, framed: Tap, upstream: Listening, elsewhere: Listening
) -> None:
    data = PLAIN[shape].replace(b"%b", elsewhere.address.encode())
    send(blind, data)
    assert upstream.next() == data
    send(framed, data)
    # of the head the value of Host is the server's own
    assert upstream.next() == data.replace(b"host: localhost", b"host: " + upstream.address.encode(), 1)
    assert elsewhere.got == []
