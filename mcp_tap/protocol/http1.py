"""Follows HTTP/1 on a copy of the bytes (RFC 9112).

A follower must never be stricter than the two ends: they talk to each other, we only listen. So it accepts what
servers in the field accept (bare LF, folded lines, odd methods), and where it cannot know where a message ends it says
so once, as `Broken`, and is silent from there on. Nothing is guessed: a request that servers read in two ways (request
smuggling lives of these, RFC 9112 §11.2) would put calls into the record that nobody made.

There is one reader for each direction. The reader of responses asks which method it is answering, because the
length of a response depends on it (RFC 9112 §6.3: HEAD, CONNECT).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

#: A head longer than this is given up. Servers stop between 8 kB (nginx) and 64 kB (uvicorn); MCP sets no limit.
MAX_HEAD: Final = 256 * 1024

#: Heads up to this size are remembered, because they come again and again. A stranger's huge ones are not.
MAX_CACHED: Final = 4096

#: So many of each direction: a thousand sessions that call in turn, with a few lengths each, still find theirs.
HEADS_KEPT: Final = 4096

#: A chunk-size line with its extensions; real ones are under 20 bytes.
MAX_CHUNK_LINE: Final = 16 * 1024

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") +(\S+) +HTTP/(\d)\.(\d) *\Z")
_STATUS_LINE: Final = re.compile(rb"HTTP/(\d)\.(\d) +(\d{3})(?: (.*))?\Z", re.DOTALL)
_REQUEST_START: Final = re.compile(_TOKEN + rb" \S+ HTTP/1\.[01]\r?\n")
_BLANK: Final = re.compile(rb"\n\r?\n")
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")

#: What readers make different heads of: a CR that ends no line (RFC 9112 §2.2), and white space before the colon of a
#: field that frames (§5.1), or such a field folded (§5.2).
_TWO_READINGS: Final = re.compile(
    rb"\r(?!\n|\Z)|\n(?:content-length|transfer-encoding)(?:[ \t]+:|[^\n]*\n[ \t])", re.IGNORECASE
)

#: Header names in lower case; repeated ones joined by ", " (RFC 9110 §5.3).
Headers = dict[bytes, bytes]

#: How the end of a body is known, where it is not by a length: by its last chunk, or by the end of the connection.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


@dataclass(slots=True, frozen=True, eq=False)
class Request:
    """The head of a request. It may be that of many: a client repeats its head, and equal heads are read once."""

    method: str
    target: str  # as sent; bytes beyond ASCII read as Latin-1
    minor: int  # HTTP/1.minor
    headers: Headers
    repeats: bool  # whether it is remembered: then what is worked out of it is worth remembering, too
    kind: bytes  # Content-Type in lower case, without its parameters
    coding: bytes | None  # Content-Encoding
    length: int  # of the body in bytes, or CHUNKED
    flaw: str | None  # why the end of the body cannot be known


@dataclass(slots=True, frozen=True, eq=False)
class Response:
    """The head of a response, final or interim."""

    status: int
    reason: str
    minor: int
    headers: Headers
    repeats: bool
    kind: bytes
    coding: bytes | None
    length: int  # of the body in bytes, or CHUNKED or UNTIL_CLOSE; a method or a status may say that there is none
    flaw: str | None


class End(Enum):
    """The end of a message."""

    COMPLETE = auto()  # its length was reached
    BY_CLOSE = auto()  # a response whose length is the end of the connection
    TUNNEL = auto()  # from here on the bytes are no HTTP (101, CONNECT)


@dataclass(slots=True, frozen=True)
class Broken:
    """The point from which the bytes cannot be followed, and why."""

    reason: str


#: What a reader reports, in order: a head, pieces of its body, its end. Interim responses have no end.
Part = Request | Response | bytes | End | Broken


class _State(Enum):
    HEAD = auto()  # between two messages, or in a head
    FIXED = auto()
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_CLOSE = auto()
    SILENT = auto()  # broken or tunnelled
    LOST = auto()  # pieces are missing: wait for the next head


# Looking up the member of an enumeration costs as much as a call, and these are looked up with every piece.
_HEAD, _FIXED, _CHUNK_SIZE, _CHUNK_DATA = _State.HEAD, _State.FIXED, _State.CHUNK_SIZE, _State.CHUNK_DATA
_COMPLETE = End.COMPLETE


class _Reader:
    """What both directions share: collecting heads and counting bodies."""

    __slots__ = ("_rest", "_searched", "_state", "_todo")

    def __init__(self) -> None:
        self._state = _HEAD
        self._rest = bytearray()  # unread bytes of a head, a chunk line or a trailer
        self._searched = 0  # how far _rest was searched for its end: a slow sender must not cost square time
        self._todo = 0  # bytes left of a counted body or chunk

    @property
    def inside(self) -> bool:
        """Whether a message has begun and its end was not seen."""
        if self._state is _HEAD:
            return bool(self._rest)
        return self._state is not _State.SILENT and self._state is not _State.LOST

    def lose(self) -> None:
        """Forget where we are: pieces are missing. The next piece that starts with a head starts anew."""
        if self._state is not _State.SILENT:
            self._state = _State.LOST
        self._rest.clear()
        self._searched = 0

    def feed(self, data: bytes) -> list[Part]:
        """Return what ``data`` adds."""
        parts: list[Part] = []
        if self._rest:
            self._rest += data
            if not self._rest_ends(parts):
                return parts
            data = bytes(self._rest)
            self._rest.clear()
            self._searched = 0
        at, size = 0, len(data)
        while at < size:
            state = self._state
            if state is _HEAD:
                at = self._read_head(data, at, parts)
            elif state is _FIXED or state is _CHUNK_DATA:
                todo = self._todo
                if todo > size - at:
                    parts.append(data[at:] if at else data)
                    self._todo = todo - (size - at)
                    break
                end = at + todo
                parts.append(data[at:end] if at or end < size else data)
                at, self._todo = end, 0
                if state is _FIXED:
                    self._state = _HEAD
                    parts.append(_COMPLETE)
                else:
                    self._state = _State.CHUNK_END
            elif state is _CHUNK_SIZE and (line := _CHUNK_LINE.match(data, at)) is not None:
                # a chunk that is all there takes one step: streams are made of them
                begin, todo = line.end(), int(line[1], 16)
                end = begin + todo
                if todo and data[end : end + 2] == b"\r\n":
                    parts.append(data[begin:end])
                    at = end + 2
                else:
                    at = self._read_line(data, at, parts)
            elif state is _State.UNTIL_CLOSE:
                parts.append(data[at:])
                break
            elif state is _State.LOST:
                if at or not self._starts(data):
                    break
                self._state = _HEAD
            elif state is _State.SILENT:
                break
            else:
                at = self._read_line(data, at, parts)
        return parts

    def end(self) -> list[Part]:
        """Return what the end of this direction adds: a body that runs until the close is complete with it."""
        if self._state is _State.UNTIL_CLOSE:
            self._state = _State.SILENT
            return [End.BY_CLOSE]
        return []

    # Private: heads

    def _starts(self, data: bytes) -> bool:
        raise NotImplementedError

    def _open(self, head: bytes, parts: list[Part]) -> None:
        raise NotImplementedError

    def _finish(self, parts: list[Part]) -> None:
        self._state = _HEAD
        parts.append(End.COMPLETE)

    def _break(self, reason: str, parts: list[Part]) -> None:
        self._state = _State.SILENT
        self._rest.clear()
        parts.append(Broken(reason))

    def _keep(self, rest: bytes, parts: list[Part]) -> None:
        """Wait for the end of a head or a line that is not all there."""
        self._rest[:] = rest
        self._rest_ends(parts)

    def _rest_ends(self, parts: list[Part]) -> bool:
        """Whether what was kept has its end by now. Gives up when it is longer than anything real."""
        rest, searched, self._searched = self._rest, self._searched, len(self._rest)
        if self._state is _State.HEAD:
            ended = rest.find(b"\n\r\n", max(0, searched - 2)) >= 0 or rest.find(b"\n\n", max(0, searched - 1)) >= 0
        else:
            ended = rest.find(b"\n", searched) >= 0
        if not ended and len(rest) > (MAX_CHUNK_LINE if self._state is _State.CHUNK_SIZE else MAX_HEAD):
            self._break("head or chunk line too long", parts)
        return ended

    def _read_head(self, data: bytes, at: int, parts: list[Part]) -> int:
        # RFC 9112 §2.2: empty lines before a start line are ignored, a bare LF may end a line
        while data[at] in b"\r\n":
            at += 1
            if at == len(data):
                return at
        # the usual end is looked for nearby only: a thousand heads with the other one must not cost square time
        end = data.find(b"\n\r\n", at, at + MAX_CACHED)
        if end >= 0 and data.find(b"\n\n", at, end + 1) < 0:
            self._open(data[at:end], parts)
            return end + 3
        blank = _BLANK.search(data, at)
        if blank is None:
            self._keep(data[at:], parts)
            return len(data)
        self._open(data[at : blank.start()], parts)
        return blank.end()

    # Private: chunked bodies (RFC 9112 §7.1)

    def _read_line(self, data: bytes, at: int, parts: list[Part]) -> int:
        lf = data.find(b"\n", at)
        if lf < 0:
            self._keep(data[at:], parts)
            return len(data)
        line = data[at:lf].rstrip(b"\r")
        if self._state is _State.CHUNK_SIZE:
            size = line.split(b";", 1)[0].strip(b" \t")
            if not _HEX.match(size):
                self._break("chunk size is no hexadecimal number", parts)
                return len(data)
            self._todo = int(size, 16)
            self._state = _State.CHUNK_DATA if self._todo else _State.TRAILERS
        elif self._state is _State.CHUNK_END:
            if line:
                self._break("chunk longer than its size", parts)
                return len(data)
            self._state = _State.CHUNK_SIZE
        elif not line:
            self._finish(parts)
        return lf + 1

    def _begin_body(self, length: int, flaw: str | None, parts: list[Part]) -> None:
        if flaw is not None:
            self._break(flaw, parts)
        elif length > 0:
            self._todo = length
            self._state = _FIXED
        elif length == 0:
            self._finish(parts)
        else:
            self._state = _CHUNK_SIZE if length == CHUNKED else _State.UNTIL_CLOSE


class RequestReader(_Reader):
    """Follows the bytes of a client."""

    __slots__ = ()

    def _starts(self, data: bytes) -> bool:
        return _REQUEST_START.match(data) is not None

    def _open(self, head: bytes, parts: list[Part]) -> None:
        request = _read_request(head) if len(head) <= MAX_CACHED else _read_request.__wrapped__(head)
        if isinstance(request, Broken):
            self._break(request.reason, parts)
            return
        parts.append(request)
        self._begin_body(request.length, request.flaw, parts)

    def tunnel(self) -> None:
        """Stop following: the connection was handed to another protocol."""
        self._state = _State.SILENT
        self._rest.clear()


class ResponseReader(_Reader):
    """Follows the bytes of a server. ``answering`` returns the method of the oldest request without an answer."""

    __slots__ = ("_answering",)

    def __init__(self, answering: Callable[[], str | None]) -> None:
        super().__init__()
        self._answering = answering

    def _starts(self, data: bytes) -> bool:
        return data.startswith(b"HTTP/1.")

    def _open(self, head: bytes, parts: list[Part]) -> None:
        response = _read_response(head) if len(head) <= MAX_CACHED else _read_response.__wrapped__(head)
        if isinstance(response, Broken):
            self._break(response.reason, parts)
            return
        parts.append(response)
        status, method = response.status, self._answering()
        if status == 101 or (method == "CONNECT" and 200 <= status < 300):
            self._state = _State.SILENT
            parts.append(End.TUNNEL)
        elif 100 <= status < 200:
            pass  # interim: the final response follows (RFC 9110 §15.2)
        elif status in (204, 304) or method == "HEAD":
            self._finish(parts)
        else:
            self._begin_body(response.length, response.flaw, parts)


# A client repeats its head with every call of the same length, a server with every answer of the same second.
# The entries hold credentials like the exchanges they came from: in memory only, and few.


@lru_cache(HEADS_KEPT)
def _read_request(head: bytes) -> Request | Broken:
    line, headers = _split(head)
    match = _REQUEST_LINE.match(line)
    if match is None:
        return Broken("not an HTTP/1 request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        return Broken("not HTTP/1")
    length, flaw = _framing(headers, response=False)
    return Request(
        method.decode("ascii"),
        target.decode("latin-1"),
        int(minor),
        headers,
        len(head) <= MAX_CACHED,
        *_content(headers),
        length,
        flaw or _ambiguity(head, int(minor), headers),
    )


@lru_cache(HEADS_KEPT)
def _read_response(head: bytes) -> Response | Broken:
    line, headers = _split(head)
    match = _STATUS_LINE.match(line)
    if match is None:
        return Broken("not an HTTP/1 status line")
    major, minor, status, reason = match.groups()
    if major != b"1":
        return Broken("not HTTP/1")
    return Response(
        int(status),
        (reason or b"").decode("latin-1"),
        int(minor),
        headers,
        len(head) <= MAX_CACHED,
        *_content(headers),
        *_framing(headers, response=True),
    )


def _content(headers: Headers) -> tuple[bytes, bytes | None]:
    """Return what a body is, and how it is coded."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind, headers.get(b"content-encoding") or None


