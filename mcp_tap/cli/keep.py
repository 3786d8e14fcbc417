"""The verbs that keep what a recording holds: take it elsewhere, hold it against budgets, delete what is old."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, cast

import click

from mcp_tap.cli import flags
from mcp_tap.errors import UsageError
from mcp_tap.ui.budgets import BUDGETS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp_tap.store import Reader
    from mcp_tap.store.filters import Filter
    from mcp_tap.ui.export import Format

# --------------------------------------------------------------------------------------------------------- export


@click.command(cls=flags.Filtering)
@click.argument("words", nargs=-1, metavar="[FILTER…|ID]")
@flags.since
@click.option("-f", "--format", "form", type=click.Choice(["jsonl", "csv"]),
              help="JSON Lines or CSV. [what the name of FILE ends with, else jsonl]")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Write to this file. [standard output]")
@click.option("--bodies", is_flag=True, help="With the bodies, as they were stored.")
@click.option("--reveal-session-id", "reveal", is_flag=True, help="Write mcp-session-ids whole.")
@flags.store
@flags.config
@flags.debug
def export(*, words: tuple[str, ...], since: str | None, form: str | None, output: str | None, bodies: bool,
           reveal: bool, store: str | None, file: str | None, debug: bool) -> None:  # fmt: skip
    """Write events as JSON Lines or CSV, in the order of time: all, those that fit, or those of one session.

    ID is an id of a session or a connection, or the number of one. Of mcp-session-ids the first 8 characters are
    written. In CSV a cell that a spreadsheet would take for a formula gets a ' in front.
    """
    from mcp_tap.ui.export import events

    # a wrong word is named before anything is opened, an id can only be found in what is open
    named = len(words) == 1 and re.fullmatch(r"(scn|ses)_[0-9a-z]+|#?\d{1,12}", words[0])
    where = flags.read_filter(() if named else words, since)
    form = form or ("csv" if output and output.lower().endswith(".csv") else "jsonl")

    async def question(reader: Reader) -> int:
        fitting = await _of_session(reader, where, words[0]) if named else where
        count = 0
        with _Target(output) as write:
            async for piece in events(reader, fitting, cast("Format", form), bodies=bodies, reveal=reveal):
                write(piece)
                count += len(piece)
        return count

    size = flags.ask(question, store, file)
    if output:
        from mcp_tap.ui import text

        click.echo(f"{text.size(size)} written to {text.harmless(output)}", err=True)


async def _of_session(reader: Reader, where: Filter, ref: str) -> Filter:
    """Return the filter for what belongs to one session, or with another kind of id to one connection."""
    row = await reader.session(ref)
    if ref.startswith("ses_"):
        return where.plus("session", row["session_id"])
    return where.plus("conn", row["connection_id"])


class _Target:
    """Where an export goes: a file of its owner alone, since it holds what a recording holds, or standard output."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def __enter__(self) -> Callable[[bytes], object]:
        if self._path is None:
            self._file: Any = sys.stdout.buffer
            sys.stdout.flush()
        else:
            try:
                self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
            except OSError as error:
                raise UsageError(
                    f"{self._path} cannot be written: {error.strerror}", hint="name another file with -o"
                ) from None
        return cast("Callable[[bytes], object]", self._file.write)

    def __exit__(self, *_: object) -> None:
        self._file.flush() if self._path is None else self._file.close()


# ---------------------------------------------------------------------------------------------------------- check


def _budgets(command: flags.F) -> flags.F:
    """Add a flag for each budget."""
    for budget in reversed(BUDGETS):
        command = click.option(budget.flag, metavar=budget.unit, help=budget.help)(command)
    return command


