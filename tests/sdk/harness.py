"""Real servers, the tap in front of them, and real clients, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.tap import running

from .environments import node_modules, python_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).parent

Json = dict[str, Any]

#: What each kind of server is asked: a call that succeeds, one whose tool fails, and one that tells its progress.
CALLS: Final[dict[str, list[tuple[str, Json]]]] = {
    "calculator": [("add", {"a": 1, "b": 2}), ("fail", {"reason": "on purpose"}), ("count", {"to": 3})],
    "everything": [
        ("get-sum", {"a": 1, "b": 2}),
        ("get-sum", {"a": "no number"}),
        ("trigger-long-running-operation", {"duration": 0.2, "steps": 3}),
    ],
    "sample": [("search_products", {"query": "boots"}), ("get_weather", {"city": "Atlantis"}), ("import_catalog", {})],
}

#: Seconds that a process gets to do what it was asked. Nothing here takes more than a few.
PATIENCE: Final = 30


@contextlib.contextmanager
def _process(command: list[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextlib.contextmanager
def python_server(environment: str, path: str = "/mcp") -> Iterator[str]:
    """Run the calculator on the SDK of ``environment`` and yield its URL; ``/sse`` is the 2024-11-05 transport."""
    with _first_line([python_of(environment), HERE / "py_server.py", path]) as port:
        yield f"http://127.0.0.1:{port}{path}"


@contextlib.contextmanager
def everything_server(path: str = "/mcp") -> Iterator[str]:
    """Run the TypeScript SDK's reference server and yield its URL; ``/sse`` is the 2024-11-05 transport."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]  # it takes a port and cannot tell one
    script = node_modules() / "@modelcontextprotocol/server-everything/dist/index.js"
    environment = os.environ | {"PORT": str(port)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    transport = "sse" if path == "/sse" else "streamableHttp"
    with _process(["node", script, transport], env=environment, **pipes) as process:
        assert process.stderr is not None
        ready = ("listening", "running on port")
        assert any(word in line for line in process.stderr for word in ready), "the server ended before it listened"
        yield f"http://127.0.0.1:{port}{path}"


@contextlib.contextmanager
def sample_server() -> Iterator[str]:
    """Run our own sample server and yield its URL."""
    with _first_line([sys.executable, "-m", "mcp_tap.demo.server"]) as port:
        yield f"http://127.0.0.1:{port}/mcp"


@contextlib.contextmanager
def _first_line(command: list[str | Path]) -> Iterator[str]:
    with _process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, f"{command} ended without a word"
        yield line


@contextlib.contextmanager
def tap(upstream: str, file: Path) -> Iterator[str]:
    """Run the tap in front of ``upstream`` and yield its URL; at the end SIGTERM has to end it with exit status 0."""
    with running(upstream, file) as started:
        yield started.proxy
        assert started.stop() == 0, "\n".join(started.said)


def run_client(client: str, url: str, calls: list[tuple[str, Json]]) -> Json:
    """Run a client (py1, py2-auto, py2-legacy or ts) and return what it says happened."""
    command, environment = client_command(client, url, calls)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    said: Json = json.loads(done.stdout)
    return said


def client_command(client: str, url: str, calls: list[tuple[str, Json]]) -> tuple[list[str | Path], dict[str, str]]:
    """Return the command that runs a client, and its environment."""
    wanted, environment = json.dumps(calls), dict(os.environ)
    if client == "ts":
        environment["NODE_MODULES"] = str(node_modules())
        return ["node", HERE / "ts_client.mjs", url, wanted], environment
    sdk, _, mode = client.partition("-")
    return [python_of(sdk), HERE / "py_client.py", url, mode or "legacy", wanted], environment


def rows(file: Path, query: str) -> list[Json]:
    """Return the rows of a query on a recording, read with SQLite alone."""
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query)]
