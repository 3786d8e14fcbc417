"""Clients that vanish, dawdle, never read or come in crowds: counted at the server, and in what the relay recorded.

Where it can be, the same is done to the server directly, and has to look the same from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mcp_tap.channel import Kind
from mcp_tap.relay.capacity import EACH, RESERVE
from mcp_tap.relay.head import MAX_HEAD
from tests.relay.cases import CALL, OK, request
from tests.relay.process import ROOT, Relay, exchange, receive, relay
from tests.tap import running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc; run it there")

PATIENCE = 30

#: Asks for an answer of this size, for the beginning of one, or for events without end.
LARGE = request(b"GET", target=b"/large")
BEGUN = request(b"GET", target=b"/begun")
EVENTS = request(b"GET", target=b"/events")
SIZE = 32 * 1000 * 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
PIECE = bytes(range(250)) * 400
MANY = (b"event: message\ndata: " + b"x" * 300 + b"\n\n") * 300


class Tally:
    """What a server saw of all its clients. ``deadline`` is how long (seconds) it waits for a request."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.port = 0
        self.made = 0
        self.received = 0
        self.calls = 0
        self.sent = 0
        self.ends: Counter[str] = Counter()
        self.open: set[Conversation] = set()

    @property
    def held_back(self) -> int:
        """How many clients take no more at the moment."""
        return sum(one.paused for one in list(self.open))

    def seen(self) -> tuple[int, int, Counter[str]]:
        return self.made, self.received, self.ends


class Conversation(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.paused = False
        self._data = b""
        self._end = "eof"
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.tally.made += 1
        self.tally.open.add(self)
        if self.tally.deadline is not None:
            asyncio.get_running_loop().call_later(self.tally.deadline, self._too_late)

    def data_received(self, data: bytes) -> None:
        self.tally.received += len(data)
        self._data += data
        while (end := self._data.find(CALL[-20:])) >= 0:
            self._data = self._data[end + 20 :]
            self.tally.calls += 1
            self.transport.write(OK)
        if self._data == LARGE:
            self.transport.write(HEAD)
            self._left = SIZE
            self._go_on()
        elif self._data == BEGUN:
            self.transport.write(HEAD + PIECE[:1000])
        elif self._data == EVENTS:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            self._left = sys.maxsize
            self._go_on()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self.paused = False
        self._left = 0
        self.tally.open.discard(self)
        self.tally.ends["reset" if exc else "eof"] += 1

    def _go_on(self) -> None:
        piece = PIECE if self._data == LARGE else MANY
        while self._left and not self.paused:
            self._left -= len(piece)
            self.tally.sent += len(piece)
            self.transport.write(piece)

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()


@contextlib.contextmanager
def counting(deadline: float | None = None) -> Iterator[Tally]:
    """Run a server in a thread that counts."""
    tally, stop, started = Tally(deadline), asyncio.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await loop.create_server(lambda: Conversation(tally), "127.0.0.1", 0, backlog=1000)
        tally.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        for one in list(tally.open):
            one.transport.abort()
        await asyncio.sleep(0)

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(PATIENCE)
    try:
        yield tally
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)


