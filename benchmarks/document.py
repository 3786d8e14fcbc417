"""docs/performance.md, made from the results that are kept: one file of JSON for each scenario."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final, NamedTuple

from benchmarks import growth
from benchmarks.bars import Verdict, verdicts
from benchmarks.scenarios import SCENARIOS, Column, Round, Scenario

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
DOCUMENT: Final = ROOT / "docs" / "performance.md"
WIDTH: Final = 118

#: The effort of a result that needs no excuse.
FULL: Final = "full"

#: Significant digits of a figure that is kept.
DIGITS: Final = 5

TIMES: Final = "\N{MULTIPLICATION SIGN}"
AT_MOST: Final = "\N{LESS-THAN OR EQUAL TO}"


class Part(NamedTuple):
    """The results of one scenario."""

    scenario: str
    measured: str  # the day
    effort: str  # `FULL`, or what was done instead
    machine: Mapping[str, str]
    programs: Mapping[str, str]  # versions
    absent: Sequence[str]  # routes whose program is missing
    failed: Sequence[str]  # routes that could not be measured, and why
    rounds: Sequence[Round]


def keep(part: Part) -> None:
    """Write the results of a scenario."""
    RESULTS.mkdir(exist_ok=True)
    rounds = [
        {route: {name: _shortened(value) for name, value in figures.items()} for route, figures in one.items()}
        for one in part.rounds
    ]
    text = json.dumps(part._replace(rounds=rounds)._asdict(), indent=1, ensure_ascii=False)
    (RESULTS / f"{part.scenario}.json").write_text(f"{text}\n")


def _shortened(value: float) -> float:
    return value if isinstance(value, int) or value == int(value) else float(f"{value:.{DIGITS}g}")


def kept() -> dict[str, Part]:
    """Return the results that are there, by the name of their scenario."""
    names = (RESULTS / f"{scenario.name}.json" for scenario in SCENARIOS)
    parts = (Part(**json.loads(path.read_text())) for path in names if path.exists())
    return {part.scenario: part for part in parts}


# ------------------------------------------------------------------------------------------------------- figures


def figure(value: float) -> str:
    """Return a figure with three digits that mean something, as people write it."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(column: Column, route: str, rounds: Sequence[Round]) -> str:
    """Return what stands in a cell: the median over the rounds, or least, median and most."""
    found = [one[route][column.figure] for one in rounds if column.figure in one.get(route, {})]
    if column.against is not None:
        found = [
            one[route][column.figure] / theirs
            for one in rounds
            if column.figure in one.get(route, {}) and (theirs := one.get(column.against, {}).get(column.figure))
        ]
        return f"{statistics.median(found):.2f}" if found else ""
    if not found:
        return ""
    found = [value / column.unit for value in found]
    if column.spread and len(found) > 1:
        return " / ".join(figure(value) for value in (min(found), statistics.median(found), max(found)))
    return figure(statistics.median(found))


def table(scenario: Scenario, rounds: Sequence[Round]) -> Iterator[str]:
    """Yield the table of a scenario."""
    headings = [column.heading or f"{TIMES} {column.against}" for column in scenario.columns]
    yield f"| route | {' | '.join(headings)} |"
    yield f"|---|{'---|' * len(headings)}"
    for route in scenario.routes:
        if any(route.name in one for one in rounds):
            yield f"| {route.name} | {' | '.join(cell(column, route.name, rounds) for column in scenario.columns)} |"


def bar_lines(found: Sequence[Verdict]) -> Iterator[str]:
    """Yield the table of bars."""
    yield "| what | figure | bar | holds |"
    yield "|---|---|---|---|"
    for verdict in found:
        bar = verdict.bar
        what = f"{bar.what} ({bar.figure_is})" if bar.figure_is else bar.what
        limit = _with_unit(bar.limit, bar.unit, f"{AT_MOST} ")
        if verdict.figure is None:
            yield f"| {what} | | {limit} | not measured |"
        else:
            holds = "yes" if verdict.holds else "**no**"
            yield f"| {what} | {_with_unit(verdict.figure, bar.unit)} | {limit} | {holds} |"


def _with_unit(value: float, unit: str, before: str = "") -> str:
    return f"{before if value else ''}{figure(value)} {unit}".rstrip()


# ------------------------------------------------------------------------------------------------------- the page

INTRODUCTION: Final = """\
# Performance

What the tap costs with everything on, beside a direct connection, two proxies that record nothing and the MCP proxies
that one could use instead. This page is written by `make bench` from the results in `benchmarks/results`; a test checks
that it is what they give.
"""

