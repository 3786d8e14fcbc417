"""A client of a few lines, of either era: every request is written here, and every failure is seen."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import httpx

from tests.tap import HEADERS, rpc

Json = dict[str, Any]

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"

#: Seconds that a client waits for the next bytes.
PATIENCE: Final = 1.5

INFO: Final[Json] = {"name": "raw", "version": "1"}
META: Final[Json] = {
    f"io.modelcontextprotocol/{key}": value
    for key, value in {"protocolVersion": MODERN, "clientCapabilities": {}, "clientInfo": INFO}.items()
}


class RawClient:
    """One client. ``headers`` go with each of its requests."""

    def __init__(self, http: httpx.Client, url: str, *, modern: bool, **headers: str) -> None:
        self.http = http
        self.url = url
        self.modern = modern
        self.headers = HEADERS | headers

    def open(self) -> list[Json]:
        """Go through what comes before the first call."""
        if self.modern:
            return [self.send("server/discover", 1)]
        opened = self.send("initialize", 1, protocolVersion=LEGACY, capabilities={}, clientInfo=INFO)
        return [opened, self.send("notifications/initialized")]

    def call(self, id: int, tool: str, **arguments: Any) -> Json:  # noqa: A002
        """Call a tool."""
        return self.send("tools/call", id, name=tool, arguments=arguments)

    def send(self, method: str, id: int | None = None, **params: Any) -> Json:  # noqa: A002
        """Send a request and return the status, the messages of the answer as far as they came, and how it failed."""
        seen: Json = {"status": 0, "messages": [], "failed": None}
        try:
            with self.stream(method, id, **params) as response:
                seen["status"] = response.status_code
                for line in response.iter_lines():
                    if line.startswith(("data:", "{")):
                        seen["messages"].append(json.loads(line.removeprefix("data:")))
        except httpx.TransportError as error:
            seen["failed"] = type(error).__name__
        return seen

    @contextlib.contextmanager
    def stream(self, method: str, id: int | None = None, **params: Any) -> Any:  # noqa: A002
        """Send a request and yield the response, of which only the head is read."""
        headers = dict(self.headers)
        if self.modern:
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            headers |= {"mcp-name": params["name"]} if "name" in params else {}
        meta = (META if self.modern else {}) | {"progressToken": id or 0}
        message = rpc(method, id, _meta=meta, **params)
        with self.http.stream("POST", self.url, json=message, headers=headers) as response:
            if "mcp-session-id" in response.headers:
                session = {"mcp-session-id": response.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}
                self.headers = self.headers | session
            yield response


def http(patience: float = PATIENCE) -> httpx.Client:
    """Return an HTTP client that takes nothing from its environment."""
    return httpx.Client(trust_env=False, timeout=httpx.Timeout(10, read=patience))