def until(condition: Callable[..., object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def kinds(tap: Relay) -> Counter[int]:
    return Counter(record["kind"] for record in tap.records() if "kind" in record)


def memory(pid: int) -> int:
    """Return the bytes that only this process holds."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


# -- clients that vanish


def vanish(port: int, tally: Tally, manner: str, clients: int) -> None:
    """Open connections, a hundred at a time, and leave all of them in the same manner."""
    for before in range(0, clients, 100):
        socks = [connect(port) for _ in range(min(100, clients - before))]
        now = before + len(socks)
        if manner == "half a request":
            for sock in socks:
                sock.sendall(CALL[:30])
            until(lambda expected=30 * now: tally.received == expected)
        elif manner == "during an answer":
            for sock in socks:
                sock.sendall(BEGUN)
            for sock in socks:
                assert sock.recv(1)
        for sock in socks:
            sock.close() if manner == "at once, in order" else reset(sock)
        if manner == "at once, in order":
            until(lambda expected=now: tally.made == expected)
    until(lambda: not tally.open)


MANNERS = ("at once, in order", "at once", "half a request", "during an answer")


@pytest.mark.parametrize(
    ("manner", "clients"),
    [("during an answer", 100), *(pytest.param(manner, 1250, marks=pytest.mark.matrix) for manner in MANNERS)],
)
def test_clients_that_open_and_vanish(tmp_path: Path, manner: str, clients: int) -> None:
    with counting() as directly, counting() as tapped, relay(tmp_path, tapped.port) as tap:
        with tap.connect() as sock:
            assert exchange(sock) == OK
        until(lambda: not tapped.open)
        before, first = tap.descriptors(), tapped.made
        tapped.made, tapped.received, tapped.ends = 0, 0, Counter()
        vanish(directly.port, directly, manner, clients)
        vanish(tap.port, tapped, manner, clients)
        if manner == "at once":
            assert tapped.made <= clients  # nobody connects for a client that is gone
        else:
            assert tapped.seen() == directly.seen()
        with tap.connect() as sock:
            assert exchange(sock) == OK
        until(lambda: tap.descriptors() <= before)  # the relay may have had the first stream for a moment longer
        assert tap.stop() == 0
        seen = kinds(tap)
        assert seen[Kind.OPEN] == seen[Kind.CLOSED] == clients + first + 1


@pytest.mark.matrix
def test_clients_that_say_nothing_are_the_servers_to_wait_for(tmp_path: Path) -> None:
    with counting(deadline=1.0) as tally, relay(tmp_path, tally.port) as tap, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(tap.connect()) for _ in range(200)]
        until(lambda: tally.made == 200)
        assert {receive(sock, 1000)[:12] for sock in socks} == {b"HTTP/1.1 408"}
        for sock in socks:
            sock.close()
        until(lambda: not tally.open)
        assert tap.stop() == 0
        assert kinds(tap)[Kind.CLOSED] == 200


@pytest.mark.matrix
def test_what_a_crowd_took_of_memory_goes_back(tmp_path: Path) -> None:
    """The whole tap, as its command starts it: what malloc and Python's pools keep depends on that."""
    crowd = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * crowd)), hard))
    with counting() as tally, running(f"http://127.0.0.1:{tally.port}/mcp", tmp_path / "tap.db") as tap:
        relaying, port = tap.process.pid, int(tap.proxy.split(":")[2].partition("/")[0])
        with connect(port) as sock:
            assert exchange(sock) == OK
        before = memory(relaying)
        socks = [connect(port) for _ in range(crowd)]
        for sock in socks:
            assert exchange(sock) == OK
        taken = memory(relaying) - before
        assert taken < crowd * 6000
        for sock in socks:
            sock.close()
        until(lambda: memory(relaying) - before < taken / 4)
        assert tap.stop() == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- clients that dawdle


@pytest.mark.matrix
@pytest.mark.parametrize("of", ["head", "body"])
def test_what_comes_byte_by_byte_passes_byte_by_byte(tmp_path: Path, of: str) -> None:
    start = 0 if of == "head" else CALL.index(b"{")
    with counting() as tally, relay(tmp_path, tally.port) as tap, tap.connect() as sock:
        sock.sendall(CALL[:start])
        until(lambda: tally.received == start)
        for at in range(start, len(CALL)):
            sock.sendall(CALL[at : at + 1])
            until(lambda sent=at + 1: tally.received == sent)
        assert receive(sock, len(OK)) == OK


@pytest.mark.parametrize(
    "host", [pytest.param("keep", id="blind", marks=pytest.mark.matrix), pytest.param("upstream", id="framed")]
)
def test_the_servers_patience_with_half_a_head_is_what_it_is_directly(tmp_path: Path, host: str) -> None:
    with counting(deadline=0.3) as tally, relay(tmp_path, tally.port, host=host) as tap:
        got = []
        for port in (tally.port, tap.port):
            with connect(port) as sock:
                sock.sendall(CALL[:30])
                got.append(receive(sock, 1000))
        assert got[0].startswith(b"HTTP/1.1 408")
        assert got[1] == got[0]


