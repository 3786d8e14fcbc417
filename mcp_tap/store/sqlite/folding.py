"""Counting ahead: the calls of an hour or a day that is over, as rows that pages over weeks read instead of all lines.

A cache. What is written into a past hour afterwards (a late answer, an abandoned call) takes the hour's figures away,
and they are made again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_tap.model import Kind, Status
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.filters import Filter
from mcp_tap.store.sqlite import histogram
from mcp_tap.store.sqlite.tallies import DAY, HOUR, Asked, Key, Range, Tally, add_calls, bounds, calls

if TYPE_CHECKING:
    from mcp_tap.model import Event

#: An hour is counted when it has been over for this long: most late answers are there by then.
GRACE_US: Final = 10 * 60 * 1_000_000

#: Seconds of reading after which a call leaves the rest to the next one.
_ENOUGH: Final = 0.1

_TALLY: Final = """
INSERT INTO tally (span, start_us, type, name, client_name, client_version, calls, errors, last_us, streak, latency,
    latency_failed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_FOLDED: Final = "INSERT INTO folded (span, start_us) VALUES (?, ?)"
_UNDO: Final = (
    "DELETE FROM tally WHERE span = ? AND start_us = ?",
    "DELETE FROM folded WHERE span = ? AND start_us = ?",
)
_UNDO_BEFORE: Final = ("DELETE FROM tally WHERE start_us < ?", "DELETE FROM folded WHERE start_us < ?")
_BY_TYPE: Final = ("type", "name")
_BY_CLIENT: Final = (*_BY_TYPE, "client_name", "client_version")


class Fold(NamedTuple):
    """The figures of one span of time."""

    span: str
    start_us: int
    rows: list[tuple[Any, ...]]


#: What one transaction runs: each statement with all of its rows.
Work = list[tuple[str, list[tuple[Any, ...]]]]


def folds(db: sqlite3.Connection, now_us: int) -> list[Fold]:
    """Return the figures of spans that are over and not counted yet, the oldest first, as many as fit in a moment."""
    whole = bounds(db, Filter())
    until = time.monotonic() + _ENOUGH
    found: list[Fold] = []
    for length, counts in ((HOUR, {"hour": _BY_TYPE}), (DAY, {"day": _BY_TYPE, "client day": _BY_CLIENT})):
        done = {at for (at,) in db.execute(queries.FOLDED, (next(iter(counts)), whole.start - length, whole.end))}
        over = min(now_us - GRACE_US, whole.end) // length * length
        for start in range(whole.start // length * length, over, length):
            if start in done:
                continue
            read = calls(db, Asked(Filter(), b""), Range(start, start + length), _BY_CLIENT)
            for span, by in counts.items():
                counted: dict[Key, Tally] = {}
                rows = read if by == _BY_CLIENT else [(*row[:2], *row[-3:]) for row in read]
                add_calls(counted, rows, by)
                found.append(Fold(span, start, [_row(span, start, *item) for item in counted.items()]))
            if time.monotonic() > until:
                return found
    return found


def _row(span: str, start_us: int, key: Key, tally: Tally) -> tuple[Any, ...]:
    spread = (histogram.pack(tally.latency), histogram.pack(tally.latency_failed))
    return (span, start_us, *key[1:], tally.calls, tally.errors, tally.last_us, tally.streak, *spread)


def kept(made: Iterable[Fold]) -> Work:
    """Return what stores figures."""
    made = list(made)
    return [
        (_TALLY, [row for fold in made for row in fold.rows]),
        (_FOLDED, [(fold.span, fold.start_us) for fold in made]),
    ]


def spans_of(moments: Iterable[int]) -> set[tuple[str, int]]:
    """Return the spans that moments lie in."""
    return {
        (span, at_us // length * length)
        for at_us in moments
        for span, length in (("hour", HOUR), ("day", DAY), ("client day", DAY))
    }


def undone(spans: Iterable[tuple[str, int]]) -> Work:
    """Return what takes the figures of spans away."""
    those: list[tuple[Any, ...]] = list(spans)
    return [(sql, those) for sql in _UNDO]


def undone_before(before_us: int) -> Work:
    """Return what takes the figures of everything away that began before a moment."""
    return [(sql, [(before_us,)]) for sql in _UNDO_BEFORE]


def counts(event: Event) -> bool:
    """Whether a line is in the figures, or may be."""
    return event.kind is Kind.REQUEST and event.status is not Status.WAITING
