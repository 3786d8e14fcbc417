"""The command itself: settings, errors, help, and the document about it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest

from mcp_tap import __version__, cli
from mcp_tap.store.filters import KEYS
from tests.cli.ran import mcp_tap

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"

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


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert mcp_tap(capsys, "version").out == mcp_tap(capsys, "--version").out == f"mcp-tap {__version__}\n"
    monkeypatch.setattr("mcp_tap.cli.command.find_spec", lambda name: name)  # a wheel with a compiled core
    assert mcp_tap(capsys, "version").out == f"mcp-tap {__version__} (compiled)\n"


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


def test_the_document_has_every_key_of_the_filter_language() -> None:
    part = DOCUMENT.read_text().partition("\n## Filters\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+):` \| (.*) \| `(.*)` \|$", part, flags=re.MULTILINE)
    assert rows == [(name, key.help, key.example) for name, key in KEYS.items()]


def examples() -> list[str]:
    """Return each command that the document shows, without where its output goes."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line.partition(" > ")[0] for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("example", examples())
def test_the_examples_of_the_document_run(example: str, recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, verb, *words = shlex.split(example)
    assert name == "mcp-tap"
    once = ["--once"] if verb == "tail" else []
    words = ["2" if word == "12" else word for word in words]  # this recording has no twelve sessions
    ran = mcp_tap(capsys, verb, *once, "--store", recording, *words)
    assert ran.status in ({0, 1} if verb == "check" else {0}), ran.err


def test_the_document_has_every_exit_status() -> None:
    told = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert told == ["0", "1", "2", "3", "4", "130"]
    assert cli.__doc__ is not None
    assert re.findall(r"^    (\d+) ", cli.__doc__, flags=re.MULTILINE) == told[:-1]
