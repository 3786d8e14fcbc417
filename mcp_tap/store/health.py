"""How a tool is, by a written rule: one word for each tool of a list.

- **down**: its last five calls all failed;
- **degraded**: at least one in twenty of its calls failed, or its p95 is at least twice that of the period before,
  judged by no fewer than twenty calls;
- **inactive**: it was not called;
- **unclear**: some of its calls failed, but fewer than twenty are too few for a rate;
- **healthy**: else.
"""

from __future__ import annotations

from typing import Final, Literal

Health = Literal["down", "degraded", "unclear", "inactive", "healthy"]

#: Calls in a row that have to fail.
IN_A_ROW: Final = 5

#: Calls that a rate or a percentile needs to say something.
ENOUGH: Final = 20

_RATE: Final = 0.05
_SLOWER: Final = 2.0


def health(
    calls: int,
    errors: int,
    p95_ms: float | None,
    *,
    failed_in_a_row: int = 0,
    calls_before: int = 0,
    p95_ms_before: float | None = None,
) -> Health:
    """Return how a tool is; ``failed_in_a_row`` are its newest calls, ``before`` is the equally long time before."""
    if not calls:
        return "inactive"
    if failed_in_a_row >= IN_A_ROW:
        return "down"
    if calls < ENOUGH:
        return "unclear" if errors else "healthy"
    if errors >= calls * _RATE:
        return "degraded"
    if p95_ms and p95_ms_before and calls_before >= ENOUGH and p95_ms >= p95_ms_before * _SLOWER:
        return "degraded"
    return "healthy"
