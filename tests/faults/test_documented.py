"""What docs/faults.md says is held by tests, and it says all that they hold."""

from __future__ import annotations

import re
from pathlib import Path

from mcp_tap import recorder
from mcp_tap.relay import __main__ as relay
from mcp_tap.relay import feed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)

#: Whose tests are about faults of processes and stores, each of which belongs on the page.
FILES = ("kills", "moved", "store", "restarts", "clock", "recorder")


def held_by(file: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE))


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 20
    assert [f"{file}::{test}" for file, test in NAMED if test not in held_by(ROOT / file)] == []


def test_every_row_names_its_tests() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what fails")]
    assert [row for row in rows if "::test_" not in row] == []


def test_every_fault_that_is_tested_is_on_the_page() -> None:
    for name in FILES:
        file = f"tests/faults/test_{name}.py"
        assert {f"{file}::{test}" for test in held_by(ROOT / file)} <= {f"{at}::{test}" for at, test in NAMED}


def test_the_bounds_are_those_of_the_code() -> None:
    for bound in (
        f"{recorder.MAX_ROWS:,} lines or {recorder.MAX_BYTES // 1_000_000} MB",
        f"{recorder.SLOW_ROWS:,} lines or {recorder.SLOW_BYTES // 1_000_000} MB",
        f"came within {recorder.FLUSH_EVERY} s",
        f"up to {recorder.RETRY_MOST:.0f} s after",
        f"up to {feed.STREAM_BOUND // 1_000_000} MB of a connection",
        f"`proxy.drain` and {relay.FLUSH:.0f} s",
    ):
        assert bound in PAGE
