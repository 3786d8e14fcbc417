"""Following HTTP/1 (RFC 9112): what each message is, wherever the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tap.protocol.http1 import MAX_HEAD, Broken, Part, Request, RequestReader, Response, ResponseReader

Summary = list[tuple[object, ...]]


def summary(parts: list[Part]) -> Summary:
    """Describe parts so that they compare: heads by their line, adjacent pieces of a body joined."""
    lines: Summary = []
    for part in parts:
        if isinstance(part, bytes):
            if lines and lines[-1][0] == "body":
                lines[-1] = ("body", lines[-1][1] + part)  # type: ignore[operator]
            else:
                lines.append(("body", part))
        elif isinstance(part, Request):
            lines.append(("request", part.method, part.target, part.minor))
        elif isinstance(part, Response):
            lines.append(("response", part.status))
        elif isinstance(part, Broken):
            lines.append(("broken", part.reason))
        else:
            lines.append(("end", part.name))
    return lines


REQUESTS: dict[str, tuple[bytes, Summary]] = {
    "without a body": (
        b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n",
        [("request", "GET", "/mcp", 1), ("end", "COMPLETE")],
    ),
    "counted body": (
        b"POST /mcp HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        [("request", "POST", "/mcp", 1), ("body", b"hello"), ("end", "COMPLETE")],
    ),
    "empty counted body": (
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        [("request", "POST", "/", 1), ("end", "COMPLETE")],
    ),
    "chunked body with extensions and trailers": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
        [("request", "POST", "/", 1), ("body", b"abc0123456789"), ("end", "COMPLETE")],
    ),
    "two in a row": (
        b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.0\r\n\r\n",
        [
            ("request", "POST", "/a", 1),
            ("body", b"hi"),
            ("end", "COMPLETE"),
            ("request", "GET", "/b", 0),
            ("end", "COMPLETE"),
        ],
    ),
    "empty lines before the head (§2.2)": (
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        [("request", "GET", "/", 1), ("end", "COMPLETE")],
    ),
    "bare line feeds (§2.2)": (
        b"POST / HTTP/1.1\nContent-Length: 1\n\nx",
        [("request", "POST", "/", 1), ("body", b"x"), ("end", "COMPLETE")],
    ),
    "bare line feeds before a body that begins with a line's end": (
        b"POST / HTTP/1.1\r\nContent-Length: 2\n\n\r\n",
        [("request", "POST", "/", 1), ("body", b"\r\n"), ("end", "COMPLETE")],
    ),
    "equal lengths twice (§6.3)": (
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        [("request", "POST", "/", 1), ("body", b"x"), ("end", "COMPLETE")],
    ),
    "chunked after another coding": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        [("request", "POST", "/", 1), ("body", b"x"), ("end", "COMPLETE")],
    ),
    "chunked and a length": (
        b"POST / HTTP/1.1\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        [("request", "POST", "/", 1), ("broken", "both a content length and a transfer coding")],
    ),
    "chunked twice": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        [("request", "POST", "/", 1), ("broken", "chunked more than once")],
    ),
    "chunked before there was such a thing": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        [("request", "POST", "/", 0), ("broken", "a transfer coding in HTTP/1.0")],
    ),
    "a folded length": (
        b"POST / HTTP/1.1\r\nContent-Length:\r\n 1\r\n\r\nx",
        [("request", "POST", "/", 1), ("broken", "a head that can be read in two ways")],
    ),
    "white space after the name of a length": (
        b"POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\nx",
        [("request", "POST", "/", 1), ("broken", "a head that can be read in two ways")],
    ),
    "a carriage return that ends no line": (
        b"POST / HTTP/1.1\r\nA: b\rContent-Length: 1\r\n\r\nx",
        [("request", "POST", "/", 1), ("broken", "a head that can be read in two ways")],
    ),
    "an odd method": (b"M-SEARCH * HTTP/1.1\r\n\r\n", [("request", "M-SEARCH", "*", 1), ("end", "COMPLETE")]),
    "an upgrade that the server may ignore": (
        b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx",
        [("request", "POST", "/", 1), ("body", b"x"), ("end", "COMPLETE")],
    ),
    "different lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\nxx",
        [("request", "POST", "/", 1), ("broken", "content length is no single number")],
    ),
    "a signed length": (
        b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        [("request", "POST", "/", 1), ("broken", "content length is no single number")],
    ),
    "a chunk size that is none": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        [("request", "POST", "/", 1), ("broken", "chunk size is no hexadecimal number")],
    ),
    "a chunk longer than it says": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
        [("request", "POST", "/", 1), ("body", b"x"), ("broken", "chunk longer than its size")],
    ),
    "a coding that is not chunked": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nx",
        [("request", "POST", "/", 1), ("broken", "request with a transfer coding that is not chunked")],
    ),
    "no HTTP": (b"\x16\x03\x01\x00\xa5\n\n", [("broken", "not an HTTP/1 request line")]),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [("broken", "not HTTP/1")]),
}

RESPONSES: dict[str, tuple[str, bytes, Summary]] = {
    "counted": (
        "GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        [("response", 200), ("body", b"hi"), ("end", "COMPLETE")],
    ),
    "to HEAD, with a length": (
        "HEAD",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        [("response", 200), ("end", "COMPLETE")],
    ),
    "204": ("POST", b"HTTP/1.1 204 \r\n\r\n", [("response", 204), ("end", "COMPLETE")]),
    "304 with a length": (
        "GET",
        b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n",
        [("response", 304), ("end", "COMPLETE")],
    ),
    "interim ones before the final one": (
        "POST",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\nL: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        [("response", 100), ("response", 103), ("response", 200), ("end", "COMPLETE")],
    ),
    "switching protocols": (
        "GET",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x00\x01HTTP/1.1 200 OK\r\n\r\n",
        [("response", 101), ("end", "TUNNEL")],
    ),
    "a tunnel": ("CONNECT", b"HTTP/1.1 200 OK\r\n\r\nraw", [("response", 200), ("end", "TUNNEL")]),
    "a refused tunnel": (
        "CONNECT",
        b"HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nx",
        [("response", 403), ("body", b"x"), ("end", "COMPLETE")],
    ),
    "until the close": (
        "GET",
        b"HTTP/1.0 200 OK\r\n\r\nall of it",
        [("response", 200), ("body", b"all of it"), ("end", "BY_CLOSE")],
    ),
    "without a reason phrase": (
        "GET",
        b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n",
        [("response", 202), ("end", "COMPLETE")],
    ),
    "no HTTP": ("GET", b"SSH-2.0-x\n\n", [("broken", "not an HTTP/1 status line")]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(name: str) -> None:
    data, expected = REQUESTS[name]
    assert summary(RequestReader().feed(data)) == expected


@pytest.mark.parametrize("name", RESPONSES)
def test_responses(name: str) -> None:
    method, data, expected = RESPONSES[name]
    reader = ResponseReader(lambda: method)
    assert summary(reader.feed(data) + reader.end()) == expected


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_byte_by_byte(name: str) -> None:
    data, expected = REQUESTS[name]
    reader = RequestReader()
    assert summary([part for i in range(len(data)) for part in reader.feed(data[i : i + 1])]) == expected


@given(data=st.data(), name=st.sampled_from(sorted(RESPONSES)))
def test_any_cut_of_a_response_reads_the_same(data: st.DataObject, name: str) -> None:
    method, text, expected = RESPONSES[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    reader = ResponseReader(lambda: method)
    parts: list[Part] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        parts += reader.feed(text[start:end])
    assert summary(parts + reader.end()) == expected


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail(junk: bytes) -> None:
    for reader in (RequestReader(), ResponseReader(lambda: "GET")):
        reader.feed(junk)
        reader.feed(junk)
        reader.end()


def test_headers_are_read_as_servers_read_them() -> None:
    (request, *_) = RequestReader().feed(
        b"GET / HTTP/1.1\r\nAccept:  application/json \r\nX-Folded: one\r\n\ttwo\r\nno colon here\r\n"
        b"ACCEPT: text/event-stream\r\nEmpty:\r\n\r\n"
    )
    assert isinstance(request, Request)
    assert request.headers == {
        b"accept": b"application/json, text/event-stream",
        b"x-folded": b"one two",
        b"empty": b"",
    }


def test_a_head_without_end_is_given_up() -> None:
    reader = RequestReader()
    parts: list[Part] = []
    for _ in range(MAX_HEAD // 1000 + 2):
        parts += reader.feed(b"x" * 1000)
    assert summary(parts) == [("broken", "head or chunk line too long")]
    assert reader.feed(b"GET / HTTP/1.1\r\n\r\n") == []


def test_after_lost_pieces_it_waits_for_the_next_head() -> None:
    reader = RequestReader()
    assert len(reader.feed(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")) == 2
    reader.lose()
    assert reader.feed(b'rest of a body with GET / HTTP/1.1\r\n in it, {"a": 1}') == []
    assert summary(reader.feed(b"POST /next HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")) == [
        ("request", "POST", "/next", 1),
        ("body", b"x"),
        ("end", "COMPLETE"),
    ]


def test_inside_says_whether_a_message_is_under_way() -> None:
    reader = RequestReader()
    inside = [reader.inside]
    for piece in (b"POST / HT", b"TP/1.1\r\nContent-Length: 2\r\n\r\nx", b"y"):
        reader.feed(piece)
        inside.append(reader.inside)
    assert inside == [False, True, True, False]
