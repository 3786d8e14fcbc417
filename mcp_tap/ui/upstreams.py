"""Whether the servers behind the tap can be reached, for the line that says so on top of every page."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from mcp_tap.api.desk import Desk
from mcp_tap.store.rows import iso

#: Seconds for which an answer holds, and seconds that a page waits for a new one.
FRESH: Final = 10.0
PATIENCE: Final = 0.25


class Down(NamedTuple):
    """A server that does not answer."""

    url: str
    words: str  # what connecting came to
    since: str  # ISO: when a page first found it so


class Upstreams:
    """Connects to each server once in a while, only when somebody looks at a page; the servers are sent nothing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._down: list[Down] = []
        self._looked = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def down(self) -> list[Down]:
        """Return the servers that do not answer, as far as that is known at once."""
        if self._desk.reach is None:
            return []
        if self._looking is None and time.monotonic() - self._looked > FRESH:
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=PATIENCE)
        return self._down

    async def _look(self) -> None:
        assert self._desk.reach is not None  # `down` asked
        try:
            states = await asyncio.gather(*map(self._desk.reach, self._desk.proxies))
            since = {down.url: down.since for down in self._down}
            now = iso(time.time_ns() // 1000)
            self._down = [
                Down(proxy.upstream.url, words, since.get(proxy.upstream.url, now))
                for proxy, words in zip(self._desk.proxies, states, strict=True)
                if not words.startswith("connected")
            ]
        finally:
            self._looked = time.monotonic()
            self._looking = None
