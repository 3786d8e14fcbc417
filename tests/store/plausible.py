"""A plausible morning of a web shop's MCP server, for the tests that read a recording.

Four clients: one whose payment fails twice and then succeeds, one on yesterday's list of tools, one with a call that
is never answered, and one whose traffic was partly lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mcp_tap.model import (
    Batch,
    Body,
    Codec,
    Connection,
    ConnectionState,
    ConnectionStatus,
    Direction,
    EndReason,
    Era,
    Event,
    FailureReason,
    Kind,
    Origin,
    Outcome,
    Side,
    Status,
    ToolSeen,
)

UPSTREAM = "http://127.0.0.1:9000/mcp"


def at(clock: str) -> int:
    """Return the microseconds of a UTC time on 14 March 2026."""
    return round(datetime.fromisoformat(f"2026-03-14T{clock}+00:00").timestamp() * 1_000_000)


class Scene:
    """One connection, told line by line."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.batch = Batch(connections=[connection])

    def line(self, kind: Kind, type_: str, clock: str, **values: object) -> Event:
        connection = self.connection
        connection.seq += 1
        event = Event(kind, type_, at(clock), connection=connection, seq=connection.seq)
        for name, value in values.items():
            setattr(event, name, value)
        connection.last_active_us = max(connection.last_active_us, event.at_us + (event.duration_us or 0))
        self.batch.events.append(event)
        return event

    def call(self, type_: str, clock: str, ms: float | None, name: str | None = None, **values: object) -> Event:
        connection = self.connection
        connection.calls += 1
        connection.messages += 1
        if name and type_ == "tools/call":
            connection.tools[name] = connection.tools.get(name, 0) + 1
        status = Status.WAITING if ms is None else Status.FAILED if "failure_reason" in values else Status.SUCCEEDED
        connection.errors += status is Status.FAILED
        connection.open_calls += status is Status.WAITING
        values = {
            "status": status,
            "direction": Direction.TO_SERVER,
            "duration_us": None if ms is None else round(ms * 1000),
            "first_byte_us": None if ms is None else round(ms * 900),
            "request_bytes": 140,
            "response_bytes": 0 if ms is None else 600,
            "http_method": "POST",
            "http_status": None if ms is None else 200,
            "path": "/mcp",
            "jsonrpc_id": str(connection.seq),
            **values,
        }
        event = self.line(Kind.REQUEST, type_, clock, name=name, **values)
        connection.request_bytes += event.request_bytes
        connection.response_bytes += event.response_bytes
        return event

    def tools(self, clock: str, *names: str) -> None:
        for name in names:
            definition = f'{{"name":"{name}"}}'
            self.batch.tools.append(ToolSeen(self.connection, at(clock), name, f"{name}-1", definition))

    def end(self, clock: str, reason: EndReason) -> None:
        connection = self.connection
        connection.ended_us = at(clock)
        connection.status, connection.state = ConnectionStatus.ENDED, ConnectionState.DISCONNECTED
        connection.end_reason = reason
        self.line(Kind.LIFECYCLE, "session_end", clock)


def scene(number: int, clock: str, client: str, version: str, **values: object) -> Scene:
    connection = Connection(
        id=f"scn_00000000000000000000000{number:03d}",
        session_id=f"ses_00000000000000000000000{number:03d}",
        origin=Origin.HEADER,
        created_us=at(clock),
        started_us=at(clock) + 4000,
        upstream=UPSTREAM,
        client_name=client,
        client_version=version,
        server_name="shop",
        server_version="2.1.0",
        era=Era.LEGACY,
        protocol_version="2025-11-25",
        transport="streamable_http",
        mcp_session_id=f"{number}f3a9c52-7d41-4c3e-9b7a-2f1f6f4f9a10",
        client_address="127.0.0.1",
    )
    for name, value in values.items():
        setattr(connection, name, value)
    told = Scene(connection)
    told.line(Kind.LIFECYCLE, "session_start", clock)
    return told


