"""The verbs on a real recording, run as people and pipes run them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest

from mcp_tap import __version__, cli
from mcp_tap.model import Batch, Body, Codec, FailureReason, Side, Status
from mcp_tap.store import open_writer

from .store.plausible import morning, scene

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"

EVIL = "\x1b[2J\u202e[bold]\tpay"


async def write(url: str, *batches: Batch) -> None:
    writer = await open_writer(url)
    try:
        for batch in batches:
            await writer.write(batch)
    finally:
        await writer.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plausible morning, and one call whose every word is meant to disturb a terminal."""
    url = f"sqlite:///{tmp_path_factory.mktemp('recording')}/tap.db"
    evil = scene(5, "12:00:00.000", EVIL, "1")
    event = evil.call(
        "tools/call", "12:00:01.000", 5.0, EVIL, failure_reason=FailureReason.TOOL_ERROR, message=EVIL, path=EVIL
    )
    evil.batch.bodies.append(Body(event, Side.REQUEST, Codec.MASKED, json.dumps({"to": EVIL, "big": 2**70}), masked=2))
    evil.batch.bodies.append(Body(event, Side.RESPONSE, Codec.CUT, f'{{"text": "{EVIL}\nsecond line'))
    event.headers_us, event.first_event_us, event.sse_events = 1000, 2000, [2000, 4500]
    asyncio.run(write(url, *morning(), evil.batch))
    return url


@pytest.fixture(autouse=True)
def nothing_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep configuration files and variables of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("MCP_TAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def table(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def json(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


def mcp_tap(capsys: pytest.CaptureFixture[str], *args: str) -> Ran:
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    assert "\x1b" not in captured.out + captured.err
    assert "\u202e" not in captured.out + captured.err
    return Ran(ended.value.code, captured.out, captured.err)


def on_a_terminal(*args: str, **env: str) -> str:
    """Run a command on a pseudo-terminal and return what appears there."""
    controller, follower = pty.openpty()
    environment = {"COLUMNS": "100", "TERM": "xterm", "PATH": os.environ["PATH"], "TZ": "UTC", **env}
    command = [sys.executable, "-m", "mcp_tap.cli", *args]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        received = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(controller, 65536):
                received += piece
        os.close(controller)
        assert process.wait() == 0
    return received.decode().replace("\r\n", "\n")


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
        with tailing("--store", url, *(["--json"] if form == "json" else [])) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(1 if form == "json" else 2)]
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


# --------------------------------------------------------------------------------------------------------- set up


def test_every_setting_and_its_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("MCP_TAP_TOKEN", "very-secret")
    monkeypatch.setenv("MCP_TAP_ADMIN_LISTEN", "127.0.0.1:7001")
    (tmp_path / "mcp-tap.toml").write_text('[record]\nmax_body = "1kB"\n')
    ran = mcp_tap(capsys, "config", "http://localhost:9000/mcp", "--listen", "127.0.0.1:7000")
    lines = dict(line.split(" = ", 1) for line in ran.out.splitlines())
    assert lines["proxy.upstream"].startswith('"http://localhost:9000/mcp"   (')
    assert lines["proxy.listen"].startswith('"127.0.0.1:7000"   (')
    assert "MCP_TAP_ADMIN_LISTEN" in lines["admin.listen"]
    assert "mcp-tap.toml" in lines["record.max_body"]
    assert lines["proxy.drain"].endswith("(default)")
    assert lines["admin.token"].startswith('"…"')
    assert "very-secret" not in ran.out
    assert lines["proxy.tls_ca"].startswith('""')


