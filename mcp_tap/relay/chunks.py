"""Chunked bodies (RFC 9112 §7.1): how far one goes, and where its data is. No I/O, no clock."""

from __future__ import annotations

import re
from typing import Final

#: A chunk-size line with its extensions; RFC 9112 §7.1.1 asks for some bound, real ones have a dozen bytes.
MAX_CHUNK_LINE: Final = 4 * 1024
#: Trailers of one body, as of a head.
MAX_TRAILERS: Final = 64 * 1024

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class Chunks:
    """Walks a chunked body (RFC 9112 §7.1) up to the end of its trailers."""

    __slots__ = ("_line", "_phase", "_trailers", "bad", "done", "left")

    def __init__(self) -> None:
        self.done = False
        self.bad = False
        self.left = 0  # bytes of chunk data still to come
        self._line = b""  # the start of a line that is not complete
        self._phase = "size"  # size | after (the line end behind the data) | trailer
        self._trailers = 0  # bytes of trailers so far

    def walk(self, data: bytes, at: int) -> int:
        """Return the offset behind what belongs to the body. Sets ``done`` at its end and ``bad`` where it is none."""
        size = len(data)
        while at < size and not (self.done or self.bad):
            at = self.skip(at, size) if self.left else self.line(data, at)
        return at

    @property
    def between(self) -> bool:
        """Whether the next byte is the first of a chunk's size."""
        return self._phase == "size" and not self._line and not self.left

    def skip(self, at: int, size: int) -> int:
        """Pass over chunk data in a piece of so many bytes; return the offset behind it."""
        step = min(self.left, size - at)
        self.left -= step
        return at + step

    def line(self, data: bytes, at: int) -> int:
        """Walk one line: a size, the end of the data, a trailer. Return the offset behind what there is of it."""
        room = MAX_CHUNK_LINE - len(self._line)
        end = data.find(b"\n", at, at + room)
        if end < 0:
            if len(data) - at >= room:
                self.bad = True
                return at + room
            self._line += data[at:]
            return len(data)
        line = (self._line + data[at:end]).removesuffix(b"\r")
        self._line = b""
        self._take(line)
        return end + 1

    def _take(self, line: bytes) -> None:
        if self._phase == "size":
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                self.bad = True
            elif size := int(match[1], 16):
                self.left, self._phase = size, "after"
            else:
                self._phase = "trailer"
        elif self._phase == "after":
            self.bad = line != b""
            self._phase = "size"
        elif line:
            self._trailers += len(line)
            self.bad = self._trailers > MAX_TRAILERS
        else:
            self.done = True
