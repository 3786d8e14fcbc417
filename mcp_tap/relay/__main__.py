"""The relay process: ``python -m mcp_tap.relay SETTINGS_FD``.

SETTINGS_FD is an inherited descriptor of a file with the settings, which has no name. The process takes its addresses,
accepts, and starts the recorder: a client that waited for the tap to come up need not wait for that, and what passes
meanwhile is kept for it. It owns the signals: the first SIGTERM or SIGINT drains, flushes and ends with 0, a second
SIGINT does not wait any longer and ends with 130.
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

from mcp_tap.config import Address, Proxy, Settings
from mcp_tap.errors import TapError, UsageError
from mcp_tap.relay import memory
from mcp_tap.relay.capacity import Capacity, raise_file_limit
from mcp_tap.relay.feed import Channel
from mcp_tap.relay.listener import Listener, notices
from mcp_tap.relay.memory import Ebb
from mcp_tap.relay.recorder_process import RecorderProcess, default_argv
from mcp_tap.relay.sockets import SocketFile, listener_tls, listening_sockets
from mcp_tap.relay.streams import Streams

#: Seconds kept for the recorder's last flush, however long the drain takes.
FLUSH: Final = 2.0


def main(arguments: Sequence[str], *, argv: Callable[[int, int, int], Sequence[str]] = default_argv) -> int:
    """Run the relay to its end and return the exit status. ``argv`` makes the recorder's command line."""
    try:
        settings = Settings.from_file(int(arguments[0]))
        raise_file_limit()
        if not settings.debug:
            forbid_core_dumps()
        return uvloop.run(run(settings, argv=argv))
    except TapError as error:
        say(f"error: {error}")
        for line in error.hint.splitlines():
            say(f"  {line}")
        return error.exit_status


def forbid_core_dumps() -> None:
    """Leave no image of a crash, of this process or of the recorder: it would hold traffic before it is masked."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


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
    ebb = Ebb()
    channel = Channel(settings.record.queue, ebb)
    streams = Streams(channel, Capacity(settings.proxy.max_connections, say=say), ebb)
    files: list[SocketFile] = []
    try:
        settings, listeners, desk = _listeners(settings, streams, files)
        memory.settle()
        return await _relay(settings, channel, streams, listeners, desk, signals, argv)
    finally:
        for file in files:
            file.remove()


def _listeners(
    settings: Settings, streams: Streams, files: list[SocketFile]
) -> tuple[Settings, list[tuple[Listener, list[socket.socket]]], socket.socket]:
    """Take every address, and return the settings with the ports that were got."""
    bound: list[tuple[Listener, list[socket.socket]]] = []
    for proxy in settings.proxies:
        try:
            listener = Listener(proxy, streams)
        except OSError as error:  # ssl.SSLError is one
            raise _unreadable(proxy) from error
        sockets = _bound(proxy.listen, settings, hint=_elsewhere(settings, proxy))
        files += [file for file in map(SocketFile.of, sockets) if file is not None]
        listener.proxy = dataclasses.replace(proxy, listen=_taken(proxy.listen, sockets[0]))
        bound.append((listener, sockets))
    hint = f"try:  mcp-tap {settings.proxy.upstream.url} --admin-listen 127.0.0.1:6290"
    desk, *others = _bound(settings.admin.listen, settings, hint=hint)
    for sock in others:
        sock.close()  # one descriptor is all that the recorder is given
    first, *further = (listener.proxy for listener, _ in bound)
    admin = dataclasses.replace(settings.admin, listen=_taken(settings.admin.listen, desk))
    return dataclasses.replace(settings, proxy=first, others=tuple(further), admin=admin), bound, desk


async def _relay(
    settings: Settings,
    channel: Channel,
    streams: Streams,
    listeners: list[tuple[Listener, list[socket.socket]]],
    desk: socket.socket,
    signals: _Signals,
    argv: Callable[[int, int, int], Sequence[str]],
) -> int:
    """Accept, start the recorder, and stop when that is asked for."""
    for listener, sockets in listeners:
        listener.start(sockets)
    recorder = RecorderProcess(channel, settings, desk, busy=streams.busy, idle=streams.idle, say=say, argv=argv)
    try:
        started = await signals.unless_stopped(recorder.start())
    except TapError:
        streams.abort()  # what came meanwhile must not look complete
        raise
    memory.keep()
    if started:
        for line in notices(settings):
            say(line)
        await signals.stop.wait()
    stop_by = asyncio.get_running_loop().time() + settings.proxy.drain + FLUSH
    for listener, _ in listeners:
        listener.close()
    drained = await signals.unless_hurried(streams.drain(settings.proxy.drain))
    if not drained:
        streams.abort()
    # what the drain did not need of its time the recorder may have: under load it is behind
    left = stop_by - asyncio.get_running_loop().time()
    await recorder.stop(max(FLUSH, left) if drained else FLUSH)
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


def _bound(address: Address, settings: Settings, *, hint: str) -> list[socket.socket]:
    try:
        return listening_sockets(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and address.socket:
            message = f"{address} is already in use"
            hint = f"another process listens on it, or it is no socket at all:  ls -l {address.socket}"
        elif error.errno == errno.EADDRINUSE:
            message = f"port {address.port} is already in use on {address.host}"
            hint = f"it may be another mcp-tap; its web page would be http://{settings.admin.listen}\n{hint}"
        else:
            reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error).lower()
            message = f"cannot listen on {address} ({reason})"
        raise UsageError(message, hint=hint) from error


def _elsewhere(settings: Settings, proxy: Proxy) -> str:
    """Say how to have this listener at another address."""
    free = Address("127.0.0.1", 6290)
    if settings.others:
        return f'try:  listen = "{free}"  for {proxy.name or proxy.upstream.url}'
    return f"try:  mcp-tap {proxy.upstream.url} --listen {free}"


def _unreadable(proxy: Proxy) -> UsageError:
    """Say which of the files with certificates cannot be meant."""
    try:
        listener_tls(proxy)
    except OSError as error:
        names = " and ".join(name for name in (proxy.tls_cert, proxy.tls_key) if name)
        known = isinstance(error, FileNotFoundError | PermissionError) and error.errno
        reason = os.strerror(known).lower() if known else ""
        hint = "tls_cert names a PEM file with a certificate, tls_key one with its key, which is not encrypted"
        return UsageError(f"cannot use the certificate of {names}{f' ({reason})' if reason else ''}", hint=hint)
    return UsageError(f"cannot read the certificates of {proxy.tls_ca}", hint="tls_ca names a PEM file")


def _taken(asked: Address, sock: socket.socket) -> Address:
    """Return the address with the port that it got where it asked for any."""
    return asked if asked.socket else Address(asked.host, sock.getsockname()[1])


def _unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # by its name alone: what an exception says can be traffic
    say(f"debug: {context.get('message')}: {type(context.get('exception')).__name__}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
