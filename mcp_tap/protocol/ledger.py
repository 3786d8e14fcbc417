"""Makes the rows of the record, with everything masked that has to be, and collects them for the store.

What an exchange *means* is decided in `tracker`; here stands what a row looks like.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

import msgspec
import orjson
from msgspec import Raw

from mcp_tap.model import (
    Batch,
    Body,
    Codec,
    Connection,
    Direction,
    Event,
    Kind,
    Outcome,
    Side,
    Status,
    ToolSeen,
)
from mcp_tap.protocol.exchange import Exchange, Stream
from mcp_tap.protocol.http1 import MAX_CACHED
from mcp_tap.protocol.jsonrpc import MAX_WORD, Envelope
from mcp_tap.protocol.redact import NONE, Redactor, Secrets
from mcp_tap.protocol.revisions import header_value, name_of
from mcp_tap.protocol.verdict import Verdict

#: Error texts are cut here.
MAX_TEXT: Final = 1000

#: Capabilities longer than this are left out: real ones are under 2 kB.
MAX_CAPABILITIES: Final = 64_000

#: Response headers that hold no credential; with any other one the whole head is looked at.
_HARMLESS: Final = frozenset(
    (
        b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"connection", b"keep-alive",
        b"date", b"server", b"cache-control", b"vary", b"x-accel-buffering", b"allow", b"mcp-protocol-version",
    )
)  # fmt: skip

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Ledger:
    """The rows that are new or changed since they were last taken."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        # names, paths and the heads of one client come again and again; without credentials in play they mask the same
        self._plain = lru_cache(2048)(redactor.text)
        self._target = lru_cache(1024)(redactor.target)
        self._secrets = lru_cache(512)(lambda request: redactor.secrets(request.headers.items()))
        self._connections: dict[int, Connection] = {}
        self._events: dict[int, Event] = {}
        self._bodies: list[Body] = []
        self._tools: list[ToolSeen] = []

    def take(self, held: frozenset[int] = frozenset()) -> Batch:
        """Return the rows that are new or changed since the last call, in the order of a timeline.

        ``held`` are events, by `id`, that stay for a later call.
        """
        events, bodies = self._events, self._bodies
        self._events = {key: event for key, event in events.items() if key in held}
        self._bodies = [body for body in bodies if id(body.event) in held]
        if held:
            events = {key: event for key, event in events.items() if key not in held}
            bodies = [body for body in bodies if id(body.event) not in held]
        batch = Batch(list(self._connections.values()), sorted(events.values(), key=_place), bodies, self._tools)
        self._connections, self._tools = {}, []
        return batch

    def changed(self, event: Event) -> None:
        """Note that a line of a timeline is new or differs from what is stored."""
        self._events[id(event)] = event

    def connection_changed(self, row: Connection) -> None:
        """Note that a connection is new or differs from what is stored."""
        self._connections[id(row)] = row

    # New rows

    def message(
        self, x: Exchange, message: Envelope, data: bytes, direction: Direction, at_us: int, secrets: Secrets
    ) -> Event:
        """Make the row of a request or a notification."""
        method = (message.method or "")[:MAX_WORD]
        event = Event(Kind.REQUEST if message.is_request else Kind.NOTIFICATION, method, at_us)
        name = name_of(method, message.params)
        if direction is Direction.TO_SERVER:
            event.http_method = "POST"
            event.path = self._target(x.request.target)
            if name is None:  # only the modern era sends it, and only a body cut short needs it
                name = header_value(x.request.headers, b"mcp-name")
        event.name = self.text(name, secrets)
        event.direction = direction
        event.status = Status.WAITING
        event.stream = x.stream.number
        event.jsonrpc_id = _id_text(message)
        event.trace_id = _trace_id(x, message)
        event.request_bytes = len(data)
        self.body(event, Side.REQUEST, data, secrets)
        self.changed(event)
        return event

    def orphan(
        self, x: Exchange, message: Envelope, data: bytes, direction: Direction, at_us: int, secrets: Secrets
    ) -> Event:
        """Make the row of an answer whose request was not seen."""
        event = Event(Kind.RESPONSE, "response", at_us)
        event.direction = direction
        event.status = Status.SUCCEEDED
        event.stream = x.stream.number
        event.peer = x.stream.peer
        event.jsonrpc_id = _id_text(message)
        event.response_bytes = len(data)
        event.note = "the request of this answer was not seen"
        self.body(event, Side.RESPONSE, data, secrets)
        self.changed(event)
        return event

    def http(self, x: Exchange, reason: str | None) -> Event:
        """Make the row of an exchange that carries no JSON-RPC, or none that can be read. It never has a body."""
        event = Event(Kind.HTTP, "http", x.at_us)
        event.path = self._target(x.request.target)
        event.name = f"{x.request.method} {event.path}"[:MAX_WORD]
        event.direction = Direction.TO_SERVER
        event.status = Status.WAITING
        event.http_method = x.request.method[:32]
        event.stream = x.stream.number
        event.peer = x.stream.peer
        event.request_bytes = x.request_size
        event.trace_id = _trace_id(x, None)
        if reason is not None:
            event.outcome, event.note = Outcome.UNPARSED, reason
        self.changed(event)
        return event

    def unreadable(self, stream: Stream, reason: str, at_us: int) -> None:
        """Make the row of bytes that are no HTTP."""
        event = Event(Kind.HTTP, "http", at_us)
        event.outcome = Outcome.UNPARSED
        event.note = reason
        event.peer = stream.peer
        event.stream = stream.number
        self.changed(event)

    def dropped(self, pieces: int, size: int, from_us: int, to_us: int, why: str) -> None:
        """Make the row that says how much of the traffic never reached the recorder, and when."""
        event = Event(Kind.LIFECYCLE, "records_dropped", from_us)
        event.name = f"{pieces} pieces"
        event.request_bytes = size
        event.dropped = pieces
        event.duration_us = max(0, to_us - from_us)
        event.note = why
        self.changed(event)

    # Parts of rows

    def secrets(self, x: Exchange) -> Secrets:
        """Return the credentials of an exchange's headers, as far as they are known by now."""
        if x.response is not None and not _HARMLESS.issuperset(x.response.headers):
            return self._redactor.secrets([*x.request.headers.items(), *x.response.headers.items()])
        if sum(map(len, x.request.headers.values())) > MAX_CACHED:
            return self._redactor.secrets(x.request.headers.items())
        return self._secrets(x.request)

    def judge(self, event: Event, verdict: Verdict, secrets: Secrets) -> None:
        """Write down what a message came to."""
        event.status, event.failure_reason, event.code = verdict.status, verdict.failure_reason, verdict.code
        event.message = self.text(verdict.message, secrets)
        event.outcome = verdict.outcome or event.outcome
        event.note = self.text(verdict.note, secrets) or event.note
        self.changed(event)

    def times(self, event: Event, x: Exchange) -> None:
        """Copy the times of an exchange to a message of its request."""
        event.headers_us, event.first_byte_us, event.first_event_us = x.headers_us, x.first_byte_us, x.first_event_us
        event.last_byte_us = x.last_byte_us
        if x.sse_times:
            event.sse_events = list(x.sse_times)

    def body(self, event: Event, side: Side, data: bytes, secrets: Secrets) -> None:
        """Keep a body as far as the settings allow."""
        masked = self._redactor.body(data, secrets)
        if masked is None:
            return
        if masked.codec is Codec.CUT:
            if side is Side.REQUEST:
                event.request_cut = True
            else:
                event.response_cut = True
        self._bodies.append(Body(event, side, masked.codec, masked.text, masked.masked))

    def tools(self, live: Connection, event: Event, tools: Raw, at_us: int) -> None:
        """Keep every definition that a `tools/list` shows: by it one can tell who saw which version."""
        try:
            definitions = msgspec.json.decode(tools, type=list[Raw]) if bytes(tools) else []
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return
        event.note = f"{len(definitions)} tools" if len(definitions) != 1 else "1 tool"
        for raw in definitions:
            try:
                definition = orjson.loads(bytes(raw))
                name = self.word(definition["name"])
                text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # no definition by any revision: the body still shows it
            masked = self._redactor.text(text.decode())
            self._tools.append(ToolSeen(live, at_us, name or "", hashlib.sha256(text).hexdigest(), masked))

    def text(self, text: str | None, secrets: Secrets = NONE) -> str | None:
        """Return a text of the wire as it may be stored."""
        if not text:
            return None
        if secrets is NONE:
            return self._plain(text[:MAX_TEXT])
        return self._redactor.text(text[:MAX_TEXT], secrets)

    def word(self, word: str | None) -> str | None:
        """Return a name, a version or another short word of the wire as it may be stored."""
        return self._plain(word[:MAX_WORD]) if word else None

    def json(self, raw: Raw) -> str | None:
        """Return capabilities as they may be stored: their keys are words of the protocol and stay."""
        data = bytes(raw)
        return self._redactor.text(data.decode("utf-8", "replace")) if 0 < len(data) <= MAX_CAPABILITIES else None


def _place(event: Event) -> tuple[int, int]:
    return event.at_us, event.seq


def _id_text(message: Envelope) -> str | None:
    return message.key[:MAX_WORD].decode("utf-8", "replace") or None


def _trace_id(x: Exchange, message: Envelope | None) -> str | None:
    """Return the W3C trace id of a message: the one in `_meta` is the caller's, the HTTP header may be a proxy's."""
    meta = message.params.meta if message is not None and message.params is not None else None
    value = meta.traceparent if meta is not None else None
    if value is None:
        header = x.request.headers.get(b"traceparent")
        value = header.decode("latin-1") if header else None
    match = _TRACEPARENT.match(value) if value else None
    return match[1] if match else None
