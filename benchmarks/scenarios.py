"""Everything that is measured: one row each in `SCENARIOS`, with what its table shows and how to read it.

The routes of a scenario are laid side by side and measured in turns, A B A B, so that what else the machine does hits
all of them. Ratios are taken within a round.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.measures import (
    Figures,
    Measure,
    calls,
    cheap_server,
    delays,
    idle_streams,
    real_server,
    saturated,
    sessions,
    start,
    sustained,
)
from benchmarks.routes import BARE, DIRECT, HAPROXY, NGINX, PEERS, PLAIN, RELAY, TAP, Route, laid

#: The figures of one round, by the name of the route.
Round = dict[str, Figures]


class Column(NamedTuple):
    """A column of a scenario's table: a figure divided by ``unit``, or its ratio to that of another route."""

    figure: str
    heading: str = ""  # a ratio's says what it is to
    unit: float = 1
    spread: bool = False  # least, median and most instead of the median alone
    against: str | None = None  # the route that a ratio is to


class Scenario(NamedTuple):
    """One row of the table. ``measure`` is of a route that is laid; None is `start`."""

    name: str  # of its file of results, and for --only
    title: str
    text: str  # how to read it
    routes: Sequence[Route]
    columns: Sequence[Column]
    measure: Measure | None
    rounds: int = 5
    real: bool = False  # in front of a server made with the official SDK


CPU: Final = (
    Column("cpu", "CPU µs per call", spread=True),
    Column("cpu", against="nginx"),
    Column("relay", "relay"),
    Column("recorder", "recorder"),
)
RATE: Final = Column("rate", "calls/s")
LATENCY: Final = (
    Column("p50", "p50 µs", spread=True),
    Column("p50", against="direct"),
    Column("p99", "p99 µs"),
    Column("p99", against="nginx"),
)
RECORD: Final = (Column("missing", "calls missing"), Column("dropped", "pieces dropped"))
DELAY: Final = (
    Column("p50", "delay p50 µs", spread=True),
    Column("p50", against="nginx"),
    Column("p99", "p99 µs", spread=True),
    Column("p99", against="nginx"),
    Column("max", "most µs"),
)

REFERENCES: Final = (DIRECT, NGINX, HAPROXY)
VARIANTS: Final = (*REFERENCES, RELAY, BARE, PLAIN, TAP)

MB: Final = 1_000_000
_LOOP: Final = "Each connection sends its next call when it has the answer, {} in a round."
_BURST: Final = (
    f"{_LOOP.format('25,000 calls')} That is more than can be recorded at that pace and less than what may wait, so "
    "the recorder works on after the load, and all of it is counted."
)

