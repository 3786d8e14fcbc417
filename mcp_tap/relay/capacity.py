"""How many streams there can be at a time, and what happens to clients beyond.

Theory of operation. A stream takes two descriptors. A process that has none left cannot even refuse a client: event
loops then accept and close at once, or spin. So clients are only accepted while there is room for both ends of their
stream. Those beyond wait where they would wait for a busy server, in the backlog of the kernel, and are accepted in
their order as others leave; nobody is turned away who would not be turned away without the tap.

The limit of descriptors is read each time, because it can be changed from outside while the process runs.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from typing import Final

#: Descriptors are raised to the hard limit, but not beyond this: "unlimited" is refused on macOS, and a child that
#: closes every possible descriptor one by one would take long over a billion.
MOST_FILES: Final = 1024 * 1024
MOST_FILES_MACOS: Final = 10240

#: Descriptors kept back from streams: about 15 for loop, listeners, channel and settings, five to start another
#: recorder, two for each of the threads that look up names.
RESERVE: Final = 40
#: A stream's: the client's connection and the server's.
EACH: Final = 2

#: Seconds after which accepting is tried again though no stream has ended: what was short may be so no longer. And how
#: many of these have to pass without a client that waits before it is said that none does.
RETRY: Final = 1.0
CALM: Final = 10


def raise_file_limit() -> None:
    """Allow as many open connections as this machine lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES_MACOS if sys.platform == "darwin" else MOST_FILES
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        pass  # then it stays as it was: traffic flows, only fewer streams at a time


class Capacity:
    """Counts the streams of all listeners. ``most`` is how many are wanted at the most, None for any number.

    ``say`` gets lines for whoever watches standard error: one when clients begin to wait, one when none need to.
    """

    def __init__(self, most: int | None = None, *, say: Callable[[str], None] = lambda _line: None) -> None:
        self.streams = 0
        self._most = most
        self._say = say
        self._waiting: list[Callable[[], None]] = []
        self._calm = CALM  # how often it has been tried since a client had to wait; so often while none has to

    def room(self) -> int:
        """Return how many more streams there may be now."""
        return self._limit()[0] - self.streams

    def _limit(self) -> tuple[int, str]:
        """Return how many streams there may be, and what says so."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = sys.maxsize if files == resource.RLIM_INFINITY else max(1, (files - RESERVE) // EACH)
        if self._most is not None and self._most <= allowed:
            return self._most, "as many as proxy.max_connections allows"
        return allowed, f"as many as {files} open files allow (raise the limit: ulimit -n, or LimitNOFILE of systemd)"

    def take(self) -> None:
        """Count a stream that begins."""
        self.streams += 1

    def give(self) -> None:
        """Count one that has ended, and let another in."""
        self.streams -= 1
        if self._waiting and self.room() > 0:
            self._resume()

    def wait(self, resume: Callable[[], None], error: OSError | None = None) -> None:
        """Call ``resume`` when there may be room. ``error`` is what accepting failed with, if that is why."""
        self._waiting.append(resume)
        if self._calm >= CALM:
            asyncio.get_running_loop().call_later(RETRY, self._retry)
            why = self._limit()[1] if error is None else os.strerror(error.errno or 0).lower()
            self._say(f"warning: further clients wait: {self.streams} connections are open, {why}")
        self._calm = 0

    def _retry(self) -> None:
        self._calm += 1
        if self._calm >= CALM:
            self._say("clients no longer wait")
        else:
            asyncio.get_running_loop().call_later(RETRY, self._retry)
            self._resume()

    def _resume(self) -> None:
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()
