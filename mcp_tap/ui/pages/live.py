"""Live: what happens, as it happens, newest at the bottom."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.store import Row
from mcp_tap.ui.frame import address, written
from mcp_tap.ui.web import render

#: Lines that the page begins with, and lines that scripts keep.
FIRST: Final = 200
KEPT: Final = 2_000

#: A row with nothing in it: what scripts clone for every new line.
BLANK: Final[Row] = {
    "event_id": "", "message_id": "", "session_id": "", "connection_id": "", "change": 0, "status": "", "time": "",
    "type": "", "name": None, "direction": "client_to_server", "kind": "request", "attempt": 1, "outcome": None,
    "truncated": 0, "dropped": 0, "latency_ms": None, "request_bytes": 0, "response_bytes": 0, "client_name": "-",
    "client_version": "", "mcp_session_id": None,
}  # fmt: skip


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the newest lines; a script adds what follows."""
    question = parameters.read(request, limit=FIRST, order="desc")
    found = await desk.reader.list_events(question.where, question.paging)
    rows = found.rows[::-1] if question.paging.order == "desc" else found.rows
    return render(
        desk, request, "live.html", title="Live",
        found=found, rows=rows, blank=BLANK, kept=KEPT,
        live=address("/api/live", [("of", "events"), *written(question.where)]), twin="/api/events",
    )  # fmt: skip
