"""Measures the tap beside a direct connection, nginx, haproxy and MCP proxies, and writes docs/performance.md.

``python -m benchmarks [--only NAME …] [--quick] [--rounds N] [--page]``
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time

from benchmarks import document, programs
from benchmarks.bars import verdicts
from benchmarks.document import Part, bar_lines, keep, table
from benchmarks.machine import LOAD_CPU, about, on, say
from benchmarks.scenarios import SCENARIOS, Effort, run

QUICK = Effort(rounds=1, share=0.25)


def main() -> int:
    """Measure, keep the results, write the page; return 1 where a scenario could not be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="scenarios whose names begin so")
    parser.add_argument("--quick", action="store_true", help="one round with a quarter of the calls")
    parser.add_argument("--rounds", type=int, help="at most so many rounds")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page from the results")
    options = parser.parse_args()
    wanted = [one for one in SCENARIOS if not options.only or one.name.startswith(tuple(options.only))]
    if not wanted:
        parser.error(f"there are {', '.join(one.name for one in SCENARIOS)}")
    effort = QUICK._replace(rounds=options.rounds or 1) if options.quick else Effort(options.rounds)
    failed = []
    if not options.page:
        programs.install()
        on(LOAD_CPU)()
        for scenario in wanted:
            began = time.monotonic()
            say(f"{scenario.name}: {scenario.title}")
            try:
                rounds, absent = run(scenario, effort)
            except Exception as error:  # noqa: BLE001 - the others are measured all the same
                say(f"  cannot be measured: {error!r}")
                failed.append(scenario.name)
                continue
            said = "full" if effort == Effort() else "--quick" if options.quick else f"--rounds {options.rounds}"
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            keep(Part(scenario.name, today, said, about(), programs.versions(), absent, rounds))
            print(f"\n{scenario.title}\n\n" + "\n".join(table(scenario, rounds)), flush=True)
            say(f"  {time.monotonic() - began:.0f} s")
    parts = document.write()
    print("\n" + "\n".join(bar_lines(verdicts({name: part.rounds for name, part in parts.items()}))))
    print(f"\n{document.DOCUMENT.relative_to(document.ROOT)} is written")
    if failed:
        print(f"could not be measured: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
