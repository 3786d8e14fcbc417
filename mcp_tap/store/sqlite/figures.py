"""Figures: calls, errors and percentiles, in all, over time, by tool and by client."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.filters import Condition, Filter
from mcp_tap.store.health import health
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite.pool import rows

#: How the figures of a list are drawn small.
SPARKS: Final = 24

_SECOND: Final = 1_000_000
_HOUR: Final = 3600 * _SECOND
#: Spans of time that read well on an axis; beyond the last, whole numbers of it.
_ROUND: Final = tuple(
    seconds * _SECOND for seconds in (1, 15, 30, 60, 120, 300, 600, 900, 3600, 7200, 10800, 21600, 43200, 86400)
)

Call = tuple[Any, ...]  # what it is counted under, then at_us, whether it failed, duration_us


class Range(NamedTuple):
    """From when to when, in microseconds; the end is outside."""

    start: int
    end: int


class Tally:
    """What is counted of calls that belong together."""

    __slots__ = ("calls", "durations", "errors", "failed_in_a_row", "last_us")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.last_us = 0
        self.failed_in_a_row = 0  # the newest ones
        self.durations: list[int] = []

    def add(self, at_us: int, failed: int, duration_us: int | None) -> None:
        """Count one call. They come in the order of time."""
        self.calls += 1
        self.last_us = max(self.last_us, at_us)
        if failed:
            self.errors += 1
            self.failed_in_a_row += 1
        else:
            self.failed_in_a_row = 0
        if duration_us is not None:
            self.durations.append(duration_us)

    def percentiles(self) -> Row:
        """Return p50, p95 and p99 in milliseconds, None where nothing was measured."""
        ordered = sorted(self.durations)
        return {f"p{q}_ms": _nearest(ordered, q) for q in (50, 95, 99)}


def _nearest(ordered: list[int], q: int) -> float | None:
    """Return the value that ``q`` percent do not exceed: one that was measured, none in between."""
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)] / 1000 if ordered else None


class Asked(NamedTuple):
    """A filter, and its conditions for this recording."""

    where: Filter
    session_key: bytes  # of the recording
    tool: str | None = None  # to the letter, whatever stars and commas are in its name

    @property
    def events(self) -> Condition:
        """The condition on lines."""
        sql, values = self.where.events(self.session_key)
        return (sql, values) if self.tool is None else (f"{sql} AND timeline.name = ?", (*values, self.tool))

    @property
    def sessions(self) -> Condition:
        """The condition on connections."""
        return self.where.sessions(self.session_key)


def calls(db: sqlite3.Connection, asked: Asked, *by: str) -> Iterator[Call]:
    """Give every call of the range, in the order of time."""
    where, values = asked.events
    sql = queries.CALLS.format(by=", ".join(by) or "NULL", where=where)
    return iter(db.execute(f"{sql} ORDER BY timeline.time, timeline.pk", values))


def tallies(of: Iterable[Call]) -> dict[Hashable, Tally]:
    """Return calls counted by what stands before their times: the thing itself where it is one, else a tuple."""
    counted: dict[Hashable, Tally] = {}
    for *by, at_us, failed, duration_us in of:
        key = by[0] if len(by) == 1 else tuple(by)
        tally = counted.get(key)
        if tally is None:
            tally = counted[key] = Tally()
        tally.add(at_us, failed, duration_us)
    return counted


def bounds(db: sqlite3.Connection, where: Filter) -> Range:
    """Return the range of a filter; where it names none, that of the recording."""
    since, until = where.since_us, where.until_us
    if since is None or (until is None and not where.now_us):
        first, last = db.execute(queries.BOUNDS).fetchone()
        since = since if since is not None else _us(first) if first else where.now_us
        until = until if until is not None else _us(last) + 1000 if last else since + 1
    end = until if until is not None else where.now_us
    return Range(since, max(end, since + 1))


def _us(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1_000_000)


def spans(whole: Range, parts: int) -> list[Range]:
    """Return at most ``parts`` equal round spans that cover a range."""
    length = next((each for each in _ROUND if _covering(whole, each) <= parts), 0)
    while not length:
        day = _ROUND[-1]
        length = day * math.ceil((whole.end - whole.start) / day / max(1, parts - 1))
    first = whole.start // length
    return [Range(n * length, (n + 1) * length) for n in range(first, first + _covering(whole, length))]


def _covering(whole: Range, length: int) -> int:
    return -(-whole.end // length) - whole.start // length


def sparks(whole: Range) -> list[Range]:
    """Return 24 equal spans that cover a range: whole hours where it is longer than a day."""
    start = whole.start - whole.start % _HOUR if whole.end - whole.start >= SPARKS * _HOUR else whole.start
    unit = _HOUR if start != whole.start or whole.end - start >= SPARKS * _HOUR else 1
    length = unit * max(1, math.ceil((whole.end - start) / SPARKS / unit))
    return [Range(start + n * length, start + (n + 1) * length) for n in range(SPARKS)]


# ------------------------------------------------------------------------------------------------------ questions


def totals(db: sqlite3.Connection, asked: Asked) -> Row:
    """Return the figures of a range in one row."""
    by_type = tallies(calls(db, asked, "timeline.type"))
    whole = Tally()
    for each in by_type.values():
        whole.calls += each.calls
        whole.errors += each.errors
        whole.durations += each.durations
    tool_calls = by_type.get("tools/call")
    sql, values = asked.sessions
    row = rows(db, queries.CONNECTIONS.format(where=sql), values)[0]
    times = asked.where.only("since", "from", "to").events()
    lost: int = db.execute(queries.DROPPED.format(where=times[0]), times[1]).fetchone()[0]
    return {
        "sessions": row["sessions"],
        "active": row["active"],
        "calls": whole.calls,
        "tool_calls": tool_calls.calls if tool_calls else 0,
        "errors": whole.errors,
        **whole.percentiles(),
        "dropped": row["dropped"] + lost,
        "exact": True,
    }


def series(db: sqlite3.Connection, asked: Asked, parts: int) -> list[Row]:
    """Return figures over time."""
    drawn = spans(bounds(db, asked.where), parts)
    first, length = drawn[0].start, drawn[0].end - drawn[0].start
    counted: dict[int, Tally] = {}
    for _, at_us, failed, duration_us in calls(db, asked):
        part = (at_us - first) // length
        tally = counted.get(part)
        if tally is None:
            tally = counted[part] = Tally()
        tally.add(at_us, failed, duration_us)
    none = Tally()
    found = [(span, counted.get(number, none)) for number, span in enumerate(drawn)]
    return [
        {"start": span.start, "end": span.end, "calls": tally.calls, "errors": tally.errors, **tally.percentiles()}
        for span, tally in found
    ]


def heatmap(db: sqlite3.Connection, asked: Asked, parts: int) -> list[Row]:
    """Return calls by time and latency."""
    drawn = spans(bounds(db, asked.where), parts)
    first, length = drawn[0].start, drawn[0].end - drawn[0].start
    cells: dict[tuple[int, int], list[int]] = {}
    for _, at_us, failed, duration_us in calls(db, asked):
        if duration_us is not None:
            cell = cells.setdefault(((at_us - first) // length, power(duration_us)), [0, 0])
            cell[0] += 1
            cell[1] += failed
    return [
        {
            "start": first + part * length,
            "end": first + (part + 1) * length,
            "low_ms": 2.0**exponent,
            "high_ms": 2.0 ** (exponent + 1),
            "calls": cell[0],
            "errors": cell[1],
        }
        for (part, exponent), cell in sorted(cells.items())
        if 0 <= part < len(drawn)
    ]


def power(duration_us: int) -> int:
    """Return n where a duration lies between 2**n and 2**(n + 1) milliseconds; -4 and less are one."""
    return max(-4, math.frexp(duration_us / 1000)[1] - 1)


def matrix(db: sqlite3.Connection, asked: Asked) -> list[Row]:
    """Return calls by tool and client."""
    counted: dict[tuple[str, str], list[int]] = {}
    by = ("timeline.type", "timeline.name", "connection.client_name", "connection.client_version")
    for type_, tool, name, version, _, failed, _ in calls(db, asked, *by):
        if type_ == "tools/call":
            cell = counted.setdefault((tool or "", client(name, version)), [0, 0])
            cell[0] += 1
            cell[1] += failed
    ordered = sorted(counted.items(), key=lambda item: (-item[1][0], item[0]))
    return [{"tool": tool, "client": who, "calls": n, "errors": failed} for (tool, who), (n, failed) in ordered]


def client(name: str | None, version: str | None) -> str:
    """Return what a client is called in lists."""
    return "unknown" if name is None else name if version is None else f"{name}@{version}"


def tools(db: sqlite3.Connection, asked: Asked) -> list[Row]:
    """Return every tool that was called in range or ever listed."""
    whole = bounds(db, asked.where)
    drawn = sparks(whole)
    first, length = drawn[0].start, drawn[0].end - drawn[0].start
    by = ("timeline.type", "timeline.name", "connection.client_name", "connection.client_version")
    counted: dict[str, Tally] = {}
    clients: dict[str, set[tuple[str | None, str | None]]] = {}
    spark: dict[str, list[int]] = {}
    for type_, tool, name, version, at_us, failed, duration_us in calls(db, asked, *by):
        if type_ != "tools/call" or tool is None:
            continue
        if tool not in counted:
            counted[tool], clients[tool], spark[tool] = Tally(), set(), [0] * SPARKS
        counted[tool].add(at_us, failed, duration_us)
        clients[tool].add((name, version))
        spark[tool][min(SPARKS - 1, max(0, (at_us - first) // length))] += 1
    earlier = _before(db, asked)
    listed = _versions(db, asked.where)
    found = []
    for tool in {*counted, *listed}:
        tally = counted.get(tool) or Tally()
        before = earlier.get(tool) or Tally()
        percentiles = tally.percentiles()
        versions = listed.get(tool, [])
        found.append(
            {
                "name": tool,
                "calls": tally.calls,
                "errors": tally.errors,
                **percentiles,
                "exact": True,
                "last_called": iso(tally.last_us) if tally.calls else None,
                "clients": len(clients.get(tool, ())),
                "spark": spark.get(tool, [0] * SPARKS),
                "listed": bool(versions),
                "versions": len(versions),
                "changed": versions[-1] if len(versions) > 1 else None,
                "health": health(
                    tally.calls,
                    tally.errors,
                    percentiles["p95_ms"],
                    failed_in_a_row=tally.failed_in_a_row,
                    calls_before=before.calls,
                    p95_ms_before=before.percentiles()["p95_ms"],
                ),
            }
        )
    return sorted(found, key=lambda row: (not row["calls"], -(row["p95_ms"] or 0), row["name"]))


def _before(db: sqlite3.Connection, asked: Asked) -> dict[Hashable, Tally]:
    """Return what tools were like in the equally long time before the range."""
    previous = asked.where.previous()
    if previous is None:
        return {}
    of = calls(db, asked._replace(where=previous), "timeline.type", "timeline.name")
    return tallies((name, *rest) for type_, name, *rest in of if type_ == "tools/call")


def _versions(db: sqlite3.Connection, where: Filter) -> dict[str, list[str]]:
    """Return when each version of each tool was first seen, oldest first."""
    seen = [(row["name"], row["hash"], row["first_seen"]) for row in rows(db, queries.DEFINITIONS)]
    found: dict[str, dict[str, str]] = {}
    for name, hash_, first in seen:
        if where.fits_tool(name):
            found.setdefault(name, {}).setdefault(hash_, first)
    return {name: sorted(versions.values()) for name, versions in found.items()}


def clients(db: sqlite3.Connection, asked: Asked) -> list[Row]:
    """Return clients by name and version."""
    counted: dict[tuple[str | None, str | None], Tally] = {}
    called: dict[tuple[str | None, str | None], set[str]] = {}
    by = ("timeline.type", "timeline.name", "connection.client_name", "connection.client_version")
    for type_, tool, name, version, at_us, failed, duration_us in calls(db, asked, *by):
        who = (name, version)
        if who not in counted:
            counted[who], called[who] = Tally(), set()
        counted[who].add(at_us, failed, duration_us)
        if type_ == "tools/call" and tool is not None:
            called[who].add(tool)
    sql, values = asked.sessions
    found = []
    for row in rows(db, queries.CLIENTS.format(where=sql), values):
        who = (row["name"], row["version"])
        tally = counted.get(who) or Tally()
        found.append(
            {
                "client": client(*who),
                "name": row["name"],
                "version": row["version"],
                "revisions": sorted((row["revisions"] or "").split(",")) if row["revisions"] else [],
                "sessions": row["sessions"],
                "calls": tally.calls,
                "errors": tally.errors,
                "p95_ms": tally.percentiles()["p95_ms"],
                "exact": True,
                "tools": len(called.get(who, ())),
                "first_seen": row["first_seen"],
                "last_seen": row["last_seen"],
            }
        )
    return sorted(found, key=lambda row: (-row["calls"], row["client"]))
