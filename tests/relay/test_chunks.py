"""Chunked bodies are walked to the byte, wherever they are cut."""

from __future__ import annotations

import pytest

from mcp_tap.relay.chunks import MAX_TRAILERS, Chunks
from tests.relay.cases import CALL, chunked

BODY = chunked(b"hello", b"5\r\nworld\r\n0\r\n\r\n", extension=b" ;a", trailers=b"A: b\r\n")


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_the_end_is_found_to_the_byte(step: int) -> None:
    chunks = Chunks()
    walked = 0
    data = BODY + CALL
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        end = chunks.walk(piece, 0)
        walked += end
        if end < len(piece) or chunks.done:
            break
    assert chunks.done
    assert walked == len(BODY)


def test_between_chunks() -> None:
    chunks = Chunks()
    seen = [chunks.between for byte in chunked(b"ab", b"c") if chunks.walk(bytes([byte]), 0)]
    # behind each of the bytes: 2 \r \n a b \r \n
    assert seen[:7] == [False, False, False, False, False, False, True]


def test_trailers_have_a_bound() -> None:
    chunks = Chunks()
    chunks.walk(b"0\r\n" + b"A: b\r\n" * MAX_TRAILERS, 0)
    assert chunks.bad


@pytest.mark.parametrize("line", [b"", b"-1", b"0x5", b"5 5", b"g", b"1" * 17, b"5;" + b"x" * 5000])
def test_chunk_sizes_that_are_none(line: bytes) -> None:
    chunks = Chunks()
    chunks.walk(line + b"\r\n", 0)
    assert chunks.bad
