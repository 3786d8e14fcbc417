"""A picture with a palette shows what the picture showed."""

from __future__ import annotations

import struct
import zlib

import pytest

from .png import SIGNATURE, _chunk, _chunks, with_palette


def picture(rows: list[bytes], width: int) -> bytes:
    """Return a PNG of lines that begin with the number of their filter."""
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"".join(rows))) + _chunk(b"IEND", b"")


def colours(png: bytes, width: int) -> list[tuple[int, ...]]:
    """Return the colours of a picture with a palette, line by line."""
    chunks = dict(_chunks(png))
    palette = [tuple(chunks[b"PLTE"][at : at + 3]) for at in range(0, len(chunks[b"PLTE"]), 3)]
    data = zlib.decompress(chunks[b"IDAT"])
    return [palette[each] for at in range(0, len(data), width + 1) for each in data[at + 1 : at + 1 + width]]


@pytest.mark.parametrize(
    ("kind", "coded"),
    [(0, [10, 20, 30, 12, 24, 36]), (1, [10, 20, 30, 2, 4, 6]), (2, [9, 18, 27, 11, 22, 33]),
     (3, [10, 19, 29, 7, 13, 20]), (4, [9, 18, 27, 2, 4, 6])],
)  # fmt: skip
def test_every_filter_is_undone(kind: int, coded: list[int]) -> None:
    first = bytes([0, 1, 2, 3, 1, 2, 3])
    shown = colours(with_palette(picture([first, bytes([kind, *coded])], 2)), 2)
    assert shown == [(1, 2, 3), (1, 2, 3), (10, 20, 30), (12, 24, 36)]


def test_of_too_many_colours_those_unlike_others_are_kept() -> None:
    frequent = [bytes([0]) + bytes([n, 0, 0]) * 2 for n in range(256)]
    rare = bytes([0, 5, 0, 0, 200, 100, 0])
    shown = colours(with_palette(picture([*frequent, rare], 2)), 2)
    assert shown[-2:] == [(5, 0, 0), (200, 100, 0)]
    assert all(abs(red - number // 2) <= 1 for number, (red, _, _) in enumerate(shown[:-2]))
