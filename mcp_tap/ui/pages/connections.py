"""Connections: what stands between which client and which server, and the streams that are open now."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.store import Paging
from mcp_tap.ui.web import render

#: What listens for longer than a connection of no session lasts is looked for where the reader names a range.
LONGEST = "24h"

SORTS = ("started", "client_name", "duration_ms", "last_active")


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the list of connections, and with what listens for long."""
    question = parameters.read(request, limit=50, order="desc", sorts=SORTS)
    found = await desk.reader.list_sessions(question.where, question.paging)
    listening = question.where.without("status").plus("method", "subscriptions/listen").plus("status", "pending")
    if listening.since_us is None:
        listening = listening.plus("since", LONGEST)
    streams = await desk.reader.list_events(listening, Paging(limit=20))
    return render(
        desk,
        request,
        "connections.html",
        title="Connections",
        found=found,
        streams=streams.rows,
        open_streams=sum(row["open_streams"] for row in found.rows),
        streams_now=desk.recording().streams,
    )


async def one(desk: Desk, request: Request) -> Response:
    """Answer with the place where a connection is shown: the page of its session."""
    row = await desk.reader.session(request.path_params["connection"])
    return RedirectResponse(f"/sessions/{quote(row['session_id'])}#{quote(row['connection_id'])}", 303)
