"""Whom an exchange belongs to, and when a connection starts and ends."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_tap.model import Connection, ConnectionState, ConnectionStatus, EndReason, Origin, hash_session_id
from mcp_tap.protocol import connections
from tests.protocol.wire import MINUTE, START_US, Tcp, Wire, error, initialize, modern, result, rpc

LEGACY = {"mcp-session-id": "S1", "mcp-protocol-version": "2025-11-25"}
MODERN = {"mcp-protocol-version": "2026-07-28"}


def ask(tcp: Tcp, id: int, *, client: str = "agent", method: str = "tools/call", **headers: str) -> None:  # noqa: A002
    """One modern call and its answer."""
    params: dict[str, Any] = {"name": "search"} if method == "tools/call" else {}
    tcp.post(modern(method, id, client=client, **params), **MODERN, **headers)
    tcp.answer(200, result(id, resultType="complete"))


def calls(wire: Wire) -> list[int]:
    return [row.calls for row in wire.connections]


# ------------------------------------------------------------------------------------------------------ by header


def test_a_known_id_on_any_tcp_connection() -> None:
    wire = Wire()
    initialize(wire.tcp())
    for port in (50002, 50003):
        tcp = wire.tcp(f"127.0.0.1:{port}")
        tcp.post(rpc("tools/list", port), **LEGACY)
        tcp.answer(200, result(port, tools=[]))
    assert calls(wire) == [3]


def test_an_id_never_seen_is_adopted() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(rpc("tools/list", 5), **LEGACY)
    tcp.answer(200, result(5, tools=[]))
    (row,) = wire.connections
    assert row.mcp_session_id == "S1"
    assert row.origin_note == "adopted: it began before the recording"
    assert (row.started_us, row.client_name) == (None, None)
    assert wire.types() == ["tools/list"]


def test_phantom_ids_on_refusals_open_nothing() -> None:
    wire = Wire()
    tcp = wire.tcp()
    for method in ("HEAD", "OPTIONS"):
        tcp.request(method)
        tcp.server(b"HTTP/1.1 405 X\r\nMcp-Session-Id: dead\r\nContent-Length: 0\r\n\r\n")
    assert wire.connections == []


def test_hashed_ids_still_find_their_row() -> None:
    wire = Wire(session_word=lambda raw: hash_session_id(raw, b"k" * 32))
    tcp = wire.tcp()
    initialize(tcp)
    tcp.post(rpc("ping", 1), **LEGACY)
    tcp.answer(200, result(1))
    (row,) = wire.connections
    assert row.mcp_session_id == hash_session_id("S1", b"k" * 32)
    assert row.calls == 2


def test_a_restart_continues_known_rows() -> None:
    wire = Wire()
    known = Connection(
        "scn_1", "ses_1", Origin.HEADER, START_US, pk=7, mcp_session_id="S1", upstream="http://up/mcp",
        status=ConnectionStatus.ENDED, end_reason=EndReason.SHUTDOWN, ended_us=START_US, seq=12,
    )  # fmt: skip
    wire.tracker.connections.restore([known])
    tcp = wire.tcp()
    tcp.post(rpc("ping", 9), **LEGACY)
    tcp.answer(200, result(9))
    assert wire.connections == [known]
    assert (known.status, known.end_reason, known.calls) == (ConnectionStatus.ACTIVE, None, 1)
    assert {event.type: event.seq for event in wire.events} == {"session_reopened": 13, "ping": 14}


# ----------------------------------------------------------------------------------------------------------- ends


def test_404_on_its_id_ends_a_session_and_the_next_one_replaces_it() -> None:
    wire = Wire()
    tcp = wire.tcp()
    initialize(tcp)
    tcp.post(rpc("tools/list", 1), **LEGACY)
    tcp.answer(404, error(None, -32001, "Session not found"))
    tcp.request("DELETE", **LEGACY)  # the Java client deletes the dead id
    tcp.answer(404)
    initialize(tcp, "S2")
    first, second = wire.connections
    assert first.end_reason is EndReason.SESSION_NOT_FOUND
    assert (second.replaces, second.session_id) == (first.id, first.session_id)
    assert [event.type for event in wire.events].count("session_end") == 1


def test_404_in_the_modern_era_ends_nothing() -> None:
    wire = Wire()
    tcp = wire.tcp()
    ask(tcp, 1)
    tcp.post(modern("nope", 2), **MODERN)
    tcp.answer(404, error(2, -32601, "Method not found"))
    (row,) = wire.connections
    assert (row.status, row.errors) == (ConnectionStatus.ACTIVE, 1)


def test_a_delete_that_is_refused_ends_nothing() -> None:
    wire = Wire()
    tcp = wire.tcp()
    initialize(tcp)
    tcp.request("DELETE", **LEGACY)
    tcp.answer(405)
    (row,) = wire.connections
    assert (row.status, row.errors) == (ConnectionStatus.ACTIVE, 0)


def test_a_get_that_is_refused_is_no_error() -> None:
    wire = Wire()
    tcp = wire.tcp()
    initialize(tcp)
    tcp.request("GET", **LEGACY)
    tcp.answer(405)
    (row,) = wire.connections
    assert (row.errors, row.open_streams) == (0, 0)
    assert wire.one("http").http_status == 405


def test_idle_connections_get_quiet_and_then_end_at_their_last_activity() -> None:
    wire = Wire(idle_us=30 * MINUTE)
    initialize(wire.tcp())
    last_active_us = wire.now
    (row,) = wire.connections
    wire.wait(3 * MINUTE)
    wire.tick()
    assert (row.status, row.state) == (ConnectionStatus.ACTIVE, ConnectionState.DISCONNECTED)
    wire.wait(30 * MINUTE)
    wire.tick()
    assert (row.end_reason, row.ended_us) == (EndReason.IDLE_TIMEOUT, last_active_us)


def test_an_open_stream_counts_as_activity() -> None:
    wire = Wire(idle_us=30 * MINUTE)
    tcp = wire.tcp()
    initialize(tcp)
    tcp.request("GET", **LEGACY)
    tcp.open_stream()
    wire.wait(120 * MINUTE)
    wire.tick()
    (row,) = wire.connections
    assert (row.status, row.state, row.open_streams) == (ConnectionStatus.ACTIVE, ConnectionState.CONNECTED, 1)


def test_a_late_request_reopens_the_row() -> None:
    wire = Wire(idle_us=30 * MINUTE)
    tcp = wire.tcp()
    initialize(tcp)
    wire.wait(60 * MINUTE)
    wire.tick()
    tcp.post(rpc("ping", 5), **LEGACY)
    tcp.answer(200, result(5))
    (row,) = wire.connections
    assert (row.status, row.ended_us, row.end_reason) == (ConnectionStatus.ACTIVE, None, None)
    assert "session_reopened" in wire.types()


def test_parallel_streams_are_counted() -> None:
    wire = Wire()
    initialize(wire.tcp())
    posts = [wire.tcp(f"127.0.0.1:{51000 + n}") for n in range(5)]
    for n, tcp in enumerate(posts):
        tcp.post(rpc("tools/call", n + 1, name="x"), **LEGACY)
    get = wire.tcp()
    get.request("GET", **LEGACY)
    get.open_stream()
    (row,) = wire.connections
    assert row.open_streams == 6
    for n, tcp in enumerate(posts):
        tcp.answer(200, result(n + 1))
    get.close()
    assert (row.open_streams, row.open_calls) == (0, 0)


@pytest.mark.interpreted
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_LIVE", 10)
    wire = Wire()
    for number in range(30):
        tcp = wire.tcp()
        initialize(tcp, f"S{number}")
        tcp.close()
    wire.tick()
    assert len(wire.tracker.connections) == 10


# -------------------------------------------------------------------------------------------------- behind proxies


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("", "10.0.0.1"),
        ("203.0.113.7", "203.0.113.7"),
        ("1.2.3.4, 203.0.113.7", "203.0.113.7"),  # what the client claims itself is not believed
        ("203.0.113.7, 10.0.0.9", "203.0.113.7"),
        ("nonsense, 10.0.0.9", "10.0.0.9"),
    ],
)
def test_forwarded_addresses_of_trusted_networks(forwarded: str, address: str) -> None:
    wire = Wire(trusted=["10.0.0.0/8"])
    tcp = wire.tcp("10.0.0.1:44444")
    ask(tcp, 1, **({"x-forwarded-for": forwarded} if forwarded else {}))
    assert wire.connections[0].client_address == address
