"""Whether the tap is alive, and what it is doing: for probes, which have no token."""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_tap import __version__
from mcp_tap.api.desk import Desk


def routes(desk: Desk) -> list[Route]:
    """Return the routes of the probes."""

    async def healthz(_: Request) -> Response:
        """Say that this process works; a store that fails is reported, but traffic does not need it."""
        recording = desk.recording()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        said = "on" if recording.on else "off: a file is looked at"
        return _json(
            {
                "status": "ok" if recording.failing is None else "degraded",
                "version": __version__,
                "uptime_s": round(time.monotonic() - desk.began, 3),
                "recording": said if recording.failing is None else f"records cannot be written: {recording.failing}",
                "dropped": recording.dropped,
                "lost": recording.lost,
                "streams": recording.streams,
                "open_files": {"soft": soft, "hard": hard},
            }
        )

    async def readyz(_: Request) -> Response:
        """Say that the tap listens. How the servers are is told but decides nothing: they may be slower."""
        states = [] if desk.reach is None else await asyncio.gather(*map(desk.reach, desk.proxies))
        upstreams = [
            {"name": proxy.name or None, "upstream": proxy.upstream.url, "proxy": proxy.url, "upstream_state": state}
            for proxy, state in zip(desk.proxies, states, strict=False)
        ]
        first = {key: upstreams[0][key] for key in ("upstream", "upstream_state")} if upstreams else {}
        return _json({"status": "ready", **first, "upstreams": upstreams})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content) + b"\n", media_type="application/json")
