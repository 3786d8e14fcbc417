"""Which connection an exchange belongs to, and when a connection starts and ends.

The rules, first match wins:

1. `Mcp-Session-Id` on the request (legacy era; the modern one ignores the header);
2. the URL that the 2024-11-05 transport handed out on a GET stream: one stream is one session, and the whole request
   target is its key, because servers put the id wherever they like;
3. an `initialize` request: it opens a connection, keyed when a 2xx answer brings an id (servers put ids on refusals
   too);
4. **derived**, for what none of these names: requests are gathered by who sends them (upstream, credential or
   address, user agent, client name), and `derived` chooses among the connections of one sender.

A connection's states::

     (none) ─first contact─► pending ─initialize 2xx, or the first 2xx─► active·connected
                                │ refused, or 30 min                        │   ▲ any request
                                ▼                    no stream, 2 min idle  ▼   │
                              ended ◄── DELETE 2xx · 404 · idle limit ─── active·disconnected

An idle end is dated at the last activity, so that durations stay honest. A late request re-opens the same row.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from mcp_tap.model import (
    Connection,
    ConnectionState,
    ConnectionStatus,
    Direction,
    EndReason,
    Era,
    Event,
    Origin,
    new_id,
)
from mcp_tap.protocol.derived import choose
from mcp_tap.protocol.exchange import Exchange, Stream
from mcp_tap.protocol.jsonrpc import Implementation
from mcp_tap.protocol.operations import Try

SECOND: Final = 1_000_000

#: After this long without an open stream a connection counts as disconnected.
QUIET_US: Final = 120 * SECOND

#: A connection that was never initialised in this time is given up.
PENDING_US: Final = 1800 * SECOND

#: A refused `server/discover` waits this long for the `initialize` that falls back to the legacy era.
PROBE_US: Final = 60 * SECOND

#: A re-initialisation this soon after a 404 continues the session.
REPLACE_US: Final = 60 * SECOND

#: One that ended for good is remembered this long, for what may still be on its way; after that, that it has been.
FORGET_US: Final = 60 * SECOND

#: Connections that are remembered. Beyond it the ones that were idle longest are forgotten; their rows stay.
MAX_LIVE: Final = 20_000

#: Ids of requests of one derived connection that are remembered: the same id again is another client's.
MAX_IDS: Final = 512

#: Answers, SSE cursors and tasks of one connection that are remembered, so that what comes again is known.
MAX_ANSWERED: Final = 256
MAX_CURSORS: Final = 4096
MAX_TASKS: Final = 256

#: Requests of one connection and side that can be waiting: a client that never gets answers must not fill the memory.
MAX_WAITING: Final = 10_000


# Looking up the member of an enumeration costs as much as a call, and these are looked up for every exchange.
_ENDED, _CONNECTED, _DISCONNECTED = ConnectionStatus.ENDED, ConnectionState.CONNECTED, ConnectionState.DISCONNECTED
_DERIVED, _TO_SERVER = Origin.DERIVED, Direction.TO_SERVER


@dataclass(slots=True, eq=False)
class Live:
    """What is remembered of a connection while it may still be used."""

    row: Connection
    key: bytes = b""  # of who sends, where that is what ties it together
    endpoint: str | None = None  # the request target of its messages (2024-11-05)
    start_seq: int = 0  # the line of the timeline that is kept for session_start
    open: int = 0  # exchanges that have not ended
    to_server: dict[bytes, Event] = field(default_factory=dict)  # requests of the client that wait, by id
    to_client: dict[bytes, Event] = field(default_factory=dict)  # those of the server: ids of their own
    parked: set[Event] = field(default_factory=set)  # those whose own exchange has ended: another brings the answer
    progress: dict[bytes, Event] = field(default_factory=dict)  # progress token -> the request that named it
    answered: dict[bytes, Event] = field(default_factory=dict)  # id -> the request, of the last answers
    cursors: dict[str, Event | None] = field(default_factory=dict)  # id of an SSE event -> request of its stream
    tasks: dict[str, Event] = field(default_factory=dict)  # task id -> the request that was answered by it
    tries: dict[tuple[str, str | None], Try] = field(default_factory=dict)  # last call of each name
    accepted: bool = False  # by the server: no longer pending
    alias: str | None = None  # another session id that an answer carried
    last_id: int | None = None  # the last integer id of a request, and the ones before it
    ids: dict[int, None] = field(default_factory=dict)
    starts: int = 1  # start markers that were seen on it
    streams: set[int] = field(default_factory=set)  # open TCP connections that it used

    @property
    def ended(self) -> bool:
        """Whether it has ended. A late request may re-open it."""
        return self.row.status is _ENDED

    def waiting(self) -> list[Event]:
        """Return the requests without an answer, of either side."""
        return [*self.to_server.values(), *self.to_client.values()]

    def forget_waiting(self) -> None:
        """Wait for nothing any longer."""
        self.to_server.clear()
        self.to_client.clear()
        self.parked.clear()

    def wait(self, direction: Direction, key: bytes, event: Event) -> Event | None:
        """Remember a request until its answer comes; return the one that cannot be waited for because of that.

        An id that is in flight a second time is that of the newer request; beyond the bound none is remembered.
        """
        waiting = self.to_server if direction is _TO_SERVER else self.to_client
        if len(waiting) >= MAX_WAITING:
            return event
        before = waiting.get(key)
        waiting[key] = event
        return before

    def park(self, event: Event) -> bool:
        """Wait for a request of the client beyond the end of its exchange, if it is remembered."""
        remembered = self.to_server.get(event.key) is event
        if remembered:
            self.parked.add(event)
        return remembered

    def use_id(self, number: int | None) -> None:
        """Note an id, where it is an integer of ordinary size."""
        if number is not None:
            self.last_id = number
            if self.row.origin is _DERIVED:
                _keep(self.ids, number, None, MAX_IDS)

    def remember(self, key: bytes, event: Event) -> None:
        """Remember an answered request: a resumed stream may bring its answer again."""
        _keep(self.answered, key, event, MAX_ANSWERED)

    def pass_cursor(self, event_id: str, event: Event | None) -> None:
        """Remember an SSE event's id, and the request on whose stream it came."""
        _keep(self.cursors, event_id, event, MAX_CURSORS)

    def remember_task(self, task_id: str, event: Event) -> None:
        """Remember the call that became a task."""
        _keep(self.tasks, task_id, event, MAX_TASKS)

    def answer(self, direction: Direction, key: bytes, event: Event | None = None) -> Event | None:
        """Return the request that an answer belongs to, and wait for it no longer.

        With ``event`` only that very request is meant: the same id may be in flight a second time.
        """
        waiting = self.to_server if direction is _TO_SERVER else self.to_client
        found = waiting.get(key)
        if found is None or (event is not None and found is not event):
            return None
        if self.parked:
            self.parked.discard(found)
        del waiting[key]
        return found


