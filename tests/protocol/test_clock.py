"""A wall clock that is set while calls are in flight and sessions are open."""

from __future__ import annotations

import pytest

from mcp_tap.model import ConnectionStatus, EndReason, Status
from mcp_tap.protocol.clock import clock_set
from tests.protocol.test_tracker import LEGACY, call, opened
from tests.protocol.wire import MINUTE, MS, SECOND, Tcp, Wire, initialize, result, rpc

HOUR = 60 * MINUTE

STEPS = [pytest.param(step, id=f"{step // HOUR:+}h") for step in (-48 * HOUR, -HOUR, HOUR, 48 * HOUR)]


def set_clock(wire: Wire, by_us: int, *tcps: Tcp) -> None:
    wire.take()
    wire.now += by_us
    clock_set(by_us, wire.tracker.connections, [tcp.stream for tcp in tcps])


@pytest.mark.parametrize("step", STEPS)
def test_a_call_takes_as_long_as_it_takes(step: int) -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    wire.wait(SECOND)
    set_clock(wire, step, tcp)
    wire.wait(SECOND)
    tcp.answer(200, result(1))
    event = wire.one("tools/call")
    assert (event.status, event.duration_us, event.headers_us) == (Status.SUCCEEDED, 2 * SECOND + MS, 2 * SECOND + MS)


@pytest.mark.parametrize("step", STEPS)
def test_an_open_stream_has_been_open_for_as_long_as_it_was(step: int) -> None:
    wire, tcp = opened()
    get = wire.tcp()
    get.request("GET", **LEGACY)
    get.open_stream()
    set_clock(wire, step, tcp, get)
    get.event(rpc("roots/list", 7))
    wire.wait(SECOND)
    set_clock(wire, -step, tcp, get)
    get.end_stream()
    (stream,) = [event for event in wire.events if event.type == "http"]
    assert stream.duration_us == SECOND + 3 * MS
    assert wire.one("roots/list").status is Status.WAITING


@pytest.mark.parametrize("step", STEPS)
def test_idle_time_is_time_that_has_passed(step: int) -> None:
    wire, tcp = opened()
    wire.wait(29 * MINUTE)
    set_clock(wire, step, tcp)
    wire.tick()
    (row,) = wire.connections
    assert row.status is ConnectionStatus.ACTIVE
    wire.wait(2 * MINUTE)
    wire.tick()
    assert (row.status, row.end_reason) == (ConnectionStatus.ENDED, EndReason.IDLE_TIMEOUT)
    assert row.ended_us is not None
    assert row.started_us is not None
    assert 0 <= row.ended_us - row.started_us < MINUTE


def test_lines_keep_their_order_and_ids_differ() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    tcp.answer(200, result(1))
    set_clock(wire, -HOUR, tcp)
    tcp.post(call(2), **LEGACY)
    tcp.answer(200, result(2))
    initialize(wire.tcp(), "S2")
    calls = sorted((event for event in wire.events if event.type == "tools/call"), key=lambda event: event.seq)
    assert [event.jsonrpc_id for event in calls] == ["1", "2"]
    assert calls[0].at_us > calls[1].at_us  # each has the time that the clock showed
    assert len({row.id for row in wire.connections}) == 2
