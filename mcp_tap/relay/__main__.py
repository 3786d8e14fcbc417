"""The relay process: ``python -m mcp_tap.relay SETTINGS_FD``.

SETTINGS_FD is an inherited descriptor of an unlinked file with the settings as JSON. The process takes its addresses,
starts the recorder, waits until that is ready, and accepts. It owns the signals: the first SIGTERM or SIGINT drains,
flushes and ends with 0, a second SIGINT does not wait any longer and ends with 130.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import uvloop

from mcp_tap.config import Address, Settings
from mcp_tap.model import TapError, UsageError
from mcp_tap.relay.feed import Channel
from mcp_tap.relay.listener import Listener, listening_sockets, notices
from mcp_tap.relay.recorder_process import RecorderProcess, default_argv

#: Seconds kept for the recorder's last flush.
FLUSH: Final = 2.0
#: Descriptors are raised to the hard limit, but not beyond this: "unlimited" is refused on macOS, and a child that
#: closes every possible descriptor one by one would take long over a billion.
MOST_FILES: Final = 1024 * 1024
MOST_FILES_MACOS: Final = 10240


def main(arguments: Sequence[str], *, argv: Callable[[int, int, int], Sequence[str]] = default_argv) -> int:
    """Run the relay to its end and return the exit status. ``argv`` makes the recorder's command line."""
    try:
        settings = read_settings(int(arguments[0]))
        raise_file_limit()
        return uvloop.run(run(settings, argv=argv))
    except TapError as error:
        say(f"error: {error}")
        for line in error.hint.splitlines():
            say(f"  {line}")
        return error.exit_status


def read_settings(fd: int) -> Settings:
    """Return the settings in an inherited file, wherever another process has left its position."""
    return Settings.from_json(os.pread(fd, os.fstat(fd).st_size, 0))


def raise_file_limit() -> None:
    """Allow as many open connections as this machine lets us have: each stream is two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES_MACOS if sys.platform == "darwin" else MOST_FILES
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        pass  # then it stays as it was: traffic flows, only fewer streams at a time


def say(line: str) -> None:
    """Write a line for whoever watches standard error, if anybody does."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        pass


async def run(settings: Settings, *, argv: Callable[[int, int, int], Sequence[str]] = default_argv) -> int:
    """Listen, relay and stop; return the exit status. Raises TapError when it cannot begin."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unexpected if settings.debug else lambda _loop, _context: None)
    signals = _Signals(loop)
    sockets = _bound(settings.proxy.listen, settings, flag="--listen")
    desk, *others = _bound(settings.admin.listen, settings, flag="--admin-listen")
    for sock in others:
        sock.close()  # one descriptor is all that the recorder is given
    settings = dataclasses.replace(
        settings,
        proxy=dataclasses.replace(settings.proxy, listen=_taken(settings.proxy.listen, sockets[0])),
        admin=dataclasses.replace(settings.admin, listen=_taken(settings.admin.listen, desk)),
    )
    channel = Channel(settings.record.queue)
    try:
        listener = Listener(settings, channel)
    except OSError as error:
        raise UsageError(
            f"cannot read the certificates of {settings.proxy.tls_ca}", hint="tls_ca names a PEM file"
        ) from error
    recorder = RecorderProcess(channel, settings, desk, busy=listener.busy, idle=listener.idle, say=say, argv=argv)
    if not await signals.unless_stopped(recorder.start()):
        await recorder.stop(FLUSH)
        return 0
    for line in notices(settings):
        say(line)
    await listener.start(sockets)
    await signals.stop.wait()
    drained = await signals.unless_hurried(listener.drain(settings.proxy.drain))
    if not drained:
        listener.abort()
    await recorder.stop(FLUSH)
    return 0 if drained else 130


class _Signals:
    """The first SIGTERM or SIGINT asks to stop, a SIGINT after it to hurry."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _interrupted(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        return await self._unless(self.stop, work)

    async def unless_hurried(self, work: Coroutine[Any, Any, None]) -> bool:
        return await self._unless(self.hurry, work)

    @staticmethod
    async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work to its end, unless the event comes first. Return whether it was done; raises what it raises."""
        task, interruption = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
        await asyncio.wait((task, interruption), return_when=asyncio.FIRST_COMPLETED)
        done = task.done()
        for one in (task, interruption):
            one.cancel()
        await asyncio.wait((task, interruption))
        if done:
            task.result()
        return done


def _bound(address: Address, settings: Settings, *, flag: str) -> list[socket.socket]:
    try:
        return listening_sockets(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {address.port} is already in use on {address.host}"
            hint = (
                f"it may be another mcp-tap; its web page would be http://{settings.admin.listen}\n"
                f"try:  mcp-tap {settings.proxy.upstream.url} {flag} {Address(address.host, 6290)}"
            )
        else:
            reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error).lower()
            message = f"cannot listen on {address} ({reason})"
            hint = f"try:  mcp-tap {settings.proxy.upstream.url} {flag} 127.0.0.1:6290"
        raise UsageError(message, hint=hint) from error


def _taken(asked: Address, sock: socket.socket) -> Address:
    """Return the address with the port that it got where it asked for any."""
    return Address(asked.host, sock.getsockname()[1])


def _unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    say(f"debug: {context.get('message')}: {context.get('exception')!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
