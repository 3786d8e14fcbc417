"""Verbs run as people and pipes run them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

from mcp_tap import cli

#: What is meant to disturb a terminal.
EVIL = "\x1b[2J\u202e[bold]\tpay"


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


def on_a_terminal(*args: str, status: int = 0, **env: str) -> str:
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
        assert process.wait() == status
    return received.decode().replace("\r\n", "\n")
