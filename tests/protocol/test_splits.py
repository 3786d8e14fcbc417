"""However the bytes of a conversation are cut, the record is the same."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.model import Event
from tests.protocol.wire import Wire, error, modern, result, rpc

Step = tuple[str, bytes]  # who sends what; the next step begins when it was all sent


def request(body: object, *, path: str = "/mcp", chunked: bool = False, **headers: str) -> Step:
    data = b"" if body is None else json.dumps(body).encode()
    lines = {"host": "up", "content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    if chunked:
        lines["transfer-encoding"] = "chunked"
        data = (
            b"".join(b"%x\r\n%s\r\n" % (len(data[i : i + 9]), data[i : i + 9]) for i in range(0, len(data), 9))
            + b"0\r\n\r\n"
        )
    else:
        lines["content-length"] = str(len(data))
    method = "POST" if body is not None else "GET"
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return "client", head.encode() + data


def answer(body: bytes, *, status: int = 200, type: str = "application/json", **headers: str) -> Step:  # noqa: A002
    lines = {"content-type": type, "content-length": str(len(body))} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
    return "server", head.encode() + body


def sse(*messages: dict[str, Any], newline: str = "\r\n", until_close: bool = False) -> Step:
    text = newline.join(f": ping{newline}{newline}id: {n}{newline}event: message{newline}data: {json.dumps(m)}{newline}"
                        for n, m in enumerate(messages)).encode() + newline.encode()  # fmt: skip
    if until_close:
        return "server", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + text
    chunks = b"".join(b"%X;x=y\r\n%s\r\n" % (len(text[i : i + 13]), text[i : i + 13]) for i in range(0, len(text), 13))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return "server", head + chunks + b"0\r\nTrailer: 1\r\n\r\n"


SESSION: dict[str, Any] = {"mcp_session_id": "S1", "mcp_protocol_version": "2025-11-25"}
HELLO = rpc("initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "c", "version": "1"})
WELCOME = result(0, protocolVersion="2025-11-25", capabilities={}, serverInfo={"name": "s", "version": "2"})
OPENING = [request(HELLO), answer(json.dumps(WELCOME).encode(), mcp_session_id="S1")]

CONVERSATIONS: dict[str, list[Step]] = {
    "a legacy session": [
        *OPENING,
        request(rpc("notifications/initialized"), **SESSION),
        answer(b"", status=202),
        request(rpc("tools/list", 1), **SESSION),
        answer(json.dumps(result(1, tools=[{"name": "é⏺"}])).encode()),
        request(rpc("tools/call", 2, name="é⏺", arguments={"a": "ü" * 20}), chunked=True, **SESSION),
        sse(rpc("notifications/progress", progressToken=1, progress=1), result(2, content=[], isError=True)),
    ],
    "interim answers and a compressed one": [
        *OPENING,
        request(rpc("ping", 5), expect="100-continue", **SESSION),
        ("server", b"HTTP/1.1 100 Continue\r\n\r\n"),
        answer(gzip.compress(json.dumps(result(5)).encode()), content_encoding="gzip"),
    ],
    "a modern call by line feeds, until the close": [
        request(modern("tools/call", 1, name="x"), mcp_protocol_version="2026-07-28"),
        sse(
            rpc("notifications/message", level="info"), result(1, resultType="complete"), newline="\n", until_close=True
        ),
    ],
    "errors": [
        request(modern("tools/call", 1, name="x"), mcp_protocol_version="2026-07-28"),
        answer(json.dumps(error(None, -32602, "no")).encode(), status=400),
        request(None, path="/.well-known/x?token=1"),
        answer(b"<h1>not found</h1>", status=404, type="text/html"),
        request([rpc("ping", 1), rpc("ping", "1")], mcp_protocol_version="2025-03-26"),
        answer(json.dumps([result("1"), result(1)]).encode()),
    ],
    "nonsense after sense": [*OPENING, request(rpc("ping", 1), **SESSION), ("server", b"not HTTP at all\r\n\r\n")],
}


def record(steps: list[Step], cuts: dict[int, list[int]]) -> list[tuple[object, ...]]:
    """Play a conversation with each step cut at the given places, without a clock, and describe its rows."""
    wire = Wire()
    tcp = wire.tcp()
    for number, (who, data) in enumerate(steps):
        places = sorted({place % (len(data) + 1) for place in cuts.get(number, [])} | {0, len(data)})
        for start, end in itertools.pairwise(places):
            (tcp.stream.client if who == "client" else tcp.stream.server)(data[start:end], wire.now)
    tcp.close()
    return [_row(wire, event) for event in sorted(wire.events, key=lambda event: event.seq)]


def _row(wire: Wire, event: Event) -> tuple[object, ...]:
    bodies = tuple((body.side, body.codec, body.data) for body in wire.bodies if body.event is event)
    return (
        event.kind, event.type, event.name, event.seq, event.direction, event.status, event.outcome,
        event.failure_reason, event.code, event.message, event.jsonrpc_id, event.http_status, event.path,
        event.request_bytes, event.response_bytes, event.note, event.parent and event.parent.type, bodies,
    )  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_byte_by_byte(name: str) -> None:
    steps = CONVERSATIONS[name]
    everywhere = {number: list(range(len(data))) for number, (_, data) in enumerate(steps)}
    assert record(steps, everywhere) == record(steps, {})


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(sorted(CONVERSATIONS)))
def test_any_cut(data: st.DataObject, name: str) -> None:
    steps = CONVERSATIONS[name]
    cuts = data.draw(st.dictionaries(st.integers(0, len(steps) - 1), st.lists(st.integers(0, 5000), max_size=6)))
    assert record(steps, cuts) == record(steps, {})


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["client", "server"]), st.binary(max_size=200)), max_size=12), st.booleans())
def test_nothing_escapes(junk: list[Step], opened: bool) -> None:
    record([*(OPENING if opened else []), *junk], {})
