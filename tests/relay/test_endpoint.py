"""The one edit in what a server sends: exactly the expected event, for every cut of the bytes, and nothing else."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.config import Proxy, parse_upstream
from mcp_tap.relay.endpoint import MOST_KEPT, origin
from mcp_tap.relay.head import Asked, Responses
from mcp_tap.relay.listener import endpoints
from tests.relay.cases import OK, chunked

HOST = b"tap.example:6278"
PROXY = Proxy(parse_upstream("https://server.example/sse"), host="upstream")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSING = HEAD + b"\r\n"
EVENT = b"event: endpoint\r\ndata: https://server.example/messages?s=1\r\n\r\n"
EDITED = b"event: endpoint\r\ndata: http://tap.example:6278/messages?s=1\r\n\r\n"
MESSAGE = b'event: message\r\ndata: {"url":"https://server.example/x"}\r\n\r\n'


def responses(method: bytes = b"GET", host: bytes = HOST, proxy: Proxy = PROXY) -> Responses:
    asked = deque([Asked(method, host), Asked(b"GET", HOST)])
    return Responses(asked, endpoints(proxy, proxy.upstream.authority.encode()))


def feed(pieces: list[bytes], made: Responses | None = None) -> bytes:
    made = made or responses()
    return b"".join(made.feed(piece) for piece in pieces) + made.rest()


def cut(data: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(offset % (len(data) + 1) for offset in at), len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if a < b]


def unchunked(data: bytes) -> bytes:
    """Return a chunked body's data, read strictly."""
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            assert data == b"\r\n"
            return body
        assert len(data) > size + 2
        assert data[size : size + 2] == b"\r\n"
        body, data = body + data[:size], data[size + 2 :]


STREAMS = {
    "one chunk": [EVENT + MESSAGE],
    "a chunk for each event": [EVENT, MESSAGE, EVENT],
    "a chunk for each byte": [bytes([byte]) for byte in EVENT + MESSAGE],
    "a chunk that ends in the event": [EVENT[:20], EVENT[20:] + MESSAGE[:9], MESSAGE[9:]],
    "comments before it": [b": ping\r\n\r\n", b":\n", EVENT, MESSAGE],
    "a comment in its chunk": [b": ping\r\n\r\n" + EVENT[:30], EVENT[30:]],
    "retry before it": [b"retry: 3000\n\n", EVENT],
    "an id in it": [b"id: 1\r\n" + EVENT],
    "an event without data before it": [b"event: nothing\n\n", EVENT],
    "a byte order mark": [b"\xef\xbb\xbf" + EVENT, MESSAGE],
}


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
def test_any_cut_gives_the_same_event(chunks: list[bytes]) -> None:
    plain = b"".join(chunks)
    expected = plain.replace(EVENT, EDITED, 1)
    assert expected != plain
    for stream in (CHUNKED + chunked(*chunks), CLOSING + plain):
        whole = feed([stream])
        head, _, body = whole.partition(b"\r\n\r\n")
        assert head + b"\r\n\r\n" in (CHUNKED, CLOSING)
        assert (unchunked(body) if stream.startswith(CHUNKED) else body) == expected
        for at in range(1, len(stream)):
            assert feed([stream[:at], stream[at:]]) == whole
        assert feed([stream[at : at + 1] for at in range(len(stream))]) == whole


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end(end: bytes) -> None:
    event, edited = EVENT.replace(b"\r\n", end), EDITED.replace(b"\r\n", end)
    for at in range(1, len(event)):
        assert feed([CLOSING, event[:at], event[at:], MESSAGE]) == CLOSING + edited + MESSAGE
        assert unchunked(feed([CHUNKED, chunked(event[:at], event[at:])])[len(CHUNKED) :]) == edited


def test_after_the_event_nothing_is_edited_or_kept() -> None:
    made = responses()
    made.feed(CHUNKED + chunked(EVENT)[:-5])
    piece = chunked(EVENT)
    assert made.feed(piece) is piece
    assert made.feed(OK) is OK
    assert made.between


def test_what_is_no_event_passes_at_once() -> None:
    made = responses()
    for stream in (CHUNKED, b"8\r\n: ping\r\n\r\n", b"2\r\n\r\n\r\n", b"e\r\nretry: 3000\r\n\r\n\r\n"):
        assert made.feed(stream) == stream
    made = responses()
    for stream in (CLOSING, b": ping\n", b"\n", b":\r", b"\n", b"id: 1\n", b"\n"):
        assert made.feed(stream) == stream


def test_an_event_goes_on_with_its_last_byte() -> None:
    for event, gone in ((EVENT, EDITED), (MESSAGE, MESSAGE)):
        made = responses()
        assert made.feed(CLOSING + event[:-2]) == CLOSING
        assert made.feed(event[-2:-1]) == gone[:-1]  # CR ends the line already
        assert made.feed(b"\n") == b"\n"


UNTOUCHED = {
    "a relative URI": EVENT.replace(b"https://server.example", b""),
    "another host": EVENT.replace(b"server.", b"other."),
    "another port": EVENT.replace(b".example", b".example:8443"),
    "another scheme": EVENT.replace(b"https:", b"http:"),
    "another scheme's port": EVENT.replace(b".example", b".example:80"),
    "a host that only begins alike": EVENT.replace(b".example", b".example.com"),
    "userinfo": EVENT.replace(b"//server", b"//server.example@server"),
    "a second line of data": EVENT.replace(b"\r\n\r\n", b"\r\ndata: x\r\n\r\n"),
    "another type": EVENT.replace(b"endpoint", b"message", 1),
    "a type that changes": b"event: endpoint\r\nevent: message\r\n" + EVENT.partition(b"\n")[2],
    "not the first event": MESSAGE + EVENT,
    "a priming event before it": b"id: 1\r\ndata:\r\n\r\n" + EVENT,
    "half an event": EVENT[:-2],
}


