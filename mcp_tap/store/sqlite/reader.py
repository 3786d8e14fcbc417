"""Reading a recording, while it is being written or long after."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import orjson

from mcp_tap.model import NotFoundError, Status, UsageError, hash_session_id
from mcp_tap.store import (
    ALL,
    COUNTED,
    FIRST,
    Course,
    Page,
    Paging,
    Row,
    Summary,
    Table,
    Usage,
    queries,
    queries_desk,
)
from mcp_tap.store.operations import Span, times
from mcp_tap.store.rows import DIGITS, iso, number_id
from mcp_tap.store.sqlite import around, figures, groups, lists, own_query
from mcp_tap.store.sqlite.pool import Pool, rows
from mcp_tap.store.sqlite.tallies import Asked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from mcp_tap.store.filters import Filter

T = TypeVar("T")

#: How many sessions or events an ambiguous reference lists.
_CANDIDATES: Final = 8


#: Seconds after which all lines are counted anew: ten million take a tenth of a second, and every page says how many.
_RECOUNT: Final = 60.0


class _Counted(NamedTuple):
    """How many lines there were, up to which number, and until when that may be believed."""

    lines: int = 0
    last: int = 0
    pruned_before: str | None = None
    until: float = 0.0


class Reader:
    """A recording to read, as `mcp_tap.store.Reader` describes it."""

    def __init__(self, path: Path, pool: Pool) -> None:
        self._path = path
        self._pool = pool
        self._session_key = b""
        self._counted = _Counted()
        self.replica = ""

    @classmethod
    async def open(cls, path: Path) -> Reader:
        """Open the recording at ``path``; raise StoreError when that is not possible."""
        pool = Pool(path)
        await pool.open()
        reader = cls(path, pool)
        try:
            store = await reader._one("SELECT replica, session_key FROM store")
        except BaseException:
            await reader.close()
            raise
        reader.replica, reader._session_key = store["replica"], store["session_key"]
        return reader

    async def summary(self) -> Summary:
        """Count what there is."""
        row = await self._one(queries.SUMMARY)
        return Summary(row["sessions"], row["active"], row["events"], await self._size())

    async def session(self, ref: str) -> Row:
        """Return one row of the view `sessions`."""
        number = _number(ref)
        if number is not None and (numbered := await self._all(queries.SESSION, pk=number)):
            return numbered[0]
        found = await self._all(
            queries.SESSIONS_NAMED,
            ref=ref,
            end=ref + "\U0010ffff",
            hashed=hash_session_id(ref, self._session_key),
            limit=_CANDIDATES + 1,
        )
        best = {row["pk"]: row["name"] for row in found if row["rank"] == found[0]["rank"]}
        if not ref or not best:
            raise NotFoundError(f'no session "{ref}"', hint="list them:  mcp-tap sessions")
        if len(best) > 1:
            raise _ambiguous(ref, "sessions", list(best.values()))
        return await self._one(queries.SESSION, pk=next(iter(best)))

    async def event(self, ref: str) -> Row:
        """Return one row of the view `events` with everything else that is known of it."""
        pk = await self._event_pk(ref)

        def read(db: sqlite3.Connection) -> Row | None:
            found = rows(db, queries.EVENT, {"pk": pk})
            if not found:
                return None
            row = found[0] | rows(db, queries.EVENT_DETAILS, {"pk": pk})[0]
            row["sse_events"] = orjson.loads(row["sse_events"] or "[]")
            spans = [Span(**span) for span in rows(db, queries.OPERATION, {"pk": row.pop("operation_pk")})]
            row["operation"] = times(spans)._asdict() if len(spans) > 1 else None
            row["request_body"] = row["response_body"] = None
            for body in rows(db, queries.BODIES, {"pk": pk}):
                row[f"{body.pop('side')}_body"] = body
            return row

        row = await self._pool.run(read)
        if row is None:
            raise _no_event(ref)
        return row

    async def bodies(self, numbers: Sequence[int]) -> dict[int, Row]:
        """Return the stored bodies of many events by their number."""
        found: dict[int, Row] = {number: {"request_body": None, "response_body": None} for number in numbers}
        for body in await self._all(queries.BODIES_OF, numbers=orjson.dumps(list(numbers)).decode()):
            found[body.pop("timeline")][f"{body.pop('side')}_body"] = body
        return found

    async def changes(self, after: int, limit: int = 500, *, where: Filter = ALL) -> tuple[list[Row], int]:
        """Return the rows of `events` inserted or updated after a change number, and the number to go on from."""
        sql, values = where.events(self._session_key)
        changed = queries_desk.CHANGES.format(source=queries_desk.events(sql), where=sql)

        def read(db: sqlite3.Connection) -> tuple[list[Row], int]:
            upto = db.execute(queries_desk.CHANGES_TO, (after, limit)).fetchone()[0]
            if upto is None:
                return [], after
            return rows(db, changed, (after, upto, *values)), upto

        return await self._pool.run(read)

    async def session_changes(self, after: int, limit: int = 500) -> tuple[list[Row], int]:
        """Return the rows of `sessions` inserted or updated after a change number, and the number to go on from."""
        found = await self._pool.run(lambda db: rows(db, queries_desk.SESSION_CHANGES, (after, limit)))
        return found, found[-1]["change"] if found else after

    async def query(self, sql: str, *, limit: int = 1000, seconds: float = 5.0) -> Table:
        """Run one read-only statement of the user's, bounded in rows and in time.

        It has a connection and a thread of its own, so that a slow one delays no page.
        """
        return await asyncio.to_thread(own_query.ask, self._path, sql, limit, seconds)

    async def rest(self) -> None:
        """Give back memory that only speeds up the next questions."""
        await self._pool.rest()

    async def close(self) -> None:
        """Let go of the store."""
        await self._pool.close()

    # ------------------------------------------------------------------------------------------------------ lists

    async def list_sessions(self, where: Filter = ALL, paging: Paging = FIRST) -> Page:
        """Return a page of rows of the view `sessions`, each with more about it."""

        def read(db: sqlite3.Connection) -> Page:
            if not where.searches_sessions:
                return lists.sessions(db, where.sessions(self._session_key), paging)
            until = lists.horizon(db, where, ranged=False)
            end = "" if where.until_us is None else iso(where.until_us)
            fits = where.sessions(self._session_key, since=until or "", until=end)
            return lists.sessions(db, fits, paging)._replace(searched_until=until)

        return await self._pool.run(read)

    async def list_events(
        self, where: Filter = ALL, paging: Paging = FIRST, *, kinds: frozenset[str] | None = None
    ) -> Page:
        """Return a page of rows of the view `events`, each with its client and its `mcp-session-id`."""
        fits = where.events(self._session_key)
        named = where.value("conn") or where.value("session")
        waiting = where.value("status") in {"pending", Status.WAITING.value}

        def read(db: sqlite3.Connection) -> Page:
            inside = None
            if named is not None:
                hashed = hash_session_id(named, self._session_key)
                inside = [row["pk"] for row in rows(db, queries_desk.EXACTLY, {"ref": named, "hashed": hashed})]

            def page(sql: str, values: tuple[Any, ...]) -> Page:
                return lists.events(db, (sql, values), paging, kinds=kinds, inside=inside or None, waiting=waiting)

            until = lists.horizon(db, where) if where.searches_events else None
            if until is not None:
                found = page(f"timeline.time >= ? AND {fits[0]}", (until, *fits[1]))
                if found.matched < COUNTED:
                    return found._replace(searched_until=until)
            return page(*fits)  # what fits is everywhere, or an index leads to it

        return await self._pool.run(read)

    async def session_ids(self, where: Filter = ALL, paging: Paging = FIRST) -> Page:
        """Return a page of runtime contexts."""
        fits = where.sessions(self._session_key)
        return await self._pool.run(lambda db: lists.contexts(db, fits, paging))

    async def participants(self, session: str) -> list[Row]:
        """Return who takes part in a runtime context: its clients, then the server."""
        return await self._pool.run(lambda db: around.participants(db, session))

    # ---------------------------------------------------------------------------------------------------- figures

    async def totals(self, where: Filter = ALL) -> Row:
        """Return the figures of a range in one row."""
        return await self._figures(where, figures.totals)

    async def series(self, where: Filter, *, parts: int = 60) -> list[Row]:
        """Return figures over time, oldest first."""
        return await self._figures(where, lambda db, asked: figures.series(db, asked, parts))

    async def heatmap(self, where: Filter, *, parts: int = 60) -> list[Row]:
        """Return calls by time and latency, without empty cells."""
        return await self._figures(where, lambda db, asked: figures.heatmap(db, asked, parts))

    async def course(self, where: Filter, *, parts: int = 60) -> Course:
        """Return `series` and `heatmap` from one reading."""
        return await self._figures(where, lambda db, asked: figures.course(db, asked, parts))

    async def matrix(self, where: Filter = ALL) -> list[Row]:
        """Return calls by tool and client."""
        return await self._figures(where, figures.matrix)

    async def tools(self, where: Filter = ALL) -> list[Row]:
        """Return every tool that was called in range or ever listed."""
        return await self._figures(where, figures.tools)

    async def tool(self, name: str, where: Filter = ALL) -> Row:
        """Return one tool, and what it was defined as."""
        return await self._figures(where, lambda db, asked: around.tool(db, asked, name))

    async def clients(self, where: Filter = ALL) -> list[Row]:
        """Return clients by name and version, most calls first."""
        return (await self.usage(where)).clients

    async def usage(self, where: Filter = ALL) -> Usage:
        """Return `clients` and `matrix` from one reading."""
        return await self._figures(where, figures.usage)

    async def errors(self, where: Filter = ALL, *, limit: int = 200) -> list[Row]:
        """Return failed messages in groups, most first."""
        return await self._figures(where, lambda db, asked: groups.errors(db, asked, limit, self.replica))

    async def error(self, group_id: str, where: Filter = ALL, paging: Paging = FIRST) -> tuple[Row, Page]:
        """Return one group of errors and a page of its occurrences."""

        def read(db: sqlite3.Connection, asked: Asked) -> tuple[Row, Page]:
            row, found = groups.error(db, asked, group_id, self.replica)
            those = ("timeline.pk IN (SELECT value FROM json_each(?))", (orjson.dumps(found).decode(),))
            return row, lists.events(db, those, paging, kinds=None, inside=None)

        return await self._figures(where, read)

    # ----------------------------------------------------------------------------------------------- around a thing

    async def context(self, ref: str, *, before: int = 3, after: int = 3) -> list[Row]:
        """Return the requests around an event in its own session, in order, with it."""
        pk = await self._event_pk(ref)
        found = await self._pool.run(lambda db: around.context(db, pk, before, after))
        if not found:
            raise _no_event(ref)
        return found

    async def related(self, ref: str) -> Row:
        """Return what belongs to a message."""
        pk = await self._event_pk(ref)
        found = await self._pool.run(lambda db: around.related(db, pk))
        if found is None:
            raise _no_event(ref)
        return found

    async def waterfall(self, session: str) -> list[Row]:
        """Return the whole timeline of a connection with what a picture of it needs."""
        pk = (await self.session(session))["pk"]
        return await self._pool.run(lambda db: around.waterfall(db, pk))

    async def facts(self) -> Row:
        """Return what the frame of every page shows."""

        def read(db: sqlite3.Connection) -> Row:
            counted = self._counted
            row = rows(db, queries_desk.FACTS, {"counted": counted.last})[0]
            if row["pruned_before"] != counted.pruned_before or time.monotonic() > counted.until:
                counted = _Counted(until=time.monotonic() + _RECOUNT)
                row = rows(db, queries_desk.FACTS, {"counted": 0})[0]
            row["events"] += counted.lines
            self._counted = _Counted(row["events"], row.pop("last"), row["pruned_before"], counted.until)
            row["upstreams"] = [url for (url,) in db.execute(queries_desk.UPSTREAMS)]
            return row

        row = await self._pool.run(read)
        return {"file": self._path.name, "file_bytes": await self._size(), **row}

    async def _figures(self, where: Filter, ask: Callable[[sqlite3.Connection, Asked], T]) -> T:
        asked = Asked(where, self._session_key)
        return await self._pool.run(lambda db: ask(db, asked))

    async def _size(self) -> int:
        files = (self._path, Path(f"{self._path}-wal"))
        return await asyncio.to_thread(lambda: sum(each.stat().st_size for each in files if each.exists()))

    async def _event_pk(self, ref: str) -> int:
        number = _number(ref)
        if number is not None:
            return number
        for prefix in (f"sev_{self.replica}", f"smg_{self.replica}"):
            digits = ref.removeprefix(prefix)
            if ref.startswith(prefix) and len(digits) <= DIGITS and (digits.isdecimal() or not digits):
                break
        else:
            raise _no_event(ref)
        found = await self._all(
            queries.EVENTS_NUMBERED,
            first=int(digits.ljust(DIGITS, "0")),
            last=int(digits.ljust(DIGITS, "9")),
            limit=_CANDIDATES + 1,
        )
        if not found:
            raise _no_event(ref)
        if len(found) > 1:
            raise _ambiguous(ref, "events", [number_id(ref[:4], self.replica, row["pk"]) for row in found])
        pk: int = found[0]["pk"]
        return pk

    async def _one(self, sql: str, **values: Any) -> Row:
        found = await self._all(sql, **values)
        if not found:
            raise NotFoundError(f"{self._path} has lost a row that was there a moment ago")
        return found[0]

    async def _all(self, sql: str, **values: Any) -> list[Row]:
        return await self._pool.run(lambda db: rows(db, sql, values))


# ----------------------------------------------------------------------------------------------------- references


def _number(ref: str) -> int | None:
    """Return the number of `#12` or `12`, None for anything else; what no row can have is nobody's number."""
    digits = ref.removeprefix("#")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= DIGITS else None


def _no_event(ref: str) -> NotFoundError:
    return NotFoundError(f'no event "{ref}"', hint="list them:  mcp-tap session ID")


def _ambiguous(ref: str, what: str, names: list[str]) -> UsageError:
    shown = names[:_CANDIDATES]
    more = ["…"] if len(names) > _CANDIDATES else []
    return UsageError(f'"{ref}" fits several {what}', hint="\n".join([*shown, *more]), code="ambiguous")
