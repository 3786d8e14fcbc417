"""Two secrets on every way that bytes take: packed, cut, split, in frames and in words that are no body.

One is a credential of a header and recurs wherever a server or a client may repeat it; the other stands where only its
key or its looks give it away. `tests/test_secrets.py` asks every page and path of the desk; here the verbs are asked
as well, and a recorder that died in the middle.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brotli
import httpx
import pytest
import zstandard

from mcp_tap import cli
from tests.tap import PATIENCE, Tap, running

CREDENTIAL = "tk-canary-9f8e7d6c5b4a-header"
HIDDEN = "Canary-0a1b2c3d4e5f-hidden"

#: What both secrets have and nothing else: also the half of one is found by it.
MARKS = ("tk-canary", "Canary-0a1b", "9f8e7d6c5b4a", "0a1b2c3d4e5f")

TOLD = {
    "password": HIDDEN,
    "nested": [{"clientSecret": HIDDEN}],
    "in words": f"call it with Authorization: Bearer {HIDDEN}",
    "a url": f"postgres://admin:{HIDDEN}@db.internal/x and https://x.example/?api_key={HIDDEN}",
    "as json": json.dumps({"refresh_token": HIDDEN, "again": json.dumps({"secret": HIDDEN})}),
    "recurring": f"you are {CREDENTIAL}, escaped {json.dumps(json.dumps(CREDENTIAL))}",
}


def result(number: int, told: Any = TOLD) -> bytes:
    content = [{"type": "text", "text": json.dumps(told)}]
    return json.dumps(
        {"jsonrpc": "2.0", "id": number, "result": {"content": content, "structuredContent": told}}
    ).encode()


def answer(body: bytes, *fields: str, kind: str = "application/json", status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", "connection: close", *fields]
    return "\r\n".join([*head, f"set-cookie: sid={CREDENTIAL}", "", ""]).encode() + body


def chunked(body: bytes, size: int, kind: str = "application/json") -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n".encode()
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def events(*messages: bytes) -> bytes:
    return b"".join(b"id: %b\ndata: %b\n\n" % (CREDENTIAL.encode(), message) for message in messages)


def notification(told: Any = TOLD) -> bytes:
    params = {"level": "info", "data": told, "token": HIDDEN}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params}).encode()


def _packed_by(coding: str, pack: Callable[[bytes], bytes]) -> Callable[[int], bytes]:
    return lambda number: answer(pack(result(number)), f"content-encoding: {coding}")


def _long(before: int) -> dict[str, str]:
    """Return an answer's content whose secrets stand across the byte where the record is cut."""
    return {"x": "x" * before, "password": HIDDEN, "recurring": CREDENTIAL}


#: What the server answers, by the name of the tool that is called.
ANSWERS: dict[str, Callable[[int], bytes]] = {
    "plain": lambda number: answer(result(number)),
    "gzip": _packed_by("gzip", gzip.compress),
    "deflate": _packed_by("deflate", zlib.compress),
    "br": _packed_by("br", brotli.compress),
    "zstd": _packed_by("zstd", zstandard.compress),
    "gzip cut": lambda number: answer(gzip.compress(result(number))[:-20], "content-encoding: gzip"),
    "an unknown coding": lambda number: answer(result(number), "content-encoding: rot13"),
    "byte by byte": lambda number: chunked(result(number), 1),
    "in threes": lambda number: chunked(result(number), 3),
    "as events": lambda number: answer(events(notification(), result(number)), kind="text/event-stream"),
    "as events in fives": lambda number: chunked(events(notification(), result(number)), 5, "text/event-stream"),
    "an event cut": lambda number: answer(events(notification(), result(number))[:-300], kind="text/event-stream"),
    "cut short": lambda number: answer(result(number))[:-120],
    "an error": lambda number: answer(
        json.dumps(
            {"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": f"Bearer {HIDDEN}", "data": TOLD}}
        ).encode()
    ),
    "a tool's error": lambda number: answer(result(number).replace(b'"result": {', b'"result": {"isError": true, ')),
    "refused in words": lambda _: answer(
        f"no: password={HIDDEN} {CREDENTIAL}".encode(), status="500 No", kind="text/plain"
    ),
    "refused in html": lambda _: answer(
        f"<p>{CREDENTIAL} <i>Authorization: Bearer {HIDDEN}</i>".encode(), status="403 No", kind="text/html"
    ),
    "no json": lambda _: answer(json.dumps(TOLD).encode()[:-1]),
    "a challenge": lambda _: answer(
        b"{}", f'www-authenticate: Bearer error_description="{CREDENTIAL}"', status=f"401 {CREDENTIAL}"
    ),
    # the record keeps 1,000 bytes of a body: see `tapped`
    **{
        f"cut after {before}": lambda number, before=before: answer(result(number, _long(before)))  # type: ignore[misc]
        for before in range(380, 480, 12)
    },
}  # fmt: skip


