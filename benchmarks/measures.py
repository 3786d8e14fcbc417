"""What is done on a route, and the figures that come of it: each measure is a function of a route that is laid.

CPU is in µs for each call (or event): of all processes of the route as ``cpu``, and of each of its parts by name. What
the recorder still does when the load is over is counted, until it has settled. ``missing`` are calls that a client saw
answered and the record has not, ``dropped`` the pieces of traffic that the record says it has not got.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.load import request
from benchmarks.machine import LOAD_CPU, Memory, allow_files, memory, on
from benchmarks.routes import PATIENCE, Route, Server, Way, spawned, wait_until
from benchmarks.upstream import FIRST_ID, SIZE
from tests.sdk.environments import missing, python_of

Figures = dict[str, float]


@contextlib.contextmanager
def cheap_server() -> Iterator[Server]:
    """Run the server that costs next to nothing."""
    with _server([sys.executable, "-m", "benchmarks.upstream"]) as server:
        yield server


@contextlib.contextmanager
def real_server() -> Iterator[Server]:
    """Run the calculator on the official SDK."""
    if why := missing("py2"):
        raise FileNotFoundError(why)
    with _server([str(python_of("py2")), str(Path(__file__).parents[1] / "tests" / "sdk" / "py_server.py")]) as server:
        yield server


@contextlib.contextmanager
def _server(argv: list[str]) -> Iterator[Server]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, text=True, preexec_fn=on(LOAD_CPU), **pipes) as process:
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()), process.pid)
        finally:
            process.terminate()


def client(module: str, *arguments: object) -> dict[str, Any]:
    """Run a client of ours to its end and return what it says."""
    argv = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    output = subprocess.run(argv, check=True, stdout=subprocess.PIPE, preexec_fn=on(LOAD_CPU)).stdout
    said: dict[str, Any] = json.loads(output)
    return said


# ------------------------------------------------------------------------------------------------------- calls


#: Calls whose answer is in the record, and pieces that never got there.
_RECORDED: Final = """
SELECT count(*) FROM events WHERE kind = 'request' AND direction = 'client_to_server'
AND (status = 'succeeded' OR failure_reason = 'tool_error')"""
_DROPPED: Final = "SELECT coalesce(sum(dropped), 0) FROM events WHERE type = 'records_dropped'"


class Spent:
    """CPU time of a route's processes, and what its record holds, from here to the end of a load."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._recorded = self._counted()
        self._cpu = way.cpu_us()

    def figures(self, seen: dict[str, Any], each: str = "calls") -> Figures:
        """Return the figures of a load that has ended, of which a client said what it saw.

        Raises ValueError where it did not get what the server sent: figures of that would mean nothing.
        """
        if seen["errors"]:
            raise ValueError(f"{seen['errors']} answers were missing or wrong {seen.get('said') or ''}".rstrip())
        self._way.settle()
        spent = {name: us - self._cpu[name] for name, us in self._way.cpu_us().items()}
        number = max(1, seen[each])
        figures: Figures = {name: us / number for name, us in spent.items()}
        if self._way.route.command is not None:  # what the server alone costs is nobody's overhead
            figures["cpu"] = sum(spent.values()) / number
        figures |= {name: seen[name] for name in ("p50", "p99", "max") if seen.get(name) is not None}
        if seen.get("seconds"):
            figures["rate"] = seen["calls"] / seen["seconds"]
        if self._way.route.records:
            recorded, dropped = (now - before for now, before in zip(self._counted(), self._recorded, strict=True))
            figures |= {"missing": seen["calls"] - recorded, "dropped": dropped}
        return figures

    def _counted(self) -> tuple[int, int]:
        if not self._way.route.records:
            return 0, 0
        return self._way.rows(_RECORDED)[0][0], self._way.rows(_DROPPED)[0][0]


Measure = Callable[[Way, float], Figures]


