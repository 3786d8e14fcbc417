"""Framing comes to the same result wherever the bytes are cut, and never raises."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.relay.head import MAX_HEAD, Asked, Framing, Requests, Responses
from tests.relay.cases import CALL, CASES, CHUNKED, HOST, OK, SWITCHED, UPGRADE, answer, chunked, request

NEW = b"upstream.example"


def framing() -> Framing:
    return Framing(NEW, lambda value: value != b"evil")


def feed(pieces: list[bytes]) -> tuple[bytes, int | None, list[bytes]]:
    made = framing()
    out = b"".join(made.from_client(piece) for piece in pieces)
    refusal = made.requests.refusal
    return out + made.rest(), refusal and refusal.status, [asked.method for asked in made.requests.asked]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(offset % (len(data) + 1) for offset in at), len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if a < b]


PARTS = st.sampled_from(
    [
        CALL,
        request(b"GET"),
        request(b"HEAD"),
        b"\r\n",
        b"\n",
        CHUNKED + chunked(b"abc", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", trailers=b"A: b\r\n"),
        b"GET / HTTP/1.1\nhost:" + HOST + b"\n\n",
        request(body=b"Host: x\r\n\r\n" * 20),
        request(extra=b"Host: evil\r\n"),
        request(extra=b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        UPGRADE,
        CHUNKED + b"zz\r\n",
        b"\x16\x03\x01",
        b"POST",
    ]
)


@given(st.lists(PARTS, max_size=6), st.lists(st.integers(0, 5000), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same(parts: list[bytes], at: list[int]) -> None:
    data = b"".join(parts)
    assert feed(cut(data, at)) == feed([data])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8), st.sampled_from([b"", CHUNKED, CALL]))
@settings(max_examples=400, deadline=None)
def test_nothing_escapes_and_any_cut_gives_the_same(noise: bytes, at: list[int], before: bytes) -> None:
    data = before + noise
    assert feed(cut(data, at)) == feed([data])
    responses = Responses(deque([Asked(b"GET"), Asked(b"HEAD")]))
    assert b"".join(responses.feed(piece) for piece in cut(noise, at)) == noise


@given(st.lists(st.integers(0, 700), max_size=10))
@settings(deadline=None)
def test_responses_are_followed_for_any_cut(at: list[int]) -> None:
    stream = b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n" + answer(b"abc")
    stream += b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", b"HTTP/1.1 101 x\r\n\r\n")
    asked = deque(map(Asked, (b"GET", b"HEAD", b"POST", b"POST", b"GET")))
    responses = Responses(asked)
    assert b"".join(responses.feed(piece) for piece in cut(stream, at)) == stream
    assert (responses.following, responses.switched, responses.between) == (True, False, True)
    assert [each.method for each in asked] == [b"GET"]


def test_every_case_that_passes_is_edited_in_its_heads_only() -> None:
    out, status, _ = feed([CALL, CHUNKED + chunked(b"Host: " + HOST), CALL])
    assert status is None
    edited = CALL.replace(HOST, NEW)
    assert out == edited + CHUNKED.replace(HOST, NEW) + chunked(b"Host: " + HOST) + edited


def test_a_body_passes_without_a_copy() -> None:
    requests = Requests(NEW, lambda _: True)
    requests.feed(request(extra=b"Content-Length: 1000\r\n"))
    piece = b"x" * 500
    assert requests.feed(piece)[0] is piece


@pytest.mark.parametrize("size", [MAX_HEAD - 1, MAX_HEAD, MAX_HEAD + 1])
@pytest.mark.parametrize("step", [1 << 20, 4096, 60001])
def test_the_limit_of_a_head_is_exact(size: int, step: int) -> None:
    head = request(extra=b"X: \r\n")
    head = head.replace(b"X: ", b"X: " + b"y" * (size - len(head)))
    assert len(head) == size
    _, status, _ = feed([head[at : at + step] for at in range(0, size, step)])
    assert status == (431 if size > MAX_HEAD else None)


def test_what_cannot_become_a_request_is_refused_at_once() -> None:
    for start in (b"\x16", b"GET /\n", b"\r\n\r\n{", b"\rX", b"GET / HTTP/2.0\r\n"):
        assert feed([start])[1] == 400, start


def test_half_a_head_goes_on_when_the_client_has_gone() -> None:
    assert feed([CALL[:30]]) == (CALL[:30], None, [])


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    made = framing()
    made.from_client(CALL + CALL + b"\x00")
    assert made.requests.refusal is not None
    assert not made.refusal_due
    made.from_server(OK + OK[:-1])
    assert not made.refusal_due
    made.from_server(OK[-1:])
    assert made.refusal_due


def test_a_refusal_in_a_body_waits_for_the_answers_before_it_only() -> None:
    made = framing()
    made.from_client(CALL + CHUNKED + b"zz\r\n")
    assert not made.refusal_due
    made.from_server(OK)
    assert made.refusal_due


def test_what_follows_an_offer_to_switch_waits_for_the_decision() -> None:
    made = framing()
    assert made.from_client(UPGRADE + CALL) == UPGRADE.replace(HOST, NEW)
    assert made.holding
    assert made.from_server(OK) == OK
    assert made.releasable
    assert made.from_client(b"") == CALL.replace(HOST, NEW)

    made = framing()
    made.from_client(UPGRADE)
    full = []
    for piece in (b"x" * MAX_HEAD, b"x"):
        made.from_client(piece)
        full.append(made.full)
    made.from_server(OK)
    assert [*full, made.full] == [False, True, False]

    made = framing()
    made.from_client(UPGRADE + b"\x00opaque")
    made.from_server(SWITCHED)
    assert made.responses.switched
    assert made.rest() == b"\x00opaque"


@pytest.mark.parametrize(
    "response",
    [
        b"nonsense\r\n\r\n",
        OK + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000,
    ],
)
def test_a_response_that_cannot_be_followed_is_followed_no_longer(response: bytes) -> None:
    responses = Responses(deque([Asked(b"GET")]))
    assert responses.feed(response) == response
    assert not responses.following


def test_the_table_covers_the_refusals() -> None:
    assert {case.framed for case in CASES} == {None, 400, 421, 431}
