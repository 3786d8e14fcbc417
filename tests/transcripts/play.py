"""Plays a transcript into a tracker and compares the record with what the transcript says.

``python -m tests.transcripts.play FILE…`` prints the record of each, ``--write`` puts it into the file.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from mcp_tap.channel import Kind
from mcp_tap.model import Event, Side
from mcp_tap.protocol.exchange import Stream
from mcp_tap.protocol.transcript import Opening, Step, Table, Transcript, aligned, read, table_of, write
from mcp_tap.store.rows import event_row, session_row
from tests.protocol.wire import SECOND, Wire

HERE: Final = Path(__file__).parent

#: All of them, by revision and name.
FILES: Final = sorted(HERE.glob("*/*.txt"))

#: The columns that are written where a transcript names none.
SESSIONS: Final = ("origin", "mcp_session_id", "client_name", "server_name", "protocol_version", "status",
                   "end_reason", "calls", "errors")  # fmt: skip
EVENTS: Final = ("session", "seq", "type", "name", "direction", "status", "outcome", "failure_reason", "error_code",
                 "http_status", "jsonrpc_id", "parent", "latency_ms")  # fmt: skip

Cut = Callable[[Step], Iterable[bytes]]


def play(steps: Iterable[Step], *, cut: Cut | None = None, wire: Wire | None = None) -> Wire:
    """Play steps; ``cut`` divides the bytes of a step into the pieces in which they are fed."""
    wire = wire or Wire()
    tracker = wire.tracker
    streams: dict[int, Stream] = {}
    for step in steps:
        wire.wait(step.after_us)
        if step.after_us >= SECOND:
            wire.tick()
        kind, payload, now = step.kind, step.payload, wire.now
        if kind is None:
            continue
        if kind is Kind.STOP:
            tracker.stop(now)
            continue
        if step.stream not in streams:
            opening = Opening.of(step if kind is Kind.OPEN else Step(Kind.OPEN, step.stream))
            streams[step.stream] = Stream(
                step.stream, tracker, peer=opening.peer, upstream=opening.upstream, resumed=opening.resumed
            )
        stream = streams[step.stream]
        if kind in (Kind.CLIENT, Kind.SERVER, Kind.OWN):
            feed = {Kind.CLIENT: stream.client, Kind.SERVER: stream.server, Kind.OWN: stream.own}[kind]
            for piece in (payload,) if cut is None else cut(step):
                feed(piece, now)
        elif kind is Kind.CONNECT_FAILED:
            stream.connect_failed(payload.decode())
        elif kind is Kind.CLIENT_EOF:
            stream.client_eof()
        elif kind is Kind.SERVER_EOF:
            stream.server_eof(now)
        elif kind is Kind.LOST:
            tracker.lost(stream, int(payload))
            stream.lose(int(payload), now)
        elif kind is Kind.CLOSED:
            stream.close(payload, now)
            tracker.stream_closed(stream)
            del streams[step.stream]
    return wire


def sessions_of(wire: Wire) -> list[dict[str, Any]]:
    """Return the rows of the view `sessions`, in the order of their making."""
    return [session_row(row) for row in sorted(wire.connections, key=lambda row: row.created_us)]


def events_of(wire: Wire) -> list[dict[str, Any]]:
    """Return the rows of the view `events`, with numbers of this transcript where a store has ids, and some more.

    ``session`` is the place in `sessions_of`; ``parent`` and ``operation`` are places in this list, from 1.
    """
    numbers = {row.id: n for n, row in enumerate(sorted(wire.connections, key=lambda row: row.created_us), 1)}
    events = wire.events
    places = {id(event): place for place, event in enumerate(events, 1)}

    def place(event: Event | None) -> int | None:
        return None if event is None else places.get(id(event))

    return [
        event_row(event, "00000")
        | {
            "session": numbers.get(event.connection.id) if event.connection is not None else None,
            "parent": place(event.parent),
            "operation": place(event.operation),
            "jsonrpc_id": event.jsonrpc_id,
            "path": event.path,
            "stream": event.stream,
            "headers_ms": None if event.headers_us is None else event.headers_us / 1000,
            "first_event_ms": None if event.first_event_us is None else event.first_event_us / 1000,
            "sse_events": len(event.sse_events),
            "request": wire.body(event, Side.REQUEST),
            "response": wire.body(event, Side.RESPONSE),
        }
        for event in events
    ]


def recorded(transcript: Transcript, wire: Wire) -> tuple[Table, Table]:
    """Return the record in the columns that a transcript has chosen."""
    sessions = transcript.sessions[0] if transcript.sessions else SESSIONS
    events = transcript.events[0] if transcript.events else EVENTS
    return table_of(sessions_of(wire), sessions), table_of(events_of(wire), events)


def differences(transcript: Transcript, wire: Wire) -> str:
    """Return a diff between the record that a transcript asks for and the one that was made, empty where none is."""
    lines: list[str] = []
    sessions, events = recorded(transcript, wire)
    for name, expected, actual in (("sessions", transcript.sessions, sessions), ("events", transcript.events, events)):
        if expected and expected != actual:
            rows = aligned(expected + actual)
            wanted, made = rows[: len(expected)], rows[len(expected) :]
            lines += difflib.unified_diff(wanted, made, f"{name} expected", f"{name} recorded", lineterm="", n=99)
    return "\n".join(lines)


def load(path: Path) -> Transcript:
    """Read a file."""
    return read(path.read_text(encoding="utf-8"))


def main(arguments: list[str]) -> None:
    """Print the record of each file, or with --write put it there."""
    for name in arguments:
        if name == "--write":
            continue
        path = Path(name)
        transcript = load(path)
        transcript.sessions, transcript.events = recorded(transcript, play(transcript.steps))
        if "--write" in arguments:
            kept = path.read_text(encoding="utf-8")
            for table in ("\nsessions:\n", "\nevents:\n"):
                kept = kept.partition(table)[0]
            tables = write(Transcript(sessions=transcript.sessions, events=transcript.events))
            path.write_text(f"{kept.rstrip()}\n\n{tables}", encoding="utf-8")
        print(path)
        print("\n".join([*aligned(transcript.sessions), "", *aligned(transcript.events)]), end="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
