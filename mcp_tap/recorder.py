"""The recorder: records of the channel in, rows in the store out, and nothing of it in the way of the traffic.

Every record goes through `protocol` at once; what that makes is collected for a moment and written in one
transaction. A store that fails is tried again while rows wait, up to a bound; beyond it the oldest are given up, and
how many is itself recorded as soon as the store is back. Whoever watches gets each batch when it was written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from mcp_tap.channel import COUNT, MOMENT, Decoder, Kind, Record, encode, encode_json
from mcp_tap.model import Batch, StoreError
from mcp_tap.protocol.clock import clock_set
from mcp_tap.protocol.exchange import Stream
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.store import Writer

log = logging.getLogger(__name__)

#: Seconds between two batches.
FLUSH_EVERY: Final = 0.2

#: Seconds between two looks for connections whose time is over.
TICK_EVERY: Final = 1.0

#: Seconds between two looks for what is older than it is kept, for more than the file may hold (a busy tap fills it
#: fast), and between two parts of the same work, in which the store writes.
TEND_EVERY: Final = 600.0
SIZE_EVERY: Final = 10.0
TEND_PAUSE: Final = 0.2

#: Seconds until a failing store is tried again, at first and at most.
RETRY_FIRST: Final = 0.5
RETRY_MOST: Final = 10.0

#: Rows, and bytes of their bodies, that may wait for a store that fails. Beyond it the oldest are given up.
MAX_ROWS: Final = 50_000
MAX_BYTES: Final = 64 * 1000 * 1000

#: Rows, and bytes of their bodies, that may wait for a store that is slow. Beyond it the channel is not read, so that
#: the relay's bounded queue takes over; they are few enough to be written when the tap stops.
SLOW_ROWS: Final = 20_000
SLOW_BYTES: Final = 32 * 1000 * 1000

#: Seconds before the end of a stop in which only what was given up is written down.
LAST_WORD: Final = 0.4

#: A wall clock that was set by more than this is followed; less is the clock being trimmed.
CLOCK_STEP_NS: Final = 500_000_000

# Comparing a number with the member of an enumeration costs as much as a call, and most records are of these two kinds.
_CLIENT: Final = int(Kind.CLIENT)
_SERVER: Final = int(Kind.SERVER)


class _Waiting:
    """One batch on its way to the store, and the record that tells the relay that it is there."""

    __slots__ = ("acknowledge", "batch", "rows", "size", "tells")

    def __init__(self, batch: Batch, acknowledge: bytes, tells: int) -> None:
        self.batch = batch
        self.acknowledge = acknowledge
        self.tells = tells  # how many lines it says were given up
        self.rows = len(batch.events) + len(batch.connections)
        self.size = sum(len(body.data) for body in batch.bodies)


class Spool:
    """Batches on their way to the store, in order, each tried until it is written or has to make room.

    ``written`` is told of every batch in the store, ``acknowledge`` of what the relay may forget.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        written: Callable[[Batch], None],
        acknowledge: Callable[[bytes], None],
        notice: Callable[[str], None],
    ) -> None:
        self.lost = 0  # lines of timelines given up and not yet recorded as such
        self.lost_us = (0, 0)  # when the first and the last of them were seen
        self.failing: str | None = None  # why the store cannot be written at the moment
        self.moved = asyncio.Event()  # the store is not where it was: nothing more is written
        self._writer = writer
        self._written = written
        self._acknowledge = acknowledge
        self._notice = notice
        self._waiting: deque[_Waiting] = deque()
        self._kept = Batch()  # what of batches given up goes with the next one
        self._untold = 0  # lines given up, without a line in the store that says so: the relay must not forget them
        self._more = asyncio.Event()
        self._ending = asyncio.Event()

    @property
    def behind(self) -> bool:
        """Whether more waits than should for a store that works."""
        return self.failing is None and self._over(SLOW_ROWS, SLOW_BYTES)

    def put(self, batch: Batch, acknowledge: bytes, tells: int = 0) -> None:
        """Put a batch in line, which says that so many lines were given up. While the store fails others make room."""
        if self._kept:
            kept, self._kept = self._kept, Batch()
            batch = Batch(
                list(dict.fromkeys(kept.connections + batch.connections)),
                list(dict.fromkeys(kept.events + batch.events)),
                kept.bodies + batch.bodies,
                batch.tools,
            )
        if not batch:
            if self._waiting:
                self._waiting[-1].acknowledge = acknowledge  # what made no rows is safe with those before it
            else:
                self._acknowledge(acknowledge)
            return
        self._waiting.append(_Waiting(batch, acknowledge, tells))
        self._more.set()
        while self.failing is not None and len(self._waiting) > 2 and self._over(MAX_ROWS, MAX_BYTES):
            self._lose(1)

    def give_up(self) -> None:
        """Lose what waits but for the batch that may be written just now: no time is left for it."""
        while len(self._waiting) > 1:
            self._lose(1)

    def _over(self, rows: int, size: int) -> bool:
        waiting = self._waiting
        return sum(each.rows for each in waiting) > rows or sum(each.size for each in waiting) > size

    def _lose(self, place: int) -> None:
        """Give up a batch. The first one is never it: it may be on its way into the store.

        Lines that are stored already get their last state with the next batch, and connections theirs.
        """
        waiting = self._waiting[place]
        del self._waiting[place]
        batch = waiting.batch
        self._kept.connections += batch.connections
        self._kept.events += [event for event in batch.events if event.pk]
        self._kept.bodies += [body for body in batch.bodies if body.event.pk]
        moments = [event.at_us for event in batch.events if not event.pk]
        self._untold += len(moments)
        self.lost += len(moments) + waiting.tells
        if self.lost_us != (0, 0):
            moments += self.lost_us
        self.lost_us = (min(moments, default=0), max(moments, default=0))

    def end(self) -> None:
        """Say that nothing more comes: `run` returns when the rest is written, or cannot be."""
        self._ending.set()
        self._more.set()

    async def run(self) -> None:
        """Write what is in line until the end."""
        retry = RETRY_FIRST
        while self._waiting or not self._ending.is_set():
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            first = self._waiting[0]
            try:
                await self._writer.write(first.batch)
            except StoreError as error:
                if self.look():
                    return
                if not await self._fail(error, retry):
                    return
                retry = min(retry * 2, RETRY_MOST)
                continue
            if self.look():  # what was written is gone: it is not acknowledged
                return
            retry = RETRY_FIRST
            self._waiting.popleft()
            if self.failing is not None:
                self.failing = None
                self._notice(f"records are written again; {self.lost} lines were lost")
            self._untold -= first.tells
            if not self._untold:
                self._acknowledge(first.acknowledge)
            self._written(first.batch)

    def look(self) -> bool:
        """Whether the store is not where it was."""
        what = self._writer.moved()
        if what is not None and not self.moved.is_set():
            self._notice(f"warning: {what}; traffic goes on, and recording under that name")
            self.moved.set()
        return what is not None

    async def _fail(self, error: StoreError, retry: float) -> bool:
        """Wait before the next try; return False where there is none."""
        if self.failing is None:
            self._notice(f"warning: traffic flows, but records cannot be written: {error}")
        self.failing = str(error)
        if self._ending.is_set():
            lines = self.lost + sum(len(waiting.batch.events) for waiting in self._waiting)
            self._notice(f"error: {lines} lines of the record could not be written: {error}")
            return False
        try:
            await asyncio.wait_for(self._ending.wait(), retry)
        except TimeoutError:
            pass
        return True


