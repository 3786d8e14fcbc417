"""What the two processes show of a secret to whoever looks at them from outside."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import httpx
import pytest

from tests.tap import PATIENCE, Tap, running

TOKEN = "tk-desk-canary-0123456789"

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc; run it there")

NOWHERE = "http://127.0.0.1:9/mcp"


@needs_proc
def test_a_token_is_in_no_command_line_and_in_no_file(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "MCP_TAP_TOKEN": TOKEN, "TMPDIR": str(temporary)}
    with running(NOWHERE, tmp_path / "tap.db", "--debug", env=environment) as tap:
        processes = (tap.process.pid, tap.recorder)
        for pid in processes:
            assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            # other users read neither: what /proc has of a process is its owner's
            assert Path(f"/proc/{pid}/environ").stat().st_mode & 0o077 == 0
            assert Path(f"/proc/{pid}/fd").stat().st_mode & 0o077 == 0
        assert list(temporary.iterdir()) == []
        with httpx.Client(trust_env=False, timeout=PATIENCE) as http:
            assert http.get(tap.desk).status_code in (303, 401)
        assert tap.stop() == 0
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


def _most_of_a_core(tap: Tap) -> list[str]:
    limits = (Path(f"/proc/{pid}/limits").read_text().splitlines() for pid in (tap.process.pid, tap.recorder))
    return [line.split()[4] for lines in limits for line in lines if line.startswith("Max core file size")]


@needs_proc
def test_a_crash_leaves_no_image_of_the_traffic(tmp_path: Path) -> None:
    allowed, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most == 0:
        pytest.skip("no process here may leave one; run it where ulimit -Hc is not 0")
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    try:
        for options, kept in (((), "0"), (("--debug",), "unlimited" if most == resource.RLIM_INFINITY else str(most))):
            with running(NOWHERE, tmp_path / "tap.db", *options) as tap:
                assert _most_of_a_core(tap) == [kept, kept]
                assert tap.stop() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (allowed, most))
