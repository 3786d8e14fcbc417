"""The verbs that look at a recording, on a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_tap.model import Batch, Status
from mcp_tap.store import open_writer
from tests.cli.ran import EVIL, mcp_tap, on_a_terminal
from tests.store.plausible import scene

# ----------------------------------------------------------------------------------------------------------- look


def test_sessions_in_a_pipe(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = mcp_tap(capsys, "sessions", "--store", recording).table
    assert header[:3] == ["session_id", "client_name", "client_version"]
    assert [row[1] for row in rows][1:] == ["night-agent", "Visual Studio Code", "claude-desktop", "cursor"]
    assert rows[0][1] == "\\x1b[2J\\u202e[bold]\\tpay"
    assert {len(row) for row in rows} == {len(header)}


def test_sessions_as_json(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mcp_tap(capsys, "sessions", "--json", "--limit", "2", "--store", recording).json
    assert [row["client_name"] for row in rows] == [EVIL, "night-agent"]


def test_since(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    since = "2026-03-14T11:00:00Z"
    rows = mcp_tap(capsys, "sessions", "--json", "--since", since, "--store", recording).json
    assert [row["client_name"] for row in rows] == [EVIL, "night-agent"]
    assert mcp_tap(capsys, "sessions", "--since", "1h", "--store", recording).out == ""
    wrong = mcp_tap(capsys, "sessions", "--since", "yesterday", "--store", recording)
    assert wrong.status == 2
    assert "write 30m, 1h, 7d" in wrong.err


def test_one_session(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    session, *events = mcp_tap(capsys, "session", "2", "--json", "--store", recording).json
    assert session["client_name"] == "claude-desktop"
    assert [event["type"] for event in events][:3] == ["session_start", "initialize", "tools/list"]
    header, *rows = mcp_tap(capsys, "session", "2f3a", "--store", recording).table
    assert header[0] == "time"
    assert len(rows) == len(events)
    short = mcp_tap(capsys, "session", "2", "--limit", "3", "--store", recording)
    assert len(short.table) == 4
    assert short.err == "only the first 3 events; --limit shows more\n"


def test_a_session_that_is_not_there(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "session", "scn_nothing", "--store", recording)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith('error: no session "scn_nothing"\n  ')
    assert mcp_tap(capsys, "session", "scn_0000", "--store", recording).status == 2  # fits several


def test_one_message(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    [event] = mcp_tap(
        capsys, "sql", f"select pk, event_id from events where type = 'tools/call' and latency_ms = {5.0}", "--json",
        "--store", recording,
    ).json  # fmt: skip
    text = mcp_tap(capsys, "show", str(event["pk"]), "--store", recording).out
    assert "took       5 ms; headers after 1 ms, first byte after 4.5 ms, first event after 2 ms" in text
    assert "status     failed: \\x1b[2J\\u202e[bold]\\tpay" in text
    assert "2 SSE events after 2 ms, 4.5 ms" in text
    assert "request body, 2 values masked" in text
    assert '  "big": 1180591620717411303424' in text
    assert "response body, cut: the first" in text
    assert "\nsecond line" in text
    assert mcp_tap(capsys, "show", str(event["event_id"]), "--store", recording).out == text
    [row] = mcp_tap(capsys, "show", str(event["pk"]), "--json", "--store", recording).json
    assert row["request_body"]["data"] == json.dumps({"to": EVIL, "big": 2**70})  # type: ignore[index]
    assert mcp_tap(capsys, "show", "999999", "--store", recording).status == 1


def test_sql(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "sql", "select type, count(*) as n from events group by 1 order by 2 desc", "--limit", "2",
                  "--store", recording)  # fmt: skip
    assert ran.table[0] == ["type", "n"]
    assert len(ran.table) == 3
    assert ran.err == "only the first 2 rows; --limit shows more\n"
    assert mcp_tap(capsys, "sql", "select 1 as a, null as b", "--json", "--store", recording).json == [
        {"a": 1, "b": None}
    ]
    assert mcp_tap(capsys, "sql", "delete from timeline", "--store", recording).status == 2
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    ran = mcp_tap(capsys, "sql", endless, "--seconds", "0.1", "--store", recording)
    assert (ran.status, "0.1 s" in ran.err) == (4, True)


def test_sql_without_a_statement_says_what_can_be_asked(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "sql", "--store", recording)
    assert recording in ran.err
    assert [row[1] for row in ran.table[1:3]] == ["events", "sessions"]
    assert "latency_ms" in ran.table[1][2]
    rows = mcp_tap(capsys, "sql", "--json", "--store", recording).json
    assert {"type": "table", "name": "body", "columns": "timeline, side, codec, data, masked"} in rows


def test_tables_for_people(recording: str) -> None:
    shown = on_a_terminal("sessions", "--store", recording, NO_COLOR="1", COLUMNS="160")
    assert re.search(r"#  client +started +duration  calls  errors  status +revision +tools", shown)
    assert "\u202e" not in shown
    assert "[bold]" in shown
    assert re.search(r"\b2\s+claude-", shown)
    assert "pragma" not in on_a_terminal("sql", "--store", recording, NO_COLOR="1")
    asked = on_a_terminal("sql", "select name, status from events where name is not null", "--store", recording)
    assert "search_products" in asked


def test_a_session_for_people(recording: str) -> None:
    shown = on_a_terminal("session", "2", "--store", recording, NO_COLOR="1")
    assert "claude-desktop 1.2.3 → shop 2.1.0" in shown
    assert "mcp id     2f3a9c52…" in shown
    assert "2f3a9c52-7d41" not in shown
    assert re.search(r"10:08:48\.300 +\d+ → tools/call create_payment +2\.34 s  ERROR +600 B  HTTP 504 ups", shown)
    assert "○ ended 47 s, 6 calls, 2 errors, idle" in shown


def test_colour_only_where_it_is_wanted(recording: str) -> None:
    assert "\x1b[31m" in on_a_terminal("session", "2", "--store", recording)
    assert "\x1b" not in on_a_terminal("session", "2", "--store", recording, TERM="dumb")
    coloured = on_a_terminal("show", "11", "--store", recording)
    assert re.search(r'\x1b\[[\d;]+m"name"\x1b\[0m: \x1b\[[\d;]+m"create_payment"', coloured)
    plain = on_a_terminal("show", "11", "--store", recording, NO_COLOR="1")
    assert '\n    "name": "create_payment",' in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


# ----------------------------------------------------------------------------------------------------------- tail


def test_the_last_events(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "tail", "--once", "--limit", "3", "--store", recording)
    assert len(ran.table) == 4
    rows = mcp_tap(capsys, "tail", "--once", "--limit", "3", "--json", "--store", recording).json
    assert [row["type"] for row in rows] == ["http", "session_start", "tools/call"]


def test_the_last_events_for_people(recording: str) -> None:
    shown = on_a_terminal("tail", "--once", "--limit", "12", "--store", recording, NO_COLOR="1")
    assert "○ ended 3.06 s, 3 calls, 0 errors, tap stopped, 3 dropped" in shown
    assert "● session night-agent 7 → shop 2.1.0  2026-07-28" in shown
    assert "export_orders" not in shown  # it waits for its answer


@contextlib.contextmanager
def tailing(*args: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mcp_tap.cli", "tail", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("form", ["json", "tsv"])
def test_events_are_followed_until_interrupted(tmp_path: Path, form: str) -> None:
    """What is written while `tail` runs appears; a request once it is answered, as JSON also before that."""
    url = f"sqlite:///{tmp_path}/tap.db"
    first, second = scene(1, "10:00:00.000", "cursor", "1"), scene(2, "10:00:01.000", "claude", "2")

    async def follow() -> list[str]:
        writer = await open_writer(url)
        await writer.write(first.batch)
        with tailing("-method:ping", "--store", url, *(["--json"] if form == "json" else [])) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(1 if form == "json" else 2)]
            second.call("ping", "10:00:01.500", 1.0)  # not asked for
            call = second.call("tools/call", "10:00:02.000", None, "slow")
            await writer.write(second.batch)
            lines += [process.stdout.readline() for _ in range(2 if form == "json" else 1)]
            call.status, call.duration_us = Status.SUCCEEDED, 1000
            await writer.write(Batch(events=[call]))
            lines.append(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
            assert (process.returncode, out, err) == (0, "", "\n")
        await writer.close()
        return lines

    lines = asyncio.run(follow())
    if form == "json":
        told = [(row["type"], row["status"]) for row in map(json.loads, lines)]
        assert told == [
            ("session_start", None),
            ("session_start", None),
            ("tools/call", "waiting_for_response"),
            ("tools/call", "succeeded"),
        ]
    else:
        assert [line.split("\t")[2] for line in lines] == ["type", "session_start", "session_start", "tools/call"]
        assert "succeeded" in lines[-1]


def test_a_reader_that_leaves_is_no_error(recording: str) -> None:
    command = [sys.executable, "-m", "mcp_tap.cli", "sql", "select * from events, events as b", "--store", recording]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


# --------------------------------------------------------------------------------------------------------- filters


def test_words_say_which_sessions(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    def clients(*words: str) -> list[object]:
        return [row["client_name"] for row in mcp_tap(capsys, "sessions", "--json", "--store", recording, *words).json]

    assert clients("status:active") == [EVIL, "Visual Studio Code"]
    assert clients("errors:>0", "-client:claude", "to:2026-03-14T11:00Z") == ["cursor"]
    assert clients("client:studio,cursor") == ["Visual Studio Code", "cursor"]
    assert clients("text:unknown category") == ["cursor"]  # one argument of the shell, so one word
    assert clients("client:claude status:ended") == ["claude-desktop"]  # copied from a page: two
    assert clients("--", "-claude-desktop", "-pay", "era:modern") == ["night-agent"]


def test_words_say_which_events_are_followed(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mcp_tap(capsys, "tail", "--once", "--json", "status:failed", "-client:cursor", "--store", recording).json
    assert [row["error_message"] for row in rows] == ["upstream timeout", "card processor busy", EVIL]
    rows = mcp_tap(capsys, "tail", "--once", "--json", "--since", "2026-03-14T12:00Z", "--store", recording).json
    assert [row["type"] for row in rows] == ["session_start", "tools/call"]


@pytest.mark.parametrize("verb", ["sessions", "tail", "tools", "clients", "errors", "slow", "connections", "stats",
                                  "export"])  # fmt: skip
def test_a_wrong_word_is_named_with_the_nearest_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, verb, "-staus:failed", "--store", "sqlite:////nowhere/tap.db")
    assert (ran.status, ran.out) == (2, "")
    assert '"-staus:failed" has no key' in ran.err
    assert "did you mean status:?" in ran.err


def test_a_list_that_was_cut_says_so(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mcp_tap(capsys, "sessions", "--limit", "2", "--store", recording).err == (
        "2 of 5 sessions; --limit shows more\n"
    )
    assert mcp_tap(capsys, "sessions", "--limit", "5", "--store", recording).err == ""


def test_the_beginning_of_a_session_id_is_enough_to_find_it_in_a_log(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = "2f3a9c52-7d41"
    for verb in (["sessions"], ["connections"], ["session", "2"], ["slow"], ["tail", "--once", "--limit", "100"]):
        for form in ([], ["--json"]):
            ran = mcp_tap(capsys, *verb, *form, "--store", recording)
            assert "2f3a9c52" in ran.out
            assert whole not in ran.out


# --------------------------------------------------------------------------------------------------------- figures


def test_tools(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in mcp_tap(capsys, "tools", "--json", "--store", recording).json}
    paid = rows["create_payment"]
    assert (paid["calls"], paid["errors"], paid["p50_ms"], paid["versions"]) == (3, 2, 890, 1)
    header, first, *_ = mcp_tap(capsys, "tools", "tool:create_payment", "--store", recording).table
    assert (header[0], first[0]) == ("name", "create_payment")
    shown = on_a_terminal("tools", "--store", recording, NO_COLOR="1", COLUMNS="160")
    assert re.search(r"create_payment +\w+ +3 +2, 67 % +890 ms +2\.34 s +2\.34 s +03-14 10:09 +v1", shown)
    assert "4 tools, 4 used, 0 unused" in shown


def test_clients(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in mcp_tap(capsys, "clients", "--json", "--store", recording).json}
    assert (rows["claude-desktop"]["calls"], rows["claude-desktop"]["errors"]) == (6, 2)
    shown = on_a_terminal("clients", "client:claude", "--store", recording, NO_COLOR="1", COLUMNS="160")
    assert re.search(r"claude-desktop@1\.2\.3 +1 +6 +2, 33 % +[^ ]+ s +2 +03-14 10:08 +03-14 10:09 +2025-11-25", shown)


def test_errors_in_groups(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mcp_tap(capsys, "errors", "--json", "tool:create_payment", "--store", recording).json
    assert sorted(str(row["error_message"]) for row in rows) == ["card processor busy", "upstream timeout"]
    [newest] = mcp_tap(capsys, "show", "--json", str(rows[0]["message_id"]), "--store", recording).json
    assert newest["name"] == "create_payment"
    shown = on_a_terminal("errors", "--store", recording, NO_COLOR="1", COLUMNS="160")
    assert re.search(r"\d+ +1 +25 % +1 +1 +03-14 10:08 +tools/call create_payment +HTTP 504 upstream timeout", shown)


def test_slow_calls(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mcp_tap(capsys, "slow", "--json", "--over", "500ms", "--store", recording).json
    assert [(row["name"] or row["type"], row["latency_ms"]) for row in rows] == [
        ("create_payment", 2340), ("tools/list", 1840), ("create_payment", 890),
    ]  # fmt: skip
    rows = mcp_tap(capsys, "slow", "--json", "--limit", "1", "status:ok", "--store", recording).json
    assert [row["latency_ms"] for row in rows] == [1840]
    wrong = mcp_tap(capsys, "slow", "--over", "soon", "--store", recording)
    assert (wrong.status, wrong.err.splitlines()[0]) == (2, 'error: in "latency:>soon": "soon" cannot be compared')
    shown = on_a_terminal("slow", "--store", recording, NO_COLOR="1", COLUMNS="160")
    assert re.search(r"2\.34 s +2\.11 s +740 B +tools/call create_payment +claude-desktop 1\.2\.3", shown)


def test_what_has_no_room_is_left_out(recording: str) -> None:
    narrow = on_a_terminal("connections", "--store", recording, NO_COLOR="1", COLUMNS="100")
    assert "transport" not in narrow
    assert re.search(r"3 +Visual Studio .* +connected .* 0 +127\.0\.0\.1$", narrow, flags=re.MULTILINE)


@pytest.mark.parametrize("verb", ["sessions", "tools", "clients", "errors", "slow", "connections"])
def test_no_line_is_longer_than_a_terminal_of_80_columns(recording: str, verb: str) -> None:
    shown = on_a_terminal(verb, "--store", recording, NO_COLOR="1", COLUMNS="80").splitlines()
    assert len(shown) > 2
    assert max(map(len, shown)) <= 80


def test_connections(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mcp_tap(capsys, "connections", "--json", "is:incomplete", "--store", recording).json
    assert [(row["client_name"], row["dropped"]) for row in rows] == [("night-agent", 3)]
    shown = on_a_terminal("connections", "--store", recording, NO_COLOR="1", COLUMNS="160")
    assert re.search(r"3 +Visual Studio Code 1\.99\.0 +connected .* 0 +127\.0\.0\.1 +header +streamable_http", shown)


def test_the_sum_of_it_all(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    day = ["from:2026-03-14T00:00Z", "to:2026-03-15T00:00Z"]
    told = mcp_tap(capsys, "stats", "--json", *day, "--store", recording).json[0]
    assert set(told) == {"totals", "series", "tools"}
    series, totals = told["series"], told["totals"]
    assert sum(row["calls"] for row in series) == totals["calls"] > 0  # type: ignore[attr-defined,index]
    header, first, *tools = mcp_tap(capsys, "stats", *day, "--store", recording).table
    assert header == ["what", "calls", "errors", "p50_ms", "p95_ms", "p99_ms"]
    assert first[:3] == ["all", str(totals["calls"]), "4"]  # type: ignore[index]
    assert ["tool:create_payment", "3", "2"] in [row[:3] for row in tools]
    shown = on_a_terminal("stats", *day, "--store", recording, NO_COLOR="1")
    assert re.search(r"errors +4 \(\d+ %\)", shown)
    assert re.search(r"calls +[ ▁-█]+ at most \d", shown)
    empty = on_a_terminal("stats", "tool:nothing", "--store", recording, NO_COLOR="1")
    assert "calls      0" in empty


@pytest.mark.parametrize(
    "verb", [["sessions"], ["tools"], ["clients"], ["errors"], ["slow"], ["connections"], ["stats"], ["tail", "--once"]]
)
def test_no_word_of_the_wire_is_obeyed(recording: str, verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Names, tools and error texts that hold escape sequences and marks which turn text around are shown as such."""
    shown = on_a_terminal(*verb, "--store", recording, "session:5f3a", NO_COLOR="1", COLUMNS="200")
    assert r"\x1b[2J\u202e" in shown
    assert not set(shown) & {"\x1b", "\u202e"}
    for form in ([], ["--json"]):
        mcp_tap(capsys, *verb, *form, "--store", recording)  # checks what is printed
