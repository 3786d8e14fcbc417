"""Official clients and servers with the tap between them: the record says what the client says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .environments import PYTHON_PINS
from .harness import CALLS, rows, run_client, tap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.sdk

CLIENTS = ("py1", "py2-legacy", "py2-auto", "ts")
SERVERS = ("py1", "py2", "everything")

#: Run by `make test`: each SDK once, as client and as server.
QUICK = {("py1", "py1"), ("py2-auto", "py2"), ("ts", "everything")}

MATRIX = [
    pytest.param(client, server, marks=[] if (client, server) in QUICK else [pytest.mark.matrix])
    for client in CLIENTS
    for server in SERVERS
]

NAMES = {
    "ts": ("typescript-sdk", "1.0.0"),
    "py1": ("python-sdk", PYTHON_PINS["py1"].partition("==")[2]),
    "py2": ("python-sdk", PYTHON_PINS["py2"].partition("==")[2]),
}


@pytest.mark.parametrize(("client", "server"), MATRIX)
def test_the_record_agrees_with_the_client(
    client: str, server: str, sdk: Callable[[str], None], server_url: Callable[[str], str], tmp_path: Path
) -> None:
    sdk(client)
    file = tmp_path / "tap.db"
    calls = CALLS["everything" if server == "everything" else "calculator"]
    with tap(server_url(server), file) as url:
        said = run_client(client, url, calls)
    assert [call["outcome"] for call in said["calls"]] == ["ok", "tool_error", "ok"]

    modern = (client, server) == ("py2-auto", "py2")
    (session,) = rows(file, "select * from sessions")
    assert session["origin"] == ("derived" if modern else "header")
    assert session["era"] == ("modern" if modern else "legacy")
    assert session["protocol_version"] == said["revision"]
    assert (session["client_name"], session["client_version"]) == NAMES[client.partition("-")[0]]
    assert session["server_name"] == said["server"]
    assert session["dropped"] == session["truncated"] == session["open_calls"] == 0
    assert session["status"] == "ended"
    assert session["end_reason"] == ("shutdown" if modern else "client_delete")

    events = rows(file, "select * from events order by seq")
    assert {event["session_id"] for event in events} == {session["session_id"]}
    called = [event for event in events if event["type"] == "tools/call"]
    assert [event["name"] for event in called] == [name for name, _ in calls]
    assert [event["status"] for event in called] == ["succeeded", "failed", "succeeded"]
    assert [event["failure_reason"] for event in called] == [None, "tool_error", None]
    assert all(event["latency_ms"] > 0 and event["response_bytes"] > 0 for event in called)
    progress = [event for event in events if event["type"] == "notifications/progress"]
    assert len(progress) == len(said["calls"][-1]["progress"]) == 3
    assert {event["direction"] for event in progress} == {"server_to_client"}
    assert {event["parent_id"] for event in progress} == {called[-1]["message_id"]}
    if client == "py2-auto" and not modern:
        # A client of both eras asks a legacy server for `server/discover` first; the refusal is no failed session.
        assert (events[0]["type"], events[0]["outcome"]) == ("server/discover", "probe")
