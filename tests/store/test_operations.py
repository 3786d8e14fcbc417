"""Where the time of one operation went."""

from __future__ import annotations

import pytest

from mcp_tap.store.operations import Span, Times, times

S = 1_000_000


def leg(at: float, lasts: float | None, outcome: str | None = None, type: str = "tools/call") -> Span:  # noqa: A002
    return Span(1, type, int(at * S), None if lasts is None else int(lasts * S), outcome, None, nested=False)


def asked(at: float, lasts: float, type: str) -> Span:  # noqa: A002
    return Span(2, type, int(at * S), int(lasts * S), None, None, nested=True)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([leg(0, 2)], Times(1, 2000, 0, 0)),
        ([leg(0, 1), leg(3, 1)], Times(2, 2000, 0, 2000)),
        ([leg(0, 1, "input_required"), leg(6, 1)], Times(2, 2000, 5000, 0)),
        ([leg(0, 0.5, "task"), leg(2, 0.1, None, "tasks/get"), leg(4, 0.1, None, "tasks/get")], Times(3, 4100, 0, 0)),
        ([leg(0, 0.5, "task"), leg(1, 0.5, "input_required", "tasks/get"), leg(9, 1)], Times(3, 2500, 7500, 0)),
        ([leg(0, 10), asked(1, 6, "elicitation/create"), asked(8, 1, "roots/list")], Times(1, 3000, 6000, 1000)),
        ([leg(5, None)], Times(1, 0, 0, 0)),
        ([leg(3, 1), leg(0, 1)], Times(2, 2000, 0, 2000)),
        ([leg(0, 2), leg(1, 2)], Times(2, 4000, 0, 0)),
    ],
    ids=[
        "one leg",
        "a retry",
        "a round",
        "polls",
        "a task that asks",
        "inside a leg",
        "waiting",
        "out of order",
        "at once",
    ],
)
def test_times(spans: list[Span], expected: Times) -> None:
    assert times(spans) == expected
