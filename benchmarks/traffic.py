"""Traffic as the relay hands it to the recorder: bytes of the channel, and the batches that are made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from mcp_tap.channel import Kind, encode, encode_json
from mcp_tap.config import Redact
from mcp_tap.model import Batch
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.recorder import Recorder
from mcp_tap.store import Writer

#: Between two records of the channel, in nanoseconds.
_STEP: Final = 20_000

_TEXT: Final = b"All work and no play. "


def _post(session: int, body: bytes) -> bytes:
    return (
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
        b"Content-Type: application/json\r\nUser-Agent: load/1.0\r\nMCP-Protocol-Version: 2025-11-25\r\n"
        b"Mcp-Session-Id: bench-%d\r\nContent-Length: %d\r\n\r\n%s" % (session, len(body), body)
    )


def _call(number: int) -> bytes:
    return (
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"search","arguments":'
        b'{"query":"what does it cost","limit":10,"cursor":null}}}' % number
    )


def _answer(number: int, size: int) -> bytes:
    text = (_TEXT * (size // len(_TEXT) + 1))[:size]
    body = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"%s"}]}}' % (number, text)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Traffic:
    """What so many clients do, each with a session and a TCP connection of its own."""

    def __init__(self, clients: int, *, now_ns: int) -> None:
        self.clients = clients
        self._now = now_ns
        self._calls = 0

    def opening(self) -> Iterator[bytes]:
        """Give their TCP connections, and the call with which each session begins, some at a time."""
        for first in range(1, self.clients + 1, 1000):
            piece = bytearray()
            for stream in range(first, min(first + 1000, self.clients + 1)):
                told = {"peer": f"127.0.0.1:{stream}", "upstream": "http://up/mcp"}
                piece += encode_json(stream, Kind.OPEN, self._tick(), told)
                piece += self._exchange(stream, 530)
            yield bytes(piece)

    def calls(self, count: int, size: int = 530, together: int = 1000) -> Iterator[bytes]:
        """Give calls, one client after the other: ``size`` bytes of text in an answer, so many calls in a piece."""
        for first in range(0, count, together):
            piece = bytearray()
            for call in range(first, min(first + together, count)):
                piece += self._exchange(call % self.clients + 1, size)
            yield bytes(piece)

    def listening(self) -> bytes:
        """Return what opens a stream of events for each of them."""
        piece = bytearray()
        for stream in range(1, self.clients + 1):
            piece += encode(stream, Kind.CLIENT, self._tick(), _post(stream, _call(stream)))
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            piece += encode(stream, Kind.SERVER, self._tick(), head)
        return bytes(piece)

    def events(self, count: int, together: int = 1000) -> Iterator[bytes]:
        """Give events of about 300 bytes, a notification each, one stream after the other."""
        text = (_TEXT * 10)[:170].decode()
        for first in range(0, count, together):
            piece = bytearray()
            for number in range(first, min(first + together, count)):
                event = (
                    'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":'
                    f'{{"level":"info","logger":"shop","data":"{number} {text}"}}}}\n\n'
                ).encode()
                chunk = b"%x\r\n%s\r\n" % (len(event), event)
                piece += encode(number % self.clients + 1, Kind.SERVER, self._tick(), chunk)
            yield bytes(piece)

    def _exchange(self, stream: int, size: int) -> bytes:
        self._calls += 1
        number = 1_000_000 + self._calls
        asked = encode(stream, Kind.CLIENT, self._tick(), _post(stream, _call(number)))
        return asked + encode(stream, Kind.SERVER, self._tick(), _answer(number, size))

    def _tick(self) -> int:
        self._now += _STEP
        return self._now


class Following:
    """The recorder's way from the channel to batches, as it is set by default, with nothing behind it."""

    def __init__(self) -> None:
        self._tracker = Tracker(Redactor(Redact(), bodies="redacted", max_body=64_000))
        # whoever has the batches writes them
        self._recorder = Recorder(self._tracker, cast(Writer, None), written=lambda _: None, notice=lambda _: None)

    def take(self, piece: bytes) -> Batch:
        """Follow a piece of the channel and return the batch that is due then."""
        # a socket gives 256 kB at most
        for at in range(0, len(piece), 262_144):
            self._recorder.data_received(piece[at : at + 262_144])
        return self._tracker.take()
