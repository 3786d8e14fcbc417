"""The whole tap as a process, as a user starts it."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

#: Seconds that anything here may take; nothing takes more than a few.
PATIENCE = 30


class Tap:
    """A running tap. ``proxy`` and ``desk`` are its URLs, ``events`` the JSON lines it printed so far."""

    def __init__(self, process: subprocess.Popen[str], file: Path) -> None:
        self.process = process
        self.file = file
        self.said: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.proxy = self.desk = ""
        started = threading.Event()
        self._threads = [
            threading.Thread(target=self._read_people, args=(started,)),
            threading.Thread(target=self._read_events),
        ]
        for thread in self._threads:
            thread.start()
        started.wait(PATIENCE)

    def _read_people(self, started: threading.Event) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            word, _, rest = line.strip().partition(" ")
            if word == "proxy":
                self.proxy = rest.split()[0]
            elif word == "desk":
                self.desk = rest.split()[0]
            elif word == "record":
                started.set()
        started.set()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    @property
    def recorder(self) -> int:
        """The recorder's process id."""
        (pid,) = children(self.process.pid)
        return pid

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is the case."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.said)
            assert self.process.poll() is None, "\n".join(self.said)
            time.sleep(0.02)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(signum)
        status = self.process.wait(PATIENCE)
        self.join()
        return status

    def join(self) -> None:
        """Wait for the last lines of a tap that has ended."""
        for thread in self._threads:
            thread.join(PATIENCE)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query on the recording, read with SQLite alone."""
        with contextlib.closing(sqlite3.connect(f"{self.file.as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query)]


@contextlib.contextmanager
def running(upstream: str, file: Path, *options: str, **environment: Any) -> Iterator[Tap]:
    """Run the tap in front of a server; it is killed if the test leaves it running."""
    command = [sys.executable, "-m", "mcp_tap.cli", upstream, "--store", f"sqlite:///{file}"]
    for option in ("--listen", "--admin-listen"):
        if option not in options:
            command += [option, "127.0.0.1:0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *options], **pipes, **environment)
    try:
        yield Tap(process, file)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def children(pid: int) -> list[int]:
    """Return the process ids of the children of a process."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


# A client as small as it can be: what is tested is the tap.

HEADERS = {"accept": "application/json, text/event-stream"}


async def initialize(http: httpx.AsyncClient, url: str, name: str = "tester") -> dict[str, str]:
    """Open a legacy session and return the headers that its requests need."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": name, "version": "1"}}
    answer = await http.post(url, json=rpc("initialize", 0, **params), headers=HEADERS)
    answer.raise_for_status()
    session = {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    await http.post(url, json=rpc("notifications/initialized"), headers=HEADERS | session)
    return HEADERS | session


async def call(http: httpx.AsyncClient, url: str, headers: dict[str, str], id: int, tool: str, **arguments: Any) -> Any:  # noqa: A002
    """Call a tool and return the JSON-RPC answer, however it is carried."""
    body = rpc("tools/call", id, name=tool, arguments=arguments)
    answer = await http.post(url, json=body, headers=headers)
    answer.raise_for_status()
    if answer.headers["content-type"].startswith("text/event-stream"):
        messages = [
            json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:") and line[5:].strip()
        ]
        return next(message for message in messages if message.get("id") == id)
    return answer.json()


def rpc(method: str, id: int | None = None, **params: Any) -> dict[str, Any]:  # noqa: A002
    """Return a request, or without an id a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    return message if id is None else message | {"id": id}
