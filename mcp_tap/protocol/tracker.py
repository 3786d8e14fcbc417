"""From exchanges to facts: what every message was, how it went and how long it took.

The tracker is told of each exchange by its stream (`exchange.Observer`), asks `connections` whom it belongs to, and
keeps one row per message: a request becomes a row when it is complete, and the same row is changed when its answer,
its cancellation or its loss is seen. `take` hands over what is new or changed since the last time.

How an answer finds its request (ids are compared as JSON text, so that `1` is not `"1"`):

- in the exchange that carried the request, where an error with a null or foreign id belongs to it all the same;
- else among everything that waits in the connection, in the direction opposite to the answer: each side has a
  number space of its own;
- else it is kept as a row of its own, kind `response`.

An `initialize` or a `server/discover` has no connection until its answer decides it: a 401 opens nothing, and a
refused `server/discover` is a probe that belongs to the `initialize` after it. Such an exchange is *opening*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec import UNSET

from mcp_tap.model import Batch, Direction, EndReason, Era, Event, FailureReason, Kind, Outcome, Side, Status
from mcp_tap.protocol import operations
from mcp_tap.protocol.connections import Connections, Live
from mcp_tap.protocol.exchange import MAX_EXCERPT, Ended, Exchange, Stream
from mcp_tap.protocol.heads import Head, Heads
from mcp_tap.protocol.jsonrpc import MAX_WORD, Envelope, Error, Frame, Result, Unparsed
from mcp_tap.protocol.ledger import Ledger
from mcp_tap.protocol.redact import Redactor, Secrets
from mcp_tap.protocol.revisions import LASTING
from mcp_tap.protocol.timeline import OPENING, Timelines
from mcp_tap.protocol.verdict import SUCCESS, Verdict, of_error, of_http, of_refusal, of_result, of_silence

#: Progress tokens of one connection that are remembered.
MAX_TOKENS: Final = 1000

#: An `initialize` without an answer becomes a pending connection after this time, so that a hang can be seen.
HANG_US: Final = 1_000_000

#: Digits of an id that counts. JSON may have longer ones: they are compared as text.
MAX_DIGITS: Final = 18

#: Answers to `initialize` that open nothing: the client has to authorise itself first.
UNAUTHORISED: Final = (401, 403, 407)

# Looking up the member of an enumeration costs as much as a call, and these are looked up for every message.
_REQUEST, _NOTIFICATION, _RESPONSE_SIDE = Kind.REQUEST, Kind.NOTIFICATION, Side.RESPONSE
_TO_SERVER, _WAITING, _LEGACY = Direction.TO_SERVER, Status.WAITING, Era.LEGACY


@dataclass(slots=True, eq=False)
class _Link:
    """What the tracker remembers of an exchange."""

    head: Head  # what the head of its request says
    secrets: Secrets
    era: Era = Era.LEGACY
    live: Live | None = None
    event: Event | None = None  # the row of an exchange without a readable message in its request
    asked: list[Event] = field(default_factory=list)  # the messages of the request
    unanswered: dict[bytes, Event] = field(default_factory=dict)  # those of them that wait, by id
    opening: Envelope | None = None  # the message whose answer decides about the connection
    unheard: list[Event] | None = None  # requests of the server that no session ties an answer to
    refusal: Verdict | None = None  # the error of an answer to what was no readable message
    unparsed: str | None = None  # why part of the answer could not be read
    resumed: Event | None = None  # the request whose stream a GET with Last-Event-ID goes on with
    replayed: int = 0  # SSE events that had come before
    replay: bool = False  # whether the one that is being heard is such


class Tracker:
    """Makes the record. Feed it through streams; take the rows with `take`. Times are µs since the epoch."""

    def __init__(
        self,
        redactor: Redactor,
        *,
        idle_us: int = 1800 * 1_000_000,
        session_word: Callable[[str], str] = str,
        trusted: Iterable[str] | None = None,
    ) -> None:
        self.heads = Heads(redactor)
        self._ledger = Ledger(redactor)
        self._openings: dict[Exchange, None] = {}
        self.connections = Connections(
            changed=self._ledger.connections, idle_us=idle_us, session_word=session_word, trusted=trusted
        )
        self._timelines = Timelines(self._ledger, self.connections)

    # What the recorder calls

    def take(self) -> Batch:
        """Return the rows that are new or changed since the last call.

        An opening message waits for its answer, as long as that does not hang, so that session_start goes first.
        """
        held = frozenset(event for x in self._openings for event in x.link.asked)
        return self._ledger.take(held)

    def tick(self, at_us: int) -> None:
        """End the connections whose time is over, and show what hangs."""
        for live, reason, when in self.connections.due(at_us):
            self._timelines.end(live, reason, when)
        for x in [x for x in self._openings if at_us - x.at_us > HANG_US]:
            if x.link.opening.method == "initialize":
                self._open(x)
            else:
                del self._openings[x]

    def stop(self, at_us: int) -> None:
        """End everything, because the recording ends."""
        for live in self.connections.all():
            if live.ended:
                self._timelines.give_up(live, EndReason.SHUTDOWN, at_us)  # what came after its end
            else:
                self._timelines.end(live, EndReason.SHUTDOWN, at_us)

    def lost(self, stream: Stream, pieces: int) -> None:
        """Mark the connection that uses a stream of which pieces never reached the recorder."""
        live = self.connections.on(stream)
        if live is not None:
            live.row.dropped += pieces
            self._ledger.connections[live.row] = None

    def dropped(self, pieces: int, size: int, from_us: int, to_us: int, why: str) -> None:
        """Record that part of the traffic never reached the recorder."""
        self._ledger.dropped(pieces, size, from_us, to_us, why)

    def gap(self, pieces: int, size: int, from_us: int, to_us: int, why: str) -> None:
        """Record a gap that may concern anybody: who was in use around it looks whole and need not be."""
        self.dropped(pieces, size, from_us, to_us, why)
        for live in self.connections.in_use(from_us):
            live.row.dropped += 1
            self._ledger.connections[live.row] = None

    def stream_closed(self, stream: Stream) -> None:
        """Hear that a TCP connection is gone, after its exchanges have ended."""
        self.connections.stream_closed(stream)

    # exchange.Observer

    def requested(self, x: Exchange, frames: list[Frame], reason: str | None, at_us: int) -> None:
        """Take a request: find its connection and make its rows."""
        head = self.heads.of(x.request)
        link = x.link = _Link(head, head.secrets)
        self._find(x, link, frames, at_us)
        for envelope, data in frames:
            if isinstance(envelope, Unparsed):
                self._http_row(x, envelope.reason)
            elif envelope.method is None:
                self._client_answer(x, envelope, data)
            else:
                self._client_message(x, envelope, data, at_us)
        if not frames:
            self._http_row(x, reason)

    def answered(self, x: Exchange, at_us: int) -> None:
        """Take the head of an answer."""
        link: _Link = x.link
        assert x.response is not None
        status, headers = x.response.status, x.response.headers
        link.secrets = self.heads.secrets(link.head, x.request, x.response)
        for event in link.asked:
            event.http_status, event.headers_us = status, x.headers_us
            self._ledger.events[event] = None
        if link.event is not None:
            link.event.http_status, link.event.headers_us = status, x.headers_us
            if status < 300:  # a stream is open: its end, whenever it comes, is no verdict
                link.event.status = Status.SUCCEEDED
            self._ledger.events[link.event] = None
        success = 200 <= status < 300
        opening = link.opening
        if opening is not None and (success or (opening.method == "initialize" and status not in UNAUTHORISED)):
            self._open(x)
        live = link.live
        if not success or live is None:
            return
        session_id = headers.get(b"mcp-session-id")
        if not live.accepted and any(event.type == "initialize" for event in link.asked):
            self.connections.accept(live, session_id.decode("latin-1")[:MAX_WORD] if session_id else None)
        elif not live.accepted and live.key:
            self._timelines.started(live, x.at_us)
        elif session_id is not None and live.alias is None:
            named = session_id.decode("latin-1")[:MAX_WORD]
            if self.connections.names_another(live, named):
                changed = self.connections.rename(live, named)
                self._timelines.line(live, "session_id_changed", at_us, changed)
        for event in link.asked:
            if event.kind is _NOTIFICATION and event.status is _WAITING:
                self._timelines.finish(event, SUCCESS, at_us)
        if x.request.method == "DELETE":
            if not live.ended:
                self._timelines.end(live, EndReason.CLIENT_DELETE, at_us)
        elif live.ended:
            self._timelines.reopen(live, at_us)  # the server still knows it

    def sse_event(self, x: Exchange) -> None:
        """Take the id of an SSE event: a resumed stream repeats what its client may have lost (2025-03-26)."""
        link: _Link = x.link
        link.replay = False
        if x.event_id is None or link.live is None:
            return
        if x.event_id in link.live.cursors and link.head.last_event_id is not None:
            link.replay = True
            link.replayed += 1
            return
        link.live.pass_cursor(x.event_id, link.resumed or _only(link.asked))

    def endpoint(self, x: Exchange, uri: str, at_us: int) -> None:
        """Take the URL that the 2024-11-05 transport hands out: it opens a session."""
        link: _Link = x.link
        if link.live is not None or link.event is None:
            return
        live = self.connections.handed_out(x, uri)
        self._belong(x, live, at_us)
        self._timelines.attach(live, link.event)
        self._timelines.started(live, x.at_us)

    def frame(self, x: Exchange, frame: Frame, at_us: int) -> None:
        """Take one message of an answer."""
        envelope, data = frame
        link: _Link = x.link
        if link.replay:
            return
        if isinstance(envelope, Unparsed):
            link.unparsed = envelope.reason
            if data and not x.excerpt:
                x.excerpt = data[:MAX_EXCERPT]
        elif envelope.method is None:
            self._server_answer(x, envelope, data, at_us)
        else:
            self._server_message(x, envelope, data, at_us)
        if x.is_sse:
            # what has come so far: a stream that stalls is seen while it does
            for event in (link.event, *link.unanswered.values()):
                if event is not None:
                    self._ledger.times(event, x)
                    self._ledger.events[event] = None

    def ended(self, x: Exchange, how: Ended, at_us: int) -> None:
        """Take the end of an exchange: what is not answered by now is judged."""
        link: _Link | None = x.link
        if link is None:
            return  # lost before the request was whole: the gap is recorded for itself
        if link.opening is not None:
            self._settle(x, how, at_us)
        status = x.status
        if not link.asked and link.event is None and status >= 400:
            self._http_row(x, "an answer of the client that the server refused")
        for event in link.asked:
            if event.status is _WAITING:
                self._judge(x, event, how, at_us)
            elif event.last_byte_us != x.last_byte_us:  # the stream went on behind the answer
                self._ledger.times(event, x)
                self._ledger.events[event] = None
        if link.event is not None:
            self._judge_http(x, link.event, how, at_us)
        for event in link.unheard or ():
            self._timelines.finish(event, Verdict(Status.FAILED, FailureReason.ABANDONED, "no_session"), at_us)
        live = link.live
        if live is None:
            return
        live.row.response_bytes += x.response_size
        self.connections.leave(live, at_us)
        if status == 404 and link.era is _LEGACY and b"mcp-session-id" in x.request.headers and not live.ended:
            self._timelines.end(live, EndReason.SESSION_NOT_FOUND, at_us)
        if live.endpoint is not None and x.request.method == "GET" and not live.ended:
            self._timelines.end(live, EndReason.STREAM_CLOSED, at_us)

    def unreadable(self, stream: Stream, reason: str, at_us: int) -> None:
        """Record that a stream's bytes cannot be followed."""
        self._ledger.unreadable(stream, reason, at_us)

    # Whom an exchange belongs to

    def _find(self, x: Exchange, link: _Link, frames: list[Frame], at_us: int) -> None:
        """Find the connection of a request, or leave it to the answer."""
        head = link.head
        first = opening = None
        for envelope, _ in frames:
            if isinstance(envelope, Envelope):
                first = first or envelope
                if envelope.method == "initialize":
                    opening = opening or envelope
        if head.era is not None:  # its version header decides, then its body, then the older one is assumed
            link.era = head.era
        elif opening is None and first is not None and first.params is not None:
            meta = first.params.meta
            link.era = Era.MODERN if meta is not None and meta.version is not None else _LEGACY
        if opening is None and head.session_id is not None and link.era is _LEGACY:
            live = self.connections.of_session(x, head.session_id, at_us)
            self._belong(x, live, at_us)
            if head.last_event_id is not None:
                link.resumed = live.cursors.get(head.last_event_id)
            return
        handed_out = self.connections.of_endpoint(x)
        if handed_out is not None:
            self._belong(x, handed_out, at_us)
            return
        if first is None or x.request.method != "POST":
            return
        current = self.connections.on(x.stream)
        if opening is None and first.method == "server/discover" and (current is None or current.row.era is _LEGACY):
            opening = first
        if opening is not None:
            link.opening = opening
            self._openings[x] = None
        else:
            self._belong(x, self._derive(x, first, at_us), at_us)

    def _derive(self, x: Exchange, message: Envelope, at_us: int) -> Live:
        meta = message.params.meta if message.params is not None else None
        return self.connections.derived(
            x,
            at_us,
            era=x.link.era,
            client=meta.client if meta is not None else None,
            method=message.method,
            number=_integer(message.key) if message.method is not None else None,
        )

    def _belong(self, x: Exchange, live: Live, at_us: int) -> None:
        """Attach an exchange to its connection."""
        x.link.live = live
        if live.row.era is None:
            live.row.era = x.link.era
        if live.ended and self.connections.may_reopen(live):
            self._timelines.reopen(live, at_us)
        if x.stream.gap:
            live.row.dropped += x.stream.gap
            x.stream.gap = 0
        live.row.request_bytes += x.request_size
        self.connections.use(live, x, at_us)

    def _open(self, x: Exchange) -> None:
        """Decide the connection of an opening exchange, and move its rows there."""
        link: _Link = x.link
        message = link.opening
        assert message is not None
        link.opening = None
        self._openings.pop(x, None)
        if message.method == "initialize":
            live = self.connections.opened(x, message.params.client_info if message.params else None, x.at_us)
            probe = self.connections.probe_of(x, x.at_us)
            if probe is not None:
                self._timelines.attach(live, probe)
        else:
            live = self._derive(x, message, x.at_us)
        self._belong(x, live, x.at_us)
        for event in link.asked:
            self._timelines.attach(live, event)
            self._timelines.count(live, event)
            if event.kind is _REQUEST and event.status is _WAITING:
                live.wait(_TO_SERVER, event.key, event)
        if link.event is not None:
            self._timelines.attach(live, link.event)
        live.use_id(_integer(message.key))
        self._timelines.identify(live, message, x, link.secrets)

    def _settle(self, x: Exchange, how: Ended, at_us: int) -> None:
        """Take the end of an exchange whose answer opened nothing."""
        link: _Link = x.link
        message = link.opening
        assert message is not None
        if message.method == "initialize":
            if x.status not in UNAUTHORISED:
                self._open(x)  # it ends as refused, right away
        elif how is Ended.COMPLETE and x.status not in UNAUTHORISED:
            for event in link.asked:
                self._probe(x, event, at_us)
        link.opening = None
        self._openings.pop(x, None)

    def _probe(self, x: Exchange, event: Event, at_us: int) -> None:
        """Mark a refused `server/discover`: the client asked which era it is, and got its answer."""
        if event.status is _WAITING:
            self._ledger.times(event, x)
            event.response_bytes = x.response_size
            self._timelines.finish(event, SUCCESS, at_us)
        event.status, event.outcome, event.failure_reason = Status.SUCCEEDED, Outcome.PROBE, None
        event.code = event.code or (str(x.response.status) if x.response is not None else None)
        event.note = "not a modern server"
        self._ledger.events[event] = None
        self.connections.park(x, event, at_us)

    # Messages of the client

    def _client_message(self, x: Exchange, message: Envelope, data: bytes, at_us: int) -> None:
        link: _Link = x.link
        event = self._ledger.message(x, message, data, _TO_SERVER, x.at_us, head=link.head, secrets=link.secrets)
        link.asked.append(event)
        key = message.key
        if key:
            link.unanswered[key] = event
        live = link.live
        if live is None:
            event.peer = x.stream.peer
            return
        self._timelines.attach(live, event)
        self._timelines.count(live, event)
        params = message.params
        if not key:
            if event.type == "notifications/cancelled":
                self._cancelled(live, _TO_SERVER, message, at_us)
            return
        unawaited = live.wait(_TO_SERVER, key, event)
        if unawaited is not None and unawaited in live.parked:
            self._give_up(live, unawaited, at_us)
        live.use_id(_integer(key))
        if params is not None:
            if params.meta is not None and bytes(params.meta.progress_token):
                self._token(live, bytes(params.meta.progress_token), event)
            operations.link(live, event, params)
        self._timelines.identify(live, message, x, link.secrets)

    def _client_answer(self, x: Exchange, message: Envelope, data: bytes) -> None:
        """Take the client's answer to a request of the server: it came in this exchange's request."""
        link: _Link = x.link
        event = link.live.answer(Direction.TO_CLIENT, message.key) if link.live is not None else None
        if event is not None:
            self._complete(x, event, message, data, x.at_us)
            return
        self._orphan(x, message, data, Direction.TO_SERVER, x.at_us)

    def _orphan(self, x: Exchange, message: Envelope, data: bytes, direction: Direction, at_us: int) -> None:
        link: _Link = x.link
        event = self._ledger.orphan(x, message, data, direction, at_us, link.secrets)
        if message.error is not UNSET:
            self._ledger.judge(event, of_error(_error(message), x.status), link.secrets)
        if link.live is not None:
            self._timelines.attach(link.live, event)

    def _token(self, live: Live, token: bytes, event: Event) -> None:
        """Remember a progress token: unique among the active requests of one client only."""
        if len(live.progress) >= MAX_TOKENS:
            live.progress = {key: e for key, e in live.progress.items() if e.status is Status.WAITING}
        if len(live.progress) < MAX_TOKENS:
            live.progress[token] = event

    def _cancelled(self, live: Live, direction: Direction, message: Envelope, at_us: int) -> None:
        """Take a `notifications/cancelled`: it names a request of the same direction."""
        key = bytes(message.params.request_id) if message.params is not None else b""
        event = (live.to_server if direction is _TO_SERVER else live.to_client).get(key)
        if event is not None and event.status is _WAITING:
            self._timelines.finish(event, Verdict(Status.FAILED, FailureReason.CANCELLED, "cancelled"), at_us)

    def _give_up(self, live: Live, event: Event | None, at_us: int) -> None:
        """Wait no longer for a request whose id is in flight a second time."""
        if event is not None and event.status is Status.WAITING:
            live.parked.discard(event)
            self._timelines.finish(event, Verdict(Status.FAILED, FailureReason.ABANDONED, "id_reused"), at_us)

    # Messages of the server

    def _server_message(self, x: Exchange, message: Envelope, data: bytes, at_us: int) -> None:
        """Take a request or a notification of the server."""
        link: _Link = x.link
        live = link.live
        event = self._ledger.message(x, message, data, Direction.TO_CLIENT, at_us, head=link.head, secrets=link.secrets)
        event.parent = self._parent(link, message)
        if live is not None:
            self._timelines.attach(live, event)
            self._timelines.count(live, event)
        if event.kind is Kind.NOTIFICATION:
            event.status = Status.SUCCEEDED
            if live is not None and event.type == "notifications/cancelled":
                self._cancelled(live, Direction.TO_CLIENT, message, at_us)
            elif live is not None and message.params is not None:
                operations.link_task(live, event, message.params)
        elif live is None:
            link.unheard = [*(link.unheard or ()), event]
        else:
            self._give_up(live, live.wait(Direction.TO_CLIENT, message.key, event), at_us)

    def _parent(self, link: _Link, message: Envelope) -> Event | None:
        """Return the request that a message of the server is about: named by its progress token, else by its stream."""
        if message.params is not None and link.live is not None:
            named = link.live.progress.get(bytes(message.params.progress_token))
            if named is not None:
                return named
        return link.resumed or _only(link.asked)

    def _server_answer(self, x: Exchange, message: Envelope, data: bytes, at_us: int) -> None:
        link: _Link = x.link
        key = message.key
        event = link.unanswered.pop(key, None)
        if event is None and link.live is not None:
            event = link.live.answer(_TO_SERVER, key)
        if event is not None:
            self._complete(x, event, message, data, at_us)
        elif link.unanswered and message.error is not UNSET:
            # an error with a null, missing or invented id answers whatever this exchange asked
            events, link.unanswered = list(link.unanswered.values()), {}
            for each in events:
                self._complete(x, each, message, data, at_us)
        elif link.head.last_event_id is not None and link.live is not None and key in link.live.answered:
            again = link.live.answered[key]
            again.note = "answered again on a resumed stream"
            self._ledger.events[again] = None
        elif link.event is not None and _error(message) is not None and x.status >= 400:
            link.refusal = of_error(_error(message), x.status)
        else:
            self._orphan(x, message, data, Direction.TO_CLIENT, at_us)

    # What a message came to

    def _complete(self, x: Exchange, event: Event, message: Envelope, data: bytes, at_us: int) -> None:
        """Take the answer of a request."""
        link: _Link = x.link
        live, direction, key = link.live, event.direction, event.key
        if live is not None and direction is not None:
            live.answer(direction, key, event)
        if event.status is not _WAITING:
            event.note = "answered after it had ended"
            self._ledger.events[event] = None
            return
        if event in link.asked:
            self._ledger.times(event, x)
            if x.is_sse:
                event.sse_events = x.sse_times.copy()  # what comes behind its answer is not of it
        elif direction is _TO_SERVER:  # on another stream than its own: this is all there is of it
            event.first_event_us = event.last_byte_us = max(0, at_us - event.at_us)
        event.response_bytes = len(data)
        self._ledger.body(event, _RESPONSE_SIDE, data, link.secrets)
        if live is not None and event.response_cut:
            live.row.truncated += 1
        if link.unparsed is not None:
            event.note = f"part of the answer could not be read: {link.unparsed}"
        verdict = SUCCESS
        if message.error is not UNSET:
            verdict = of_error(_error(message), x.status)
        elif isinstance(message.result, Result):
            verdict = of_result(event.type, message.result)
        if live is not None and direction is _TO_SERVER:
            if x.last_event_id is not None:  # a resumed stream may bring it again
                live.remember(key if message.error is UNSET else message.key, event)
            if isinstance(message.result, Result):
                self._learn(live, event, message.result, verdict, at_us, link)
        self._timelines.finish(event, verdict, at_us, link.secrets)
        if event.type == "initialize":
            self._initialized(x, event, at_us)

    def _learn(self, live: Live, event: Event, result: Result, verdict: Verdict, at_us: int, link: _Link) -> None:
        """Note what an answer of the server says beyond how the request went."""
        if result.meta is not None or event.type in OPENING:
            self._timelines.identify_server(live, event, result, link.secrets)
        if event.type == "tools/list":
            self._ledger.tools(live.row, event, result.tools, at_us, link.secrets)
        if verdict is not SUCCESS and verdict.outcome is Outcome.INPUT_REQUIRED:
            operations.wants_input(live, event, result)
        elif verdict is not SUCCESS and verdict.outcome is Outcome.TASK:
            operations.became_task(live, event, result)
        call = operations.task_told(live, event, result) if event.operation is not None else None
        if call is not None:
            self._ledger.events[call] = None

    def _initialized(self, x: Exchange, event: Event, at_us: int) -> None:
        """Take what an `initialize` came to: the start of its connection, or its end."""
        live = x.link.live
        if live is None or live.accepted:
            return
        if event.status is Status.SUCCEEDED and event.outcome is None:
            self._timelines.started(live, event.at_us)
        else:
            self._timelines.end(live, EndReason.INITIALIZE_FAILED, at_us)

    def _judge(self, x: Exchange, event: Event, how: Ended, at_us: int) -> None:
        """Decide what a message came to whose exchange ended without an answer to it."""
        link: _Link = x.link
        resumable = link.era is Era.LEGACY and x.last_event_id is not None
        live = link.live
        if live is not None:
            # the answer comes on the GET stream (2024-11-05), or on a GET with Last-Event-ID (2025-11-25)
            elsewhere = live.endpoint is not None and not live.ended and how is Ended.COMPLETE and x.succeeded
            later = resumable and how in (Ended.COMPLETE, Ended.SERVER_GONE, Ended.CLIENT_GONE)
            if (elsewhere or later) and live.park(event):
                return
        self._ledger.times(event, x)
        event.dropped = x.lost
        event.response_bytes = x.response_size
        if x.stream.own_answer:
            event.note = "answered by the tap itself"
        if live is not None:
            live.answer(_TO_SERVER, event.key, event)
        status = x.status
        if event.type in LASTING and how is Ended.CLIENT_GONE and status < 400:
            verdict = Verdict(note="closed by the client")
        elif event.kind is Kind.NOTIFICATION and how is Ended.COMPLETE and status < 400:
            verdict = SUCCESS
        elif status >= 400 and how is not Ended.UNREACHABLE:
            verdict = of_http(status, x.error_text)
        else:
            verdict = of_silence(how, connect_error=x.stream.connect_error, unparsed=link.unparsed)
        self._timelines.finish(event, verdict, at_us, link.secrets)
        if event.type == "initialize":
            self._initialized(x, event, at_us)

    def _judge_http(self, x: Exchange, event: Event, how: Ended, at_us: int) -> None:
        """Decide what an exchange without a readable message came to."""
        link: _Link = x.link
        self._ledger.times(event, x)
        event.dropped = x.lost
        event.response_bytes = x.response_size
        if x.stream.own_answer:
            event.note = "answered by the tap itself"
        elif link.replayed:
            again = "1 event" if link.replayed == 1 else f"{link.replayed} events"
            event.note = f"{event.note}; {again} came again"
        # a document of OAuth is JSON, and nobody said that it is JSON-RPC
        if event.outcome is None and link.unparsed is not None and (x.is_sse or link.live is not None):
            event.outcome, event.note = Outcome.UNPARSED, link.unparsed
        status = x.status
        streamed = how in (Ended.CLIENT_GONE, Ended.STOPPED) and 0 < status < 300 and x.lasting
        if how is Ended.COMPLETE and status >= 400:
            harmless = of_refusal(status, x.request.method, x.request.target)
            verdict = harmless or link.refusal or of_http(status, x.error_text)
        elif how is Ended.COMPLETE or streamed:
            verdict = SUCCESS
        else:
            verdict = of_silence(how, connect_error=x.stream.connect_error)
        self._timelines.finish(event, verdict, at_us, link.secrets)

    def _http_row(self, x: Exchange, reason: str | None) -> None:
        link: _Link = x.link
        if link.event is None:
            link.event = self._ledger.http(x, link.head, reason)
            if link.head.last_event_id is not None and reason is None:
                link.event.note = self._ledger.word(f"resumed from {link.head.last_event_id}", link.secrets)
            if link.live is not None:
                self._timelines.attach(link.live, link.event)


def _integer(key: bytes) -> int | None:
    """Return an id that is an integer of ordinary size."""
    digits = key[1:] if key[:1] == b"-" else key
    return int(key) if digits.isdigit() and len(digits) <= MAX_DIGITS else None


def _only(asked: list[Event]) -> Event | None:
    """Return the only request of an exchange."""
    requests = [event for event in asked if event.kind is Kind.REQUEST]
    return requests[0] if len(requests) == 1 else None


def _error(message: Envelope) -> Error | None:
    return message.error if isinstance(message.error, Error) else None
