"""The live stream: what is recorded, told as server-sent events while it happens.

`id:` is a change number. Every row of a recording has the number of its last change, so "everything after number N" is
a question to the store, and a reader that was cut off goes on where it was: it is told each row that came or changed
meanwhile, in the state that it has now.

Theory of operation. One pulse asks four times a second whether anything changed. If so, each *tail* (one for all
readers of one filter) asks once for the rows that fit, encodes them once and gives the same bytes to every reader's
queue. A queue is short: a reader that does not keep up is let go and comes back with its last id. A new reader is first
told from the store what its id lacks, as fast as it reads, and joins the others when it knows what they know: were it
told anything newer before that, a cut in between would lose the rest. Nobody listens, nothing is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mcp_tap.api import parameters, resources
from mcp_tap.api.desk import Desk
from mcp_tap.api.recorded import NAMES, connections_by_id
from mcp_tap.api.shape import Resource, dumped
from mcp_tap.model import StoreError, UsageError
from mcp_tap.store import Row
from mcp_tap.store.filters import Filter

log = logging.getLogger(__name__)

#: Seconds between two pulses, and between two signs of life on a stream on which nothing happens.
PULSE: Final = 0.25
SIGN_OF_LIFE: Final = 15.0

#: Rows of one kind that one pulse tells; of more only the newest are told, and how many are not.
TOLD: Final = 100

#: Rows that one question to the store returns, and questions that one pulse asks before it skips to the end.
_ROWS: Final = 500
_QUESTIONS: Final = 8

#: Pulses that a reader may be behind.
BEHIND: Final = 20

#: Seconds that a reader may take for one part of what it missed.
STALLED: Final = 30.0

#: Changes that a reader may have missed to be told them one by one: more is a page to load again. They wait in memory,
#: about 2 kB each, until the reader takes them, and there may be readers that take nothing.
MISSED: Final = 2_000

#: What a stream can be of; both where nothing is said.
KINDS: Final = ("events", "sessions")

PARAMETERS: Final = ("of", "change")


def endpoint(desk: Desk) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers `GET /api/live`."""
    hub = Hub(desk)

    async def live(request: Request) -> Response:
        given = request.query_params.multi_items()
        parameters.refuse_unknown(given, PARAMETERS)
        kinds = tuple(kind for kind in KINDS if kind in (_kinds(request.query_params.get("of")) or KINDS))
        where = parameters.where(pair for pair in given if pair[0] not in ("after", "before", "cursor"))
        revealed = "session_id" in request.query_params.getlist("reveal")
        return Stream(hub, Asked(where, kinds, revealed), _after(request))

    return live


def _kinds(of: str | None) -> tuple[str, ...]:
    named = tuple(of.split(",")) if of else ()
    for kind in named:
        if kind not in KINDS:
            raise UsageError(f'of: "{kind}" is none of events, sessions', hint="try:  of=events", code="invalid_data")
    return named


def _after(request: Request) -> int | None:
    """Return the change number to go on from; None for now."""
    query = request.query_params
    # a browser that connects anew repeats the old URL: what it says of itself is newer
    text = request.headers.get("last-event-id") or query.get("change") or query.get("after")
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(f'"{text[:40]}" is no change number', hint="take the id of a message", code="invalid_data")
    return int(text)


def message(kind: str, content: Any, number: int | None = None) -> bytes:
    """Return one server-sent event. JSON on one line is one line of data."""
    named = b"" if number is None else b"id: %d\n" % number
    return named + b"event: " + kind.encode() + b"\ndata: " + dumped(content) + b"\n"


class Asked(NamedTuple):
    """What a stream is of. Streams with the same words share one tail."""

    where: Filter
    kinds: tuple[str, ...]
    revealed: bool


