"""Tools: which are used, slow, broken, and what is known of each."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.model import NotFoundError
from mcp_tap.store import Paging, Row
from mcp_tap.store.filters import Filter
from mcp_tap.ui import charts, definitions
from mcp_tap.ui.cards import before, behind, cards, maybe, recorded, scarce
from mcp_tap.ui.frame import address, written
from mcp_tap.ui.ranking import Column, ranked, words
from mcp_tap.ui.web import render

_HEALTH: Final = {"down": 0, "degraded": 1, "unclear": 2, "healthy": 3, "inactive": 4}

COLUMNS: Final = (
    Column("Tool", "name", lambda row: row["name"]),
    Column("Health", "health", lambda row: -_HEALTH.get(row["health"], 5)),
    Column("Calls", "calls", lambda row: row["calls"], number=True),
    Column("Errors", "errors", lambda row: row["errors"], number=True),
    Column("Error %", "rate", lambda row: row["errors"] / row["calls"] if row["calls"] else None, number=True),
    Column("p50", "p50", lambda row: row["p50_ms"], number=True, room="spare"),
    Column("p95", "", lambda row: row["p95_ms"], number=True),
    Column("p99", "p99", lambda row: row["p99_ms"], number=True, room="spare"),
    Column("Over time"),
    Column("Last called", "last_called", lambda row: row["last_called"]),
    Column("Clients", "clients", lambda row: row["clients"], number=True),
    Column("Definition", "changed", lambda row: row["changed"]),
)

SLOWEST: Final = Paging(limit=10, sort="latency_ms")
REQUESTS: Final = frozenset({"request"})


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the list of tools."""
    question = parameters.read(request, limit=100, order="desc", sorts=words(COLUMNS))
    rows = await desk.reader.tools(recorded(question.where, request.state.facts))
    used = sum(1 for row in rows if row["calls"])
    return render(
        desk,
        request,
        "tools.html",
        title="Tools",
        columns=COLUMNS,
        rows=ranked(rows, COLUMNS, question.paging),
        used=used,
    )


async def one(desk: Desk, request: Request) -> Response:
    """Answer with one tool."""
    name, reader = request.path_params["tool"], desk.reader
    where = parameters.read(request, limit=50, order="desc").where
    its = calls_of(where, name)
    drawn, earlier = recorded(its, request.state.facts, growing=desk.recording().on), before(its, request.state.facts)
    tool, now, was, spans, groups, slowest = await asyncio.gather(
        reader.tool(name, where),
        reader.totals(its),
        maybe(earlier, reader.totals),
        reader.series(drawn),
        reader.errors(its, limit=10),
        reader.list_events(its, SLOWEST, kinds=REQUESTS),
    )
    latency = charts.latency(spans, behind("/slow", its, over="0ms"), exact=now["exact"])
    newest = tool["definitions"][-1]["definition"] if tool["definitions"] else None
    return render(
        desk,
        request,
        "tool.html",
        title=f"{name} · Tools",
        tool=tool,
        definition=newest if isinstance(newest, dict) else {},
        shown=definitions.lines,
        upstreams=len({each["upstream"] for each in tool["definitions"]}) > 1,
        cards=cards(now, was, its),
        charts=[
            *([] if scarce(now["calls"]) else [latency]),
            charts.calls(spans, behind("/sessions", its)),
        ]
        if now["calls"]
        else [],
        groups=groups,
        slowest=[row for row in slowest.rows if row["latency_ms"]],
        slow_href=address("/slow", [*written(its), ("over", "0ms")]),
        sessions_href=address("/sessions", written(its)),
    )


async def versions(desk: Desk, request: Request) -> Response:
    """Answer with what changed between two definitions of a tool."""
    name = request.path_params["tool"]
    tool = await desk.reader.tool(name)
    old, new = (_version(tool, request.path_params[which]) for which in ("old", "new"))
    return render(
        desk,
        request,
        "versions.html",
        title=f"{name} {old['version']}..{new['version']} · Tools",
        tool=tool,
        old=old,
        new=new,
        sentences=definitions.sentences(old["definition"], new["definition"]),
        lines=definitions.compared(old["definition"], new["definition"]),
    )


def calls_of(where: Filter, tool: str) -> Filter:
    """Return the filter for the calls of one tool. A comma would mean or, and `*` stands for a comma, too."""
    return where.replaced("tool", tool.replace(",", "*"))


def _version(tool: Row, number: int) -> Row:
    for definition in tool["definitions"]:
        if definition["version"] == number:
            return dict(definition)
    count = len(tool["definitions"])
    hint = f"there are:  1 to {count}" if count else "no tools/list named it"
    raise NotFoundError(f"the tool has no definition {number}", hint=hint)
