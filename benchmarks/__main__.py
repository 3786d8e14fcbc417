"""Measures the tap beside a direct connection, nginx, haproxy and MCP proxies, and writes docs/performance.md.

``python -m benchmarks [--only NAME …] [--quick] [--rounds N] [--print | --page]``
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from typing import Final

from benchmarks import document, programs
from benchmarks.bars import verdicts
from benchmarks.document import FULL, Part, bar_lines, keep, table
from benchmarks.machine import LOAD_CPU, about, busy, on, say
from benchmarks.scenarios import SCENARIOS, Effort, Outcome, Scenario, run

#: What --quick does.
ROUNDS: Final = 1
SHARE: Final = 0.25


def main() -> int:
    """Measure, keep the results, write the page; return 1 where something could not be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="scenarios, or how their names begin")
    parser.add_argument("--quick", action="store_true", help=f"one round with {SHARE:.0%}% of the calls")
    parser.add_argument("--rounds", type=int, help="at most so many rounds")
    parser.add_argument("--print", action="store_true", help="print the tables, keep no results and write no page")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the results")
    options = parser.parse_args()
    names = {scenario.name for scenario in SCENARIOS}
    wanted = [s for s in SCENARIOS if not options.only or any(_means(w, s.name, names) for w in options.only)]
    if sys.platform != "linux":
        parser.error("CPU time and memory of processes are read as Linux has them")
    if not wanted:
        parser.error(f"there are {', '.join(sorted(names))}")
    measured: list[Part] = []
    if not options.page:
        programs.install()
        on(LOAD_CPU)()
        if (others := busy()) > 0.5:
            say(f"warning: this machine is busy (load {others:.1f}): CPU per call may be near, latencies are not")
        effort = Effort(options.rounds or (ROUNDS if options.quick else None), SHARE if options.quick else 1.0)
        for scenario in wanted:
            measured.append(measure(scenario, effort))
            if measured[-1].rounds and not options.print:
                keep(measured[-1])
    parts = {part.scenario: part for part in measured} if options.print else document.write()
    found = verdicts({name: part.rounds for name, part in parts.items()})
    print("\n" + "\n".join(bar_lines([one for one in found if one.figure is not None or not options.print])))
    if not options.print:
        print(f"\n{document.DOCUMENT.relative_to(document.ROOT)} is written")
    failed = [f"{part.scenario}: {route}" for part in measured for route in part.failed]
    for problem in failed:
        say(f"could not be measured: {problem}")
    return 1 if failed else 0


def _means(word: str, name: str, names: set[str]) -> bool:
    """Whether a word means the scenario of that name: a whole name means no longer one."""
    return word == name if word in names else name.startswith(word)


def measure(scenario: Scenario, effort: Effort) -> Part:
    """Measure a scenario and print what came of it."""
    began = time.monotonic()
    say(f"{scenario.name}: {scenario.title}")
    try:
        outcome = run(scenario, effort)
    except OSError as error:  # its server cannot be started
        outcome = Outcome([], [], {"all": str(error)})
    done = FULL if effort == Effort() else "a quick look" if effort.share < 1 else f"no more than {effort.rounds}"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    failed = [f"{name} ({why})" for name, why in outcome.failed.items()]
    part = Part(scenario.name, today, done, about(), programs.versions(), outcome.absent, failed, outcome.rounds)
    print(f"\n{scenario.title}\n\n" + "\n".join(table(scenario, part.rounds)), flush=True)
    say(f"  {time.monotonic() - began:.0f} s")
    return part


if __name__ == "__main__":
    sys.exit(main())
