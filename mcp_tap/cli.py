"""The command line: verbs, their flags, and the one place where errors become exit statuses.

    0    done, also a graceful stop
    1    the answer is no: nothing has that id, or something unexpected
    2    the command or the configuration can be fixed
    3    the server behind the tap cannot be reached or is no MCP server
    4    the store cannot be opened or read

Whatever a verb needs is imported when it runs: `run` hands its process over to the relay, which must stay small, and
`version` should not wait for a database driver.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from mcp_tap import __version__
from mcp_tap.model import TapError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tap.config import Loaded
    from mcp_tap.store import Reader, Row

#: How often `tail` asks the store for what is new: often enough to feel live, seldom enough to cost nothing.
TAIL_SECONDS: Final = 0.25

F = TypeVar("F", bound=Callable[..., Any])

# ---------------------------------------------------------------------------------------------------- the command


class Verbs(click.Group):
    """The verbs; a first argument that looks like a URL means `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front where a URL comes before any verb: `mcp-tap --listen … URL` is `mcp-tap run …`."""
        for index, argument in enumerate(args):
            if argument in self.commands:
                break
            if _looks_like_url(argument):
                return super().parse_args(ctx, ["run", *args])
            if index == 0 and not argument.startswith("-"):
                break
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which they are written here, which is the order of need."""
        return list(self.commands)


def _looks_like_url(argument: str) -> bool:
    return bool(re.match(r"https?://|[\w.-]+:\d+(/|$)", argument, re.IGNORECASE))


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="mcp-tap %(version)s")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.pass_context
def verbs(ctx: click.Context, debug: bool) -> None:
    """Record what happens between MCP clients and a server, without changing a byte of it.

    mcp-tap URL is short for mcp-tap run URL.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; the one place where an error becomes words and an exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _status(args)
        if sys.stdout is not None:  # None: it was closed before we began
            sys.stdout.flush()
    except BrokenPipeError:  # `mcp-tap sessions | head`: nobody is left to be told anything
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 0
    sys.exit(status)


def _status(args: list[str]) -> int:
    debug = "--debug" in args
    try:
        _refuse_namesake()
        result = verbs.main(args, prog_name="mcp-tap", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        raise
    except click.ClickException as error:
        _complain(*_usage(error))
        return UsageError.exit_status
    except TapError as error:
        if debug:
            traceback.print_exc()
        _complain(str(error), error.hint)
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - whatever it is, people get a sentence
        if debug:
            traceback.print_exc()
        _complain(
            f"{type(error).__name__}: {error}", "this should not happen; the same command with --debug says where"
        )
        return TapError.exit_status


def _complain(message: str, hint: str = "") -> None:
    from mcp_tap.ui.text import harmless

    lines = [f"error: {harmless(message)}", *(f"  {harmless(line.strip())}" for line in hint.splitlines())]
    click.echo("\n".join(lines), err=True)


def _usage(error: click.ClickException) -> tuple[str, str]:
    """Return click's own errors in our shape: lower case, what to do on a line of its own."""
    message = error.format_message().strip()
    message, _, rest = message.partition("\n")
    if "Did you mean" in message:
        message, _, rest = message.partition(" Did you mean")
        rest = f"did you mean{rest}"
    if "(Possible options:" in message:
        message, _, rest = message.partition(" (Possible options:")
        rest = f"did you mean one of{rest.rstrip(').')}?"
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    verb = f" {ctx.info_name}" if ctx is not None and ctx.parent is not None else ""
    hint = "\n".join(line for line in (rest.strip(), f"try:  mcp-tap help{verb}") if line)
    return message[:1].lower() + message[1:].rstrip("."), hint


def _refuse_namesake() -> None:
    """Stop when the other `mcp-tap`, an unrelated installer, is in the same environment.

    Both own the import package `mcp_tap`, so what runs would be a mixture of the two.
    """
    from importlib import metadata

    try:
        metadata.distribution("mcp-tap")
    except metadata.PackageNotFoundError:
        return
    owners = metadata.packages_distributions().get("mcp_tap", [])
    if "mcp-tap" in owners:
        raise UsageError(
            "another package named mcp-tap is installed here and overwrites parts of this one",
            hint="try:  pip uninstall mcp-tap && pip install --force-reinstall mcp-tap-proxy",
        )


# ---------------------------------------------------------------------------------------------------------- flags


class Since(click.ParamType[int]):
    """A point in time: a span before now (30m, 1h, 7d) or ISO 8601, local where it names no zone."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return microseconds since the epoch."""
        text = str(value).strip()
        if match := re.fullmatch(r"(\d{1,6})\s*([smhdw])", text):
            unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]
            moment = datetime.now(UTC) - timedelta(**{unit: int(match[1])})
        else:
            try:
                moment = datetime.fromisoformat(text).astimezone()
            except (ValueError, OverflowError):
                self.fail(f"{text!r} is no time; write 30m, 1h, 7d or 2026-03-14T10:08", param, ctx)
        return int(moment.timestamp() * 1_000_000)


_debug = click.option("--debug", is_flag=True, help="Show where an error comes from.")
_config = click.option("-c", "--config", "file", metavar="FILE", help="Read settings from this file.")
_store = click.option("--store", metavar="URL", help="The recording, as sqlite:///FILE.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
_since = click.option("--since", type=Since(), metavar="TIME", help="Only from then on: 30m, 1h, 7d, or ISO 8601.")
_listen = click.option("--listen", metavar="HOST:PORT", help="Where clients connect. [127.0.0.1:6278]")
_admin_listen = click.option("--admin-listen", metavar="HOST:PORT", help="Where the desk listens. [127.0.0.1:6279]")


def _limit(default: int, noun: str) -> Callable[[F], F]:
    return click.option(
        "--limit", type=click.IntRange(min=1), default=default, show_default=True, help=f"How many {noun}."
    )


def _look(command: F) -> F:
    """Add the flags of every verb that looks at a recording."""
    return _store(_config(_json(_debug(command))))


def _load(file: str | None, flags: dict[str, str | None]) -> Loaded:
    from mcp_tap import config

    given = {name: value for name, value in flags.items() if value is not None}
    return config.load(given, file=file, env=os.environ, cwd=Path.cwd())


@asynccontextmanager
async def _reading(store: str | None, file: str | None) -> AsyncIterator[Reader]:
    from mcp_tap.store import open_reader

    reader = await open_reader(_load(file, {"record.store": store}).settings.record.store)
    try:
        yield reader
    finally:
        await reader.close()


def _color() -> bool:
    from mcp_tap.ui.terminal import wants_color

    return wants_color(sys.stdout, os.environ)


# ------------------------------------------------------------------------------------------------------------ run


@verbs.command()
@click.argument("url", required=False)
@_listen
@_admin_listen
@_store
@_config
@click.option("--bodies", type=click.Choice(["none", "redacted", "full"]), help="What is kept of bodies. [redacted]")
@click.option("--format", type=click.Choice(["text", "json", "none"]), help="The live view. [text; json in a pipe]")
@_debug
def run(*, url: str | None, listen: str | None, admin_listen: str | None, store: str | None, file: str | None,
        bodies: str | None, format: str | None, debug: bool) -> NoReturn:  # fmt: skip  # noqa: A002 - the flag's name
    """Stand in front of the server at URL and record.

    Clients connect to http://127.0.0.1:6278 with the path of URL. Ends at Ctrl-C or SIGTERM, after the calls in
    flight.
    """
    loaded = _load(
        file,
        {
            "proxy.upstream": url,
            "proxy.listen": listen,
            "admin.listen": admin_listen,
            "record.store": store,
            "record.bodies": bodies,
            "format": format,
            "debug": "true" if debug else None,
        },
    )
    settings = loaded.to_run()
    if loaded.origins["format"] == "default" and not sys.stdout.isatty():
        settings = replace(settings, format="json")  # a pipe is read by programs
    from mcp_tap import app

    app.run(settings)


@verbs.command()
@click.option("--once", is_flag=True, help="Play one round, print a summary and end.")
@_listen
@_admin_listen
@_store
@_debug
def demo(*, once: bool, listen: str | None, admin_listen: str | None, store: str | None, debug: bool) -> int:
    """Run a sample server, the tap and sample clients, to look around."""
    from mcp_tap import demo as demonstration

    return demonstration.main(once=once, store=store, listen=listen, admin_listen=admin_listen)


# ----------------------------------------------------------------------------------------------------------- look


def _ask(question: Callable[[Reader], Awaitable[None]], store: str | None, file: str | None) -> None:
    import asyncio

    async def ask() -> None:
        async with _reading(store, file) as reader:
            await question(reader)

    asyncio.run(ask())


@verbs.command()
@_since
@_limit(50, "sessions, newest first")
@_look
def sessions(*, since: int | None, limit: int, store: str | None, file: str | None, as_json: bool, debug: bool) -> None:
    """List sessions, newest first."""
    from mcp_tap.ui import listing, printout

    async def question(reader: Reader) -> None:
        rows = await reader.sessions(since=since, limit=limit)
        form = listing.shape(as_json=as_json)
        if form == "table":
            printout.sessions(rows, color=_color())
        elif rows:
            listing.print_rows(list(rows[0]), (list(row.values()) for row in rows), form)

    _ask(question, store, file)


@verbs.command()
@click.argument("id")
@_limit(1000, "events")
@_look
def session(*, id: str, limit: int, store: str | None, file: str | None, as_json: bool, debug: bool) -> None:  # noqa: A002
    """Show one session and its timeline.

    ID is an id of the session or the connection, the beginning of one, its number, or an mcp-session-id. With --json
    the first line is the session, each further one an event.
    """
    from mcp_tap.ui import listing, printout

    async def question(reader: Reader) -> None:
        row = await reader.session(id)
        events = await reader.events(session=row["connection_id"], limit=limit + 1)
        more = len(events) > limit
        del events[limit:]
        form = listing.shape(as_json=as_json)
        if form == "table":
            printout.session(row, events, color=_color(), width=listing.width())
        elif form == "json":
            for line in (row, *events):
                listing.print_rows(list(line), [list(line.values())], form)
        elif events:
            listing.print_rows(list(events[0]), (list(event.values()) for event in events), form)
        if more:
            click.echo(f"only the first {limit} events; --limit shows more", err=True)

    _ask(question, store, file)


@verbs.command()
@_since
@_limit(10, "of the last events to begin with")
@click.option("--once", is_flag=True, help="Print the last events and end.")
@_look
def tail(
    *, since: int | None, limit: int, once: bool, store: str | None, file: str | None, as_json: bool, debug: bool
) -> None:
    """Follow the events of a recording as they happen, until Ctrl-C.

    Each event is printed once, when it is final; with --json every change of an event is a line.
    """
    import asyncio

    from mcp_tap.ui import listing, printout

    async def question(reader: Reader) -> None:
        follow = printout.Follow(reader, as_json=as_json, color=_color(), width=listing.width())
        # The number first: what happens between the two questions is then asked for again, and shown once.
        cursor = await follow.cursor()
        await follow.show(await reader.events(since=since, limit=limit, newest=True))
        while not once:
            rows, after = await reader.changes(cursor)
            if since is not None:
                rows = [row for row in rows if _microseconds(row) >= since]
            await follow.show(rows)
            if after == cursor:
                await asyncio.sleep(TAIL_SECONDS)
            cursor = after

    try:
        _ask(question, store, file)
    except KeyboardInterrupt:
        click.echo(err=True)


def _microseconds(row: Row) -> int:
    return int(datetime.fromisoformat(row["time"]).timestamp() * 1_000_000)


@verbs.command()
@click.argument("id")
@_look
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
            printout.message(row, color=_color())

    _ask(question, store, file)


@verbs.command()
@click.argument("id")
@_limit(1000, "events")
@_store
@_config
@_debug
def transcript(*, id: str, limit: int, store: str | None, file: str | None, debug: bool) -> None:  # noqa: A002
    """Print one session as a transcript, which can be played again as a test.

    ID is an id of the session or the connection, the beginning of one, its number, or an mcp-session-id. Bodies are as
    they were stored, which is masked; heads are made anew, session ids replaced.
    """
    from mcp_tap.protocol.transcript import write
    from mcp_tap.ui.transcribe import transcribe

    async def question(reader: Reader) -> None:
        click.echo(write(await transcribe(reader, await reader.session(id), limit)), nl=False)

    _ask(question, store, file)


@verbs.command()
@click.argument("select", required=False, metavar="['SELECT …']")
@_limit(1000, "rows")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True,
              help="How long it may take.")  # fmt: skip
@_look
def sql(
    *, select: str | None, limit: int, seconds: float, store: str | None, file: str | None, as_json: bool, debug: bool
) -> None:
    """Run one read-only SQL statement; without one, say what can be asked.

    Without a statement the place of the recording and its tables and views with their columns are printed. The views
    `sessions` and `events` are made for people.
    """
    from mcp_tap.ui import listing, printout

    async def question(reader: Reader) -> None:
        if select is None:
            settings = _load(file, {"record.store": store}).settings
            await printout.schema(reader, settings.record.store, listing.shape(as_json=as_json))
            return
        table = await reader.query(select, limit=limit, seconds=seconds)
        form = listing.shape(as_json=as_json)
        if form == "table":
            listing.print_table(table.columns, table.rows, color=_color())
        else:
            listing.print_rows(table.columns, table.rows, form)
        if table.more:
            click.echo(f"only the first {limit} rows; --limit shows more", err=True)

    _ask(question, store, file)


# --------------------------------------------------------------------------------------------------------- set up


@verbs.command()
@click.argument("url")
@_listen
@_config
@_json
@_debug
def doctor(*, url: str, listen: str | None, file: str | None, as_json: bool, debug: bool) -> int:
    """Check what works with the server at URL: reach, handshake, streaming, authorization.

    Ends with 3 when the server cannot be reached or does not speak MCP.
    """
    from mcp_tap import doctor as checks

    settings = _load(file, {"proxy.upstream": url, "proxy.listen": listen}).settings
    if settings.proxy.upstream.socket:
        raise UsageError("doctor does not reach unix sockets", hint=f"try:  mcp-tap verify {url}")
    return checks.main(settings, as_json=as_json, color=_color())


@verbs.command()
@click.argument("url")
@_config
@_json
@_debug
def verify(*, url: str, file: str | None, as_json: bool, debug: bool) -> int:
    """Compare, byte by byte, what the server at URL answers directly and through a temporary tap.

    Sends only methods that read: the handshake of both eras, ping, the lists. Ends with 1 when something differs, with
    3 when the server cannot be reached or does not speak MCP.
    """
    from mcp_tap import verify as verification

    settings = _load(file, {"proxy.upstream": url}).settings
    return verification.main(settings, as_json=as_json, color=_color())


@verbs.command("config")
@click.argument("url", required=False)
@_listen
@_admin_listen
@_store
@_config
@click.option("--check", is_flag=True, help="Say only whether the settings are right.")
@click.option("--example", is_flag=True, help="Print a file with every setting and its default.")
@_debug
def config_(*, url: str | None, listen: str | None, admin_listen: str | None, store: str | None, file: str | None,
            check: bool, example: bool, debug: bool) -> None:  # fmt: skip
    """Print every setting, and where it comes from."""
    if example:
        from mcp_tap import config

        click.echo(config.example(), nl=False)
        return
    flags = {"proxy.upstream": url, "proxy.listen": listen, "admin.listen": admin_listen, "record.store": store}
    loaded = _load(file, flags)
    if check:
        click.echo("the settings are right")
        return
    from mcp_tap.ui import printout

    click.echo("\n".join(printout.settings(loaded)))


@verbs.command()
def version() -> None:
    """Print the version."""
    click.echo(f"mcp-tap {__version__}")


@verbs.command("help")
@click.argument("verb", required=False)
@click.pass_context
def help_(ctx: click.Context, verb: str | None) -> None:
    """Explain a verb."""
    parent = ctx.parent
    assert parent is not None
    if verb is None:
        click.echo(parent.get_help())
        return
    command = verbs.get_command(parent, verb)
    if command is None:
        raise UsageError(f"there is no verb {verb!r}", hint=f"there are: {', '.join(verbs.commands)}")
    with click.Context(command, info_name=verb, parent=parent) as inner:
        click.echo(command.get_help(inner))


if __name__ == "__main__":
    main()
