"""Keeps the rows of connections and the lines of their timelines: places, counters, beginnings and ends."""

from __future__ import annotations

from typing import Final

from mcp_tap.model import Direction, EndReason, Event, FailureReason, Kind, Outcome, Status
from mcp_tap.protocol.connections import Connections, Live
from mcp_tap.protocol.exchange import Exchange
from mcp_tap.protocol.jsonrpc import Envelope, Result
from mcp_tap.protocol.ledger import Ledger
from mcp_tap.protocol.redact import NONE, Secrets
from mcp_tap.protocol.revisions import LASTING, REVISIONS
from mcp_tap.protocol.verdict import Verdict

# Looking up the member of an enumeration costs as much as a call, and these are looked up for every message.
_REQUEST, _TO_SERVER, _WAITING, _FAILED = Kind.REQUEST, Direction.TO_SERVER, Status.WAITING, Status.FAILED

#: Requests whose answer says who the server is.
OPENING: Final = ("initialize", "server/discover")

#: Tools that a session's row names.
MAX_TOOLS: Final = 200


class Timelines:
    """Writes into the rows of connections what the tracker found out."""

    def __init__(self, ledger: Ledger, connections: Connections) -> None:
        self._ledger = ledger
        self._connections = connections

    def identify(self, live: Live, message: Envelope, x: Exchange, secrets: Secrets) -> None:
        """Note what a request says of its client."""
        row, params, word = live.row, message.params, self._ledger.word
        meta = params.meta if params is not None else None
        known = row.protocol_version is not None and (row.client_name is not None or meta is None)
        if known and message.method != "initialize":
            return
        if meta is not None and meta.version is not None:
            if row.protocol_version is None:
                row.protocol_version = word(meta.version, secrets)
            if meta.client is not None and row.client_name is None:
                row.client_name = word(meta.client.name, secrets)
                row.client_version = word(meta.client.version, secrets)
                row.client_capabilities = self._ledger.json(meta.capabilities, secrets)
        elif message.method == "initialize" and params is not None:
            if params.client_info is not None:
                row.client_name = word(params.client_info.name, secrets)
                row.client_version = word(params.client_info.version, secrets)
            row.client_capabilities = self._ledger.json(params.capabilities, secrets)
            row.protocol_version = word(params.protocol_version, secrets)  # what it asks for, until the answer
        elif row.protocol_version is None:
            version = x.request.headers.get(b"mcp-protocol-version")
            row.protocol_version = word(version.decode("latin-1"), secrets) if version else None
        revision = REVISIONS.get(row.protocol_version or "")
        if revision is not None:
            row.era = revision.era

    def identify_server(self, live: Live, event: Event, result: Result, secrets: Secrets) -> None:
        """Note what an answer says of the server."""
        row, opening = live.row, event.type in OPENING
        server = result.server_info or (result.meta.server if result.meta is not None else None)
        if server is not None and (row.server_name is None or opening):
            row.server_name = self._ledger.word(server.name, secrets)
            row.server_version = self._ledger.word(server.version, secrets)
        if opening:
            row.server_capabilities = self._ledger.json(result.capabilities, secrets)
            row.instructions = self._ledger.text(result.instructions, secrets)
            if result.protocol_version is not None:
                row.protocol_version = self._ledger.word(result.protocol_version, secrets)
                revision = REVISIONS.get(row.protocol_version or "")
                row.era = revision.era if revision is not None else row.era

    def count(self, live: Live, event: Event) -> None:
        """Count a message that was attached."""
        row = live.row
        row.messages += 1
        if event.request_cut:
            row.truncated += 1
        if event.kind is not _REQUEST or event.direction is not _TO_SERVER:
            return
        row.calls += 1
        if event.status is _WAITING and event.type not in LASTING:
            row.open_calls += 1
        name = event.name
        if name and event.type == "tools/call":
            calls = row.tools.get(name)
            if calls is not None or len(row.tools) < MAX_TOOLS:
                row.tools[name] = (calls or 0) + 1

    def attach(self, live: Live, event: Event) -> None:
        """Put a row into the timeline of a connection. The line of session_start is kept free, after a probe."""
        row = live.row
        if not live.start_seq and event.outcome is not Outcome.PROBE:
            row.seq += 1
            live.start_seq = row.seq
        row.seq += 1
        event.connection, event.seq = row, row.seq
        event.peer = None
        self._ledger.events[event] = None
        self._ledger.connections[row] = None

    def finish(self, event: Event, verdict: Verdict, at_us: int, secrets: Secrets = NONE) -> None:
        """Give a message its end."""
        waited = event.status is _WAITING
        event.duration_us = at_us - event.at_us if at_us > event.at_us else 0
        self._ledger.judge(event, verdict, secrets)
        row = event.connection
        if row is None:
            return
        if waited and event.kind is _REQUEST and event.direction is _TO_SERVER and event.type not in LASTING:
            row.open_calls -= 1
        if event.status is _FAILED and event.failure_reason is not FailureReason.ABANDONED:
            row.errors += 1
        self._ledger.connections[row] = None

    def started(self, live: Live, at_us: int) -> None:
        """Note that a connection is accepted, in the line that was kept for it."""
        live.accepted = True
        live.row.started_us = at_us
        start = Event(Kind.LIFECYCLE, "session_start", at_us, connection=live.row, seq=live.start_seq)
        self._ledger.events[start] = None
        self._ledger.connections[live.row] = None

    def end(self, live: Live, reason: EndReason, at_us: int) -> None:
        """End a connection with a line of its timeline, and give up what still waits in it."""
        self.give_up(live, reason, at_us)
        live.progress.clear()
        self._connections.end(live, reason, at_us)
        self.line(live, "session_end", at_us, reason.value)

    def give_up(self, live: Live, reason: EndReason, at_us: int) -> None:
        """Wait no longer for anything in a connection."""
        for event in live.waiting():
            if event.status is Status.WAITING:
                text = "the session ended before the answer"
                verdict = Verdict(Status.FAILED, FailureReason.ABANDONED, reason.value, text)
                self.finish(event, verdict, max(at_us, event.at_us))
        live.forget_waiting()

    def reopen(self, live: Live, at_us: int) -> None:
        """Take up a connection that had ended."""
        self._connections.reopen(live)
        self.line(live, "session_reopened", at_us)

    def line(self, live: Live, what: str, at_us: int, note: str | None = None) -> None:
        """Add a line of something that the tap saw happen."""
        self.attach(live, Event(Kind.LIFECYCLE, what, at_us, note=note))
