"""One TCP connection and the HTTP exchanges on it: pieces of bytes in, JSON-RPC frames and endings out.

A `Stream` pairs requests with responses, and an `Exchange` collects what the record needs of one pair: its heads,
its sizes, its times, and the JSON-RPC messages of both sides as soon as each is complete. What they mean is decided
by the observer, which is the tracker.

Bodies are held up to MAX_BODY; of a longer one sizes, times and status are known, and why nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Protocol

from mcp_tap.channel import Closing
from mcp_tap.protocol import jsonrpc
from mcp_tap.protocol.content import MAX_PLAIN, ContentError, Decoder, TooLargeError
from mcp_tap.protocol.http1 import Broken, End, Request, RequestReader, Response, ResponseReader
from mcp_tap.protocol.revisions import LASTING
from mcp_tap.protocol.sse import SseReader

#: Bytes of one body that are held for decoding.
MAX_BODY: Final = MAX_PLAIN

#: Of an answer that is no JSON-RPC, this much is kept: enough to say what an error page says.
MAX_EXCERPT: Final = 2048

#: SSE events of one answer whose times are kept.
MAX_TIMES: Final = 1000

#: Requests on one TCP connection that may be without an answer; SDKs have one.
MAX_OPEN: Final = 10_000

TOO_LARGE: Final = "too large"


class Ended(Enum):
    """How an exchange came to its end."""

    COMPLETE = auto()  # the response reached its end
    CLIENT_GONE = auto()  # the client left before that
    SERVER_GONE = auto()  # the server broke off, or closed without an answer
    UNREACHABLE = auto()  # the tap could not connect and answered itself
    STOPPED = auto()  # the tap itself was stopped
    LOST = auto()  # pieces never reached the recorder: what happened is not known
    BROKEN = auto()  # the bytes cannot be followed any further


# Looking up the member of an enumeration costs as much as a call, and these are looked up for every exchange.
_COMPLETE: Final = End.COMPLETE
_AT_ITS_END: Final = Ended.COMPLETE

#: What has come of a body. The usual one piece is not copied, a million tiny ones are not a million objects.
_Body = bytes | bytearray


def _joined(body: _Body, piece: bytes) -> _Body:
    if isinstance(body, bytes):
        body = bytearray(body)
    body += piece
    return body


class Exchange:
    """One HTTP request and its response. Times are microseconds since ``at_us``, sizes are bytes on the wire."""

    __slots__ = (
        "_body",
        "_content",
        "_json",
        "_later",
        "_sse",
        "_unreadable",
        "announced",
        "at_us",
        "event_id",
        "excerpt",
        "first_byte_us",
        "first_event_us",
        "headers_us",
        "last_byte_us",
        "lasting",
        "link",
        "lost",
        "request",
        "request_size",
        "response",
        "response_size",
        "sse_times",
        "stream",
    )

    def __init__(self, stream: Stream, request: Request, at_us: int) -> None:
        self.stream = stream
        self.request = request
        self.at_us = at_us
        self.request_size = 0
        self.response: Response | None = None
        self.response_size = 0
        self.headers_us: int | None = None
        self.first_byte_us: int | None = None
        self.first_event_us: int | None = None
        self.last_byte_us: int | None = None  # so far
        self.event_id: str | None = None  # of the SSE event whose messages the observer is hearing
        self.sse_times: list[int] = []
        self.excerpt = b""
        self.lost = 0  # pieces of the stream that never reached the recorder while this was open
        self.announced = False  # the observer was told of the request
        self.lasting = request.method == "GET"  # its end is somebody's decision: no call in flight
        self.link: Any = None  # the observer's own
        self._body: _Body = b""  # of the request
        self._later: list[Callable[[], None]] | None = None  # of an answer that came before the request was whole
        self._content: Decoder | None = None
        self._unreadable: str | None = None
        self._sse: SseReader | None = None
        self._json: _Body | None = None  # None where the answer is no JSON

    @property
    def is_sse(self) -> bool:
        """Whether the answer is an event stream."""
        return self._sse is not None

    @property
    def status(self) -> int:
        """The HTTP status of the answer, 0 where there is none."""
        return self.response.status if self.response is not None else 0

    @property
    def succeeded(self) -> bool:
        """Whether the answer is a 2xx."""
        return 200 <= self.status < 300

    @property
    def error_text(self) -> str:
        """What an error page says, or the reason phrase."""
        text = " ".join(self.excerpt.decode("utf-8", "replace").split())
        return text or (self.response.reason if self.response is not None else "")

    @property
    def last_event_id(self) -> str | None:
        """The id of the last SSE event that carried one: where the stream carries any, it can be resumed."""
        return self._sse.last_id if self._sse else None

    # The request

    def request_piece(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        self.request_size += len(data)
        if not self._body:
            self._body = data
        else:
            self._body = _joined(self._body, data)
        if self.request_size > MAX_BODY:
            self._body = b""

    def request_done(self, at_us: int, *, whole: bool = True) -> None:
        """Read the request, as far as it came, and tell the observer of it and of what was answered meanwhile."""
        if self.announced:
            return
        self.announced = True
        frames: list[jsonrpc.Frame] = []
        reason = None
        body, self._body = self._body, b""
        if not whole:
            reason = "the request did not come to its end"
        elif self.request_size > MAX_BODY:
            reason = TOO_LARGE
        elif body and self.request.method == "POST":
            try:
                frames = self._read_request(bytes(body))
            except ContentError as error:
                reason = str(error)
        for envelope, _ in frames:
            if isinstance(envelope, jsonrpc.Envelope) and envelope.method in LASTING:
                self.lasting = True
        self.stream.observer.requested(self, frames, reason, at_us)
        if self._later is not None:
            later, self._later = self._later, None
            for tell in later:
                tell()

    def end(self, how: Ended, at_us: int) -> None:
        """Tell the observer that nothing more will come of this exchange."""
        if self.announced or how is Ended.LOST:
            self.stream.observer.ended(self, how, at_us)
        else:
            self._tell_later(lambda: self.stream.observer.ended(self, how, at_us))

    def _tell_later(self, tell: Callable[[], None]) -> None:
        """Keep something for the observer until it was told of the request."""
        if self._later is None:
            self._later = []
        self._later.append(tell)

    def _read_request(self, body: bytes) -> list[jsonrpc.Frame]:
        request = self.request
        if request.coding is not None:
            body = Decoder(request.coding).feed(body)
        kind = request.kind
        # a form or a plain text is no failed JSON-RPC: OAuth's token requests pass here too
        if b"json" in kind or (not kind and body.lstrip()[:1] in (b"{", b"[")):
            return jsonrpc.read(body)
        return []

    # The response

    def response_head(self, response: Response, at_us: int) -> None:
        """Take the head of the final response and choose how its body will be read."""
        self.response = response
        self.headers_us = at_us - self.at_us
        kind = response.kind
        unknown = None
        if response.coding is not None:
            try:
                self._content = Decoder(response.coding)
            except ContentError as error:
                unknown = str(error)
        if kind == b"text/event-stream":
            self._sse = SseReader()
        elif kind.endswith(b"json"):
            self._json = b""
        if self.announced:
            self.stream.observer.answered(self, at_us)
        else:  # an early answer, such as a 413
            self._tell_later(lambda: self.stream.observer.answered(self, at_us))
        if unknown is not None:
            self._give_up(unknown, at_us)

    def response_piece(self, data: bytes, at_us: int) -> None:
        """Take a piece of the response's body, and tell the observer of every message that is complete with it."""
        self.last_byte_us = elapsed = at_us - self.at_us
        if self.first_byte_us is None:
            self.first_byte_us = elapsed
        self.response_size += len(data)
        if self._unreadable is not None:
            return
        if self._content is not None:
            try:
                data = self._content.feed(data)
            except TooLargeError:
                self._give_up(TOO_LARGE, at_us)
                return
            except ContentError as error:
                self._give_up(str(error), at_us)
                return
        if self._sse is not None:
            self._take_events(self._sse, data, at_us)
        elif self._json is not None:
            self._json = self._take_json(self._json, data, at_us)
        elif len(self.excerpt) < MAX_EXCERPT:
            self.excerpt += data[: MAX_EXCERPT - len(self.excerpt)]

    def response_done(self, at_us: int) -> None:
        """Read what is only complete with the end of the response."""
        body, self._json = self._json, None
        if body and self._unreadable is None:
            for frame in jsonrpc.read(bytes(body)):
                self.message(frame, at_us)

    def message(self, frame: jsonrpc.Frame, at_us: int) -> None:
        """Tell the observer of one message of the response, or of what cannot be read of it."""
        if self.announced:
            self.stream.observer.frame(self, frame, at_us)
        else:
            self._tell_later(lambda: self.stream.observer.frame(self, frame, at_us))

    def _endpoint(self, uri: str, at_us: int) -> None:
        if self.announced:
            self.stream.observer.endpoint(self, uri, at_us)
        else:
            self._tell_later(lambda: self.stream.observer.endpoint(self, uri, at_us))

    def _take_events(self, reader: SseReader, data: bytes, at_us: int) -> None:
        for event in reader.feed(data):
            elapsed = at_us - self.at_us
            if self.first_event_us is None:
                self.first_event_us = elapsed
            if len(self.sse_times) < MAX_TIMES:
                self.sse_times.append(elapsed)
            self.event_id = event.id
            if self.announced:
                self.stream.observer.sse_event(self)
            if event.data is None:
                self.message((jsonrpc.Unparsed(TOO_LARGE), b""), at_us)
            elif event.type == "endpoint" and self.request.method == "GET":
                self._endpoint(event.data.decode("utf-8", "replace"), at_us)
            elif event.data and event.type == "message":  # an empty one primes the cursor (2025-11-25)
                for frame in jsonrpc.read(event.data):
                    self.message(frame, at_us)

    def _take_json(self, body: _Body, data: bytes, at_us: int) -> _Body:
        """Return what is kept of the body with this piece."""
        if self.lasting and b"\n" in data:
            # a lasting request may be answered by one JSON message a line, without an end
            *lines, rest = (bytes(body) + data).split(b"\n")
            body = rest
            for line in lines:
                if line.strip():
                    for frame in jsonrpc.read(line):
                        self.message(frame, at_us)
        else:
            body = _joined(body, data) if body else data
        if len(body) > MAX_BODY:
            self._give_up(TOO_LARGE, at_us)
            return b""
        return body

    def _give_up(self, reason: str, at_us: int) -> None:
        self._unreadable = reason
        self._json = None
        self.message((jsonrpc.Unparsed(reason), b""), at_us)


