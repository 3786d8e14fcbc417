"""Calls counted: from the lines of the timeline, and for past hours and days from what was counted ahead.

Both give the same counts; latencies are those that were stored where every line was read, else within 3 % of them.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.conditions import Condition
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso, microseconds
from mcp_tap.store.sqlite import histogram

K = TypeVar("K")

HOUR: Final = 3600 * 1_000_000
DAY: Final = 24 * HOUR

#: What is counted ahead, longest first: of all clients together, and of each.
SPANS: Final = {"day": DAY, "hour": HOUR}
CLIENT_SPANS: Final = {"client day": DAY, "client hour": HOUR}
#: Of each client whatever it called: only where nothing but clients and times is asked for.
WHOLE_CLIENT_SPANS: Final = {"client": DAY, **CLIENT_SPANS}

#: Words of a filter that hold for what was counted ahead, too.
_COUNTED: Final = frozenset({"tool", "method", "name", "client"})
_TIMES: Final = ("since", "from", "to")


class Range(NamedTuple):
    """From when to when, in microseconds; the end is outside."""

    start: int
    end: int


#: A client: its name and its version.
Who = tuple[str | None, str | None]


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
        "_most",
        "calls",
        "errors",
        "exact",
        "last_us",
        "streak",
        "tool_calls",
    )

    def __init__(self, most: int | None = None) -> None:
        self.calls = 0
        self.errors = 0
        self.last_us = 0
        self.tool_calls = 0  # where they were counted at once
        self.streak = 0  # how many of the newest ones failed
        self.exact = True
        self._most = most  # latencies that are kept as they are; None: all
        self._durations: list[int] = []
        self._failed: list[int] = []
        self._latency = self._latency_failed = 0

    def add_calls(self, rows: list[tuple[Any, ...]]) -> None:
        """Add calls: rows that end in when, whether it failed, how long it took."""
        failed = [row[-2] for row in rows]
        errors = sum(failed)
        streak = failed[::-1].index(0) if errors < len(rows) else errors
        self.add_measured(len(rows), errors, rows[-1][-3], streak, [row[-1] for row in rows])
        if errors:
            self._failed += [row[-1] for row in rows if row[-2] and row[-1] is not None]
        if self._most is not None and len(self._durations) > self._most:
            self._latency, self._durations = self.latency, []
            self._latency_failed, self._failed = self.latency_failed, []
            self.exact = False

    def add_measured(self, calls: int, errors: int, last_us: int, streak: int, durations: list[int | None]) -> None:
        """Add calls by how long each took. Which of these failed is not known then."""
        self._join(calls, errors, last_us, streak)
        self._durations += [each for each in durations if each is not None]

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


class Columns(NamedTuple):
    """Calls in the order of time, a list for each of their columns: much quicker to read than a row for each call."""

    connections: list[int | None]
    tools: list[str | None]  # None where no tool is called, "" where it has no name
    moments: list[int]
    failed: list[int]
    durations: list[int | None]


_TOOLS_ALONE: Final = " AND timeline.type = 'tools/call'"
_CLIENT: Final = "client_name, client_version"
_TOOL_AND_CLIENT: Final = f"CASE WHEN type = 'tools/call' THEN coalesce(name, '') END, {_CLIENT}"


class Reading:
    """The calls of a range, to be counted in several ways: lines are read once."""

    def __init__(self, db: sqlite3.Connection, asked: Asked, whole: Range | None = None) -> None:
        self.whole = bounds(db, asked.where) if whole is None else whole
        self._db = db
        self._asked = asked
        self._read: dict[Range, Columns] = {}
        self._clients: dict[int | None, Who] = {None: (None, None)}

    def at_once(self, cut: Cut | None = None) -> dict[int, Tally]:
        """Return all calls by part of the range, with the latencies of those that failed.

        Without a word about single tools or streaks, and quicker for that.
        """
        found: dict[int, Tally] = {}
        for span, piece in self._pieces(SPANS, cut):
            if span is not None:
                counted: dict[tuple[int, str], Tally] = {}
                for part, type_, *row in self._counted(queries.TALLIES_FAILED, span, piece, "type", cut):
                    _tally(counted, (part, type_)).add_counted(*row)
                for (part, type_), tally in counted.items():
                    whole = _tally(found, part)
                    whole.add(tally)
                    whole.tool_calls += tally.calls if type_ == "tools/call" else 0
                continue
            where, values = self._asked.apart_from_time
            sql = queries.CALLS_AT_ONCE.format(source=queries.events(where), where=where)
            for part, each in _parts(piece, cut):
                row = self._db.execute(sql, (iso(each.start), iso(each.end), *values)).fetchone()
                if row[0]:
                    _tally(found, part).add_at_once(*row)
        return found

    def tools(self) -> dict[str, Tally]:
        """Return the calls of each tool, without the latencies of those that failed."""
        found: dict[str, Tally] = {}
        for span, piece in self._pieces(SPANS):
            if span is not None:
                for _, name, *row in self._counted(queries.TALLIES, span, piece, "name", more=_TOOLS_ALONE):
                    if name is not None:
                        _tally(found, name).add_counted(*row)
                continue
            read = self._columns(piece)
            errors, streaks = Counter(compress(read.tools, read.failed)), _streaks(read)
            last = dict(zip(read.tools, read.moments, strict=True))
            durations: dict[str | None, list[int | None]] = {tool: [] for tool in last}
            for tool, us in zip(read.tools, read.durations, strict=True):
                durations[tool].append(us)
            for tool in filter(None, last):
                its = durations[tool]
                _tally(found, tool).add_measured(len(its), errors[tool], last[tool], streaks[tool], its)
        return found

    def sparks(self, cut: Cut) -> dict[str, list[int]]:
        """Return how often each tool was called in each part of the range."""
        found: dict[str, list[int]] = {}
        for span, piece in self._pieces(SPANS, cut):
            if span is not None:
                rows = self._counted(queries.TALLIES_TOGETHER, span, piece, "name", cut, more=_TOOLS_ALONE)
                counted = [(part, name, calls) for part, name, calls, *_ in rows]
            else:
                read = self._columns(piece)
                start, length, last = cut.start, cut.length, cut.parts - 1
                parts = [(at_us - start) // length for at_us in read.moments]
                by_part = Counter(zip(parts, read.tools, strict=True))
                counted = [(min(last, max(0, part)), name, calls) for (part, name), calls in by_part.items()]
            for part, name, calls in counted:
                if name:
                    found.setdefault(name, [0] * cut.parts)[part] += calls
        return found

    def pairs(self) -> dict[tuple[str | None, Who], list[int]]:
        """Return calls and errors by tool and client; the tool is None where none was called, "" without a name."""
        found: dict[tuple[str | None, Who], list[int]] = {}
        for span, piece in self._pieces(CLIENT_SPANS):
            if span is not None:
                rows = self._counted(queries.TALLIES_TOGETHER, span, piece, _TOOL_AND_CLIENT)
                counted = [(tool, (name, version), calls, errors) for _, tool, name, version, calls, errors, *_ in rows]
            else:
                read = self._columns(piece)
                each = [*zip(read.tools, read.connections, strict=True)]
                failed = Counter(compress(each, read.failed))
                who = self._who(read)
                counted = [(tool, who[of], calls, failed[tool, of]) for (tool, of), calls in Counter(each).items()]
            for tool, client, calls, errors in counted:
                both = found.setdefault((tool, client), [0, 0])
                both[0] += calls
                both[1] += errors
        return found

    def callers(self) -> set[tuple[str | None, Who]]:
        """Return which client called which tool: the keys of `pairs`."""
        found: set[tuple[str | None, Who]] = set()
        for span, piece in self._pieces(CLIENT_SPANS):
            if span is not None:
                rows = self._counted(queries.TALLIES_TOGETHER, span, piece, _TOOL_AND_CLIENT)
                found |= {(tool, (name, version)) for _, tool, name, version, *_ in rows}
            else:
                read = self._columns(piece)
                who = self._who(read)
                found |= {(tool, who[of]) for tool, of in {*zip(read.tools, read.connections, strict=True)}}
        return found

    def clients(self) -> dict[Who, Tally]:
        """Return the calls of each client: counts and latencies."""
        found: dict[Who, Tally] = {}
        asked = self._asked
        alone = asked.tool is None and {term.key for term in asked.where.terms} <= {"client", *_TIMES}
        for span, piece in self._pieces(WHOLE_CLIENT_SPANS if alone else CLIENT_SPANS):
            if span is not None:
                for _, name, version, *row in self._counted(queries.TALLIES, span, piece, _CLIENT):
                    _tally(found, (name, version)).add_counted(*row)
                continue
            read = self._columns(piece)
            durations: dict[int | None, list[int | None]] = {of: [] for of in set(read.connections)}
            for of, us in zip(read.connections, read.durations, strict=True):
                durations[of].append(us)
            failed = Counter(compress(read.connections, read.failed))
            who = self._who(read)
            for of, each in durations.items():
                _tally(found, who[of]).add_measured(len(each), failed[of], 0, 0, each)
        return found

    def _columns(self, piece: Range) -> Columns:
        """Return every call of a piece of time."""
        if piece not in self._read:
            where, values = self._asked.apart_from_time
            sql = queries.CALLS_BY_COLUMN.format(source=queries.events(where), where=where)
            row = self._db.execute(sql, (iso(piece.start), iso(piece.end), *values)).fetchone()
            self._read[piece] = Columns(*in_time([orjson.loads(column) for column in row], 2))
        return self._read[piece]

    def _who(self, read: Columns) -> dict[int | None, Who]:
        """Return the clients of connections: a lookup for each instead of a join for each call."""
        if missing := set(read.connections) - self._clients.keys():
            self._clients |= dict.fromkeys(missing, (None, None)) | clients_of(self._db, missing)
        return self._clients

    def _counted(
        self, form: str, span: str, piece: Range, by: str, cut: Cut | None = None, *, more: str = ""
    ) -> sqlite3.Cursor:
        """Return what was counted ahead: the part, ``by``, and what `Tally.add_counted` takes."""
        where, values = self._asked.apart_from_time
        # a number alone would name a column in GROUP BY
        part = "start_us * 0" if cut is None else f"(start_us - {cut.start}) / {cut.length}"
        sql = form.format(by=f"{part}, {by}", where=where.replace("connection.", "timeline.") + more)
        return self._db.execute(sql, (span, piece.start, piece.end, *values))

    def _pieces(self, spans: dict[str, int], cut: Cut | None = None) -> Iterator[tuple[str | None, Range]]:
        """Divide the range into what was counted ahead in some of these spans, and the rest."""
        if spans is SPANS and any(term.key == "client" for term in self._asked.where.terms):
            spans = CLIENT_SPANS
        names = {}
        if self._asked.counted_ahead(clients=spans is not SPANS):
            names = {
                name: length
                for name, length in spans.items()
                if cut is None or not (cut.length % length or cut.start % length)
            }
        return _pieces(self._db, self.whole, names)


def in_time(columns: list[list[Any]], moments: int) -> list[list[Any]]:
    """Return columns in the order of time, to the millisecond: an index of times found them so, another one did not.

    Sorting in SQL, or asking for the order, costs more than all the rest.
    """
    order = [at_us // 1000 for at_us in columns[moments]]
    if order == sorted(order):
        return columns
    places = sorted(range(len(order)), key=order.__getitem__)
    return [[column[place] for place in places] for column in columns]


def clients_of(db: sqlite3.Connection, connections: Iterable[int | None]) -> dict[int | None, Who]:
    """Return the clients of connections by their numbers."""
    those = orjson.dumps([each for each in connections if each is not None]).decode()
    return {pk: (name, version) for pk, name, version in db.execute(queries.CLIENTS_OF, (those,))}


def _streaks(read: Columns) -> Counter[str | None]:
    """Return how many of the newest calls of each tool failed in a row."""
    streaks: Counter[str | None] = Counter()
    failing = {*read.tools}
    for tool, failed in zip(reversed(read.tools), reversed(read.failed), strict=True):
        if tool in failing:
            if failed:
                streaks[tool] += 1
            else:
                failing.remove(tool)
                if not failing:
                    break
    return streaks


def _parts(piece: Range, cut: Cut | None) -> Iterator[tuple[int, Range]]:
    """Divide a piece at the borders of the parts."""
    if cut is None:
        yield 0, piece
        return
    for part in range(cut.part(piece.start), cut.part(piece.end - 1) + 1):
        start = cut.start + part * cut.length
        yield part, Range(max(piece.start, start), min(piece.end, start + cut.length))


def _tally(found: dict[K, Tally], key: K) -> Tally:
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
