"""The desk under readers that stay, that never read, and that are in the middle of a question when it ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.api.asking import written
from tests.cli.test_running import Opened, opened
from tests.tap import PATIENCE

STREAMS = 50

NO_QUESTIONS = (
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"G",
    b"",
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(written(tmp_path_factory.mktemp("ending")))


def _asked(desk: Opened, path: str, buffer: int = 0, *, unfinished: bool = False) -> socket.socket:
    """Return a connection on which a question was asked; ``unfinished`` leaves its head open."""
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(PATIENCE)
    host, _, port = desk.address.partition(":")
    sock.connect((host, int(port)))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{'' if unfinished else chr(13) + chr(10)}".encode())
    return sock


def _ended(desk: Opened, signum: int = signal.SIGTERM) -> tuple[int, str]:
    """End the desk; return its exit status and what it printed after the lines of its start."""
    assert desk.process.stderr is not None
    desk.process.send_signal(signum)
    said: list[str] = []
    reading = threading.Thread(target=lambda: said.append(desk.process.stderr.read()))  # type: ignore[union-attr]
    reading.start()
    status = desk.process.wait(PATIENCE)
    reading.join(PATIENCE)
    return status, said[0].strip()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_under_its_readers(file: str, signum: int) -> None:
    with opened(file, "--admin-listen", "127.0.0.1:0") as desk, contextlib.ExitStack() as open_:
        for number in range(STREAMS):
            stream = open_.enter_context(_asked(desk, f"/api/live?limit={number + 1}"))
            assert stream.recv(12) == b"HTTP/1.1 200"
        for _ in range(5):
            open_.enter_context(_asked(desk, "/sessions", unfinished=True))
            open_.enter_context(_asked(desk, "/api/live?change=0", 1024))
            # asked and not read: the answer is under way when the desk ends
            open_.enter_context(_asked(desk, "/api/openapi.json", 1024))
        assert _ended(desk, signum) == (0, "")


def _sockets(descriptors: Path) -> int:
    """Return how many of a process's descriptors are sockets; one may be closed while it is looked at."""
    count = 0
    for each in descriptors.iterdir():
        with contextlib.suppress(OSError):
            count += str(each.readlink()).startswith("socket:")
    return count


def test_readers_that_come_and_go_leave_nothing_behind(file: str) -> None:
    with opened(file, "--admin-listen", "127.0.0.1:0") as desk, httpx.Client(base_url=desk.desk) as http:
        descriptors = Path(f"/proc/{desk.process.pid}/fd")
        if not descriptors.exists():
            pytest.skip("needs Linux's /proc; run it there")
        http.get("/api/sessions")
        before = _sockets(descriptors)
        for number in range(200):
            with _asked(desk, f"/api/live?client=c{number % 7}") as stream:
                assert stream.recv(12) == b"HTTP/1.1 200"
        deadline = time.monotonic() + PATIENCE
        while _sockets(descriptors) > before and time.monotonic() < deadline:
            http.get("/healthz")
        assert _sockets(descriptors) <= before
        assert _ended(desk) == (0, "")


def test_peers_that_speak_no_http_are_no_news(file: str) -> None:
    with opened(file, "--admin-listen", "127.0.0.1:0") as desk:
        for told in NO_QUESTIONS:
            with _asked(desk, "/healthz") as peer:
                assert peer.recv(12) == b"HTTP/1.1 200"
            with socket.create_connection(("127.0.0.1", int(desk.address.rpartition(":")[2]))) as peer:
                peer.sendall(told)
                peer.shutdown(socket.SHUT_WR)
        assert _ended(desk) == (0, "")
