"""Counting ahead: the calls of an hour or a day that is over, as rows that pages over weeks read instead of all lines.

A cache. What is written into a past hour afterwards (a late answer, an abandoned call) takes the hour's figures away,
and they are made again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_tap.model import Kind, Status
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite import histogram
from mcp_tap.store.sqlite.tallies import DAY, HOUR, Range, Tally, Who, bounds, clients_of

if TYPE_CHECKING:
    from mcp_tap.model import Event
    from mcp_tap.store.sqlite.statements import Statements

#: An hour is counted when it has been over for this long: most late answers are there by then.
GRACE_US: Final = 10 * 60 * 1_000_000

#: Seconds of reading after which a call leaves the rest to the next one.
_ENOUGH: Final = 0.1

_TALLY: Final = """
INSERT INTO tally (span, start_us, type, name, client_name, client_version, calls, errors, last_us, streak, latency,
    latency_failed) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? WHERE ? > (SELECT coalesce(pruned_before, '') FROM store)
"""
_FOLDED: Final = """
INSERT INTO folded (span, start_us) SELECT ?, ? WHERE ? > (SELECT coalesce(pruned_before, '') FROM store)
"""
_PRUNED_BEFORE: Final = "SELECT coalesce(pruned_before, '') FROM store"
_UNDO: Final = (
    "DELETE FROM tally WHERE span = ? AND start_us = ?",
    "DELETE FROM folded WHERE span = ? AND start_us = ?",
)
_UNDO_BEFORE: Final = ("DELETE FROM tally WHERE start_us < ?", "DELETE FROM folded WHERE start_us < ?")
_CALLS: Final = queries.CALLS.format(
    columns="timeline.type, timeline.name, timeline.connection, ", source="timeline", where="1"
)

_Key = Callable[[tuple[Any, ...]], tuple[Any, ...]]


def _of_all(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:2], None, None)


#: What is counted in which spans: type, name, client and version of a call as `_calls` gives it.
_HOURS: Final[dict[str, _Key]] = {"hour": _of_all}
_DAYS: Final[dict[str, _Key]] = {
    "day": _of_all,
    "client day": lambda row: row[:4],
    "client": lambda row: ("", None, *row[2:4]),
}


class Fold(NamedTuple):
    """The figures of one span of time."""

    span: str
    start_us: int
    rows: list[tuple[Any, ...]]


def folds(db: sqlite3.Connection, now_us: int) -> list[Fold]:
    """Return the figures of spans that are over and not counted yet, the oldest first, as many as fit in a moment."""
    whole = bounds(db, Filter())
    until = time.monotonic() + _ENOUGH
    pruned_before: str = db.execute(_PRUNED_BEFORE).fetchone()[0]
    found: list[Fold] = []
    for length, keys in ((HOUR, _HOURS), (DAY, _DAYS)):
        range_ = (whole.start - length, whole.end)
        done = {span: {at for (at,) in db.execute(queries.FOLDED, (span, *range_))} for span in keys}
        over = min(now_us - GRACE_US, whole.end) // length * length
        for start in range(whole.start // length * length, over, length):
            missing = [span for span in keys if start not in done[span]]
            if not missing or iso(start) <= pruned_before:
                continue
            read = _calls(db, Range(start, start + length))
            found += [Fold(span, start, _counted(span, start, read, keys[span])) for span in missing]
            if time.monotonic() > until:
                return found
    return found


def _calls(db: sqlite3.Connection, piece: Range) -> list[tuple[Any, ...]]:
    """Return every call of a piece of time in its order: type, name, client, at_us, failed, duration_us."""
    read = db.execute(_CALLS, (iso(piece.start), iso(piece.end))).fetchall()
    # a lookup for each connection instead of a join for each call
    who = clients_of(db, {row[2] for row in read})
    nobody: Who = (None, None)
    return [(*row[:2], *who.get(row[2], nobody), *row[3:]) for row in read]


def _counted(span: str, start_us: int, read: list[tuple[Any, ...]], key: _Key) -> list[tuple[Any, ...]]:
    grouped: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for row in read:
        grouped.setdefault(key(row), []).append(row)
    found = []
    for columns, calls in grouped.items():
        tally = Tally()
        tally.add_calls(calls)
        spread = (histogram.pack(tally.latency), histogram.pack(tally.latency_failed))
        found.append((span, start_us, *columns, tally.calls, tally.errors, tally.last_us, tally.streak, *spread))
    return found


def kept(made: Iterable[Fold]) -> Statements:
    """Return what stores figures.

    Not those of a span from which something was pruned, maybe by another process and after it was read: in the very
    transaction that stores it, a span has to begin after all that is gone.
    """
    made = list(made)
    return [
        (_TALLY, [(*row, iso(fold.start_us)) for fold in made for row in fold.rows]),
        (_FOLDED, [(fold.span, fold.start_us, iso(fold.start_us)) for fold in made]),
    ]


def spans_of(moments: Iterable[int]) -> set[tuple[str, int]]:
    """Return the spans that moments lie in."""
    return {
        (span, at_us // length * length)
        for at_us in moments
        for span, length in (("hour", HOUR), ("day", DAY), ("client day", DAY), ("client", DAY))
    }


def undone(spans: Iterable[tuple[str, int]]) -> Statements:
    """Return what takes the figures of spans away."""
    those: list[tuple[Any, ...]] = list(spans)
    return [(sql, those) for sql in _UNDO]


def undone_before(before_us: int) -> Statements:
    """Return what takes the figures of everything away that began before a moment."""
    return [(sql, [(before_us,)]) for sql in _UNDO_BEFORE]


def counts(event: Event) -> bool:
    """Whether a line is in the figures, or may be."""
    return event.kind is Kind.REQUEST and event.status is not Status.WAITING
