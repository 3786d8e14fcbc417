"""The verbs that keep: export, check, prune."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mcp_tap.model import Batch
from tests.cli.ran import EVIL, mcp_tap, on_a_terminal
from tests.store.recording import connection, event, record, select

DAY = ("from:2026-03-14T00:00Z", "to:2026-03-15T00:00Z")


def exported(*args: str) -> bytes:
    """Return what the command writes to a pipe, byte by byte."""
    command = [sys.executable, "-m", "mcp_tap.cli", "export", *args]
    return subprocess.run(command, capture_output=True, check=True).stdout


def objects(*args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(*args).splitlines()]


# --------------------------------------------------------------------------------------------------------- export


def test_every_event_as_json_lines(recording: str) -> None:
    rows = objects("--store", recording)
    (count,) = select(Path(recording.removeprefix("sqlite:///")), "SELECT count(*) FROM timeline")[0]
    assert len(rows) == count
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert len({row["event_id"] for row in rows}) == count
    evil = rows[-1]
    assert (evil["name"], evil["error_message"]) == (EVIL, EVIL)  # the value is what it was
    assert {len(row["mcp_session_id"]) for row in rows if row["mcp_session_id"]} == {8}
    assert {row["client_name"] for row in rows} >= {"cursor", None}


def test_one_session(recording: str) -> None:
    by_number = objects("2", "--store", recording)
    assert {row["client_name"] for row in by_number} == {"claude-desktop"}
    for ref in (by_number[0]["connection_id"], by_number[0]["session_id"]):
        assert objects(ref, "--store", recording) == by_number
    whole = objects("2", "--reveal-session-id", "--store", recording)
    assert whole[0]["mcp_session_id"].startswith(by_number[0]["mcp_session_id"] + "-")


def test_bodies(recording: str) -> None:
    rows = objects("tool:create_payment", "--bodies", "--store", recording)
    assert [bool(row["response_body"]) for row in rows] == [False, True, False]
    assert json.loads(rows[0]["request_body"]["data"])["params"]["arguments"] == {"order": "A-17"}
    assert set(rows[0]["request_body"]) == {"codec", "data", "masked"}
    lifecycle = objects("method:session_start", "client:claude", "--bodies", "--store", recording)
    assert [row["request_body"] for row in lifecycle] == [None]


def test_csv(recording: str) -> None:
    written = exported("-f", "csv", "--bodies", "--store", recording).decode()
    assert written.count("\r\n") == len(objects("--store", recording)) + 1
    rows = list(csv.DictReader(io.StringIO(written, newline="")))
    assert list(rows[0])[:3] == ["time", "seq", "type"]
    assert list(rows[0])[-3:] == ["mcp_session_id", "request_body", "response_body"]
    assert rows[-1]["name"] == r"\x1b[2J\u202e[bold]\tpay"
    assert not set(written) & {"\x1b", "\u202e"}
    codes = [row["error_code"] for row in rows if row["error_code"]]
    assert codes == ["504", "-32000"]  # a number is no formula
    assert exported("tool:nothing", "-f", "csv", "--store", recording).count(b"\r\n") == 1


def test_a_file_of_its_owner_alone(recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "session.csv"
    ran = mcp_tap(capsys, "export", "2", "-o", str(file), "--store", recording)
    assert (ran.status, ran.out) == (0, "")
    assert "written to" in ran.err
    assert file.read_bytes() == exported("2", "-f", "csv", "--store", recording)
    assert file.stat().st_mode & 0o777 == 0o600
    ran = mcp_tap(capsys, "export", "-o", str(tmp_path / "no" / "file"), "--store", recording)
    assert (ran.status, "cannot be written" in ran.err) == (2, True)
    assert mcp_tap(capsys, "export", "scn_nothing", "--store", recording).status == 1


# ---------------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    ("args", "status", "broken"),
    [
        (["--max-errors", "4"], 0, set()),
        (["--max-errors", "3"], 1, {"max_errors"}),
        (["--max-error-rate", "50%"], 0, set()),
        (["--max-error-rate", "1%", "--p95", "1m"], 1, {"max_error_rate"}),
        (["--p95", "1ms", "--p99", "1ms", "--max-latency", "2s"], 1, {"p95", "p99", "max_latency"}),
        (["--max-latency", "2340ms"], 0, set()),
        (["--max-dropped", "0"], 1, {"max_dropped"}),
        (["--max-dropped", "0", "client:claude"], 0, set()),
        (["--min-calls", "10000"], 1, {"min_calls"}),
        (["--max-errors", "0", "tool:nothing"], 1, {"min_calls"}),  # a check that checked nothing
        (["--max-errors", "0", "tool:nothing", "--min-calls", "0"], 0, set()),
        (["--p95", "1s", "tool:nothing", "--min-calls", "0"], 0, set()),
        (["--max-errors", "0", "status:ok", "tool:search_products"], 0, set()),
    ],
)
def test_budgets(
    recording: str, capsys: pytest.CaptureFixture[str], args: list[str], status: int, broken: set[str]
) -> None:
    ran = mcp_tap(capsys, "check", "--json", *args, "--store", recording)
    assert ran.status == status
    assert {row["budget"] for row in ran.json if row["verdict"] == "broken"} == broken


def test_budgets_for_people(recording: str) -> None:
    shown = on_a_terminal(
        "check", *DAY, "--max-errors", "0", "--p95", "1h", "--store", recording, NO_COLOR="1", status=1
    )
    assert "max errors  at most 0          4       broken" in shown
    assert "p95         at most 1 h 0 min" in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "error: a check needs a budget\n  try:  mcp-tap check"),
        (["--max-errors", "some"], 'error: --max-errors: "some" is no whole number'),
        (["--max-error-rate", "5"], 'error: --max-error-rate: "5" is no share\n  try:  5%'),
        (["--max-error-rate", "101%"], "is no share"),
        (["--p95", "500"], 'error: --p95: "500" has no unit'),
    ],
)
def test_budgets_that_are_none(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "check", *args, "--store", "sqlite:////nowhere/tap.db")
    assert ran.status == 2
    assert said in ran.err


# ---------------------------------------------------------------------------------------------------------- prune


@pytest.fixture
def hours(tmp_path: Path) -> str:
    """A recording of one line an hour, the newest now."""
    one = connection()
    now_us = time.time_ns() // 1000
    record(tmp_path / "hours.db", Batch([one], [event(one, at_us=now_us - n * 3_600_000_000) for n in range(48)]))
    return f"sqlite:///{tmp_path}/hours.db"


def test_what_is_old_goes(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    def left() -> int:
        return int(select(Path(hours.removeprefix("sqlite:///")), "SELECT count(*) FROM timeline")[0][0])

    told = mcp_tap(capsys, "prune", "--older-than", "1d", "--dry-run", "--store", hours).out
    assert re.fullmatch(r"24 lines would go, the last of [-\d]+ [\d:]+; the recording takes \d+ kB\n", told)
    assert left() == 48
    told = mcp_tap(capsys, "prune", "--older-than", "1d", "--store", hours).out
    assert re.fullmatch(r"24 lines went; the recording took \d+ kB and takes \d+ kB\n", told)
    assert left() == 24
    assert mcp_tap(capsys, "prune", "--older-than", "1d", "--store", hours).out.startswith("0 lines went")
    told = mcp_tap(capsys, "prune", "--to-size", "1kB", "--dry-run", "--store", hours).out
    assert told.startswith("about 2")
    assert mcp_tap(capsys, "prune", "--to-size", "1kB", "--store", hours).out.startswith("24 lines went")
    assert left() == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "error: how much is to go?\n  try:  mcp-tap prune --older-than 7d"),
        (["--older-than", "7"], 'error: --older-than: "7" has no unit'),
        (["--to-size", "all"], 'error: --to-size: "all" is not a size'),
    ],
)
def test_pruning_that_is_none(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "prune", *args, "--store", "sqlite:////nowhere/tap.db")
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
