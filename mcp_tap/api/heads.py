"""What a request to the desk may cost before it is known whose it is: the size of its head, its time, its neighbours.

The desk's server has no bounds of its own for that. What it cannot read, and what is beyond the bounds, is answered
here, with the headers of every other answer.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mcp_tap.api.safety import HEADERS

#: Bytes of an address as it is sent: one that is longer cannot be taken apart. Names of tools stand in it, escaped.
MOST_OF_AN_ADDRESS: Final = 65_000

#: Bytes and fields of a whole head. Browsers send 2 kB in 20 fields, and a cookie of 4 kB at most.
MOST_OF_A_HEAD: Final = 96 * 1024
MOST_FIELDS: Final = 200

#: Seconds from the first byte that is awaited to the end of a head. Browsers connect before they have a question.
PATIENCE: Final = 30.0

#: Questions that may wait behind one that is being answered. Browsers send none before they have the answer.
MOST_WAITING: Final = 16

#: Connections at once: each open page has one, for its live stream.
MOST_CONNECTIONS: Final = 512


class BoundedHeads(HttpToolsProtocol):
    """One connection to the desk."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True  # the end of the next head is still to come
        self._read = 0  # bytes since the end of the last request
        self._refusal: tuple[int, str] | None = None
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "too many connections to the desk")

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the connection is gone."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, as long as it stays within the bounds."""
        if self._in_head:
            self._read += len(data)
            self._wait()
        super().data_received(data)
        # the parser keeps a field until it is whole, so only the bytes themselves tell how much that is
        if self._in_head and self._read > MOST_OF_A_HEAD:
            self._refuse(431, f"the head of a request is {MOST_OF_A_HEAD} bytes at most")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; raises where there are too many."""
        if len(self.headers) == MOST_FIELDS:
            self._give_up(431, f"a request has {MOST_FIELDS} header fields at most")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer; raises where the head is too long, or too much is waiting already."""
        if len(self.url) > MOST_OF_AN_ADDRESS:
            self._give_up(414, "the address is too long to be one of the desk's")
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MOST_OF_A_HEAD:
            self._give_up(431, f"the head of a request is {MOST_OF_A_HEAD} bytes at most")
        if len(self.pipeline) == MOST_WAITING:
            self._give_up(503, "too many requests before the first is answered")
        self._in_head = False
        self._wait_no_longer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect another head."""
        self._in_head, self._read = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say no to what cannot be read, and end the connection: where the next request begins is not known."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # else it would land in the middle of another answer
            self.transport.write(_answer(*(self._refusal or (400, "this is no HTTP/1.1 request"))))
        self.transport.close()

    def _give_up(self, status: int, what: str) -> None:
        """Leave the parser: what it is told to raise ends in `send_400_response`."""
        self._refusal = status, what
        raise ValueError(what)

    def _refuse(self, status: int, what: str) -> None:
        self._refusal = status, what
        self.send_400_response(what)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(PATIENCE, self._waited)

    def _wait_no_longer(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _waited(self) -> None:
        if self._read:
            self._refuse(408, f"the head of a request takes {PATIENCE:g} s at most")
        else:
            self.transport.close()  # nobody asked anything


def _answer(status: int, what: str) -> bytes:
    body = f"mcp-tap: {what}\n".encode()
    fields = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), "connection": "close"}
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    head += [f"{name}: {value}" for name, value in (fields | HEADERS | {"cache-control": "no-store"}).items()]
    return "\r\n".join([*head, "", ""]).encode() + body
