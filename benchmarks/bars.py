"""What the tap may cost, as ratios and differences within a round: one row each in `BARS`."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from benchmarks.routes import NGINX, PEERS, TAP
from benchmarks.scenarios import MB, Round

#: Figures of one round to the figure of a bar; None where a route that it needs was left out.
Figure = Callable[[Round], float | None]


class Bar(NamedTuple):
    """One row of the table: the median of ``figure`` over the rounds of a scenario may be ``limit`` at most."""

    what: str
    figure_is: str  # what is compared
    scenario: str
    figure: Figure
    limit: float
    unit: str  # behind the figure and the limit
    floor: str = ""  # where it does not hold: what is known about why, and how low it can get


class Verdict(NamedTuple):
    """How a bar came out; without a figure it was not measured."""

    bar: Bar
    figure: float | None

    @property
    def holds(self) -> bool:
        """Whether the figure is within the limit."""
        return self.figure is not None and self.figure <= self.bar.limit


def _of(name: str, of: str = TAP.name, *, unit: float = 1) -> Figure:
    def figure(one: Round) -> float | None:
        found = one.get(of, {}).get(name)
        return None if found is None else found / unit

    return figure


def _ratio(name: str, to: str = "cpu", of: str = NGINX.name) -> Figure:
    def figure(one: Round) -> float | None:
        mine, theirs = one.get(TAP.name, {}).get(name), one.get(of, {}).get(to)
        return mine / theirs if mine is not None and theirs else None

    return figure


def _more(name: str) -> Figure:
    def figure(one: Round) -> float | None:
        mine, theirs = one.get(TAP.name, {}).get(name), one.get(NGINX.name, {}).get(name)
        return None if mine is None or theirs is None else mine - theirs

    return figure


_TIMES: Final = "× nginx"  # noqa: RUF001
_KB: Final = 1000

_LATEST: Final = (
    "The latest of thousands of events is late without any proxy, too, on two cores that server, clients and proxy "
    "share: compare it with the first rows of the table, and see the 99th percentile there. The relay passes 256 kB in "
    "a turn."
)

BARS: Final = (
    Bar("CPU per call, 64 connections: relay", "relay to nginx", "json-64", _ratio("relay"), 2.0, _TIMES),
    Bar("CPU per call, 64 connections: both", "relay and recorder to nginx", "json-64", _ratio("cpu"), 4.0, _TIMES),
    Bar("CPU per call, 1 connection: relay", "relay to nginx", "json-1", _ratio("relay"), 1.4, _TIMES),
    Bar("CPU per call, 1 connection: both", "relay and recorder to nginx", "json-1", _ratio("cpu"), 2.0, _TIMES),
    Bar("added p50 latency, 1 connection", "beyond what nginx adds", "json-1", _more("p50"), 20, "µs"),
    Bar("p99 latency, 400 calls/s", "to nginx's", "rate", _ratio("p99", "p99"), 1.5, _TIMES),
    Bar("16 paced event streams: CPU of both", "relay and recorder to nginx", "sse-paced", _ratio("cpu"), 3.0, _TIMES),
    Bar("16 paced event streams: delay p50", "to nginx's", "sse-paced", _ratio("p50", "p50"), 1.1, _TIMES),
    Bar("16 paced event streams: delay p99", "to nginx's", "sse-paced", _ratio("p99", "p99"), 2.0, _TIMES),
    Bar("1 MB result: CPU of the relay", "relay to nginx", "result-1MB", _ratio("relay"), 1.5, _TIMES),
    Bar("1 MB result: CPU of both", "relay and recorder to nginx", "result-1MB", _ratio("cpu"), 6.0, _TIMES),
    Bar(
        "another stream beside 1 MB results", "the latest event", "beside-1MB", _of("max", unit=1000), 2.0, "ms",
        _LATEST,
    ),
    Bar(
        "another stream beside 10 MB results", "the latest event", "beside-10MB", _of("max", unit=1000), 2.0, "ms",
        _LATEST,
    ),
    Bar("memory per idle stream: relay", "USS, 1,000 open", "idle-1000", _of("relay", unit=_KB), 6.0, "kB"),
    Bar("memory per idle stream: both", "USS, 1,000 open", "idle-1000", _of("open", unit=_KB), 12.0, "kB"),
    Bar(
        "memory returns after 10,000 streams", "kept of what they took", "idle-10000", _of("kept", unit=0.01), 10, "%",
        "The relay gives back nine tenths. The recorder forgets a session a minute after its end, for which this does "
        "not wait; after that it still keeps most of the pools of its small objects, because a few that live on lie in "
        "each. With another allocator (PYTHONMALLOC=malloc) it kept as much. What it keeps it uses again: the table "
        "says how little it takes the second time.",
    ),
    Bar("5,000 calls/s for a minute: longer than a minute", "", "sustained", _of("behind", unit=0.01), 1, "%"),
    Bar("5,000 calls/s for a minute: calls not in the record", "", "sustained", _of("missing"), 0, "calls"),
    Bar(
        "5,000 calls/s for a minute: counts and sums of bytes", "differences between client, server and store",
        "sustained", _of("differences"), 0, "",
    ),
    Bar("beyond saturation", "sent, but neither stored nor dropped", "saturated", _of("unaccounted"), 0, "pieces"),
    *(
        Bar(
            f"less CPU per call than {peer.name}", "relay and recorder to all of the peer's processes", "real-8",
            _ratio("cpu", of=peer.name), 1.0, "× the peer's",  # noqa: RUF001
        )
        for peer in PEERS
    ),
    Bar("start-up to the first proxied byte", "from the start of the process", "start", _of("first byte"), 150, "ms"),
    Bar("start-up: calls not in the record", "", "start", _of("missing"), 0, "calls"),
    Bar("idle memory: relay", "resident", "start", _of("relay memory", unit=MB), 32, "MB"),
    Bar("idle memory: both", "resident", "start", _of("memory", unit=MB), 80, "MB"),
)  # fmt: skip


def verdicts(results: Mapping[str, Sequence[Round]], bars: Iterable[Bar] = BARS) -> list[Verdict]:
    """Return how every bar came out. ``results`` are the rounds of scenarios by name."""
    found = []
    for bar in bars:
        figures = [figure for one in results.get(bar.scenario, ()) if (figure := bar.figure(one)) is not None]
        found.append(Verdict(bar, statistics.median(figures) if figures else None))
    return found
