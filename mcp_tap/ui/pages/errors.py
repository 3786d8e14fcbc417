"""Errors: failed messages in groups, and what came before and after each."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.ui.cards import recorded
from mcp_tap.ui.ranking import Column, ranked, words
from mcp_tap.ui.web import render

COLUMNS: Final = (
    Column("Group", "group", lambda row: row["name"] or row["type"]),
    Column("Kind", "kind", lambda row: row["failure_reason"]),
    Column("Count", "", lambda row: row["count"], number=True),
    Column("Share", "share", lambda row: row["share"], number=True, hint="of all errors in this range"),
    Column("Clients", "clients", lambda row: row["clients"], number=True),
    Column("First", "first", lambda row: row["first"]),
    Column("Last", "last", lambda row: row["last"]),
    Column("Over time"),
)

#: Occurrences on one page of a group: each comes with what was around it.
OCCURRENCES: Final = 10


async def page(desk: Desk, request: Request) -> Response:
    """Answer with the groups of errors."""
    question = parameters.read(request, limit=100, order="desc", sorts=words(COLUMNS))
    rows = await desk.reader.errors(recorded(question.where, request.state.facts), limit=question.paging.limit)
    return render(
        desk,
        request,
        "errors.html",
        title="Errors",
        columns=COLUMNS,
        rows=ranked(rows, COLUMNS, question.paging),
        total=sum(row["count"] for row in rows),
        cut=len(rows) == question.paging.limit,
    )


async def one(desk: Desk, request: Request) -> Response:
    """Answer with one group: its occurrences, each between the requests around it."""
    question = parameters.read(request, limit=OCCURRENCES, order="desc")
    where = recorded(question.where, request.state.facts)
    group, found = await desk.reader.error(request.path_params["group"], where, question.paging)
    return render(
        desk,
        request,
        "error.html",
        title=f"{group['name'] or group['type']} · Errors",
        group=group,
        found=found,
        occurrences=[
            (row, await desk.reader.context(row["message_id"] or row["event_id"]) if row["connection_id"] else [])
            for row in found.rows
        ],
    )
