"""Calls counted: from the lines of the timeline, and for past hours and days from what was counted ahead.

Both give the same counts; latencies are those that were stored where every line was read, else within 3 % of them.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.filters import Condition, Filter
from mcp_tap.store.rows import iso, microseconds
from mcp_tap.store.sqlite import histogram

HOUR: Final = 3600 * 1_000_000
DAY: Final = 24 * HOUR

#: What is counted ahead, longest first: of all clients together, and of each.
SPANS: Final = {"day": DAY, "hour": HOUR}
CLIENT_SPANS: Final = {"client day": DAY}

#: Words of a filter that hold for what was counted ahead, too.
_COUNTED: Final = frozenset({"tool", "method", "name", "client"})
_TIMES: Final = ("since", "from", "to")


class Range(NamedTuple):
    """From when to when, in microseconds; the end is outside."""

    start: int
    end: int


class Key(NamedTuple):
    """What calls are counted under."""

    part: int = 0  # which of several equal spans of time
    type: str | None = None
    name: str | None = None
    client_name: str | None = None
    client_version: str | None = None


class Cut(NamedTuple):
    """How a range is divided into equal parts."""

    start: int
    length: int
    parts: int

    def part(self, at_us: int) -> int:
        """Return which part a moment lies in; what lies outside belongs to the nearest one."""
        return min(self.parts - 1, max(0, (at_us - self.start) // self.length))


class Tally:
    """What is counted of calls that belong together. They are added in the order of time."""

    __slots__ = (
        "_durations",
        "_failed",
        "_latency",
        "_latency_failed",
        "calls",
        "errors",
        "exact",
        "last_us",
        "streak",
        "tool_calls",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.last_us = 0
        self.tool_calls = 0  # where they were counted at once
        self.streak = 0  # how many of the newest ones failed
        self.exact = True
        self._durations: list[int] = []
        self._failed: list[int] = []
        self._latency = self._latency_failed = 0

    def add_calls(self, rows: list[tuple[Any, ...]]) -> None:
        """Add calls: rows that end in when, whether it failed, how long it took."""
        failed = [row[-2] for row in rows]
        errors = sum(failed)
        self._join(len(rows), errors, rows[-1][-3], failed[::-1].index(0) if errors < len(rows) else errors)
        self._durations += [row[-1] for row in rows if row[-1] is not None]
        if errors:
            self._failed += [row[-1] for row in rows if row[-2] and row[-1] is not None]

    def add(self, other: Tally) -> None:
        """Add calls that are counted already."""
        if other.calls:
            self._join(other.calls, other.errors, other.last_us, other.streak)
            self._durations += other._durations
            self._failed += other._failed
            self._latency += other._latency
            self._latency_failed += other._latency_failed
            self.exact = self.exact and other.exact

    def add_at_once(self, calls: int, errors: int, tool_calls: int, durations: str, failed: str) -> None:
        """Add calls whose latencies are a JSON array, as are the marks of those that failed."""
        self._join(calls, errors, 0, 0)
        self.tool_calls += tool_calls
        read = orjson.loads(durations)
        if errors:
            marked = zip(read, orjson.loads(failed), strict=True)
            self._failed += [each for each, mark in marked if mark and each is not None]
        self._durations += [each for each in read if each is not None] if None in read else read

    def add_counted(self, calls: int, errors: int, last_us: int, streak: int, latency: Any, failed: Any) -> None:
        """Add what was counted ahead."""
        self._join(calls, errors, last_us, streak)
        if latency is not None:
            self._latency += histogram.unpack(latency)
        if failed is not None:
            self._latency_failed += histogram.unpack(failed)
        self.exact = False

    def _join(self, calls: int, errors: int, last_us: int, streak: int) -> None:
        self.calls += calls
        self.errors += errors
        self.last_us = max(self.last_us, last_us)
        self.streak = self.streak + streak if streak == calls else streak

    def percentiles(self) -> Row:
        """Return p50, p95 and p99 in milliseconds, None where nothing was measured."""
        names = ("p50_ms", "p95_ms", "p99_ms")
        if self._latency:
            return dict(zip(names, histogram.percentiles(self.latency, 50, 95, 99), strict=True))
        ordered = sorted(self._durations)
        return {name: _nearest(ordered, q) for name, q in zip(names, (50, 95, 99), strict=True)}

    @property
    def latency(self) -> int:
        """The histogram of all."""
        return self._latency + histogram.histogram(self._durations)

    @property
    def latency_failed(self) -> int:
        """The histogram of those that failed."""
        return self._latency_failed + histogram.histogram(self._failed)


def _nearest(ordered: list[int], q: int) -> float | None:
    """Return the value that ``q`` percent do not exceed: one that was measured, none in between."""
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)] / 1000 if ordered else None


class Asked(NamedTuple):
    """A filter, and what it is asked of."""

    where: Filter
    session_key: bytes  # of the recording
    tool: str | None = None  # to the letter, whatever stars and commas are in its name

    @property
    def events(self) -> Condition:
        """The condition on lines."""
        return self._with_tool(self.where.events(self.session_key))

    @property
    def sessions(self) -> Condition:
        """The condition on connections."""
        return self.where.sessions(self.session_key)

    @property
    def apart_from_time(self) -> Condition:
        """The condition on lines without the range of time."""
        terms = tuple(term for term in self.where.terms if term.negated or term.key not in _TIMES)
        return self._with_tool(Filter(terms, self.where.now_us).events(self.session_key))

    @property
    def range_alone(self) -> Condition:
        """The range of time alone."""
        return self.where.only(*_TIMES).events()

    def _with_tool(self, condition: Condition) -> Condition:
        sql, values = condition
        return (sql, values) if self.tool is None else (f"{sql} AND timeline.name = ?", (*values, self.tool))

    def counted_ahead(self, *, clients: bool) -> bool:
        """Whether everything that it asks for was counted ahead."""
        keys = {term.key for term in self.where.terms} - {*_TIMES}
        ranged = not any(term.negated for term in self.where.terms if term.key in _TIMES)
        return ranged and keys <= (_COUNTED if clients else _COUNTED - {"client"})


def bounds(db: sqlite3.Connection, where: Filter) -> Range:
    """Return the range of a filter; where it names none, that of the recording."""
    since, until = where.since_us, where.until_us
    if since is None or (until is None and not where.now_us):
        first, last = db.execute(queries.BOUNDS).fetchone()
        since = since if since is not None else microseconds(first) if first else where.now_us
        until = until if until is not None else microseconds(last) + 1000 if last else since + 1
    end = until if until is not None else where.now_us
    # times of lines are compared as text, to the millisecond
    return Range(since - since % 1000, max(end - end % 1000, since - since % 1000 + 1000))


# ------------------------------------------------------------------------------------------------------- counting


class Reading:
    """The calls of a range, to be counted in several ways: lines are read once."""

    def __init__(self, db: sqlite3.Connection, asked: Asked, whole: Range | None = None) -> None:
        self.whole = bounds(db, asked.where) if whole is None else whole
        self._db = db
        self._asked = asked
        self._read: dict[tuple[Range, tuple[str, ...]], list[tuple[Any, ...]]] = {}

    def tallies(self, by: tuple[str, ...], *, cut: Cut | None = None, latency: bool = True) -> dict[Key, Tally]:
        """Return the calls counted by some of `Key` and, with ``cut``, by part of the range.

        Without ``latency`` only counts and times are right.
        """
        found: dict[Key, Tally] = {}
        form = queries.TALLIES if latency else queries.TALLIES_TOGETHER
        for name, piece in self._pieces(cut, clients="client_name" in by):
            if name is None:
                add_calls(found, self._calls(piece, by), by, cut)
            else:
                _add_counted(self._db, found, self._asked, name, piece, by, cut, form)
        return found

    def at_once(self, cut: Cut | None = None) -> dict[int, Tally]:
        """Return all calls by part of the range, with the latencies of those that failed.

        Without a word about single tools or streaks, and quicker for that.
        """
        found: dict[Key, Tally] = {}
        for name, piece in self._pieces(cut, clients=False):
            if name is not None:
                counted: dict[Key, Tally] = {}
                _add_counted(self._db, counted, self._asked, name, piece, ("type",), cut, queries.TALLIES_FAILED)
                for key, tally in counted.items():
                    whole = _tally(found, Key(key.part))
                    whole.add(tally)
                    whole.tool_calls += tally.calls if key.type == "tools/call" else 0
                continue
            where, values = self._asked.apart_from_time
            sql = queries.CALLS_AT_ONCE.format(source=queries.events(where), where=where)
            for part, each in _parts(piece, cut):
                row = self._db.execute(sql, (iso(each.start), iso(each.end), *values)).fetchone()
                if row[0]:
                    _tally(found, Key(part)).add_at_once(*row)
        return {key.part: tally for key, tally in found.items()}

    def _calls(self, piece: Range, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
        for (read, columns), rows in self._read.items():
            if read == piece and columns[: len(by)] == by:
                return rows if columns == by else [(*row[: len(by)], *row[-3:]) for row in rows]
        rows = self._read[piece, by] = calls(self._db, self._asked, piece, by)
        return rows

    def _pieces(self, cut: Cut | None, *, clients: bool) -> Iterator[tuple[str | None, Range]]:
        clients = clients or any(term.key == "client" for term in self._asked.where.terms)
        names: dict[str, int] = {}
        if self._asked.counted_ahead(clients=clients):
            names = {
                name: length
                for name, length in (CLIENT_SPANS if clients else SPANS).items()
                if cut is None or not (cut.length % length or cut.start % length)
            }
        return _pieces(self._db, self.whole, names)


def calls(db: sqlite3.Connection, asked: Asked, piece: Range, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Return every call of a piece of time in its order: what it is counted under, at_us, failed, duration_us."""
    where, values = asked.apart_from_time
    clients = "client_name" in by
    columns = [f"timeline.{each}" for each in by if not each.startswith("client")]
    named = "".join(f"{column}, " for column in [*columns, *(["timeline.connection"] if clients else [])])
    sql = queries.CALLS.format(columns=named, source=queries.events(where), where=where)
    read = db.execute(sql, (iso(piece.start), iso(piece.end), *values)).fetchall()
    if not clients:
        return read
    # a lookup for each connection instead of a join for each call
    those = orjson.dumps([each for each in {row[-4] for row in read} if each is not None]).decode()
    who = {pk: (name, version) for pk, name, version in db.execute(queries.CLIENTS_OF, (those,))}
    return [(*row[:-4], *who.get(row[-4], (None, None)), *row[-3:]) for row in read]


