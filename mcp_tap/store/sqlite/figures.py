"""Figures: calls, errors and percentiles, in all, over time, by tool and by client."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from typing import Final

from mcp_tap.store import Course, Row, Usage
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.health import health
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite import histogram
from mcp_tap.store.sqlite.pool import rows
from mcp_tap.store.sqlite.tallies import DAY, HOUR, Asked, Cut, Range, Reading, Tally, Who

#: How many parts the small curve in a row of a list has.
SPARKS: Final = 24

_SECOND: Final = 1_000_000
#: Spans of time that read well on an axis; beyond the last, whole numbers of it. Hours and longer are counted ahead.
_ROUND: Final = (
    *(seconds * _SECOND for seconds in (1, 15, 30, 60, 120, 300, 600, 900)),
    *(hours * HOUR for hours in (1, 2, 3, 6, 12, 24)),
)


def spans(whole: Range, parts: int) -> Cut:
    """Divide a range into at most ``parts`` equal round spans."""
    for length in _ROUND:
        if _covering(whole, length) <= parts:
            break
    else:
        length = DAY * math.ceil((whole.end - whole.start) / DAY / max(1, parts - 1))
    return Cut(whole.start // length * length, length, _covering(whole, length))


def _covering(whole: Range, length: int) -> int:
    return -(-whole.end // length) - whole.start // length


def sparks(whole: Range) -> Cut:
    """Divide a range into 24 equal spans: whole hours where it is a day or longer."""
    length = whole.end - whole.start
    if length < SPARKS * HOUR:
        return Cut(whole.start, max(1, math.ceil(length / SPARKS)), SPARKS)
    start = whole.start // HOUR * HOUR
    # a day is 24 hours wherever it begins: what the last one reaches into the next hour belongs to it
    return Cut(start, math.ceil((whole.end - whole.start) / SPARKS / HOUR) * HOUR, SPARKS)


def totals(db: sqlite3.Connection, asked: Asked) -> Row:
    """Return the figures of a range in one row."""
    whole = Reading(db, asked).at_once().get(0, Tally())
    sql, values = asked.sessions
    row = rows(db, queries.CONNECTIONS.format(source=queries.sessions(sql), where=sql), values)[0]
    times, moments = asked.range_alone
    lost: int = db.execute(queries.DROPPED.format(where=times), moments).fetchone()[0]
    return {
        "sessions": row["sessions"],
        "active": row["active"],
        "calls": whole.calls,
        "tool_calls": whole.tool_calls,
        "errors": whole.errors,
        **whole.percentiles(),
        "dropped": row["dropped"] + lost,
        "exact": whole.exact,
    }


def series(db: sqlite3.Connection, asked: Asked, parts: int) -> list[Row]:
    """Return figures over time."""
    return _series(*_over_time(db, asked, parts))


def heatmap(db: sqlite3.Connection, asked: Asked, parts: int) -> list[Row]:
    """Return calls by time and latency."""
    return _heatmap(*_over_time(db, asked, parts))


def course(db: sqlite3.Connection, asked: Asked, parts: int) -> Course:
    """Return both, from one reading."""
    cut, counted = _over_time(db, asked, parts)
    return Course(_series(cut, counted), _heatmap(cut, counted))


def _over_time(db: sqlite3.Connection, asked: Asked, parts: int) -> tuple[Cut, dict[int, Tally]]:
    reading = Reading(db, asked)
    cut = spans(reading.whole, parts)
    return cut, reading.at_once(cut)


def _series(cut: Cut, counted: dict[int, Tally]) -> list[Row]:
    none = Tally()
    found = [(cut.start + n * cut.length, counted.get(n, none)) for n in range(cut.parts)]
    return [
        {"start": at, "end": at + cut.length, "calls": tally.calls, "errors": tally.errors, **tally.percentiles()}
        for at, tally in found
    ]


def _heatmap(cut: Cut, counted: dict[int, Tally]) -> list[Row]:
    cells: dict[tuple[int, int], list[int]] = {}
    for part, tally in counted.items():
        for place, of in enumerate((tally.latency, tally.latency_failed)):
            for number, calls in histogram.buckets(of):
                cells.setdefault((part, _power(number)), [0, 0])[place] += calls
    return [
        {
            "start": cut.start + part * cut.length,
            "end": cut.start + (part + 1) * cut.length,
            "low_ms": 2.0**power,
            "high_ms": 2.0 ** (power + 1),
            "calls": calls,
            "errors": errors,
        }
        for (part, power), (calls, errors) in sorted(cells.items())
    ]


def _power(bucket: int) -> int:
    """Return n where a latency lies between 2**n and 2**(n + 1) milliseconds; -4 and less are one."""
    return max(-4, math.frexp(histogram.middle_us(bucket) / 1000)[1] - 1)


def matrix(db: sqlite3.Connection, asked: Asked) -> list[Row]:
    """Return calls by tool and client."""
    return _matrix(Reading(db, asked).pairs())


def _matrix(pairs: dict[tuple[str | None, Who], list[int]]) -> list[Row]:
    found = [
        {"tool": tool, "client": client(*who), "calls": calls, "errors": errors}
        for (tool, who), (calls, errors) in pairs.items()
        if tool is not None
    ]
    return sorted(found, key=lambda row: (-row["calls"], row["tool"], row["client"]))


def client(name: str | None, version: str | None) -> str:
    """Return what a client is called in lists."""
    return "unknown" if name is None else name if version is None else f"{name}@{version}"


def tools(db: sqlite3.Connection, asked: Asked) -> list[Row]:
    """Return every tool that was called in range or ever listed."""
    reading = Reading(db, asked)
    counted = reading.tools()
    spark = reading.sparks(sparks(reading.whole))
    clients = Counter(tool for tool, _ in reading.callers())
    previous = asked.where.previous()
    earlier = {} if previous is None else Reading(db, asked._replace(where=previous)).tools()
    listed = _versions(db, asked)
    found = []
    for tool in {*counted, *listed}:
        tally, before, versions = counted.get(tool, Tally()), earlier.get(tool, Tally()), listed.get(tool, [])
        percentiles = tally.percentiles()
        found.append(
            {
                "name": tool,
                "calls": tally.calls,
                "errors": tally.errors,
                **percentiles,
                "exact": tally.exact,
                "last_called": iso(tally.last_us) if tally.calls else None,
                "clients": clients[tool],
                "spark": spark.get(tool, [0] * SPARKS),
                "listed": bool(versions),
                "versions": len(versions),
                "changed": versions[-1] if len(versions) > 1 else None,
                "health": health(
                    tally.calls,
                    tally.errors,
                    percentiles["p95_ms"],
                    failed_in_a_row=tally.streak,
                    calls_before=before.calls,
                    p95_ms_before=before.percentiles()["p95_ms"],
                ),
            }
        )
    return sorted(found, key=lambda row: (not row["calls"], -(row["p95_ms"] or 0), row["name"]))


def _versions(db: sqlite3.Connection, asked: Asked) -> dict[str, list[str]]:
    """Return when each version of each tool was first seen, oldest first."""
    found: dict[str, dict[str, str]] = {}
    for name, digest, first in db.execute(queries.VERSIONS):
        if asked.where.fits_tool(name) and asked.tool in {None, name}:
            found.setdefault(name, {}).setdefault(digest, first)
    return {name: sorted(versions.values()) for name, versions in found.items()}


def usage(db: sqlite3.Connection, asked: Asked) -> Usage:
    """Return clients by name and version, and calls by tool and client, from one reading."""
    reading = Reading(db, asked)
    pairs, counted = reading.pairs(), reading.clients()
    tools = Counter(who for tool, who in pairs if tool is not None)
    none = Tally()
    sql, values = asked.sessions
    found = []
    for row in rows(db, queries.CLIENTS.format(source=queries.sessions(sql), where=sql), values):
        who = (row["name"], row["version"])
        tally = counted.get(who, none)
        found.append(
            {
                "client": client(*who),
                "name": row["name"],
                "version": row["version"],
                "revisions": sorted(row["revisions"].split(",")) if row["revisions"] else [],
                "sessions": row["sessions"],
                "calls": tally.calls,
                "errors": tally.errors,
                "p95_ms": tally.percentiles()["p95_ms"],
                "exact": tally.exact,
                "tools": tools[who],
                "first_seen": row["first_seen"],
                "last_seen": row["last_seen"],
            }
        )
    return Usage(sorted(found, key=lambda row: (-row["calls"], row["client"])), _matrix(pairs))
