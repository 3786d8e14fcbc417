from __future__ import annotations

import pytest

from mcp_tap.store.health import health


@pytest.mark.parametrize(
    ("calls", "errors", "p95", "failed_in_a_row", "before", "p95_before", "expected"),
    [
        (0, 0, None, 0, 100, 10.0, "inactive"),
        (1, 0, 5.0, 0, 0, None, "healthy"),
        (4, 4, 5.0, 4, 0, None, "unclear"),  # four failures are too few to call it down
        (5, 5, 5.0, 5, 0, None, "down"),
        (1000, 5, 5.0, 5, 0, None, "down"),  # however well it went before
        (1000, 6, 5.0, 4, 0, None, "healthy"),
        (19, 3, 5.0, 0, 0, None, "unclear"),  # too few to judge
        (20, 1, 5.0, 0, 0, None, "degraded"),  # one in twenty
        (21, 1, 5.0, 0, 0, None, "healthy"),
        (20, 0, 20.0, 0, 20, 10.0, "degraded"),  # twice as slow as before
        (20, 0, 19.9, 0, 20, 10.0, "healthy"),
        (20, 0, 20.0, 0, 19, 10.0, "healthy"),  # too few before to compare with
        (19, 0, 20.0, 0, 20, 10.0, "healthy"),
        (20, 0, None, 0, 20, 10.0, "healthy"),  # only what lasts by design
    ],
)
def test_the_rule(
    calls: int,
    errors: int,
    p95: float | None,
    failed_in_a_row: int,
    before: int,
    p95_before: float | None,
    expected: str,
) -> None:
    given = {"failed_in_a_row": failed_in_a_row, "calls_before": before}
    assert health(calls, errors, p95, **given, p95_ms_before=p95_before) == expected
