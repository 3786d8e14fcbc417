"""The transport of 2024-11-05 with official clients and servers: answers come on the GET stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import need
from .harness import CALLS, everything_server, python_server, rows, run_client, tap

pytestmark = pytest.mark.sdk

#: Run by `make test`.
QUICK = {("ts", "everything")}

MATRIX = [
    pytest.param(client, server, marks=[] if (client, server) in QUICK else [pytest.mark.matrix])
    for client in ("py1", "py2-legacy", "ts")
    for server in ("py1", "py2", "everything")
]


@pytest.mark.parametrize(("client", "server"), MATRIX)
def test_the_record_of_the_old_transport(client: str, server: str, sdk: Callable[[str], None], tmp_path: Path) -> None:
    sdk(client)
    need("node" if server == "everything" else server)
    file = tmp_path / "tap.db"
    calls = CALLS["everything" if server == "everything" else "calculator"]
    serving = everything_server("/sse") if server == "everything" else python_server(server, "/sse")
    with serving as upstream, tap(upstream, file) as url:
        said = run_client(client, url, calls)
    assert [call["outcome"] for call in said["calls"]] == ["ok", "tool_error", "ok"]

    (session,) = rows(file, "select * from sessions")
    assert (session["origin"], session["transport"], session["era"]) == ("endpoint", "sse", "legacy")
    assert session["server_name"] == said["server"]
    assert (session["end_reason"], session["open_calls"], session["dropped"]) == ("stream_closed", 0, 0)
    called = rows(file, "select * from events where type = 'tools/call' order by seq")
    assert [event["status"] for event in called] == ["succeeded", "failed", "succeeded"]
    assert all(event["latency_ms"] > 0 and event["response_bytes"] > 0 for event in called)
    progress = rows(file, "select * from events where type = 'notifications/progress'")
    assert len(progress) == 3
    assert {event["parent_id"] for event in progress} == {called[-1]["message_id"]}
    assert rows(file, "select * from events where status = 'waiting_for_response'") == []