class Connections:
    """All connections that may still be used. Every row that has to be written again is put into ``changed``."""

    def __init__(
        self,
        *,
        changed: dict[Connection, None],
        idle_us: int,
        session_word: Callable[[str], str] = str,
        trusted: Iterable[str] | None = None,
    ) -> None:
        """Start without any.

        ``session_word`` gives the stored form of a session id: itself or its keyed hash. ``trusted`` are the networks
        whose X-Forwarded-For is believed, None to take every address as it is.
        """
        self._changed = changed
        self._idle_us = idle_us
        self._session_word = session_word
        self._trusted = None if trusted is None else [ipaddress.ip_network(net, strict=False) for net in trusted]
        self._hash_key = secrets.token_bytes(32)  # made anew at each start: credentials cannot be looked up later
        self._live: dict[int, Live] = {}  # by id() of the row
        self._by_session: dict[tuple[str, str], Live] = {}
        self._by_endpoint: dict[tuple[str, str], Live] = {}
        self._by_key: dict[bytes, list[Live]] = {}  # oldest first
        self._by_stream: dict[int, dict[Live, None]] = {}  # who used an open TCP connection, the last one last
        self._probes: dict[tuple[int | str, str], tuple[Event, int]] = {}
        self._over: dict[int, None] = {}  # hashes of what led to connections that have ended and are forgotten
        self._replaceable: dict[bytes, list[Live]] = {}  # by who sends: ended by a 404 a moment ago

    def __len__(self) -> int:
        return len(self._live)

    def all(self) -> list[Live]:
        """Return every connection that is remembered."""
        return list(self._live.values())

    def in_use(self, since_us: int) -> list[Live]:
        """Return the connections that were in use at a moment or after it."""
        return [
            live for live in self._live.values() if not live.ended and live.row.last_active_us >= since_us - QUIET_US
        ]

    # Belonging

    def of_session(self, x: Exchange, session_id: str, at_us: int) -> Live:
        """Return the connection that a request names by `Mcp-Session-Id`; an id never seen is adopted."""
        word = self._session_word(session_id)
        live = self._by_session.get((x.stream.upstream, word))
        if live is None:
            live = self._new(x, Origin.HEADER, at_us)
            over = hash((x.stream.upstream, word)) in self._over
            live.row.origin_note = "adopted: it had ended before" if over else "adopted: it began before the recording"
            live.row.era = Era.LEGACY
            live.accepted = True
            self._name(live, word)
        if not live.key:  # adopted, or of an earlier run: now it is known who uses it
            live.key = self._sender(x, None)
        return live

    def handed_out(self, x: Exchange, uri: str) -> Live:
        """Return the new connection of a GET stream that names the URL for its session's messages."""
        try:
            parts = urlsplit(urljoin(x.request.target, uri))
        except ValueError:  # no URL, such as one with half of an IPv6 address: no client can use it either
            parts = SplitResult("", "", uri, "", "")
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        live = self._new(x, Origin.ENDPOINT, x.at_us)
        live.row.era, live.row.transport = Era.LEGACY, "sse"
        live.row.protocol_version = "2024-11-05"  # until `initialize` says otherwise
        live.row.mcp_session_id = self._session_word(parts.query.rpartition("=")[2] or parts.path.rpartition("/")[2])
        live.endpoint = target
        self._by_endpoint[x.stream.upstream, target] = live
        return live

    def names_another(self, live: Live, session_id: str) -> bool:
        """Whether an answer carries an id that is not its session's."""
        known = live.row.mcp_session_id
        return live.row.origin is Origin.HEADER and known is not None and known != self._session_word(session_id)

    def rename(self, live: Live, session_id: str) -> str:
        """Let a connection be found under another id, too; return the change in words. Its row keeps the first one."""
        word = live.alias = self._session_word(session_id)
        self._by_session.setdefault((live.row.upstream, word), live)
        return f"{live.row.mcp_session_id} → {word}"

    def of_endpoint(self, x: Exchange) -> Live | None:
        """Return the connection whose messages are sent to this very URL, if there is one."""
        return self._by_endpoint.get((x.stream.upstream, x.request.target)) if self._by_endpoint else None

    def opened(self, x: Exchange, client: Implementation | None, at_us: int) -> Live:
        """Return a new connection for an `initialize` request."""
        live = self._new(x, Origin.DERIVED, at_us)
        live.row.era = Era.LEGACY
        live.key = self._sender(x, None)
        before = self._replaced(live.key, x, client, at_us)
        if before is not None:
            live.row.replaces = before.row.id
            live.row.session_id = before.row.session_id
        return live

    def accept(self, live: Live, session_id: str | None) -> None:
        """Key a connection whose `initialize` was answered by 2xx: by the id it brought, else by who sends."""
        if session_id is not None:
            live.row.origin = Origin.HEADER
            self._name(live, self._session_word(session_id))
        else:
            self._by_key.setdefault(live.key, []).append(live)
        self._changed[live.row] = None

    def derived(
        self,
        x: Exchange,
        at_us: int,
        *,
        era: Era,
        client: Implementation | None,
        method: str | None,
        number: int | None,
    ) -> Live:
        """Return the connection of a request that nothing on the wire names. ``number`` is an integer id."""
        mine = self.on(x.stream)
        if client is None and mine is not None and mine.row.origin is Origin.DERIVED:
            key = mine.key  # a notification without metadata: the TCP connection tells who sends it
        else:
            key = self._sender(x, client if era is Era.MODERN else None)
        lives = self._by_key.get(key, ())
        choice = choose(lives, mine, method=method, number=number, at_us=at_us, idle_us=self._idle_us)
        for live in choice.shared:
            starts = max(2, live.starts, len(choice.shared))
            live.row.origin_note = f"shared ({starts} starts)"
            self._changed[live.row] = None
        if choice.live is not None:
            return choice.live
        live = self._new(x, Origin.DERIVED, at_us)
        live.key = key
        live.row.origin_note = choice.note
        if choice.after is not None:
            live.starts = choice.after.starts
            live.row.replaces, live.row.session_id = choice.after.row.id, choice.after.row.session_id
        self._by_key.setdefault(key, []).append(live)
        return live

    def on(self, stream: Stream) -> Live | None:
        """Return the connection that used a TCP connection last, if it can still be used."""
        live = next(reversed(self._by_stream.get(stream.number, {})), None)
        return None if live is None or live.ended else live

    def use(self, live: Live, x: Exchange, at_us: int) -> None:
        """Note that an exchange belongs to a connection."""
        live.open += 1
        live.row.open_streams += 1
        number = x.stream.number
        users = self._by_stream.get(number)
        if users is None:
            users = self._by_stream[number] = {}
        if live not in users or next(reversed(users)) is not live:
            users.pop(live, None)
            users[live] = None
            live.streams.add(number)
        self.touch(live, at_us)

    def leave(self, live: Live, at_us: int) -> None:
        """Note that an exchange of a connection has ended."""
        live.open -= 1
        if live.row.open_streams > 0:
            live.row.open_streams -= 1
        self.touch(live, at_us)

    def touch(self, live: Live, at_us: int) -> None:
        """Note activity."""
        row = live.row
        row.last_active_us = max(row.last_active_us, at_us)
        row.state = _DISCONNECTED if row.status is _ENDED else _CONNECTED
        self._changed[row] = None

    def stream_closed(self, stream: Stream) -> None:
        """Note that a TCP connection is gone."""
        for live in self._by_stream.pop(stream.number, ()):
            live.streams.discard(stream.number)

    # Probes

    def park(self, x: Exchange, event: Event, at_us: int) -> None:
        """Keep a refused `server/discover` for the `initialize` that follows it."""
        self._probes[x.stream.number, ""] = (event, at_us)
        self._probes[self.address(x), _agent(x)] = (event, at_us)

    def probe_of(self, x: Exchange, at_us: int) -> Event | None:
        """Return the refused probe that an `initialize` falls back from, once."""
        found = self._probes.get((x.stream.number, "")) or self._probes.get((self.address(x), _agent(x)))
        if found is None:
            return None
        event, parked_us = found
        self._probes = {k: v for k, v in self._probes.items() if v[0] is not event}
        return event if at_us - parked_us <= PROBE_US else None

    # Ends

    def end(self, live: Live, reason: EndReason, at_us: int) -> None:
        """End a connection."""
        row = live.row
        row.status, row.state, row.end_reason, row.ended_us = (
            ConnectionStatus.ENDED,
            ConnectionState.DISCONNECTED,
            reason,
            at_us,
        )
        if reason is EndReason.SESSION_NOT_FOUND:
            self._replaceable.setdefault(live.key, []).append(live)
        if live.key:
            self._unkey(live)
        if live.endpoint is not None:
            self._by_endpoint.pop((row.upstream, live.endpoint), None)
        self._changed[row] = None

    def may_reopen(self, live: Live) -> bool:
        """Whether an ended connection goes on as soon as it is used: its end was only our guess."""
        return live.row.end_reason in (EndReason.IDLE_TIMEOUT, EndReason.SHUTDOWN)

    def reopen(self, live: Live) -> None:
        """Take up a connection again that had ended, because it is used."""
        row = live.row
        row.status, row.state, row.end_reason, row.ended_us = (
            ConnectionStatus.ACTIVE,
            ConnectionState.CONNECTED,
            None,
            None,
        )
        self._changed[row] = None

    def due(self, at_us: int) -> list[tuple[Live, EndReason, int]]:
        """Return the connections whose time is over, why, and when that was; mark the quiet ones."""
        over: list[tuple[Live, EndReason, int]] = []
        gone: list[Live] = []
        for live in self._live.values():
            row = live.row
            if live.open:
                continue
            if live.ended:
                if at_us - (row.ended_us or 0) > FORGET_US and not self.may_reopen(live):
                    gone.append(live)
                continue
            idle_us = at_us - row.last_active_us
            if not live.accepted and at_us - row.created_us > PENDING_US:
                over.append((live, EndReason.INITIALIZE_FAILED, row.last_active_us))
            elif idle_us > self._idle_us:
                over.append((live, EndReason.IDLE_TIMEOUT, row.last_active_us))
            elif idle_us > QUIET_US and row.state is ConnectionState.CONNECTED:
                row.state = ConnectionState.DISCONNECTED
                self._changed[row] = None
        self._probes = {k: v for k, v in self._probes.items() if at_us - v[1] <= PROBE_US}
        self._replaceable = {
            key: recent
            for key, lives in self._replaceable.items()
            if (recent := [live for live in lives if at_us - (live.row.ended_us or 0) <= REPLACE_US])
        }
        self._forget(gone)
        return over

    def restore(self, rows: Iterable[Connection]) -> None:
        """Remember connections of an earlier run: a request with a known id continues its row."""
        for row in rows:
            live = Live(row, start_seq=1, accepted=True)
            self._live[id(row)] = live
            if row.mcp_session_id is not None:
                self._by_session[row.upstream, row.mcp_session_id] = live

    def _replaced(self, key: bytes, x: Exchange, client: Implementation | None, at_us: int) -> Live | None:
        """Return the connection that an `initialize` makes good for, if there is no doubt which."""
        lives = self._replaceable.get(key, [])
        name = (client.name, client.version) if client is not None else (None, None)
        alike = [
            live
            for live in lives
            if at_us - (live.row.ended_us or 0) <= REPLACE_US
            and (None in (live.row.client_name, name[0]) or (live.row.client_name, live.row.client_version) == name)
        ]
        # clients of one identity may have lost their sessions together: the TCP connection tells which is which
        mine = [live for live in alike if x.stream.number in live.streams]
        found = mine[-1] if mine else alike[0] if len(alike) == 1 else None
        if found is not None:
            lives.remove(found)
        return found

    # Who sends

    def address(self, x: Exchange) -> str:
        """Return the client's address without its port."""
        peer = x.stream.peer.rpartition(":")[0].strip("[]")
        if self._trusted is None:
            return peer
        forwarded = x.request.headers.get(b"x-forwarded-for", b"").decode("latin-1")
        # the right-most address that no trusted proxy added
        for address in (peer, *reversed([part.strip() for part in forwarded.split(",") if part.strip()])):
            try:
                if not any(ipaddress.ip_address(address) in net for net in self._trusted):
                    return address
            except ValueError:
                break
            peer = address
        return peer

    def _sender(self, x: Exchange, client: Implementation | None) -> bytes:
        """Return a keyed hash of who sends: the credential itself is never kept."""
        headers = x.request.headers
        credential = headers.get(b"authorization") or headers.get(b"x-api-key")
        who = b"c" + credential if credential else b"a" + self.address(x).encode()
        name = (client.name or "", client.version or "") if client else ("", "")
        words = (x.stream.upstream.encode(), who, headers.get(b"user-agent", b""), *(word.encode() for word in name))
        return hashlib.blake2b(b"\0".join(words), key=self._hash_key, digest_size=16).digest()

    # Private

    def _new(self, x: Exchange, origin: Origin, at_us: int) -> Live:
        row = Connection(
            id=new_id("scn_", at_us),
            session_id=new_id("ses_", at_us),
            origin=origin,
            created_us=at_us,
            last_active_us=at_us,
            upstream=x.stream.upstream,
            client_address=self.address(x),
            user_agent=x.link.head.agent,
            transport="streamable_http",
        )
        live = Live(row)
        self._live[id(row)] = live
        return live

    def _name(self, live: Live, word: str) -> None:
        live.row.mcp_session_id = word
        self._by_session[live.row.upstream, word] = live

    def _unkey(self, live: Live) -> None:
        lives = self._by_key.get(live.key)
        if lives and live in lives:
            lives.remove(live)
            if not lives:
                del self._by_key[live.key]

    def _forget(self, gone: list[Live]) -> None:
        """Drop these, and beyond the bound what was idle longest, ended ones first."""
        excess = len(self._live) - len(gone) - MAX_LIVE
        if excess > 0:
            dropped = set(gone)
            rest = [live for live in self._live.values() if not live.open and live not in dropped]
            gone += sorted(rest, key=lambda live: (not live.ended, live.row.last_active_us))[:excess]
        for live in gone:
            del self._live[id(live.row)]
            self._unkey(live)
            for word in (live.row.mcp_session_id, live.alias):
                key = live.row.upstream, word or ""
                if word is not None and self._by_session.get(key) is live:
                    del self._by_session[key]
                    _keep(self._over, hash(key), None, MAX_LIVE)


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _keep(memory: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Put something into a memory that forgets the oldest."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > most:
        del memory[next(iter(memory))]


def _agent(x: Exchange) -> str:
    return x.request.headers.get(b"user-agent", b"").decode("latin-1")
