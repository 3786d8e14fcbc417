"""What the record says of conversations: messages, their answers, their times and what they came to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_tap.channel import Closing
from mcp_tap.model import Direction, EndReason, Era, FailureReason, Kind, Origin, Outcome, Side, Status
from tests.protocol.wire import MINUTE, MS, SECOND, Tcp, Wire, error, initialize, modern, result, rpc

LEGACY = {"mcp-session-id": "S1", "mcp-protocol-version": "2025-11-25"}
MODERN = {"mcp-protocol-version": "2026-07-28"}


def opened(**options: Any) -> tuple[Wire, Tcp]:
    wire = Wire(**options)
    tcp = wire.tcp()
    initialize(tcp)
    return wire, tcp


def call(id: object = 1, name: str = "search", **arguments: Any) -> dict[str, Any]:  # noqa: A002
    return rpc("tools/call", id, name=name, arguments=arguments)


def test_a_legacy_session_from_start_to_end() -> None:
    wire, tcp = opened()
    tcp.post(rpc("tools/list", 1), **LEGACY)
    tcp.answer(200, result(1, tools=[{"name": "search", "inputSchema": {}}, {"name": "pay", "inputSchema": {}}]))
    tcp.post(call(2, q="x"), **LEGACY)
    tcp.sse(result(2, content=[{"type": "text", "text": "found"}]))
    tcp.request("DELETE", **LEGACY)
    tcp.answer(200)

    assert wire.types() == [
        "session_start",
        "initialize",
        "notifications/initialized",
        "tools/list",
        "tools/call",
        "http",
        "session_end",
    ]
    assert [event.seq for event in wire.events] == [1, 2, 3, 4, 5, 6, 7]
    (row,) = wire.connections
    assert (row.client_name, row.client_version, row.server_name, row.server_version) == (
        "claude",
        "1.2.3",
        "shop",
        "0.4",
    )
    assert (row.origin, row.era, row.protocol_version) == (Origin.HEADER, Era.LEGACY, "2025-11-25")
    assert (row.mcp_session_id, row.calls, row.errors, row.open_calls) == ("S1", 3, 0, 0)
    assert (row.end_reason, row.open_streams, row.tools) == (EndReason.CLIENT_DELETE, 0, {"search": 1})
    assert wire.one("tools/list").note == "2 tools"
    assert [(seen.name, seen.connection) for seen in wire.tools] == [("search", row), ("pay", row)]
    event = wire.one("tools/call")
    assert (event.name, event.status, event.direction) == ("search", Status.SUCCEEDED, Direction.TO_SERVER)
    assert (event.headers_us, event.first_byte_us, event.first_event_us, event.duration_us) == (
        MS,
        2 * MS,
        2 * MS,
        2 * MS,
    )
    assert event.sse_events == [2 * MS]
    assert json.loads(wire.body(event, Side.REQUEST) or "")["params"]["arguments"] == {"q": "x"}
    assert json.loads(wire.body(event, Side.RESPONSE) or "")["result"]["content"][0]["text"] == "found"


def test_a_modern_conversation() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("server/discover", 1), **MODERN, **{"mcp-method": "server/discover"})
    server = {"io.modelcontextprotocol/serverInfo": {"name": "shop", "version": "0.4"}}
    tcp.answer(200, result(1, supportedVersions=["2026-07-28"], capabilities={}, resultType="complete", _meta=server))
    tcp.post(modern("tools/call", 2, name="search", arguments={}), **MODERN)
    tcp.sse(rpc("notifications/progress", progressToken="t", progress=1, total=2), result(2, resultType="complete"))
    (row,) = wire.connections
    assert (row.origin, row.era, row.protocol_version) == (Origin.DERIVED, Era.MODERN, "2026-07-28")
    assert (row.client_name, row.server_name, row.mcp_session_id, row.origin_note) == ("agent", "shop", None, None)
    assert wire.types() == ["session_start", "server/discover", "tools/call", "notifications/progress"]
    progress = wire.one("notifications/progress")
    assert (progress.parent, progress.name, progress.status) == (wire.one("tools/call"), "1/2", Status.SUCCEEDED)


def test_a_refused_probe_is_the_first_row_of_the_session_that_follows() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("server/discover", 1), **MODERN)
    tcp.answer(400, error("server-error", -32600, "Missing session ID"), **{"mcp-session-id": "phantom"})
    tcp.close()
    initialize(wire.tcp(), id=2)
    (row,) = wire.connections
    assert wire.types() == ["server/discover", "session_start", "initialize", "notifications/initialized"]
    probe = wire.events[0]
    assert (probe.connection, probe.seq, probe.outcome, probe.status) == (row, 1, Outcome.PROBE, Status.SUCCEEDED)
    assert (probe.code, probe.message, probe.http_status) == ("-32600", "Missing session ID", 400)
    assert (row.mcp_session_id, row.errors, row.origin) == ("S1", 0, Origin.HEADER)


def test_a_probe_without_a_sequel_belongs_to_nobody() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("server/discover", 1), **MODERN)
    tcp.answer(405)
    assert wire.connections == []
    assert (wire.events[0].outcome, wire.events[0].peer) == (Outcome.PROBE, "127.0.0.1:50001")


# ------------------------------------------------------------------------------------------------ what went wrong

OUTCOMES: dict[str, tuple[Any, tuple[object, ...]]] = {
    "a tool that fails": (
        lambda tcp: tcp.answer(200, result(1, isError=True, content=[{"type": "text", "text": "no such city"}])),
        (Status.FAILED, FailureReason.TOOL_ERROR, "tool_error", "no such city", None),
    ),
    "a JSON-RPC error": (
        lambda tcp: tcp.answer(200, error(1, -32000, "rate limited")),
        (Status.FAILED, FailureReason.RPC_ERROR, "-32000", "rate limited", None),
    ),
    "a JSON-RPC error under an HTTP error, with a made-up id": (
        lambda tcp: tcp.answer(400, error("server-error", -32602, "bad")),
        (Status.FAILED, FailureReason.RPC_ERROR, "-32602", "bad", None),
    ),
    "an HTTP error": (
        lambda tcp: tcp.answer(502, b"<h1>Bad  gateway</h1>", **{"content-type": "text/html"}),
        (Status.FAILED, FailureReason.HTTP_ERROR, "502", "<h1>Bad gateway</h1>", None),
    ),
    "an HTTP error with JSON that is no JSON-RPC": (
        lambda tcp: tcp.answer(500, {"detail": "boom"}),
        (Status.FAILED, FailureReason.HTTP_ERROR, "500", '{"detail": "boom"}', None),
    ),
    "an HTTP error without a body": (
        lambda tcp: tcp.answer(503),
        (Status.FAILED, FailureReason.HTTP_ERROR, "503", "Reason", None),
    ),
    "a gateway that waited too long": (
        lambda tcp: tcp.answer(504),
        (Status.FAILED, FailureReason.TIMEOUT, "504", "Reason", None),
    ),
    "an authorisation challenge": (
        lambda tcp: tcp.answer(401, b"", **{"www-authenticate": "Bearer"}),
        (Status.SUCCEEDED, None, "401", "Reason", Outcome.AUTH_CHALLENGE),
    ),
    "a demand for the user (-32042)": (
        lambda tcp: tcp.answer(200, error(1, -32042, "visit")),
        (Status.SUCCEEDED, None, "-32042", "visit", Outcome.INPUT_REQUIRED),
    ),
    "input required": (
        lambda tcp: tcp.answer(200, result(1, resultType="input_required", inputRequests={"name": {}})),
        (Status.SUCCEEDED, None, None, None, Outcome.INPUT_REQUIRED),
    ),
    "a task": (
        lambda tcp: tcp.answer(200, result(1, resultType="task", taskId="t", status="working")),
        (Status.SUCCEEDED, None, None, None, Outcome.TASK),
    ),
    "202 to a request": (
        lambda tcp: tcp.answer(202),
        (
            Status.FAILED,
            FailureReason.NO_RESPONSE,
            "no_response",
            "the answer ended without answering this request",
            None,
        ),
    ),
    "a stream that ends without an answer": (
        lambda tcp: tcp.sse(rpc("notifications/message", level="info")),
        (
            Status.FAILED,
            FailureReason.NO_RESPONSE,
            "no_response",
            "the answer ended without answering this request",
            None,
        ),
    ),
    "a server that breaks off": (
        lambda tcp: (tcp.open_stream(), tcp.close(Closing.SERVER_RESET)),
        (Status.FAILED, FailureReason.TRANSPORT_ERROR, "connection_lost", "the server broke off the connection", None),
    ),
    "a server that closes instead of answering": (
        lambda tcp: tcp.close(by="server"),
        (Status.FAILED, FailureReason.TRANSPORT_ERROR, "connection_lost", "the server broke off the connection", None),
    ),
    "a client that leaves": (
        lambda tcp: tcp.close(),
        (Status.FAILED, FailureReason.CANCELLED, "client_disconnected", "the client left before the answer", None),
    ),
    "a client that resets": (
        lambda tcp: (tcp.open_stream(), tcp.close(Closing.CLIENT_RESET)),
        (Status.FAILED, FailureReason.CANCELLED, "client_disconnected", "the client left before the answer", None),
    ),
    "a stop of the tap": (
        lambda tcp: tcp.close(Closing.DRAIN),
        (Status.FAILED, FailureReason.ABANDONED, "stopped", "the tap was stopped before the answer", None),
    ),
    "an answer that is no JSON": (
        lambda tcp: tcp.answer(200, b"{oops"),
        (Status.SUCCEEDED, None, None, None, Outcome.UNPARSED),
    ),
    "an answer in an unknown coding": (
        lambda tcp: tcp.answer(200, b"xxxx", **{"content-encoding": "rot13"}),
        (Status.SUCCEEDED, None, None, None, Outcome.UNPARSED),
    ),
    "bytes that are no HTTP": (
        lambda tcp: tcp.server(b"SSH-2.0\n\n"),
        (Status.FAILED, FailureReason.ABANDONED, "unparsed", "the answer cannot be read", Outcome.UNPARSED),
    ),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcomes(name: str) -> None:
    wire, tcp = opened()
    tcp.post(call(), **LEGACY)
    assert wire.one("tools/call").status is Status.WAITING
    assert wire.connections[0].open_calls == 1
    answer, expected = OUTCOMES[name]
    answer(tcp)
    event = wire.one("tools/call")
    assert (event.status, event.failure_reason, event.code, event.message, event.outcome) == expected
    (row,) = wire.connections
    failed = event.status is Status.FAILED and event.failure_reason is not FailureReason.ABANDONED
    assert (row.errors, row.open_calls, row.open_streams) == (int(failed), 0, 0)
    assert event.duration_us is not None
    assert event.duration_us > 0


def test_the_tap_could_not_connect() -> None:
    wire, _ = opened()
    tcp = wire.tcp()
    tcp.stream.connect_failed("connection refused")
    tcp.post(call(), **LEGACY)
    wire.now += MS
    tcp.stream.own(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno", wire.now)
    event = wire.one("tools/call")
    assert (event.failure_reason, event.code) == (FailureReason.TRANSPORT_ERROR, "unreachable")
    assert event.message == "the server could not be reached: connection refused"
    assert (event.http_status, event.note) == (502, "answered by the tap itself")


def test_a_client_that_closes_right_after_its_answer_has_succeeded() -> None:
    wire, tcp = opened()
    tcp.post(call(), **LEGACY)
    tcp.open_stream()
    tcp.event(result(1, content=[]))
    tcp.close(Closing.CLIENT_RESET)  # before the terminating chunk
    assert wire.one("tools/call").status is Status.SUCCEEDED
    assert wire.connections[0].errors == 0


# --------------------------------------------------------------------------------------------------- correlation


def test_each_direction_has_its_own_ids() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    tcp.open_stream()
    tcp.event(rpc("sampling/createMessage", 1, messages=[]))
    wire.wait(5 * SECOND)
    other = wire.tcp()
    other.post(result(1, role="assistant"), **LEGACY)
    other.answer(202)
    tcp.event(result(1, content=[]))
    tcp.end_stream()
    sampling, tool = wire.one("sampling/createMessage"), wire.one("tools/call")
    assert (sampling.direction, sampling.parent, sampling.status) == (Direction.TO_CLIENT, tool, Status.SUCCEEDED)
    assert sampling.duration_us == 5 * SECOND + MS
    assert tool.status is Status.SUCCEEDED
    assert "http" not in wire.types()


@pytest.mark.parametrize("ids", [(1, "1"), (1, 1.0), ("a", "b"), (2**70, 2**70 + 1)])
def test_ids_of_different_types_are_different(ids: tuple[Any, Any]) -> None:
    wire, tcp = opened()
    first, second = ids
    tcp.post(call(first, "one"), call(second, "two"), **LEGACY)
    tcp.answer(200, [result(second, isError=True, content=[]), result(first, content=[])])
    statuses = {event.name: event.status for event in wire.events if event.type == "tools/call"}
    assert statuses == {"one": Status.SUCCEEDED, "two": Status.FAILED}


def test_the_same_id_in_flight_twice() -> None:
    wire, tcp = opened()
    other = wire.tcp()
    tcp.post(call(7, "one"), **LEGACY)
    other.post(call(7, "two"), **LEGACY)
    other.answer(200, result(7, isError=True, content=[]))
    tcp.answer(200, result(7, content=[]))
    statuses = {event.name: event.status for event in wire.events if event.type == "tools/call"}
    assert statuses == {"one": Status.SUCCEEDED, "two": Status.FAILED}
    assert wire.connections[0].open_calls == 0


def test_an_answer_on_a_resumed_stream_completes_the_call() -> None:
    wire, tcp = opened()
    tcp.post(call(3), **LEGACY)
    tcp.open_stream()
    tcp.event("", id="e-1")  # priming
    tcp.end_stream()
    assert wire.one("tools/call").status is Status.WAITING
    wire.wait(SECOND)
    tcp.request("GET", **LEGACY, **{"last-event-id": "e-1"})
    tcp.open_stream()
    tcp.event(result(3, content=[]), id="e-2")
    event = wire.one("tools/call")
    assert event.status is Status.SUCCEEDED
    assert (event.duration_us or 0) > SECOND


def test_an_answer_nobody_asked_for() -> None:
    wire, tcp = opened()
    tcp.request("GET", **LEGACY)
    tcp.open_stream()
    tcp.event(result(99))
    event = wire.one("response")
    assert (event.kind, event.jsonrpc_id, event.note) == (
        Kind.RESPONSE,
        "99",
        "the request of this answer was not seen",
    )


def test_a_cancellation_and_a_late_answer() -> None:
    wire, tcp = opened()
    tcp.post(call(4), **LEGACY)
    other = wire.tcp()
    other.post(rpc("notifications/cancelled", requestId=4, reason="too slow"), **LEGACY)
    other.answer(202)
    event = wire.one("tools/call")
    assert (event.status, event.failure_reason) == (Status.FAILED, FailureReason.CANCELLED)
    tcp.answer(200, result(4, content=[]))
    assert (event.status, event.note) == (Status.FAILED, "answered after it had ended")
    assert wire.one("notifications/cancelled").name == "4"
    assert wire.connections[0].open_calls == 0


def test_a_listen_stream_has_a_lifetime_but_no_latency() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("subscriptions/listen", 1, notifications={"toolsListChanged": True}), **MODERN)
    tcp.open_stream()
    tcp.event(rpc("notifications/subscriptions/acknowledged"))
    (row,) = wire.connections
    assert (row.open_calls, row.open_streams) == (0, 1)
    assert not tcp.stream.busy
    wire.wait(MINUTE)
    tcp.close()
    event = wire.one("subscriptions/listen")
    assert (event.status, event.note) == (Status.SUCCEEDED, "closed by the client")
    assert (row.errors, row.open_streams) == (0, 0)


def test_a_listen_stream_of_json_lines() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("subscriptions/listen", 1, notifications={}), **MODERN)
    tcp.server(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    line = json.dumps(rpc("notifications/subscriptions/acknowledged")).encode()
    tcp.server(line[:20])
    tcp.server(line[20:] + b"\n" + json.dumps(rpc("notifications/tools/list_changed")).encode() + b"\n")
    assert wire.types()[2:] == ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]


# ------------------------------------------------------------------------------------------- before any session


def test_exchanges_before_any_session_belong_to_nobody() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.client(b"GET /.well-known/oauth-protected-resource?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    tcp.answer(404, b"Not Found", **{"content-type": "text/plain"})
    tcp.request("OPTIONS")
    tcp.answer(204)
    body = b"grant_type=authorization_code&code=secret"
    tcp.request("POST", body, **{"content-type": "application/x-www-form-urlencoded"})
    tcp.answer(200, {"access_token": "secret"})
    assert wire.connections == []
    assert [(e.type, e.name, e.status, e.http_status, e.peer) for e in wire.events] == [
        ("http", "GET /.well-known/oauth-protected-resource?x=••••", Status.SUCCEEDED, 404, "127.0.0.1:50001"),
        ("http", "OPTIONS /mcp", Status.SUCCEEDED, 204, "127.0.0.1:50001"),
        ("http", "POST /mcp", Status.SUCCEEDED, 200, "127.0.0.1:50001"),
    ]
    assert all(wire.body(event, side) is None for event in wire.events for side in Side)


def test_a_challenge_to_initialize_opens_nothing() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(rpc("initialize", 0, protocolVersion="2025-11-25", clientInfo={"name": "c"}))
    tcp.answer(401, b"", **{"www-authenticate": "Bearer"})
    event = wire.one("initialize")
    assert (event.connection, event.outcome, event.status) == (None, Outcome.AUTH_CHALLENGE, Status.SUCCEEDED)
    initialize(tcp, id=1)
    assert len(wire.connections) == 1


def test_a_refused_initialize_ends_as_such() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(rpc("initialize", 0, protocolVersion="1999-01-01", clientInfo={"name": "c", "version": "1"}))
    tcp.answer(400, error(0, -32602, "unsupported"), **{"mcp-session-id": "phantom"})
    (row,) = wire.connections
    assert (row.end_reason, row.started_us, row.mcp_session_id) == (EndReason.INITIALIZE_FAILED, None, None)
    assert wire.types() == ["initialize", "session_end"]


def test_an_initialize_that_hangs_can_be_seen() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(rpc("initialize", 0, protocolVersion="2025-11-25", clientInfo={"name": "c", "version": "1"}))
    assert wire.connections == []
    wire.wait(2 * SECOND)
    wire.tick()
    (row,) = wire.connections
    assert (row.client_name, row.open_calls, row.started_us) == ("c", 1, None)
    answer = {"serverInfo": {"name": "s", "version": "1"}, "protocolVersion": "2025-11-25", "capabilities": {}}
    tcp.answer(200, result(0, **answer), **{"mcp-session-id": "S9"})
    assert (row.mcp_session_id, row.open_calls, row.server_name) == ("S9", 0, "s")
    assert row.started_us == wire.one("initialize").at_us


def test_malformed_requests_are_rows_with_the_reason() -> None:
    wire, tcp = opened()
    tcp.request("POST", b'{"jsonrpc": "2.0", "id": 1, ', **LEGACY)
    tcp.answer(400, error(None, -32700, "Parse error"))
    event = wire.one("http")
    assert (event.outcome, event.status, event.http_status) == (Outcome.UNPARSED, Status.FAILED, 400)
    assert (event.note or "").startswith("no JSON")
    assert event.connection is wire.connections[0]


def test_bytes_that_are_no_http() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.client(b"\x16\x03\x01\x02\x00\x01\n\n")
    (event,) = wire.events
    assert (event.outcome, event.note, event.peer) == (
        Outcome.UNPARSED,
        "not an HTTP/1 request line",
        "127.0.0.1:50001",
    )


# ---------------------------------------------------------------------------------------------- sizes and marks


def test_a_body_beyond_the_limit_is_cut_in_the_record() -> None:
    wire, tcp = opened(max_body=500)
    tcp.post(call(1, text="x" * 1000), **LEGACY)
    tcp.answer(200, result(1, content=[{"type": "text", "text": "y" * 1000}]))
    event = wire.one("tools/call")
    assert (event.request_cut, event.response_cut, event.status) == (True, True, Status.SUCCEEDED)
    assert event.response_bytes > 1000
    assert wire.connections[0].truncated == 2
    assert len(wire.body(event, Side.RESPONSE) or "") <= 500


@pytest.mark.interpreted
def test_a_body_too_large_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tap.protocol.exchange.MAX_BODY", 1000)
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    tcp.answer(200, result(1, content=[{"type": "text", "text": "y" * 2000}]))
    event = wire.one("tools/call")
    assert (event.outcome, event.note, event.status) == (Outcome.UNPARSED, "too large", Status.SUCCEEDED)
    assert event.response_bytes > 2000


def test_lost_pieces_are_marked() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    wire.now += MS
    wire.tracker.lost(tcp.stream, 3)
    tcp.stream.lose(3, wire.now)
    event = wire.one("tools/call")
    assert (event.status, event.failure_reason, event.dropped) == (Status.FAILED, FailureReason.ABANDONED, 3)
    (row,) = wire.connections
    assert (row.dropped, row.errors, row.open_calls) == (3, 0, 0)
    tcp.server(b"rest of an answer nobody can read")
    tcp.post(call(2), **LEGACY)
    tcp.answer(200, result(2, content=[]))
    assert [e.status for e in wire.events if e.type == "tools/call"] == [Status.FAILED, Status.SUCCEEDED]


def test_a_recorder_that_begins_late_marks_what_it_sees() -> None:
    wire = Wire()
    tcp = wire.tcp(resumed=True)
    tcp.server(b'e":"2.0","id":4,"result":{}}')
    tcp.post(call(5), **LEGACY)
    tcp.answer(200, result(5, content=[]))
    (row,) = wire.connections
    assert (row.dropped, row.origin_note) == (1, "adopted: it began before the recording")
    assert wire.one("tools/call").status is Status.SUCCEEDED


def test_trace_ids_come_from_meta_first() -> None:
    wire, tcp = opened()
    ours, theirs = "a" * 32, "b" * 32
    tcp.post(rpc("tools/call", 1, name="x", _meta={"traceparent": f"00-{ours}-{'1' * 16}-01"}), **LEGACY,
             traceparent=f"00-{theirs}-{'1' * 16}-01")  # fmt: skip
    tcp.answer(200, result(1))
    tcp.post(rpc("tools/call", 2, name="x"), **LEGACY, traceparent=f"00-{theirs}-{'1' * 16}-01")
    assert [event.trace_id for event in wire.events if event.type == "tools/call"] == [ours, theirs]


def test_stopping_ends_everything_and_leaves_nothing_waiting() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    wire.tracker.stop(wire.now)
    (row,) = wire.connections
    assert row.end_reason is EndReason.SHUTDOWN
    assert wire.one("tools/call").failure_reason is FailureReason.ABANDONED
    assert all(event.status is not Status.WAITING for event in wire.events)


def test_an_answer_that_comes_before_the_request_is_whole() -> None:
    wire, _ = opened()
    tcp = wire.tcp()
    body = json.dumps(call(1)).encode()
    head = b"POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\nMcp-Session-Id: S1\r\nContent-Length: %d\r\n\r\n"
    tcp.client(head % len(body))
    tcp.answer(502, b"mcp-tap: no", **{"content-type": "text/plain"})
    assert "tools/call" not in wire.types()
    tcp.client(body)
    event = wire.one("tools/call")
    assert (event.http_status, event.failure_reason, event.message) == (502, FailureReason.HTTP_ERROR, "mcp-tap: no")
    assert wire.connections[0].open_calls == 0


def test_an_upload_that_is_refused_half_way() -> None:
    wire, _ = opened()
    tcp = wire.tcp()
    tcp.client(
        b"POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\nMcp-Session-Id: S1\r\nContent-Length: 99\r\n\r\n{"
    )
    tcp.answer(413)
    tcp.close()
    event = wire.one("http")
    assert (event.http_status, event.status, event.outcome) == (413, Status.FAILED, Outcome.UNPARSED)
    assert event.note == "the request did not come to its end"
    assert wire.connections[0].open_streams == 0


# ------------------------------------------------------------------------------------------------ resumed streams


def test_a_resumed_stream_that_repeats_itself() -> None:
    wire, tcp = opened()
    tcp.post(call(3), **LEGACY)
    tcp.open_stream()
    tcp.event(rpc("notifications/progress", progressToken=1, progress=1), id="e-1")
    tcp.close(by="server")
    tool = wire.one("tools/call")
    assert tool.status is Status.WAITING
    again = wire.tcp()
    again.request("GET", **LEGACY, **{"last-event-id": "e-0"})
    again.open_stream()
    again.event(rpc("notifications/progress", progressToken=1, progress=1), id="e-1")  # seen before
    again.event(rpc("notifications/progress", progressToken=1, progress=2), id="e-2")
    again.event(result(3, content=[]), id="e-3")
    again.event(result(3, content=[]), id="e-4")  # under another id: the same answer all the same
    again.close()
    assert [event.name for event in wire.events if event.type == "notifications/progress"] == ["1", "2"]
    assert (tool.status, tool.note) == (Status.SUCCEEDED, "answered again on a resumed stream")
    assert "response" not in wire.types()
    assert wire.one("http").note == "resumed from e-0; 1 event came again"


def test_what_comes_on_a_resumed_stream_belongs_to_the_first_request() -> None:
    wire, tcp = opened()
    tcp.post(call(3), **LEGACY)
    tcp.open_stream()
    tcp.event("", id="p-1")
    tcp.close(by="server")
    again = wire.tcp()
    again.request("GET", **LEGACY, **{"last-event-id": "p-1"})
    again.open_stream()
    again.event(rpc("notifications/message", level="info"), id="p-2")
    assert wire.one("notifications/message").parent is wire.one("tools/call")


def test_another_session_id_on_an_answer_is_noted_once() -> None:
    wire, tcp = opened()
    for number in (1, 2):
        tcp.post(call(number), **LEGACY)
        tcp.answer(200, result(number), **{"mcp-session-id": "S2"})
    assert wire.connections[0].mcp_session_id == "S1"
    assert wire.types().count("session_id_changed") == 1


# -------------------------------------------------------------------------------------------------- while it lasts


def test_a_stream_that_stalls_is_seen_while_it_does() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    tcp.open_stream()
    tcp.event(rpc("notifications/progress", progressToken=1, progress=1))
    wire.take()
    tcp.wire.wait(SECOND)
    tcp.event(rpc("notifications/progress", progressToken=1, progress=2))
    event = wire.one("tools/call")
    assert event.status is Status.WAITING
    assert event.sse_events == [2 * MS, 2 * MS + SECOND + MS]
    assert event.last_byte_us == event.sse_events[-1]


def test_the_last_byte_may_come_long_after_the_answer() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    tcp.open_stream()
    tcp.event(result(1, content=[]))
    wire.wait(SECOND)
    tcp.server(b"a\r\n: bye now\n\r\n")
    tcp.end_stream()
    event = wire.one("tools/call")
    assert event.duration_us == 2 * MS
    assert event.last_byte_us == 3 * MS + SECOND


# ------------------------------------------------------------------------------------- the transport of 2024-11-05


def legacy_sse(endpoint: str = "/messages/?session_id=abc") -> tuple[Wire, Tcp, Tcp]:
    wire = Wire()
    get, post = wire.tcp(), wire.tcp("127.0.0.1:50002")
    get.client(b"GET /sse HTTP/1.1\r\nHost: up\r\nAccept: text/event-stream\r\n\r\n")
    get.open_stream()
    get.server(_chunk(f"event: endpoint\r\ndata: {endpoint}\r\n\r\n"))
    return wire, get, post


def _chunk(text: str) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text.encode()), text.encode())


def send(tcp: Tcp, message: object, target: str = "/messages/?session_id=abc") -> None:
    body = json.dumps(message).encode()
    lines = f"POST {target} HTTP/1.1", "Host: up", "Content-Type: application/json", f"Content-Length: {len(body)}"
    tcp.client("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("/messages/?session_id=abc", "/messages/?session_id=abc"),
        ("messages?sessionId=abc", "/messages?sessionId=abc"),
        ("http://up:9000/m/abc", "/m/abc"),
    ],
    ids=["absolute path", "relative", "absolute URL"],
)
def test_answers_on_the_get_stream(endpoint: str, target: str) -> None:
    wire, get, post = legacy_sse(endpoint)
    hello = rpc(
        "initialize", 0, protocolVersion="2024-11-05", capabilities={}, clientInfo={"name": "old", "version": "1"}
    )
    send(post, hello, target)
    post.answer(202, b"Accepted", **{"content-type": "text/plain"})
    get.event(result(0, protocolVersion="2024-11-05", capabilities={}, serverInfo={"name": "s", "version": "2"}))
    send(post, call(1), target)
    get.event(result(1, content=[]))  # before the 202
    post.answer(202, b"Accepted", **{"content-type": "text/plain"})
    (row,) = wire.connections
    assert (row.origin, row.transport, row.era, row.mcp_session_id) == (Origin.ENDPOINT, "sse", Era.LEGACY, "abc")
    assert (row.client_name, row.server_name, row.protocol_version) == ("old", "s", "2024-11-05")
    assert wire.types() == ["session_start", "http", "initialize", "tools/call"]
    assert [(e.status, e.duration_us) for e in wire.events if e.kind is Kind.REQUEST] == [
        (Status.SUCCEEDED, 2 * MS),
        (Status.SUCCEEDED, MS),
    ]
    get.close()
    assert row.end_reason is EndReason.STREAM_CLOSED
    assert (row.open_calls, row.errors) == (0, 0)


def test_a_call_without_an_answer_when_the_stream_closes() -> None:
    wire, get, post = legacy_sse()
    send(post, call(1))
    post.answer(202, b"Accepted", **{"content-type": "text/plain"})
    event = wire.one("tools/call")
    assert event.status is Status.WAITING
    get.close(by="server")
    assert (event.status, event.failure_reason, event.code) == (Status.FAILED, FailureReason.ABANDONED, "stream_closed")


def test_a_message_that_the_old_transport_refuses() -> None:
    wire, _, post = legacy_sse()
    send(post, call(1))
    post.answer(400, b"bad session", **{"content-type": "text/plain"})
    event = wire.one("tools/call")
    assert (event.status, event.code, event.message) == (Status.FAILED, "400", "bad session")


def test_requests_of_the_server_on_the_old_stream() -> None:
    wire, get, post = legacy_sse()
    get.event(rpc("roots/list", 7))
    wire.wait(SECOND)
    send(post, result(7, roots=[]))
    post.answer(202, b"Accepted", **{"content-type": "text/plain"})
    event = wire.one("roots/list")
    assert (event.direction, event.status, event.duration_us) == (Direction.TO_CLIENT, Status.SUCCEEDED, SECOND + MS)


def test_a_server_that_resets_after_its_client_has_left_was_not_lost() -> None:
    wire, tcp = opened()
    tcp.post(call(1), **LEGACY)
    tcp.stream.client_eof()
    tcp.stream.close(Closing.SERVER_RESET, wire.now)
    assert wire.one("tools/call").code == "client_disconnected"


def test_a_client_that_asks_after_the_end_of_its_server_did_not_leave() -> None:
    wire, tcp = opened()
    tcp.stream.server_eof(wire.now)
    tcp.post(call(1), **LEGACY)
    tcp.stream.client_eof()
    tcp.stream.close(Closing.END, wire.now)
    assert wire.one("tools/call").code == "connection_lost"


def test_a_gap_marks_everybody_who_was_in_use() -> None:
    wire, tcp = opened()
    initialize(wire.tcp(), "S2")
    wire.wait(10 * MINUTE)
    tcp.post(call(1), **LEGACY)
    tcp.answer(200, result(1))
    wire.tracker.gap(7, 700, wire.now, wire.now + SECOND, "the recorder died")
    assert {row.mcp_session_id: row.dropped for row in wire.connections} == {"S1": 1, "S2": 0}
    assert (wire.one("records_dropped").dropped, wire.one("records_dropped").note) == (7, "the recorder died")


def test_ids_longer_than_any_real_one_still_find_their_request() -> None:
    wire, tcp = opened()
    one, two = "a" * 100_000, "a" * 99_999 + "b"
    tcp.post(call(one, "one"), call(two, "two"), **LEGACY)
    tcp.answer(200, [result(two, isError=True, content=[]), result(one, content=[])])
    events = [event for event in wire.events if event.type == "tools/call"]
    assert {event.name: event.status for event in events} == {"one": Status.SUCCEEDED, "two": Status.FAILED}
    assert all(len(event.jsonrpc_id or "") <= 512 for event in events)


@pytest.mark.interpreted
def test_requests_without_end_and_without_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tap.protocol.exchange.MAX_OPEN", 5)
    wire, tcp = opened()
    for number in range(20):
        tcp.post(call(number), **LEGACY)
    events = [event for event in wire.events if event.type == "tools/call"]
    assert len(events) == 5
    assert {event.outcome for event in events} == {Outcome.UNPARSED}
    assert len(tcp.stream.open) == 0
