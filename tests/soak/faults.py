"""What goes wrong during a soak, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.tap import Tap, children

#: Seconds that a recorder stands still, and that the database is locked, at most.
STILL: Final = 3.0
LOCKED: Final = 5.0

ROOT: Final = Path(__file__).parents[2]


class Server:
    """The server behind the taps, which is restarted on its port."""

    def __init__(self, seen: Path) -> None:
        self._seen = seen
        self._port = 0
        self.process = self._start()

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return f"http://127.0.0.1:{self._port}/mcp"

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.soak.server", str(self._seen), str(self._port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdout is not None
        self._port = int(process.stdout.readline())
        return process

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End it, in order or not."""
        self.process.send_signal(signum)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restart(self, signum: int) -> None:
        """End it and start another in its place."""
        self.stop(signum)
        self.process = self._start()


def recorder_of(tap: Tap) -> int | None:
    """Return the process id of a tap's recorder; None between two."""
    return next(iter(children(tap.process.pid)), None)


class Faults:
    """One fault after the other. ``killing`` says whether recorders may be killed at the moment."""

    def __init__(self, taps: list[Tap], server: Server, rng: random.Random, say: Callable[[str], None]) -> None:
        self.killing = True
        self.counts: Counter[str] = Counter()
        self._taps = taps
        self._server = server
        self._rng = rng
        self._say = say

    async def run(self, every: float, ending: asyncio.Event) -> None:
        """Let something go wrong about every so many seconds, until the end."""
        while not ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), self._rng.uniform(0.5, 1.5) * every)
                return
            faults: list[Callable[[Tap], Awaitable[str]]] = [self._still, self._locked, self._restarted]
            if self.killing:
                faults += [self._killed] * 2
            fault = self._rng.choice(faults)
            number = self._rng.randrange(len(self._taps))
            what = await fault(self._taps[number])
            self.counts[what] += 1
            self._say(f"tap {number + 1}: {what}" if fault != self._restarted else what)

    async def _killed(self, tap: Tap) -> str:
        pid = recorder_of(tap)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return "recorder killed"

    async def _still(self, tap: Tap) -> str:
        pid = recorder_of(tap)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._rng.uniform(0.5, STILL))
            finally:
                os.kill(pid, signal.SIGCONT)
        return "recorder stopped and continued"

    async def _locked(self, tap: Tap) -> str:
        await asyncio.to_thread(_lock, tap.file, self._rng.uniform(0.5, LOCKED))
        return "database locked by another process"

    async def _restarted(self, _: Tap) -> str:
        killed = self._rng.random() < 0.5
        await asyncio.to_thread(self._server.restart, signal.SIGKILL if killed else signal.SIGTERM)
        return "server killed and started" if killed else "server restarted"


def _lock(file: Path, seconds: float) -> None:
    with contextlib.closing(sqlite3.connect(file, timeout=2, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return  # the tap has it for longer than that
        time.sleep(seconds)
        db.execute("ROLLBACK")
