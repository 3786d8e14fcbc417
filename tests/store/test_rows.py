from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcp_tap.model import (
    Batch,
    ConnectionState,
    ConnectionStatus,
    Direction,
    EndReason,
    Era,
    Event,
    FailureReason,
    Kind,
    Origin,
    Outcome,
    Status,
)
from mcp_tap.store.rows import event_row, iso, session_row

from .plausible import morning
from .recording import T0, connection, event, reading, run, writing


def test_iso_cuts_to_milliseconds_and_never_rounds_up() -> None:
    assert iso(1_773_482_924_998_999) == "2026-03-14T10:08:44.998Z"
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_772_323_199_999_999) == "2026-02-28T23:59:59.999Z"


def cycle(kind: Any) -> Any:
    return itertools.cycle([None, *kind])


def varied() -> Batch:
    """Every value of every enumeration, with and without everything that may be missing."""
    batch = Batch()
    eras, reasons, states = cycle(Era), cycle(EndReason), itertools.cycle(ConnectionState)
    for number, (origin, status) in enumerate(itertools.product(Origin, ConnectionStatus), 101):
        one = connection(number, origin=origin, status=status, era=next(eras), state=next(states))
        if number % 2:
            one.tools = {"zeta": 2, 'say "hi"': 1, "größe, naïve\\path": 3, "alpha": 1, "日本": 1}
            one.started_us, one.ended_us = T0 + 5000, T0 + 1_999_999
            one.end_reason, one.mcp_session_id, one.origin_note = next(reasons), f"raw-{number}", "adopted"
            one.client_name, one.client_version, one.server_name, one.server_version = "c", "1", "s", "2"
            one.calls, one.errors, one.dropped, one.truncated, one.open_calls, one.open_streams = 6, 5, 4, 3, 2, 1
            one.user_agent, one.client_address, one.transport, one.protocol_version = "ua", "::1", "sse", "2025-11-25"
            one.messages, one.request_bytes, one.response_bytes, one.replaces = 9, 8, 7, "scn_before"
        else:
            one.last_active_us = 0
            one.ended_us = T0 - 7 if number % 4 else None
        batch.connections.append(one)
    directions, statuses, outcomes, failures = cycle(Direction), cycle(Status), cycle(Outcome), cycle(FailureReason)
    firsts: list[Event] = []
    for number, (kind, owner) in enumerate(itertools.product(Kind, [None, *batch.connections])):
        line = event(owner, T0 + number * 12_345, kind=kind, direction=next(directions), status=next(statuses))
        line.outcome, line.failure_reason = next(outcomes), next(failures)
        if number % 3:
            line.name, line.code, line.message, line.note = "näme", "-32000", "it said “no”\n\x00\x1b[31m", "guessed"
            line.duration_us, line.first_byte_us, line.headers_us, line.first_event_us = 4211, 3001, 3000, 3002
            line.request_cut, line.response_cut, line.dropped = bool(number & 1), bool(number & 2), number
            line.http_status, line.trace_id, line.request_bytes, line.response_bytes = 200, "4bf9", 2**40, 17
        if firsts and number % 4 == 0:
            line.operation, line.parent, line.attempt = firsts[-1], firsts[number % len(firsts)], 2
        firsts.append(line)
        batch.events.append(line)
    return batch


def test_a_row_of_a_live_object_is_the_row_of_the_view(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    batches = [varied(), *(replace(batch) for batch in morning())]

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            for batch in batches:
                await writer.write(batch)
            views = {}
            for view in ("sessions", "events"):
                table = await reader.query(f"SELECT * FROM {view}")
                found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
                views[view] = {row["pk"]: row for row in found}
            sessions, events = views["sessions"], views["events"]
            made = {one.pk: session_row(one) for batch in batches for one in batch.connections}
            lines = {one.pk: event_row(one, writer.replica) for batch in batches for one in batch.events}
            assert len(made) == 12
            assert len(lines) > 60
            assert made == sessions
            assert lines == events
            for live, stored in [(made[1], sessions[1]), (lines[1], events[1])]:
                assert list(live) == list(stored)
                assert all(type(value) in (str, int, float, type(None)) for value in live.values())

    run(work())
