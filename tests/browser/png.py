"""PNG pictures of pages made small: pages have few colours, so a palette of 256 shows them as they are."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

Colour = tuple[int, int, int]


def with_palette(png: bytes) -> bytes:
    """Return a picture of 8-bit red, green and blue (PNG colour type 2) with at most 256 colours (type 3).

    The most frequent colours are kept and those unlike them; all others are shown by the nearest of these.
    """
    chunks = dict(_chunks(png))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    if (depth, kind) != (8, 2):
        raise ValueError(f"colour type {kind} with {depth} bits is not read here")
    rows = [*_rows(zlib.decompress(chunks[b"IDAT"]), width * 3, height)]
    pixels = [[*zip(row[::3], row[1::3], row[2::3], strict=True)] for row in rows]
    common = [colour for colour, _ in Counter(colour for row in pixels for colour in row).most_common()]
    palette = common[:192]
    rest = {colour: _distance(colour, palette[_nearest(colour, palette)]) for colour in common[192:]}
    while rest and len(palette) < 256:  # rare, and yet unlike all others
        new = max(rest, key=lambda colour: rest[colour])
        palette.append(new)
        rest = {colour: min(far, _distance(colour, new)) for colour, far in rest.items() if colour != new}
    index = {colour: number for number, colour in enumerate(palette)}
    index |= {colour: _nearest(colour, palette) for colour in rest}
    data = b"".join(b"\0" + bytes([index[colour] for colour in row]) for row in pixels)
    return SIGNATURE + b"".join((
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
        _chunk(b"IDAT", zlib.compress(data, 9)),
        _chunk(b"IEND", b""),
    ))  # fmt: skip


def _nearest(colour: Colour, palette: list[Colour]) -> int:
    distances = [_distance(colour, each) for each in palette]
    return distances.index(min(distances))


def _distance(one: Colour, other: Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks by name, those of the same name as one."""
    found: dict[bytes, bytes] = {}
    at = len(SIGNATURE)
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        found[name] = found.get(name, b"") + png[at + 8 : at + 8 + length]
        at += length + 12
    yield from found.items()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _rows(data: bytes, width: int, height: int) -> Iterator[bytearray]:
    """Yield the lines of a picture without their filters (PNG §9); ``width`` is in bytes, three to a pixel."""
    above = bytearray(width)
    for number in range(height):
        at = number * (width + 1)
        kind, row = data[at], bytearray(data[at + 1 : at + 1 + width])
        for x in range(width) if kind else ():
            left = row[x - 3] if x >= 3 else 0
            up, corner = above[x], above[x - 3] if x >= 3 else 0
            row[x] = (row[x] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[kind]) & 0xFF
        yield row
        above = row


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))
