"""The table of cases: what clients and servers do to each other on one connection."""

from __future__ import annotations

from tests.relay.script import Case, Step, close, drip, end, fin, mark, read, rst, send, until

HOST = b"localhost:6278"


def request(
    method: bytes = b"POST", body: bytes = b"", extra: bytes = b"", target: bytes = b"/mcp", length: bool = True
) -> bytes:
    size = b"Content-Length: %d\r\n" % len(body) if body and length else b""
    return method + b" " + target + b" HTTP/1.1\r\nHost: " + HOST + b"\r\n" + extra + size + b"\r\n" + body


def answer(body: bytes = b"", status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n" % len(body) + extra + b"\r\n" + body


def chunked(*chunks: bytes, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n" + trailers + b"\r\n"


CALL = request(body=b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}')
OK = answer(b'{"jsonrpc":"2.0","id":1,"result":{}}', extra=b"Content-Type: application/json\r\n")
CHUNKED = request(extra=b"Transfer-Encoding: chunked\r\n")
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DECOY = b"GET / HTTP/1.1\r\nHost: decoy\r\n\r\n"  # in a body: looks like a head and must not be edited


def exchange(name: str, ask: bytes, reply: bytes = OK) -> Case:
    """One request, one answer, and the client leaves."""
    steps = [send(ask), read(len(reply)), fin, end, close]
    return Case(name, steps, [read(len(ask)), send(reply), end, close], in_turn=True)


def dripped(name: str, ask: bytes, reply: bytes, size: int = 1) -> Case:
    steps = [drip(ask, size), read(len(reply)), fin, end]
    return Case(name, steps, [read(len(ask)), drip(reply, size), end, close], in_turn=True)


def refused(
    name: str, ask: bytes, status: int = 400, *, passed: bytes = b"", reply: bytes = answer(status=b"400 Bad Request")
) -> Case:
    """Something that framed mode does not let through; blind mode passes it, and the server answers and closes."""
    return Case(
        name,
        [send(ask), end, close],
        [read(len(ask)), send(reply), fin, end, close],
        framed=status,
        passed=passed,
    )


def endpoint(name: str, head: bytes, events: bytes, edited: bytes, step: Step) -> Case:
    """A stream of the 2024-11-05 transport, until its client has had the first message."""
    steps = [send(request(b"GET", target=b"/sse")), read(head), read(events[-20:]), fin, end, close]
    server = [read(b"\r\n\r\n"), send(head), step, end, close]
    return Case(name, steps, server, edited=head + edited if edited != events else b"", in_turn=True)


def ending(name: str, client: list[Step], server: list[Step]) -> Case:
    return Case(name, client, server)


BIG = bytes(range(256)) * 4096  # 1 MB
EVENT = b'event: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/progress"}\r\n\r\n'
SSE = STREAM + chunked(EVENT, b": ping\r\n\r\n", EVENT)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
UPGRADE = request(b"GET", extra=b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT example:443 HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
EXPECT = request(body=b"x" * 3000, extra=b"Expect: 100-continue\r\n")
EXPECT_HEAD, EXPECT_BODY = EXPECT[:-3000], EXPECT[-3000:]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

SENT_HOST = b"upstream.example:81"  # in framed mode
ABSOLUTE = b"event: endpoint\r\ndata: http://" + SENT_HOST + b"/messages/?session_id=1\r\n\r\n"
EDITED = ABSOLUTE.replace(SENT_HOST, HOST)
RELATIVE = ABSOLUTE.replace(b"http://" + SENT_HOST, b"")
FOREIGN = ABSOLUTE.replace(SENT_HOST, b"elsewhere.example")
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def chunks(*data: bytes) -> bytes:
    return chunked(*data).removesuffix(b"0\r\n\r\n")


#: Name, head, what the server sends behind it, what a client gets of that in framed mode.
ENDPOINTS = [
    ("absolute endpoint", STREAM, chunks(ABSOLUTE, EVENT), chunks(EDITED, EVENT)),
    ("absolute endpoint, then more in its chunk", STREAM, chunks(ABSOLUTE + EVENT), chunks(EDITED + EVENT)),
    ("absolute endpoint in three chunks", STREAM, chunks(ABSOLUTE[:9], ABSOLUTE[9:40], ABSOLUTE[40:] + EVENT),
     chunks(EDITED + EVENT)),
    ("absolute endpoint after a comment", STREAM, chunks(b": hi\n\n", ABSOLUTE, EVENT),
     chunks(b": hi\n\n", EDITED, EVENT)),
    ("absolute endpoint until close", UNTIL_CLOSE, ABSOLUTE + EVENT, EDITED + EVENT),
    ("relative endpoint", STREAM, chunks(RELATIVE, EVENT), chunks(RELATIVE, EVENT)),
    ("endpoint elsewhere", STREAM, chunks(FOREIGN, EVENT), chunks(FOREIGN, EVENT)),
    ("a second endpoint event", STREAM, chunks(EVENT[:-2] + b": x\r\n\r\n", ABSOLUTE, EVENT),
     chunks(EVENT[:-2] + b": x\r\n\r\n", ABSOLUTE, EVENT)),
]  # fmt: skip

CASES: list[Case] = [
    # -- plain exchanges
    exchange("POST and JSON answer", CALL),
    exchange("GET", request(b"GET")),
    exchange("DELETE with an empty answer", request(b"DELETE"), answer()),
    exchange("OPTIONS *", request(b"OPTIONS", target=b"*"), answer(extra=b"Allow: POST\r\n")),
    exchange("absolute-form target", request(b"GET", target=b"http://" + HOST + b"/mcp").replace(HOST, b"other", 1)),
    exchange("odd method", request(b"FROB-IT")),
    exchange("target with odd bytes", request(b"GET", target=b"/a/../%7e?x=%00&\xff\xfe|^")),
    exchange("HEAD with a length", request(b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
    Case(
        "HEAD and then GET on the same connection",
        [send(request(b"HEAD")), read(b"\r\n\r\n"), send(request(b"GET")), read(OK), fin, end],
        [
            read(b"\r\n\r\n"),
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            read(b"GET /mcp"),
            send(OK),
            end,
            close,
        ],
    ),
    exchange("204", CALL, b"HTTP/1.1 204 No Content\r\n\r\n"),
    exchange("304 with a length", request(b"GET"), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
    exchange("202 without a body", CALL, answer(status=b"202 Accepted")),
    exchange(
        "401 with two challenges",
        CALL,
        answer(b"no", b"401 Unauthorized", b"WWW-Authenticate: Bearer\r\nWWW-Authenticate: Basic\r\n"),
    ),
    exchange(
        "404 in a modern error", CALL, answer(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601}}', b"404 Not Found")
    ),
    exchange("redirect", CALL, answer(b"", b"307 Temporary Redirect", b"Location: /mcp/\r\n")),
    exchange("gzip body", CALL, answer(b"\x1f\x8b\x08\x00" + bytes(40), extra=b"Content-Encoding: gzip\r\n")),
    # -- several requests
    Case(
        "keep-alive: three exchanges in turn",
        [send(CALL), read(len(OK)), send(CALL), read(2 * len(OK)), send(CALL), read(3 * len(OK)), fin, end],
        [read(len(CALL)), send(OK), read(2 * len(CALL)), send(OK), read(3 * len(CALL)), send(OK), end, close],
    ),
    Case(
        "two pipelined requests",
        [send(CALL + CALL), read(2 * len(OK)), fin, end],
        [read(2 * len(CALL)), send(OK + OK), end, close],
    ),
    Case(
        "twenty pipelined in one piece",
        [send(CALL * 20), read(20 * len(OK)), fin, end],
        [read(20 * len(CALL)), send(OK * 20), end, close],
    ),
    Case(
        "pipelined, cut anywhere",
        [drip(CALL * 5, 7), read(5 * len(OK)), fin, end],
        [read(5 * len(CALL)), drip(OK * 5, 11), end, close],
    ),
    Case(
        "pipelined behind a chunked body",
        [send(CHUNKED + chunked(b"abc", DECOY) + CALL), read(2 * len(OK)), fin, end],
        [read(b"tools/call"), send(OK * 2), end, close],
    ),
    Case(
        "two requests, then gone at the last byte",
        [send(CALL), read(len(OK)), send(CALL), read(2 * len(OK)), close],
        [read(len(CALL)), send(OK), read(2 * len(CALL)), send(OK), end, close],
    ),
    Case(
        "empty line between requests",
        [send(CALL + b"\r\n" + CALL), read(2 * len(OK)), fin, end],
        [read(2 * len(CALL) + 2), send(OK + OK), end, close],
    ),
    # -- HTTP/1.0 and answers that end by close
    Case(
        "HTTP/1.0 without Host",
        [send(b"GET / HTTP/1.0\r\n\r\n"), end, close],
        [read(18), send(b"HTTP/1.0 200 OK\r\n\r\nhello"), close],
    ),
    Case(
        "HTTP/1.0 with keep-alive",
        [
            send(b"GET / HTTP/1.0\r\nHost: " + HOST + b"\r\nConnection: keep-alive\r\n\r\n"),
            read(b"hello"),
            send(b"GET / HTTP/1.0\r\n\r\n"),
            end,
            close,
        ],
        [
            read(b"\r\n\r\n"),
            send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"),
            read(b"GET / HTTP/1.0\r\n\r\n"),
            send(b"HTTP/1.0 200 OK\r\n\r\nbye"),
            close,
        ],
    ),
    Case(
        "answer that ends by close",
        [send(CALL), end, close],
        [read(len(CALL)), send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"), close],
    ),
    Case(
        "large answer that ends by close",
        [send(CALL), end, close],
        [read(len(CALL)), send(b"HTTP/1.1 200 OK\r\n\r\n" + BIG), close],
    ),
    Case(
        "answer that ends by shutdown",
        [send(CALL), end, fin],
        [read(len(CALL)), send(b"HTTP/1.1 200 OK\r\n\r\nhello"), fin, end, close],
    ),
    Case("HTTP/0.9 answer", [send(CALL), end, close], [read(len(CALL)), send(b"hello"), close]),
    # -- interim answers
    Case(
        "Expect: 100-continue, accepted",
        [send(EXPECT_HEAD), read(CONTINUE), send(EXPECT_BODY), read(OK), fin, end],
        [read(b"\r\n\r\n"), send(CONTINUE), read(len(EXPECT)), send(OK), end, close],
    ),
    Case(
        "Expect: 100-continue, 417",
        [send(EXPECT_HEAD), read(b"417"), close],
        [read(b"\r\n\r\n"), send(answer(b"no", b"417 Expectation Failed")), end, close],
    ),
    Case(
        "Expect: 100-continue, 413 and closed",
        [send(EXPECT_HEAD), end, close],
        [read(b"\r\n\r\n"), send(answer(b"no", b"413 Content Too Large", b"Connection: close\r\n")), close],
    ),
    Case(
        "Expect: 100-continue, not awaited",
        [send(EXPECT), read(OK), fin, end],
        [read(len(EXPECT)), send(CONTINUE + OK), end, close],
    ),
    exchange("102 and then the answer", CALL, b"HTTP/1.1 102 Processing\r\n\r\n" + OK),
    exchange("103 early hints", CALL, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + OK),
    # -- chunked requests
    exchange("chunked request", CHUNKED + chunked(b"hello", b"world")),
    exchange("chunk extensions", CHUNKED + chunked(b"hello", b"w" * 300, extension=b' ; a="b" ;c')),
    exchange("trailers", CHUNKED + chunked(b"hello", trailers=b"X-Sum: 1\r\nHost: decoy\r\n")),
    exchange("a head inside a chunk", CHUNKED + chunked(DECOY, DECOY)),
    exchange("a head inside a counted body", request(body=DECOY * 3)),
    exchange("upper-case and padded chunk sizes", CHUNKED + b"0000A\r\n0123456789\r\n000\r\n\r\n"),
    exchange("chunk lines with a bare LF", CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    dripped("chunked request, byte by byte", CHUNKED + chunked(b"hello", b"world", trailers=b"A: b\r\n"), OK),
    dripped("chunked request, cut at 3", CHUNKED + chunked(b"hello" * 9, b"world"), OK, 3),
    exchange("large chunked request", CHUNKED + chunked(BIG[:300000], BIG[:70000])),
    exchange("large counted request", request(body=BIG)),
    # -- event streams
    exchange("event stream", CALL, SSE),
    dripped("event stream, byte by byte", CALL, SSE),
    Case(
        "open GET stream that the client leaves",
        [send(request(b"GET")), read(EVENT), close],
        [read(b"\r\n\r\n"), send(STREAM + b"%x\r\n" % len(EVENT) + EVENT + b"\r\n"), end, close],
    ),
    Case(
        "client gone after the event, before the last chunk",
        [send(CALL), read(EVENT), close],
        [read(len(CALL)), send(SSE[:-5]), end, send(b"0\r\n\r\n"), close],
    ),
    Case(
        "head of a stream without a body yet",
        [send(request(b"GET")), read(STREAM), mark("client"), end, close],
        [read(b"\r\n\r\n"), send(STREAM), until("client"), send(b"0\r\n\r\n"), close],
    ),
    # -- the endpoint event of the 2024-11-05 transport
    *(
        endpoint(f"{name}, {how}", head, events, edited, step)
        for name, head, events, edited in ENDPOINTS
        for how, step in (("in one piece", send(events)), ("byte by byte", drip(events)))
    ),
    # -- switching protocols
    Case(
        "101 and then opaque both ways",
        [send(UPGRADE), read(SWITCHED), send(b"\x00\x01Host: decoy\r\n\r\n"), read(b"pong"), fin, end],
        [read(b"\r\n\r\n"), send(SWITCHED), read(b"decoy\r\n\r\n"), send(b"\xffpong"), end, close],
    ),
    Case(
        "101 with bytes behind it",
        [send(UPGRADE), read(b"early"), send(b"\x16late"), fin, end],
        [read(b"\r\n\r\n"), send(SWITCHED + b"early"), read(b"late"), end, close],
    ),
    exchange("h2c offer with a body, not taken", request(body=b'{"id":1}', extra=H2C)),
    Case(
        "h2c offer, not taken, then the next request",
        [send(request(body=b"{}", extra=H2C)), read(OK), send(CALL), read(2 * len(OK)), fin, end],
        [read(b"{}"), send(OK), read(b"tools/call"), send(OK), end, close],
    ),
    Case(
        "h2c offer and a pipelined request",
        [send(request(body=b"{}", extra=H2C) + CALL), read(2 * len(OK)), fin, end],
        [read(b"{}"), send(OK), read(b"tools/call"), send(OK), end, close],
    ),
    Case(
        "CONNECT, granted",
        [send(CONNECT), read(b"\r\n\r\n"), send(b"\x16\x03\x01tunnel"), read(b"back"), fin, end],
        [read(b"\r\n\r\n"), send(b"HTTP/1.1 200 Connected\r\n\r\n"), read(b"tunnel"), send(b"back"), end, close],
    ),
    Case(
        "CONNECT, denied, then a request",
        [send(CONNECT), read(b"405"), send(CALL), read(OK), fin, end],
        [read(b"\r\n\r\n"), send(answer(b"", b"405 Method Not Allowed")), read(b"tools/call"), send(OK), end, close],
    ),
    # -- ends
    ending("nothing at all", [close], [end, close]),
    ending("connected and left open", [mark("connected")], [until("connected")]),
    ending("half-closed client is still answered", [send(CALL), fin, end, close], [end, send(OK), close]),
    ending("half-closed client that asked to switch", [send(UPGRADE), fin, end, close], [end, send(OK), close]),
    ending("half-closed client, large answer", [send(CALL), fin, end, close], [end, send(answer(BIG)), close]),
    ending(
        "half-closed server still reads",
        [send(CALL[:-4]), end, send(CALL[-4:]), fin],
        [read(len(CALL) - 4), fin, read(len(CALL)), end, close],
    ),
    ending(
        "server closes an idle connection", [send(CALL), read(len(OK)), end, close], [read(len(CALL)), send(OK), close]
    ),
    ending("server closes before any request", [end, close], [close]),
    ending("server closes on the request", [send(CALL), end, close], [read(len(CALL)), close]),
    ending(
        "server closes in the middle of a head",
        [send(CALL), end, close],
        [read(len(CALL)), send(b"HTTP/1.1 200 OK\r\nContent-"), close],
    ),
    ending("server closes in the middle of a body", [send(CALL), end, close], [read(len(CALL)), send(OK[:-3]), close]),
    ending("server resets on the request", [send(CALL), end], [read(len(CALL)), rst]),
    ending(
        "server resets in the middle of a body",
        [send(CALL), read(len(OK) - 3), mark("client"), end],
        [read(len(CALL)), send(OK[:-3]), until("client"), rst],
    ),
    ending(
        "server resets in the middle of an event stream",
        [send(CALL), read(EVENT), mark("client"), end],
        [read(len(CALL)), send(STREAM + b"%x\r\n" % len(EVENT) + EVENT + b"\r\n"), until("client"), rst],
    ),
    ending(
        "server resets an idle connection",
        [send(CALL), read(OK), mark("client"), end],
        [read(len(CALL)), send(OK), until("client"), rst],
    ),
    ending("bytes, then at once a reset", [send(CALL), end], [read(len(CALL)), send(OK), rst]),
    ending(
        "client resets in the middle of a request",
        [send(CALL[:-5]), until("server"), rst],
        [read(len(CALL) - 5), mark("server"), end],
    ),
    ending(
        "client resets before the answer's head",
        [send(CALL), until("server"), rst],
        [read(len(CALL)), mark("server"), end],
    ),
    ending(
        "client resets in the middle of a stream",
        [send(CALL), read(EVENT), rst],
        [read(len(CALL)), send(SSE[:-5]), end],
    ),
    ending(
        "client resets in the middle of a large body",
        [send(request(body=BIG)[:500000]), until("server"), rst],
        [read(500000), mark("server"), end],
    ),
    ending("client closes in the middle of a request", [send(CALL[:-5]), close], [end, close]),
    ending("client closes in the middle of a head", [send(CALL[:20]), close], [end, close]),
    ending(
        "both close at the same time",
        [send(CALL), read(len(OK)), mark("client"), until("server"), close],
        [read(len(CALL)), send(OK), mark("server"), until("client"), close],
    ),
    ending(
        "early 413 with a lingering close",
        [send(request(body=BIG)[:-1]), read(b"413"), end, close],
        [
            read(b"\r\n\r\n"),
            send(answer(b"too much", b"413 Content Too Large", b"Connection: close\r\n")),
            fin,
            read(len(request(body=BIG)) - 1),
            close,
        ],
    ),
    ending("left open after an exchange", [send(CALL), read(len(OK))], [read(len(CALL)), send(OK)]),
    # -- slow and large
    Case(
        "slow reader",
        [send(CALL), until("server"), end, close],
        [read(len(CALL)), send(answer(BIG[:60000])), mark("server"), send(BIG * 3), close],
    ),
    Case(
        "slow server",
        [mark("client"), send(request(body=BIG * 2)), read(OK), fin, end],
        [until("client"), read(len(request(body=BIG * 2))), send(OK), end, close],
    ),
    Case(
        "large both ways at once",
        [send(request(body=BIG)), read(len(answer(BIG))), fin, end],
        [read(100000), read(len(request(body=BIG))), send(answer(BIG)), end, close],
    ),
    # -- odd heads
    exchange("bare LF heads", b"GET / HTTP/1.1\nHost: " + HOST + b"\nA: b\n\n"),
    exchange("mixed line ends", b"GET / HTTP/1.1\r\nHost: " + HOST + b"\nA: b\r\n\n"),
    exchange("folded header", b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\nX: a\r\n  folded\r\n\tHost: decoy\r\n\r\n"),
    exchange("three hundred headers", request(extra=b"".join(b"X-%d: y\r\n" % n for n in range(300)))),
    exchange("a header of 60 kB", request(extra=b"X: " + b"y" * 60000 + b"\r\n")),
    exchange("lower-case host", request().replace(b"Host:", b"host:")),
    exchange("upper-case host without a space", request().replace(b"Host: ", b"HOST:")),
    exchange("host with odd white space", request().replace(b"Host: " + HOST, b"Host:\t  " + HOST + b" \t")),
    exchange("host as the last header", b"GET / HTTP/1.1\r\nA: b\r\nX-Host: decoy\r\nHost: " + HOST + b"\r\n\r\n"),
    exchange("host twice", request(extra=b"Host: " + HOST + b"\r\n"), answer(b"", b"400 Bad Request")),
    exchange("no host in HTTP/1.1", b"GET / HTTP/1.1\r\nA: b\r\n\r\n", answer(b"", b"400 Bad Request")),
    exchange(
        "host value also elsewhere",
        request(extra=b"Origin: http://decoy\r\nReferer: http://decoy/\r\n", target=b"/?Host:%20decoy"),
    ),
    exchange("header bytes beyond ASCII", request(extra=b"X-Name: \xe4\xf6\xfc \xf0\x9f\x98\x80\r\n")),
    exchange("a header line without a colon", request(extra=b"nonsense\r\n"), answer(b"", b"400 Bad Request")),
    exchange("content-length twice, the same", request(body=b"abc", extra=b"content-length: 3\r\n")),
    exchange("spaces before the version", b"GET /  HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"),
    # -- what framed mode refuses
    refused("garbage", b"\x00\x01\x02\x03 nonsense\r\n\r\n"),
    refused("text that is no request", b"hello server\r\nhow are you\r\n\r\n"),
    refused("TLS client hello", bytes.fromhex("16030100c8010000c40303") + bytes(180)),
    refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("HTTP/0.9 request", b"GET /\r\n"),
    refused("conflicting lengths", request(body=b"abc", extra=b"Content-Length: 4\r\n")),
    refused("length that is no number", request(extra=b"Content-Length: +3\r\n") + b"abc"),
    refused(
        "length and chunks", request(extra=b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n") + chunked(b"abc")
    ),
    refused("chunks not last", request(extra=b"Transfer-Encoding: chunked, gzip\r\n")),
    refused("chunks in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a")),
    refused("white space before the colon", request(extra=b"Content-Length : 3\r\n") + b"abc"),
    refused("folded length", request(extra=b"Content-Length: 3\r\n 0\r\n") + b"abc"),
    refused("bare CR in a header", request(extra=b"X: a\rb\r\n")),
    refused("chunk size that is no number", CHUNKED + b"3\r\nabc\r\nxyz\r\n", passed=CHUNKED + b"3\r\nabc\r\nxyz\r\n"),
    Case(
        "refused only after the answers before it",
        [send(CALL + b"nonsense\r\n\r\n"), end, close],
        [read(len(CALL)), send(OK), fin, end, close],
        framed=400,
        passed=CALL,
        first=OK,
    ),
    refused("head of 100 kB", request(extra=b"X: " + b"y" * 100_000 + b"\r\n"), 431),
    refused("foreign host", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
]
