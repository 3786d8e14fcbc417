"""What the commands print for people: the list of sessions, one session, one message, the settings.

Everything here is text out of rows; where the rows come from is the business of the caller.
"""

from __future__ import annotations

import json
import textwrap
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import click

from mcp_tap.model import Codec, Kind, Status
from mcp_tap.ui import listing
from mcp_tap.ui.export import SHOWN, shortened
from mcp_tap.ui.terminal import REMEMBERED, Lines, end_text, failure_text, paint, peers_text
from mcp_tap.ui.text import counted, duration, harmless, json_line, local, size
from mcp_tap.ui.words import END_REASONS
from mcp_tap.values import written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mcp_tap.config import Loaded
    from mcp_tap.store import Reader, Row

#: What `sessions` shows of a row; everything else is in `session`, and in the other formats.
_SESSION_COLUMNS: Final = ("#", "client", "started", "duration", "calls", "errors", "status", "revision", "tools")

#: Settings that are secrets: whether there is one is all that is printed.
_SECRET: Final = frozenset({"admin.token"})

_WHEN: Final = "%Y-%m-%d %H:%M:%S.%f"

# ------------------------------------------------------------------------------------------------------- sessions


def sessions(rows: Iterable[Row], *, color: bool) -> None:
    """Print rows of `sessions` as a table whose first column is the number that `session` takes."""
    listing.print_table(
        _SESSION_COLUMNS,
        [
            (
                row["pk"],
                f"{row['client_name'] or 'unknown'} {row['client_version'] or ''}".strip(),
                local(row["started"], "%m-%d %H:%M:%S"),
                duration(row["duration_ms"]),
                row["calls"],
                row["errors"],
                _session_status(row),
                row["protocol_version"],
                row["tools"],
            )
            for row in rows
        ],
        color=color,
        right=("#", "duration", "calls", "errors"),
        whole=("#", "started", "duration", "calls", "errors", "revision"),
        spare=("revision", "tools"),
        style=_session_style,
    )


def _session_style(column: str, shown: str) -> str:
    if column == "errors" and shown != "0":
        return "red"
    return "green" if column == "status" and shown.startswith("active") else ""


def _session_status(row: Row) -> str:
    words = [str(row["status"])]
    if row["end_reason"]:
        words.append(END_REASONS.get(row["end_reason"], (str(row["end_reason"]).replace("_", " "),))[0])
    if row["dropped"] or row["truncated"]:
        words.append("incomplete")
    if "shared" in (row["origin_note"] or ""):
        words.append("shared")
    return ", ".join(words)


def session(row: Row, events: Iterable[Row], *, color: bool, width: int) -> None:
    """Print one session: who, when, how it went, and its timeline with the numbers that `show` takes."""
    click.echo("\n".join(_pairs(row["connection_id"], _session_facts(row), color=color)))
    click.echo()
    lines = Lines(width=width, color=color, numbers="event")
    for event in events:
        click.echo(lines.render(event, row), color=color)


def _session_facts(row: Row) -> Iterator[tuple[str, str]]:
    yield "peers", peers_text(row)
    yield "session", f"{row['session_id']}, known by: {row['origin']}{_bracketed(row['origin_note'])}"
    if row["mcp_session_id"]:
        # Possession of the id is access to the session where the server asks for nothing else.
        yield "mcp id", f"{row['mcp_session_id'][:SHOWN]}…"
    yield "revision", f"{row['protocol_version'] or 'unknown'}{_bracketed(row['era'])}"
    yield "started", local(row["started"], _WHEN)
    if row["ended"]:
        yield "ended", f"{local(row['ended'], _WHEN)}: {end_text(row)}"
    else:
        yield "so far", f"{end_text(row)}, last active {local(row['last_active'], _WHEN)}"
    if row["open_calls"] or row["open_streams"]:
        yield "open", f"{counted(row['open_calls'], 'call')}, {counted(row['open_streams'], 'stream')}"
    if row["dropped"] or row["truncated"]:
        yield "incomplete", f"{counted(row['dropped'], 'piece')} dropped, {counted(row['truncated'], 'body cut')}"
    yield "tools", row["tools"] or "none called"


def _bracketed(text: str | None) -> str:
    return f" ({text})" if text else ""


def _pairs(title: str, facts: Iterable[tuple[str, str]], *, color: bool) -> Iterator[str]:
    yield paint(harmless(title), "bold", color=color)
    for word, text in facts:
        yield f"  {paint(f'{word:<10}', 'dim', color=color)} {harmless(text)}"


# ----------------------------------------------------------------------------------------------------------- tail


class Follow:
    """Prints events as they come: lines on a terminal, TSV in a pipe, JSON lines where asked for."""

    def __init__(self, reader: Reader, *, as_json: bool, color: bool, width: int) -> None:
        self._reader = reader
        self._shape = listing.shape(as_json=as_json)
        self._color = color
        self._lines = Lines(width=width, color=color)
        self._changes: OrderedDict[str, int] = OrderedDict()  # the last change of each event that was printed
        self._headed = False

    async def show(self, rows: Iterable[Row]) -> None:
        """Print what of ``rows`` was not printed yet."""
        printed: list[str] = []
        for row in rows:
            if self._shape == "table":
                line = self._lines.line(row, await self._session(row))
                if line is not None:
                    printed.append(line)
            elif self._shape == "json" or row["status"] != Status.WAITING:
                printed.extend(self._record(row))
        if printed:
            click.echo("\n".join(printed), color=self._color)

    async def _session(self, row: Row) -> Row | None:
        if row["kind"] != Kind.LIFECYCLE or not row["connection_id"]:
            return None
        return await self._reader.session(row["connection_id"])

    def _record(self, row: Row) -> Iterator[str]:
        known = self._changes.get(row["event_id"])
        if known == row["change"] or (known is not None and self._shape == "tsv"):
            return
        self._changes[row["event_id"]] = row["change"]
        if len(self._changes) > REMEMBERED:
            self._changes.popitem(last=False)
        if self._shape == "json":
            yield json_line(shortened(row))
            return
        if not self._headed:
            self._headed = True
            yield listing.tsv_line(row)
        yield listing.tsv_line(shortened(row).values())


