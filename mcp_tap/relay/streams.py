"""The streams of every listener, and how they end together at a stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from mcp_tap.channel import Closing, Kind
from mcp_tap.relay.capacity import Capacity
from mcp_tap.relay.head import Refusal
from mcp_tap.relay.memory import Ebb
from mcp_tap.relay.splice import Feed, Stream

#: How long (seconds) the recorder may take to say which streams have a call in flight, and how long a stream must have
#: been quiet to count as idle when it does not say.
ASK: Final = 0.25
QUIET_NS: Final = 250_000_000

#: So many streams at a time leave more memory behind when half of them are gone than should be kept.
CROWD: Final = 500

STOPPING: Final = Refusal(503, "mcp-tap is stopping", "try again in a moment")


class Streams:
    """The streams of this process by their numbers. ``feed`` gets a record of everything that passes."""

    def __init__(self, feed: Feed, capacity: Capacity | None = None, ebb: Ebb | None = None) -> None:
        self.feed = feed
        self.capacity = capacity or Capacity()
        self.open: dict[int, Stream] = {}
        self.draining = False
        self._number = 0
        self._most = 0  # streams at a time, since the last ebb
        self._ebb = ebb or Ebb()
        self._empty = asyncio.Event()
        self._told = asyncio.Event()  # the recorder has said which streams are busy

    def next_number(self) -> int:
        """Return the number of another stream, whichever listener accepts it."""
        self._number += 1
        return self._number

    def add(self, stream: Stream) -> None:
        """Know a stream whose client is there."""
        self.open[stream.number] = stream
        self._empty.clear()

    def forget(self, stream: Stream) -> None:
        """Forget a stream both ends of which are gone."""
        self.open.pop(stream.number, None)
        self.capacity.give()
        self._most = max(self._most, len(self.open) + 1)
        if self._most >= CROWD and len(self.open) <= self._most // 2:
            self._most = 0
            self._ebb.begin()
        if not self.open:
            self._empty.set()

    # -- stopping

    async def drain(self, seconds: float) -> None:
        """Let calls in flight end, for so long; then break off what is left. Nothing is accepted any more.

        Returns when no stream is left. The recorder is asked which streams have a call in flight.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self.draining = True
        for stream in list(self.open.values()):
            if stream.connecting is not None:
                stream.connecting.cancel()
                stream.refuse(STOPPING)
        if not self.open:
            return
        self._empty.clear()
        try:
            self.feed.put(0, Kind.DRAIN, time.monotonic_ns())
        except Exception:  # noqa: BLE001, S110  then it cannot be asked
            pass
        await _within(self._told, min(ASK, seconds))
        if not self._told.is_set():
            while loop.time() < deadline and not self._told.is_set() and not self._empty.is_set():
                self._end_quiet()
                await _within(self._empty, min(0.05, deadline - loop.time()))
        await _within(self._empty, deadline - loop.time())
        self.abort()
        await _within(self._empty, 1.0)

    def busy(self, streams: Iterable[int], at_ns: int) -> None:
        """The recorder's answer: every other stream has no call in flight, as of that time."""
        self._told.set()
        self.idle(set(self.open).difference(streams), at_ns)

    def idle(self, streams: Iterable[int], at_ns: int) -> None:
        """End streams without a call, unless their client has sent something since."""
        if not self.draining:
            return
        for number in streams:
            stream = self.open.get(number)
            if stream is not None and stream.client.last_ns <= at_ns:
                stream.close(Closing.DRAIN)

    def _end_quiet(self) -> None:
        now = time.monotonic_ns()
        for stream in list(self.open.values()):
            if now - stream.last_ns >= QUIET_NS:
                stream.close(Closing.DRAIN)

    def abort(self) -> None:
        """Break off every stream at once."""
        self.draining = True
        for stream in list(self.open.values()):
            stream.cut(Closing.DRAIN)


async def _within(event: asyncio.Event, seconds: float) -> None:
    if seconds > 0 and not event.is_set():
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            pass
