"""The wiring: how the two processes come about, and everything the recorder process is made of.

The relay starts ``python -m mcp_tap.app CHANNEL_FD SETTINGS_FD DESK_FD`` as its recorder. `serve_file` is the desk
alone, on a recording that is there already.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Final

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mcp_tap import __version__
from mcp_tap.api import errors, health, routes, safety
from mcp_tap.api.desk import Desk, Recording
from mcp_tap.api.heads import BoundedHeads
from mcp_tap.api.reopening import open_reopening
from mcp_tap.channel import HURRY, MOVED, Kind, encode, encode_json
from mcp_tap.config import Address, Proxy, Settings
from mcp_tap.model import Batch, ConnectionStatus, Direction, Status, StoreError, TapError, UsageError, hash_session_id
from mcp_tap.model import Kind as EventKind
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.revisions import LASTING
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.recorder import Recorder
from mcp_tap.relay import memory
from mcp_tap.relay.sockets import listening_sockets
from mcp_tap.store import Reader, Writer, open_writer
from mcp_tap.store.rows import event_row, session_row
from mcp_tap.store.sqlite.file import location
from mcp_tap.ui import logs, pages
from mcp_tap.ui.terminal import Live, wants_color
from mcp_tap.ui.text import counted, duration
from mcp_tap.ui.web import refuse

#: A connection idle for longer than this is not continued after a restart, and so many at most are.
CONTINUED_US: Final = 24 * 3600 * 1_000_000
MAX_CONTINUED: Final = 10_000

#: Objects made and not yet gone before Python looks for cycles among them. Rows wait for their batch by the thousand
#: and are in no cycle: with the default of 700 the search took a twentieth of the recorder's time under load.
COLLECT_AFTER: Final = 50_000

#: Seconds that the start-up lines wait for a server to answer.
FIRST_LOOK: Final = 0.5

#: Seconds between two looks at whether the recorder is at rest, the share of a core that it uses at most then (idle it
#: is 0.002), and the seconds of a core that have to have gone by since the last rest for another to be worth it.
REST_EVERY: Final = 5.0
AT_REST: Final = 0.02
WORTH_A_REST: Final = 0.5
#: Connections that were forgotten between two looks, which is another reason: each takes some kB.
WORTH_FORGETTING: Final = 100

#: Calls whose latencies the status line's p95 is of.
RECENT_CALLS: Final = 500


def main(arguments: Sequence[str]) -> int:
    """Be the recorder process, started by the relay with the numbers of three inherited descriptors."""
    # the relay owns the signals: this process ends when the channel does, with everything written
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(HURRY, signal.SIG_IGN)
    memory.keep()
    channel_fd, settings_fd, desk_fd = (int(argument) for argument in arguments)
    settings = Settings.from_file(settings_fd)
    logs.to_stderr(logging.DEBUG if settings.debug else logging.WARNING)
    for name in ("aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    channel = socket.socket(fileno=channel_fd)
    channel.setblocking(False)
    gc.freeze()  # what was imported stays
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    return uvloop.run(_record(settings, channel, socket.socket(fileno=desk_fd)))


async def _record(settings: Settings, channel: socket.socket, desk_socket: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    try:
        writer = await open_writer(settings.record.store)
        redactor = Redactor(settings.redact, bodies=settings.record.bodies, max_body=settings.record.max_body)
    except TapError as error:
        refusal = {"error": str(error), "hint": error.hint, "exit": error.exit_status}
        channel.sendall(encode_json(0, Kind.REFUSED, time.monotonic_ns(), refusal))
        return error.exit_status
    tracker = Tracker(
        redactor,
        idle_us=int(settings.record.session_idle * 1_000_000),
        session_word=_session_word(settings, writer.session_key),
        trusted=settings.proxy.trusted if settings.proxy.client_address == "x-forwarded-for" else None,
    )
    await _continue(tracker, writer, settings)
    window = _Window(settings, writer.replica)
    keep = settings.record.keep
    keep_us = None if keep is None else int(keep * 1_000_000)
    recorder = Recorder(
        tracker,
        writer,
        written=window.show,
        notice=window.live.notice,
        keep_us=keep_us,
        max_size=settings.record.max_size,
        cut_us=writer.cut_us,
    )
    reader = await _reader(settings)
    desk = _desk(settings, reader, recorder)
    server = _Server(application(desk))
    serving = asyncio.create_task(server.serve(sockets=[desk_socket]))
    await loop.create_connection(lambda: recorder, sock=channel)
    loop.add_signal_handler(HURRY, recorder.hurry)
    recorder.say(encode(0, Kind.READY, time.monotonic_ns()))
    watching = asyncio.create_task(_watch(settings, window, recorder, reader))
    resting = asyncio.create_task(_rest(reader, tracker))
    try:
        await recorder.run()
    finally:
        watching.cancel()
        resting.cancel()
        desk.ending.set()
        server.should_exit = True
        await asyncio.wait([serving, watching], timeout=1.5)
        if recorder.spool.moved.is_set():
            await writer.leave()
            window.live.close()
            os._exit(MOVED)  # closing a connection would delete files by names that may be another recording's now
        await reader.close()
        await writer.close()
        window.live.close()
    return 0


def serve_file(settings: Settings) -> int:
    """Be the desk of the recording that the settings name, with no proxy, until SIGINT or SIGTERM; return 0.

    Raises UsageError where the address is taken, StoreError where the recording cannot be read. Another process may
    write the recording meanwhile: the pages follow it.
    """
    logs.to_stderr(logging.DEBUG if settings.debug else logging.WARNING)
    return uvloop.run(_serve_file(settings))


async def _serve_file(settings: Settings) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    reader = await _reader(settings)
    try:
        sockets = _desk_sockets(settings.admin.listen)
        admin = replace(settings.admin, listen=Address(settings.admin.listen.host, sockets[0].getsockname()[1]))
        desk = _desk(replace(settings, admin=admin), reader)
        server = _Server(application(desk))
        serving = asyncio.create_task(server.serve(sockets=sockets))
        store = settings.record.store.removeprefix("sqlite:///")
        print(f"\n  mcp-tap {__version__}\n  desk     {admin.url}\n  record   {store}\n", file=sys.stderr)  # noqa: T201
        await asyncio.wait([serving, asyncio.ensure_future(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        desk.ending.set()
        server.should_exit = True
        await serving
    finally:
        await reader.close()
    return 0


def _desk_sockets(address: Address) -> list[socket.socket]:
    try:
        return listening_sockets(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {address.port} is already in use on {address.host}"
            hint = f"it may be another mcp-tap; its web page would be http://{address}\n"
        else:
            message, hint = f"cannot listen on {address} ({str(error.strerror or error).lower()})", ""
        raise UsageError(message, hint=f"{hint}try:  --admin-listen 127.0.0.1:6290") from error


async def _reader(settings: Settings) -> Reader:
    return await open_reopening(settings.record.store, str(location(settings.record.store)))


def application(desk: Desk) -> ASGIApp:
    """Return the whole desk: probes, API, pages, and what these load, behind its guard."""
    static = Mount("/static", StaticFiles(packages=[("mcp_tap.ui", "static")]), name="static", middleware=routes.PACKED)

    def refused(request: Request, error: TapError) -> Response:
        return refuse(desk, request, error)

    routed = Starlette(
        routes=[*health.routes(desk), *routes.routes(desk), *pages.routes(desk), static],
        exception_handlers=errors.handlers(refused),
    )
    return safety.Guard(routed, desk)


def _desk(settings: Settings, reader: Reader, recorder: Recorder | None = None) -> Desk:
    """Return what the routes know; without a recorder it is a file that is looked at."""

    def recording() -> Recording:
        if recorder is None:
            return Recording(on=False)
        spool = recorder.spool
        return Recording(True, spool.failing, recorder.dropped, spool.lost, recorder.streams, recorder.overhead_us)

    return Desk(
        reader=reader,
        recording=recording,
        proxies=() if recorder is None else settings.proxies,
        reach=None if recorder is None else _reach,
        token=settings.admin.token,
        hosts=(*settings.admin.hosts, settings.admin.listen.host),
        keep=_in_words(settings.record.keep),
    )


def _in_words(keep: float | None) -> str:
    if keep is None:
        return "for ever"
    return duration(keep * 1000) if keep % 86400 else counted(int(keep // 86400), "day")


def _session_word(settings: Settings, key: bytes) -> Callable[[str], str]:
    if settings.redact.session_id == "hash":
        return lambda raw: hash_session_id(raw, key)
    return str


async def _continue(tracker: Tracker, writer: Writer, settings: Settings) -> None:
    """Take up the connections of an earlier run that a client may still use."""
    now_us = time.time_ns() // 1000
    await writer.end_idle(now_us - int(settings.record.session_idle * 1_000_000))
    tracker.connections.restore(await writer.recent(now_us - CONTINUED_US, MAX_CONTINUED))


async def _reach(proxy: Proxy) -> str:
    """Connect to a server once and say in words how that went. It is sent nothing."""
    began = time.perf_counter()
    upstream = proxy.upstream
    try:
        async with asyncio.timeout(proxy.connect_timeout):
            if upstream.socket:
                _, writer = await asyncio.open_unix_connection(upstream.socket)
            else:
                _, writer = await asyncio.open_connection(upstream.host, upstream.port)
    except TimeoutError:
        return "does not answer (timed out)"
    except OSError as error:
        return f"does not answer ({(os.strerror(error.errno) if error.errno else str(error)).lower()})"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return f"connected in {(time.perf_counter() - began) * 1000:.0f} ms"


async def _watch(settings: Settings, window: _Window, recorder: Recorder, reader: Reader) -> None:
    """Say what runs where, and keep the status line."""
    reaching = [asyncio.ensure_future(_reach(proxy)) for proxy in settings.proxies]
    await asyncio.wait(reaching, timeout=FIRST_LOOK)
    notes = [reached.result() if reached.done() else "has not answered yet" for reached in reaching]
    window.live.banner(settings, version=__version__, upstream_notes=notes, summary=await reader.summary())
    warned = 0
    while True:
        while warned < len(reaching) and reaching[warned].done():
            note = reaching[warned].result()
            if not note.startswith("connected"):
                window.live.notice(f"warning: {settings.proxies[warned].upstream.url} {note}; waiting for it")
            warned += 1
        window.status(recorder)
        await asyncio.sleep(0.25)


async def _rest(reader: Reader, tracker: Tracker) -> None:
    """Give memory back whenever a busy time is over: neither Python nor the C library does so by itself."""
    used = rested = 0.0
    times = remembered = 0
    while True:
        await asyncio.sleep(REST_EVERY)
        before, used = used, time.process_time()
        if used - before > AT_REST * REST_EVERY:
            continue
        forgotten = remembered - len(tracker.connections)  # long after they were busy
        if used - rested >= WORTH_A_REST or forgotten >= WORTH_FORGETTING:
            rested, times = used, 2  # the writer lets go of its pages a little later than readers do
        remembered = len(tracker.connections)
        if times:
            times -= 1
            with contextlib.suppress(StoreError):
                await reader.rest()
            tracker.heads.forget()
            memory.give_back()


class _Window:
    """The live view: what was written, as rows of the views `events` and `sessions`."""

    def __init__(self, settings: Settings, replica: str) -> None:
        color = wants_color(sys.stdout, os.environ)
        self.live = Live(sys.stdout, sys.stderr, format=settings.format, color=color)
        self._off = settings.format == "none"
        self._replica = replica
        self._sessions = 0  # that were seen; one that goes on after its end counts again
        self._newest = 0  # number of the last one
        self._active: set[str] = set()
        self._calls = 0
        self._errors = 0
        self._latencies: deque[int] = deque(maxlen=RECENT_CALLS)

    def show(self, batch: Batch) -> None:
        """Show a batch that was written."""
        if self._off:
            return
        pairs = []
        for event in sorted(batch.events, key=lambda event: (event.at_us, event.seq)):
            lifecycle = event.kind is EventKind.LIFECYCLE
            session = session_row(event.connection) if lifecycle and event.connection is not None else None
            pairs.append((event_row(event, self._replica), session))
            call = event.kind is EventKind.REQUEST and event.direction is Direction.TO_SERVER
            if call and event.status is not Status.WAITING:
                self._calls += 1
                self._errors += event.status is Status.FAILED
                if event.type not in LASTING:
                    self._latencies.append(event.duration_us or 0)
        newest = self._newest
        for connection in batch.connections:
            active = connection.status is ConnectionStatus.ACTIVE
            self._sessions += connection.pk > newest or (active and connection.id not in self._active)
            self._newest = max(self._newest, connection.pk)
            (self._active.add if active else self._active.discard)(connection.id)
        self.live.show(pairs)

    def status(self, recorder: Recorder) -> None:
        """Renew the status line."""
        latencies = sorted(self._latencies)
        self.live.status(
            sessions=self._sessions,
            active=len(self._active),
            calls=self._calls,
            errors=self._errors,
            p95_ms=latencies[int(len(latencies) * 0.95)] / 1000 if len(latencies) >= 20 else None,
            dropped=recorder.dropped + recorder.spool.lost,
            overhead_ms=None if recorder.overhead_us is None else recorder.overhead_us / 1000,
        )


def _unless_let_go(record: logging.LogRecord) -> bool:
    """Pass over uvicorn's complaints about what was let go on purpose.

    A live stream whose reader took no more, and questions that are still open when the desk ends.
    """
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    return not any(words in record.msg for words in ("without completing response", "graceful shutdown exceeded"))


class _Server(uvicorn.Server):
    """uvicorn without its own ideas about signals: the relay owns them."""

    def __init__(self, application: ASGIApp) -> None:
        log = logging.getLogger("uvicorn.error")
        log.setLevel(logging.ERROR)  # that a peer speaks no HTTP is its own affair, and nobody's news
        log.addFilter(_unless_let_go)
        super().__init__(
            uvicorn.Config(
                application,
                http=BoundedHeads,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
