"""Modern clients of the official SDK, which have no sessions: how their runs are told apart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import CALLS, PATIENCE, client_command, rows, run_client, tap

pytestmark = [pytest.mark.sdk, pytest.mark.matrix]

CALL = CALLS["calculator"][:1]


def test_twenty_runs_in_a_row_are_twenty_sessions(
    sdk: Callable[[str], None], server_url: Callable[[str], str], tmp_path: Path
) -> None:
    sdk("py2-auto")
    file = tmp_path / "tap.db"
    with tap(server_url("py2"), file) as url:
        for _ in range(20):
            run_client("py2-auto", url, CALL)
    sessions = rows(file, "select origin, origin_note, calls from sessions")
    assert len(sessions) == 20
    assert {(session["origin"], session["origin_note"]) for session in sessions} == {("derived", None)}
    assert len({session["calls"] for session in sessions}) == 1


def test_three_at_once_are_never_mixed_without_a_mark(
    sdk: Callable[[str], None], server_url: Callable[[str], str], tmp_path: Path
) -> None:
    sdk("py2-auto")
    file = tmp_path / "tap.db"
    with tap(server_url("py2"), file) as url:
        command, environment = client_command("py2-auto", url, CALL * 5)
        clients = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
        ]
        said = [json.loads(client.communicate(timeout=PATIENCE)[0]) for client in clients]
    assert [[call["outcome"] for call in one["calls"]] for one in said] == [["ok"] * 5] * 3
    sessions = rows(file, "select tools, calls, origin_note from sessions")
    made = rows(file, "select connection_id, count(*) as n from events where type = 'tools/call' group by 1")
    assert sum(row["n"] for row in made) == 15
    assert all(row["n"] == 5 for row in made) or all(
        (session["origin_note"] or "").startswith("shared") for session in sessions if session["calls"] > 6 + 1
    )


def test_a_client_that_pauses_past_keep_alive_is_one_session(
    sdk: Callable[[str], None], server_url: Callable[[str], str], tmp_path: Path
) -> None:
    sdk("py2-auto")
    file = tmp_path / "tap.db"
    with tap(server_url("py2"), file) as url:
        run_client("py2-auto", url, [CALL[0], ("sleep", {"seconds": 6}), CALL[0]])  # uvicorn closes after 5 s
    (session,) = rows(file, "select origin_note from sessions")
    assert session["origin_note"] is None
    streams = rows(file, "select distinct stream from timeline where type = 'tools/call'")
    assert len(streams) == 2
