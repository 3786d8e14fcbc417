"""What has to be true of a record whatever was on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from mcp_tap.channel import Closing, Kind
from mcp_tap.model import Connection, ConnectionStatus, Event, Status
from mcp_tap.protocol.connections import MAX_ANSWERED, MAX_CURSORS, MAX_TASKS, MAX_WAITING, Live
from mcp_tap.protocol.exchange import MAX_TIMES
from mcp_tap.protocol.operations import MAX_TRIES
from mcp_tap.protocol.timeline import MAX_TOOLS
from mcp_tap.protocol.tracker import MAX_TOKENS
from mcp_tap.protocol.transcript import Step
from tests.protocol.wire import Wire
from tests.transcripts.play import play

COUNTERS = (
    "messages", "calls", "open_calls", "errors", "dropped", "truncated", "open_streams", "request_bytes",
    "response_bytes", "seq",
)  # fmt: skip
TIMES = ("duration_us", "headers_us", "first_byte_us", "first_event_us")

#: Characters that a column which is not a body may have.
MAX_COLUMN = 70_000

_CONNECTION = [field.name for field in fields(Connection)]
_EVENT = [field.name for field in fields(Event)]


def record(steps: Iterable[Step]) -> Wire:
    """Play steps, close what they leave open, stop, and check the record."""
    steps = list(steps)
    wire = play([*steps, *(Step(Kind.CLOSED, stream, Closing.END) for stream in sorted(open_streams(steps)))])
    wire.wait(2_000_000)
    wire.tick()
    wire.tracker.stop(wire.now)
    check(wire)
    return wire


def check(wire: Wire) -> None:
    """Raise AssertionError for what may not be, after all streams have closed and the recording has stopped."""
    connections, events = wire.connections, wire.events
    for row in connections:
        _connection(row)
    places = set()
    for event in events:
        _event(event)
        if event.connection is not None:
            place = (event.connection.id, event.seq)
            assert place not in places, f"two lines at {event.seq}"
            places.add(place)
            assert 0 < event.seq <= event.connection.seq
    for body in wire.bodies:
        body.data.encode()
    for live in wire.tracker.connections.all():
        _live(live)
    tracker = wire.tracker
    assert not tracker._openings, "an exchange still waits for its answer"
    assert not tracker.connections._by_stream, "a TCP connection is still remembered"
    assert not tracker.take(), "rows change after the end"


def _connection(row: Connection) -> None:
    for name in COUNTERS:
        assert getattr(row, name) >= 0, f"{name} is {getattr(row, name)}"
    assert row.open_calls == 0, f"{row.open_calls} calls are open after the end"
    assert row.open_streams == 0, f"{row.open_streams} streams are open after the end"
    assert row.calls <= row.messages
    assert row.status is ConnectionStatus.ENDED
    assert row.end_reason is not None
    assert row.ended_us is not None
    assert len(row.tools) <= MAX_TOOLS
    for name in _CONNECTION:
        _text(name, getattr(row, name))
    for tool in row.tools:
        _text("tools", tool)


def _event(event: Event) -> None:
    assert event.status is not Status.WAITING, f"{event.type} waits after the end"
    assert event.attempt >= 1
    assert event.operation is not event
    assert event.parent is not event
    for name in TIMES:
        value = getattr(event, name)
        assert value is None or value >= 0, f"{name} is {value}"
    assert len(event.sse_events) <= MAX_TIMES
    for name in _EVENT:
        _text(name, getattr(event, name))


def _text(name: str, value: object) -> None:
    if isinstance(value, str):
        value.encode()  # a store refuses lone surrogates
        assert len(value) <= MAX_COLUMN, f"{name} has {len(value)} characters"


def _live(live: Live) -> None:
    assert not live.waiting(), "a request is waited for after the end"
    assert live.open == 0
    assert max(len(live.to_server), len(live.to_client)) <= MAX_WAITING
    assert len(live.progress) <= MAX_TOKENS
    assert len(live.tries) <= MAX_TRIES
    assert len(live.answered) <= MAX_ANSWERED
    assert len(live.cursors) <= MAX_CURSORS
    assert len(live.tasks) <= MAX_TASKS


def open_streams(steps: Iterable[Step]) -> set[int]:
    """Return the streams that steps leave open."""
    left: set[int] = set()
    for step in steps:
        if step.kind is Kind.CLOSED:
            left.discard(step.stream)
        elif step.stream:
            left.add(step.stream)
    return left
