"""Writes docs/transparency.md from results of this very run: ``python -m tests.transparency``.

Runs the tests that compare traffic with and without the tap, takes the verdicts of the conformance suite from its last
run, and exits with 1 when anything failed. A test checks that the tables name the cases that there are.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Final
from xml.etree import ElementTree

from tests.conformance.__main__ import RESULTS
from tests.conformance.suite import PINS
from tests.relay.cases import CASES
from tests.sdk.environments import NODE_PINS, PYTHON_PINS

ROOT: Final = Path(__file__).parents[1]
REPORT: Final = ROOT / ".cache" / "transparency.xml"
WIDTH: Final = 118
DOCUMENT: Final = ROOT / "docs" / "transparency.md"

_OLD, _NEW = (f"Python SDK {pin.partition('==')[2]}" for pin in PYTHON_PINS.values())
_TYPESCRIPT, _EVERYTHING = (pin.rpartition("@")[2] for pin in NODE_PINS)

#: What the tests call clients and servers, and what they are.
NAMES: Final = {
    "py1": _OLD,
    "py2": _NEW,
    "py2-legacy": f"{_NEW}, legacy mode",
    "py2-auto": f"{_NEW}, modern where it can be",
    "raw-legacy": "plain sockets, legacy",
    "raw-modern": "plain sockets, modern",
    "ts": f"TypeScript SDK {_TYPESCRIPT}",
    "everything": f"TypeScript everything server {_EVERYTHING}",
}

_FIRST: Final = r"(?P<column>(?:raw-|py2-)?[^-]+)-(?P<row>.+)"
_LAST: Final = r"(?P<row>.+)-(?P<column>[^-]+)"
_ROW: Final = r"(?P<row>.+)"

#: What framed mode does on purpose.
_FRAMED: Final = {case.name: f" refused with {case.framed}" for case in CASES if case.framed is not None} | {
    case.name: " edited" for case in CASES if case.edited
}


@dataclass(frozen=True)
class Table:
    """The cases of a few tests.

    ``tests`` says of each how the id of a case is taken apart, ``alone`` is the column of one without columns, and
    ``about`` says more about a row and a column.
    """

    title: str
    text: str
    corner: str
    tests: Mapping[str, str]
    about: Callable[[str, str], str] = lambda _row, _column: ""
    alone: str = "the same"

    def lines(self, passed: Mapping[str, Mapping[str, bool]]) -> Iterator[str]:
        """Yield the table. ``passed`` says, by test and by the id of the case, how it came out."""
        cells: dict[tuple[str, str], bool] = {}
        for test, cell in self.tests.items():
            for case, well in passed[test].items():
                found = re.fullmatch(cell, case)
                assert found is not None, case
                cells[found["row"], found.groupdict().get("column") or self.alone] = well
        rows, columns = (sorted({key[axis] for key in cells}) for axis in (0, 1))
        yield f"| {self.corner} | {' | '.join(NAMES.get(column, column) for column in columns)} |"
        yield f"|---|{'---|' * len(columns)}"
        for row in rows:
            marks = [self._mark(cells.get((row, column)), row, column) for column in columns]
            yield f"| {NAMES.get(row, row)} | {' | '.join(marks)} |"

    def _mark(self, well: bool | None, row: str, column: str) -> str:
        return "" if well is None else f"{'✓' if well else '✗'}{self.about(row, column)}"


TABLES: Final = (
    Table(
        "Byte for byte",
        "A client and a server that are scripts play each case directly and through the relay. Both have to get the "
        "same bytes, and to see the other end in the same way: FIN or reset, at the same point. *Blind* is how the tap "
        "works in front of a server on the same machine. *Framed* is how it works in front of any other: the value of "
        "`Host` is edited, and the address in an `endpoint` event, and nothing else; what cannot be framed without "
        "guessing is refused. Unix sockets and TLS on either side are blind; TLS has no half-closed connections, so "
        "only the bytes are compared there, and only of the cases without them: the other cells are empty.",
        "case",
        {
            "tests/relay/test_transparency.py::test_neither_side_can_tell": _LAST,
            "tests/relay/test_transparency.py::test_neither_side_can_tell_over_unix_sockets": _ROW,
            "tests/relay/test_transparency.py::test_tls_carries_the_same_bytes": _LAST,
        },
        lambda row, column: _FRAMED.get(row, "") if column == "framed" else "",
        "unix sockets",
    ),
    Table(
        "Official SDKs, Streamable HTTP",
        "Each client lists the tools and makes calls that succeed, fail and tell their progress. It has to get what it "
        "gets directly, and the record has to say the same as the client.",
        "client, server →",
        {"tests/sdk/test_recorded.py::test_the_record_agrees_with_the_client": _LAST},
        lambda row, column: " modern" if (row, column) == ("py2-auto", "py2") else " legacy",
    ),
    Table(
        "Official SDKs, HTTP+SSE of 2024-11-05",
        "The same conversations on the oldest transport, where answers come on the GET stream.",
        "client, server →",
        {"tests/sdk/test_old_transport.py::test_the_record_of_the_old_transport": _LAST},
        lambda _row, _column: " legacy",
    ),
    Table(
        "Bad links",
        "Clients over a link that delays, slices, throttles, resets and half-closes: the client has to see the same "
        "outcome with the tap as without.",
        "link, client →",
        {"tests/faults/test_links.py::test_a_bad_link_is_as_bad_with_the_tap_as_without": _FIRST},
    ),
    Table(
        "`mcp-tap verify`",
        "The verb in front of servers of the official SDKs, in both eras: bytes, headers, chunks and endings.",
        "server",
        {"tests/sdk/test_verified.py::test_the_tap_changes_nothing": _ROW},
    ),
)


TESTS: Final = tuple(test for table in TABLES for test in table.tests)


def results() -> dict[str, dict[str, bool]]:
    """Run the tests of all tables and return, by test and by the id of the case, whether it passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", f"--junitxml={REPORT}", *TESTS]
    subprocess.run(command, cwd=ROOT, check=False)
    return reported()


