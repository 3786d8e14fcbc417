"""A server of the 2024-11-05 transport that names its POST address as an absolute URL of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.tap import running

from .harness import client_command, run_client

pytestmark = pytest.mark.sdk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOOL = {"name": "add", "inputSchema": {"type": "object"}}
RESULTS: dict[str, dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2024-11-05",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "absolute", "version": "1"},
    },
    "tools/list": {"tools": [TOOL]},
    "tools/call": {"content": [{"type": "text", "text": "3"}]},
}


class Server:
    """Answers each POST on the one event stream there is."""

    port = 0
    stream: asyncio.StreamWriter

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    self.stream = writer
                    writer.write(HEAD)
                    self.send("endpoint", f"http://127.0.0.1:{self.port}/messages?session_id=1")
                else:
                    size = int(head.lower().partition(b"content-length:")[2].split()[0])
                    asked = json.loads(await reader.readexactly(size))
                    writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
                    if "id" in asked:
                        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS[asked["method"]]}
                        self.send("message", json.dumps(answer))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    def send(self, kind: str, data: str) -> None:
        event = f"event: {kind}\r\ndata: {data}\r\n\r\n".encode()
        self.stream.write(b"%x\r\n%s\r\n" % (len(event), event))


@contextmanager
def absolute() -> Iterator[str]:
    answering = Server()
    started: list[Any] = []
    ready = threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(answering, "127.0.0.1", 0)
        answering.port = server.sockets[0].getsockname()[1]
        stop = asyncio.Event()
        started.extend((asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{answering.port}/sse"
    finally:
        started[0].call_soon_threadsafe(started[1].set)
        thread.join()


@pytest.mark.parametrize("client", ["py1", pytest.param("py2-legacy", marks=pytest.mark.matrix)])
def test_clients_stay_with_the_tap_where_host_is_rewritten(
    client: str, sdk: Callable[[str], None], tmp_path: Path
) -> None:
    sdk(client)
    calls: list[tuple[str, dict[str, Any]]] = [("add", {"a": 1, "b": 2})]
    with absolute() as url:
        direct = run_client(client, url, calls)
        environment = {"MCP_TAP_PROXY_HOST": "upstream"}
        with running(url, tmp_path / "tap.db", env=environment) as tap:
            tapped = run_client(client, tap.proxy, calls)
            assert tap.stop() == 0
        assert tapped == direct
        assert tapped["calls"][0]["outcome"] == "ok"
        types = [row["type"] for row in tap.rows("SELECT type FROM events ORDER BY seq")]
    assert "tools/call" in types  # the POST came by the tap


def test_without_the_edit_a_client_refuses_the_address(sdk: Callable[[str], None], tmp_path: Path) -> None:
    """What the edit is for: if a client did not mind, the test above would show nothing."""
    sdk("py1")
    with absolute() as url, running(url, tmp_path / "tap.db") as tap:
        command, environment = client_command("py1", tap.proxy, [])
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
            assert process.stderr is not None
            assert any("Endpoint origin does not match" in line for line in process.stderr)
            process.kill()  # it says so and then waits for ever
        assert tap.stop() == 0
