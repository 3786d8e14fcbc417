"""Sessions: one row for each client connection, from its first request to its end."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.ui.web import render


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the list of sessions."""
    question = parameters.read(request, limit=50, order="desc")
    found = await desk.reader.list_sessions(question.where, question.paging)
    return render(desk, request, "sessions.html", title="Sessions", found=found)
