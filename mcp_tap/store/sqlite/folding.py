"""Counting ahead: the calls of an hour or a day that is over, as rows that pages over weeks read instead of all lines.

A cache. What is written into a past hour afterwards (a late answer, an abandoned call) takes the hour's figures away,
and they are made again. A day is made of its hours, so that no line is read twice and no day is held in memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_tap.model import Kind, Status
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite import histogram
from mcp_tap.store.sqlite.tallies import DAY, HOUR, Range, Tally, Who, bounds, clients_of

if TYPE_CHECKING:
    from mcp_tap.model import Event
    from mcp_tap.store.sqlite.statements import Statements, Values

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

#: The figures of a span, each as `mcp_tap.store.sqlite.tallies.Tally.add_counted` takes it.
_OF_SPAN: Final = """
SELECT type, name, client_name, client_version, calls, errors, last_us, streak, latency, latency_failed FROM tally
WHERE span = ? AND start_us >= ? AND start_us < ? ORDER BY start_us
"""
_FORGET: Final = (
    "DELETE FROM tally WHERE span = ? AND start_us >= ? AND start_us < ?",
    "DELETE FROM folded WHERE span = ? AND start_us >= ? AND start_us < ?",
)

#: What belongs together: type, name, client and version, as far as they tell apart.
_Columns = tuple[str, str | None, str | None, str | None]
_Key = Callable[[_Columns], _Columns]


def _of_all(columns: _Columns) -> _Columns:
    return (columns[0], columns[1], None, None)


def _of_each(columns: _Columns) -> _Columns:
    return columns


def _of_client(columns: _Columns) -> _Columns:
    return ("", None, columns[2], columns[3])


#: What is counted in an hour, from its lines, and in a day, from which of its hours.
_HOURS: Final[dict[str, _Key]] = {"hour": _of_all, "client hour": _of_each}
_DAYS: Final[dict[str, tuple[str, _Key]]] = {
    "day": ("hour", _of_all),
    "client day": ("client hour", _of_each),
    "client": ("client hour", _of_client),
}

#: How many lines are held at a time, and how many latencies of one tally.
_SLICE: Final = 20_000
_MANY: Final = 1000


class Fold(NamedTuple):
    """The figures of one span of time."""

    span: str
    start_us: int
    rows: list[tuple[Any, ...]]


def folds(db: sqlite3.Connection, now_us: int) -> list[Fold]:
    """Return the figures of spans that are over and not counted yet, the oldest first, as many as fit in a moment.

    Days only once all hours are stored.
    """
    whole = bounds(db, Filter())
    until = time.monotonic() + _ENOUGH
    pruned_before: str = db.execute(_PRUNED_BEFORE).fetchone()[0]
    done = {
        span: {at for (at,) in db.execute(queries.FOLDED, (span, whole.start - length, whole.end))}
        for spans, length in ((_HOURS, HOUR), (_DAYS, DAY))
        for span in spans
    }
    found: list[Fold] = []
    for start in _over(whole, now_us, HOUR):
        of_done_day = all(start // DAY * DAY in done[span] for span in _DAYS)  # it needs hours of all clients only
        missing = {"hour": _of_all} if of_done_day else _HOURS
        missing = {span: key for span, key in missing.items() if start not in done[span]}
        if missing and iso(start) > pruned_before:
            found += _of_hour(db, start, missing)
            if time.monotonic() > until:
                return found
    if found:
        return found
    for start in _over(whole, now_us, DAY):
        hours = set(range(max(start, whole.start // HOUR * HOUR), start + DAY, HOUR))
        days = [span for span, (of, _) in _DAYS.items() if start not in done[span] and hours <= done[of]]
        if days and iso(start) > pruned_before:
            found += [_of_day(db, start, span) for span in days]
            if time.monotonic() > until:
                return found
    return found


def _over(whole: Range, now_us: int, length: int) -> range:
    """Return where spans begin that are over."""
    return range(whole.start // length * length, min(now_us - GRACE_US, whole.end) // length * length, length)


def _of_hour(db: sqlite3.Connection, start_us: int, keys: dict[str, _Key]) -> list[Fold]:
    counted: dict[str, dict[_Columns, Tally]] = {span: {} for span in keys}
    for rows in _calls(db, Range(start_us, start_us + HOUR)):
        for span, key in keys.items():
            together: dict[_Columns, list[tuple[Any, ...]]] = {}
            for columns, row in rows:
                together.setdefault(key(columns), []).append(row)
            for columns, calls in together.items():
                counted[span].setdefault(columns, Tally(most=_MANY)).add_calls(calls)
    return [_fold(span, start_us, tallies) for span, tallies in counted.items()]


def _calls(db: sqlite3.Connection, piece: Range) -> Iterator[list[tuple[_Columns, tuple[Any, ...]]]]:
    """Give every call of a piece of time in its order, a slice at a time: what it is; at_us, failed, duration_us."""
    cursor = db.execute(_CALLS, (iso(piece.start), iso(piece.end)))
    who: dict[int | None, Who] = {None: (None, None)}
    while read := cursor.fetchmany(_SLICE):
        # a lookup for each connection instead of a join for each call
        missing = {row[2] for row in read} - who.keys()
        who |= dict.fromkeys(missing, (None, None)) | clients_of(db, missing)
        yield [((row[0], row[1], *who[row[2]]), row[3:]) for row in read]


def _of_day(db: sqlite3.Connection, start_us: int, span: str) -> Fold:
    of, key = _DAYS[span]
    tallies: dict[_Columns, Tally] = {}
    for *columns, calls, errors, last_us, streak, latency, failed in db.execute(
        _OF_SPAN, (of, start_us, start_us + DAY)
    ):
        tally = tallies.setdefault(key((columns[0], columns[1], columns[2], columns[3])), Tally())
        # a client's tools take turns: what failed last is not known of their hours
        tally.add_counted(calls, errors, last_us, 0 if key is _of_client else streak, latency, failed)
    return _fold(span, start_us, tallies)


def _fold(span: str, start_us: int, tallies: dict[_Columns, Tally]) -> Fold:
    rows = []
    for columns, tally in tallies.items():
        spread = (histogram.pack(tally.latency), histogram.pack(tally.latency_failed))
        rows.append((span, start_us, *columns, tally.calls, tally.errors, tally.last_us, tally.streak, *spread))
    return Fold(span, start_us, rows)


def kept(made: Iterable[Fold]) -> Statements:
    """Return what stores figures.

    Not those of a span from which something was pruned, maybe by another process and after it was read: in the very
    transaction that stores it, a span has to begin after all that is gone.
    """
    made = list(made)
    days: list[Values] = [
        ("client hour", start, start + DAY) for start in {fold.start_us for fold in made if fold.span in _DAYS}
    ]
    return [
        (_TALLY, [(*row, iso(fold.start_us)) for fold in made for row in fold.rows]),
        (_FOLDED, [(fold.span, fold.start_us, iso(fold.start_us)) for fold in made]),
        *((sql, days) for sql in _FORGET),  # nobody asks hours for what their day says
    ]


_LENGTHS: Final = dict.fromkeys(_HOURS, HOUR) | dict.fromkeys(_DAYS, DAY)


def spans_of(moments: Iterable[int]) -> set[tuple[str, int]]:
    """Return the spans that moments lie in."""
    return {(span, at_us // length * length) for at_us in moments for span, length in _LENGTHS.items()}


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