class Leaky(threading.Thread):
    """A server that tells what it knows: one request for each connection."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/mcp"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
        while len(body) < length:
            more = connection.recv(65536)
            if not more:
                return
            body += more
        try:
            asked = json.loads(body)
        except ValueError:
            connection.sendall(answer(f"cannot read {body!r}".encode(), status="400 No", kind="text/plain"))
            return
        asked = asked if isinstance(asked, dict) else {}
        name = asked.get("params", {}).get("name")
        told = ANSWERS.get(name, ANSWERS["plain"])(asked.get("id", 0))
        connection.sendall(told)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join(PATIENCE)


def request(body: bytes, *fields: str, credential: bool = True, target: str = "/mcp") -> bytes:
    head = [f"POST {target} HTTP/1.1", "host: localhost", "content-type: application/json", *fields]
    head += ["accept: application/json, text/event-stream"]
    head += [f"authorization: Bearer {CREDENTIAL}", f"cookie: a=b; sid={CREDENTIAL}"] if credential else []
    if not any(field.startswith("transfer-encoding") for field in fields):
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def call(number: int, name: str, arguments: Any = TOLD) -> bytes:
    params = {"name": name, "arguments": arguments, "_meta": {"progressToken": f"p {CREDENTIAL}", "apiKey": HIDDEN}}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()


def _requests() -> Iterator[bytes]:
    opening = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"experimental": TOLD},
        "clientInfo": {"name": f"tester {CREDENTIAL}", "version": f"1 {CREDENTIAL}", "token": HIDDEN},
    }
    yield request(json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": opening}).encode())
    for number, name in enumerate(ANSWERS, 1):
        yield request(call(number, name))
    # words that are no body
    body = call(900, "plain")
    yield request(body, f"user-agent: curl {CREDENTIAL}", f"mcp-name: {CREDENTIAL}", f"mcp-method: {CREDENTIAL}")
    yield request(body, f"last-event-id: {CREDENTIAL}", f"mcp-protocol-version: {CREDENTIAL}", f"origin: {CREDENTIAL}")
    yield request(body, f"traceparent: 00-{CREDENTIAL}-00-01", f"x-forwarded-for: {CREDENTIAL}", f"{CREDENTIAL}: x")
    yield request(body, target=f"/mcp?token={HIDDEN}&code={CREDENTIAL}&x=https%3A%2F%2Fu%3A{HIDDEN}%40h")
    yield request(body, target=f"/mcp/{CREDENTIAL}/x")
    yield request(body, target=f"http://user:{HIDDEN}@localhost/mcp#{CREDENTIAL}")
    yield request(call(901, f"tool {CREDENTIAL}"))
    yield request(json.dumps({"jsonrpc": "2.0", "id": f"id {CREDENTIAL}", "method": f"x/{CREDENTIAL}"}).encode())
    yield request(
        json.dumps({"jsonrpc": "2.0", "id": 902, "method": "tools/call", CREDENTIAL: {"token": HIDDEN}}).encode()
    )
    # bodies in other shapes
    yield request(b"[" + call(903, "plain") + b"," + notification() + b"]")
    yield request(json.dumps({"jsonrpc": "2.0", "method": "notifications/x", "params": TOLD}).encode())
    yield request(gzip.compress(call(904, "plain")), "content-encoding: gzip")
    yield request(body[:-30])
    yield request(body)[:-30]
    yield request(
        f"password={HIDDEN}&token={HIDDEN}&x={CREDENTIAL}".encode(), "content-type: application/x-www-form-urlencoded"
    )
    yield request(
        b"".join(b"1\r\n%c\r\n" % byte for byte in call(905, "plain")) + b"0\r\n\r\n", "transfer-encoding: chunked"
    )
    # nobody brings a header: keys and looks alone
    hidden = {key: told for key, told in TOLD.items() if key != "recurring"}
    yield request(call(906, "no such tool", hidden).replace(CREDENTIAL.encode(), b"x"), credential=False)


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tap, Path]]:
    """Yield a tap whose recording holds all that, which was killed in the middle of it once."""
    directory = tmp_path_factory.mktemp("canary")
    server = Leaky()
    server.start()
    settings = directory / "mcp-tap.toml"
    settings.write_text('[record]\nmax_body = "1kB"\n')
    with running(server.url, directory / "tap.db", "--debug", "-c", str(settings)) as tap:
        asked = [*_requests()]
        for number, data in enumerate(asked):
            send(tap, data)
            if number == len(asked) // 2:
                recorder = tap.recorder
                os.kill(recorder, signal.SIGKILL)
                tap.until(lambda: any("starting another" in line for line in tap.said))
        for data in asked:  # all of it once more, for what the dead one has not written
            send(tap, data)
        tap.until(lambda: len(tap.rows("SELECT 1 FROM timeline WHERE jsonrpc_id = '906'")) == 2)
        yield tap, directory
        assert tap.stop() == 0
    server.close()


def send(tap: Tap, data: bytes) -> None:
    host, _, port = tap.proxy.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


def found(text: str) -> list[str]:
    """Return where a secret stands in a text, with what is around it."""
    return [text[max(0, at - 80) : at + 60] for mark in MARKS for at in [text.find(mark)] if at >= 0]


def test_no_file_holds_a_secret(tapped: tuple[Tap, Path]) -> None:
    tap, directory = tapped
    files = [path for path in directory.iterdir() if path.suffix != ".toml"]
    assert {path.name for path in files} >= {"tap.db", "tap.db-wal"}
    assert {path.name: found(path.read_bytes().decode("latin-1")) for path in files} == {
        path.name: [] for path in files
    }
    bodies = tap.rows("SELECT data FROM body")
    assert any("redacted" in str(row["data"]) for row in bodies)


def test_nothing_that_is_printed_holds_a_secret(tapped: tuple[Tap, Path]) -> None:
    tap, _ = tapped
    assert found("\n".join([*tap.said, *map(str, tap.events)])) == []
    assert len(tap.events) > len(ANSWERS)


VERBS = (
    ("sessions", "--json"), ("session", "1"), ("tools",), ("tools", "--json"), ("clients",), ("errors",), ("slow",),
    ("connections",), ("stats",), ("export", "--bodies"), ("export", "--bodies", "-f", "csv"), ("transcript", "1"),
    ("tail", "--once"), ("sql", "SELECT * FROM events"), ("sql", "SELECT * FROM body"), ("show", "1"),
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_verb_prints_a_secret(
    verb: tuple[str, ...], tapped: tuple[Tap, Path], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    _, directory = tapped
    with pytest.raises(SystemExit) as ended:
        cli.main((*verb, "--store", f"sqlite:///{directory}/tap.db"))
    printed = capsysbinary.readouterr()
    assert ended.value.code == 0, printed.err
    assert len(printed.out) > 20
    assert found((printed.out + printed.err).decode()) == []


def test_no_answer_of_the_desk_holds_a_secret(tapped: tuple[Tap, Path]) -> None:
    tap, _ = tapped
    with httpx.Client(base_url=tap.desk, trust_env=False, timeout=PATIENCE) as http:
        ids = [row["event_id"] for row in tap.rows("SELECT event_id FROM events")]
        assert len(ids) > len(ANSWERS)
        paths = [f"/messages/{id_}{view}" for id_ in ids for view in ("", "?view=raw")]
        for path in (*paths, "/sessions", "/tools", "/errors", "/clients", "/api/tools", "/api/errors", "/healthz"):
            answer = http.get(path)
            assert found(f"{answer.headers} {answer.text}") == [], path
