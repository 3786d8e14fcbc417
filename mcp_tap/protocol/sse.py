"""Reads server-sent events from any cut of their bytes (WHATWG HTML, "Server-sent events" §9.2.6).

Lines end in CR, LF or CRLF, mixed as you like, and a piece may end anywhere: between CR and LF, inside a UTF-8
character, inside a field name. Each byte is looked at once, however many pieces a line comes in.

Nearly all events of MCP come whole, with one line of data, from servers that write them at once: those are not taken
apart line by line.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: Longer events are reported without their data. Python's SDK refuses events above 1 MiB.
MAX_EVENT: Final = 8 * 1024 * 1024

#: Types and ids are cut here: they are remembered long after their event.
MAX_FIELD: Final = 1024

_BOM: Final = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, gc=False):
    """One dispatched event. ``data`` is None where it was longer than MAX_EVENT, empty for a priming event."""

    type: str
    data: bytes | None
    id: str | None  # the id of this very event, None where it names none


class SseReader:
    """Turns pieces of an event stream into events. Comments and `retry` are passed over."""

    __slots__ = (
        "_after_cr", "_between", "_data", "_first", "_id", "_line", "_line_size", "_size", "_type",
        "last_id", "retry_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self._line = bytearray()  # the beginning of a line that has not ended
        self._line_size = 0
        self._after_cr = False  # the last piece ended in CR: an LF at the start of the next belongs to it
        self._first = True  # a BOM may stand before the first line
        self._between = True  # with the next byte an event may begin, and nothing is pending
        self._type = ""
        self._data: bytearray | None = None  # each line of data with an LF after it
        self._size = 0
        self._id: str | None = None
        self.last_id: str | None = None  # what a client would send as Last-Event-ID
        self.retry_ms: int | None = None

    @property
    def inside(self) -> bool:
        """Whether an event has begun and was not dispatched. At the end of a stream such a rest is discarded."""
        return bool(self._line) or self._data is not None

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Return the events that are complete with ``piece``."""
        events: list[SseEvent] = []
        if self._first and not self._line and piece[:1] not in (b"", b"\xef"):
            self._first = False
        if self._between and not self._first:
            piece = self._whole(piece, events)
        if not piece:
            return events
        if self._after_cr:
            self._after_cr = False
            if piece[0] == 0x0A:
                piece = piece[1:]
        for line in piece.splitlines(keepends=True):
            text = line.rstrip(b"\r\n")
            if len(text) == len(line):  # no line end yet
                self._keep(text)
                continue
            if self._line:
                self._keep(text)
                text = bytes(self._line)
                self._line.clear()
                if self._line_size > MAX_EVENT and text.startswith(b"data:"):
                    self._size = MAX_EVENT + 1
                self._line_size = 0
            if self._first:
                self._first = False
                text = text.removeprefix(_BOM)
            self._take(text, events)
        self._after_cr = piece.endswith(b"\r")
        self._between = not (self._after_cr or self._line or self._type) and self._data is None and self._id is None
        return events

    def _whole(self, piece: bytes, events: list[SseEvent]) -> bytes:
        """Take the events that begin and end in a piece, and return what is behind them."""
        if 0x0D in piece:
            plain = piece.replace(b"\r\n", b"\n")
            if 0x0D in plain:
                return piece
            piece = plain
        *blocks, rest = piece.split(b"\n\n")
        for block in blocks:
            data = block.removeprefix(b"event: message\n")
            if data.startswith(b"data: ") and 0x0A not in data and len(data) < MAX_EVENT:
                events.append(SseEvent("message", data[6:], None))
            else:
                for line in block.split(b"\n"):
                    self._take(line, events)
                self._dispatch(events)
        return rest

    def _keep(self, text: bytes) -> None:
        self._line_size += len(text)
        if self._line_size <= MAX_EVENT or not self._line:
            self._line += text  # of a line beyond the limit its beginning is enough to know the field

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            if self._data is None:
                self._data = bytearray()
            self._size += len(value) + 1
            if self._size <= MAX_EVENT + 1:
                self._data += value
                self._data += b"\n"
            else:
                self._data.clear()
        elif name == b"event":
            self._type = value[:MAX_FIELD].decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = self.last_id = value[:MAX_FIELD].decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 12:
            self.retry_ms = int(value)

    def _dispatch(self, events: list[SseEvent]) -> None:
        # an event without a data line is not dispatched, but its id still moves the cursor
        if self._data is not None:
            data = bytes(self._data[:-1]) if self._size <= MAX_EVENT + 1 else None
            events.append(SseEvent(self._type or "message", data, self._id))
        self._type, self._data, self._size, self._id = "", None, 0, None