def _framing(headers: Headers, *, response: bool) -> tuple[int, str | None]:
    """Return how the end of the body is known, and why it cannot be (RFC 9112 §6.3)."""
    coding = headers.get(b"transfer-encoding")
    length = headers.get(b"content-length")
    if coding is not None:
        # chunked is the last coding, or the length is unknown; it beats a Content-Length beside it
        if coding.lower().rpartition(b",")[2].strip() == b"chunked":
            return CHUNKED, None
        return UNTIL_CLOSE, None if response else "request with a transfer coding that is not chunked"
    if length is None:
        return UNTIL_CLOSE if response else 0, None
    if not length.isdigit():  # the same number several times is one (§6.3 item 5)
        values = {value.strip() for value in length.split(b",")}
        length = values.pop() if len(values) == 1 else b""
    if not length.isdigit() or len(length) > 18:
        return 0, "content length is no single number"
    return int(length), None


def _ambiguity(head: bytes, minor: int, headers: Headers) -> str | None:
    """Return why servers may differ about the end of a request."""
    if _TWO_READINGS.search(head):
        return "a head that can be read in two ways"
    codings = headers.get(b"transfer-encoding")
    if codings is None:
        return None
    if b"content-length" in headers:
        return "both a content length and a transfer coding"
    if minor == 0:
        return "a transfer coding in HTTP/1.0"
    many = [coding.strip() for coding in codings.lower().split(b",")].count(b"chunked") > 1
    return "chunked more than once" if many else None


def forget() -> None:
    """Forget the heads that came lately: while nothing comes, they only hold memory."""
    _read_request.cache_clear()
    _read_response.cache_clear()


def _split(head: bytes) -> tuple[bytes, Headers]:
    """Return the start line and the headers of a head without its blank line."""
    lines = head.replace(b"\r\n", b"\n").rstrip(b"\r").split(b"\n")
    headers: Headers = {}
    name = b""
    for line in lines[1:]:
        if line[:1] in (b" ", b"\t"):  # obs-fold (RFC 9112 §5.2)
            if name in headers:
                headers[name] += b" " + line.strip(b" \t")
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            continue  # neither end fails on a line without a colon; nothing in it concerns us
        name = name.strip(b" \t").lower()
        value = value.strip(b" \t")
        headers[name] = headers[name] + b", " + value if name in headers else value
    return lines[0], headers
