"""What a report about vulnerabilities is taken for."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.audit import ROOT, judge

FINE = {"name": "click", "version": "8.1.0", "vulns": []}
UNKNOWN = {"name": "ours", "skip_reason": "Dependency not found on PyPI and could not be audited: ours (1)"}
ADVISORY = {"id": "PYSEC-2026-1", "aliases": ["GHSA-aaaa-bbbb-cccc"], "fix_versions": ["2.0"]}
BAD = {"name": "jinja2", "version": "1.0", "vulns": [ADVISORY]}


def judged(*packages: dict[str, Any], ignored: dict[str, str] | None = None, must: bool = False) -> tuple[int, str]:
    status, lines = judge({"dependencies": [*packages]}, "", ignored or {}, must=must)
    return status, "\n".join(lines)


def test_nothing_found_passes() -> None:
    assert judged(FINE) == (0, "audit: passed (1 packages)")


def test_an_advisory_fails_and_says_what_would_mend_it() -> None:
    status, said = judged(FINE, BAD)
    assert status == 1
    assert "jinja2 1.0: PYSEC-2026-1 (fixed in: 2.0)" in said


@pytest.mark.parametrize("name", ["PYSEC-2026-1", "GHSA-aaaa-bbbb-cccc"])
def test_an_advisory_can_be_ignored_by_each_of_its_names(name: str) -> None:
    assert judged(BAD, ignored={name: "reason"})[0] == 0


def test_another_advisory_is_not_ignored_with_it_and_an_old_one_is_named() -> None:
    status, said = judged(BAD, ignored={"GHSA-old": "reason"})
    assert status == 1
    assert "GHSA-old" in said


def test_nothing_audited_is_no_pass_but_a_skip_that_says_why() -> None:
    status, said = judged(UNKNOWN)
    assert status == 0
    assert "SKIPPED" in said
    assert "not found on PyPI" in said
    assert judged(UNKNOWN, must=True)[0] == 2
    assert judge(None, "name not known", {})[0] == 0
    assert "name not known" in judge(None, "name not known", {}, must=True).lines[0]


def test_what_the_index_does_not_know_is_named_beside_a_verdict() -> None:
    assert "not audited, because the index does not know them: ours" in judged(FINE, UNKNOWN)[1]


def test_every_advisory_that_is_ignored_has_its_reason() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ignored = settings["tool"]["mcp-tap"]["audit"]["ignored"]
    assert all(len(reason.split()) >= 4 for reason in ignored.values())
    # one version of the tool itself: what it prints is read here
    assert all("==" in wanted for wanted in settings["dependency-groups"]["audit"])