def calls(number: int, *, connections: int, path: str = "/mcp", rate: float | None = None, events: int = 0) -> Measure:
    """Measure so many calls, as fast as they are answered or at a rate (calls a second).

    With ``events`` CPU is for each event of the answers, not for each call.
    """

    def measure(way: Way, share: float) -> Figures:
        options: list[object] = ["--connections", connections, "--path", path]
        if rate:
            options += ["--rate", rate]
        client("load", way.port, *options, "--calls", max(connections, number // 20))  # warm
        way.settle()
        spent = Spent(way)
        seen = client("load", way.port, *options, "--calls", max(connections, int(number * share)))
        seen["events"] = seen["calls"] * (events or 1)
        return spent.figures(seen, "events")

    return measure


def sessions(clients: int, seconds: float) -> Measure:
    """Measure clients with sessions for so long."""

    def measure(way: Way, share: float) -> Figures:
        spent = Spent(way)
        return spent.figures(client("clients", way.port, "--clients", clients, "--seconds", seconds * share))

    return measure


def delays(streams: int, events: int, *, large: int = 0, every: float = 0.2) -> Measure:
    """Measure how late events are, one each millisecond on so many streams; CPU is for each event.

    With ``large`` a result of so many bytes passes on another connection meanwhile, every so many seconds.
    """

    def measure(way: Way, share: float) -> Figures:
        options = ["--streams", streams, "--events", int(events * share), "--large", large, "--every", every]
        spent = Spent(way)
        seen = client("streams", "delays", way.port, *options)
        seen["calls"] += seen["large"]
        return spent.figures(seen, "events")

    return measure


def sustained(rate: int, seconds: float) -> Measure:
    """Measure a rate that is held, and compare counts and sums of bytes at client, server and store."""
    store = """
        SELECT count(*), sum(request_bytes), sum(response_bytes) FROM events
        WHERE type = 'tools/call' AND status = 'succeeded'"""

    def measure(way: Way, share: float) -> Figures:
        before, stored_before = _served(way), way.rows(store)[0]
        spent = Spent(way)
        number = int(rate * seconds * share)
        seen = client("load", way.port, "--connections", 64, "--rate", rate, "--calls", number)
        figures = spent.figures(seen)
        figures["behind"] = seen["seconds"] * rate / seen["calls"] - 1  # what it took longer than it should
        server = [now - then for now, then in zip(_served(way), before, strict=True)]
        stored = [now - (then or 0) for now, then in zip(way.rows(store)[0], stored_before, strict=True)]
        mine = [seen["calls"], seen["request_bytes"], seen["response_bytes"]]
        named = zip(("calls", "request bytes", "response bytes"), mine, server, stored, strict=True)
        for name, *three in named:
            figures |= {f"{name} at {where}": n for where, n in zip(("client", "server", "store"), three, strict=True)}
        figures["differences"] = sum(abs(a - b) for end in (server, stored) for a, b in zip(mine, end, strict=True))
        return figures

    return measure


def _served(way: Way) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", way.server.port)
    connection.request("GET", "/count")
    count = json.loads(connection.getresponse().read())
    connection.close()
    return [count["calls"], count["request_bytes"], count["response_bytes"]]


def saturated(number: int) -> Measure:
    """Measure more calls than can be recorded, and account for every one.

    A call is two pieces, its request and its answer. Each is in the record, as a whole call, as a call without its
    answer or as an answer without its call, or it is among the pieces that the record says were dropped.
    """
    pieces = """
        SELECT sum(kind = 'request' AND status = 'succeeded') * 2, sum(kind = 'request' AND status = 'failed'),
               sum(kind = 'http'), sum(iif(type = 'records_dropped', dropped, 0)) FROM events"""

    def measure(way: Way, share: float) -> Figures:
        before = way.rows(pieces)[0] if way.route.records else ()
        spent = Spent(way)
        seen = client("load", way.port, "--connections", 64, "--calls", int(number * share))
        figures = spent.figures(seen)
        if way.route.records:
            whole, halves, answers, dropped = (
                (now or 0) - (then or 0) for now, then in zip(way.rows(pieces)[0], before, strict=True)
            )
            stored = whole + halves + answers
            figures |= {"sent": 2 * seen["calls"], "stored": stored, "dropped": dropped}
            figures["unaccounted"] = abs(2 * seen["calls"] - stored - dropped)
            figures["each"] = figures["cpu"] * seen["calls"] / max(1, whole // 2)
        return figures

    return measure


# ------------------------------------------------------------------------------------------------------- memory

#: Seconds after which memory is at rest: a relay gives it back two seconds after many streams are gone, a recorder when
#: it has had nothing to do for five, which it looks after every five.
RELAY_RESTS: Final = 3.0
RECORDER_RESTS: Final = 12.0

_Sizes = dict[str, Memory]


def idle_streams(number: int, *, twice: bool = False) -> Measure:
    """Measure memory before so many streams are open, with them and after; with ``twice`` after a second time, too.

    In bytes: ``open`` and, of the parts, their names, for each stream (memory shared with nobody); ``before``, ``with``
    and ``after`` as resident memory of all; ``kept`` as the share of what the streams took that was not given back,
    and ``grown`` as the share of it that came on top of that with the second time.
    """

    def measure(way: Way, share: float) -> Figures:
        streams = min(int(number * share), (allow_files() - 100) // 2)  # a proxy has two descriptors for each
        client("load", way.port, "--calls", 1000, "--connections", 8)  # what is made at the first call is no stream's
        way.settle()
        before, during, after = _sizes(way), list[_Sizes](), list[_Sizes]()
        argv = [sys.executable, "-m", "benchmarks.streams", "idle", str(way.port), "--streams", str(streams)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(argv, preexec_fn=on(LOAD_CPU), **pipes) as process:
            for turn in range(2 if twice else 1):
                if turn:
                    _tell(process, "again")
                _until(process, "open")
                during.append(_sizes(way))
                _tell(process, "close")
                _until(process, "closed")
                after.append(_sizes(way))
        taken = {name: during[0][name].uss - size.uss for name, size in before.items()}
        kept = {name: after[-1][name].uss - size.uss for name, size in before.items()}
        grown = {name: after[-1][name].uss - size.uss for name, size in after[0].items()}
        figures: Figures = {name: size / streams for name, size in taken.items()}
        figures |= {f"{name} kept": size / max(1, taken[name]) for name, size in kept.items()}
        for name, sizes in (("open", taken), ("kept", kept), ("grown", grown)):
            figures[name] = sum(sizes.values()) / (streams if name == "open" else max(1, sum(taken.values())))
        for name, of in (("before", before), ("with", during[0]), ("after", after[-1])):
            figures[name] = sum(size.rss for size in of.values())
        return figures | {"streams": streams}

    return measure


def _sizes(way: Way) -> _Sizes:
    """Give processes the time in which they give memory back, and return what they have."""
    time.sleep(RECORDER_RESTS if way.route.records else RELAY_RESTS)
    return {name: memory(pids) for name, pids in way.parts.items()}


def _until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if said != line:
        raise RuntimeError(f"the streams' client said {said!r} where {line!r} was due")


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


# ------------------------------------------------------------------------------------------------------- start-up


def start(route: Route, server: Server) -> Figures:
    """Measure from the start of a program to the first byte that it has passed, in ms, and its memory when idle."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process, place = spawned(route, server.port, Path(folder))
        way = Way(route, place, process, server)
        try:
            while True:
                try:
                    sock = socket.create_connection(("127.0.0.1", place.port), PATIENCE)
                    break
                except ConnectionRefusedError:
                    if time.perf_counter() - began > PATIENCE:
                        raise
                    time.sleep(0.0005)
            with sock:
                sock.sendall(request(FIRST_ID, 1))
                left = SIZE - len(sock.recv(1))
                figures: Figures = {"first byte": (time.perf_counter() - began) * 1000}
                while left > 0 and (data := sock.recv(1 << 16)):
                    left -= len(data)
            if route.records:
                wait_until(lambda: _calls(way), "the record of the first call")
            way.settle()
            sizes = {name: memory(pids).rss for name, pids in way.parts.items()}
            figures |= {f"{name} memory": size for name, size in sizes.items()} | {"memory": sum(sizes.values())}
            if route.records:
                figures["missing"] = 1 - _calls(way)
        finally:
            way.stop()
    return figures


def _calls(way: Way) -> int:
    """Return how many calls are in the record, of which the file may not be there yet."""
    try:
        count: int = way.rows("SELECT count(*) FROM events WHERE type = 'tools/call' AND status = 'succeeded'")[0][0]
    except sqlite3.OperationalError:
        return 0
    return count
