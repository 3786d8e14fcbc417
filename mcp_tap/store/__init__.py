"""Where recordings live: what every store can do, and which stores there are.

A store is named by a URL: `open_writer` and `open_reader` look its scheme up in one table. The recorder writes through
`Writer`; pages, API and command line read through `Reader`, whichever store they are given.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol, cast

from mcp_tap.model import Batch, Connection, UsageError

#: One row as people see it: the columns of the view `sessions` or `events` by name.
Row = dict[str, Any]


class Table(NamedTuple):
    """The answer to a query of the user's own."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool  # there were more rows than the limit


class Summary(NamedTuple):
    """What a recording holds, for the start-up line and the foot of a page."""

    sessions: int
    active: int
    events: int
    file_bytes: int


class Writer(Protocol):
    """The one writer of a recording. Every method raises StoreError when the store cannot do it."""

    replica: str  # the five characters in every number-based id of this recording
    session_key: bytes  # 32 bytes: the key under which session ids are hashed where the settings say so
    abandoned: int  # calls that a recorder before this one left waiting; closed as failed when the store was opened

    async def write(self, batch: Batch) -> None:
        """Write a batch in one transaction, all of it or nothing.

        Gives rows without one their `pk` and every inserted or updated row the next change number. The rows may
        change again while this waits: what is written is their state at the call. A batch that failed can be written
        again. A batch that is given up loses its events only: connections are written with the next one.
        """

    async def recent(self, since_us: int, limit: int) -> list[Connection]:
        """Return the connections that a late request may still belong to, so that a restart continues their rows."""

    async def end_idle(self, before_us: int) -> int:
        """End the connections that are active and were last used before then, at their last use; return how many.

        For those which a recorder that died left active and which are too old to be continued.
        """

    async def prune(self, before_us: int) -> int:
        """Delete lines of timelines that are older, and what is left empty by it; return how many lines went.

        Bounded, so that it delays no write for long: what remains goes with the next calls. A message without its
        answer is not old yet, a tool's definition never is.
        """

    async def close(self) -> None:
        """Write out what is pending inside the store and let go of it."""


class Reader(Protocol):
    """Reading. Every method raises StoreError, and NotFoundError where it is asked for one thing by its id.

    ``ref`` is an id, a unique prefix of one, its number alone, or (for sessions) a raw `mcp-session-id`. ``since`` is
    microseconds since the epoch.
    """

    replica: str

    async def summary(self) -> Summary:
        """Count what there is."""

    async def sessions(self, *, since: int | None = None, limit: int = 50) -> list[Row]:
        """Return rows of the view `sessions`, newest first."""

    async def session(self, ref: str) -> Row:
        """Return one row of the view `sessions`."""

    async def events(
        self, *, session: str | None = None, since: int | None = None, limit: int = 200, newest: bool = False
    ) -> list[Row]:
        """Return rows of the view `events` in the order of time: the first ones, or with ``newest`` the last ones.

        ``session`` is a connection_id as `session` returned it.
        """

    async def event(self, ref: str) -> Row:
        """Return one row of the view `events` with everything else that is known of it.

        Beside the view's columns: ``request_body`` and ``response_body`` (each a Row with ``codec``, ``data``,
        ``masked``, or None), ``sse_events`` (a list of microseconds), ``note``, ``http_method``, ``http_status``,
        ``path``, ``peer``, ``stream``, ``trace_id``, ``headers_ms``, ``first_event_ms``, ``last_byte_ms``, and
        ``operation`` (`mcp_tap.store.operations.Times` as a Row; None where it is one call alone).
        """

    async def changes(self, after: int, limit: int = 500) -> tuple[list[Row], int]:
        """Return the rows of `events` inserted or updated after a change number, and the number to go on from."""

    async def query(self, sql: str, *, limit: int = 1000, seconds: float = 5.0) -> Table:
        """Run one read-only statement of the user's, bounded in rows and in time.

        Raises UsageError for what is wrong with the statement (code `query`; `query_readonly` when it wants to
        write), StoreError with code `query_timeout` when it takes too long.
        """

    async def close(self) -> None:
        """Let go of the store."""


#: Which module knows a scheme: it has `open_writer(url)` and `open_reader(url)`.
SCHEMES: Final = {"sqlite": "mcp_tap.store.sqlite"}


async def open_writer(url: str) -> Writer:
    """Open the store that ``url`` names for writing; raise UsageError for a bad URL, StoreError for a bad store."""
    return cast(Writer, await _module(url).open_writer(url))


async def open_reader(url: str) -> Reader:
    """Open the store that ``url`` names for reading; raise UsageError for a bad URL, StoreError for a bad store."""
    return cast(Reader, await _module(url).open_reader(url))


def _module(url: str) -> Any:
    scheme, colon, _ = url.partition("://")
    if not colon:
        raise UsageError(f'"{url}" is not the URL of a store', hint=f"try:  sqlite:///{url or 'tap.db'}")
    if scheme not in SCHEMES:
        raise UsageError(f'no store is named "{scheme}"', hint=f"there is:  {', '.join(SCHEMES)}")
    return import_module(SCHEMES[scheme])