def test_the_example_is_a_right_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = mcp_tap(capsys, "config", "--example").out
    (tmp_path / "example.toml").write_text(example)
    ran = mcp_tap(capsys, "config", "--check", "-c", "example.toml")
    assert (ran.status, ran.out) == (0, "the settings are right\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert mcp_tap(capsys, "version").out == mcp_tap(capsys, "--version").out == f"mcp-tap {__version__}\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert mcp_tap(capsys).out == mcp_tap(capsys, "help").out == mcp_tap(capsys, "--help").out
    assert mcp_tap(capsys, "help", "tail").out == mcp_tap(capsys, "tail", "--help").out
    assert mcp_tap(capsys, "help", "nothing").status == 2


def test_starting_loads_nothing_that_only_another_verb_needs() -> None:
    code = "import sys, mcp_tap.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"rich", "httpx", "sqlite3", "orjson", "asyncio", "tomllib"} & set(done.stdout.split())


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("args", "status", "first", "second"),
    [
        (["sessions", "--limt", "3"], 2, "error: no such option '--limt'", "  did you mean"),
        (["sesions"], 2, "error: no such command 'sesions'", "  did you mean"),
        (["sessions", "--limit", "0"], 2, "error: invalid value for '--limit': 0 is", "  try:  mcp-tap help sessions"),
        (["show"], 2, "error: missing argument 'ID'", "  try:  mcp-tap help show"),
        (["doctor", "http://127.0.0.1:1/mcp", "--listen", "nonsense"], 2, "error: ", "  "),
        (["doctor", "http://unix:/s:/mcp"], 2, "error: doctor does not reach unix sockets", "  try:  mcp-tap verify"),
        (["sessions", "--store", "mongodb://x"], 2, "error: ", "  "),
        (["run"], 2, "error: ", "  "),
    ],
)  # fmt: skip
def test_errors_say_what_and_what_now(
    capsys: pytest.CaptureFixture[str], args: list[str], status: int, first: str, second: str
) -> None:
    ran = mcp_tap(capsys, *args)
    lines = ran.err.splitlines()
    assert (ran.status, ran.out) == (status, "")
    assert lines[0].startswith(first)
    assert lines[1].startswith(second)
    assert "Traceback" not in ran.err


def test_a_recording_that_is_not_there() -> None:
    command = [sys.executable, "-m", "mcp_tap.cli", "sessions", "--store", "sqlite:////nowhere/tap.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "error: there is no recording at /nowhere/tap.db\n  " in done.stderr


def test_debug_shows_where_an_error_comes_from(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = mcp_tap(capsys, "session", "nothing", "--store", recording, "--debug")
    assert ran.status == 1
    assert ran.err.startswith("Traceback")
    assert '\nerror: no session "nothing"\n' in ran.err


def test_the_namesake_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    about = tmp_path / "mcp_tap-0.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mcp-tap\nVersion: 0.9\n")
    (about / "top_level.txt").write_text("something_else\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert mcp_tap(capsys, "version").status == 0
    (about / "top_level.txt").write_text("mcp_tap\n")
    assert "mcp-tap" in metadata.packages_distributions()["mcp_tap"]
    ran = mcp_tap(capsys, "version")
    assert ran.status == 2
    assert "pip uninstall mcp-tap" in ran.err


@pytest.mark.parametrize(
    ("args", "verb"),
    [
        (["http://localhost:9000/mcp"], "run"),
        (["HTTPS://example.com"], "run"),
        (["localhost:9000/mcp"], "run"),
        (["--listen", "127.0.0.1:1", "http://localhost:9000/mcp"], "run"),
        (["doctor", "http://localhost:9000/mcp"], "doctor"),
        (["sessions"], "sessions"),
    ],
)
def test_an_argument_that_looks_like_a_url_means_run(args: list[str], verb: str) -> None:
    with cli.verbs.make_context("mcp-tap", list(args)) as ctx:
        assert cli.verbs.resolve_command(ctx, [*ctx._protected_args, *ctx.args])[0] == verb


# ------------------------------------------------------------------------------------------------------- document


def sections() -> dict[str, str]:
    """Return the part of the document about each verb, by the verb."""
    parts = re.split(r"^### `mcp-tap ([a-z]+)[^`]*`$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_document_has_every_verb() -> None:
    assert list(sections()) == list(cli.verbs.commands)


@pytest.mark.parametrize("verb", cli.verbs.commands)
def test_the_document_has_every_flag_and_no_other(verb: str) -> None:
    flags = {
        flag
        for option in cli.verbs.commands[verb].params
        if isinstance(option, click.Option)
        for flag in option.opts
    }  # fmt: skip
    rows = re.findall(r"^\| (`.*?`) \| ", sections()[verb], flags=re.MULTILINE)
    assert {flag for row in rows for flag in re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", row)} == flags - {"--debug"}


def test_the_document_has_every_exit_status() -> None:
    told = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert told == ["0", "1", "2", "3", "4", "130"]
    assert cli.__doc__ is not None
    assert re.findall(r"^    (\d+) ", cli.__doc__, flags=re.MULTILINE) == told[:-1]
