"""The recorder process as the relay sees it: started, listened to, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from mcp_tap.channel import COUNT, Decoder, Kind
from mcp_tap.config import Settings
from mcp_tap.relay.feed import Channel

#: Seconds between the death of a recorder and its next start; doubled by every death before READY.
BACK_OFF_FIRST: Final = 0.1
BACK_OFF_MOST: Final = 5.0
#: Seconds that a recorder may take to exit once its channel has ended.
EXIT_AFTER_END: Final = 2.0


class Refused(Exception):
    """The recorder cannot work at all. ``exit_status`` is what the tap ends with."""

    def __init__(self, error: str, hint: str = "", exit_status: int = 1) -> None:
        super().__init__(error)
        self.hint = hint
        self.exit_status = exit_status


def default_argv(channel_fd: int, settings_fd: int, desk_fd: int) -> list[str]:
    """Return the command line of the recorder."""
    return [sys.executable, "-m", "mcp_tap.app", str(channel_fd), str(settings_fd), str(desk_fd)]


class RecorderProcess:
    """Keeps one recorder running behind ``channel``.

    ``argv`` makes the command line from the numbers of the inherited descriptors (channel, settings, desk). ``busy`` and
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
        self.channel = channel
        self.restarts = 0
        self._settings = tempfile.TemporaryFile()  # noqa: SIM115  as long as recorders may be started
        self._settings.write(settings.to_json())
        self._settings.flush()
        self._desk = desk
        self._busy = busy
        self._idle = idle
        self._say = say
        self._argv = argv
        self._stopping = False
        self._watch: asyncio.Task[None] | None = None
        self._life: _Life | None = None

    async def start(self) -> None:
        """Start the first recorder and wait until it is ready. Raises Refused when it cannot work."""
        life = await self._begin()
        try:
            ready = await life.ready
        except BaseException:
            await life.end(kill_after=0)
            raise
        if ready is not None:
            await life.end(kill_after=EXIT_AFTER_END)
            raise ready
        self._watch = asyncio.get_running_loop().create_task(self._keep(life))

    async def stop(self, seconds: float) -> None:
        """Ask the recorder to write everything out and exit, and wait for it so long; then end it."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        life = self._life
        if life is not None:
            self.channel.put(0, Kind.STOP, time.monotonic_ns())
            try:
                async with asyncio.timeout(seconds):
                    await self.channel.drained()
            except TimeoutError:
                pass
            await life.end(kill_after=max(0.0, deadline - loop.time()))
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self._settings.close()

    async def _begin(self) -> _Life:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            fds = (theirs.fileno(), self._settings.fileno(), self._desk.fileno())
            # An ignored signal stays ignored over exec: Ctrl-C goes to the whole group of processes, and the recorder
            # must outlive the relay's drain from its first instruction on.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                child = subprocess.Popen(self._argv(*fds), pass_fds=fds, stdin=subprocess.DEVNULL)
            except OSError:
                ours.close()
                raise
            finally:
                signal.signal(signal.SIGINT, before)
        self._life = _Life(self, child, ours)
        await self._life.listen()
        return self._life

    async def _keep(self, life: _Life | None) -> None:
        """Start another recorder whenever one dies. Traffic goes on meanwhile, and what is lost is counted."""
        wait = BACK_OFF_FIRST
        while not self._stopping:
            if life is not None:
                await life.ended.wait()
                was_ready = life.ready.done() and life.ready.result() is None
                status = await life.end(kill_after=EXIT_AFTER_END)
                if self._stopping:
                    return
                if was_ready:
                    wait = BACK_OFF_FIRST
                    self._say(f"warning: the recorder died ({_manner(status)}); traffic goes on, starting another")
            await asyncio.sleep(wait)
            wait = min(wait * 2, BACK_OFF_MOST)
            self.restarts += 1
            try:
                life = await self._begin()
            except OSError:  # no processes, no descriptors: try again later
                life = None


class _Life:
    """One recorder process, from its start to its death."""

    def __init__(self, owner: RecorderProcess, child: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.ready: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()  # its end of the channel is closed
        self._owner = owner
        self._child = child
        self._sock = sock
        self._decoder = Decoder()

    async def listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._sock, self._readable)

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
                self._take(record.kind, record.at_ns, record)
        except Exception:  # noqa: BLE001  what it says makes no sense any more: it is replaced
            self._child.kill()
            self._end()

    def _take(self, kind: int, at_ns: int, record: Any) -> None:
        if kind == Kind.ACK:
            self._owner.channel.acknowledge(*COUNT.unpack(record.payload))
        elif kind == Kind.BUSY:
            self._owner._busy(record.json(), at_ns)
        elif kind == Kind.IDLE:
            self._owner._idle(record.json(), at_ns)
        elif kind == Kind.READY:
            if not self.ready.done():
                self._owner.channel.attach(self._sock)
                self.ready.set_result(None)
        elif kind == Kind.REFUSED and not self.ready.done():
            refused = record.json()
            self.ready.set_result(Refused(refused["error"], refused.get("hint", ""), int(refused.get("exit", 1))))

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        if self.ready.done() and self.ready.result() is None:
            self._owner.channel.detach()
        if not self.ready.done():
            self.ready.set_result(Refused("the recorder ended before it was ready"))
        self.ended.set()

    async def end(self, *, kill_after: float) -> int:
        """Wait for the process to exit, so many seconds, then kill it. Return its status."""
        try:
            async with asyncio.timeout(kill_after or None):
                if kill_after:
                    await self.ended.wait()
        except TimeoutError:
            self._child.kill()
        if not kill_after:
            self._child.kill()
        # The channel has ended, or the process was killed: its exit is at hand, but a thread waits for it
        loop = asyncio.get_running_loop()
        try:
            status = await loop.run_in_executor(None, self._child.wait, EXIT_AFTER_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = await loop.run_in_executor(None, self._child.wait)
        if not self.ended.is_set():
            self._end()
        self._sock.close()
        return status


def _manner(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
