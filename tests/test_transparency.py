"""The page that shows transparency names the cases that there are, and nothing on it failed."""

from __future__ import annotations

import re

from tests.conformance.suite import PINS, REVISIONS
from tests.transparency import DOCUMENT, TESTS, collected, conformance, tables

AGAIN = "docs/transparency.md is not of these cases any more: run `make transparency`"


def test_the_tables_are_of_the_cases_that_there_are() -> None:
    cases = collected()
    assert all(cases.values())
    assert tables(cases) in DOCUMENT.read_text(), AGAIN


def test_the_verdicts_are_of_this_suite_and_the_same() -> None:
    text = DOCUMENT.read_text()
    assert PINS[1] in text, AGAIN
    rows = re.findall(r"^\| (\d{4}-\d\d-\d\d) \| (\w+) \| (\d+) \| ✓ (\d+) \| \d+ \| \d+ \|$", text, re.MULTILINE)
    assert [(revision, side) for revision, side, _, _ in rows] == [
        (revision, side) for side in ("server", "client") for revision in REVISIONS
    ], AGAIN
    assert all(int(scenarios) == int(same) > 0 for _, _, scenarios, same in rows)


def test_what_fails_is_shown() -> None:
    cases = collected()
    test = TESTS[-1]
    cases[test] = dict.fromkeys(cases[test], False)
    assert "✗" in tables(cases)
    failed = {"revision": "2025-11-25", "side": "server", "scenarios": 2, "same": 1}
    assert "✗ 1" in conformance({"rows": [failed], "excluded": []})
