"""What verbs have in common: flags, words of a filter, and the way to the recording."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tap.config import Loaded
    from mcp_tap.store import Reader
    from mcp_tap.store.filters import Filter

F = TypeVar("F", bound=Callable[..., Any])

debug = click.option("--debug", is_flag=True, help="Show where an error comes from.")
config = click.option("-c", "--config", "file", metavar="FILE", help="Read settings from this file.")
store = click.option("--store", metavar="URL", help="The recording, as sqlite:///FILE.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
since = click.option("--since", metavar="TIME", help="Only from then on: 30m, 1h, 7d, 10:08, or ISO 8601.")
listen = click.option("--listen", metavar="HOST:PORT", help="Where clients connect. [127.0.0.1:6278]")
admin_listen = click.option("--admin-listen", metavar="HOST:PORT", help="Where the desk listens. [127.0.0.1:6279]")


def limit(default: int, noun: str) -> Callable[[F], F]:
    """Return the flag that says how many of something."""
    return click.option(
        "--limit", type=click.IntRange(min=1), default=default, show_default=True, help=f"How many {noun}."
    )


def look(command: F) -> F:
    """Add the flags of every verb that looks at a recording."""
    return store(config(as_json(debug(command))))


# --------------------------------------------------------------------------------------------------------- filters

#: A negated word of a filter, which click would take for a bundle of short flags.
_NEGATED: Final = re.compile(r"-[A-Za-z_]{2,}:")
_SHIELD: Final = "\0"

words = click.argument("words", nargs=-1, metavar="[FILTER…]")


class Filtering(click.Command):
    """A verb that takes words of the filter language, `-method:ping` among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep negated words from being read as flags."""
        return super().parse_args(ctx, [_SHIELD + arg if _NEGATED.match(arg) else arg for arg in args])


def read_filter(given: tuple[str, ...], since: str | None = None) -> Filter:
    """Return the filter that the words of a command line are, and `--since`; raise UsageError for what is none."""
    from mcp_tap.store import filters

    now_us = time.time_ns() // 1000
    where = filters.parse(" ".join(_word(word.removeprefix(_SHIELD)) for word in given), now_us=now_us)
    return where if since is None else where.plus("since", since)


def _word(argument: str) -> str:
    """Return an argument as a filter has it: the shell has taken the quotes around blanks away.

    Several words in one argument stay several: that is a filter copied from a page.
    """
    from mcp_tap.store.filters import ALIASES, KEYS

    if not re.search(r"\s", argument) or '"' in argument:
        return argument
    later = re.findall(r"\s-?([A-Za-z_]+):", argument)
    if any(key.lower() in KEYS or key.lower() in ALIASES for key in later):
        return argument
    key, colon, value = argument.partition(":")
    if not colon or not re.fullmatch(r"-?[A-Za-z_]+", key):
        key, colon, value = "", "", argument
    quoted = value.replace("\\", "\\\\")
    return f'{key}{colon}"{quoted}"'


# ---------------------------------------------------------------------------------------------------- the recording


def load(file: str | None, flags: dict[str, str | None]) -> Loaded:
    """Return the settings of this start; ``flags`` are those that were given, by the names of their settings."""
    from mcp_tap import config

    given = {name: value for name, value in flags.items() if value is not None}
    return config.load(given, file=file, env=os.environ, cwd=Path.cwd())


def store_url(store: str | None, file: str | None) -> str:
    """Return the URL of the recording."""
    return load(file, {"record.store": store}).settings.record.store


@asynccontextmanager
async def reading(store: str | None, file: str | None) -> AsyncIterator[Reader]:
    """Open the recording for reading."""
    from mcp_tap.store import open_reader

    reader = await open_reader(store_url(store, file))
    try:
        yield reader
    finally:
        await reader.close()


T = TypeVar("T")


def ask(question: Callable[[Reader], Awaitable[T]], store: str | None, file: str | None) -> T:
    """Run what asks a recording, and return what it answers."""
    import asyncio

    async def asking() -> T:
        async with reading(store, file) as reader:
            return await question(reader)

    return asyncio.run(asking())


def color() -> bool:
    """Whether what is printed may have colours."""
    from mcp_tap.ui.terminal import wants_color

    return wants_color(sys.stdout, os.environ)