class Observer(Protocol):
    """Who is told what the exchanges amount to, in the order in which it happened."""

    def requested(self, x: Exchange, frames: list[jsonrpc.Frame], reason: str | None, at_us: int) -> None:
        """Hear of a whole request. ``reason`` says why there are no frames where there should be some."""

    def answered(self, x: Exchange, at_us: int) -> None:
        """Hear of the head of the final response: ``x.response``."""

    def frame(self, x: Exchange, frame: jsonrpc.Frame, at_us: int) -> None:
        """Hear of one message of the response."""

    def sse_event(self, x: Exchange) -> None:
        """Hear that an SSE event begins, before its messages: ``x.event_id`` is its id, if it has one."""

    def endpoint(self, x: Exchange, uri: str, at_us: int) -> None:
        """Hear where the 2024-11-05 transport wants the messages of this stream's session to be sent."""

    def ended(self, x: Exchange, how: Ended, at_us: int) -> None:
        """Hear that nothing more will come of this exchange."""

    def unreadable(self, stream: Stream, reason: str, at_us: int) -> None:
        """Hear that the bytes of a stream cannot be followed, outside of any exchange that was announced."""


class Stream:
    """One TCP connection through the tap. Feed it the records of the channel; times are µs since the epoch."""

    __slots__ = (
        "_client_ended",
        "_requests",
        "_responses",
        "_server_left",
        "_start_us",
        "closed",
        "connect_error",
        "gap",
        "number",
        "observer",
        "open",
        "own_answer",
        "peer",
        "reading",
        "upstream",
    )

    def __init__(self, number: int, observer: Observer, *, peer: str, upstream: str, resumed: bool = False) -> None:
        self.number = number
        self.observer = observer
        self.peer = peer
        self.upstream = upstream
        self.open: list[Exchange] = []  # exchanges without their end, oldest first: hardly ever more than one
        self.reading: Exchange | None = None  # the one whose request is still coming
        self.connect_error: str | None = None
        self.closed = False
        self.gap = 1 if resumed else 0  # pieces, at least, that were lost before this recorder began to listen
        self._start_us = 0
        self.own_answer = False  # the tap answered in the server's place
        self._client_ended = False
        self._server_left = False  # before the client did
        self._requests = RequestReader()
        self._responses = ResponseReader(self._answering)
        if resumed:
            self._requests.lose()
            self._responses.lose()

    @property
    def busy(self) -> bool:
        """Whether a call is in flight: a request that began and whose answer has not ended."""
        return any(not x.lasting for x in self.open) or self._requests.inside

    def client(self, data: bytes, at_us: int) -> None:
        """Take bytes of the client."""
        if not self._requests.inside:
            self._start_us = at_us
        for part in self._requests.feed(data):
            x = self.reading
            if isinstance(part, bytes):
                if x is not None:
                    x.request_piece(part)
            elif isinstance(part, Request):
                self.reading = Exchange(self, part, self._start_us)
                self.open.append(self.reading)
                if len(self.open) > MAX_OPEN:
                    self._requests.tunnel()
                    self._broken(f"more than {MAX_OPEN} requests without an answer", at_us)
                    return
            elif part is _COMPLETE:
                self.reading = None
                self._start_us = at_us
                if x is not None:
                    x.request_done(at_us)
            elif isinstance(part, Broken):
                self._broken(part.reason, at_us)

    def server(self, data: bytes, at_us: int) -> None:
        """Take bytes of the server."""
        for part in self._responses.feed(data):
            x = self.open[0] if self.open else None
            if isinstance(part, bytes):
                if x is not None:
                    x.response_piece(part, at_us)
            elif isinstance(part, Response):
                if x is None:
                    self.observer.unreadable(self, f"an answer ({part.status}) that nobody asked for", at_us)
                elif part.status >= 200 or part.status == 101:
                    x.response_head(part, at_us)
            elif isinstance(part, End):
                if part is not _COMPLETE and part is End.TUNNEL:
                    self._requests.tunnel()
                if x is not None:
                    unreachable = self.own_answer and self.connect_error
                    self._finish(x, Ended.UNREACHABLE if unreachable else _AT_ITS_END, at_us)
            elif isinstance(part, Broken):
                self._broken(part.reason, at_us)

    def own(self, data: bytes, at_us: int) -> None:
        """Take bytes that the tap itself sent to the client in the server's place."""
        self.own_answer = True
        self.server(data, at_us)

    def connect_failed(self, reason: str) -> None:
        """Hear why there is no upstream connection."""
        self.connect_error = reason

    def client_eof(self) -> None:
        """Hear that the client ended its direction. It may still wait for an answer."""
        self._client_ended = True

    def server_eof(self, at_us: int) -> None:
        """Hear that the server ended its direction: nothing more will be answered here."""
        self._server_left = not self._client_ended
        for part in self._responses.end():
            if part is End.BY_CLOSE and self.open:
                self._finish(self.open[0], Ended.COMPLETE, at_us)
        self._end_all(Ended.CLIENT_GONE if self._client_ended else Ended.SERVER_GONE, at_us)

    def lose(self, pieces: int, at_us: int) -> None:
        """Hear that pieces of this stream are missing from here on. It is followed again from the next head."""
        self._requests.lose()
        self._responses.lose()
        for x in self.open:
            x.lost += pieces
        self._end_all(Ended.LOST, at_us)

    def close(self, how: bytes, at_us: int) -> None:
        """Hear that both ends are gone."""
        self.closed = True
        if how == Closing.DRAIN:
            ended = Ended.STOPPED
        elif self.own_answer and self.connect_error:
            ended = Ended.UNREACHABLE
        elif self._server_left or (how != Closing.CLIENT_RESET and not self._client_ended):
            ended = Ended.SERVER_GONE  # a request that was sent after the server's end had no answer to expect
        else:
            ended = Ended.CLIENT_GONE
        self._end_all(ended, at_us)

    def clock_set(self, by_us: int) -> None:
        """Move the beginnings of what is open: the clock was set by so much."""
        self._start_us += by_us
        for x in self.open:
            x.at_us += by_us

    def _answering(self) -> str | None:
        return self.open[0].request.method if self.open else None

    def _broken(self, reason: str, at_us: int) -> None:
        if not self.open:
            self.observer.unreadable(self, reason, at_us)
            return
        for x in self.open:
            x.message((jsonrpc.Unparsed(reason), b""), at_us)
        self._end_all(Ended.BROKEN, at_us)

    def _finish(self, x: Exchange, how: Ended, at_us: int) -> None:
        self.open.remove(x)
        x.response_done(at_us)
        x.end(how, at_us)

    def _end_all(self, how: Ended, at_us: int) -> None:
        while self.open:
            self.open.pop(0).end(how, at_us)
        reading, self.reading = self.reading, None
        if reading is not None and how is not Ended.LOST:
            reading.request_done(at_us, whole=False)
