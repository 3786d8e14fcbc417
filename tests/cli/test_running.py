"""The verbs that run something, as processes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.ran import mcp_tap


class Opened:
    """A desk on a recording. ``said`` is what was printed until it stood."""

    def __init__(self, process: subprocess.Popen[str], said: list[str]) -> None:
        self.process, self.said = process, said
        [self.desk] = [line.split()[1] for line in said if line.split()[:1] == ["desk"]]

    @property
    def address(self) -> str:
        return self.desk.removeprefix("http://").partition("/")[0]


@contextlib.contextmanager
def opened(file: str, *options: str) -> Iterator[Opened]:
    command = [sys.executable, "-m", "mcp_tap.cli", "open", file, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if line.strip().startswith("record"):
                    break
            yield Opened(process, said)
        finally:
            if process.poll() is None:
                process.kill()


def test_a_recording_is_looked_at_with_no_proxy(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = recording.removeprefix("sqlite:///")
    with opened(file, "--admin-listen", "127.0.0.1:0") as desk, httpx.Client(base_url=desk.desk) as http:
        assert any(file in line for line in desk.said)
        assert "claude-desktop" in http.get("/sessions").text
        assert http.get("/healthz").json()["recording"].startswith("off")

        [row] = mcp_tap(capsys, "sessions", "--json", "client:claude", "--store", recording).json
        for ref in (row["session_id"], row["connection_id"]):
            answer = http.get(f"/sessions/{ref}/export.csv", params={"bodies": "1"})
            assert answer.headers["content-type"].startswith("text/csv")
            assert answer.headers["content-disposition"] == f'attachment; filename="{ref}.csv"'
            rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
            assert {each["client_name"] for each in rows} == {"claude-desktop"}
            assert {each["mcp_session_id"] for each in rows} == {"2f3a9c52"}
            assert sum(bool(each["request_body"]) for each in rows) == 3
        answer = http.get(f"/sessions/{row['session_id']}/export.jsonl", params={"reveal": "session_id"})
        assert len(answer.text.splitlines()) == len(rows)
        assert json.loads(answer.text.splitlines()[0])["mcp_session_id"].startswith("2f3a9c52-7d41")
        assert http.get(f"/sessions/{row['session_id']}/export.har").status_code == 404
        assert http.get("/sessions/ses_nothing/export.csv").status_code == 404

        healthy = mcp_tap(capsys, "health", "--admin-listen", desk.address)
        assert (healthy.status, json.loads(healthy.out)["status"]) == (0, "ok")
        desk.process.send_signal(signal.SIGINT)
        assert desk.process.wait(20) == 0
    gone = mcp_tap(capsys, "health", "--admin-listen", desk.address)
    assert (gone.status, gone.out) == (1, "")
    assert re.match(r"http://127\.0\.0\.1:\d+/healthz does not answer", gone.err)


def test_a_port_that_is_taken_is_left_to_who_has_it(recording: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another tap may have the usual port: the desk of a file takes a free one, unless it was told which."""
    monkeypatch.setenv("MCP_TAP_TOKEN", "a/secret")
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(OSError):  # somebody else has it already
            taken.enter_context(socket.create_server(("127.0.0.1", 6279)))
        desk = taken.enter_context(opened(recording))
        assert desk.address != "127.0.0.1:6279"
        assert desk.desk.endswith("/?token=a%2Fsecret")
        assert httpx.get(f"http://{desk.address}/sessions").status_code == 401
        assert httpx.get(desk.desk).status_code == 303


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "there is no recording at"), (b"not a database" * 100, "is not a database"), (b"", "holds no recording")],
)
def test_a_file_that_is_no_recording(
    content: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.db"
    if content is not None:
        file.write_bytes(content)
    ran = mcp_tap(capsys, "open", str(file), "--admin-listen", "127.0.0.1:0")
    assert (ran.status, ran.out) == (4, "")
    assert said in ran.err
    assert len(ran.err.splitlines()) > 1  # what now
