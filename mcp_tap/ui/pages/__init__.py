"""The pages, one module each. A page is one row of `PAGES`; its JSON stands at the same path below `/api`."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from mcp_tap.api.desk import Desk
from mcp_tap.api.routes import PACKED
from mcp_tap.ui.pages import (
    clients,
    connections,
    errors,
    export,
    live,
    message,
    overview,
    patterns,
    session,
    sessions,
    slow,
    tools,
)
from mcp_tap.ui.upstreams import Upstreams
from mcp_tap.ui.web import Page, endpoint

#: Order matters where one path fits several rows: the first one answers.
PAGES: Final = (
    Page("/sessions", "sessions", sessions.page),
    Page("/sessions/{id}", "session", session.page),
    Page("/live", "live", live.page),
    Page("/messages/{id}", "message", message.page),
    Page("/sessions/{id}/export.{form}", "export", export.page),
    Page("/", "overview", overview.page, since="24h"),
    Page("/tools", "tools", tools.page, since="24h"),
    Page("/tools/{tool:path}/versions/{old:int}..{new:int}", "versions", tools.versions),
    Page("/tools/{tool:path}", "tool", tools.one, since="24h"),
    Page("/clients", "clients", clients.page, since="24h"),
    Page("/clients/{client:path}", "client", clients.one, since="24h"),
    Page("/errors", "errors", errors.page, since="24h"),
    Page("/errors/{group}", "error", errors.one, since="24h"),
    Page("/slow", "slow", slow.page, since="24h"),
    Page("/connections", "connections", connections.page),
    Page("/connections/{connection}", "connection", connections.one),
    Page("/_patterns", "patterns", patterns.page),
)  # fmt: skip


def routes(desk: Desk) -> list[Route]:
    """Return the routes of all pages. A recording that is only looked at is shown as a whole: its last day is past."""
    upstreams = Upstreams(desk)
    pages = PAGES if desk.recording().on else [page._replace(since="") for page in PAGES]
    return [
        Route(page.path, endpoint(desk, page, upstreams), name=page.name, methods=["GET"], middleware=PACKED)
        for page in pages
    ]
