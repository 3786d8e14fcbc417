"""The demonstration: a sample server, the tap in front of it, and scripted clients that talk through it.

`main` is the command `mcp-tap demo`. Server and tap run as processes of their own, exactly as they would in earnest;
the clients run here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import httpx

from mcp_tap.config import Admin, parse_address
from mcp_tap.demo.client import Played, play
from mcp_tap.model import UpstreamError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

__all__ = ["Played", "main", "play"]

#: Seconds until the tap has to be ready, and until a process has to end when it is told to. The tap drains
#: for 7 s and flushes for 2.
START_LIMIT: Final = 15.0
STOP_LIMIT: Final = 12.0

PROXY: Final = "127.0.0.1:6278"
ADMIN: Final = "127.0.0.1:6279"


def main(once: bool, store: str | None = None, listen: str | None = None, admin_listen: str | None = None) -> int:
    """Run the demonstration and return the exit status.

    With ``once`` one round is played, everything is stopped and a summary of the recording is printed; else rounds go
    on until SIGINT or SIGTERM. ``store`` is a store URL, by default a fresh SQLite file in a temporary directory;
    ``listen`` and ``admin_listen`` are the tap's addresses, by default its usual ports, or free ones where those
    are taken.
    """
    if store is None:
        store = f"sqlite:///{tempfile.mkdtemp(prefix='mcp-tap-demo-')}/tap.db"
    return asyncio.run(_demonstrate(once, store, _address(listen, PROXY), _address(admin_listen, ADMIN)))


async def _demonstrate(once: bool, store: str, listen: str, admin_listen: str) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if not once:
        click.echo(
            "A sample server, the tap and three sample clients. Ctrl-C ends it.\n\n"
            f"open in a browser:\n  {_desk(admin_listen)}\n\n{_what_to_look_at(store)}"
        )
    async with _sample_server() as upstream:
        options = ["--listen", listen, "--admin-listen", admin_listen, "--store", store, "--format", "text"]
        async with _process("-m", "mcp_tap.cli", upstream, *options) as tap:
            if not await _ready(admin_listen, tap):
                return tap.returncode or 1
            playing = asyncio.ensure_future(play(f"http://{listen}/mcp", once=once))
            interrupted = asyncio.ensure_future(stopped.wait())
            ended = asyncio.ensure_future(tap.wait())
            await asyncio.wait([playing, interrupted, ended], return_when=asyncio.FIRST_COMPLETED)
            if playing.done() and playing.exception():
                await asyncio.wait([ended], timeout=1)  # a tap that ended has said why, and better
                if not ended.done():
                    playing.result()
            for task in (playing, interrupted, ended):
                task.cancel()
            await asyncio.wait([playing, interrupted, ended])
        status = tap.returncode or 0
    if once and status == 0:
        click.echo(f"{_summary(store)}\n\n{_what_to_look_at(store)}")
    return status


@contextlib.asynccontextmanager
async def _process(*arguments: str, stdout: int | None = None) -> AsyncIterator[Process]:
    """Run a Python process in a group of its own, so that Ctrl-C reaches it through us, and stop it at the end."""
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=stdout, start_new_session=True)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT)
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _sample_server() -> AsyncIterator[str]:
    async with _process("-m", "mcp_tap.demo.server", stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None
        port = (await process.stdout.readline()).decode().strip()
        if not port:
            raise UpstreamError("the sample server did not start")
        yield f"http://127.0.0.1:{port}/mcp"


async def _ready(admin: str, tap: Process) -> bool:
    """Wait until the tap's desk answers; False when the tap ended instead, having said why."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_LIMIT), httpx.AsyncClient(trust_env=False, timeout=START_LIMIT) as http:
            while tap.returncode is None:
                try:
                    await http.get(f"http://{admin}/healthz")
                except (httpx.HTTPError, httpx.InvalidURL):
                    await asyncio.sleep(0.05)
                else:
                    return True
    return False


def _address(given: str | None, usual: str) -> str:
    """Return where to listen: what was asked for, else the usual port, else, and for port 0, a free one."""
    if given is not None and not given.endswith(":0"):
        return given
    host, _, port = (given or usual).rpartition(":")
    for wanted in (int(port), 0):
        with contextlib.suppress(OSError), socket.create_server((host.strip("[]"), wanted)) as probe:
            return f"{host}:{probe.getsockname()[1]}"
    return given or usual


def _desk(listen: str) -> str:
    """Return the address of the desk; the tap takes its token from the same environment."""
    token = os.environ.get("MCP_TAP_ADMIN_TOKEN") or os.environ.get("MCP_TAP_TOKEN", "")
    return Admin(parse_address(listen), token).url


def _what_to_look_at(store: str) -> str:
    tap = "mcp-tap" if os.environ.get("VIRTUAL_ENV") else ".venv/bin/mcp-tap"
    query = "select time, type, name, latency_ms, status from events"
    verbs = ("sessions", "session 1", "tools", "errors", "stats", "tail")
    commands = [f"{tap} {verb} --store {shlex.quote(store)}" for verb in verbs]
    if file := _file(store):
        commands.insert(0, f"{tap} open {shlex.quote(str(file))}")
        commands.append(f"sqlite3 {shlex.quote(str(file))} {shlex.quote(query)}")
    return "\n".join(["look at it, now or later:", *(f"  {command}" for command in commands)])


def _file(store: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(store.removeprefix(prefix)).expanduser() if store.startswith(prefix) else None


def _summary(store: str) -> str:
    """Return what the recording holds, read as anybody would read it: with SQLite alone."""
    file = _file(store)
    if file is None:
        return f"recorded in {store}"
    columns = "client_name, client_version, origin, protocol_version, calls, errors, status, end_reason"
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute(f"select {columns} from sessions order by started").fetchall()  # noqa: S608 - our own names
        again = db.execute("select count(*) from events where attempt > 1").fetchone()[0]
    lines = ["", f"recorded in {file}", "", f"{'client':24}{'session by':12}{'revision':12}calls  errors  ended"]
    for client, version, origin, revision, calls, errors, status, reason in rows:
        ended = reason if status == "ended" else status
        lines.append(f"{f'{client} {version}':24}{origin:12}{revision or '':12}{calls:5}{errors:8}  {ended}")
    calls, errors = (sum(row[index] for row in rows) for index in (4, 5))
    return "\n".join([*lines, "", f"{len(rows)} sessions, {calls} calls, {errors} errors, {again} calls made again"])
