"""Text for people: what came over the wire made harmless, and quantities in words.

Names, error texts and bodies are written by whoever sits at the other end of the wire. A terminal obeys escape
sequences (ECMA-48), and bidirectional marks (UAX #9) show an order that is not there: both are shown as what they
are, never obeyed. Everything a terminal gets from us goes through `harmless` or `json_line`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import orjson

#: Printable by their category and yet blank on a screen: fillers, joiners, selectors.
_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")

#: More combining marks than this in a row have no use in any script and paint over the lines around them.
_MARKS: Final = 2

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

ELLIPSIS: Final = "…"


def _escaped(char: str) -> str:
    """Return a character as people write it in source code, by its number."""
    point = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Yield each character as it may be shown, and the columns it takes."""
    marks = _MARKS  # a mark with nothing of the text before it would land on what we wrote ourselves
    for char in text:
        if " " <= char <= "~":
            marks = 0
            yield char, 1
        elif unicodedata.category(char) in {"Mn", "Me"} and char not in _BLANK and marks < _MARKS:
            marks += 1
            yield char, 0
        elif not char.isprintable() or char in _BLANK or unicodedata.category(char) in {"Mn", "Me"}:
            marks = _MARKS
            escaped = _escaped(char)
            yield escaped, len(escaped)
        else:
            marks = 0
            yield char, 2 if unicodedata.east_asian_width(char) in "WF" else 1


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes that went through `harmless`."""
    return len(text) if text.isascii() else sum(width for _, width in _pieces(text))


def harmless(text: str, limit: int | None = None) -> str:
    """Return ``text`` as one line that no terminal obeys, at most ``limit`` columns wide.

    Control characters, escapes, bidirectional and zero-width marks and line ends become visible escapes; a text that
    was cut ends in "…".
    """
    if text.isascii() and text.isprintable() and (limit is None or len(text) <= limit):
        return text
    if limit is None:
        return "".join(shown for shown, _ in _pieces(text))
    if limit <= 0:
        return ""
    kept: list[tuple[str, int]] = []
    used = 0
    for shown, width in _pieces(text):
        if used + width > limit:
            while kept and used > limit - 1:
                used -= kept.pop()[1]
            return "".join(piece for piece, _ in kept) + ELLIPSIS
        kept.append((shown, width))
        used += width
    return "".join(piece for piece, _ in kept)


def left(text: str, width: int) -> str:
    """Return the harmless text in exactly ``width`` columns, at their left side."""
    shown = harmless(text, width)
    return shown + " " * (width - columns(shown))


def right(text: str, width: int) -> str:
    """Return the harmless text in exactly ``width`` columns, at their right side."""
    shown = harmless(text, width)
    return " " * (width - columns(shown)) + shown


def json_line(value: Any, *, indent: bool = False) -> str:
    """Return ``value`` as JSON that no terminal obeys either: the same value, unprintable characters escaped.

    Such characters stand only inside strings, where JSON has an escape for each of them (RFC 8259 §7). With
    ``indent`` the JSON has lines, without it is one.
    """
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, half of a surrogate pair: JSON has both
        text = json.dumps(value, default=str, indent=2 if indent else None)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        char if char == "\n" or (char.isprintable() and char not in _BLANK) else _json_escaped(char) for char in text
    )


def _json_escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


# ----------------------------------------------------------------------------------------------------- quantities


def duration(ms: float | None) -> str:
    """Return milliseconds in words: 0.4 ms, 42 ms, 2.34 s, 46 s, 3 min 20 s, 5 h 2 min, 3 d 4 h."""
    if ms is None:
        return ""
    if ms < 9.95:
        return f"{ms:.1f} ms".replace(".0 ", " ")
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = whole // 60
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // 1440} d {minutes // 60 % 24} h"
    )


def size(count: int | None) -> str:
    """Return bytes in words, in powers of ten: 147 B, 8.0 kB, 3.1 MB."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5 or unit == "TB":
            break
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 call, 2 calls."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def spaced(written: str) -> str:
    """Return a quantity of a filter as people write it: 24h is 24 h, 500ms is 500 ms, 15m is 15 min."""
    return re.sub(r"(?<=\d)(?=[a-zA-Z])", " ", written) + ("in" if re.search(r"\dm$", written) else "")


def local(time: str | None, form: str) -> str:
    """Return a recorded time (UTC, ISO 8601) in the local zone, written as ``form`` of `strftime`, ``%f`` in ms."""
    if not time:
        return ""
    try:
        moment = datetime.fromisoformat(time).astimezone()
    except (ValueError, OverflowError):
        return harmless(str(time))
    return moment.strftime(form.replace("%f", f"{moment.microsecond // 1000:03d}"))
