"""The relay as a process, with a scripted recorder behind it: start, stop, signals, a dying recorder, memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_tap.channel import Closing, Kind
from mcp_tap.config import Address, Admin, Proxy, Settings, Upstream
from tests.certificate import make
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


@contextmanager
def relay(
    tmp_path: Path, upstream_port: int, what: str = "well", *, ready: bool = True, **proxy: Any
) -> Iterator[Relay]:
    upstream = Upstream(f"http://127.0.0.1:{upstream_port}/mcp", "http", "127.0.0.1", upstream_port, "/mcp")
    proxy.setdefault("listen", Address("127.0.0.1", 0))
    settings = Settings(Proxy(upstream, **proxy), Admin(Address("127.0.0.1", 0)))
    log = tmp_path / "records"
    with tempfile.TemporaryFile() as file:
        file.write(settings.to_json())
        file.flush()
        with subprocess.Popen(
            [sys.executable, "-c", RELAY, str(file.fileno()), str(log), what],
            pass_fds=[file.fileno()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
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


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readexactly(len(CALL))
        writer.write(OK)


def exchange(sock: socket.socket) -> bytes:
    sock.sendall(CALL)
    return receive(sock, len(OK))


def receive(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := sock.recv(1 << 16)):
        got += data
    return got


def test_the_relay_imports_nothing_that_is_not_its_own() -> None:
    code = "import mcp_tap.relay.__main__, sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = out.split()
    loaded = {name.partition(".")[0] for name in names}
    assert loaded.isdisjoint({"orjson", "msgspec", "click", "rich", "sqlite3", "httpx", "starlette", "httptools"})
    parts = {name for name in names if name.startswith("mcp_tap.") and not name.startswith("mcp_tap.relay")}
    assert parts <= {"mcp_tap.errors", "mcp_tap.channel", "mcp_tap.config", "mcp_tap.values"}


def test_it_records_and_stops_in_order(tmp_path: Path) -> None:
    with serving(answering) as port, relay(tmp_path, port) as tap:
        with tap.connect() as sock:
            assert exchange(sock) == OK
            assert tap.stop() == 0
            assert sock.recv(1) == b""
        kinds = [record["kind"] for record in tap.records() if "kind" in record]
        assert kinds[:4] in ([1, 5, 2, 3], [1, 2, 5, 3])
        assert kinds[-1] == Kind.STOP
        assert Kind.CLOSED in kinds


@pytest.mark.parametrize("what", ["well", "deaf"])
def test_calls_in_flight_get_their_time(tmp_path: Path, what: str) -> None:
    asked, go = threading.Semaphore(0), threading.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(CALL))
        asked.release()
        while not go.is_set():
            writer.write(OK[:1])  # so that it is not quiet, for the recorder that does not answer
            await asyncio.sleep(0.05)
        writer.write(OK[1:])
        await reader.read()

    with serving(serve) as port, relay(tmp_path, port, what) as tap, ExitStack() as stack:
        socks = [stack.enter_context(tap.connect()) for _ in range(3)]
        for sock in socks:
            sock.sendall(CALL)
            asked.acquire()
        tap.process.send_signal(signal.SIGTERM)
        while not refused(tap.port):
            pass
        go.set()
        for sock in socks:
            got = b""
            while data := sock.recv(1 << 16):
                got += data
            assert got.endswith(OK[1:])
        assert tap.process.wait(20) == 0


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was in the backlog of a listener that closed at this moment
    return False


def test_the_drain_has_an_end_and_the_rest_is_reset(tmp_path: Path) -> None:
    with serving(silent) as port, relay(tmp_path, port, drain=0.3) as tap, tap.connect() as sock:
        sock.sendall(CALL)
        wait_for_bytes(tap, sock)
        assert tap.stop() == 0
        with pytest.raises(ConnectionResetError):
            receive(sock, 1 << 20)
        closed = [record for record in tap.records() if record.get("kind") == Kind.CLOSED]
        assert closed[0]["text"].encode() == Closing.DRAIN


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(len(CALL))
    writer.write(b"!")
    await reader.read()


def wait_for_bytes(tap: Relay, sock: socket.socket) -> None:
    """Wait until the call is under way, and make it one in flight for the scripted recorder again."""
    assert sock.recv(1) == b"!"
    while not any(record.get("kind") == Kind.SERVER for record in tap.records()):
        pass
    sock.sendall(b"x")


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    with serving(silent) as port, relay(tmp_path, port, drain=60.0) as tap, tap.connect() as sock:
        sock.sendall(CALL)
        wait_for_bytes(tap, sock)
        tap.process.send_signal(signal.SIGINT)
        while not refused(tap.port):
            pass
        assert tap.stop(signal.SIGINT) == 130
        assert tap.records()[-2]["kind"] == Kind.STOP


def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Address(*taken.getsockname())
        with relay(tmp_path, 1, ready=False, listen=listen) as tap:
            assert tap.process.wait(20) == 2
            assert tap.process.stderr is not None
            lines = tap.process.stderr.read().splitlines()
    assert lines[0] == f"error: port {listen.port} is already in use on 127.0.0.1"
    assert lines[1].startswith("  it may be another mcp-tap; its web page would be http://127.0.0.1:")
    assert lines[2] == "  try:  mcp-tap http://127.0.0.1:1/mcp --listen 127.0.0.1:6290"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("what", "status", "lines"),
    [
        ("refuse", 4, ["error: no room", "  make some", "  soon"]),
        ("die", 1, ["error: the recorder ended before it was ready", "  run with --debug"]),
    ],
)
def test_a_recorder_that_cannot_work_ends_the_start(tmp_path: Path, what: str, status: int, lines: list[str]) -> None:
    with relay(tmp_path, 1, what, ready=False) as tap:
        assert tap.process.wait(20) == status
        assert tap.process.stderr is not None
        assert tap.process.stderr.read().splitlines() == lines


def test_a_recorder_that_is_killed_under_load_harms_no_exchange_and_its_gap_is_counted(tmp_path: Path) -> None:
    streams, calls = 6, 200
    wrong: list[bytes] = []

    def client(sock: socket.socket) -> None:
        with sock:
            for _ in range(calls):
                answer = exchange(sock)
                if answer != OK:
                    wrong.append(answer)

    with serving(answering) as port, relay(tmp_path, port, "die-after-300") as tap:
        first = tap.recorder
        threads = [threading.Thread(target=client, args=(tap.connect(),)) for _ in range(streams)]
        for thread in threads:
            thread.start()
        tap.wait_ready()  # the successor
        assert tap.recorder != first
        for thread in threads:
            thread.join()
        assert wrong == []
        assert tap.stop() == 0
        assert tap.process.stderr is not None
        assert tap.process.stderr.read().splitlines() == [
            "warning: the recorder died (signal 9); traffic goes on, starting another"
        ]

    records = tap.records()
    start = next(at for at, record in enumerate(records) if record.get("kind") == Kind.GAP)
    gap = json.loads(records[start]["text"])
    acked = max((record["acked"] for record in records[:start] if "acked" in record), default=0)
    after = [record for record in records[start + 1 :] if "kind" in record and record["stream"]]
    again = [record for record in after if record["kind"] == Kind.OPEN and json.loads(record["text"])["resumed"]]
    assert {record["stream"] for record in again} <= set(range(1, streams + 1))
    # each stream: OPEN, CONNECTED, two pieces a call, two ends, CLOSED
    assert acked + gap["records"] + len(after) - len(again) == streams * (2 * calls + 5)
    assert gap["records"] > 0
    assert gap["from_ns"] <= gap["to_ns"] <= max(record["at_ns"] for record in after)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of another process's memory is in /proc only"
)
@pytest.mark.parametrize("how", ["keep", "upstream", "tls"])
def test_a_hundred_megabytes_each_way_at_constant_memory(tmp_path: Path, how: str) -> None:
    certificate = str(make(tmp_path)) if how == "tls" else None
    host = "keep" if how == "tls" else how
    size = 100 * 1000 * 1000
    piece = bytes(100_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(1 << 16))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()

    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size
    with serving(serve) as port, relay(tmp_path, port, host=host, tls_cert=certificate) as tap:
        before = tap.peak_kb()
        with ExitStack() as stack:
            sock = stack.enter_context(tap.connect())
            if certificate is not None:
                trust = ssl.create_default_context(cafile=certificate)
                sock = stack.enter_context(trust.wrap_socket(sock, server_hostname="localhost"))
            sock.settimeout(30)
            sock.sendall(head)
            for _ in range(size // len(piece)):
                sock.sendall(piece)
            got = 0
            while data := sock.recv(1 << 20):
                got += len(data)
            assert got > size
        assert tap.peak_kb() - before < 24_000
        assert tap.stop() == 0


def test_without_the_relay_the_recorder_sees_the_end(tmp_path: Path) -> None:
    with serving(answering) as port, relay(tmp_path, port) as tap:
        recorder = os.pidfd_open(tap.recorder) if hasattr(os, "pidfd_open") else -1
        tap.process.kill()
        assert tap.process.stdout is not None
        assert tap.process.stdout.read() == ""  # ends when the recorder, which has inherited it, is gone too
        if recorder >= 0:
            os.close(recorder)
