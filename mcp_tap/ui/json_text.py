"""JSON as people read it: indented, in pieces that a page gives a colour each.

It works on the text, not on parsed values: numbers keep their digits, what is no JSON or was cut in the middle is shown
as far as it goes, and neither depth nor length costs more than what is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from mcp_tap.ui.text import harmless

#: Characters shown at most, of the whole and of one string in it.
MOST: Final = 24_000
MOST_OF_STRING: Final = 2_000

#: Deeper levels are shown, but not indented further.
DEEPEST: Final = 30

#: How the tap marks what it did not store.
REDACTED: Final = re.compile(r'"•••• \(redacted: ([^"()]{1,60})\)"')

_PART: Final = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*(?:\\?\Z|"))|(?P<mark>[{}\[\],:])|(?P<other>[^\s{}\[\],:"]+)', re.DOTALL
)


class Piece(NamedTuple):
    """A part of the text and what it is: "" punctuation, k key, s string, c number or word, red redacted, more cut."""

    kind: str
    text: str


def pieces(text: str, *, most: int = MOST) -> list[Piece]:
    """Return ``text`` indented and in pieces, at most about ``most`` characters of it; each piece is harmless."""
    found: list[Piece] = []
    length = 0
    # blanks between tokens cost nothing on the page, but they have to be read
    for piece, at in _laid_out(text[: most * 10]):
        if length > most:
            found.append(Piece("more", f"\n… {len(text) - at:,} more characters"))
            break
        found.append(piece)
        length += len(piece.text)
    else:
        if len(text) > most * 10:
            found.append(Piece("more", f"\n… {len(text) - most * 10:,} more characters"))
    return found


def _laid_out(text: str) -> Iterator[tuple[Piece, int]]:
    depth = 0
    opened = False  # right behind a bracket: an empty pair stays on one line
    for match in _PART.finditer(text):
        part, at = match[0], match.start()
        closing = part in {"}", "]"}
        if closing:
            depth = max(depth - 1, 0)
        if opened != closing:
            yield Piece("", "\n" + "  " * min(depth, DEEPEST)), at
        opened = part in {"{", "["}
        depth += opened
        if part == ",":
            yield Piece("", ",\n" + "  " * min(depth, DEEPEST)), at
        elif part == ":":
            yield Piece("", ": "), at
        elif match["mark"]:
            yield Piece("", part), at
        elif match["string"]:
            yield _string(part, key=_is_key(text, match.end())), at
        else:
            yield Piece("c", _clipped(harmless(part))), at


def _is_key(text: str, end: int) -> bool:
    # never over more than a few blanks: they may be a megabyte long
    return text[end : end + 20].lstrip(" \t\r\n").startswith(":")


def _string(text: str, *, key: bool) -> Piece:
    redacted = REDACTED.fullmatch(text)
    if redacted:
        return Piece("red", f"•••• redacted ({harmless(redacted[1])})")
    shown = text[: MOST_OF_STRING * 2]
    if "\\" in shown and len(shown) == len(text):
        try:
            # \u00e9 is é to people; what has to be escaped, is again
            shown = json.dumps(json.loads(text, strict=False), ensure_ascii=False)
        except ValueError:
            pass
    shown = harmless(shown)
    if len(shown) > MOST_OF_STRING:
        shown = f"{shown[:MOST_OF_STRING]}… {len(text) - MOST_OF_STRING:,} more characters"
    return Piece("k" if key else "s", shown)


def _clipped(text: str) -> str:
    return text if len(text) <= MOST_OF_STRING else f"{text[:MOST_OF_STRING]}…"


def plain(text: str, *, most: int = MOST) -> str:
    """Return a text that may have lines, each of them harmless, at most about ``most`` characters of it."""
    shown = "\n".join(harmless(line) for line in text[:most].expandtabs(4).splitlines())
    return f"{shown}\n… {len(text) - most:,} more characters" if len(text) > most else shown
