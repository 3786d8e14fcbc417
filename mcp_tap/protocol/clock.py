"""What a new setting of the wall clock does to what is under way: nothing, as far as durations are concerned.

Rows have the time of the wall clock, and every duration is a difference of two of their times. When the clock is set,
what began before moves along in memory: it began so long ago as it did. Rows that are stored keep the time that
everybody had then, and the order of a timeline is its count, not its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mcp_tap.model import Event, Status
from mcp_tap.protocol.connections import Connections
from mcp_tap.protocol.exchange import Stream


def clock_set(by_us: int, connections: Connections, streams: Iterable[Stream]) -> None:
    """Move what is under way by so many microseconds: forward where the clock was set forward."""
    streams = list(streams)
    for stream in streams:
        stream.clock_set(by_us)
    for event in {id(event): event for event in _under_way(connections, streams)}.values():
        event.at_us += by_us
    for live in connections.all():
        row = live.row
        row.created_us += by_us
        row.last_active_us += by_us
        row.started_us = None if row.started_us is None else row.started_us + by_us
        row.ended_us = None if row.ended_us is None else row.ended_us + by_us


def _under_way(connections: Connections, streams: list[Stream]) -> Iterator[Event]:
    """Yield every line whose end has not come, some of them twice."""
    for live in connections.all():
        yield from live.waiting()
    for stream in streams:
        for x in stream.open:
            link = x.link  # the tracker's
            if link is not None:
                yield from (event for event in link.asked if event.status is Status.WAITING)
                yield from link.unheard or ()
                if link.event is not None:
                    yield link.event