def reported() -> dict[str, dict[str, bool]]:
    """Return the results of the last run."""
    found: dict[str, dict[str, bool]] = {test: {} for test in TESTS}
    for case in ElementTree.parse(REPORT).iter("testcase"):
        function, _, name = case.attrib["name"].removesuffix("]").partition("[")
        file = case.attrib["classname"].replace(".", "/") + ".py"
        found[f"{file}::{function}"][name] = not any(child.tag in _NOT_PASSED for child in case)
    return found


_NOT_PASSED: Final = ("failure", "error", "skipped")


def collected() -> dict[str, dict[str, bool]]:
    """Return the cases that there are, as if all had passed."""
    found: dict[str, dict[str, bool]] = {test: {} for test in TESTS}
    for test, case in re.findall(r"^(tests/[^\[\n]*)\[(.*)\]$", _listed(), re.MULTILINE):
        found[test][case] = True
    return found


@functools.cache
def _listed() -> str:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *TESTS]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def tables(passed: Mapping[str, Mapping[str, bool]]) -> str:
    """Return the tables of all tests as Markdown."""
    parts = []
    for table in TABLES:
        parts += [f"## {table.title}", "", fill(table.text, WIDTH), "", *table.lines(passed), ""]
    return "\n".join(parts)


def conformance(outcome: Mapping[str, Any]) -> str:
    """Return the table of the conformance suite as Markdown."""
    text = (
        f"`{PINS[1]}` runs every scenario for a server and for a client on the Python SDK, "
        "directly and through the tap. The verdict of each of its checks has to be the same; that they succeed is the "
        "SDK's merit, not the tap's."
    )
    excluded = (
        f"Not run: {len(outcome['excluded'])} scenarios of clients that log in (`auth/*`). "
        "Clients compare the `resource` that a token is for with the URL that they dialled (RFC 9728 §3.3), so a login "
        "that names the server's own address ends at any proxy under another name. Give the tap the server's public "
        "address, and it works."
    )
    lines = [
        "## The official conformance suite",
        "",
        fill(text, WIDTH, break_on_hyphens=False),
        "",
        "| revision | side | scenarios | same verdicts | checks that succeed | that fail |",
        "|---|---|---|---|---|---|",
    ]
    for row in outcome["rows"]:
        mark = "✓" if row["same"] == row["scenarios"] else "✗"
        checks = f"{row.get('SUCCESS', 0)} | {row.get('FAILURE', 0)}"
        lines.append(
            f"| {row['revision']} | {row['side']} | {row['scenarios']} | {mark} {row['same']} | {checks} |",
        )
    lines += ["", fill(excluded, WIDTH, break_on_hyphens=False), ""]
    return "\n".join(lines)


INTRODUCTION: Final = """\
# Transparency

The first promise is that traffic is unchanged: bytes, order and closing are what they would be without the tap. This
page is how far that is shown. It is written by `make transparency` from the results of that run, and a test checks
that it names the cases that there are.

## Check it yourself

- In front of your own server: `mcp-tap verify http://localhost:9000/mcp` compares, byte by byte, what it answers
  directly and through a temporary tap. It sends only methods that read, and leaves nothing behind.
- `make conformance` compares the verdicts of the official suite. It prints every one that differs.
- `make transparency` runs all that stands below.

What is changed on purpose is little: in front of a server on another machine the value of `Host`, and on the transport
of 2024-11-05 the address in the one `endpoint` event where it is absolute.

"""


def document(passed: Mapping[str, Mapping[str, bool]], outcome: Mapping[str, Any]) -> str:
    """Return the page."""
    return f"{INTRODUCTION}{tables(passed)}\n{conformance(outcome)}"


def main() -> int:
    """Run everything, write the document, and return the exit status."""
    outcome = json.loads(RESULTS.read_text())
    passed = results()
    DOCUMENT.write_text(document(passed, outcome))
    failed = sum(not well for cases in passed.values() for well in cases.values())
    failed += sum(row["same"] != row["scenarios"] for row in outcome["rows"])
    print(f"{sum(map(len, passed.values()))} cases in {DOCUMENT.relative_to(ROOT)}, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
