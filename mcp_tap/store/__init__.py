"""Where recordings live: what every store can do, and which stores there are.

A store is named by a URL: `open_writer` and `open_reader` look its scheme up in one table. The recorder writes through
`Writer`; pages, API and command line read through `Reader`, whichever store they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from mcp_tap.model import Batch, Connection, UsageError
from mcp_tap.store.filters import Filter

#: The filter that everything fits.
ALL: Final = Filter()

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


class Paging(NamedTuple):
    """Which part of a list, by position: what is new meanwhile neither shifts nor repeats a row."""

    limit: int = 50
    order: Literal["asc", "desc"] = "desc"
    sort: str = ""  # a column that the list can be sorted by; "" is time
    after: str | None = None  # id of a row: those that follow it in the order; a position, the row may be gone
    before: str | None = None  # id of a row: those right before it; `after` wins


#: The newest rows.
FIRST: Final = Paging()


class Page(NamedTuple):
    """Part of a list, and what lies around it."""

    rows: list[Row]
    more_before: bool
    more_after: bool
    matched: int  # how many rows fit in all, counted up to `COUNTED`
    searched_until: str | None = None  # ISO: what is older was not looked at, see `SEARCHED`; None: all was


class Course(NamedTuple):
    """How calls went over time, from one reading."""

    series: list[Row]
    heatmap: list[Row]


class Usage(NamedTuple):
    """Who uses what."""

    clients: list[Row]  # as `Reader.clients` returns them
    matrix: list[Row]  # as `Reader.matrix` does


#: Fitting rows are counted up to here; "10,000+" beyond it.
COUNTED: Final = 10_000


#: Where no index leads to what fits, so many of the newest lines in range are looked at: a page has to answer soon.
SEARCHED: Final = 100_000


class Writer(Protocol):
    """The one writer of a recording. Every method raises StoreError when the store cannot do it."""

    replica: str  # the five characters in every number-based id of this recording
    session_key: bytes  # 32 bytes: the key under which session ids are hashed where the settings say so
    cut_us: int | None  # when a recorder that did not end in order last saw traffic; None: the last one did
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

    async def prune_to(self, size: int) -> int:
        """Delete the oldest lines while the recording takes more than ``size`` bytes; return how many lines went.

        Bounded like `prune`, so call it until it returns 0. The file shrinks with it.
        """

    async def fold(self, now_us: int) -> int:
        """Count the calls of hours and days that are over ahead, for pages over weeks; return how many spans.

        Bounded: call it from time to time, or until it returns 0. Nothing but speed depends on it.
        """

    def moved(self) -> str | None:
        """Say what of the store was deleted or replaced underneath: nothing written since is where people look.

        None while it is in its place. Cheap enough to be asked after every batch.
        """

    async def leave(self) -> None:
        """Let go of a store that was moved: move what is pending to where it went, and touch nothing in its place.

        The process has to end after it, without closing anything.
        """

    async def close(self) -> None:
        """Write out what is pending inside the store and let go of it."""


class Doomed(NamedTuple):
    """What pruning would delete."""

    lines: int
    until: str | None  # the time of the last of them, ISO; None where there is none


class Pruner(Protocol):
    """Deleting the oldest of a recording, beside whoever writes it. Every method raises StoreError."""

    async def size(self) -> int:
        """Return how many bytes the recording takes on the disk; also after `close`."""

    async def older(self, before_us: int) -> Doomed:
        """Say what `prune` would delete, all in all."""

    async def beyond(self, size: int) -> Doomed:
        """Say what `prune_to` would delete, all in all: about, as lines differ."""

    async def prune(self, before_us: int) -> int:
        """Delete as `Writer.prune` does."""

    async def prune_to(self, size: int) -> int:
        """Delete as `Writer.prune_to` does."""

    async def vacuum(self) -> int:
        """Give what is free inside of the file back to the file system, a bounded part; return how many pages went."""

    async def close(self) -> None:
        """Let go of the store."""


class Reader(Protocol):
    """Reading. Every method raises StoreError, and NotFoundError where it is asked for one thing by its id.

    ``ref`` is an id, a unique prefix of one, its number alone, or (for sessions) a raw `mcp-session-id`.
    """

    replica: str

    async def summary(self) -> Summary:
        """Count what there is."""

    async def session(self, ref: str) -> Row:
        """Return one row of the view `sessions`."""

    async def event(self, ref: str) -> Row:
        """Return one row of the view `events` with everything else that is known of it.

        Beside the view's columns: ``request_body`` and ``response_body`` (each a Row with ``codec``, ``data``,
        ``masked``, or None), ``sse_events`` (a list of microseconds), ``note``, ``http_method``, ``http_status``,
        ``path``, ``peer``, ``stream``, ``trace_id``, ``headers_ms``, ``first_event_ms``, ``last_byte_ms``, and
        ``operation`` (`mcp_tap.store.operations.Times` as a Row; None where it is one call alone).
        """

    async def bodies(self, numbers: Sequence[int]) -> dict[int, Row]:
        """Return ``request_body`` and ``response_body`` of events, as `event` has them, by the events' ``pk``."""

    async def changes(self, after: int, limit: int = 500, *, where: Filter = ALL) -> tuple[list[Row], int]:
        """Return the rows of `events` inserted or updated after a change number, and the number to go on from.

        Rows that do not fit ``where`` are passed over. The number goes on past them, too.
        """

    async def session_changes(self, after: int, limit: int = 500) -> tuple[list[Row], int]:
        """Return the rows of `sessions` inserted or updated after a change number, and the number to go on from."""

    # Lists. Rows of the API, of the pages and of the command line alike.

    async def list_sessions(self, where: Filter = ALL, paging: Paging = FIRST) -> Page:
        """Return rows of the view `sessions`, each with more about it; sorted by when they started.

        Beside the view's columns: ``created`` (ISO), ``updated`` (ISO: when it was last used or ended),
        ``client_capabilities``, ``server_capabilities`` (parsed JSON or None), ``instructions``, ``provider_id``
        (pde_…), ``participant_id`` (spt_… or None), ``tool_calls`` ({name: calls}). Sorts: ``started`` (""),
        ``client_name``, ``duration_ms``, ``calls``, ``errors``, ``last_active``. ``paging`` names rows by
        connection_id. Where a session fits because of a line that only looking finds, the newest lines are looked at
        (`Page.searched_until`).
        """

    async def list_events(
        self, where: Filter = ALL, paging: Paging = FIRST, *, kinds: frozenset[str] | None = None
    ) -> Page:
        """Return rows of the view `events`, each with ``client_name``, ``client_version`` and ``mcp_session_id``.

        ``kinds`` keeps some kinds of lines only. Sorts: ``time`` (""), ``latency_ms``, ``size`` (both bodies).
        ``paging`` names rows by event_id or message_id. Within one session (a filter with one ``conn:`` or
        ``session:`` that is an id) the order is the session's own count. Where only looking finds what fits and that
        is not much, the newest lines are looked at (`Page.searched_until`).
        """

    async def session_ids(self, where: Filter = ALL, paging: Paging = FIRST) -> Page:
        """Return one row for each runtime context (ses_…), newest first: ``session_id``, ``created``, ``origin``.

        A context fits when one of its connections does. ``paging`` names rows by session_id.
        """

    async def participants(self, session: str) -> list[Row]:
        """Return who takes part in the connections of a runtime context: its clients, then the server.

        ``id`` (spt_…), ``type`` (mcp_client | provider | unknown), ``identifier``, ``name``, ``version``,
        ``created`` (ISO), ``connection_ids``.
        """

    # Figures. ``where`` usually has a time range; without one it is everything.

    async def totals(self, where: Filter = ALL) -> Row:
        """Return the figures of a range in one row.

        ``sessions``, ``active``, ``calls``, ``tool_calls``, ``errors``, ``p50_ms``, ``p95_ms``, ``p99_ms``,
        ``dropped``, ``exact``. ``calls`` are finished requests of clients; latencies leave out what lasts by design
        (streams that listen). Percentiles are of stored durations where ``exact``, else within 3 % of them, from
        histograms.
        """

    async def series(self, where: Filter, *, parts: int = 60) -> list[Row]:
        """Return figures over time, oldest first, a row for each of at most ``parts`` equal spans, empty ones too.

        ``start``, ``end`` (microseconds), ``calls``, ``errors``, ``p50_ms``, ``p95_ms``, ``p99_ms`` (None without a
        call). The spans are round (15 s, 1 min, 5 min, 15 min, 1 h, …) and cover the filter's range, else that of
        the recording.
        """

    async def heatmap(self, where: Filter, *, parts: int = 60) -> list[Row]:
        """Return calls by time and latency, without empty cells.

        ``start``, ``end`` (microseconds), ``low_ms``, ``high_ms`` (powers of two), ``calls``, ``errors``.
        """

    async def course(self, where: Filter, *, parts: int = 60) -> Course:
        """Return `series` and `heatmap` at once: what reads the same lines reads them once."""

    async def matrix(self, where: Filter = ALL) -> list[Row]:
        """Return calls by ``tool`` and ``client``: ``calls``, ``errors``; most called first."""

    async def tools(self, where: Filter = ALL) -> list[Row]:
        """Return every tool that was called in range or ever listed, slowest p95 first, uncalled ones last.

        ``name``, ``calls``, ``errors``, ``p50_ms``, ``p95_ms``, ``p99_ms``, ``exact``, ``last_called`` (ISO or None),
        ``clients`` (how many), ``spark`` (calls in 24 equal parts of the range), ``listed`` (in a tools/list),
        ``versions`` (how many definitions), ``changed`` (ISO: first sight of the newest definition, None with only
        one), ``health`` (`mcp_tap.store.health`).
        """

    async def tool(self, name: str, where: Filter = ALL) -> Row:
        """Return one tool: the columns of `tools`, and what it was defined as, oldest first.

        ``definitions``: ``version`` (1, 2, …), ``upstream``, ``hash``, ``definition`` (parsed JSON), ``first_seen``,
        ``last_seen``, ``times``, ``seen_by`` (rows of ``connection_id``, ``session_id``, ``client_name``,
        ``client_version``, ``first_seen``, ``last_seen``). ``arguments``: ``key``, ``calls``, of the newest 200 calls
        whose bodies are stored. Raises NotFoundError with the nearest name.
        """

    async def clients(self, where: Filter = ALL) -> list[Row]:
        """Return clients by name and version, most calls first.

        ``client`` (name@version; "unknown" without a name), ``name``, ``version``, ``revisions``, ``sessions``,
        ``calls``, ``errors``, ``p95_ms``, ``exact``, ``tools`` (how many different), ``first_seen``, ``last_seen``.
        """

    async def usage(self, where: Filter = ALL) -> Usage:
        """Return `clients` and `matrix` at once: what reads the same lines reads them once."""

    async def errors(self, where: Filter = ALL, *, limit: int = 200) -> list[Row]:
        """Return failed messages in groups by type, name, reason, code and text without its numbers; most first.

        ``group_id`` (seg_…, the same in every recording), ``type``, ``name``, ``failure_reason``, ``error_code``,
        ``error_message`` (numbers, ids and quoted words as …), ``count``, ``share`` (of all errors in range),
        ``clients``, ``sessions`` (how many), ``first``, ``last`` (ISO), ``spark``, ``message_id`` (the newest one).
        """

    async def error(self, group_id: str, where: Filter = ALL, paging: Paging = FIRST) -> tuple[Row, Page]:
        """Return one group of `errors` and its occurrences, rows as `list_events` has them."""

    async def context(self, ref: str, *, before: int = 3, after: int = 3) -> list[Row]:
        """Return the requests around an event in its own session, in order, with it: each with ``offset_ms``."""

    async def related(self, ref: str) -> Row:
        """Return what belongs to a message: rows of `events` in lists.

        ``operation`` (all tries and rounds, in order; empty where it is alone), ``children`` (progress, log messages,
        server requests on its stream), ``parent`` (a row or None), ``same_arguments`` (up to 10 other calls of the
        same tool with the same request body, newest first).
        """

    async def waterfall(self, session: str) -> list[Row]:
        """Return the whole timeline of a connection (at most 5,000 lines) with what a picture of it needs.

        Rows of `events` with ``at_us``, ``duration_us``, ``headers_us``, ``first_byte_us``, ``last_byte_us``,
        ``sse_events`` (microseconds from ``at_us``), ``operation``, ``parent`` (numbers of rows).
        """

    async def facts(self) -> Row:
        """Return what the frame of every page shows, and cheaply.

        ``file`` (name), ``file_bytes``, ``events``, ``sessions``, ``oldest``, ``newest`` (ISO or None),
        ``pruned_before`` (ISO or None), ``change`` (the last number), ``upstreams`` (URLs).
        """

    async def query(self, sql: str, *, limit: int = 1000, seconds: float = 5.0) -> Table:
        """Run one read-only statement of the user's, bounded in rows and in time.

        Raises UsageError for what is wrong with the statement (code `query`; `query_readonly` when it wants to
        write), StoreError with code `query_timeout` when it takes too long.
        """

    async def rest(self) -> None:
        """Give back memory that only speeds up the next questions: nobody asks any at the moment."""

    async def close(self) -> None:
        """Let go of the store."""


#: Which module knows a scheme: it has `open_writer(url)`, `open_reader(url)` and `open_pruner(url)`.
SCHEMES: Final = {"sqlite": "mcp_tap.store.sqlite"}


async def open_writer(url: str) -> Writer:
    """Open the store that ``url`` names for writing; raise UsageError for a bad URL, StoreError for a bad store."""
    return cast(Writer, await _module(url).open_writer(url))


async def open_reader(url: str) -> Reader:
    """Open the store that ``url`` names for reading; raise UsageError for a bad URL, StoreError for a bad store."""
    return cast(Reader, await _module(url).open_reader(url))


async def open_pruner(url: str) -> Pruner:
    """Open the store that ``url`` names for pruning; raise UsageError for a bad URL, StoreError for a bad store."""
    return cast(Pruner, await _module(url).open_pruner(url))


def _module(url: str) -> Any:
    scheme, colon, _ = url.partition("://")
    if not colon:
        raise UsageError(f'"{url}" is not the URL of a store', hint=f"try:  sqlite:///{url or 'tap.db'}")
    if scheme not in SCHEMES:
        raise UsageError(f'no store is named "{scheme}"', hint=f"there is:  {', '.join(SCHEMES)}")
    return import_module(SCHEMES[scheme])