@pytest.mark.matrix
def test_of_heads_that_do_not_end_no_more_is_kept_than_a_head_may_have(tmp_path: Path) -> None:
    clients, sent = 50, 60_000
    with counting() as tally, relay(tmp_path, tally.port, host="upstream") as tap, contextlib.ExitStack() as stack:
        before = memory(tap.process.pid)
        socks = [stack.enter_context(tap.connect()) for _ in range(clients)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".ljust(sent, b"x"))
        with tap.connect() as other:
            for _ in range(20):
                assert exchange(other) == OK
        # the client's bytes may wait in the channel, too
        until(lambda: sum(r["size"] for r in tap.records() if r.get("kind") == Kind.CLIENT) >= clients * sent)
        assert tally.received == 20 * len(CALL) + len(b"127.0.0.1:%d" % tally.port) * 20 - len(b"localhost:6278") * 20
        assert memory(tap.process.pid) - before < clients * 2 * MAX_HEAD
        for sock in socks:
            sock.sendall(b"x" * 10_000)
        assert {receive(sock, 12)[:12] for sock in socks} == {b"HTTP/1.1 431"}


# -- clients that never read


@pytest.mark.matrix
@pytest.mark.parametrize("asked", [LARGE, EVENTS], ids=["large", "events"])
def test_who_never_reads_holds_back_its_own_answer_and_nobody_elses(tmp_path: Path, asked: bytes) -> None:
    clients = 8
    with counting() as tally, relay(tmp_path, tally.port) as tap, contextlib.ExitStack() as stack:
        with tap.connect() as other:
            assert exchange(other) == OK
        before = memory(tap.process.pid)
        socks = [stack.enter_context(tap.connect()) for _ in range(clients)]
        for sock in socks:
            sock.sendall(asked)
        until(lambda: tally.held_back == clients)
        with tap.connect() as other:
            for _ in range(200):
                assert exchange(other) == OK
        until(lambda: tally.held_back == clients)
        assert tally.sent < clients * SIZE
        # more than this waits in the channel at first
        until(lambda: memory(tap.process.pid) - before < clients * 1_000_000)
        if asked == LARGE:
            for sock in socks:
                assert receive(sock, len(HEAD), exactly=True) == HEAD
                for _ in range(SIZE // len(PIECE)):
                    assert receive(sock, len(PIECE), exactly=True) == PIECE


# -- more clients than there is room for


def limit(tap: Relay, files: int) -> None:
    hard = resource.prlimit(tap.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(tap.process.pid, resource.RLIMIT_NOFILE, (files, hard))


@pytest.mark.parametrize("what", ["open files", pytest.param("max_connections", marks=pytest.mark.matrix)])
def test_clients_beyond_the_limit_wait_and_none_is_lost(tmp_path: Path, what: str) -> None:
    room, clients = 10, 40
    settings: dict[str, Any] = {"max_connections": room} if what == "max_connections" else {}
    with counting() as tally, relay(tmp_path, tally.port, **settings) as tap, contextlib.ExitStack() as stack:
        if what == "open files":
            limit(tap, RESERVE + room * EACH)
        socks = [stack.enter_context(tap.connect()) for _ in range(clients)]
        for sock in socks:
            sock.sendall(CALL)
        until(lambda: tally.calls == room)
        assert tap.says().startswith(f"warning: further clients wait: {room} connections are open, as many as ")
        before = tap.cpu_s()
        waited = time.monotonic()
        for sock in socks[:room]:
            assert receive(sock, len(OK)) == OK
        while time.monotonic() < waited + 1.0:  # those inside are served as before
            for sock in socks[:room]:
                assert exchange(sock) == OK
            time.sleep(0.1)
        assert tap.cpu_s() - before < 0.2  # it does not spin
        assert tally.made == room
        for sock in socks[:room]:
            sock.close()
        for sock in socks[room:]:
            assert receive(sock, len(OK)) == OK
            sock.close()
        assert tally.made == clients
        until(lambda: not tally.open)
        assert tap.stop() == 0
        assert tap.process.stderr is not None
        assert tap.process.stderr.read() == ""
        seen = kinds(tap)
        assert seen[Kind.OPEN] == seen[Kind.CLOSED] == clients
        assert seen[Kind.CONNECT_FAILED] == 0


@pytest.mark.matrix
def test_where_no_descriptor_is_left_clients_wait_until_there_is_one(tmp_path: Path) -> None:
    with counting() as tally, relay(tmp_path, tally.port) as tap:
        limit(tap, tap.descriptors())
        with tap.connect() as sock:
            sock.sendall(CALL)
            assert tap.says() == "warning: further clients wait: 0 connections are open, too many open files"
            before = tap.cpu_s()
            time.sleep(0.5)
            assert tap.cpu_s() - before < 0.1
            assert tally.made == 0
            limit(tap, 200)
            assert receive(sock, len(OK)) == OK
        assert tap.stop() == 0


#: Runs in a network of its own that has a handful of local ports.
FEW_PORTS = """
import fcntl, socket, struct, sys
from pathlib import Path
from tests.faults.test_clients import CALL, OK, counting, receive, reset
from tests.relay.process import relay
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40009")
with counting() as tally, relay(Path(sys.argv[1]), tally.port) as tap:
    socks, answers = [], []
    for last in range(12):  # each from an address of its own, which has ports of its own
        sock = socket.create_connection(("127.0.0.1", tap.port), 5, (f"127.0.1.{last + 1}", 0))
        sock.sendall(CALL)
        answers.append(receive(sock, len(OK)))
        socks.append(sock)
    few = answers.count(OK)
    said = (answers[-1] + receive(socks[-1], 1000)).decode().splitlines()
    print(few, said[0], said[-2], said[-1], sep="|")
    reset(socks[0])
    while len(tally.open) == few:
        pass
    with socket.create_connection(("127.0.0.1", tap.port), 5, ("127.0.1.99", 0)) as sock:
        sock.sendall(CALL)
        print(receive(sock, len(OK)) == OK)
    for sock in socks:
        sock.close()
    tap.stop()
"""


@pytest.mark.matrix
def test_without_a_local_port_towards_the_server_the_answer_says_so(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let us have a network of our own")
    argv = [unshare, "-Urn", sys.executable, "-c", FEW_PORTS, str(tmp_path)]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr
    first, again = ran.stdout.splitlines()
    few, status, what, hint = first.split("|")
    assert 0 < int(few) <= 10
    assert status == "HTTP/1.1 502 Bad Gateway"
    assert what.startswith("mcp-tap: cannot connect to http://127.0.0.1:")
    assert what.endswith(" (no local port or address is left for it)")
    assert hint.endswith("sysctl net.ipv4.ip_local_port_range")
    assert again == "True"
