"""Giving memory back that a crowd or a flood has left behind.

The C library keeps what was freed for the next time, and so do Python's own pools: after ten thousand streams, or an
answer of 60 MB that had to wait for the recorder, a relay would stay as large as it once was. So when a flood is over,
and a moment has passed, the library is asked to return what it can (malloc_trim(3), where it is glibc).
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

#: Seconds after an ebb: the next flood may be close behind, and would have to fetch everything again.
PAUSE: Final = 2.0

#: New objects that there may be before the youngest are looked through for circles, and how many such looks make a look
#: at the middle-aged. The oldest are looked through after an ebb only: with ten thousand streams that takes 20 ms, in
#: which no byte would pass. Streams leave no circles behind, so this is for what nobody has thought of.
_THRESHOLDS: Final = (2000, 10, 1_000_000)


def settle() -> None:
    """Take what the process has made so far for something that stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


class Ebb:
    """Told when something large is gone, gives memory back a moment later."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Something large is gone. Needs a running loop."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        give_back()


def give_back() -> None:
    """Return unused memory to the system, as far as that can be done. Takes a few milliseconds."""
    gc.collect()
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):
        pass  # another C library, which has its own ways
