"""When memory is fetched from the system, and when it is given back.

Traffic comes in pieces of up to 256 kB, and glibc's malloc may fetch each of that size anew and return it at once,
unless it is told to keep some: a result of 1 MB then cost the relay half as much again, all of it in page faults. So it
is told (mallopt(3)).

The C library keeps what was freed for the next time then, and so do Python's own pools: after ten thousand streams, or
an answer of 60 MB that had to wait for the recorder, a relay would stay as large as it once was. So when a flood is
over, and a moment has passed, the library is asked to return what it can (malloc_trim(3)). Other C libraries have ways
of their own, and are left alone.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any, Final

#: Seconds after an ebb: the next flood may be close behind, and would have to fetch everything again.
PAUSE: Final = 2.0

#: Blocks of up to so many bytes are kept by malloc, so much of what it has is kept though nothing is in it, and so much
#: is fetched at once.
_MALLOC: Final = {-3: 4 * 1024 * 1024, -1: 16 * 1024 * 1024, -2: 1024 * 1024}  # M_MMAP_ and M_TRIM_THRESHOLD, M_TOP_PAD

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
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def keep() -> None:
    """Keep what pieces of traffic need from one to the next."""
    if (libc := _glibc()) is not None:
        for parameter, value in _MALLOC.items():
            libc.mallopt(parameter, value)


def _glibc() -> Any:
    try:
        import ctypes  # takes 4 ms: not before the first client may be served

        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except (ImportError, OSError):
        return None
