from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def demonstrate(file: Path, listen: str = "127.0.0.1:0") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcp_tap.cli", "demo", "--once", "--store", f"sqlite:///{file}"]
    options = ["--listen", listen, "--admin-listen", "127.0.0.1:0"]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)


def test_one_round_is_played_through_the_tap_and_recorded(tmp_path: Path) -> None:
    file = tmp_path / "tap.db"
    done = demonstrate(file)
    assert done.returncode == 0, done.stderr
    assert "3 sessions, 25 calls, 5 errors, 3 calls made again" in done.stdout.splitlines()
    with contextlib.closing(sqlite3.connect(file)) as db:
        sessions = db.execute("select client_name, origin, calls, end_reason from sessions order by started")
        assert sessions.fetchall() == [
            ("desk-assistant", "header", 11, "client_delete"),
            ("code-editor", "header", 6, "shutdown"),
            ("travel-agent", "derived", 8, "shutdown"),
        ]
        payments = "select status, error_code, attempt from events where name = 'create_payment' order by time"
        assert db.execute(payments).fetchall() == [
            ("failed", "-32000", 1),
            ("failed", "-32000", 2),
            ("succeeded", None, 3),
        ]
        ends = "select type, status, failure_reason from events where name = 'slow_report' order by time"
        assert db.execute(ends).fetchall() == [
            ("tools/call", "succeeded", None),
            ("tools/call", "failed", "cancelled"),
        ]
        (probe,) = db.execute("select count(*) from events where session_id is null and type = 'http'").fetchone()
        assert probe == 1  # the look for authorization, before any session
        bodies = " ".join(data for (data,) in db.execute("select data from body"))
        assert "create_payment" in bodies
        assert "tok_demo_4242" not in bodies
        assert "R-A-1001" in bodies
        assert "demo-refund-" not in bodies  # a secret inside JSON inside a string
        versions = "select count(distinct hash) from tool_definition where name = 'search_products'"
        assert db.execute(versions).fetchone() == (2,)
        told = "select count(*) from events where type = 'notifications/tools/list_changed'"
        assert db.execute(told).fetchone() == (1,)


def test_a_tap_that_cannot_start_gives_its_own_exit_status(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = demonstrate(tmp_path / "tap.db", listen=f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert "already in use" in done.stderr
