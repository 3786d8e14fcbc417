"""Makes the rows of the record, with everything masked that has to be, and collects them for the store.

What an exchange *means* is decided in `tracker`; here stands what a row looks like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set as AbstractSet
from functools import lru_cache
from operator import attrgetter
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
from mcp_tap.protocol.heads import Head, trace_id
from mcp_tap.protocol.jsonrpc import MAX_WORD, Envelope
from mcp_tap.protocol.redact import NONE, Redactor, Secrets
from mcp_tap.protocol.revisions import NAMES, name_of
from mcp_tap.protocol.verdict import SUCCESS, Verdict

#: Error texts are cut here.
MAX_TEXT: Final = 1000

#: Capabilities longer than this are left out: real ones are under 2 kB.
MAX_CAPABILITIES: Final = 64_000

# Looking up the member of an enumeration costs as much as a call, and these are looked up for every message.
_REQUEST, _NOTIFICATION, _WAITING, _TO_SERVER = Kind.REQUEST, Kind.NOTIFICATION, Status.WAITING, Direction.TO_SERVER
_REQUEST_SIDE, _CUT = Side.REQUEST, Codec.CUT

_PLACE: Final = attrgetter("at_us", "seq")


class Ledger:
    """The rows that are new or changed since they were last taken."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        # names and other words come again and again; without credentials in play they mask the same
        self._plain = lru_cache(2048)(redactor.text)
        #: What is new or differs from what is stored, in order: sets that whoever changes a row adds it to.
        self.connections: dict[Connection, None] = {}
        self.events: dict[Event, None] = {}
        self._bodies: list[Body] = []
        self._tools: list[ToolSeen] = []

    def take(self, held: AbstractSet[Event] = frozenset()) -> Batch:
        """Return the rows that are new or changed since the last call, in the order of a timeline.

        ``held`` are events that stay for a later call.
        """
        events, bodies = list(self.events), self._bodies
        self.events.clear()
        self.events.update((event, None) for event in events if event in held)
        self._bodies = [body for body in bodies if body.event in held] if held else []
        if held:
            events = [event for event in events if event not in held]
            bodies = [body for body in bodies if body.event not in held]
        events.sort(key=_PLACE)
        batch = Batch(list(self.connections), events, bodies, self._tools)
        self.connections.clear()
        self._tools = []
        return batch

    # New rows

    def message(
        self,
        x: Exchange,
        message: Envelope,
        data: bytes,
        direction: Direction,
        at_us: int,
        *,
        head: Head,
        secrets: Secrets,
    ) -> Event:
        """Make the row of a request or a notification."""
        method, params, key = message.method or "", message.params, message.key
        if len(method) > MAX_WORD:
            method = method[:MAX_WORD]
        if method not in NAMES:  # what is no word of the protocol's can be anything
            method = self.text(method, secrets) or ""
        event = Event(_REQUEST if key else _NOTIFICATION, method, at_us)
        name = name_of(method, params)
        if direction is _TO_SERVER:
            event.http_method = "POST"
            event.path = head.path
            if name is None:  # only the modern era sends it, and only a body cut short needs it
                name = head.name
        if name is not None:
            event.name = self.text(name, secrets)
        event.direction = direction
        event.status = _WAITING
        event.stream = x.stream.number
        if key:
            event.key, event.jsonrpc_id = key, self._id(key, secrets)
        # the trace in `_meta` is the caller's, that of the HTTP header may be a proxy's
        meta = params.meta if params is not None else None
        event.trace_id = trace_id(meta.traceparent) if meta is not None and meta.traceparent else head.trace_id
        event.request_bytes = len(data)
        self.body(event, _REQUEST_SIDE, data, secrets)
        self.events[event] = None
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
        event.jsonrpc_id = self._id(message.key, secrets) or None
        event.response_bytes = len(data)
        event.note = "the request of this answer was not seen"
        self.body(event, Side.RESPONSE, data, secrets)
        self.events[event] = None
        return event

    def http(self, x: Exchange, head: Head, reason: str | None) -> Event:
        """Make the row of an exchange that carries no JSON-RPC, or none that can be read. It never has a body."""
        event = Event(Kind.HTTP, "http", x.at_us)
        event.path = head.path
        event.name = f"{x.request.method} {event.path}"[:MAX_WORD]
        event.direction = Direction.TO_SERVER
        event.status = Status.WAITING
        event.http_method = x.request.method[:32]
        event.stream = x.stream.number
        event.peer = x.stream.peer
        event.request_bytes = x.request_size
        event.trace_id = head.trace_id
        if reason is not None:
            event.outcome, event.note = Outcome.UNPARSED, reason
        self.events[event] = None
        return event

    def unreadable(self, stream: Stream, reason: str, at_us: int) -> None:
        """Make the row of bytes that are no HTTP."""
        event = Event(Kind.HTTP, "http", at_us)
        event.outcome = Outcome.UNPARSED
        event.note = reason
        event.peer = stream.peer
        event.stream = stream.number
        self.events[event] = None

    def dropped(self, pieces: int, size: int, from_us: int, to_us: int, why: str) -> None:
        """Make the row that says how much of the traffic never reached the recorder, and when."""
        event = Event(Kind.LIFECYCLE, "records_dropped", from_us)
        event.name = f"{pieces} pieces" if pieces else "an unknown number of pieces"
        event.request_bytes = size
        event.dropped = pieces
        event.duration_us = max(0, to_us - from_us)
        event.note = why
        self.events[event] = None

    # Parts of rows

    def judge(self, event: Event, verdict: Verdict, secrets: Secrets) -> None:
        """Write down what a message came to."""
        event.status, event.failure_reason, event.code = verdict.status, verdict.failure_reason, verdict.code
        if verdict is not SUCCESS:
            event.message = self.text(verdict.message, secrets)
            event.outcome = verdict.outcome or event.outcome
            event.note = self.text(verdict.note, secrets) or event.note
        self.events[event] = None

    def times(self, event: Event, x: Exchange) -> None:
        """Give a message of a request the times of its exchange. Those of its SSE events go on growing with it."""
        event.headers_us, event.first_byte_us, event.first_event_us = x.headers_us, x.first_byte_us, x.first_event_us
        event.last_byte_us = x.last_byte_us
        event.sse_events = x.sse_times

    def body(self, event: Event, side: Side, data: bytes, secrets: Secrets) -> None:
        """Keep a body as far as the settings allow."""
        masked = self._redactor.body(data, secrets, is_json=True)  # it was read as JSON-RPC
        if masked is None:
            return
        if masked.codec is _CUT:
            if side is _REQUEST_SIDE:
                event.request_cut = True
            else:
                event.response_cut = True
        self._bodies.append(Body(event, side, masked.codec, masked.text, masked.masked))

    def tools(self, live: Connection, event: Event, tools: Raw, at_us: int, secrets: Secrets) -> None:
        """Keep every definition that a `tools/list` shows: by it one can tell who saw which version."""
        try:
            definitions = msgspec.json.decode(tools, type=list[Raw]) if bytes(tools) else []
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return
        event.note = f"{len(definitions)} tools" if len(definitions) != 1 else "1 tool"
        for raw in definitions:
            try:
                definition = orjson.loads(bytes(raw))
                name = self.word(definition["name"], secrets)
                text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # no definition by any revision: the body still shows it
            masked = self._redactor.text(text.decode(), secrets)
            self._tools.append(ToolSeen(live, at_us, name or "", hashlib.sha256(text).hexdigest(), masked))

    def text(self, text: str | None, secrets: Secrets = NONE) -> str | None:
        """Return a text of the wire as it may be stored."""
        if not text:
            return None
        if secrets is NONE:
            return self._plain(text[:MAX_TEXT])
        return self._redactor.text(text[:MAX_TEXT], secrets)

    def word(self, word: str | None, secrets: Secrets = NONE) -> str | None:
        """Return a name, a version or another short word of the wire as it may be stored."""
        return self.text(word[:MAX_WORD], secrets) if word else None

    def json(self, raw: Raw, secrets: Secrets) -> str | None:
        """Return capabilities as they may be stored: their keys are words of the protocol and stay."""
        data = bytes(raw)
        if not 0 < len(data) <= MAX_CAPABILITIES:
            return None
        return self._redactor.text(data.decode("utf-8", "replace"), secrets)

    def _id(self, key: bytes, secrets: Secrets) -> str:
        """Return a JSON-RPC id, as JSON, as it may be stored. Nearly all are numbers, or strings made at random."""
        text = key.decode("utf-8", "replace")
        if key[:1] == b'"' and any(needle in key for needle in secrets.needles):
            return self._redactor.text(text, secrets)
        return text
