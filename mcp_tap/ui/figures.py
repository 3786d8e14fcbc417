"""What the commands print of figures: tools, clients, groups of errors, slow calls, connections, the sum of it all.

Everything here is text out of rows of `store.Reader`; what is printed in pipes and as JSON is the rows themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from mcp_tap.protocol.revisions import LASTING
from mcp_tap.store.rows import DIGITS, iso
from mcp_tap.ui import listing
from mcp_tap.ui.terminal import failure_text, paint
from mcp_tap.ui.text import counted, duration, local, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mcp_tap.store import Row
    from mcp_tap.store.filters import Filter

#: Columns of the picture that `stats` draws of calls over time.
PARTS: Final = 48

_BARS: Final = "▁▂▃▄▅▆▇█"

#: How a call went, in a word.
_STATES: Final = {"succeeded": "ok", "waiting_for_response": "waiting"}
_WHEN: Final = "%m-%d %H:%M:%S"
_DAY: Final = "%m-%d %H:%M"


def calls(where: Filter) -> Filter:
    """Return the filter for calls of clients that can be slow: not for streams that listen."""
    where = where.plus("is", "call")
    for method in sorted(LASTING):
        where = where.plus("method", method, negated=True)
    return where


def spark(counts: Sequence[float | None]) -> str:
    """Return a line of bars, one for each number; a blank where there is nothing, the lowest bar for the least."""
    most = max((count for count in counts if count), default=0)
    if not most:
        return " " * len(counts)
    return "".join(_BARS[min(7, int(count / most * 7.999))] if count else " " for count in counts)


def percent(part: float, whole: float) -> str:
    """Return a share in words: 0 %, 2.5 %, 100 %; nothing of nothing."""
    if not whole:
        return ""
    share = 100 * part / whole
    return f"{share:.1f} %" if 0 < share < 9.95 else f"{share:.0f} %"


def _style(column: str, shown: str) -> str:
    if column == "health":
        return {"down": "red", "degraded": "yellow", "healthy": "green", "inactive": "dim"}.get(shown, "")
    if column == "errors" and shown not in {"", "0"}:
        return "red"
    return "green" if column == "state" and shown.startswith("connected") else ""


# ------------------------------------------------------------------------------------------------- tools and clients


def tools(rows: Sequence[Row], *, color: bool) -> None:
    """Print rows of `Reader.tools` and how many of them are used."""
    numbers = ("calls", "errors", "p50", "p95", "p99")
    listing.print_table(
        ("tool", "health", *numbers, "last called", "definition", "over time"),
        [
            (
                row["name"],
                row["health"],
                row["calls"],
                _errors(row),
                *(duration(row[key]) for key in ("p50_ms", "p95_ms", "p99_ms")),
                local(row["last_called"], _DAY),
                _definition(row),
                spark(_halved(row["spark"] or ())),
            )
            for row in rows
        ],
        color=color,
        right=numbers,
        whole=("health", *numbers, "last called"),
        spare=("definition", "over time"),
        style=_style,
    )
    used = sum(1 for row in rows if row["calls"])
    click.echo(f"\n{counted(len(rows), 'tool')}, {used} used, {len(rows) - used} unused", err=True)


def _errors(row: Row) -> str:
    return f"{row['errors']:,}, {percent(row['errors'], row['calls'])}" if row["errors"] else "0"


def _halved(counts: Sequence[int]) -> list[int]:
    """Return the sums of two neighbours each: half the width is enough beside ten other columns."""
    return [sum(counts[index : index + 2]) for index in range(0, len(counts), 2)]


def _definition(row: Row) -> str:
    if not row["listed"]:
        return "unlisted"
    return f"v{row['versions']} {local(row['changed'], _DAY)}" if row["versions"] > 1 else "v1"


def clients(rows: Iterable[Row], *, color: bool) -> None:
    """Print rows of `Reader.clients`."""
    numbers = ("sessions", "calls", "errors", "p95", "tools")
    listing.print_table(
        ("client", *numbers, "first seen", "last seen", "revisions"),
        [
            (
                row["client"],
                row["sessions"],
                row["calls"],
                _errors(row),
                duration(row["p95_ms"]),
                row["tools"],
                local(row["first_seen"], _DAY),
                local(row["last_seen"], _DAY),
                _joined(row["revisions"]),
            )
            for row in rows
        ],
        color=color,
        right=numbers,
        whole=(*numbers, "first seen", "last seen"),
        spare=("revisions",),
        style=_style,
    )


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")


# ------------------------------------------------------------------------------------------- errors and slow calls


def errors(rows: Iterable[Row], *, color: bool) -> None:
    """Print rows of `Reader.errors`, whose first column is the number of the newest message, which `show` takes."""
    numbers = ("#", "count", "share", "clients", "sessions")
    listing.print_table(
        (*numbers, "last", "what", "error"),
        [
            (
                int(row["message_id"][-DIGITS:]),
                row["count"],
                percent(row["share"], 1),
                row["clients"],
                row["sessions"],
                local(row["last"], _DAY),
                f"{row['type']} {row['name'] or ''}".strip(),
                failure_text(row),
            )
            for row in rows
        ],
        color=color,
        right=numbers,
        whole=(*numbers, "last"),
        spare=("share", "sessions"),
        style=lambda column, _: "red" if column == "error" else "",
    )


def slow(rows: Iterable[Row], *, color: bool) -> None:
    """Print rows of `Reader.list_events`, whose first column is the number that `show` takes."""
    numbers = ("#", "latency", "first byte", "size")
    listing.print_table(
        (*numbers, "what", "client", "when", "status"),
        [
            (
                row["pk"],
                duration(row["latency_ms"]),
                duration(row["first_byte_ms"]),
                size(row["request_bytes"] + row["response_bytes"]),
                f"{row['type']} {row['name'] or ''}".strip(),
                f"{row['client_name'] or 'unknown'} {row['client_version'] or ''}".strip(),
                local(row["time"], f"{_WHEN}.%f"),
                failure_text(row) or _STATES.get(row["status"], row["status"]),
            )
            for row in rows
        ],
        color=color,
        right=numbers,
        whole=(*numbers, "when"),
        spare=("first byte", "client", "size"),
    )


# ------------------------------------------------------------------------------------------------------ connections


def connections(rows: Iterable[Row], *, color: bool) -> None:
    """Print rows of `Reader.list_sessions` as what they are on the wire."""
    numbers = ("#", "streams", "in", "out", "dropped")
    listing.print_table(
        ("#", "client", "state", "opened", "last used", *numbers[1:], "from", "known by", "transport"),
        [
            (
                row["pk"],
                f"{row['client_name'] or 'unknown'} {row['client_version'] or ''}".strip(),
                "ended" if row["status"] == "ended" else row["connection_state"],
                local(row["started"], _DAY),
                local(row["last_active"], _DAY),
                row["open_streams"],
                size(row["request_bytes"]),
                size(row["response_bytes"]),
                row["dropped"],
                row["client_address"],
                row["origin"],
                row["transport"],
            )
            for row in rows
        ],
        color=color,
        right=numbers,
        whole=(*numbers, "state", "opened", "last used"),
        spare=("last used", "dropped", "transport", "known by", "from"),
        style=_style,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ stats


def stats_rows(totals: Row, used: Iterable[Row]) -> list[Row]:
    """Return one row for all calls and one for each tool, named by the filter that gives its calls."""
    figures = ("calls", "errors", "p50_ms", "p95_ms", "p99_ms")
    named = [("all", totals), *((f"tool:{row['name']}", row) for row in used)]
    return [{"what": what, **{figure: row[figure] for figure in figures}} for what, row in named]


def stats(totals: Row, series: Sequence[Row], used: Sequence[Row], *, color: bool) -> None:
    """Print the figures of a time: in words, as a picture over time, and by tool."""
    for word, text in _told(totals):
        click.echo(f"  {paint(f'{word:<10}', 'dim', color=color)} {text}", color=color)
    if totals["calls"] and series:
        lines = (("calls", "", [row["calls"] for row in series]), ("errors", "red", [row["errors"] for row in series]),
                 ("p95", "", [row["p95_ms"] for row in series]))  # fmt: skip
        click.echo()
        for word, style, counts in lines:
            most = max((count for count in counts if count), default=0)
            text = duration(most) if word == "p95" else f"{most:,}"
            drawn = paint(spark(counts), style, color=color)
            click.echo(f"  {paint(f'{word:<10}', 'dim', color=color)} {drawn}  at most {text}", color=color)
        span = (series[0]["end"] - series[0]["start"]) / 1000
        over = f"from {_clock(series[0]['start'])} to {_clock(series[-1]['end'])}, {duration(span)} each"
        click.echo(f"  {'':<10} {paint(over, 'dim', color=color)}", color=color)
    if used:
        click.echo()
        numbers = ("calls", "errors", "p50", "p95", "p99")
        listing.print_table(
            ("tool", *numbers),
            [
                (
                    row["name"],
                    row["calls"],
                    _errors(row),
                    *(duration(row[key]) for key in ("p50_ms", "p95_ms", "p99_ms")),
                )
                for row in sorted(used, key=lambda row: -row["calls"])
            ],
            color=color,
            right=numbers,
            whole=numbers,
            style=_style,
        )


def _told(totals: Row) -> Iterable[tuple[str, str]]:
    yield "sessions", f"{totals['sessions']:,}, {totals['active']:,} active"
    yield "calls", f"{totals['calls']:,}, {totals['tool_calls']:,} of tools"
    share = percent(totals["errors"], totals["calls"])
    yield "errors", f"{totals['errors']:,}{f' ({share})' if share else ''}"
    if totals["p50_ms"] is not None:
        latencies = ", ".join(f"{key} {duration(totals[f'{key}_ms'])}" for key in ("p50", "p95", "p99"))
        yield "latency", latencies if totals["exact"] else f"{latencies}, within 3 %"
    if totals["dropped"]:
        yield "incomplete", f"{counted(totals['dropped'], 'piece')} of traffic never reached the recorder"


def _clock(at_us: int) -> str:
    return local(iso(at_us), _WHEN)
