"""The one edit in what a server sends: where its `endpoint` event says that messages go.

In the 2024-11-05 transport (MCP specification 2024-11-05, "HTTP with SSE") a client opens an event stream with GET,
and the first event names the URI for its POSTs. Servers may send it as an absolute URL. Where `Host` was re-written
that URL names the server itself, clients follow it or refuse it for not being of the origin that they connected to,
and both ways the tap is passed by. So in that one event scheme and authority become those that the client used.

Theory of operation. `EndpointEvent` sees the body of such a stream from its first byte to the end of its first event.
What is no event (comments, a lone `retry`) goes on at once, as far as nothing before it must wait. Of the event
nothing goes on before its end, since only then it is known what it is; a client could not use less either. Then it is
let go, edited or as it came, and everything after it passes untouched. In a chunked body (RFC 9112 §7.1) an edit
changes sizes: the chunks that were kept become one, which ends where the last of them does.

Whatever is not the expected event in the expected form is left as it is. Any cut of the bytes gives the same result.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mcp_tap.relay.chunks import Chunks

#: Bytes kept back at the most. A URL has a few hundred; a first event beyond this is another kind of stream.
MOST_KEPT: Final = 64 * 1024

_ORIGIN: Final = re.compile(
    rb"(https?)://(\[[0-9a-f:.]+\]|[^][/?#@:\\\s]+)(?::([0-9]{1,5})?)?(?=[/?#]|$)", re.IGNORECASE
)
_LINE_END: Final = re.compile(rb"[\r\n]")
_BOM: Final = b"\xef\xbb\xbf"
_PORTS: Final = {b"http": 80, b"https": 443}

#: Scheme, host and port, as RFC 6454 compares them.
Origin = tuple[bytes, bytes, int]


def origin(url: str | bytes) -> Origin | None:
    """Return the origin of an absolute http or https URL, or None for whatever is none."""
    match = _ORIGIN.match(url.encode() if isinstance(url, str) else url)
    if match is None:
        return None
    scheme = match[1].lower()
    return scheme, match[2].lower(), int(match[3] or _PORTS[scheme])


class Endpoints(NamedTuple):
    """Which URLs are the server's own, and the scheme by which clients reach the tap instead."""

    origins: frozenset[Origin | None]
    scheme: bytes


class EndpointEvent:
    """The body of one event stream up to the end of its first event.

    ``authority`` is the `Host` that the client sent. ``chunks`` walks the body where it is chunked; without it the
    body ends when the connection does.
    """

    __slots__ = (
        "_at",
        "_authority",
        "_body",
        "_chunks",
        "_cr",
        "_data",
        "_endpoints",
        "_line",
        "_raw",
        "_type",
        "done",
    )

    def __init__(self, endpoints: Endpoints, authority: bytes, chunks: Chunks | None) -> None:
        self.done = False  # everything that follows passes as it comes
        self._endpoints = endpoints
        self._authority = authority
        self._chunks = chunks
        self._raw = bytearray()  # kept, as it came; begins with the size of a chunk where there are chunks
        self._body = bytearray()  # the same without chunk sizes
        self._at = 0  # up to here the body has been searched for the end of a line
        self._line = -1  # where that line begins; -1 before a byte order mark could have been seen
        self._cr = False  # the line before it ended with CR, to which a LF may belong
        self._type: bytes | None = None  # of the event, where one was given
        self._data: list[tuple[int, int]] = []  # where the values of its data lines are

    def feed(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Return what may go on, and the offset up to which ``data`` was used: all of it, unless ``done``."""
        out = b""
        size = len(data)
        while at < size and not self.done:
            chunks = self._chunks
            if chunks is None or chunks.left:
                end = size if chunks is None else chunks.skip(at, size)
                self._raw += data[at:end]
                self._body += data[at:end]
                out += self._look()
            else:
                end = chunks.line(data, at)
                self._raw += data[at:end]
                if chunks.done or chunks.bad or len(self._raw) > MOST_KEPT:
                    out += self._let_go()
                elif chunks.between and self._nothing_kept:
                    out += self.rest()
            at = end
        return out, at

    def rest(self) -> bytes:
        """Return what is kept, as it came, and keep it no longer."""
        rest = bytes(self._raw)
        self._raw.clear()
        self._body.clear()
        self._at = self._line = 0
        return rest

    def _let_go(self) -> bytes:
        self.done = True
        return self.rest()

    @property
    def _nothing_kept(self) -> bool:
        """Whether all that has come are whole lines that are no part of an event's type or data."""
        return self._type is None and not self._data and self._line == len(self._body)

    def _look(self) -> bytes:
        """Look at what is new in the body and return what may go on."""
        body = self._body
        if self._line < 0:
            if len(body) < len(_BOM) and _BOM.startswith(body):
                return b""
            self._line = len(_BOM) if body.startswith(_BOM) else 0
        out = b""
        while (match := _LINE_END.search(body, self._at)) is not None and match.start() < MOST_KEPT:
            start, end = self._line, match.start()
            self._line = self._at = end + 1
            belongs, self._cr = self._cr and start == end and match[0] == b"\n", match[0] == b"\r"
            if start < end:
                self._field(start, end)
            elif self._data and not belongs:
                return out + self._event()
            elif not belongs:
                self._type = None  # an event without data is none
            if self._chunks is None and self._type is None and not self._data:
                out += self._raw[: end + 1]
                del self._raw[: end + 1], body[: end + 1]
                self._at = self._line = 0
        if match is None:
            self._at = len(body)
        return out if len(body) <= MOST_KEPT else out + self._let_go()

    def _field(self, start: int, end: int) -> None:
        """Take a line that is not blank (HTML, "Server-sent events", 9.2.6: interpreting an event stream)."""
        name, colon, value = self._body[start:end].partition(b":")
        value_at = start + len(name) + len(colon) + value.startswith(b" ")
        if name == b"event":
            self._type = bytes(self._body[value_at:end])
        elif name == b"data":
            self._data.append((value_at, end))

    def _event(self) -> bytes:
        """Let the event go, edited where it is the one."""
        start, end = self._data[0]
        url = bytes(self._body[start:end])
        match = _ORIGIN.match(url)
        if (
            self._type != b"endpoint"
            or len(self._data) > 1
            or match is None
            or origin(url) not in self._endpoints.origins
        ):
            return self._let_go()
        edited = self._endpoints.scheme + b"://" + self._authority + url[match.end() :]
        if edited != url:
            self._body[start:end] = edited
            self._raw[:] = self._body
            if self._chunks is not None:
                self._raw[:0] = b"%x\r\n" % (len(self._body) + self._chunks.left)
        return self._let_go()
