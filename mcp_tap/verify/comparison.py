"""What differs between answers that came directly and answers that came through the tap, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcp_tap.model import Era
from mcp_tap.ui.text import counted
from mcp_tap.verify.conversation import ENDS, Answer

#: Seconds by which a connection has to end later in every round to count as ending late.
LATE: Final = 0.25

#: What may vary as a whole: an id, a date, a number. What stands between is compared.
_TOKEN: Final = re.compile(rb"[\w.:+/=-]+|.", re.DOTALL)


@dataclass(slots=True)
class Compared:
    """One exchange: what it is, what varies by itself, and what differs, in words."""

    era: Era
    exchange: str
    status: int = 0
    bytes: int = 0
    varies: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def compare(era: Era, name: str, direct: Sequence[Answer], tapped: Sequence[Answer]) -> Compared:
    """Compare the answers to one request through the tap with those that came without it."""
    found = Compared(era, name, direct[0].status, len(direct[0].head) + len(direct[0].body))
    for what, of in _ASPECTS.items():
        _compare(found, what, [of(answer) for answer in direct], [of(answer) for answer in tapped])
    names = {tuple(field for field, _ in answer.fields) for answer in (*direct, *tapped)}
    if len(names) == 1:
        for index, field_name in enumerate(names.pop()):
            label = f"header {field_name.decode('latin-1')}"
            values = [[answer.fields[index][1] for answer in side] for side in (direct, tapped)]
            _compare(found, label, *values)
    open_streams = all(answer.end == "left" for answer in (*direct, *tapped))
    _compare_bodies(found, [answer.body for answer in direct], [answer.body for answer in tapped], cut=open_streams)
    lag = min(answer.lag for answer in tapped) - max(answer.lag for answer in direct)
    if lag > LATE:
        found.differences.append(f"the connection ends {lag:.2f} s later than directly")
    return found


_ASPECTS: Final[dict[str, Callable[[Answer], bytes]]] = {
    "status line": lambda answer: answer.status_line,
    "header names": lambda answer: b", ".join(name for name, _ in answer.fields),
    "end": lambda answer: ENDS[answer.end].encode(),
    "connection": lambda answer: b"the one before it" if answer.reused else b"a new one",
}


def _compare(found: Compared, what: str, direct: list[bytes], tapped: list[bytes]) -> None:
    if len(set(direct)) > 1:
        found.varies.append(what)
        return
    different = [value for value in tapped if value != direct[0]]
    if different:
        found.differences.append(_in_words(what, direct[0], different[0], len(different), len(tapped)))


def _compare_bodies(found: Compared, direct: list[bytes], tapped: list[bytes], *, cut: bool) -> None:
    """Compare token by token where ids or times vary inside. ``cut``: as far as an open stream was read each time."""
    if not cut and len({*direct, *tapped}) == 1:
        return
    read = [_TOKEN.findall(body) for body in (*direct, *tapped)]
    if cut:
        least = max(min(map(len, read)) - 1, 0)  # the last token may be half of one
        read = [tokens[:least] for tokens in read]
    alone, through = read[: len(direct)], read[len(direct) :]
    if len({len(tokens) for tokens in alone}) > 1:
        found.varies.append("body (as a whole)")
        return
    varying = {index for index, tokens in enumerate(zip(*alone, strict=True)) if len(set(tokens)) > 1}
    if varying:
        found.varies.append(f"{counted(len(varying), 'value')} in the body")

    def steady(tokens: list[bytes]) -> bytes:
        return b"".join(token for index, token in enumerate(tokens) if index not in varying)

    expected = steady(alone[0])
    different = [body for body in map(steady, through) if body != expected]
    if different:
        found.differences.append(_in_words("body", expected, different[0], len(different), len(tapped)))


def _in_words(what: str, direct: bytes, tapped: bytes, times: int, of: int) -> str:
    """Say what differs, with an excerpt of both around the first byte that does."""
    same = next((i for i, (a, b) in enumerate(zip(direct, tapped, strict=False)) if a != b), None)
    at = min(len(direct), len(tapped)) if same is None else same
    where = f" at byte {at:,}" if what == "body" else ""
    rounds = "" if times == of else f" (in {times} of {of} rounds)"
    return f"{what} differs{where}{rounds}: directly {_excerpt(direct, at)}, through the tap {_excerpt(tapped, at)}"


def _excerpt(data: bytes, at: int) -> str:
    start, stop = max(at - 24, 0), at + 40
    shown = data[start:stop].decode("utf-8", "backslashreplace")
    if not shown:
        return "nothing"
    return f"{'…' if start else ''}{json.dumps(shown, ensure_ascii=False)}{'…' if stop < len(data) else ''}"
