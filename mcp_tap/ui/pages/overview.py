"""Overview: how the calls of a range went."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.store import Paging
from mcp_tap.ui import charts
from mcp_tap.ui.cards import before, behind, cards, maybe, recorded, scarce
from mcp_tap.ui.frame import address, written
from mcp_tap.ui.web import render

NEWEST = Paging(limit=5)


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the figures of a range and what is newest in it."""
    where = parameters.read(request, limit=5, order="desc").where
    reader, facts = desk.reader, request.state.facts
    drawn, earlier = recorded(where, facts, growing=desk.recording().on), before(where, facts)
    failed = where if where.value("status") == "failed" else where.plus("status", "failed")
    (now, was), (spans, heat), usage, sessions, errors = await asyncio.gather(
        asyncio.gather(reader.totals(where), maybe(earlier, reader.totals)),
        reader.course(drawn),
        reader.usage(where),
        reader.list_sessions(where, NEWEST),
        reader.list_events(failed, NEWEST),
    )
    latency = charts.latency(spans, behind("/slow", where, over="0ms"), exact=now["exact"])
    return render(
        desk,
        request,
        "overview.html",
        title="Overview",
        now=now,
        compared=earlier is not None,
        cards=cards(now, was, where),
        shares=charts.proportion(
            [(row["client"], row["calls"]) for row in usage.clients],
            lambda client: None if client == "unknown" else address("/", written(where.replaced("client", client))),
        ),
        charts=[
            *([] if scarce(now["calls"]) else [latency]),
            charts.calls(spans, behind("/sessions", where)),
            charts.heatmap(heat, spans, behind("/slow", where, over="0ms")),
        ],
        matrix=charts.matrix(usage.matrix, tools=10, clients=4),
        sessions=sessions.rows,
        errors=errors.rows,
        errors_href=address("/errors", written(where)),
        sessions_href=address("/sessions", written(where)),
    )
