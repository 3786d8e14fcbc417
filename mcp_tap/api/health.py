"""Whether the tap is alive, and what it is doing: for probes, which have no token.

Where there is one, others than the owner can reach the desk: then no address and no path is told, and however often
they ask, a server is connected to once a second at most.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_tap import __version__
from mcp_tap.api.desk import Desk

#: Seconds for which it is known how connecting to the servers went.
FRESH: Final = 1.0


def routes(desk: Desk) -> list[Route]:
    """Return the routes of the probes."""

    async def healthz(_: Request) -> Response:
        """Say that this process works; a store that fails is reported, but traffic does not need it."""
        recording = desk.recording()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        said = "on" if recording.on else "off: a file is looked at"
        why = f": {recording.failing}" if not desk.token else ""
        return _json(
            {
                "status": "ok" if recording.failing is None else "degraded",
                "version": __version__,
                "uptime_s": round(time.monotonic() - desk.began, 3),
                "recording": said if recording.failing is None else f"records cannot be written{why}",
                "dropped": recording.dropped,
                "lost": recording.lost,
                "streams": recording.streams,
                "open_files": {"soft": soft, "hard": hard},
            }
        )

    reached = _Reached(desk)

    async def readyz(_: Request) -> Response:
        """Say that the tap listens. How the servers are is told but decides nothing: they may be slower."""
        upstreams: list[dict[str, Any]] = []
        for proxy, state in zip(desk.proxies, await reached.states(), strict=False):
            where = {} if desk.token else {"upstream": proxy.upstream.url, "proxy": proxy.url}
            upstreams.append({"name": proxy.name or None, **where, "upstream_state": state})
        first: dict[str, Any] = {}
        if upstreams:
            first = {key: told for key, told in upstreams[0].items() if key in ("upstream", "upstream_state")}
        return _json({"status": "ready", **first, "upstreams": upstreams})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


class _Reached:
    """How connecting to the servers went the last time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._states: list[str] = []
        self._at = float("-inf")
        self._asking = asyncio.Lock()

    async def states(self) -> list[str]:
        """Return that for each server in words; while one asks, the others wait for what it learns."""
        if self._desk.reach is None:
            return []
        async with self._asking:
            if time.monotonic() - self._at > FRESH:
                self._states = await asyncio.gather(*map(self._desk.reach, self._desk.proxies))
                self._at = time.monotonic()
        return self._states


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content) + b"\n", media_type="application/json")
