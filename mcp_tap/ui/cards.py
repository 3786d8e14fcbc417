"""The figures of a range in a few cards, each beside the equally long time before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from mcp_tap.store import Row
from mcp_tap.store.conditions import moment
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso
from mcp_tap.ui.charts import Link, percent
from mcp_tap.ui.frame import TIMES, address, written
from mcp_tap.ui.text import counted, duration

#: A percentile of fewer calls says more about chance than about the server.
ENOUGH: Final = 20


class Card(NamedTuple):
    """One figure: what it is, how much, and what to know about it."""

    label: str
    value: str  # "" where it cannot be said; the note says why
    note: str = ""
    change: str = ""  # against the time before: ▲ 12 %
    tone: str = ""  # better, worse, or neither
    was: str = ""  # the figure of the time before, in words
    href: str = ""


def cards(now: Row, was: Row | None, where: Filter) -> list[Card]:
    """Return calls, error rate, p95 and sessions of rows as `Reader.totals` has them."""
    calls, errors = now["calls"], now["errors"]
    listed = written(where)
    tools = f"{now['tool_calls']:,} of tools" if now["tool_calls"] != calls else ""
    return [
        Card("Calls", f"{calls:,}", tools, *_more(calls, _of(was, "calls"))),
        Card(
            "Error rate",
            percent(errors, calls) if calls else "none",
            counted(errors, "error"),
            *_points(now, was),
            href=address("/errors", listed),
        ),
        _p95(now, was, address("/slow", listed)),
        Card(
            "Active sessions",
            f"{now['active']:,}",
            f"of {counted(now['sessions'], 'session')}",
            href=address("/sessions", listed),
        ),
    ]


def scarce(calls: int, figure: str = "p95") -> str:
    """Return why there is no percentile of so few calls, "" where there is one."""
    return "" if calls >= ENOUGH else f"{figure} needs {ENOUGH} calls; {calls} so far"


def _p95(now: Row, before: Row | None, href: str) -> Card:
    if why := scarce(now["calls"]):
        return Card("p95 latency", "", why)
    note = f"p50 {duration(now['p50_ms'])} · p99 {duration(now['p99_ms'])}"
    change, tone, was = "", "", ""
    if before is not None and before["calls"] >= ENOUGH and before["p95_ms"]:
        change, _, _ = _more(now["p95_ms"], before["p95_ms"])
        tone = _tone(now["p95_ms"] / before["p95_ms"] - 1, 0.05)
        was = f"{duration(before['p95_ms'])} before"
    return Card("p95 latency", duration(now["p95_ms"]), note, change, tone, was, href)


def _of(row: Row | None, column: str) -> float | None:
    return None if row is None else row[column]


def _more(now: float, before: float | None) -> tuple[str, str, str]:
    """Return by how much a figure grew. More calls are neither better nor worse."""
    if before is None:
        return "", "", ""
    was = f"{before:,.0f} before"
    if not before:
        return ("none before" if now else ""), "", was
    share = (now - before) / before
    if abs(share) < 0.005:
        return "= same", "", was
    amount = f"{abs(share) * 100:,.0f} %" if abs(share) < 9.995 else f"to {now / before:,.0f}-fold"
    return f"{'▲' if share > 0 else '▼'} {amount}", "", was


def _points(now: Row, before: Row | None) -> tuple[str, str, str]:
    if before is None or not before["calls"] or not now["calls"]:
        return "", "", ""
    points = 100 * (now["errors"] / now["calls"] - before["errors"] / before["calls"])
    was = f"{percent(before['errors'], before['calls'])} before"
    if abs(points) < 0.05:
        return "= same", "", was
    return f"{'▲' if points > 0 else '▼'} {abs(points):.1f} points", _tone(points, 0.05), was


def _tone(change: float, least: float) -> str:
    return "worse" if change >= least else "better" if change <= -least else ""


def recorded(where: Filter, facts: Row, *, growing: bool = True) -> Filter:
    """Return the filter with its range begun no earlier than the recording, whose ``facts`` these are.

    A day of which ten minutes are recorded would be a chart of one bar, beside a day before that nobody saw. A
    recording that is not ``growing`` ends with its newest line, not now.
    """
    since, until = where.since_us, where.until_us
    if since is None or not facts["oldest"]:
        return where
    oldest, newest = (moment(facts[end], where.now_us) for end in ("oldest", "newest"))
    if since < oldest and (until is None or until > oldest):
        where = where.without("since", "from").plus("from", facts["oldest"])
    if not growing and until is None and since <= newest:
        where = where.plus("to", iso(newest + 1000))  # a moment that is not in the range any more
    return where


def before(where: Filter, facts: Row) -> Filter | None:
    """Return the equally long time before that of a filter, None where the recording does not reach back to it."""
    return where.previous() if recorded(where, facts) is where else None


async def maybe(where: Filter | None, ask: Callable[[Filter], Awaitable[Row]]) -> Row | None:
    """Return the answer about a time before, None where there is no such time."""
    return None if where is None else await ask(where)


def behind(path: str, where: Filter, **more: str) -> Link:
    """Return what makes the address of a list in a span of time: the filter with this range in place of its own."""
    words = [*written(where.without(*TIMES)), *more.items()]

    def link(start_us: int, end_us: int) -> str:
        return address(path, [*words, ("from", iso(start_us)), ("to", iso(end_us))])

    return link
