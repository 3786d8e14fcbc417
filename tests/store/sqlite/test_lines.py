"""Lines and bodies are stored as they are, whichever statement writes them."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import orjson
import pytest

from mcp_tap.model import Batch, Body, Codec, Connection, Direction, Event, FailureReason, Kind, Outcome, Side, Status
from mcp_tap.store.rows import iso

from ..recording import T0, connection, event, record, run, select, writing

#: An answered call, as nearly all lines are.
USUAL: dict[str, Any] = {
    "direction": Direction.TO_SERVER,
    "status": Status.SUCCEEDED,
    "http_method": "POST",
    "http_status": 200,
    "name": "pay",
    "duration_us": 4211,
    "headers_us": 4000,
    "first_byte_us": 4100,
    "last_byte_us": 4200,
    "jsonrpc_id": "7",
    "path": "/mcp",
    "stream": 3,
    "request_bytes": 72,
    "response_bytes": 530,
}
#: What a server told, as nearly all others are.
TOLD: dict[str, Any] = {
    "kind": Kind.NOTIFICATION,
    "type": "notifications/progress",
    "direction": Direction.TO_CLIENT,
    "status": Status.SUCCEEDED,
    "stream": 3,
    "request_bytes": 274,
}
#: What else can be in each of the columns.
UNUSUAL: dict[str, Any] = {
    "kind": Kind.HTTP,
    "type": "ping",
    "name": None,
    "direction": None,
    "status": Status.FAILED,
    "outcome": Outcome.TASK,
    "failure_reason": FailureReason.TOOL_ERROR,
    "code": "-32000",
    "message": "busy",
    "duration_us": 0,
    "headers_us": 1,
    "first_byte_us": 2,
    "first_event_us": 4050,
    "last_byte_us": 3,
    "jsonrpc_id": '"7"',
    "attempt": 2,
    "http_method": "GET",
    "http_status": 202,
    "path": "/",
    "peer": "127.0.0.1:50000",
    "stream": 0,
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "request_bytes": 0,
    "response_bytes": 0,
    "request_cut": True,
    "response_cut": True,
    "dropped": 2,
    "sse_events": [10, 20],
    "note": "guessed",
}
#: Columns of either that may be empty.
OPTIONAL = """
    name direction status http_method http_status duration_us headers_us first_byte_us last_byte_us jsonrpc_id path
"""


def stored(line: Event) -> dict[str, Any]:
    """Return what the table has to hold for a line."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Event) if field.name != "key"):
        value = getattr(line, name)
        if isinstance(value, Enum):
            value = value.value
        elif isinstance(value, Event | Connection):
            value = value.pk
        elif isinstance(value, list):
            value = orjson.dumps(value).decode() if value else None
        values[name] = int(value) if isinstance(value, bool) else value
    return values | {"time": iso(line.at_us)}


def in_file(path: Path) -> list[dict[str, Any]]:
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in db.execute("SELECT * FROM timeline ORDER BY pk")]
    finally:
        db.close()


@pytest.mark.parametrize("usual", [USUAL, TOLD], ids=["called", "told"])
@pytest.mark.parametrize("between", [1, 8, 21])
def test_every_line_is_stored_as_it_is(tmp_path: Path, between: int, usual: dict[str, Any]) -> None:
    one = connection()
    lines: list[Event] = []

    def add(**values: Any) -> None:
        lines.append(event(one, T0 + len(lines) * 700, **(usual | values)))

    for name, value in [*UNUSUAL.items(), *((name, None) for name in OPTIONAL.split())]:
        for _ in range(between):
            add()
        add(**{name: value})
    add(operation=lines[0])
    add(parent=lines[1])
    lines.append(event(None, T0 - 5, **usual))
    path = tmp_path / "tap.db"
    record(path, Batch([one], lines))
    assert in_file(path) == [stored(line) for line in lines]
    assert [line.pk for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("name", sorted(UNUSUAL.keys() - {"stream", "peer"}))  # these are known when it begins
def test_a_later_write_of_a_line_changes_any_column(tmp_path: Path, name: str) -> None:
    one = connection()
    lines = [event(one, **USUAL) for _ in range(9)]

    async def work() -> None:
        async with writing(tmp_path / "tap.db") as writer:
            await writer.write(Batch([one], lines))
            for line in lines[3:]:
                setattr(line, name, UNUSUAL[name])
            await writer.write(Batch([one], lines))

    run(work())
    assert in_file(tmp_path / "tap.db") == [stored(line) for line in lines]


def test_bodies_are_stored_together_apart_and_again(tmp_path: Path) -> None:
    one = connection()
    lines = [event(one, **USUAL) for _ in range(11)]
    asked = [Body(line, Side.REQUEST, Codec.AS_SEEN, f'{{"asked":{n}}}') for n, line in enumerate(lines)]
    answered = [Body(line, Side.RESPONSE, Codec.MASKED, f'{{"answered":{n}}}', n) for n, line in enumerate(lines)]
    later = [Body(line, Side.RESPONSE, Codec.CUT, "{", 1) for line in lines[:3]]
    path = tmp_path / "tap.db"
    # most together, one half of two each alone, and one that comes only later
    record(path, Batch([one], lines, [*asked[:10], *answered[1:]]), Batch([one], lines[:3], [*later, asked[10]]))
    expected = {(body.event.pk, body.side): body for body in [*asked, *answered[1:], *later]}
    assert select(path, "SELECT timeline, side, codec, data, masked FROM body ORDER BY timeline, side") == [
        (pk, side.name.lower(), body.codec.value, body.data, body.masked)
        for (pk, side), body in sorted(expected.items(), key=lambda item: (item[0][0], item[0][1].value))
    ]


def test_what_no_database_takes_costs_no_line(tmp_path: Path) -> None:
    one = connection()
    lines = [event(one, **USUAL) for _ in range(9)]
    lines[4].path, lines[5].response_bytes = "/mcp?\ud800", 2**70
    path = tmp_path / "tap.db"
    record(path, Batch([one], lines, [Body(line, side, Codec.AS_SEEN, "\udfff") for line in lines for side in Side]))
    assert select(path, "SELECT count(*), count(DISTINCT path), max(response_bytes) FROM timeline") == [
        (9, 2, 2**63 - 1)
    ]
    assert select(path, "SELECT count(*), min(data), max(data) FROM body") == [(18, "?", "?")]
