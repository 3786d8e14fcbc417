"""What is remembered, and for how long: counted, because memory is what the allocator makes of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_tap.model import Event, Status
from mcp_tap.protocol.connections import Live
from mcp_tap.protocol.exchange import Exchange, Stream
from tests.protocol.wire import MINUTE, SECOND, Wire, error, initialize, result, rpc


def session(number: int) -> dict[str, str]:
    return {"mcp-session-id": f"S{number}", "mcp-protocol-version": "2025-11-25"}


def kept(wire: Wire, kind: type[Any]) -> int:
    """Return how many objects of a class can be reached from what the tracker remembers between two batches."""
    wire.tracker.take()
    seen: set[int] = set()
    found = 0
    todo: list[Any] = [wire.tracker]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or (type(thing).__module__ == "builtins" and callable(thing)):
            continue
        seen.add(id(thing))
        found += isinstance(thing, kind)
        todo += gc.get_referents(thing)
    return found


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.tracker.stop(wire.now)


def use(wire: Wire, number: int, *, calls: int = 3, stream: bool = True) -> None:
    """Play one session with some calls and an open stream, and close its TCP connections."""
    tcp, other = wire.tcp(f"127.0.0.1:{number + 10_000}"), wire.tcp(f"127.0.0.1:{number + 30_000}")
    initialize(tcp, f"S{number}")
    if stream:
        other.request("GET", **session(number))
        other.open_stream()
    for call in range(calls):
        tcp.post(rpc("tools/call", call + 10, name="search", _meta={"progressToken": call}), **session(number))
        tcp.answer(200, result(call + 10, content=[]))
    tcp.request("DELETE", **session(number))
    tcp.answer(200)
    tcp.close()
    other.close()


def test_a_session_that_was_deleted_is_forgotten_with_all_that_belonged_to_it(wire: Wire) -> None:
    for number in range(50):
        use(wire, number)
    wire.wait(30 * SECOND)
    wire.tick()
    assert (len(wire.tracker.connections), kept(wire, Live)) == (50, 50)  # something may still be on its way
    wire.wait(MINUTE)
    wire.tick()
    assert len(wire.tracker.connections) == 0
    assert {kind: kept(wire, kind) for kind in (Live, Event, Exchange, Stream)} == {
        Live: 0,
        Event: 0,
        Exchange: 0,
        Stream: 0,
    }


def test_streams_that_are_closed_leave_nothing_but_their_session(wire: Wire) -> None:
    initialize(wire.tcp(), "S1")
    for port in range(200):
        tcp = wire.tcp(f"127.0.0.1:{port + 10_000}")
        tcp.request("GET", **session(1))
        tcp.open_stream()
        tcp.close()
    assert (kept(wire, Exchange), kept(wire, Live)) == (0, 1)


def test_what_was_answered_is_not_kept_where_nothing_can_bring_it_again(wire: Wire) -> None:
    tcp = wire.tcp()
    initialize(tcp, "S1")
    for call in range(300):
        tcp.post(rpc("tools/call", call + 10, name="search"), **session(1))
        tcp.answer(200, result(call + 10, content=[]))
    assert kept(wire, Event) <= 2  # the last call of its name: the next may be another try


def test_a_late_request_finds_its_session_for_a_minute(wire: Wire) -> None:
    use(wire, 1)
    wire.wait(30 * SECOND)
    wire.tick()
    late(wire)
    (row,) = wire.connections
    assert row.mcp_session_id == "S1"


def test_a_later_one_is_told_from_one_of_before_the_recording(wire: Wire) -> None:
    use(wire, 1)
    wire.wait(2 * MINUTE)
    wire.tick()
    late(wire)
    before, after = wire.connections
    assert before.mcp_session_id == after.mcp_session_id == "S1"
    assert (before.origin_note, after.origin_note) == (None, "adopted: it had ended before")
    assert [event.status for event in wire.events if event.name == "late"] == [Status.FAILED]


def late(wire: Wire) -> None:
    tcp = wire.tcp("127.0.0.1:50009")
    tcp.post(rpc("tools/call", 99, name="late"), **session(1))
    tcp.answer(404, error("server-error", -32600, "Session not found"))
    tcp.close()


def test_an_idle_session_is_remembered_because_it_may_go_on(wire: Wire) -> None:
    tcp = wire.tcp()
    initialize(tcp, "S1")
    tcp.close()
    wire.wait(45 * MINUTE)
    wire.tick()
    wire.wait(45 * MINUTE)
    wire.tick()
    assert len(wire.tracker.connections) == 1