SCENARIOS: Final = (
    Scenario(
        "json-1", "JSON answers, 1 connection",
        f"{_LOOP.format('6,000 calls')} At this pace waking up costs more than the work, for everybody.",
        VARIANTS, (*CPU, *LATENCY, *RECORD), calls(6_000, connections=1),
    ),
    Scenario(
        "json-8", "JSON answers, 8 connections", _LOOP.format("15,000 calls"),
        VARIANTS, (*CPU, RATE, *LATENCY, *RECORD), calls(15_000, connections=8), 3,
    ),
    Scenario(
        "json-64", "JSON answers, 64 connections", _BURST,
        VARIANTS, (*CPU, RATE, *LATENCY, *RECORD), calls(25_000, connections=64),
    ),
    Scenario(
        "sse-1", "Answers as an event stream, 1 connection",
        "A progress event and the answer, each call a stream of its own: 6,000 calls in a round.",
        VARIANTS, (*CPU, *LATENCY, *RECORD), calls(6_000, connections=1, path="/mcp/sse/1"), 3,
    ),
    Scenario(
        "sse-64", "Answers as an event stream, 64 connections", "The same, 20,000 calls in a round.",
        VARIANTS, (*CPU, RATE, *LATENCY, *RECORD), calls(20_000, connections=64, path="/mcp/sse/1"), 3,
    ),
    Scenario(
        "rate", "400 calls/s over 64 connections",
        "A fixed rate, far below what anybody can do: what a client waits for is waking up.",
        (*REFERENCES, TAP), (*CPU, *LATENCY, *RECORD), calls(1_600, connections=64, rate=400),
    ),
    Scenario(
        "result-1MB", "Results of 1 MB",
        "Rows of JSON and the same as text, 40 a second. A body is cut at 64 kB in the record, never in the traffic. "
        "nginx reads without buffering, as it has to for event streams.",
        (*REFERENCES, RELAY, TAP), (*CPU, *LATENCY, *RECORD),
        calls(60, connections=1, rate=40, path=f"/mcp/json/{MB}"),
    ),
    Scenario(
        "result-10MB", "Results of 10 MB",
        "The same, 4 a second. Bodies beyond 8 MB are recorded by size, time and status alone, and no more than 8 MB "
        "of a stream wait for a recorder that is busy: it may have only parts of these, and says so.",
        (*REFERENCES, RELAY, TAP), (*CPU, *LATENCY, *RECORD),
        calls(10, connections=1, rate=4, path=f"/mcp/json/{10 * MB}"), 3,
    ),
    Scenario(
        "sse-paced", "16 event streams, an event of 300 bytes each millisecond",
        "Every event carries the time at which it was sent; the delay is until its client has all of it. CPU is for "
        "each event.",
        (*REFERENCES, RELAY, TAP),
        (Column("cpu", "CPU µs per event", spread=True), *CPU[1:], *DELAY, Column("dropped", "pieces dropped")),
        delays(16, 3_000),
    ),
    Scenario(
        "sse-burst", "Event streams of 2,000 events at once",
        "8 connections, 24 calls in a round, every event of 300 bytes; CPU is for each event.",
        (*REFERENCES, RELAY, TAP), (Column("cpu", "CPU µs per event", spread=True), *CPU[1:], *RECORD),
        calls(24, connections=8, path="/mcp/sse/2000", events=2_000), 3,
    ),
    Scenario(
        "beside-1MB", "An event stream beside results of 1 MB",
        "One stream with an event each millisecond, while a result passes on another connection five times a second: "
        "how late its events are. The server and both clients share a core, so there are delays without any proxy.",
        (*REFERENCES, RELAY, TAP), DELAY, delays(1, 2_500, large=MB), 3,
    ),
    Scenario(
        "beside-10MB", "An event stream beside results of 10 MB", "The same, with a large result twice a second.",
        (*REFERENCES, RELAY, TAP), DELAY, delays(1, 2_500, large=10 * MB, every=0.5), 3,
    ),
    Scenario(
        "idle-1000", "1,000 open streams on which nothing happens",
        "Memory that belongs to nobody else (USS) for each stream, and resident memory of all processes before, with "
        "and after them.",
        (NGINX, HAPROXY, RELAY, TAP),
        (
            Column("open", "kB per stream", 1000), Column("relay", "relay", 1000), Column("recorder", "recorder", 1000),
            Column("before", "MB before", MB), Column("with", "MB with", MB), Column("after", "MB after", MB),
        ),
        idle_streams(1_000), 1,
    ),
    Scenario(
        "idle-10000", "10,000 streams opened and closed, twice",
        "The same, and how much of what the streams took is kept when all are closed for the second time and their "
        "sessions have ended.",
        (TAP,),
        (
            Column("streams", "streams"), Column("open", "kB per stream", 1000), Column("relay", "relay", 1000),
            Column("recorder", "recorder", 1000), Column("before", "MB before", MB), Column("with", "MB with", MB),
            Column("after", "MB after", MB), Column("kept", "kept %", 0.01), Column("relay kept", "relay %", 0.01),
            Column("recorder kept", "recorder %", 0.01), Column("grown", "of it the second time %", 0.01),
        ),
        idle_streams(10_000, twice=True), 1,
    ),
    Scenario(
        "real-1", "A server made with the official SDK, 1 client",
        "Sessions with unique ids on the calculator of the Python SDK: `initialize`, `tools/list`, 40 calls that add, "
        "one that fails, one that tells its progress, `DELETE`. The server alone costs more than passing bytes.",
        (DIRECT, NGINX, TAP, *PEERS), (*CPU[:1], Column("cpu", against="tap"), RATE, *LATENCY[:3], *RECORD),
        sessions(1, 2.0), 3, real=True,
    ),
    Scenario(
        "real-8", "A server made with the official SDK, 8 clients", "The same with eight sessions at a time.",
        (DIRECT, NGINX, TAP, *PEERS), (*CPU[:1], Column("cpu", against="tap"), RATE, *LATENCY[:3], *RECORD),
        sessions(8, 2.0), 3, real=True,
    ),
    Scenario(
        "sustained", "5,000 calls/s for a minute",
        "64 connections; client, server and tap on two cores. Counts, and the sums of bytes of bodies, are compared at "
        "the client, at the server and in the store.",
        (TAP,),
        (
            CPU[0], *CPU[2:], RATE, *LATENCY[:1], LATENCY[2],
            *(Column(f"calls at {where}", f"calls at {where}") for where in ("client", "server", "store")),
            Column("differences", "differences"), *RECORD,
        ),
        sustained(5_000, 60), 1,
    ),
    Scenario(
        "saturated", "Beyond saturation",
        "200,000 calls as fast as they are answered, which nobody can record on the same core: the relay goes first, "
        "and what the recorder does not get is counted. A call is two pieces, its request and its answer; CPU is given "
        "for each call that passed and for each that is whole in the record.",
        (NGINX, TAP),
        (
            CPU[0], Column("each", "per recorded call"), *CPU[2:], RATE, Column("sent", "pieces sent"),
            Column("stored", "stored"), Column("dropped", "dropped"), Column("unaccounted", "unaccounted"),
        ),
        saturated(200_000), 2,
    ),
    Scenario(
        "start", "Start-up, and memory of an idle process",
        "From the start of the program to the first byte that it has passed on. The call that was made then has to be "
        "in the record; memory is resident, with a call passed and everything at rest.",
        (NGINX, HAPROXY, TAP),
        (
            Column("first byte", "first byte after ms", spread=True), Column("memory", "memory MB", MB),
            Column("relay memory", "relay", MB), Column("recorder memory", "recorder", MB),
            Column("missing", "calls missing"),
        ),
        None,
    ),
)  # fmt: skip