def _parts(piece: Range, cut: Cut | None) -> Iterator[tuple[int, Range]]:
    """Divide a piece at the borders of the parts."""
    if cut is None:
        yield 0, piece
        return
    for part in range(cut.part(piece.start), cut.part(piece.end - 1) + 1):
        start = cut.start + part * cut.length
        yield part, Range(max(piece.start, start), min(piece.end, start + cut.length))


def add_calls(
    found: dict[Key, Tally], read: list[tuple[Any, ...]], by: tuple[str, ...], cut: Cut | None = None
) -> None:
    """Count calls as `calls` gave them."""
    grouped: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    width = len(by)
    if cut is None:
        for row in read:
            key = row[:width]
            if key in grouped:
                grouped[key].append(row)
            else:
                grouped[key] = [row]
    else:
        start, length = cut.start, cut.length
        for row in read:
            key = (*row[:width], (row[-3] - start) // length)
            if key in grouped:
                grouped[key].append(row)
            else:
                grouped[key] = [row]
    for key, rows in grouped.items():
        part = 0 if cut is None else cut.part(rows[0][-3])
        _tally(found, Key(part, **dict(zip(by, key, strict=False)))).add_calls(rows)


def _add_counted(
    db: sqlite3.Connection,
    found: dict[Key, Tally],
    asked: Asked,
    span: str,
    piece: Range,
    by: tuple[str, ...],
    cut: Cut | None,
    form: str,
) -> None:
    where, values = asked.apart_from_time
    # a number alone would name a column in GROUP BY
    part = "start_us * 0" if cut is None else f"(start_us - {cut.start}) / {cut.length}"
    sql = form.format(by=", ".join([part, *by]), where=where.replace("connection.", "timeline."))
    width = 1 + len(by)
    seen: dict[tuple[Any, ...], Tally] = {}
    for row in db.execute(sql, (span, piece.start, piece.end, *values)):
        key = row[:width]
        tally = seen.get(key)
        if tally is None:
            tally = seen[key] = _tally(found, Key(key[0], **dict(zip(by, key[1:], strict=True))))
        tally.add_counted(*row[width:])


def _tally(found: dict[Key, Tally], key: Key) -> Tally:
    tally = found.get(key)
    if tally is None:
        tally = found[key] = Tally()
    return tally


def _pieces(db: sqlite3.Connection, whole: Range, names: dict[str, int]) -> Iterator[tuple[str | None, Range]]:
    """Divide a range, in the order of time, into pieces that were counted ahead, and the rest that has to be read."""
    if not names:
        yield None, whole
        return
    (name, length), *shorter = names.items()
    first, end = -(-whole.start // length) * length, whole.end // length * length
    ahead = [at for (at,) in db.execute(queries.FOLDED, (name, first, end))] if first < end else []
    at = whole.start
    for piece in _joined(ahead, length):
        if at < piece.start:
            yield from _pieces(db, Range(at, piece.start), dict(shorter))
        yield name, piece
        at = piece.end
    if at < whole.end:
        yield from _pieces(db, Range(at, whole.end), dict(shorter))


def _joined(starts: Iterable[int], length: int) -> Iterator[Range]:
    begin = end = None
    for start in starts:
        if begin is None or start != end:
            if begin is not None and end is not None:
                yield Range(begin, end)
            begin = start
        end = start + length
    if begin is not None and end is not None:
        yield Range(begin, end)


def together(of: Iterable[Tally]) -> Tally:
    """Return everything as one. Its streak means nothing unless they follow each other in time."""
    whole = Tally()
    for tally in of:
        whole.add(tally)
    return whole
