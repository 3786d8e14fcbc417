"""How the time of one operation divides: the server's, a person's, the client's.

An operation is every leg of one call: its tries, the rounds of one that asked for input, the polls of one that became
a task, and what the server asked for meanwhile. A leg is server time, but for what it waited for the client inside it.
Between two legs the time is a person's where the earlier one asked for input, the server's where a task is at work,
and else the client's.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from mcp_tap.model import Outcome

#: Requests of the server that a person answers; the client answers all others by itself.
_ASKS_PERSON: Final = frozenset({"elicitation/create"})


class Span(NamedTuple):
    """One message of an operation. ``duration_us`` is None while it waits."""

    pk: int
    type: str
    at_us: int
    duration_us: int | None
    outcome: str | None
    note: str | None
    nested: bool  # a request of the server, inside a leg

    @property
    def end_us(self) -> int:
        """When it was answered, as far as that is known."""
        return self.at_us + (self.duration_us or 0)


class Times(NamedTuple):
    """Where the time of an operation went, in milliseconds."""

    legs: int
    server_ms: float
    person_ms: float
    client_ms: float


def times(spans: Iterable[Span]) -> Times:
    """Divide the time of an operation."""
    ordered = sorted(spans, key=lambda span: span.at_us)
    legs = [span for span in ordered if not span.nested]
    asked = [span for span in ordered if span.nested]
    server = sum(leg.duration_us or 0 for leg in legs)
    person = client = 0
    for span in asked:
        inside = span.duration_us or 0
        server -= inside
        if span.type in _ASKS_PERSON:
            person += inside
        else:
            client += inside
    tasked = False
    for leg, following in pairwise(legs):
        gap = max(0, following.at_us - leg.end_us)
        tasked = tasked or leg.outcome == Outcome.TASK
        if leg.outcome == Outcome.INPUT_REQUIRED:
            person += gap
        elif tasked:
            server += gap
        else:
            client += gap
    return Times(len(legs), max(0, server) / 1000, person / 1000, client / 1000)
