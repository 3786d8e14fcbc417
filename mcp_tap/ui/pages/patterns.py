"""Every element of the pages with fixed data: for eyes, for pictures, for checks of accessibility."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api.desk import Desk
from mcp_tap.model import (
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
    Status,
)
from mcp_tap.store import Row
from mcp_tap.store.rows import event_row, session_row
from mcp_tap.ui import charts, definitions
from mcp_tap.ui.cards import Card
from mcp_tap.ui.frame import Link
from mcp_tap.ui.ranking import Column
from mcp_tap.ui.web import render

#: 14 March 2026, 10:08:44.998 UTC, and a minute.
AT: Final = 1_773_482_924_998_000
MINUTE: Final = 60_000_000

HOSTILE: Final = "<script>alert(1)</script> \u202eesrever\x1b[31m"


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the pattern page."""
    sessions = _sessions()
    return render(
        desk,
        request,
        "patterns.html",
        title="Patterns",
        sessions=sessions,
        events=_events(),
        cards=CARDS,
        charts=_charts(),
        matrix=charts.matrix(_matrix()),
        shares=charts.proportion([("claude-desktop@1.2.3", 880), ("cursor@2.4.0", 539), (HOSTILE, 140)], _nowhere),
        columns=COLUMNS,
        tools=_tools(),
        choices=[Link("All", "#", True), Link("Errors 2", "#"), Link("Slow 1", "#")],
        lines=definitions.compared(_definition(), _definition(city={"type": "string"})),
        sentences=definitions.sentences(_definition(), _definition(city={"type": "string"})),
        hostile=HOSTILE,
        body=definitions.pretty({"amount": 129.9, "currency": "EUR", "card_token": "•••• redacted (key)"}),
    )


def _nowhere(_: str) -> str:
    return "#"


CARDS: Final = (
    Card("Calls", "2,485", "2,365 of tools", "▲ 12 %", "", "2,219 before", "#"),
    Card("Error rate", "1.9 %", "46 errors", "▼ 0.8 points", "better", "2.7 % before", "#"),
    Card("p95 latency", "1.23 s", "p50 41 ms · p99 3.85 s", "▲ 31 %", "worse", "940 ms before", "#"),
    Card("p95 latency", "", "p95 needs 20 calls; 7 so far"),
)

COLUMNS: Final = (
    Column("Tool", "name", lambda row: row["name"]),
    Column("Health", "health", lambda row: row["health"]),
    Column("p95", "", lambda row: row["p95_ms"], number=True),
    Column("Over time"),
)


def _sessions() -> list[Row]:
    def one(number: int, client: str | None, **values: Any) -> Row:
        connection = Connection(
            id=f"scn_{number:026d}",
            session_id=f"ses_{number:026d}",
            origin=Origin.HEADER,
            created_us=AT,
            upstream="http://localhost:9000/mcp",
            client_name=client,
            client_version="1.2.3" if client else None,
            era=Era.LEGACY,
            protocol_version="2025-11-25",
            mcp_session_id=f"{number}5caee5d-7d41",
            calls=6,
            last_active_us=AT + MINUTE,
        )
        for name, value in values.items():
            setattr(connection, name, value)
        return session_row(connection)

    ended = {"status": ConnectionStatus.ENDED, "state": ConnectionState.DISCONNECTED, "ended_us": AT + MINUTE}
    return [
        one(1, "claude-desktop", errors=2, tools={"search_products": 1, "create_payment": 3}),
        one(2, "cursor", state=ConnectionState.DISCONNECTED, tools={f"tool_{n}": 1 for n in range(7)}),
        one(3, None, user_agent="python-httpx2/1.0", end_reason=EndReason.CLIENT_DELETE, dropped=12, **ended),
        one(
            4, "night-agent", origin=Origin.DERIVED, origin_note="shared (2 starts)", era=Era.MODERN,
            protocol_version="2026-07-28", mcp_session_id=None, end_reason=EndReason.IDLE_TIMEOUT, **ended,
        ),
        one(5, HOSTILE, truncated=1, end_reason=EndReason.SESSION_NOT_FOUND, **ended),
    ]  # fmt: skip


