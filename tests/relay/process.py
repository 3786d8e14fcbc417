"""The relay as a process, with a scripted recorder behind it, and a server in a thread in front of which it stands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcp_tap.config import Address, Admin, Proxy, Settings, Upstream
from tests.relay.cases import CALL, OK

ROOT = Path(__file__).parents[2]
RELAY = """
import sys
from mcp_tap.relay.__main__ import main
log, what = sys.argv[2:]
script = [sys.executable, "-m", "tests.relay.scripted_recorder", log, what]
sys.exit(main(sys.argv[1:2], argv=lambda *fds: [*script, *map(str, fds)]))
"""


class Relay:
    """A relay process. ``port`` is its listener's, ``recorder`` the pid of the recorder that was ready last."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        self.port = self.recorder = 0

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[:1] == ["ready"], self.process.stderr and self.process.stderr.read()
        self.port, self.recorder = int(words[1]), int(words[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def records(self) -> list[dict[str, Any]]:
        """What the recorders have written down so far, in whole lines."""
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def peak_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    def cpu_s(self) -> float:
        """Return the processor time of the relay so far, in seconds."""
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def says(self) -> str:
        """Wait for the next line on its standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")


@contextmanager
def relay(
    tmp_path: Path, upstream_port: int, what: str = "well", *, ready: bool = True, **proxy: Any
) -> Iterator[Relay]:
    upstream = Upstream(f"http://127.0.0.1:{upstream_port}/mcp", "http", "127.0.0.1", upstream_port, "/mcp")
    proxy.setdefault("listen", Address("127.0.0.1", 0))
    settings = Settings(Proxy(upstream, **proxy), Admin(Address("127.0.0.1", 0)))
    log = tmp_path / "records"
    fd = settings.to_file()
    with subprocess.Popen(
        [sys.executable, "-c", RELAY, str(fd), str(log), what],
        pass_fds=[fd], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(fd)
        made = Relay(process, log)
        try:
            if ready:
                made.wait_ready()
            yield made
        finally:
            if process.poll() is None:
                process.kill()
            elif process.returncode == 1 and process.stderr is not None:
                print(process.stderr.read())


@contextmanager
def serving(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Iterator[int]:
    """An upstream in a thread of its own; gives its port."""
    started: list[Any] = []
    ready = threading.Event()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(guarded, "127.0.0.1", 0)
        stop = asyncio.Event()
        started.extend((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    try:
        yield started[2]
    finally:
        started[0].call_soon_threadsafe(started[1].set)
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readexactly(len(CALL))
        writer.write(OK)


def exchange(sock: socket.socket) -> bytes:
    sock.sendall(CALL)
    return receive(sock, len(OK))


def receive(sock: socket.socket, size: int, *, exactly: bool = False) -> bytes:
    """Return so many bytes or, unless it has to be exactly as many, what comes along with them; less at the end."""
    got = b""
    while len(got) < size and (data := sock.recv(size - len(got) if exactly else 1 << 16)):
        got += data
    return got