@pytest.mark.parametrize("body", UNTOUCHED.values(), ids=UNTOUCHED)
def test_other_events_are_left_as_they_are(body: bytes) -> None:
    for stream in (CHUNKED + chunked(body[:7], body[7:]), CLOSING + body):
        assert feed([stream]) == stream
        assert feed([stream[at : at + 1] for at in range(len(stream))]) == stream


@pytest.mark.parametrize(
    ("head", "made"),
    [
        (CLOSING, responses(b"POST")),
        (CLOSING, responses(host=b"")),
        (CLOSING.replace(b"200 OK", b"404 Not Found"), responses()),
        (CLOSING.replace(b"event-stream", b"plain"), responses()),
        (CLOSING.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), responses()),
        (CLOSING.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(EVENT)), responses()),
        (CLOSING.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: gzip\r\n\r\n"), responses()),
        (CLOSING, Responses(deque([Asked(b"GET", HOST)]))),
    ],
)
def test_other_answers_are_left_as_they_are(head: bytes, made: Responses) -> None:
    assert feed([head + EVENT], made) == head + EVENT


def test_the_origin_is_compared_and_not_the_text() -> None:
    assert (
        origin("HTTPS://Server.Example") == origin("https://server.example:443/x") == (b"https", b"server.example", 443)
    )
    assert origin("http://[::1]:9000?x") == (b"http", b"[::1]", 9000)
    for text in ("/messages", "//server.example/", "ftp://a/", "http://", "http://a:b/", "http://a b/", "https:/x", ""):
        assert origin(text) is None
    for data in (b"HTTPS://SERVER.EXAMPLE:443/m", b"https://server.example/m", b"https://server.example:/m"):
        assert feed([CLOSING + b"event:endpoint\ndata:%s\n\n" % data]).endswith(b"data:http://%s/m\n\n" % HOST)


def test_clients_of_a_tls_listener_are_sent_back_to_https() -> None:
    proxy = Proxy(parse_upstream("http://server.example/sse"), host="mcp.example", tls_cert="tap.pem")
    made = Responses(deque([Asked(b"GET", HOST)]), endpoints(proxy, b"mcp.example"))
    # a server builds the URL from the Host that it got
    assert b"data: https://tap.example:6278/m\n" in feed(
        [CLOSING + b"event: endpoint\ndata: http://mcp.example/m\n\n"], made
    )


@pytest.mark.parametrize("before", [b"", b": " + b"x" * 70_000 + b"\n", b": x\n" * 30_000])
@pytest.mark.parametrize("size", [MOST_KEPT - 60, MOST_KEPT, 10 * MOST_KEPT])
@pytest.mark.parametrize("step", [1 << 20, 1000, 61])
def test_no_more_is_kept_than_the_bound(before: bytes, size: int, step: int) -> None:
    event = b"event: endpoint\ndata: https://server.example/" + b"x" * size + b"\n\n"
    for stream in (CHUNKED + chunked(before or b":\n", event[:50], event[50:]), CLOSING + before + event):
        made = responses()
        out = kept = 0
        whole = b""
        for at in range(0, len(stream), step):
            whole += (piece := made.feed(stream[at : at + step]))
            out += len(piece)
            kept = max(kept, min(at + step, len(stream)) - out)
        assert kept <= MOST_KEPT + 61_000
        assert whole + made.rest() == feed([stream])
        if size > MOST_KEPT:
            assert whole + made.rest() == stream


OWN, THEIRS = b"https://server.example", b"http://" + HOST
PARTS = st.sampled_from(
    [EVENT, MESSAGE, b":\r\n", b"\r", b"\n", b"\r\n", b"data", b"event: endpoint\n", b"\xef\xbb\xbf", b"\x00",
     b"data: https://server.example/\r", b"id: 3\n"]
)  # fmt: skip


@given(
    st.lists(PARTS, max_size=8),
    st.lists(st.integers(1, 300), max_size=5),
    st.lists(st.integers(0, 2000), max_size=12),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_any_stream_any_chunks_any_cut(parts: list[bytes], sizes: list[int], at: list[int]) -> None:
    body = b"".join(parts)
    chunks = cut(body, sizes)
    for stream in (CLOSING + body, CHUNKED + chunked(*chunks), CHUNKED + chunked(*chunks) + OK):
        whole = feed([stream])
        assert feed(cut(stream, at)) == whole
    plain = feed([CLOSING + body])[len(CLOSING) :]
    assert unchunked(feed([CHUNKED + chunked(*chunks)])[len(CHUNKED) :]) == plain
    between = body.split(OWN)
    edits = [OWN.join(between[:at]) + THEIRS + OWN.join(between[at:]) for at in range(1, len(between))]
    assert plain in (body, *edits)  # in one place at the most


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=300, deadline=None)
def test_noise_passes(noise: bytes, at: list[int]) -> None:
    for head in (CLOSING, CHUNKED):
        assert feed(cut(head + noise, at)) == head + noise