class Hub:
    """All live streams of a desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._tails: dict[tuple[str, tuple[str, ...], bool], Tail] = {}
        self._pulse: asyncio.Task[None] | None = None

    def join(self, asked: Asked, reading: Reading) -> Tail:
        """Take a reader: from now on it is told what its tail is told."""
        key = (str(asked.where), asked.kinds, asked.revealed)
        tail = self._tails.setdefault(key, Tail(self.desk, asked))
        tail.readers.add(reading)
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.create_task(self._beat())
        return tail

    def leave(self, reading: Reading) -> None:
        """Let go of a reader, and of a tail that has no other one."""
        for key, tail in [*self._tails.items()]:
            tail.readers.discard(reading)
            if not tail.readers:
                del self._tails[key]

    async def _beat(self) -> None:
        """Ask for news while anybody listens."""
        while self._tails and not self.desk.ending.is_set():
            for tail in [*self._tails.values()]:
                try:
                    await tail.advance()
                except StoreError as error:
                    log.debug("the live stream pauses: %s", error)  # asked again with the next pulse
                except Exception:
                    log.exception("the live stream pauses")
            await asyncio.sleep(PULSE)


class Tail:
    """What is new under one filter, asked and encoded once for all its readers."""

    def __init__(self, desk: Desk, asked: Asked) -> None:
        self.readers: set[Reading] = set()
        self._desk = desk
        self._asked = asked
        self._reached: _Reached | None = None
        self._replica = desk.reader.replica
        self._status = b""
        self._quiet = 0.0

    async def begin(self, reading: Reading, after: int | None) -> None:
        """Tell a reader that joined how recording goes, and what is after a change number."""
        if self._reached is None:
            newest = (await self._desk.reader.facts())["change"]
            self._reached = self._reached or _Reached(newest, newest)  # several may have waited for it
        reading.put(b"retry: 1000\n" + message("status", self._told_status()))
        if after is not None:
            await self._repeat(reading, after, max(self._reached))
        reading.present = True

    async def advance(self) -> None:
        """Ask once for what is new, and tell every reader."""
        if self._reached is None:
            return
        if self._desk.reader.replica != self._replica:  # another file has the name now, and counts for itself
            newest = (await self._desk.reader.facts())["change"]
            self._replica, self._reached = self._desk.reader.replica, _Reached(newest, newest)
        told, self._reached = await self._after(self._reached, TOLD)
        status = message("status", self._told_status())
        if status != self._status:
            told += status if self._status else b""
            self._status = status
        self._quiet = 0.0 if told else self._quiet + PULSE
        if self._quiet >= SIGN_OF_LIFE:
            self._quiet, told = 0.0, b": \n\n"
        if told:
            for reading in [*self.readers]:
                if reading.present:
                    reading.put(told)

    async def _repeat(self, reading: Reading, after: int, newest: int) -> None:
        if newest - after > MISSED:
            reading.put(message("skipped", {"count": newest - after - MISSED}))
            after = newest - MISSED
        reached = _Reached(after, after)
        while True:
            told, upto = await self._after(reached, MISSED, questions=1)
            if told:
                await reading.wait(told)  # no faster than it reads: what it missed is kept in the store, not here
            # the tail may have told the others more meanwhile; nothing is awaited from here on
            if upto == reached and self._covers(reached):
                return
            reached = upto

    def _covers(self, reached: _Reached) -> bool:
        """Whether somebody who is so far has all that this tail told."""
        assert self._reached is not None
        so_far = zip(KINDS, reached, self._reached, strict=True)
        return all(mine >= told for kind, mine, told in so_far if kind in self._asked.kinds)

    async def _after(self, reached: _Reached, most: int, *, questions: int = _QUESTIONS) -> tuple[bytes, _Reached]:
        """Return what is new as messages, and how far that is; of each kind the newest ``most`` are told."""
        kinds = self._asked.kinds
        sessions, whole = reached.sessions, True
        changed: list[Row] = []
        found: list[Row] = []
        # Sessions first. Then all of them up to the events that were known before have been seen, and all events up
        # to these sessions: this is where whoever saw both goes on, and gets the newest events once more.
        if "sessions" in kinds:
            changed, sessions, whole = await self._changed_sessions(sessions, most, questions)
        number, events = max(sessions, reached.events), reached.events
        if "events" in kinds:
            found, events, all_events = await self._changed_events(events, most, questions)
            whole = whole and all_events
        if len(kinds) == 1:
            number = events if "events" in kinds else sessions
        elif not whole:
            number = min(sessions, events)
        messages = [
            *_messages("connection", resources.CONNECTION, changed, most),
            *_messages("event", resources.EVENT, found, most),
        ]
        if messages:
            messages[-1] = b"id: %d\n" % number + messages[-1]
        return b"".join(messages), _Reached(events, sessions)

    async def _changed_events(self, after: int, most: int, questions: int) -> tuple[list[Row], int, bool]:
        found: list[Row] = []
        for _ in range(questions):
            rows, upto = await self._desk.reader.changes(after, _ROWS, where=self._asked.where)
            found += rows
            if upto == after:
                break
            after = upto
        told = found[-most:]
        known = await connections_by_id(self._desk.reader, (row["connection_id"] for row in told))
        for row in told:
            of = known.get(row["connection_id"])
            row |= {key: None if of is None else of[key] for key in NAMES}
        return found, after, upto == after

    async def _changed_sessions(self, after: int, most: int, questions: int) -> tuple[list[Row], int, bool]:
        ids: dict[str, None] = {}
        for _ in range(questions):
            rows, upto = await self._desk.reader.session_changes(after, _ROWS)
            ids |= dict.fromkeys(row["connection_id"] for row in rows)
            if upto == after:
                break
            after = upto
        found = await connections_by_id(self._desk.reader, [*ids][-most:], where=self._asked.where)
        for row in found.values():
            row["reveal"] = self._asked.revealed
        return sorted(found.values(), key=lambda row: int(row["change"])), after, upto == after

    def _told_status(self) -> dict[str, Any]:
        recording = self._desk.recording()
        return {
            "object": "status",
            "recording": recording.on,
            "failing": recording.failing,
            "dropped": recording.dropped,
            "lost": recording.lost,
            "streams": recording.streams,
        }


class _Reached(NamedTuple):
    """The change number of the last row of each kind that was told."""

    events: int
    sessions: int


def _messages(kind: str, resource: Resource, rows: list[Row], most: int) -> list[bytes]:
    """Return rows as messages, and before them how many are left out."""
    more = len(rows) - most
    skipped = [message("skipped", {"count": more})] if more > 0 else []
    return skipped + [message(kind, resource.of(row)) for row in rows[-most:]]


class Reading:
    """What waits for one reader, and whether it fell too far behind."""

    def __init__(self) -> None:
        self.behind = asyncio.Event()
        self.present = False  # it has what was before; the ids it is told never go back
        self._idle = asyncio.Event()  # everything so far is on its way
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(BEHIND)

    def put(self, told: bytes) -> None:
        """Put a pulse in line."""
        try:
            self._waiting.put_nowait(told)
        except asyncio.QueueFull:
            self.behind.set()

    async def wait(self, told: bytes) -> None:
        """Put something in line as soon as all that was put before is on its way."""
        try:
            await asyncio.wait_for(self._idle.wait(), STALLED)
        except TimeoutError:
            self.behind.set()
        self._idle.clear()
        self._waiting.put_nowait(told)

    def failed(self, work: asyncio.Future[Any]) -> None:
        """Let the reader come back when what it waits for could not be asked."""
        if not work.cancelled() and work.exception() is not None:
            self.behind.set()

    async def take(self) -> bytes:
        """Return what waits, as one piece."""
        if self._waiting.empty():
            self._idle.set()
        told = [await self._waiting.get()]
        while not self._waiting.empty():
            told.append(self._waiting.get_nowait())
        return b"".join(told)


class Stream(Response):
    """The answer to one reader: it ends when the reader goes or falls behind, and with the desk."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, asked: Asked, after: int | None) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._asked = asked
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the reader what comes."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        reading = Reading()
        tail = self._hub.join(self._asked, reading)
        ends = [
            asyncio.ensure_future(work)
            for work in (
                tail.begin(reading, self._after), _tell(reading, send), _gone(receive), reading.behind.wait(),
                self._hub.desk.ending.wait(),
            )
        ]  # fmt: skip
        beginning, *others = ends
        beginning.add_done_callback(reading.failed)
        try:
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(reading)
            for task in ends:
                task.cancel()
            await asyncio.wait(ends)
        # a reader that does not read cannot be told that this is the end
        last = asyncio.ensure_future(send({"type": "http.response.body", "body": b""}))
        await asyncio.wait([last], timeout=PULSE)
        last.cancel()


async def _tell(reading: Reading, send: Send) -> None:
    while True:
        await send({"type": "http.response.body", "body": await reading.take(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
