"""Sessions: one row for each client connection, from its first request to its end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.store import Page, Paging, Row
from mcp_tap.store.filters import Filter, Term
from mcp_tap.ui.frame import Link, address, written
from mcp_tap.ui.web import render

#: Lines of a session that are shown in place; the session's own page has all of them.
LINES: Final = 50

#: A row with nothing in it: what scripts clone for sessions that begin while the page is open.
BLANK: Final[Row] = {
    "connection_id": "", "session_id": "", "mcp_session_id": None, "client_name": "-", "client_version": "",
    "user_agent": "", "started": "", "last_active": "", "duration_ms": None, "calls": 0, "tool_calls": {}, "errors": 0,
    "status": "active", "connection_state": "connected", "end_reason": None, "tools": None, "protocol_version": None,
    "era": None, "origin": "header", "origin_note": None, "dropped": 0, "truncated": 0, "change": 0,
}  # fmt: skip


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the list of sessions, one of them expanded where ``open`` names it."""
    question = parameters.read(request, limit=50, order="desc")
    found = await desk.reader.list_sessions(question.where, question.paging)
    opened = request.query_params.get("open", "")
    timeline = await _timeline(desk, opened) if opened in {row["connection_id"] for row in found.rows} else None
    return render(
        desk, request, "sessions.html", title="Sessions",
        found=found,
        rows=together(found.rows) if not question.paging.sort else found.rows,
        segments=_segments(request, question.where),
        opened=opened, timeline=timeline,
        blank=BLANK,
        live=address("/api/live", [("of", "sessions"), *written(question.where)]),
    )  # fmt: skip


async def _timeline(desk: Desk, connection: str) -> Page:
    where = Filter((Term("conn", connection),))
    return await desk.reader.list_events(where, Paging(limit=LINES, order="asc"))


def together(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with those of one session side by side, each session where its first row is."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["session_id"]].append(row)
    return [row for group in groups.values() for row in group]


def _segments(request: Request, where: Filter) -> list[Link]:
    """Return the choices above the list; each replaces the status that is asked for."""
    status = where.value("status")
    others = [pair for pair in request.query_params.multi_items() if pair[0] in {"sort", "order", "limit"}]

    def to(text: str, value: str) -> Link:
        asked = where.replaced("status", value) if value else where.without("status")
        return Link(text, address(request.url.path, written(asked) + others), value == (status or ""))

    return [to("All", ""), to("Active", "active"), to("Ended", "ended"), to("With errors", "failed")]
