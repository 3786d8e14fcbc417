"""Where recordings live: what every store can do, and which stores there are.

The recorder writes through `Writer`; pages, API and command line read through `Reader`, whichever store they are given.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from mcp_tap.model import Batch, Connection

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

    async def write(self, batch: Batch) -> None:
        """Write a batch in one transaction, all of it or nothing.

        Gives rows without one their `pk` and every inserted or updated row the next change number. The rows may
        change again while this waits: what is written is their state at the call.
        """

    async def recent(self, since_us: int, limit: int) -> list[Connection]:
        """Return the connections that a late request may still belong to, so that a restart continues their rows."""

    async def close(self) -> None:
        """Write out what is pending inside the store and let go of it."""


class Reader(Protocol):
    """Reading. Every method raises StoreError, and NotFoundError where it is asked for one thing by its id.

    ``ref`` is an id, a unique prefix of one, its number alone, or (for sessions) a raw `mcp-session-id`. ``since`` is
    microseconds since the epoch.
    """

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
        ``path``, ``peer``, ``stream``, ``trace_id``, ``headers_ms``, ``first_event_ms``.
        """

    async def changes(self, after: int, limit: int = 500) -> tuple[list[Row], int]:
        """Return the rows of `events` inserted or updated after a change number, and the number to go on from."""

    async def query(self, sql: str, *, limit: int = 1000, seconds: float = 5.0) -> Table:
        """Run one read-only statement of the user's, bounded in rows and in time."""

    async def close(self) -> None:
        """Let go of the store."""
