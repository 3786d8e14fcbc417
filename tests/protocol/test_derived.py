"""Which connection a request belongs to when nothing on the wire says so: the table of acceptance."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_tap.model import Origin
from mcp_tap.protocol import derived
from tests.protocol.wire import MINUTE, SECOND, Tcp, Wire, initialize, modern, result, rpc

MODERN = {"mcp-protocol-version": "2026-07-28"}


def ask(tcp: Tcp, id: int, *, client: str = "agent", method: str = "tools/call", **headers: str) -> None:  # noqa: A002
    """One modern call and its answer."""
    params: dict[str, Any] = {"name": "search"} if method == "tools/call" else {}
    tcp.post(modern(method, id, client=client, **params), **MODERN, **headers)
    tcp.answer(200, result(id, resultType="complete"))


def calls(wire: Wire) -> list[int]:
    return [row.calls for row in wire.connections]


def test_twenty_runs_in_a_row_are_twenty_connections() -> None:
    wire = Wire()
    for run in range(20):
        tcp = wire.tcp(f"127.0.0.1:{50000 + run}")
        ask(tcp, 1, method="server/discover")
        ask(tcp, 2)
        tcp.close()
        wire.wait(SECOND)
    assert calls(wire) == [2] * 20
    assert {row.origin_note for row in wire.connections} == {None}


def test_a_pause_past_keep_alive_is_still_one() -> None:
    wire = Wire()
    for number in (1, 2, 3):
        tcp = wire.tcp(f"127.0.0.1:{50000 + number}")
        ask(tcp, number)
        tcp.close()
        wire.wait(10 * SECOND)
    assert calls(wire) == [3]


def test_identical_clients_at_once_are_never_an_unmarked_mixture() -> None:
    wire = Wire()
    tcps = [wire.tcp(f"127.0.0.1:{50000 + client}") for client in range(3)]
    for number in (1, 2, 3):
        for tcp in tcps:
            ask(tcp, number)
    assert sum(calls(wire)) == 9
    for row in wire.connections:
        assert row.calls <= 3 or (row.origin_note or "").startswith("shared (3 starts)")


def test_tokens_tell_users_apart() -> None:
    wire = Wire()
    tcps = [(wire.tcp(f"10.0.0.{user % 4}:{50000 + user}"), f"Bearer token-{user}") for user in range(200)]
    for number in (1, 2):
        for tcp, token in tcps:
            ask(tcp, number, authorization=token)
    assert calls(wire) == [2] * 200
    assert all(row.origin_note is None for row in wire.connections)


def test_clients_with_different_names_are_different() -> None:
    wire = Wire()
    tcp = wire.tcp()
    ask(tcp, 1, client="a")
    ask(tcp, 1, client="b")
    ask(tcp, 2, client="a")
    assert [(row.client_name, row.calls) for row in wire.connections] == [("a", 2), ("b", 1)]


def test_one_id_for_every_call_is_one_client() -> None:
    wire = Wire()
    tcp = wire.tcp()
    for _ in range(5):
        ask(tcp, 1)
    assert calls(wire) == [5]
    assert wire.connections[0].origin_note is None


def test_a_gap_over_the_idle_limit_opens_another(wire_idle: Wire) -> None:
    ask(wire_idle.tcp(), 7)
    wire_idle.wait(31 * MINUTE)
    ask(wire_idle.tcp(), 8)
    assert calls(wire_idle) == [1, 1]
    assert wire_idle.connections[0].origin_note == "its beginning was not seen"


@pytest.fixture
def wire_idle() -> Wire:
    return Wire(idle_us=30 * MINUTE)


@pytest.mark.interpreted
def test_a_derived_connection_is_rolled_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "ROLL_MESSAGES", 3)
    wire = Wire()
    tcp = wire.tcp()
    for number in range(1, 8):
        ask(tcp, number)
    assert calls(wire) == [3, 3, 1]


@pytest.mark.interpreted
def test_many_agents_with_one_key_are_marked_and_rolled_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "ROLL_MESSAGES", 400)
    wire = Wire()
    tcps = [wire.tcp(f"10.0.0.9:{50000 + agent}") for agent in range(50)]
    for number in range(1, 31):
        for tcp in tcps:
            ask(tcp, number, authorization="Bearer one-for-all")
    assert sum(calls(wire)) == 1500
    assert [row.calls for row in wire.connections] == [400, 400, 400, 300]
    assert all((row.origin_note or "").startswith("shared (") for row in wire.connections)
    assert [row.replaces for row in wire.connections[1:]] == [row.id for row in wire.connections[:-1]]
    assert len({row.session_id for row in wire.connections}) == 1


def test_a_late_start_of_the_tap_mixes_nobody_without_a_mark() -> None:
    wire = Wire()
    first, second = wire.tcp("127.0.0.1:50001"), wire.tcp("127.0.0.1:50002")
    for step in range(3):
        ask(first, 50 + step)
        ask(second, 400 + step)
    (row,) = wire.connections
    assert row.calls == 6
    assert row.origin_note == "shared (2 starts)"


def test_the_same_id_twice_tells_two_clients() -> None:
    wire = Wire()
    first, second = wire.tcp("127.0.0.1:50001"), wire.tcp("127.0.0.1:50002")
    for number in (20, 21, 22):
        ask(first, number)
    ask(second, 21)
    assert [row.origin_note for row in wire.connections] == ["shared (2 starts)"]


def test_parallel_calls_of_one_client_are_no_doubt() -> None:
    wire = Wire()
    main = wire.tcp("127.0.0.1:50001")
    ask(main, 1)
    others = [wire.tcp(f"127.0.0.1:{50010 + n}") for n in range(5)]
    for number, tcp in zip((4, 2, 3, 6, 5), others, strict=True):
        tcp.post(modern("tools/call", number, name="search"), **MODERN)
    for number, tcp in zip((4, 2, 3, 6, 5), others, strict=True):
        tcp.answer(200, result(number, resultType="complete"))
    assert [(row.calls, row.origin_note) for row in wire.connections] == [(6, None)]


def test_a_stateless_legacy_server() -> None:
    wire = Wire()
    tcp = wire.tcp()
    initialize(tcp, None)
    tcp.post(rpc("tools/list", 1), **{"mcp-protocol-version": "2025-11-25"})
    tcp.answer(200, result(1, tools=[]))
    (row,) = wire.connections
    assert (row.origin, row.mcp_session_id, row.client_name, row.calls) == (Origin.DERIVED, None, "claude", 2)


def test_the_modern_era_ignores_session_ids() -> None:
    wire = Wire()
    tcp = wire.tcp()
    ask(tcp, 1, **{"mcp-session-id": "stale"})
    assert [(row.origin, row.mcp_session_id) for row in wire.connections] == [(Origin.DERIVED, None)]
