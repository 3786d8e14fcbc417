"""Clients: who calls, how much, and how well that goes."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.model import NotFoundError
from mcp_tap.store import Paging
from mcp_tap.store.filters import Filter
from mcp_tap.ui import charts
from mcp_tap.ui.cards import before, behind, cards, maybe, recorded, scarce
from mcp_tap.ui.frame import address, written
from mcp_tap.ui.ranking import Column, ranked, words
from mcp_tap.ui.web import render
from mcp_tap.values import nearest

COLUMNS: Final = (
    Column("Client", "name", lambda row: row["name"] or ""),
    Column("Version"),
    Column("Revisions"),
    Column("Sessions", "sessions", lambda row: row["sessions"], number=True),
    Column("Calls", "", lambda row: row["calls"], number=True),
    Column("Error %", "rate", lambda row: row["errors"] / row["calls"] if row["calls"] else None, number=True),
    Column("p95", "p95", lambda row: row["p95_ms"], number=True),
    Column("Tools used", "tools", lambda row: row["tools"], number=True),
    Column("First seen", "first_seen", lambda row: row["first_seen"]),
    Column("Last seen", "last_seen", lambda row: row["last_seen"]),
)

NEWEST: Final = Paging(limit=10)


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the list of clients."""
    question = parameters.read(request, limit=100, order="desc", sorts=words(COLUMNS))
    rows, matrix = await desk.reader.usage(question.where)
    return render(
        desk,
        request,
        "clients.html",
        title="Clients",
        columns=COLUMNS,
        rows=ranked(rows, COLUMNS, question.paging),
        matrix=charts.matrix(matrix),
    )


async def one(desk: Desk, request: Request) -> Response:
    """Answer with one client: a name and a version."""
    wanted, reader = request.path_params["client"], desk.reader
    where = parameters.read(request, limit=50, order="desc").where
    name, _, version = wanted.partition("@")
    # all versions of it, whenever; by name where a filter can ask for it, since all clients of a month take longer
    always = Filter(now_us=where.now_us)
    versions = await reader.clients(always.plus("client", name) if name and version and "," not in name else always)
    client = next((row for row in versions if row["client"] == wanted), None)
    if client is None:
        known = [row["client"] for row in await reader.clients()]
        raise NotFoundError(f'there is no client "{wanted}"', hint=nearest(wanted, known))
    title = f"{wanted} · Clients"
    if not client["name"]:  # without a name there is no word for it in a filter
        return render(desk, request, "client.html", title=title, client=client, named=False)
    its = where.replaced("client", wanted.replace(",", "*"))
    drawn, earlier = recorded(its, request.state.facts, growing=desk.recording().on), before(its, request.state.facts)
    now, was, spans, tools, groups, sessions = await asyncio.gather(
        reader.totals(its),
        maybe(earlier, reader.totals),
        reader.series(drawn),
        reader.tools(drawn),
        reader.errors(its, limit=10),
        reader.list_sessions(its, NEWEST),
    )
    latency = charts.latency(spans, behind("/slow", its, over="0ms"), exact=now["exact"])
    return render(
        desk,
        request,
        "client.html",
        title=title,
        client=client,
        named=True,
        cards=cards(now, was, its),
        charts=[
            *([] if scarce(now["calls"]) else [latency]),
            charts.calls(spans, behind("/sessions", its)),
        ]
        if now["calls"]
        else [],
        tools=[row for row in tools if row["calls"]],
        versions=sorted(
            (row for row in versions if row["name"] == client["name"]),
            key=lambda row: row["first_seen"] or "",
        ),
        groups=groups,
        sessions=sessions.rows,
        sessions_href=address("/sessions", written(its)),
    )
