"""`mcp-tap verify` in front of servers of the official SDKs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .harness import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.sdk

#: What each server is, and whether it answers the modern era.
SERVERS = {"py1": False, "py2": True, "everything": False}


@pytest.mark.parametrize(
    "server", [pytest.param(server, marks=[] if server == "everything" else [pytest.mark.matrix]) for server in SERVERS]
)
def test_the_tap_changes_nothing(server: str, server_url: Callable[[str], str]) -> None:
    command = [sys.executable, "-m", "mcp_tap.cli", "verify", server_url(server), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    *exchanges, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert summary["eras"]["legacy"] == "spoken"
    assert (summary["eras"]["modern"] == "spoken") is SERVERS[server]
    assert {"initialize", "tools/list", "ping", "GET stream", "DELETE session", "server/discover"} <= {
        line["exchange"] for line in exchanges
    }
