"""Undoing content codings on the copy."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard

from mcp_tap.protocol import content
from mcp_tap.protocol.content import ContentError, Decoder, TooLargeError

TEXT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"' + b"lorem ipsum " * 300 + b'"}]}}'


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


CODED = {
    b"gzip": gzip.compress(TEXT),
    b"x-gzip": gzip.compress(TEXT),
    b"deflate": zlib.compress(TEXT),
    b"Deflate": raw_deflate(TEXT),
    b"br": brotli.compress(TEXT),
    b"zstd": zstandard.compress(TEXT),
    b"gzip ": gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:]) + bytes(9),  # two members, and padding
    b"zstd ": zstandard.compress(TEXT[:99]) + zstandard.compress(TEXT[99:]),  # a frame for each flush
    b"identity": TEXT,
    b"gzip, br": brotli.compress(gzip.compress(TEXT)),
}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_codings(coding: bytes, step: int) -> None:
    decoder = Decoder(coding)
    data = CODED[coding]
    assert b"".join(decoder.feed(data[i : i + step]) for i in range(0, len(data), step)) == TEXT


def test_an_unknown_coding_says_so() -> None:
    with pytest.raises(ContentError, match="'rot13' is not known"):
        Decoder(b"rot13")


def test_more_codings_than_anybody_applies_are_refused() -> None:
    with pytest.raises(ContentError, match="9 content codings"):
        Decoder(b", ".join([b"gzip"] * 9))


def test_members_without_end_are_refused() -> None:
    with pytest.raises(ContentError, match="too many members"):
        Decoder(b"gzip").feed(gzip.compress(b"") * 1000)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_garbage_is_an_error_of_ours(coding: bytes) -> None:
    with pytest.raises(ContentError):
        Decoder(coding).feed(b"\x99this is no compressed body at all" * 20)


@pytest.mark.interpreted
@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_a_bomb_ends_at_the_bound(monkeypatch: pytest.MonkeyPatch, coding: bytes) -> None:
    monkeypatch.setattr(content, "MAX_PLAIN", 1_000_000)
    zeros = bytes(64_000_000)
    bomb = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress, b"zstd": zstandard.compress}[
        coding
    ](zeros)
    decoder = Decoder(coding)
    seen = 0
    with pytest.raises(TooLargeError):
        for i in range(0, len(bomb), 50):
            seen += len(decoder.feed(bomb[i : i + 50]))
    assert seen <= 1_000_000
