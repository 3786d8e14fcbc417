"""One conversation, played by clients of several makes: what each of them saw, in a form that can be compared.

Every conversation has one call that faults are aimed at: it tells its progress, so that its answer can be cut in the
middle. The call before it and the one after it show that nothing else is touched.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any, Final

import httpx

from tests.sdk.harness import CALLS, client_command
from tests.tap import HEADERS, rpc

Json = dict[str, Any]

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"

#: The kind of server that each client talks to.
SERVER_OF: Final = {
    "raw-legacy": "sample",
    "raw-modern": "sample",
    "py1": "py1",
    "py2-auto": "py2",
    "py2-legacy": "py2",
    "ts": "everything",
}

#: The name of the call that faults are aimed at, by kind of server.
TARGET: Final = {
    "sample": "import_catalog",
    "py1": "count",
    "py2": "count",
    "everything": "trigger-long-running-operation",
}

#: Seconds that a client may be silent before it is given up, and those of a raw client: its target takes 0.4.
PATIENCE: Final = 6
RAW_PATIENCE: Final = 1.5

#: The names of exceptions in a traceback; a group is drawn as a tree.
_RAISED: Final = re.compile(r"^[ |+-]*((?:\w+\.)*\w*(?:Error|Exception|Group))\b", re.MULTILINE)


def converse(client: str, url: str) -> list[Json]:
    """Play the conversation and return what the client saw of each step."""
    if client.startswith("raw"):
        return _raw(url, modern=client == "raw-modern")
    return _sdk(client, url)


def target_of(client: str) -> str:
    """Return the name of the tool that faults are aimed at."""
    return TARGET[SERVER_OF[client]]


def _sdk(client: str, url: str) -> list[Json]:
    before, _, target = CALLS["everything" if client == "ts" else "calculator"]
    if client != "ts":
        target = ("count", {"to": 20})  # 0.4 s
    command, environment = client_command(client, url, [before, target, before])
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complaint = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return [{"waiting": True}]
    if process.returncode:
        return [{"died": sorted(set(_RAISED.findall(complaint)))}]
    calls: list[Json] = json.loads(said)["calls"]
    return [call | {"outcome": re.sub(r"127\.0\.0\.1:\d+", "", call["outcome"])} for call in calls]


def _raw(url: str, *, modern: bool) -> list[Json]:
    seen = []
    session: dict[str, str] = {}
    info = {"name": "raw", "version": "1"}
    meta = {f"io.modelcontextprotocol/{key}": value for key, value in
            {"protocolVersion": MODERN, "clientCapabilities": {}, "clientInfo": info}.items()}  # fmt: skip

    def send(message: Json) -> Json:
        headers, params = HEADERS | session, message["params"]
        if modern:
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": message["method"]}
            headers |= {"mcp-name": params["name"]} if "name" in params else {}
        given = meta if modern else {}
        params = {"_meta": given | {"progressToken": message.get("id", 0)}} | params
        request = message | {"params": params}
        return _answer(lambda: http.stream("POST", url, json=request, headers=headers), session)

    with httpx.Client(trust_env=False, timeout=httpx.Timeout(10, read=RAW_PATIENCE)) as http:
        if modern:
            seen.append(send(rpc("server/discover", 1)))
        else:
            seen.append(send(rpc("initialize", 1, protocolVersion=LEGACY, capabilities={}, clientInfo=info)))
            seen.append(send(rpc("notifications/initialized")))
        seen.append(send(rpc("tools/list", 2)))
        seen.append(send(rpc("tools/call", 3, name="search_products", arguments={"query": "boots"})))
        seen.append(send(rpc("tools/call", 4, name="import_catalog", arguments={})))
        seen.append(send(rpc("tools/call", 5, name="get_weather", arguments={"city": "Oslo"})))
    return seen


def _answer(send: Callable[[], Any], session: dict[str, str]) -> Json:
    """Send one request and return the status, the messages of the answer as far as they came, and how it failed."""
    seen: Json = {"status": 0, "messages": [], "failed": None}
    try:
        with send() as response:
            seen["status"] = response.status_code
            if "mcp-session-id" in response.headers:
                session |= {"mcp-session-id": response.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}
            for line in response.iter_lines():
                if line.startswith(("data:", "{")):
                    seen["messages"].append(json.loads(line.removeprefix("data:")))
    except httpx.TransportError as error:
        seen["failed"] = type(error).__name__
    return seen
