"""The desk's routes: for now whether the tap is alive, and what it is doing."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_tap import __version__
from mcp_tap.config import Proxy
from mcp_tap.recorder import Recorder


def desk(recorder: Recorder, *, proxies: Sequence[Proxy], reach: Callable[[Proxy], Awaitable[str]]) -> Starlette:
    """Return the application of the admin listener. ``reach`` says in words how connecting to a server goes."""
    began = time.monotonic()

    async def healthz(_: Request) -> Response:
        """Say that this process works; a store that fails is reported, but traffic does not need it."""
        failing = recorder.spool.failing
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _json(
            {
                "status": "ok" if failing is None else "degraded",
                "version": __version__,
                "uptime_s": round(time.monotonic() - began, 3),
                "recording": "on" if failing is None else f"records are being lost: {failing}",
                "dropped": recorder.dropped,
                "lost": recorder.spool.lost,
                "streams": recorder.streams,
                "open_files": {"soft": soft, "hard": hard},
            }
        )

    async def readyz(_: Request) -> Response:
        """Say that the tap listens. How the servers are is told but decides nothing: they may be slower."""
        states = await asyncio.gather(*map(reach, proxies))
        upstreams = [
            {"name": proxy.name or None, "upstream": proxy.upstream.url, "proxy": proxy.url, "upstream_state": state}
            for proxy, state in zip(proxies, states, strict=True)
        ]
        first = {key: upstreams[0][key] for key in ("upstream", "upstream_state")}
        return _json({"status": "ready", **first, "upstreams": upstreams})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])


def _json(content: dict[str, Any]) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(content) + b"\n", media_type="application/json", headers=headers)
