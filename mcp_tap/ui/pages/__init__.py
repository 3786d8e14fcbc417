"""The pages, one module each. A page is one row of `PAGES`; its JSON stands at the same path below `/api`."""

from __future__ import annotations

from typing import Final

from starlette.routing import Route

from mcp_tap.api.desk import Desk
from mcp_tap.ui.pages import export, sessions
from mcp_tap.ui.web import Page, endpoint

#: Order matters where one path fits several rows: the first one answers.
PAGES: Final = (
    Page("/sessions", "sessions", sessions.page),
    Page("/sessions/{id}/export.{form}", "export", export.page),
)  # fmt: skip


def routes(desk: Desk) -> list[Route]:
    """Return the routes of all pages."""
    return [Route(page.path, endpoint(desk, page), name=page.name, methods=["GET"]) for page in PAGES]
