"""The comparison of verdicts notices what it has to notice."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.altering import Altering
from tests.conformance.__main__ import Tally, everything
from tests.conformance.suite import differences, installed, read_verdicts, server_verdicts
from tests.sdk.conftest import need


def test_verdicts_are_read_by_scenario(tmp_path: Path) -> None:
    for folder in ("server-tools-list-2026-11-21T02-55-33-778Z", "auth/basic-cimd-2026-11-21T02-55-33-778Z"):
        (tmp_path / folder).mkdir(parents=True)
        checks = [{"id": "a", "status": "SUCCESS"}, {"id": "a", "status": "SUCCESS"}, {"id": "b", "status": "FAILURE"}]
        (tmp_path / folder / "checks.json").write_text(json.dumps(checks))
    verdicts = Counter({("a", "SUCCESS"): 2, ("b", "FAILURE"): 1})
    assert read_verdicts(tmp_path) == {"tools-list": verdicts, "auth/basic-cimd": verdicts}


def test_each_verdict_that_differs_is_said() -> None:
    direct = Counter({("a", "SUCCESS"): 2, ("b", "SUCCESS"): 1})
    assert differences(direct, direct) == []
    assert differences(direct, Counter({("a", "SUCCESS"): 2, ("b", "WARNING"): 1})) == [
        "b SUCCESS: 1 times directly, 0 through the tap",
        "b WARNING: 0 times directly, 1 through the tap",
    ]
    assert differences(direct, Counter({("a", "SUCCESS"): 1, ("b", "SUCCESS"): 1})) != []


def test_a_scenario_without_a_verdict_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    tally.add("2025-11-25", "server", {"ping": (Counter(), Counter())})
    assert (tally.same, tally.different) == (0, 1)
    assert "ping: no verdict directly" in capsys.readouterr().out


@pytest.mark.sdk
@pytest.mark.matrix
def test_the_suite_notices_a_proxy_that_alters() -> None:
    need("py2")
    if not installed():
        if os.environ.get("CI") == "true":
            pytest.fail("run `make conformance` first")
        pytest.skip("the suite is not installed: run `make conformance`")
    scenario, revision = "tools-call-simple-text", "2025-11-25"
    with everything() as url:
        altering = Altering(int(urlsplit(url).port or 0), lambda data: data.replace(b'"text":', b'"test":'))
        try:
            through = server_verdicts(f"http://127.0.0.1:{altering.port}/mcp", revision, scenario)
        finally:
            altering.stop()
        alone = server_verdicts(url, revision, scenario)
    assert {status for _, status in alone[scenario]} <= {"SUCCESS", "INFO"}
    assert differences(alone[scenario], through[scenario]) != []