async def tend(writer: Writer, *, now_us: Callable[[], int], keep_us: int | None, max_size: int | None) -> None:
    """Keep the store small and quick, for ever: delete what is too old or too much, count past hours ahead.

    Each in small parts with pauses between, in which rows are written. Whatever goes wrong here disturbs no recording.
    """
    due = 0.0
    while True:
        more = False
        try:
            if max_size is not None:
                more = bool(await writer.prune_to(max_size))
            if time.monotonic() >= due:
                old = 0 if keep_us is None else await writer.prune(now_us() - keep_us)
                if await writer.fold(now_us()) or old:
                    more = True
                else:
                    due = time.monotonic() + TEND_EVERY
        except StoreError as error:
            log.warning("the store cannot be tended: %s", error)  # the spool says so when writing fails, too
            due = time.monotonic() + TEND_EVERY
        except Exception:
            log.exception("the store is not tended for a while")
            due = time.monotonic() + TEND_EVERY
        await asyncio.sleep(TEND_PAUSE if more else TEND_EVERY if max_size is None else SIZE_EVERY)


class Recorder(asyncio.Protocol):
    """The recorder's end of the channel. ``written`` is told of every batch, ``notice`` of what people should know."""

    def __init__(
        self,
        tracker: Tracker,
        writer: Writer,
        *,
        written: Callable[[Batch], None],
        notice: Callable[[str], None],
        keep_us: int | None = None,
        max_size: int | None = None,
        cut_us: int | None = None,
    ) -> None:
        self.dropped = 0  # pieces of traffic that never reached this process
        self.overhead_us: float | None = None  # median time of a piece through the relay, lately
        self.spool = Spool(writer, written=written, acknowledge=self.say, notice=notice)
        self._tracker = tracker
        self._writer = writer
        self._keep_us = keep_us  # None: for ever
        self._max_size = max_size  # None: any
        self._cut_us = cut_us  # when an earlier recorder was cut off, until the relay has told how much that cost
        self._notice = notice
        self._stopped = asyncio.Event()  # nothing more will come
        self._stop_by: float | None = None  # monotonic seconds, where the relay says when it ends this process
        self._decoder = Decoder()
        self._streams: dict[int, Stream] = {}
        self._records = 0
        self._bytes = 0
        self._clock_ns = time.time_ns() - time.monotonic_ns()
        self._asleep_ns = _asleep_ns()
        self._paused = False
        self._hurried = False
        self._draining: set[int] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def streams(self) -> int:
        """How many TCP connections are open."""
        return len(self._streams)

    # The channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the channel."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """Take a piece of the channel."""
        try:
            records = self._decoder.feed(data)
        except ValueError:
            log.exception("the channel cannot be read any further")
            self._stopped.set()
            return
        streams, clock_ns = self._streams, self._clock_ns
        size = 0
        for record in records:
            number, kind, at_ns, payload = record
            size += len(payload)
            try:
                if kind == _CLIENT:
                    if (stream := streams.get(number)) is not None:
                        stream.client(payload, (at_ns + clock_ns) // 1000)
                elif kind == _SERVER:
                    if (stream := streams.get(number)) is not None:
                        stream.server(payload, (at_ns + clock_ns) // 1000)
                else:
                    self._take(record)
            except Exception:
                # a defect of ours must cost one stream's record, not the recording
                log.exception("stream %d cannot be followed", record.stream)
                self._give_up(record)
        self._records += len(records)
        self._bytes += size
        if self._draining is not None and records:
            self._tell_idle(records[-1].at_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the relay is gone."""
        self._stopped.set()

    def say(self, data: bytes) -> None:
        """Send a record to the relay, if it is still there."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _take(self, record: Record) -> None:
        """Take a record that is no traffic."""
        number, kind, at_ns, _ = record
        at_us = (at_ns + self._clock_ns) // 1000
        if self._cut_us is not None:
            self._tell_cut(self._cut_us, kind, at_us)
            self._cut_us = None
        stream = self._streams.get(number)
        if kind == Kind.OPEN:
            told = record.json()
            self._streams[number] = Stream(
                number, self._tracker, peer=told["peer"], upstream=told["upstream"], resumed=bool(told.get("resumed"))
            )
        elif number == 0:
            self._take_own(record, at_us)
        elif stream is not None:
            self._take_change(stream, record, at_us)

    def _take_change(self, stream: Stream, record: Record, at_us: int) -> None:
        kind, payload = record.kind, record.payload
        if kind == Kind.OWN:
            stream.own(payload, at_us)
        elif kind == Kind.CONNECT_FAILED:
            stream.connect_failed(payload.decode("utf-8", "replace"))
        elif kind == Kind.CLIENT_EOF:
            stream.client_eof()
        elif kind == Kind.SERVER_EOF:
            stream.server_eof(at_us)
        elif kind == Kind.CLOSED:
            del self._streams[stream.number]
            stream.close(payload, at_us)
            self._tracker.stream_closed(stream)
        elif kind == Kind.LOST:
            pieces, size = COUNT.unpack(payload)
            self.dropped += pieces
            self._tracker.lost(stream, pieces)
            self._tracker.dropped(pieces, size, at_us, at_us, "the recorder was too slow for the traffic")
            stream.lose(pieces, at_us)

    def _tell_cut(self, cut_us: int, kind: int, at_us: int) -> None:
        """Record that an earlier tap was killed, unless it was only its recorder: then the relay knows what is lost."""
        if kind != Kind.GAP:
            why = "the tap was killed: what it had seen and not yet written is missing"
            self._tracker.gap(0, 0, cut_us, max(cut_us, at_us), why)

    def _take_own(self, record: Record, at_us: int) -> None:
        """Take a record that is about the relay process itself."""
        if record.kind == Kind.GAP:
            gap = record.json()
            self.dropped += gap["records"]
            from_us, to_us = ((gap[end] + self._clock_ns) // 1000 for end in ("from_ns", "to_ns"))
            if not gap["records"]:
                return
            self._tracker.gap(gap["records"], gap["bytes"], from_us, to_us, gap["why"])
            self._notice(f"warning: {gap['records']} pieces of traffic were not recorded ({gap['why']})")
        elif record.kind == Kind.DRAIN:
            self._draining = {number for number, stream in self._streams.items() if stream.busy}
            self.say(encode_json(0, Kind.BUSY, record.at_ns, sorted(self._draining)))
        elif record.kind == Kind.PACE:
            self.overhead_us = COUNT.unpack(record.payload)[1] / 1000
        elif record.kind == Kind.STOP:
            if record.payload:
                self._stop_by = MOMENT.unpack(record.payload)[0] / 1e9
            self._stopped.set()

    def _tell_idle(self, at_ns: int) -> None:
        """While the relay drains: tell it which of the busy streams have no call in flight any more."""
        assert self._draining is not None
        busy = {n for n in self._draining if (stream := self._streams.get(n)) is not None and stream.busy}
        idle = sorted(self._draining - busy)
        if idle:
            self._draining = busy
            self.say(encode_json(0, Kind.IDLE, at_ns, idle))

    def _give_up(self, record: Record) -> None:
        """Stop following a stream that our own code stumbled over, and say so in the record."""
        stream = self._streams.pop(record.stream, None)
        if stream is not None:
            at_us = (record.at_ns + self._clock_ns) // 1000
            self._tracker.unreadable(stream, "a defect of the recorder: this connection is not followed further", at_us)
            self._tracker.stream_closed(stream)

    # The store

    async def run(self) -> None:
        """Write batches until nothing more comes, and then the rest; return when all is written or given up.

        Return at once where the store is not where it was (`Spool.moved`).
        """
        spooling = asyncio.create_task(self.spool.run())
        tending = asyncio.create_task(
            tend(self._writer, now_us=self._now_us, keep_us=self._keep_us, max_size=self._max_size)
        )
        ticked = time.monotonic()
        while not self._stopped.is_set():
            try:
                await asyncio.wait_for(self._stopped.wait(), FLUSH_EVERY)
            except TimeoutError:
                pass
            if time.monotonic() - ticked >= TICK_EVERY:
                ticked = time.monotonic()
                self._follow_clock()
                self._tracker.tick(self._now_us())
                self.spool.look()
            if self.spool.moved.is_set():
                spooling.cancel()
                tending.cancel()
                return
            self._collect()
        self._tracker.stop(self._now_us())
        self._collect()
        self.spool.end()
        tending.cancel()
        if self._stop_by is not None:
            await asyncio.wait([spooling], timeout=max(0, self._stop_by - LAST_WORD - time.monotonic()))
            if not spooling.done():
                self.hurry()
                self._collect()
        await spooling

    def hurry(self) -> None:
        """Give up what waits for the store, and take what the relay has yet to say: no time is left for more."""
        self._hurried = True
        self.spool.give_up()
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _collect(self) -> None:
        """Put what is new in line for the store, and read on only while the store keeps up."""
        lost = self.spool.lost if self.spool.failing is None else 0
        if lost:
            why = (
                "the tap was stopped before it could be written" if self._hurried else "the store could not be written"
            )
            self._tracker.dropped(lost, 0, *self.spool.lost_us, why)
            self.spool.lost, self.spool.lost_us = 0, (0, 0)
        acknowledge = encode(0, Kind.ACK, time.monotonic_ns(), COUNT.pack(self._records, self._bytes))
        self.spool.put(self._tracker.take(), acknowledge, lost)
        pause = self.spool.behind and not self._hurried
        if pause != self._paused and self._transport is not None:
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _now_us(self) -> int:
        return (time.monotonic_ns() + self._clock_ns) // 1000

    def _follow_clock(self) -> None:
        step, asleep_ns = time.time_ns() - time.monotonic_ns() - self._clock_ns, _asleep_ns()
        if abs(step) <= CLOCK_STEP_NS:
            return
        self._clock_ns += step
        # a machine that slept did not set its clock: that time has passed for calls and sessions, too
        set_by, self._asleep_ns = step - (asleep_ns - self._asleep_ns), asleep_ns
        if abs(set_by) > CLOCK_STEP_NS:
            log.warning("the clock was set by %.3f s", set_by / 1e9)
            clock_set(set_by // 1000, self._tracker.connections, self._streams.values())


def _asleep_ns() -> int:
    """Return how long the machine has been suspended: the monotonic clock stands still meanwhile (Linux, macOS)."""
    with_sleep = getattr(time, "CLOCK_BOOTTIME", None)
    return 0 if with_sleep is None else time.clock_gettime_ns(with_sleep) - time.monotonic_ns()
