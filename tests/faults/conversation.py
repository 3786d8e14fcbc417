"""One conversation, played by clients of several makes: what each of them saw, in a form that can be compared.

Every conversation has one call that faults are aimed at: it tells its progress, so that its answer can be cut in the
middle. The call before it and the one after it show that nothing else is touched.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any, Final

from tests.faults.raw import RawClient, http
from tests.sdk.harness import CALLS, client_command

Json = dict[str, Any]

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

#: Seconds that a conversation may take before its client is given up: it waits for what will not come.
PATIENCE: Final = 6

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
        return [{"waiting": True}]
    finally:
        process.kill()
        process.communicate()
    if process.returncode:
        return [{"died": sorted(set(_RAISED.findall(complaint)))}]
    calls: list[Json] = json.loads(said)["calls"]
    return [call | {"outcome": re.sub(r"127\.0\.0\.1:\d+", "", call["outcome"])} for call in calls]


def _raw(url: str, *, modern: bool) -> list[Json]:
    with http() as connections:
        client = RawClient(connections, url, modern=modern)
        return [
            *client.open(),
            client.send("tools/list", 2),
            client.call(3, "search_products", query="boots"),
            client.call(4, "import_catalog"),
            client.call(5, "get_weather", city="Oslo"),
        ]
