"""Slow: the calls that took longest, each beside what its tool usually takes."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.store import Row
from mcp_tap.ui.figures import calls
from mcp_tap.ui.web import render

#: What counts as slow where the reader does not say.
OVER: Final = "1s"
THRESHOLDS: Final = ("100ms", "500ms", "1s", "5s", "30s")

REQUESTS: Final = frozenset({"request"})


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the slowest calls."""
    question = parameters.read(request, limit=50, order="desc")
    over = dict(question.parameters).get("over") or OVER
    asked = calls(question.where)
    paging = question.paging if question.paging.sort else question.paging._replace(sort="latency_ms")
    found, tools = await asyncio.gather(
        desk.reader.list_events(asked.plus("latency", f">={over.lstrip('>=')}"), paging, kinds=REQUESTS),
        desk.reader.tools(question.where),
    )
    medians = {row["name"]: row["p50_ms"] for row in tools if row["calls"] > 1}
    return render(
        desk,
        request,
        "slow.html",
        title="Slow",
        over=over,
        thresholds=THRESHOLDS,
        found=found,
        usual=lambda row: _usual(row, medians),
        longest=max((row["latency_ms"] or 0 for row in found.rows), default=0),
    )


def _usual(row: Row, medians: dict[str, float | None]) -> tuple[float, float] | None:
    """Return the median of a call's tool in milliseconds, and how many times that the call took."""
    median = medians.get(row["name"]) if row["type"] == "tools/call" else None
    return (median, row["latency_ms"] / median) if median else None
