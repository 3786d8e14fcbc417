"""The recorder process as the relay sees it: started, listened to, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from mcp_tap.channel import COUNT, HURRY, MOMENT, MOVED, Decoder, Kind, Record
from mcp_tap.config import Settings
from mcp_tap.errors import TapError
from mcp_tap.relay.feed import DIED, Channel
from mcp_tap.relay.priority import let_go_first

#: Seconds between the death of a recorder and its next start; doubled by every death before READY.
BACK_OFF_FIRST: Final = 0.1
BACK_OFF_MOST: Final = 5.0
#: Part of the time for a stop in which the recorder is given what waits for it; in the rest it has to write that.
GIVEN: Final = 0.6
#: Seconds that a recorder may take to exit once its channel has ended.
EXIT_AFTER_END: Final = 2.0


class RecorderError(TapError):
    """The recorder cannot work at all; ``exit_status`` is what the tap ends with."""

    code = "recorder"

    def __init__(self, message: str, *, hint: str = "", exit_status: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


def default_argv(channel_fd: int, settings_fd: int, desk_fd: int) -> list[str]:
    """Return the command line of the recorder."""
    return [sys.executable, "-m", "mcp_tap.app", str(channel_fd), str(settings_fd), str(desk_fd)]


class RecorderProcess:
    """Keeps one recorder running behind ``channel``.

    ``argv`` makes the command line from the numbers of the inherited descriptors: channel, settings, desk. ``busy`` and
    ``idle`` get stream numbers and a monotonic time in ns; ``say`` gets lines for whoever watches standard error.
    """

    def __init__(
        self,
        channel: Channel,
        settings: Settings,
        desk: socket.socket,
        *,
        busy: Callable[[list[int], int], None],
        idle: Callable[[list[int], int], None],
        say: Callable[[str], None],
        argv: Callable[[int, int, int], Sequence[str]] = default_argv,
    ) -> None:
        self.restarts = 0
        self._channel = channel
        self._settings = settings.to_file()  # for as long as recorders may be started
        self._desk = desk
        self._busy = busy
        self._idle = idle
        self._say = say
        self._argv = argv
        self._life: _Life | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the first recorder and wait until it is ready. Raises RecorderError when it cannot work.

        Traffic may flow before. Where nobody waits any longer, `stop` still lets it be ready and write what there is.
        """
        await asyncio.sleep(0)  # first the clients who are there already: beginning a process takes milliseconds
        life = self._begin()
        refused = await asyncio.shield(life.ready)
        if refused is not None:
            await life.end(EXIT_AFTER_END)
            raise refused
        self._keeping = asyncio.get_running_loop().create_task(self._keep(life))

    async def stop(self, seconds: float) -> None:
        """Ask the recorder to write everything out and exit, and give it so many seconds for both.

        What it cannot be given in time is counted in the record, and what it could not write is said.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
            if self._life is None or self._life.ended.is_set():
                with contextlib.suppress(OSError):
                    self._begin()  # the last one has died: what waits since then needs another
        if self._life is not None:
            by = MOMENT.pack(time.monotonic_ns() + int(seconds * 1e9))
            self._channel.put(0, Kind.STOP, time.monotonic_ns(), by)
            try:
                async with asyncio.timeout(seconds * GIVEN):
                    await asyncio.shield(self._life.ready)
                    await self._channel.drained()
            except TimeoutError:
                now = time.monotonic_ns()
                self._channel.give_up(now, "the tap was stopped before it could be recorded")
                self._channel.put(0, Kind.STOP, now, by)
                self._life.hurry()
            await self._life.end(deadline - loop.time())
        if self._channel.unrecorded:
            self._say(f"error: the last {self._channel.unrecorded} pieces of traffic were not recorded")
        os.close(self._settings)

    def _begin(self) -> _Life:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            fds = (theirs.fileno(), self._settings, self._desk.fileno())
            # An ignored signal stays ignored over exec. Ctrl-C goes to the whole group of processes, and the recorder
            # has to outlive the drain from its first instruction on.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                # which allocator suits a relay (see cli/running.py) does not suit a recorder
                env = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
                child = subprocess.Popen(self._argv(*fds), pass_fds=fds, env=env)
                let_go_first(child.pid)
            except OSError:
                ours.close()
                raise
            finally:
                signal.signal(signal.SIGINT, before)
        self._life = _Life(child, ours, self._channel, self._busy, self._idle)
        return self._life

    async def _keep(self, life: _Life | None) -> None:
        """Start another recorder whenever one dies. Traffic goes on meanwhile, and what is lost is counted."""
        wait, refusal = BACK_OFF_FIRST, ""
        while True:
            if life is not None:
                # shielded: a stop that comes now must leave it to say that it is ready, and to be given what has waited
                refused = await asyncio.shield(life.ready)
                if refused is None:
                    await life.ended.wait()
                status = await life.end(EXIT_AFTER_END)
                if refused is not None:
                    if str(refused) != refusal:
                        refusal = str(refused)
                        self._say(f"warning: traffic flows, but no record is made: {refusal}; trying again")
                else:
                    wait, refusal = BACK_OFF_FIRST, ""
                    self._channel.died = "the recording was deleted or replaced" if status == MOVED else DIED
                    if status != MOVED:  # that one has said why itself
                        manner = f"signal {-status}" if status < 0 else f"status {status}"
                        self._say(f"warning: the recorder died ({manner}); traffic goes on, starting another")
            await asyncio.sleep(wait)
            wait = min(wait * 2, BACK_OFF_MOST)
            self.restarts += 1
            try:
                life = self._begin()
            except OSError:  # no processes or descriptors left: try again later
                self._life = life = None


class _Life:
    """One recorder, from its start to its death."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        sock: socket.socket,
        channel: Channel,
        busy: Callable[[list[int], int], None],
        idle: Callable[[list[int], int], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[RecorderError | None] = loop.create_future()  # None: it is
        self.ended = asyncio.Event()  # its end of the channel is closed
        self._child = child
        self._sock = sock
        self._channel = channel
        self._busy = busy
        self._idle = idle
        self._decoder = Decoder()
        loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(64 * 1024)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        try:
            for record in self._decoder.feed(data):
                self._take(record)
        except Exception:  # noqa: BLE001  what it says makes no sense: replace it rather than believe it
            self._child.kill()
            self._end()

    def _take(self, record: Record) -> None:
        if record.kind == Kind.ACK:
            self._channel.acknowledge(*COUNT.unpack(record.payload))
        elif record.kind == Kind.BUSY:
            self._busy(record.json(), record.at_ns)
        elif record.kind == Kind.IDLE:
            self._idle(record.json(), record.at_ns)
        elif record.kind == Kind.READY and not self.ready.done():
            self.ready.set_result(None)
            self._channel.attach(self._sock)
        elif record.kind == Kind.REFUSED and not self.ready.done():
            said = record.json()
            self.ready.set_result(
                RecorderError(said["error"], hint=said.get("hint", ""), exit_status=int(said.get("exit", 1)))
            )

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        if not self.ready.done():
            self.ready.set_result(RecorderError("the recorder ended before it was ready", hint="run with --debug"))
        self._channel.detach()
        self.ended.set()

    def hurry(self) -> None:
        """Ask a recorder that is behind to give up what it has not written: that it has to end it may read too late."""
        if self.ready.done() and self._child.poll() is None:
            self._child.send_signal(HURRY)

    async def end(self, seconds: float) -> int:
        """Give the process so many seconds to exit, then kill it. Return its status."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._child.poll() is None:
            if loop.time() >= deadline:
                self._child.kill()
            await asyncio.sleep(0.01)
        if not self.ended.is_set():
            self._readable()  # the last that it said may still be there
        if not self.ended.is_set():
            self._end()
        self._sock.close()
        return self._child.returncode
