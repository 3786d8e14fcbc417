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
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from mcp_tap.channel import Closing, Kind
from mcp_tap.config import Address
from tests.certificate import make
from tests.relay.cases import CALL, OK
from tests.relay.process import ROOT, Relay, answering, exchange, free_port, receive, relay, serving


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


@pytest.mark.parametrize("stopped", [False, True], ids=["then-ready", "stopped-before"])
def test_bytes_pass_before_the_recorder_is_there_and_are_kept_for_it(tmp_path: Path, stopped: bool) -> None:
    port = free_port()
    listen = Address("127.0.0.1", port)
    with serving(answering) as server, relay(tmp_path, server, "late", ready=False, listen=listen) as tap:
        tap.port = port
        while refused(port):
            pass
        with tap.connect() as sock:
            assert exchange(sock) == OK
        assert tap.records() == []
        if stopped:
            tap.process.send_signal(signal.SIGTERM)
            while not refused(port):
                pass
        tap.log.with_suffix(".go").touch()
        if stopped:
            assert tap.process.wait(20) == 0
        else:
            tap.wait_ready()
            assert tap.stop() == 0
        numbers = {record["stream"] for record in tap.records() if record.get("kind") == Kind.SERVER}
        (number,) = numbers  # the streams before it were opened to see whether anybody listens
        of_call = [record for record in tap.records() if record.get("stream") == number]
        kinds = [record["kind"] for record in of_call]
        assert kinds[:4] in ([1, 5, 2, 3], [1, 2, 5, 3])
        assert kinds[-1] == Kind.CLOSED
        sizes = {record["kind"]: record["size"] for record in of_call}
        assert (sizes[Kind.CLIENT], sizes[Kind.SERVER]) == (len(CALL), len(OK))


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
    # a successor that is late gets nothing but the gap
    assert gap["from_ns"] <= gap["to_ns"] <= max((record["at_ns"] for record in after), default=gap["to_ns"])


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
