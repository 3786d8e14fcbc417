"""Makes conversations that nobody would have: transcripts with pieces cut, doubled, swapped, and words put in.

It knows what the bytes are made of (heads, lengths, chunks, events, JSON), so that most of what it makes gets past
the first parser and breaks something further on.
"""

from __future__ import annotations

import gzip
import itertools
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import brotli
import zstandard

from mcp_tap.channel import Closing, Kind
from mcp_tap.protocol.transcript import Step

TALK: Final = (Kind.CLIENT, Kind.SERVER, Kind.OWN)

_NUMBER: Final = re.compile(rb"-?\d+")
_STRING: Final = re.compile(rb'"[^"\\]{0,200}"')
# anchored: a megabyte without a line end would be searched from each of its bytes otherwise
_LINE: Final = re.compile(rb"^[^\n]*\n", re.MULTILINE)
_BLANK: Final = b"\r\n\r\n"

NUMBERS: Final = (
    b"0", b"-1", b"1", b"2", b"007", b"255", b"65536", b"2147483648", b"9223372036854775807", b"18446744073709551616",
    b"1" + b"0" * 40, b"1e999", b"1.0", b"-0", b"NaN", b"ffffffffffffffff", b"",
)  # fmt: skip
STRINGS: Final = (
    b'""', b"null", b"true", b"[]", b"{}", b"1", b'"1"', b'"\\u0000"', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\u202e"',
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"' + b"x" * 3000 + b'"', b'"initialize"', b'"tools/call"', b'"tasks/get"',
    b'"server/discover"', b'"subscriptions/listen"', b'"notifications/cancelled"', b'"notifications/progress"',
    b'"notifications/initialized"', b'"tools/list"', b'"result"', b'"error"', b'"method"', b'"id"', b'"params"',
    b'"_meta"', b'"progressToken"', b'"requestId"', b'"input_required"', b'"requestState"', b'"inputResponses"',
    b'"task"', b'"taskId"', b'"isError"', b'"content"', b'"password"', b'"Bearer abcdefghijklmnop"',
    b'"2024-11-05"', b'"2025-03-26"', b'"2025-11-25"', b'"2026-07-28"', b'"io.modelcontextprotocol/related-task"',
)  # fmt: skip
WORDS: Final = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\r", b"\n", b"\r\n", _BLANK, b"\n\n", b"\r\r", b" ", b"\t", b":", b",", b"\\",
    b'"', b"{", b"}", b"[", b"]", b"data:", b"data: ", b"id: 1\n", b"id:\n", b"id: \0\n", b"retry: 1\n", b": \n",
    b"event: endpoint\ndata: /messages?s=1\n\n", b"event: endpoint\r\ndata: http://other]/x\r\n\r\n", b"\xef\xbb\xbf",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"[" * 3000, b'{"a":' * 1500, b"[" * 1200 + b"]" * 1200, b"x" * 3000, b"A: b\r\n" * 300,
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}', b'[{"jsonrpc":"2.0","id":1,"method":"ping"},1,{}]',
)  # fmt: skip
HEADERS: Final = (
    b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 99999999999\r\n",
    b"content-length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Content-Encoding: gzip\r\n", b"Content-Encoding: deflate\r\n", b"Content-Encoding: br\r\n",
    b"Content-Encoding: zstd\r\n", b"Content-Encoding: gzip, gzip, br\r\n", b"Content-Type: text/event-stream\r\n",
    b"Content-Type: application/json\r\n", b"content-type: application/json;charset=utf-16\r\n",
    b"Mcp-Session-Id: S1\r\n", b"Mcp-Session-Id: S2\r\n", b"mcp-session-id: \xff\0\r\n", b"Mcp-Session-Id:\r\n",
    b"MCP-Protocol-Version: 2025-11-25\r\n", b"MCP-Protocol-Version: 2026-07-28\r\n", b"mcp-protocol-version: x\r\n",
    b"Last-Event-ID: p1\r\n", b"Last-Event-ID: \xff\r\n", b"Authorization: Bearer abcdefghijklmnop\r\n",
    b"Mcp-Name: =?base64?/w==?=\r\n", b"traceparent: 00-\r\n", b" folded\r\n", b"no colon\r\n", b": no name\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"Connection: close\r\n", b"X: " + b"y" * 70_000 + b"\r\n",
    b"X-Forwarded-For: 1.2.3.4, ::1, x\r\n", b"user-agent: \xc3\xbc\r\n",
)  # fmt: skip
TIMES: Final = (0, 1, 1000, 2_000_000, 61_000_000, 1_900_000_000, 90_000_000_000)
METHODS: Final = (b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT", b"FROB", b"PRI")
STATUSES: Final = (
    b"100",
    b"101",
    b"103",
    b"200",
    b"202",
    b"204",
    b"304",
    b"400",
    b"401",
    b"404",
    b"405",
    b"500",
    b"999",
)

_ZEROS: Final = bytes(9_000_000)
_LARGE: Final = b'{"jsonrpc":"2.0","id":1,"result":{"a":"' + b"a" * 300_000 + b'"}}'
BOMBS: Final = tuple(
    b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
    % (kind, coding, len(body))
    + body
    for coding, coded in (
        (b"gzip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"br", lambda data: brotli.compress(data, quality=1)),
        (b"zstd", zstandard.compress),
    )
    for kind, body in (
        (b"application/json", coded(_ZEROS)),
        (b"text/event-stream", coded(b"data: " + _LARGE + b"\n\n")),
    )
)


class Mutator:
    """Makes inputs from transcripts; the same random numbers make the same inputs."""

    def __init__(self, corpus: Sequence[Sequence[Step]]) -> None:
        self.corpus = corpus
        usual: list[_Mutation] = [
            _flip, _cut_out, _insert, _number, _string, _header, _drop_line, _start, _double, _swap, _drop, _splice,
            _split, _other_stream, _time, _end, _length, _join,
        ]  # fmt: skip
        self._mutations = [*usual * 40, _batch, _ids, _bomb]  # the last ones cost a thousand times as much

    def make(self, random: random.Random) -> list[Step]:
        """Return a conversation."""
        steps = list(random.choice(self.corpus))
        for _ in range(random.choice((1, 1, 2, 2, 3, 4, 8))):
            if not steps:
                break
            random.choice(self._mutations)(steps, random, self.corpus)
        return steps


_Mutation = Callable[[list[Step], random.Random, Sequence[Sequence[Step]]], None]


def _payload(change: Callable[[bytes, random.Random], bytes]) -> _Mutation:
    """Return the mutation that changes the bytes of one piece."""

    def mutate(steps: list[Step], random: random.Random, _corpus: Sequence[Sequence[Step]]) -> None:
        at = random.randrange(len(steps))
        step = steps[at]
        if step.kind in TALK and step.payload:
            steps[at] = replace(step, payload=change(step.payload, random))

    return mutate


def _steps(change: Callable[[list[Step], random.Random], None]) -> _Mutation:
    """Return the mutation that changes which steps there are."""
    return lambda steps, random, _corpus: change(steps, random)


# Bytes of one piece


@_payload
def _flip(data: bytes, random: random.Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


@_payload
def _cut_out(data: bytes, random: random.Random) -> bytes:
    start = random.randrange(len(data))
    end = random.choice((len(data), start + 1, start + random.randrange(1, 40)))
    return data[:start] + data[end:]


@_payload
def _insert(data: bytes, random: random.Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(WORDS) + data[at:]


def _one(pattern: re.Pattern[bytes], others: Sequence[bytes]) -> _Mutation:
    @_payload
    def mutate(data: bytes, random: random.Random) -> bytes:
        found = [match.span() for match in pattern.finditer(data)]
        if not found:
            return data
        start, end = random.choice(found)
        return data[:start] + random.choice(others) + data[end:]

    return mutate


_number = _one(_NUMBER, NUMBERS)
_string = _one(_STRING, STRINGS)
_drop_line = _one(_LINE, (b"", b"\r\n", b"\n"))


@_payload
def _header(data: bytes, random: random.Random) -> bytes:
    at = data.find(b"\n") + 1
    return data[:at] + random.choice(HEADERS) + data[at:]


@_payload
def _start(data: bytes, random: random.Random) -> bytes:
    """Ask for something else, or answer with another status."""
    word, space, rest = data.partition(b" ")
    if word.startswith(b"HTTP"):
        return word + space + random.choice(STATUSES) + rest[3:]
    return random.choice(METHODS) + space + rest


@_payload
def _length(data: bytes, random: random.Random) -> bytes:
    """Make the length fit again, so that what was done to the body is read as one."""
    head, blank, body = data.partition(_BLANK)
    return re.sub(rb"(?i)(content-length: *)\d+", rb"\g<1>%d" % len(body), head) + blank + body


# Which steps there are


@_steps
def _double(steps: list[Step], random: random.Random) -> None:
    steps.insert(random.randrange(len(steps) + 1), random.choice(steps))


@_steps
def _swap(steps: list[Step], random: random.Random) -> None:
    a, b = random.randrange(len(steps)), random.randrange(len(steps))
    steps[a], steps[b] = steps[b], steps[a]


@_steps
def _drop(steps: list[Step], random: random.Random) -> None:
    del steps[random.randrange(len(steps))]


def _splice(steps: list[Step], random: random.Random, corpus: Sequence[Sequence[Step]]) -> None:
    """Go on as in another conversation."""
    other = random.choice(corpus)
    at = random.randrange(len(other))
    steps[random.randrange(len(steps)) :] = other[at:]


@_steps
def _split(steps: list[Step], random: random.Random) -> None:
    at = random.randrange(len(steps))
    step = steps[at]
    if step.kind in TALK and len(step.payload) > 1:
        places = sorted({random.randrange(len(step.payload)) for _ in range(random.choice((1, 3, 20)))})
        ends = [0, *places, len(step.payload)]
        steps[at : at + 1] = [replace(step, payload=step.payload[a:b]) for a, b in itertools.pairwise(ends) if a < b]


@_steps
def _join(steps: list[Step], random: random.Random) -> None:
    at = random.randrange(len(steps))
    for step in steps[at + 1 : at + 4]:
        first = steps[at]
        if step.kind in TALK and (step.kind, step.stream) == (first.kind, first.stream):
            steps[at] = replace(first, payload=first.payload + step.payload)
            steps.remove(step)
            return


@_steps
def _other_stream(steps: list[Step], random: random.Random) -> None:
    at = random.randrange(len(steps))
    if steps[at].stream:
        steps[at] = replace(steps[at], stream=random.randrange(1, 4))


@_steps
def _time(steps: list[Step], random: random.Random) -> None:
    at = random.randrange(len(steps))
    steps[at] = replace(steps[at], after_us=random.choice(TIMES))


@_steps
def _end(steps: list[Step], random: random.Random) -> None:
    """Something else happens to a connection."""
    stream = random.randrange(1, 4)
    step = random.choice(
        [
            Step(Kind.CLIENT_EOF, stream),
            Step(Kind.SERVER_EOF, stream),
            Step(Kind.CLOSED, stream, Closing.END),
            Step(Kind.CLOSED, stream, Closing.CLIENT_RESET),
            Step(Kind.CLOSED, stream, Closing.SERVER_RESET),
            Step(Kind.CLOSED, stream, Closing.DRAIN),
            Step(Kind.CLOSED, stream, Closing.HALF_OPEN),
            Step(Kind.LOST, stream, b"2"),
            Step(Kind.OPEN, stream + 3, b"resumed"),
            Step(Kind.CONNECT_FAILED, stream, b"timed out"),
            Step(Kind.STOP),
        ]
    )
    steps.insert(random.randrange(len(steps) + 1), step)


# What is large


def post(body: bytes, *, session: bytes = b"S1") -> bytes:
    """Return a request in a session that most transcripts have."""
    head = b"POST /mcp HTTP/1.1\r\nMcp-Session-Id: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (session, len(body)) + body


def call(number: int) -> bytes:
    """Return a request whose id is that number."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number


@_steps
def _batch(steps: list[Step], random: random.Random) -> None:
    size = random.choice((100, 1000, 2000))
    body = b"[" + b",".join(call(number) for number in range(size)) + b"]"
    steps.insert(random.randrange(len(steps) + 1), Step(Kind.CLIENT, 1, post(body)))


@_steps
def _ids(steps: list[Step], random: random.Random) -> None:
    """Many requests, none of them answered."""
    requests = b"".join(post(call(number)) for number in range(random.choice((50, 500))))
    steps.insert(random.randrange(len(steps) + 1), Step(Kind.CLIENT, random.randrange(1, 4), requests))


@_steps
def _bomb(steps: list[Step], random: random.Random) -> None:
    steps.insert(random.randrange(len(steps) + 1), Step(Kind.SERVER, 1, random.choice(BOMBS)))
