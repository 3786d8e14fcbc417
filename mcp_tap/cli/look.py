"""The verbs that look at a recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from mcp_tap.cli import flags

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp_tap.store import Page, Reader, Row

#: How often `tail` asks the store for what is new: often enough to feel live, seldom enough to cost nothing.
TAIL_SECONDS: Final = 0.25


def _print(rows: list[Row], *, as_json: bool, table: Callable[[list[Row]], None]) -> None:
    """Print rows in the form that fits where they go; ``table`` prints them for people."""
    from mcp_tap.ui import listing

    form = listing.shape(as_json=as_json)
    if form == "table":
        table(rows)
    else:
        listing.print_records(rows, form)


def _say_more(page: Page, noun: str) -> None:
    from mcp_tap.store import COUNTED

    if page.more_after:
        fitting = f"{page.matched:,}{'+' * (page.matched >= COUNTED)}"
        click.echo(f"{len(page.rows)} of {fitting} {noun}; --limit shows more", err=True)


# ------------------------------------------------------------------------------------------- sessions and messages


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.limit(50, "sessions, newest first")
@flags.look
def sessions(*, words: tuple[str, ...], since: str | None, limit: int, store: str | None, file: str | None,
             as_json: bool, debug: bool) -> None:  # fmt: skip
    """List sessions, newest first.

    FILTER are words such as status:active client:claude errors:>0; all of them have to hold.
    """
    where = flags.read_filter(words, since)
    from mcp_tap.store import Paging
    from mcp_tap.ui import printout
    from mcp_tap.ui.export import shortened

    async def question(reader: Reader) -> None:
        page = await reader.list_sessions(where, Paging(limit=limit))
        rows = [shortened(row) for row in page.rows]
        _print(rows, as_json=as_json, table=lambda rows: printout.sessions(rows, color=flags.color()))
        _say_more(page, "sessions")

    flags.ask(question, store, file)


@click.command()
@click.argument("id")
@flags.limit(1000, "events")
@flags.look
def session(*, id: str, limit: int, store: str | None, file: str | None, as_json: bool, debug: bool) -> None:  # noqa: A002
    """Show one session and its timeline.

    ID is an id of the session or the connection, the beginning of one, its number, or an mcp-session-id. With --json
    the first line is the session, each further one an event.
    """
    from mcp_tap.store import ALL, Paging
    from mcp_tap.ui import listing, printout
    from mcp_tap.ui.export import shortened

    async def question(reader: Reader) -> None:
        row = await reader.session(id)
        where = ALL.plus("conn", row["connection_id"])
        page = await reader.list_events(where, Paging(limit=limit, order="asc"))
        form = listing.shape(as_json=as_json)
        if form == "table":
            printout.session(row, page.rows, color=flags.color(), width=listing.width())
        elif form == "json":
            for line in (row, *page.rows):
                listing.print_records([shortened(line)], form)
        else:
            listing.print_records([shortened(line) for line in page.rows], form)
        if page.more_after:
            click.echo(f"only the first {limit} events; --limit shows more", err=True)

    flags.ask(question, store, file)


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.limit(10, "of the last events to begin with")
@click.option("--once", is_flag=True, help="Print the last events and end.")
@flags.look
def tail(*, words: tuple[str, ...], since: str | None, limit: int, once: bool, store: str | None, file: str | None,
         as_json: bool, debug: bool) -> None:  # fmt: skip
    """Follow the events of a recording as they happen, until Ctrl-C.

    Each event is printed once, when it is final; with --json every change of an event is a line. FILTER are words such
    as tool:search status:failed -method:ping; all of them have to hold.
    """
    import asyncio

    where = flags.read_filter(words, since)
    from mcp_tap.store import Paging
    from mcp_tap.ui import listing, printout

    async def question(reader: Reader) -> None:
        follow = printout.Follow(reader, as_json=as_json, color=flags.color(), width=listing.width())
        # The number first: what happens between the two questions is then asked for again, and shown once.
        cursor = (await reader.facts())["change"]
        await follow.show((await reader.list_events(where, Paging(limit=limit))).rows[::-1])
        while not once:
            rows, after = await reader.changes(cursor, where=where)
            await follow.show(rows)
            if after == cursor:
                await asyncio.sleep(TAIL_SECONDS)
            cursor = after

    try:
        flags.ask(question, store, file)
    except KeyboardInterrupt:
        click.echo(err=True)


@click.command()
@click.argument("id")
@flags.look
def show(*, id: str, store: str | None, file: str | None, as_json: bool, debug: bool) -> None:  # noqa: A002
    """Show one message: what, when, how long, and both bodies.

    ID is an id of the event or the message, the beginning of one, or its number as `session` prints it.
    """
    from mcp_tap.ui import printout
    from mcp_tap.ui.text import json_line

    async def question(reader: Reader) -> None:
        row = await reader.event(id)
        if as_json:
            click.echo(json_line(row))
        else:
            printout.message(row, color=flags.color())

    flags.ask(question, store, file)


# --------------------------------------------------------------------------------------------------------- figures


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.limit(100, "tools")
@flags.look
def tools(*, words: tuple[str, ...], since: str | None, limit: int, store: str | None, file: str | None,
          as_json: bool, debug: bool) -> None:  # fmt: skip
    """List tools: calls, errors, latencies, definitions; the slowest first, those never called last."""
    where = flags.read_filter(words, since)
    from mcp_tap.ui import figures

    async def question(reader: Reader) -> None:
        rows = await reader.tools(where)
        _print(rows[:limit], as_json=as_json, table=lambda rows: figures.tools(rows, color=flags.color()))

    flags.ask(question, store, file)


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.limit(100, "clients")
@flags.look
def clients(*, words: tuple[str, ...], since: str | None, limit: int, store: str | None, file: str | None,
            as_json: bool, debug: bool) -> None:  # fmt: skip
    """List clients by name and version; those with the most calls first."""
    where = flags.read_filter(words, since)
    from mcp_tap.ui import figures

    async def question(reader: Reader) -> None:
        rows = await reader.clients(where)
        _print(rows[:limit], as_json=as_json, table=lambda rows: figures.clients(rows, color=flags.color()))

    flags.ask(question, store, file)


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.limit(50, "groups, the largest first")
@flags.look
def errors(*, words: tuple[str, ...], since: str | None, limit: int, store: str | None, file: str | None,
           as_json: bool, debug: bool) -> None:  # fmt: skip
    """List what failed, in groups of the same error; numbers and ids in its text count as the same.

    The first column is the number of the newest one, for mcp-tap show ID.
    """
    where = flags.read_filter(words, since)
    from mcp_tap.ui import figures

    async def question(reader: Reader) -> None:
        rows = await reader.errors(where, limit=limit)
        _print(rows, as_json=as_json, table=lambda rows: figures.errors(rows, color=flags.color()))

    flags.ask(question, store, file)


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@click.option("--over", metavar="TIME", help="Only calls that took longer: 500ms, 2s.")
@flags.limit(20, "calls, the slowest first")
@flags.look
def slow(*, words: tuple[str, ...], since: str | None, over: str | None, limit: int, store: str | None,
         file: str | None, as_json: bool, debug: bool) -> None:  # fmt: skip
    """List the slowest calls. Streams that listen are left out: they last by design."""
    where = flags.read_filter(words, since)
    if over is not None:
        where = where.plus("latency", f">{over}")
    from mcp_tap.store import Paging
    from mcp_tap.ui import figures
    from mcp_tap.ui.export import shortened

    async def question(reader: Reader) -> None:
        page = await reader.list_events(figures.calls(where), Paging(limit=limit, sort="latency_ms"))
        rows = [shortened(row) for row in page.rows if row["latency_ms"] is not None]
        _print(rows, as_json=as_json, table=lambda rows: figures.slow(rows, color=flags.color()))

    flags.ask(question, store, file)


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.limit(50, "connections, newest first")
@flags.look
def connections(*, words: tuple[str, ...], since: str | None, limit: int, store: str | None, file: str | None,
                as_json: bool, debug: bool) -> None:  # fmt: skip
    """List connections as seen from the wire: transport, state, open streams, bytes."""
    where = flags.read_filter(words, since)
    from mcp_tap.store import Paging
    from mcp_tap.ui import figures
    from mcp_tap.ui.export import shortened

    async def question(reader: Reader) -> None:
        page = await reader.list_sessions(where, Paging(limit=limit))
        rows = [shortened(row) for row in page.rows]
        _print(rows, as_json=as_json, table=lambda rows: figures.connections(rows, color=flags.color()))
        _say_more(page, "connections")

    flags.ask(question, store, file)


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@flags.look
def stats(*, words: tuple[str, ...], since: str | None, store: str | None, file: str | None, as_json: bool,
          debug: bool) -> None:  # fmt: skip
    """Show the figures of a time: calls, errors, percentiles, over time and by tool.

    With --json one object: totals, series, tools. In a pipe one line for all calls and one for each tool.
    """
    where = flags.read_filter(words, since)
    from mcp_tap.ui import figures, listing
    from mcp_tap.ui.text import json_line

    async def question(reader: Reader) -> None:
        totals, series = await reader.totals(where), await reader.series(where, parts=figures.PARTS)
        used = [row for row in await reader.tools(where) if row["calls"]]
        form = listing.shape(as_json=as_json)
        if form == "json":
            click.echo(json_line({"totals": totals, "series": series, "tools": used}))
        elif form == "tsv":
            listing.print_records(figures.stats_rows(totals, used), form)
        else:
            figures.stats(totals, series, used, color=flags.color())

    flags.ask(question, store, file)


# ------------------------------------------------------------------------------------------------- other questions


@click.command()
@click.argument("id")
@flags.limit(1000, "events")
@flags.store
@flags.config
@flags.debug
def transcript(*, id: str, limit: int, store: str | None, file: str | None, debug: bool) -> None:  # noqa: A002
    """Print one session as a transcript, which can be played again as a test.

    ID is an id of the session or the connection, the beginning of one, its number, or an mcp-session-id. Bodies are as
    they were stored, which is masked; heads are made anew, session ids replaced.
    """
    from mcp_tap.protocol.transcript import write
    from mcp_tap.ui.transcribe import transcribe

    async def question(reader: Reader) -> None:
        click.echo(write(await transcribe(reader, await reader.session(id), limit)), nl=False)

    flags.ask(question, store, file)


@click.command()
@click.argument("select", required=False, metavar="['SELECT …']")
@flags.limit(1000, "rows")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
              help="How long it may take.")  # fmt: skip
@flags.look
def sql(
    *, select: str | None, limit: int, seconds: float, store: str | None, file: str | None, as_json: bool, debug: bool
) -> None:
    """Run one read-only SQL statement; without one, say what can be asked.

    Without a statement the place of the recording and its tables and views with their columns are printed. The views
    `sessions` and `events` are made for people.
    """
    from mcp_tap.ui import listing, printout

    async def question(reader: Reader) -> None:
        form = listing.shape(as_json=as_json)
        if select is None:
            await printout.schema(reader, flags.store_url(store, file), form)
            return
        table = await reader.query(select, limit=limit, seconds=seconds)
        if form == "table":
            listing.print_table(table.columns, table.rows, color=flags.color())
        else:
            listing.print_rows(table.columns, table.rows, form)
        if table.more:
            click.echo(f"only the first {limit} rows; --limit shows more", err=True)

    flags.ask(question, store, file)
