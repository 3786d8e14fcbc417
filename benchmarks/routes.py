"""Ways from a client to a server: straight, or through one of these. One row each in `ROUTES`."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import programs
from benchmarks.machine import TESTED_CPU, children, cpu_us, family, free_port, on

ROOT: Final = Path(__file__).resolve().parents[1]

#: Seconds that a program may take to listen, and to end.
PATIENCE: Final = 30.0

#: A recorder that used less than so many µs of CPU in so many seconds, this often in a row, has written everything.
QUIET_US: Final = 8_000
QUIET_SECONDS: Final = 0.25
QUIET_TIMES: Final = 3


class Server(NamedTuple):
    """A server that runs: its port on this machine, and its process."""

    port: int
    pid: int


class Place(NamedTuple):
    """Where a route is laid: it listens on ``port`` and leads to the server on ``upstream``, both on this machine."""

    port: int
    upstream: int
    folder: Path  # for what it writes

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self.upstream}/mcp"


class Route(NamedTuple):
    """One row of the table. ``parts`` are the processes that are measured, as `Way.parts` names them."""

    name: str
    program: Callable[[], str | None]  # what it needs; None where that is missing
    command: Callable[[str, Place], list[str]] | None  # None where nothing stands between
    parts: tuple[str, ...] = ("proxy",)

    @property
    def records(self) -> bool:
        """Whether it keeps a record of what passes."""
        return "recorder" in self.parts


class Way:
    """A route that is laid."""

    def __init__(self, route: Route, place: Place, process: subprocess.Popen[bytes] | None, server: Server) -> None:
        self.route = route
        self.port = place.port
        self.server = server
        self.store = place.folder / f"{place.port}.db"
        self._process = process

    @property
    def parts(self) -> dict[str, list[int]]:
        """The processes under test: relay and recorder of the tap, all that a proxy has started, else the server."""
        if self._process is None:
            return {"server": [self.server.pid]}
        if self.route.parts == ("proxy",):
            return {"proxy": family(self._process.pid)}
        parts = {"relay": [self._process.pid]}
        return parts | {"recorder": children(self._process.pid)} if self.route.records else parts

    def cpu_us(self) -> dict[str, float]:
        """Return the CPU time of each part so far, in µs."""
        return {name: cpu_us(pids) for name, pids in self.parts.items()}

    def settle(self) -> None:
        """Wait until the recorder has written what it was given: its CPU belongs to what was measured."""
        if not self.route.records:
            return
        quiet, deadline, last = 0, time.monotonic() + 2 * PATIENCE, cpu_us(self.parts["recorder"])
        while quiet < QUIET_TIMES and time.monotonic() < deadline:
            time.sleep(QUIET_SECONDS)
            now = cpu_us(self.parts["recorder"])
            quiet = quiet + 1 if now - last < QUIET_US else 0
            last = now

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query on what was recorded."""
        with contextlib.closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as db:
            return db.execute(query, values).fetchall()

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        pids = family(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in pids[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)  # a proxy's own child that has outlived it


@contextlib.contextmanager
def laid(route: Route, server: Server, folder: Path) -> Iterator[Way]:
    """Lay a route to a server, and stop it at the end."""
    process, place = None, Place(server.port, server.port, folder)
    if route.command is not None:
        process, place = spawned(route, server.port, folder)
    way = Way(route, place, process, server)
    try:
        wait_for(place.port)
        if route.records:
            wait_until(lambda: way.parts["recorder"] and way.store.exists(), f"the recorder of {route.name}")
            way.settle()
        yield way
    finally:
        way.stop()


def spawned(route: Route, upstream: int, folder: Path) -> tuple[subprocess.Popen[bytes], Place]:
    """Start the program of a route and return at once."""
    program = route.program()
    assert program is not None, f"{route.name} is not installed"
    assert route.command is not None
    place = Place(free_port(), upstream, folder)
    # what the user's settings are must make no difference here
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MCP_TAP_")}
    environment |= {"XDG_CONFIG_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    if program.startswith(str(programs.CACHE)):
        del environment["PYTHONPATH"]
    process = subprocess.Popen(
        route.command(program, place),
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=on(TESTED_CPU),
    )
    return process, place


def wait_for(port: int) -> None:
    """Wait until something accepts on a port."""

    def accepts() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    wait_until(accepts, f"port {port}")


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until something is the case; raises TimeoutError where it never is."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} does not come up")
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------- commands


def tap(bodies: str = "redacted", *, desk: int = 0) -> Callable[[str, Place], list[str]]:
    """Return what makes the tap's command; its desk is on any port unless one is given."""

    def command(python: str, place: Place) -> list[str]:
        listen = ["--listen", f"127.0.0.1:{place.port}", "--admin-listen", f"127.0.0.1:{desk}"]
        store = ["--store", f"sqlite:///{place.folder}/{place.port}.db"]
        # no live view: it goes to a terminal that somebody looks at
        return [python, "-m", "mcp_tap.cli", "run", place.url, *listen, *store, "--bodies", bodies, "--format", "none"]

    return command


def _not_recording(python: str, place: Place) -> list[str]:
    return [python, "-m", "benchmarks.sink", str(place.port), str(place.upstream)]


NGINX_CONF: Final = """
worker_processes 1; daemon off; pid {folder}/nginx-{port}.pid; error_log /dev/null; worker_rlimit_nofile 32768;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 1h; server_tokens off; client_max_body_size 64m;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream server {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""

HAPROXY_CONF: Final = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend servers
backend servers
  server one 127.0.0.1:{upstream}
"""


def _configured(text: str, place: Place, name: str) -> str:
    file = place.folder / f"{name}-{place.port}.conf"
    file.write_text(text.format(**place._asdict()))
    return str(file)


def _nginx(program: str, place: Place) -> list[str]:
    return [program, "-p", str(place.folder), "-c", _configured(NGINX_CONF, place, "nginx")]


def _haproxy(program: str, place: Place) -> list[str]:
    return [program, "-db", "-q", "-f", _configured(HAPROXY_CONF, place, "haproxy")]


def _mitmproxy(program: str, place: Place) -> list[str]:
    mode = ["--mode", f"reverse:http://127.0.0.1:{place.upstream}"]
    return [program, "-q", *mode, "--listen-host", "127.0.0.1", "-p", str(place.port), "--set", "flow_detail=0"]


#: FastMCP's proxy makes a session with the server for every request, unless it is given a client that has one.
FASTMCP: Final = """
import asyncio, sys
from fastmcp import Client
from fastmcp.server import create_proxy

async def main(url, port, shared):
    options = {"host": "127.0.0.1", "port": int(port), "path": "/mcp", "show_banner": False, "log_level": "error"}
    if not shared:
        return await create_proxy(url).run_http_async(**options)
    async with Client(url) as client:
        await create_proxy(client).run_http_async(**options)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "shared"))
"""


def _fastmcp(how: str) -> Callable[[str, Place], list[str]]:
    return lambda python, place: [python, "-c", FASTMCP, place.url, str(place.port), how]


def _mcp_proxy(program: str, place: Place) -> list[str]:
    # it stands in front of servers on stdio, so a second one of its kind makes one of the server behind
    inner = [program, "--transport", "streamablehttp", place.url]
    return [program, "--host", "127.0.0.1", "--port", str(place.port), "--", *inner]


def _named(command: str, place: Place) -> list[str]:
    return [word.format(port=place.port, url=place.url) for word in shlex.split(command)]


def _python() -> str:
    return sys.executable


DIRECT: Final = Route("direct", _python, None, ("server",))
NGINX: Final = Route("nginx", partial(programs.package, "nginx"), _nginx)
HAPROXY: Final = Route("haproxy", partial(programs.package, "haproxy"), _haproxy)
RELAY: Final = Route("tap, not recording", _python, _not_recording, ("relay",))
BARE: Final = Route("tap, without bodies", programs.tap, tap("none"), ("relay", "recorder"))
PLAIN: Final = Route("tap, not compiled", _python, tap(), ("relay", "recorder"))
TAP: Final = Route("tap", programs.tap, tap(), ("relay", "recorder"))
PEERS: Final = (
    Route("mitmproxy", partial(programs.pinned, "mitmproxy"), _mitmproxy),
    Route("FastMCP's proxy", partial(programs.pinned, "fastmcp"), _fastmcp("each")),
    Route("FastMCP's proxy, one client", partial(programs.pinned, "fastmcp"), _fastmcp("shared")),
    Route("mcp-proxy", partial(programs.pinned, "mcp-proxy"), _mcp_proxy),
    *(Route(name, partial(programs.command, name), _named) for name in programs.NAMED),
)
ROUTES: Final = (DIRECT, NGINX, HAPROXY, RELAY, BARE, PLAIN, TAP, *PEERS)
