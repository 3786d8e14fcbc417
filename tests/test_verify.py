"""`mcp-tap verify`: it finds nothing where nothing differs, and everything that a proxy can get wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_tap.model import Era, UpstreamError
from mcp_tap.verify import Report, reach, verify
from mcp_tap.verify.comparison import compare
from mcp_tap.verify.conversation import Answer, Place, Request, exchange, unchunked
from tests.altering import Altering, Change
from tests.certificate import make
from tests.sdk.harness import sample_server
from tests.tap import running

PATIENCE = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Place]:
    with sample_server() as url:
        yield place(int(url.rpartition(":")[2].partition("/")[0]))


def place(port: int) -> Place:
    return Place("127.0.0.1", port, f"127.0.0.1:{port}", "/mcp")


def verified(server: Place, change: Change = bytes, *, late: float = 0.0) -> Report:
    proxy = Altering(server.port, change, late)
    try:
        return verify("http://server/mcp", server, place(proxy.port), rounds=2)
    finally:
        proxy.stop()


def differences(report: Report) -> str:
    return "\n".join(line for found in report.exchanges for line in found.differences)


# ---------------------------------------------------------------------------------------------- what it has to find


def test_a_proxy_that_changes_nothing_is_the_same(server: Place) -> None:
    report = verified(server)
    assert report.same, differences(report)
    assert report.eras == {Era.LEGACY: "spoken", Era.MODERN: "spoken"}
    names = [(found.era.value, found.exchange) for found in report.exchanges]
    assert names[:2] == [("legacy", "initialize"), ("legacy", "notifications/initialized")]
    assert ("legacy", "GET stream") in names
    assert ("legacy", "DELETE session") in names
    assert names[-5:][0] == ("modern", "server/discover")
    assert {name for found in report.exchanges for name in found.varies} >= {"header mcp-session-id"}
    assert report.added


def further(change: Change, said: str) -> Any:
    """Return a further way to alter the same part of an answer."""
    return pytest.param(change, said, marks=pytest.mark.matrix)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.replace(b"content-type:", b"Content-Type:"), "header names differs"),
        further(
            lambda data: data.replace(b"application/json\r", b"application/json; charset=utf-8\r"),
            "header content-type",
        ),
        further(lambda data: re.sub(rb"(HTTP/1.1 200 OK\r\n)", rb"\1via: 1.1 proxy\r\n", data), "header names differs"),
        further(lambda data: re.sub(rb"(date: [^\r]*\r\n)(.*?\r\n)", rb"\2\1", data), "header names differs"),
        (lambda data: data.replace(b"200 OK", b"200 Okay"), "status line differs"),
        (lambda data: data.replace(b'"search_products"', b'"search-products"'), "body differs at byte"),
        further(lambda data: data.replace(b'"tools":[', b'"tools": ['), "body differs"),
        further(lambda data: data.replace(b"connection: close", b"connection: keep-alive"), "header connection"),
    ],
    ids=["spelling", "value", "added", "order", "reason", "content", "blank", "connection"],
)
def test_what_a_proxy_alters_is_found(server: Place, change: Change, said: str) -> None:
    report = verified(server, change)
    assert said in differences(report)
    assert not report.same


def test_a_dropped_byte_is_found(server: Place) -> None:
    def drop_from_tool_lists(data: bytes) -> bytes:
        head, blank, body = data.partition(b"\r\n\r\n")
        if b'"tools":[' not in body:
            return data
        # the length is made to fit, as a careful proxy would
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        return head.replace(length[1], b"%d" % (int(length[1]) - 1)) + blank + body[:-1]

    assert "body differs" in differences(verified(server, drop_from_tool_lists))


def test_a_connection_that_ends_late_is_found(server: Place) -> None:
    said = differences(verified(server, late=0.6))
    assert "s later than directly" in said
    assert "body" not in said


def test_a_connection_that_is_not_kept_is_found(server: Place) -> None:
    proxy = Once(server.port)
    try:
        report = verify("http://server/mcp", server, place(proxy.port), rounds=1)
    finally:
        proxy.stop()
    assert "connection differs" in differences(report)


class Once(Altering):
    """A proxy that ends the connection after each answer, and says so."""

    def _copy(self, source: socket.socket, target: socket.socket, change: Change, late: float) -> None:
        if source in self._sockets[1::2]:  # the client's side
            return super()._copy(source, target, change, late)
        with contextlib.suppress(OSError):
            data = source.recv(1 << 20)
            while not _whole(data) and (more := source.recv(1 << 20)):
                data += more
            target.sendall(data.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
            target.shutdown(socket.SHUT_RDWR)
            source.shutdown(socket.SHUT_RDWR)
        return None


def _whole(answer: bytes) -> bool:
    """Whether an answer with a length, or without a body, is all there."""
    head, blank, body = answer.lower().partition(b"\r\n\r\n")
    _, counted, rest = head.partition(b"content-length:")
    return bool(blank) and (not counted or len(body) >= int(rest.split(b"\r\n", 1)[0]))


def test_a_tap_that_is_gone_is_found(server: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = place(taken.getsockname()[1])
    assert "cannot connect through the tap: connection refused" in differences(verify("u", server, nobody, rounds=1))


# ------------------------------------------------------------------------------------------------- how it compares


def answer(body: bytes = b"{}", **headers: str) -> Answer:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return Answer("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode(), body)


def test_what_varies_by_itself_is_named_and_left_out() -> None:
    direct = [answer(b'{"id":"a-1","n":1}', date="1"), answer(b'{"id":"b-2","n":1}', date="2")]
    found = compare(Era.LEGACY, "x", direct, [answer(b'{"id":"c-3","n":1}', date="3")])
    assert found.differences == []
    assert found.varies == ["header date", "1 value in the body"]
    found = compare(Era.LEGACY, "x", direct, [answer(b'{"id":"c-3","n":2}', date="3")])
    assert [line.partition(":")[0] for line in found.differences] == ["body differs at byte 13"]


def test_a_body_that_has_no_shape_is_said_to_vary_as_a_whole() -> None:
    found = compare(Era.LEGACY, "x", [answer(b"[1]"), answer(b"[1, 2]")], [answer(b"[3]")])
    assert found.varies == ["body (as a whole)"]


def test_a_stream_is_compared_as_far_as_it_was_read() -> None:
    def streamed(body: bytes) -> Answer:
        return Answer(b"HTTP/1.1 200 OK\r\n\r\n", body, "left")

    direct = [streamed(b": a\n\n: b\n\n"), streamed(b": a\n\n")]
    assert compare(Era.LEGACY, "x", direct, [streamed(b": a\n\n: b")]).differences == []
    assert compare(Era.LEGACY, "x", direct, [streamed(b": c\n\n: b")]).differences != []


def test_a_difference_says_in_how_many_rounds_and_shows_both() -> None:
    (said,) = compare(Era.LEGACY, "x", [answer(b"abc")] * 2, [answer(b"abc"), answer(b"ab\x1b")]).differences
    assert said == 'body differs at byte 2 (in 1 of 2 rounds): directly "abc", through the tap "ab\\u001b"'


@pytest.mark.parametrize(
    ("sent", "body", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}", "kept"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", b"{}", "fin"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b"", "kept"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nT: 1\r\n\r\n",
         b"2;x=y\r\n{}\r\n0\r\nT: 1\r\n\r\n", "kept"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"zz\r\n", "garbled"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end", "fin"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}and more", b"{}and more", "fin"),
        (b"", b"", "fin"),
    ],
)  # fmt: skip
def test_answers_are_read_to_the_byte(sent: bytes, body: bytes, end: str) -> None:
    client, server = socket.socketpair()
    with client, server:
        server.sendall(sent)
        server.shutdown(socket.SHUT_WR)
        got = exchange(client, Request("ping", "POST", message={}), place(1))
    assert (got.head + got.body, got.body, got.end) == (sent, body, end)


def test_the_final_status_counts() -> None:
    assert Answer(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n").status == 404


def test_chunks_are_joined() -> None:
    assert unchunked(b"3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n") == b"abcde"
    assert unchunked(b"3\r\nab") == b"ab"


# ------------------------------------------------------------------------------------------------------- the command


def command(url: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(folder), "HOME": str(folder.parent)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "mcp_tap.cli", "verify", url, *options], env=environment, **pipes)


def nothing_is_left(folder: Path) -> bool:
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return not list(folder.iterdir()) and str(folder) not in running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "temporary"
    made.mkdir()
    return made


def test_the_real_tap_changes_nothing_and_goes_away(server: Place, folder: Path) -> None:
    with command(f"http://{server.authority}/mcp", folder) as process:
        said, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said + complaints
    assert said.endswith("\nthe same\n")
    assert "added latency: " in said
    assert "only methods that read" in said
    assert nothing_is_left(folder)


@pytest.mark.matrix
def test_servers_behind_tls_and_unix_sockets(server: Place, folder: Path, tmp_path: Path) -> None:
    pem, name = make(tmp_path), tmp_path / "server.sock"
    (tmp_path / "server.toml").write_text(
        f"""
        [[upstream]]
        url = "http://{server.authority}/mcp"
        listen = "127.0.0.1:0"
        tls_cert = "{pem}"

        [[upstream]]
        url = "http://{server.authority}/mcp"
        listen = "unix:{name}"
        """
    )
    # what is for the listener of a tap that runs beside it must not matter
    (tmp_path / "client.toml").write_text(f'[proxy]\ntls_ca = "{pem}"\ntls_cert = "{pem}"\n')
    upstream = {"MCP_TAP_UPSTREAM": f"http://{server.authority}/mcp"}
    config = ["-c", str(tmp_path / "server.toml")]
    with running("run", tmp_path / "tap.db", *config, env=os.environ | upstream) as front:
        secure = next(line.split()[1] for line in front.said if "https://" in line)
        for url in (secure, f"http://unix:{name}:/mcp"):
            with command(url, folder, "-c", str(tmp_path / "client.toml")) as process:
                said, complaints = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, said + complaints
            assert said.endswith("\nthe same\n")
        assert front.stop() == 0
    assert nothing_is_left(folder)


def test_json_has_a_line_for_each_exchange_and_a_last_one(server: Place, folder: Path) -> None:
    with command(f"http://{server.authority}/mcp", folder, "--json") as process:
        said, _ = process.communicate(timeout=PATIENCE)
    *exchanges, summary = [json.loads(line) for line in said.splitlines()]
    assert {line["era"] for line in exchanges} == {"legacy", "modern"}
    assert all(line["differences"] == [] for line in exchanges)
    assert (summary["same"], summary["rounds"]) == (True, 5)
    assert isinstance(summary["added_ms"], float)


def test_a_signal_takes_the_tap_along(server: Place, folder: Path) -> None:
    with command(f"http://{server.authority}/mcp", folder) as process:
        deadline = time.monotonic() + PATIENCE
        while not list(folder.glob("*/tap.db")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert nothing_is_left(folder)


def test_a_server_that_cannot_be_reached_is_3(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with command(f"http://127.0.0.1:{port}/mcp", folder) as process:
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert "cannot be reached: connection refused" in complaints
    assert nothing_is_left(folder)


@pytest.mark.parametrize(
    ("status", "said"), [(b"404 Not Found", "no MCP server"), (b"401 Unauthorized", "wants a token")]
)
def test_what_is_no_mcp_server_is_said(status: bytes, said: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listening.accept()[0] as sock:
                    sock.recv(1 << 16)
                    sock.sendall(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(UpstreamError, match=said):
            reach(place(listening.getsockname()[1]), "http://server/mcp")
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(PATIENCE)