def _events() -> list[Row]:
    def one(pk: int, type_: str, ms: float | None, **values: Any) -> Row:
        event = Event(Kind.REQUEST, type_, AT + pk * 1_000_000, connection=None, seq=pk)
        event.pk, event.direction, event.request_bytes, event.response_bytes = pk, Direction.TO_SERVER, 140, 1200
        event.status = Status.WAITING if ms is None else Status.SUCCEEDED
        event.duration_us = None if ms is None else round(ms * 1000)
        event.first_byte_us = None if ms is None else round(ms * 800)
        for name, value in values.items():
            setattr(event, name, value)
        return event_row(event, "00000") | {"client_name": "claude-desktop", "client_version": "1.2.3"}

    failed = {"status": Status.FAILED}
    return [
        one(1, "initialize", 3),
        one(2, "tools/call", 42, name="search_products"),
        one(
            3, "tools/call", 2340, name="create_payment", failure_reason=FailureReason.HTTP_ERROR, code="504",
            message="upstream timeout", **failed,
        ),
        one(
            4, "tools/call", 890, name="create_payment", attempt=2, failure_reason=FailureReason.RPC_ERROR,
            code="-32000", message="rate limited: retry after 8 s", **failed,
        ),
        one(5, "tools/call", 120, name=HOSTILE, failure_reason=FailureReason.TOOL_ERROR, message=HOSTILE, **failed),
        one(6, "tools/call", 15, name="book_table", outcome=Outcome.INPUT_REQUIRED),
        one(7, "tools/call", None, name="export_orders", response_cut=True),
    ]  # fmt: skip


def _series() -> list[Row]:
    spans = []
    for n in range(30):
        calls = 0 if 12 <= n < 15 else 8 + (n * 7) % 23
        p50 = 30 + (n * 13) % 25
        spans.append(
            {
                "start": AT - AT % MINUTE + n * MINUTE, "end": AT - AT % MINUTE + (n + 1) * MINUTE,
                "calls": calls, "errors": min(calls, 3) if n % 4 == 1 else 0,
                "p50_ms": p50 if calls else None, "p95_ms": p50 * (3 + n % 5) if calls else None,
                "p99_ms": p50 * (9 + (n * 3) % 31) if calls else None,
            }
        )  # fmt: skip
    return spans


def _charts() -> list[charts.Chart]:
    series = _series()
    cells = [
        span | {"low_ms": 2.0**power, "high_ms": 2.0 ** (power + 1), "calls": calls, "errors": calls * (power > 10)}
        for n, span in enumerate(series)
        for power in range(3, 12)
        if span["calls"] and (calls := (span["calls"] * (n + power * 5)) % 17 - 6) > 0
    ]
    return [
        charts.latency(series, lambda start, end: f"#{start}..{end}"),
        charts.calls(series, lambda start, end: f"#{start}..{end}"),
        charts.heatmap(cells, series, lambda start, end: f"#{start}..{end}"),
        charts.calls([], lambda start, end: f"#{start}..{end}", name="nothing"),
    ]


def _matrix() -> list[Row]:
    rows = [("search_products", 394, 2), ("create_payment", 117, 10), (HOSTILE, 1, 1)]
    return [
        {"tool": tool, "client": client, "calls": calls // share, "errors": errors // share}
        for tool, calls, errors in rows
        for client, share in (("claude-desktop@1.2.3", 1), ("cursor@2.4.0", 2), ("unknown", 90))
    ]


def _tools() -> list[Row]:
    return [
        {"name": name, "health": health, "p95_ms": ms, "calls": calls, "spark": [(n * calls) % 9 for n in range(24)]}
        for name, health, ms, calls in (
            ("create_payment", "down", 2740.0, 37), ("refund_order", "degraded", 1040.0, 106),
            ("search_products", "healthy", 128.0, 1142), ("audit_log", "inactive", None, 0),
            (HOSTILE, "healthy", 3.0, 7),
        )
    ]  # fmt: skip


def _definition(**properties: Any) -> dict[str, Any]:
    given = {"query": {"type": "string"}, **properties}
    return {
        "name": "search_products",
        "annotations": {"readOnlyHint": not properties},
        "inputSchema": {"type": "object", "properties": given, "required": [*given]},
    }