# -------------------------------------------------------------------------------------------------------- message


def message(row: Row, *, color: bool) -> None:
    """Print one event with everything that is known of it, and both its bodies."""
    title = f"{row['message_id'] or row['event_id']}  {row['type']} {row['name'] or ''}"
    click.echo("\n".join(_pairs(title.strip(), _message_facts(row), color=color)), color=color)
    for side in ("request", "response"):
        body = row[f"{side}_body"]
        if body is not None:
            click.echo()
            click.echo(paint(_body_title(side, body, row[f"{side}_bytes"]), "bold", color=color), color=color)
            _print_body(body, color=color)


def _message_facts(row: Row) -> Iterator[tuple[str, str]]:
    yield "when", local(row["time"], _WHEN)
    if row["direction"]:
        yield "direction", str(row["direction"]).replace("_", " ")
    yield from _status_fact(row)
    if row["latency_ms"] is not None:
        parts = {
            name: row[f"{name.replace(' ', '_')}_ms"] for name in ("headers", "first byte", "first event", "last byte")
        }
        told = ", ".join(f"{name} after {duration(ms)}" for name, ms in parts.items() if ms is not None)
        yield "took", f"{duration(row['latency_ms'])}{f'; {told}' if told else ''}"
    if row["sse_events"]:
        shown = ", ".join(duration(us / 1000) for us in row["sse_events"][:10])
        yield (
            "stream",
            f"{counted(len(row['sse_events']), 'SSE event')} after {shown}{', …' * (len(row['sse_events']) > 10)}",
        )
    if row["http_method"] or row["http_status"]:
        http = " ".join(str(part) for part in (row["http_method"], row["path"], row["http_status"]) if part is not None)
        sender = f", from {row['peer']}" if row["peer"] else ""
        yield "http", f"{http}{sender}, TCP connection {row['stream']}"
    if row["attempt"] > 1:
        yield "attempt", f"{row['attempt']} of {row['operation_id']}"
    if row["operation"]:
        spent = row["operation"]
        parts = {"server": spent["server_ms"], "a person": spent["person_ms"], "the client": spent["client_ms"]}
        told = ", ".join(f"{name} {duration(ms)}" for name, ms in parts.items() if ms)
        yield "operation", f"{counted(spent['legs'], 'leg')}: {told}"
    if row["connection_id"]:
        yield "connection", row["connection_id"]
    if row["trace_id"]:
        yield "trace", row["trace_id"]
    yield "size", f"request {size(row['request_bytes'])}, response {size(row['response_bytes'])}"
    if row["dropped"]:
        yield "incomplete", f"{counted(row['dropped'], 'piece')} of its traffic never reached the recorder"
    if row["note"]:
        yield "note", row["note"]


def _status_fact(row: Row) -> Iterator[tuple[str, str]]:
    if row["status"] == Status.WAITING:
        yield "status", "waiting for its answer"
    elif row["status"]:
        outcome = str(row["outcome"] or "").replace("_", " ")
        yield "status", ": ".join(word for word in (str(row["status"]), outcome, failure_text(row)) if word)


def _body_title(side: str, body: Row, seen: int) -> str:
    title = f"{side} body"
    if body["codec"] == Codec.CUT:
        title += f", cut: the first {size(len(body['data'].encode()))} of {size(seen)}"
    if body["masked"]:
        title += f", {counted(body['masked'], 'value')} masked"
    return title


def _print_body(body: Row, *, color: bool) -> None:
    try:
        text = json_line(json.loads(body["data"]), indent=True)
    except (ValueError, RecursionError):  # no JSON, or cut in the middle of it
        lines = body["data"].expandtabs().splitlines() or [""]
        click.echo("\n".join(harmless(line) for line in lines), color=color)
        return
    if not color:
        click.echo(text)
        return
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    shown = Text(text)
    JSONHighlighter().highlight(shown)
    Console(force_terminal=True).print(shown, soft_wrap=True)


# --------------------------------------------------------------------------------------------------------- schema


async def schema(reader: Reader, store: str, form: listing.Shape) -> None:
    """Print where the recording is, and what can be asked of it."""
    if form != "json":
        click.echo(harmless(store), err=form == "tsv")
    listed = await reader.query(
        "SELECT type, name FROM sqlite_schema "
        "WHERE type IN ('view', 'table') AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name"
    )
    rows = []
    for kind, name in listed.rows:
        table = await reader.query(f'PRAGMA table_info("{name}")')
        rows.append((kind, name, ", ".join(str(column[1]) for column in table.rows)))
    if form != "table":
        listing.print_rows(("type", "name", "columns"), rows, form)
        return
    for kind, name, columns in rows:
        click.echo(f"\n{kind} {name}")
        click.echo(textwrap.fill(columns, listing.width(), initial_indent="  ", subsequent_indent="  "))


# ------------------------------------------------------------------------------------------------------- settings


def settings(loaded: Loaded) -> Iterator[str]:
    """Yield one line for each setting: its name, its value as the file writes it, and where it comes from."""
    for name, value in loaded.values.items():
        given = "" if value is None and name != "record.keep" else value
        shown = '"…"' if name in _SECRET and given else written(given)
        yield f"{name} = {harmless(shown)}   ({harmless(loaded.origins[name])})"
