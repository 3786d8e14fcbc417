"""The official suite's verdicts directly and through the tap: ``python -m tests.conformance``.

Prints each scenario, and every check whose verdict differs. Exits with 1 when one does, or when a run says nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.conformance.suite import (
    CACHE,
    EXCLUDED,
    REVISIONS,
    Verdicts,
    client_scenarios,
    client_verdicts,
    differences,
    install,
    server_verdicts,
)
from tests.conformance.through_tap import through_tap
from tests.sdk.environments import missing, python_of

HERE: Final = Path(__file__).parent
PYTHON: Final = str(python_of("py2"))
#: Where the outcome of the last run stands, for the table in the documents.
RESULTS: Final = CACHE / "results.json"
NONE: Final = Verdicts()


class Tally:
    """What was compared so far."""

    def __init__(self) -> None:
        self.same = self.different = 0
        self.rows: list[dict[str, object]] = []

    def add(self, revision: str, side: str, verdicts: dict[str, tuple[Verdicts, Verdicts]]) -> None:
        """Compare the scenarios of one side of one revision."""
        checks: Counter[str] = Counter()
        for scenario, (direct, tapped) in verdicts.items():
            found = differences(direct, tapped) if direct else ["no verdict directly"]
            self.same += not found
            self.different += bool(found)
            for (_, status), times in direct.items():
                checks[status] += times
            for line in found:
                print(f"  {revision} {side} {scenario}: {line}")
        count = f"{checks['SUCCESS']} checks succeed, {checks['FAILURE']} fail"
        print(f"{revision} {side:6} {len(verdicts):3} scenarios; directly {count}", flush=True)
        same = sum(not differences(*pair) for pair in verdicts.values())
        self.rows.append({"revision": revision, "side": side, "scenarios": len(verdicts), "same": same} | checks)


def main() -> int:
    """Run everything and return the exit status."""
    if why := missing("py2"):
        print(why, file=sys.stderr)
        return 1
    install()
    tally, excluded = Tally(), set[str]()
    with everything() as direct, through_tap(direct) as tapped:
        for revision in REVISIONS:
            both = server_verdicts(direct, revision), server_verdicts(tapped, revision)
            names = sorted({*both[0], *both[1]})
            tally.add(revision, "server", {name: (both[0].get(name, NONE), both[1].get(name, NONE)) for name in names})
    client = [PYTHON, str(HERE / "everything_client.py")]
    behind_tap = [sys.executable, "-m", "tests.conformance.through_tap", *client]
    for revision in REVISIONS:
        pairs = {}
        for scenario in client_scenarios(revision):
            if scenario.startswith(EXCLUDED):
                excluded.add(scenario)
                continue
            # One by one: side by side they keep each other from answering in time.
            alone = client_verdicts(client, scenario, revision)
            pairs[scenario] = (alone, client_verdicts(behind_tap, scenario, revision))
        tally.add(revision, "client", pairs)
    print(f"not run: {len(excluded)} client scenarios {EXCLUDED}*, which end at any proxy under another name:")
    print("  clients compare the resource that a token is for with the URL that they dialled (RFC 9728 §3.3)")
    RESULTS.write_text(json.dumps({"rows": tally.rows, "excluded": sorted(excluded)}))
    print(f"{tally.same} passed, {tally.different} failed")
    return 1 if tally.different or not tally.same else 0


@contextmanager
def everything() -> Iterator[str]:
    """Run the everything server and yield its URL."""
    command = [PYTHON, "-W", "ignore", str(HERE / "everything_server.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
    finally:
        process.terminate()
        process.communicate(timeout=30)


if __name__ == "__main__":
    sys.exit(main())