class Effort(NamedTuple):
    """How much is done: all rounds with all calls, or a share of both."""

    rounds: int | None = None
    share: float = 1.0


class Outcome(NamedTuple):
    """What came of a scenario: routes are left out because their program is missing, or because something failed."""

    rounds: list[Round]
    absent: list[str]
    failed: dict[str, str]  # name of the route -> why


def run(scenario: Scenario, effort: Effort) -> Outcome:
    """Measure a scenario."""
    outcome = Outcome([], [], {})
    with (real_server if scenario.real else cheap_server)() as server, contextlib.ExitStack() as stack:
        measures: dict[str, Callable[[], Figures]] = {}
        for route in scenario.routes:
            if route.program() is None:
                if route.records:  # without the tap nothing is measured that matters
                    outcome.failed[route.name] = "is not installed"
                else:
                    outcome.absent.append(route.name)
            elif scenario.measure is None:
                measures[route.name] = partial(start, route, server)
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                with _failing(outcome, route.name):
                    way = stack.enter_context(laid(route, server, folder))
                    measures[route.name] = partial(scenario.measure, way, effort.share)
        for _ in range(min(scenario.rounds, effort.rounds or scenario.rounds)):
            one: Round = {}
            for name, measure in measures.items():
                if name not in outcome.failed:
                    with _failing(outcome, name):
                        one[name] = measure()
            outcome.rounds.append(one)
    for one in outcome.rounds:
        for name in outcome.failed:
            one.pop(name, None)
    return outcome


@contextlib.contextmanager
def _failing(outcome: Outcome, name: str) -> Iterator[None]:
    """Leave a route out that fails here, whatever the reason: the others are measured all the same."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        outcome.failed[name] = f"{error}" or repr(error)