READING: Final = """\
CPU is what the kernel charged to the processes under test, user and system, divided by the calls that passed. What the
recorder still had to do when the load was over is counted; what server and clients use is not. *Tap* is the tap as
`pip install .` installs it and as it is run by default: the recorder's core compiled, redacted bodies stored, the desk
on; only the live view is off, which is for a terminal that somebody looks at. *Tap, not compiled* is the same where
there is no C compiler, and as `make setup` installs it. *Tap, not recording* is its relay alone, with a recorder that
throws away what it is given.

The clients and the server share one core, what is measured has another for itself: both processes of the tap on the
same one. The routes take turns, so ratios, which are taken within a round, can be trusted where single figures of one
machine cannot. Three figures in a cell are the least, the median and the most of the rounds, one is the median.

Every answer under load is compared with what the server sent, byte for byte, and a route with a wrong one is left out.
That is why the load is our own: `wrk` compares nothing, and costs nginx the same CPU per call within a tenth.
"""

AGAIN: Final = """\
## Measure it yourself

    make bench                             # everything: about 20 minutes on a quiet machine with two cores
    make bench ARGS=--quick                # a look, in a few minutes
    make bench ARGS="--only json-64 rate"  # some scenarios; the page is written anew from all results that are kept
    make bench ARGS="--print --only json"  # the tables alone, to look at while something is being made faster
    make bench-growth                      # how cost grows

nginx and haproxy are installed through apt-get where that can be done, mitmproxy, FastMCP and mcp-proxy at pinned
versions below `.cache/bench`. What is missing is left out, with a line that says so. Another proxy takes part where a
variable holds the command that runs it, with `{port}` where it has to listen and `{url}` for its server:

    BENCH_MCPR='/opt/mcpr --mcp {url} --port {port}' make bench ARGS="--only real"

`BENCH_AGENTGATEWAY` and `BENCH_MCPSNOOP` likewise.
"""


def page(parts: Mapping[str, Part], growing: str) -> str:
    """Return the page; ``growing`` is its part about how cost grows."""
    found = verdicts({name: part.rounds for name, part in parts.items()})
    lines = [INTRODUCTION, *_machine(list(parts.values())), "", "## The bars", "", *bar_lines(found), ""]
    if short := [part.scenario for part in parts.values() if part.effort != FULL]:
        lines += [
            fill(f"With fewer rounds or calls than `make bench` takes by itself: {', '.join(short)}.", WIDTH),
            "",
        ]
    for verdict in found:
        if verdict.figure is not None and not verdict.holds and verdict.bar.floor:
            lines += [fill(f"**{verdict.bar.what}.** {verdict.bar.floor}", WIDTH), ""]
    lines += ["## How to read this", "", READING]
    for scenario in SCENARIOS:
        if (part := parts.get(scenario.name)) is not None:
            lines += [f"## {scenario.title}", "", fill(scenario.text, WIDTH), "", *table(scenario, part.rounds), ""]
            lines += [f"{_rounds(part)}", ""]
    lines += ["## How cost grows", "", growing.strip() or "Not measured yet: `make bench-growth`.", ""]
    return "\n".join([*lines, AGAIN])


def _rounds(part: Part) -> str:
    said = f"`{part.scenario}`: {len(part.rounds)} round{'s' if len(part.rounds) != 1 else ''}, {part.measured}"
    said += "" if part.effort == FULL else f", {part.effort}"
    said += f". Not installed: {', '.join(part.absent)}" if part.absent else ""
    return f"{said}. Failed: {'; '.join(part.failed)}." if part.failed else f"{said}."


def _machine(parts: Sequence[Part]) -> Iterator[str]:
    """Yield what the figures were measured on: one line for each machine, or state of one."""
    seen: dict[str, list[str]] = {}
    for part in parts:
        machine = dict(part.machine)
        here = f"{machine.pop('cores')} cores of {machine.pop('CPU')}, {machine.pop('memory')}, {machine.pop('kernel')}"
        line = "; ".join(
            [here, ", ".join(f"{key} {value}" for key, value in (*machine.items(), *part.programs.items()))]
        )
        seen.setdefault(line, []).append(part.scenario)
    for line, scenarios in seen.items():
        of = "" if len(seen) == 1 else f" ({', '.join(scenarios)})"
        yield fill(f"Measured on: {line}{of}.", WIDTH)


def write() -> dict[str, Part]:
    """Write the page from the results that are kept, and return these."""
    parts = kept()
    DOCUMENT.write_text(page(parts, kept_growth()))
    return parts


def kept_growth() -> str:
    """Return the part about how cost grows, from its own results, or nothing where there are none."""
    path = RESULTS / "growth.json"
    return growth.part(json.loads(path.read_text())) if path.exists() else ""
