"""Every path under /api, and what answers there."""

from __future__ import annotations

from starlette.routing import Route

from mcp_tap.api.desk import Desk


def routes(desk: Desk) -> list[Route]:
    """Return the routes of the API."""
    return []
