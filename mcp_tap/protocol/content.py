"""Undoes a `Content-Encoding` on the copy, piece by piece, with a bound on what comes out (RFC 9110 §8.4).

The traffic keeps its coding; only the record needs the plain bytes. A small body can unpack to gigabytes, so the
output of one body ends at MAX_PLAIN and the rest is not looked at.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import brotli
import zstandard

#: Plain bytes of one body that are looked at.
MAX_PLAIN: Final = 8 * 1024 * 1024

#: Codings of one body, one upon another. Real ones have one; each costs a decoder with a window of its own.
MAX_CODINGS: Final = 4

#: Members of gzip in one piece: each looks at the rest of the piece anew.
MAX_MEMBERS: Final = 256

#: Coded bytes given at once to a decoder that cannot be told how much it may put out: zstd makes at most 128 kB of 4.
_SLICE: Final = 128

#: The window that every zstd decoder should offer (RFC 8878 §3.1.1.1.2); more is memory that a stranger asks for.
_ZSTD_WINDOW: Final = 8 * 1024 * 1024


class ContentError(Exception):
    """The body cannot be decoded; the text says why."""


class TooLargeError(ContentError):
    """The plain body is longer than MAX_PLAIN."""


class Decoder:
    """Decodes one body. ``feed`` raises ContentError, after which the rest of the body is lost to the record."""

    __slots__ = ("_left", "_steps")

    def __init__(self, encoding: bytes | None) -> None:
        listed = (coding.strip().lower() for coding in (encoding or b"").split(b","))
        codings = [coding for coding in listed if coding not in (b"", b"identity")]
        if len(codings) > MAX_CODINGS:
            raise ContentError(f"{len(codings)} content codings")
        # codings are listed in the order in which they were applied: undo the last one first
        self._steps = [_step(coding) for coding in reversed(codings)]
        self._left = MAX_PLAIN

    def feed(self, data: bytes) -> bytes:
        """Return the plain bytes that ``data`` adds. Raises ContentError."""
        for step in self._steps:
            try:
                data = step(data, self._left + 1)
            except ContentError:
                raise
            except Exception as error:  # each library has errors of its own, and none may leave here  # noqa: BLE001
                raise ContentError(f"content coding: {error}") from None
        self._left -= len(data)
        if self._left < 0:
            raise TooLargeError(f"longer than {MAX_PLAIN // (1024 * 1024)} MB")
        return data


_Step = Callable[[bytes, int], bytes]


def _step(coding: bytes) -> _Step:
    if coding in (b"gzip", b"x-gzip"):
        return _inflate(zlib.MAX_WBITS | 16)
    if coding == b"deflate":
        return _deflate()
    if coding == b"br":
        return _brotli()
    if coding == b"zstd":
        # a server may begin a frame with each flush (RFC 8878 §3)
        zstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return _sliced(zstd.decompressobj(read_across_frames=True).decompress)
    raise ContentError(f"content coding {coding.decode('latin-1')[:40]!r} is not known")


def _inflate(wbits: int) -> _Step:
    decoder = zlib.decompressobj(wbits)
    gzip = wbits > zlib.MAX_WBITS

    def step(data: bytes, limit: int) -> bytes:
        nonlocal decoder
        plain = b""
        for _ in range(MAX_MEMBERS):
            if decoder.eof:
                # several members of gzip are one body (RFC 1952 §2.2); zeros may pad the last one
                data = data.lstrip(b"\0") if gzip else b""
                if not data:
                    return plain
                decoder = zlib.decompressobj(wbits)
            plain += decoder.decompress(data, limit - len(plain))
            if decoder.unconsumed_tail or len(plain) >= limit:
                raise TooLargeError(f"longer than {MAX_PLAIN // (1024 * 1024)} MB")
            if not decoder.eof:
                return plain
            data = decoder.unused_data
        raise ContentError("content coding: too many members in one piece")

    return step


def _deflate() -> _Step:
    """`deflate` is zlib's format by the book, but some servers send it without the wrapper (RFC 9110 §8.4.1.2)."""
    chosen: _Step | None = None

    def step(data: bytes, limit: int) -> bytes:
        nonlocal chosen
        if chosen is None:
            if not data:
                return b""
            chosen = _inflate(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        return chosen(data, limit)

    return step


def _brotli() -> _Step:
    decoder = brotli.Decompressor()

    def step(data: bytes, limit: int) -> bytes:
        plain: bytes = decoder.process(data, output_buffer_limit=limit)
        if not decoder.can_accept_more_data():
            raise TooLargeError(f"longer than {MAX_PLAIN // (1024 * 1024)} MB")
        return plain

    return step


def _sliced(decode: Callable[[bytes], bytes]) -> _Step:
    def step(data: bytes, limit: int) -> bytes:
        plain = bytearray()
        for at in range(0, len(data), _SLICE):
            plain += decode(data[at : at + _SLICE])
            if len(plain) >= limit:
                raise TooLargeError(f"longer than {MAX_PLAIN // (1024 * 1024)} MB")
        return bytes(plain)

    return step