def morning() -> Iterator[Batch]:
    """Give the batches of one morning, in the order of time."""
    cursor = scene(1, "09:58:02.100", "cursor", "0.50.1")
    cursor.call("initialize", "09:58:02.101", 3.2)
    cursor.call("tools/list", "09:58:02.340", 1840.0, request_bytes=58, response_bytes=5120)
    cursor.tools("09:58:04.180", "search_products", "create_payment")
    cursor.call("tools/call", "09:58:31.000", 38.5, "search_products")
    cursor.call(
        "tools/call",
        "10:07:12.250",
        12.0,
        "search_products",
        failure_reason=FailureReason.TOOL_ERROR,
        message="unknown category: shoos",
    )
    cursor.end("10:11:40.000", EndReason.CLIENT_DELETE)
    yield cursor.batch

    claude = scene(2, "10:08:44.998", "claude-desktop", "1.2.3")
    claude.call("initialize", "10:08:45.001", 3.1)
    claude.call("tools/list", "10:08:45.220", 2.4, response_bytes=8000)
    claude.tools("10:08:45.222", "search_products", "create_payment", "refund_order")
    claude.call("tools/call", "10:08:46.100", 42.0, "search_products")
    first = claude.call(
        "tools/call",
        "10:08:48.300",
        2340.0,
        "create_payment",
        failure_reason=FailureReason.HTTP_ERROR,
        code="504",
        message="upstream timeout",
        http_status=504,
    )
    second = claude.call(
        "tools/call",
        "10:08:52.100",
        890.0,
        "create_payment",
        failure_reason=FailureReason.RPC_ERROR,
        code="-32000",
        message="card processor busy",
        operation=first,
        attempt=2,
    )
    third = claude.call("tools/call", "10:09:01.200", 340.0, "create_payment", operation=first, attempt=3)
    arguments = (
        '{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"create_payment","arguments":{"order":"A-17"}}}'
    )
    for event in (first, second, third):
        claude.batch.bodies.append(Body(event, Side.REQUEST, Codec.AS_SEEN, arguments))
    claude.batch.bodies.append(
        Body(second, Side.RESPONSE, Codec.AS_SEEN, '{"jsonrpc":"2.0","id":6,"error":{"code":-32000,"message":"busy"}}')
    )
    claude.end("10:09:31.877", EndReason.IDLE_TIMEOUT)
    yield claude.batch

    vscode = scene(3, "10:40:00.000", "Visual Studio Code", "1.99.0")
    vscode.call("initialize", "10:40:00.010", 2.9)
    vscode.call("tools/list", "10:40:00.200", 3.6, response_bytes=8000)
    vscode.tools("10:40:00.203", "search_products", "create_payment", "refund_order")
    vscode.call("tools/call", "10:41:17.000", 55.0, "refund_order")
    streamed = {"http_status": 200, "sse_events": [212_000, 718_000], "last_byte_us": 718_000}
    vscode.call("tools/call", "10:42:03.500", None, "export_orders", **streamed)
    vscode.connection.open_streams = 1
    yield vscode.batch

    agent = scene(
        4,
        "11:05:30.000",
        "night-agent",
        "7",
        origin=Origin.DERIVED,
        origin_note="shared (2 starts)",
        mcp_session_id=None,
        era=Era.MODERN,
        protocol_version="2026-07-28",
        dropped=3,
        truncated=1,
    )
    agent.call("server/discover", "11:05:30.001", 1.5, outcome=Outcome.PROBE)
    agent.call("tools/call", "11:05:30.800", 71.25, "search_products", response_cut=True, response_bytes=90_000)
    agent.call("tools/call", "11:05:33.000", 69.0, "search_products", dropped=3)
    agent.end("11:05:33.069", EndReason.SHUTDOWN)
    refused = Event(
        Kind.HTTP,
        "http",
        at("11:20:00.500"),
        outcome=Outcome.AUTH_CHALLENGE,
        http_method="POST",
        http_status=401,
        path="/mcp",
        peer="10.0.0.9:50211",
    )
    agent.batch.events.append(refused)
    yield agent.batch
