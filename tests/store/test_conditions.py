from __future__ import annotations

from mcp_tap.store import conditions

from .plausible import at

NOW = at("11:30:00")


def test_a_moment_is_read_in_every_form() -> None:
    assert conditions.moment("90m", NOW) == NOW - 5400 * 1_000_000
    assert conditions.moment("10:08", NOW) == at("10:08:00")
    assert (
        conditions.moment("23:59", NOW) == at("23:59:00") - 24 * 3600 * 1_000_000
    )  # the last time the clock showed it
    assert conditions.moment("2026-03-14T10:08:44.998Z", NOW) == at("10:08:44.998")
    assert conditions.moment("2026-03-14T11:08+01:00", NOW) == at("10:08:00")