@click.command(cls=flags.Filtering)
@flags.words
@flags.since
@_budgets
@flags.look
def check(*, words: tuple[str, ...], since: str | None, store: str | None, file: str | None, as_json: bool,
          debug: bool, **given: str | None) -> int:  # fmt: skip
    """Hold calls against budgets and end with 1 when one is broken: for CI.

    Where nothing fits the check is broken, too, unless --min-calls 0 says that it may.
    """
    from mcp_tap.store import Paging
    from mcp_tap.ui import budgets, figures, listing

    allowed = budgets.read(given)
    where = flags.read_filter(words, since)

    async def question(reader: Reader) -> list[budgets.Verdict]:
        slowest = await reader.list_events(figures.calls(where), Paging(limit=1, sort="latency_ms"))
        longest = slowest.rows[0]["latency_ms"] if slowest.rows else None
        return budgets.judge(allowed, await reader.totals(where) | {"max_ms": longest})

    verdicts = flags.ask(question, store, file)
    form = listing.shape(as_json=as_json)
    if form == "table":
        style = {"ok": "green", "broken": "red"}
        listing.print_table(
            ("budget", "allowed", "figure", "verdict"),
            [(name, allowed, figure, verdict) for allowed, figure, name, verdict in budgets.cells(verdicts)],
            color=flags.color(),
            style=lambda column, shown: style.get(shown, "") if column == "verdict" else "",
        )
    else:
        listing.print_records(budgets.rows(verdicts), form)
    return int(not all(verdict.ok for verdict in verdicts))


# ---------------------------------------------------------------------------------------------------------- prune

#: Seconds between two parts of deleting, so that a tap which writes beside it gets its turn.
PAUSE: Final = 0.02


@click.command()
@click.option("--older-than", metavar="TIME", help="Delete what is older: 7d, 12h.")
@click.option("--to-size", metavar="SIZE", help="Delete the oldest until the file is smaller: 500MB.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@flags.store
@flags.config
@flags.debug
def prune(*, older_than: str | None, to_size: str | None, dry_run: bool, store: str | None, file: str | None,
          debug: bool) -> None:  # fmt: skip
    """Delete the oldest of a recording; a tap may be writing it meanwhile.

    A message without its answer stays, and so do the definitions of tools.
    """
    import asyncio

    from mcp_tap import values

    if older_than is None and to_size is None:
        raise UsageError(
            "how much is to go?", hint="try:  mcp-tap prune --older-than 7d\nor:  mcp-tap prune --to-size 500MB"
        )
    age = None if older_than is None else _read("--older-than", values.positive_duration, older_than)
    most = None if to_size is None else _read("--to-size", values.size(0, 10**15), to_size)
    asyncio.run(_prune(flags.store_url(store, file), age, most, dry_run=dry_run))


def _read(flag: str, reads: Callable[[str], Any], text: str) -> Any:
    try:
        return reads(text)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}", hint=error.hint) from None


async def _prune(url: str, age: float | None, most: int | None, *, dry_run: bool) -> None:
    """Delete, or say what would go, and print it."""
    import time

    from mcp_tap.store import open_pruner
    from mcp_tap.ui.text import counted, local, size

    pruner = await open_pruner(url)
    try:
        before = await pruner.size()
        oldest_kept = None if age is None else time.time_ns() // 1000 - int(age * 1_000_000)
        if dry_run:
            doomed = [] if oldest_kept is None else [await pruner.older(oldest_kept)]
            doomed += [] if most is None else [await pruner.beyond(most)]
            worst = max(doomed)
            until = f", the last of {local(worst.until, '%Y-%m-%d %H:%M:%S')}" if worst.until else ""
            about = "" if most is None else "about "
            click.echo(f"{about}{counted(worst.lines, 'line')} would go{until}; the recording takes {size(before)}")
            return
        gone = 0 if oldest_kept is None else await _all_of(lambda: pruner.prune(oldest_kept))
        gone += 0 if most is None else await _all_of(lambda: pruner.prune_to(most))
        await _all_of(pruner.vacuum)
    finally:
        await pruner.close()
    after = await pruner.size()
    click.echo(f"{counted(gone, 'line')} went; the recording took {size(before)} and takes {size(after)}")


async def _all_of(part: Callable[[], Awaitable[int]]) -> int:
    """Do something part by part until nothing is left to do, with pauses in which a tap can write."""
    import asyncio

    done = 0
    while count := await part():
        done += count
        await asyncio.sleep(PAUSE)
    return done
