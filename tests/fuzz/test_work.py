"""Four times as much of the worst input costs four times the work, not sixteen; and what is held has a bound.

Work is processor time of this process, the least of three plays, and the bound lies half-way to square cost. How long
things take is measured in `benchmarks/`.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from mcp_tap.channel import Kind
from mcp_tap.protocol.exchange import MAX_BODY
from mcp_tap.protocol.http1 import MAX_HEAD
from mcp_tap.protocol.transcript import Step
from tests.fuzz.mutate import BOMBS, call, post
from tests.protocol.wire import Wire
from tests.transcripts.play import play

#: Of four times the input. Linear cost is 4, square cost 16.
MOST = 9.0

CALL = Step(Kind.CLIENT, 1, post(call(1)))
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
LISTEN = Step(Kind.CLIENT, 1, post(b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}'))


def sliced(data: bytes, size: int, kind: Kind = Kind.SERVER) -> Iterator[Step]:
    return (Step(kind, 1, data[at : at + size], 1) for at in range(0, len(data), size))


def answered(*pieces: Iterator[Step] | list[Step], head: bytes = STREAM) -> list[Step]:
    return [CALL, Step(Kind.SERVER, 1, head), *(step for part in pieces for step in part)]


def result(text: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"result":{"x":%s}}' % text


INPUTS: dict[str, tuple[int, Callable[[int], list[Step]]]] = {
    "a data line in many pieces": (
        20_000, lambda n: answered(sliced(b"data: " + result(b'"' + b"x" * n * 16 + b'"') + b"\n\n", 16)),
    ),
    "a data line byte by byte": (40_000, lambda n: answered(sliced(b"data: " + b"x" * n, 1))),
    "an event of many empty lines": (60_000, lambda n: answered(sliced(b"data:\n" * n, 4096))),
    "many tiny events": (8_000, lambda n: answered(sliced(b"data:\n\n" * n, 7))),
    "many messages": (
        2_000, lambda n: answered(sliced(b'data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n' * n, 4096)),
    ),
    "a body in tiny pieces": (40_000, lambda n: answered(sliced(result(b'"' + b"x" * n * 2 + b'"'), 2), head=JSON)),
    "a body in tiny chunks": (
        40_000,
        lambda n: answered(
            sliced(b"1\r\nx\r\n" * n, 4096), head=JSON[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        ),
    ),
    "a lasting answer without line ends": (
        20_000, lambda n: [LISTEN, Step(Kind.SERVER, 1, JSON), *sliced(b"x" * n * 64, 64)],
    ),
    "a request in tiny pieces": (40_000, lambda n: list(sliced(post(b'"' + b"x" * n * 2), 2, Kind.CLIENT))),
    "a head byte by byte": (
        50_000, lambda n: list(sliced(b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * (n // 6), 1, Kind.CLIENT)),
    ),
    "many heads that end in bare line feeds": (
        2_000, lambda n: [Step(Kind.CLIENT, 1, b"GET / HTTP/1.1\n\n" * n)],
    ),
    "trailers without end": (
        30_000,
        lambda n: answered(
            sliced(b"0\r\n" + b"A: b\r\n" * n, 4096), head=JSON[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
        ),
    ),
    "ids in flight": (1_500, lambda n: [Step(Kind.CLIENT, 1, b"".join(post(call(i)) for i in range(n)))]),
    "ids in flight, answered last first": (
        1_000,
        lambda n: [
            *(Step(Kind.CLIENT, i + 1, post(call(i)), 1) for i in range(n)),
            *(Step(Kind.SERVER, i + 1, JSON + b'{"jsonrpc":"2.0","id":%d,"result":{}}' % i, 1) for i in range(n)[::-1]),
        ],
    ),
    "requests of the server in flight": (
        1_500,
        lambda n: answered(
            [Step(Kind.SERVER, 1, b'data: {"jsonrpc":"2.0","id":%d,"method":"ping"}\n\n' % i, 1) for i in range(n)],
            [Step(Kind.CLIENT, 2, post(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % i), 1) for i in range(n)],
        ),
    ),
    "sessions on one TCP connection": (
        1_000,
        lambda n: [
            step
            for i in range(n * 2)
            for step in (
                Step(Kind.CLIENT, 1, post(call(1), session=b"S%d" % (i % n)), 1),
                Step(Kind.SERVER, 1, b"HTTP/1.1 204 X\r\n\r\n", 1),
            )
        ],
    ),
    "a large batch": (1_500, lambda n: [Step(Kind.CLIENT, 1, post(b"[" + b",".join(map(call, range(n))) + b"]"))]),
    "deep JSON": (
        10_000, lambda n: answered([Step(Kind.SERVER, 1, result(b"[" * n + b"]" * n))], head=JSON),
    ),
    "deep JSON in a request": (
        10_000,
        lambda n: [Step(Kind.CLIENT, 1, post(b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b'{"a":' * n))],
    ),
    "deep JSON in a tool": (
        2_000,
        lambda n: [
            Step(Kind.CLIENT, 1, post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')),
            Step(Kind.SERVER, 1, JSON + b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","x":%s}]}}'
                 % (b"[" * n + b"]" * n)),
            Step(Kind.SERVER_EOF, 1),
        ],
    ),
    "many tools": (
        200,
        lambda n: [
            Step(Kind.CLIENT, 1, post(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')),
            Step(Kind.SERVER, 1, JSON + b'{"jsonrpc":"2.0","id":1,"result":{"tools":[%s]}}'
                 % b",".join(b'{"name":"t%d","inputSchema":{"type":"object"}}' % i for i in range(n))),
            Step(Kind.SERVER_EOF, 1),
        ],
    ),
}  # fmt: skip


def work(steps: list[Step]) -> float:
    """Return the least processor time of three plays, in seconds."""
    times = []
    for _ in range(3):
        began = time.process_time()
        play(steps)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.matrix
@pytest.mark.parametrize("name", INPUTS)
def test_four_times_the_input_is_no_more_than_square_work(name: str) -> None:
    size, made = INPUTS[name]
    little, much = made(size), made(size * 4)
    ratio = work(much) / max(work(little), 0.005)  # what is quicker than that says nothing
    assert ratio < MOST


def test_square_work_would_be_found() -> None:
    def copying(n: int) -> float:
        began = time.process_time()
        data = b""
        for _ in range(n):
            data = bytes(bytearray(data)) + b"x" * 40
        return time.process_time() - began

    assert copying(24_000) / max(copying(6_000), 0.005) > MOST


CHUNKED = JSON[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"

#: What is held of each at most, in bytes, and the input.
HELD: dict[str, tuple[int, Callable[[], list[Step]]]] = {
    "a line without end": (6 * MAX_BODY, lambda: answered(sliced(b"data: " + b"x" * MAX_BODY * 2, 4000))),
    "lines without end": (2_000_000, lambda: answered(sliced(b"data:\n" * 300_000, 6000))),
    "a body without end": (6 * MAX_BODY, lambda: answered(sliced(b"x" * MAX_BODY * 2, 4000), head=JSON)),
    "a body in tiny chunks": (1_500_000, lambda: answered(sliced(b"2\r\nxy\r\n" * 50_000, 7000), head=CHUNKED)),
    "a request without end": (6 * MAX_BODY, lambda: list(sliced(post(b"x" * MAX_BODY * 2), 4000, Kind.CLIENT))),
    "a head without end": (4 * MAX_HEAD, lambda: list(sliced(b"x" * MAX_HEAD * 4, 1000, Kind.CLIENT))),
    "a lasting answer without end": (
        6 * MAX_BODY, lambda: [LISTEN, Step(Kind.SERVER, 1, JSON), *sliced(b"x" * MAX_BODY * 2, 4000)],
    ),
    "long heads, all different": (
        6 * MAX_BODY,
        lambda: [
            step
            for i in range(900)
            for step in (
                Step(Kind.CLIENT, 1, b"OPTIONS /%d HTTP/1.1\r\nX: %s\r\n\r\n" % (i, b"y" * 100_000)),
                Step(Kind.SERVER, 1, b"HTTP/1.1 204 X\r\n\r\n"),
            )
        ],
    ),
} | {
    f"bomb {number}": (6 * MAX_BODY, lambda bomb=bomb: [CALL, Step(Kind.SERVER, 1, bomb)])
    for number, bomb in enumerate(BOMBS)
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_has_a_bound(name: str) -> None:
    most, made = HELD[name]
    steps = made()
    wire = Wire()
    tracemalloc.start()
    try:
        play(steps, wire=wire)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most
