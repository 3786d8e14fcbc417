"""Lines of timelines and their bodies as statements: where nearly all of a writer's time goes.

Nearly all lines are answered calls and what a server tells meanwhile. What is the same in all of them stands in a
statement of their own, because each value that is bound costs as much as storing it, and eight rows share a run of that
statement, because beginning and ending a run costs a third of a row. Whatever is unusual is written with all columns,
and so is, as an upsert, whatever was written before.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from mcp_tap.model import Direction, Kind, Side, Status
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite.statements import Statements, Values, upsert

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_tap.model import Body, Event

#: How many rows share a run of a statement; with 16 a row costs 2 % less than with 8.
_TOGETHER: Final = 8

_COLUMNS: Final = """
    pk change connection seq at_us time kind type name direction status outcome failure_reason code message
    duration_us headers_us first_byte_us first_event_us last_byte_us jsonrpc_id operation attempt parent http_method
    http_status path peer stream trace_id request_bytes response_bytes request_cut response_cut dropped sse_events note
"""


class _Form(NamedTuple):
    """How some rows are written."""

    one: str  # a statement
    several: str  # the same for as many rows as share a run
    size: int  # values that a row takes

    def statements(self, values: list[Any]) -> Statements:
        """Return what writes rows, given all their values in one list."""
        each, together = self.size, self.size * _TOGETHER
        whole = len(values) // together * together if self.several else 0
        return [
            (self.several, [values[at : at + together] for at in range(0, whole, together)]),
            (self.one, [values[at : at + each] for at in range(whole, len(values), each)]),
        ]


def _new(table: str, columns: Iterable[str], row: str) -> _Form:
    """Return how rows are written that are surely new; ``row`` holds a `?` for each value."""
    # OR FAIL: without it SQLite keeps what would undo a run of several rows; a transaction that fails is undone whole
    insert = f"INSERT OR FAIL INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 - all of it is ours
    return _Form(insert + row, insert + ", ".join([row] * _TOGETHER), row.count("?"))


_ALL: Final = _COLUMNS.split()
_FIXED: Final = frozenset({"pk", "at_us", "time", "stream", "peer"})
_KNOWN: Final = _Form(upsert("timeline", dict.fromkeys(_ALL, "?"), "pk", _FIXED), "", len(_ALL))
_ANY: Final = _new("timeline", _ALL, f"({', '.join('?' * len(_ALL))})")

#: What such lines have in common; columns that are named nowhere are empty.
_USUAL: Final = {"status": "'succeeded'", "attempt": "1", "request_cut": "0", "response_cut": "0", "dropped": "0"}
_OF_CALLS: Final = {
    "kind": "'request'",
    "direction": "'client_to_server'",
    "http_method": "'POST'",
    "http_status": "200",
    **_USUAL,
}
_CALL: Final = """
    pk change connection seq at_us time type name stream request_bytes response_bytes duration_us headers_us
    first_byte_us last_byte_us jsonrpc_id path
"""
_OF_NOTIFICATIONS: Final = {"kind": "'notification'", "direction": "'server_to_client'", **_USUAL}
_NOTIFICATION: Final = "pk change connection seq at_us time type name stream request_bytes response_bytes parent"


def _usual(columns: str, of_all: dict[str, str]) -> _Form:
    names = columns.split()
    return _new("timeline", [*names, *of_all], f"({', '.join([*'?' * len(names), *of_all.values()])})")


_ANSWERED: Final = _usual(_CALL, _OF_CALLS)
_STREAMED: Final = _usual(_CALL + "first_event_us trace_id sse_events", _OF_CALLS)
_TOLD: Final = _usual(_NOTIFICATION, _OF_NOTIFICATIONS)

# a member of an enumeration costs as much to look up as a column to store
_REQUEST, _NOTIFIED, _SUCCEEDED = Kind.REQUEST, Kind.NOTIFICATION, Status.SUCCEEDED
_TO_SERVER, _TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


def line_statements(events: Iterable[Event], change: int, first: int) -> Statements:
    """Return what writes lines, in their order, and give each the next number after ``change``.

    Those numbered ``first`` and above are surely new.
    """
    runs: list[tuple[_Form, list[Any]]] = []
    last: _Form | None = None
    values: list[Any] = []
    moment, time = -1, ""
    for event in events:
        event.change = change = change + 1
        at_us, connection, parent = event.at_us, event.connection, event.parent
        if at_us // 1000 != moment:  # many lines share a millisecond
            moment, time = at_us // 1000, iso(at_us)
        form = _KNOWN if event.pk < first else _form(event)
        if form is not last:
            last, values = form, []
            runs.append((form, values))
        if form is _KNOWN or form is _ANY:
            values += _values(event, time)
            continue
        values += (
            event.pk,
            change,
            None if connection is None else connection.pk,
            event.seq,
            at_us,
            time,
            event.type,
            event.name,
            event.stream,
            event.request_bytes,
            event.response_bytes,
        )
        if form is _TOLD:
            values.append(None if parent is None else parent.pk)
            continue
        values += (
            event.duration_us,
            event.headers_us,
            event.first_byte_us,
            event.last_byte_us,
            event.jsonrpc_id,
            event.path,
        )
        if form is _STREAMED:
            values += (event.first_event_us, event.trace_id, _json(event.sse_events))
    return list(chain.from_iterable(form.statements(values) for form, values in runs))


def _form(event: Event) -> _Form:
    """Return how a new line is written."""
    if (
        event.status is not _SUCCEEDED
        or event.attempt != 1
        or event.outcome is not None
        or event.failure_reason is not None
        or event.code is not None
        or event.message is not None
        or event.operation is not None
        or event.peer is not None
        or event.note is not None
        or event.request_cut
        or event.response_cut
        or event.dropped
    ):
        return _ANY
    streamed = event.sse_events or event.trace_id is not None or event.first_event_us is not None
    if event.kind is _REQUEST:
        if (
            event.direction is _TO_SERVER
            and event.http_status == 200
            and event.http_method == "POST"
            and event.parent is None
        ):
            return _STREAMED if streamed else _ANSWERED
    elif (
        event.kind is _NOTIFIED
        and event.direction is _TO_CLIENT
        and event.http_status is None
        and event.http_method is None
        and event.path is None
        and event.jsonrpc_id is None
        and event.duration_us is None
        and event.headers_us is None
        and event.first_byte_us is None
        and event.last_byte_us is None
        and not streamed
    ):
        return _TOLD
    return _ANY


def _values(event: Event, time: str) -> Values:
    """Return the values of all columns."""
    # `_value_` and `int()`: the driver binds plain text and numbers by a shorter way than their subclasses.
    connection, operation, parent = event.connection, event.operation, event.parent
    return (
        event.pk,
        event.change,
        None if connection is None else connection.pk,
        event.seq,
        event.at_us,
        time,
        event.kind._value_,
        event.type,
        event.name,
        event.direction and event.direction._value_,
        event.status and event.status._value_,
        event.outcome and event.outcome._value_,
        event.failure_reason and event.failure_reason._value_,
        event.code,
        event.message,
        event.duration_us,
        event.headers_us,
        event.first_byte_us,
        event.first_event_us,
        event.last_byte_us,
        event.jsonrpc_id,
        None if operation is None else operation.pk,
        event.attempt,
        None if parent is None else parent.pk,
        event.http_method,
        event.http_status,
        event.path,
        event.peer,
        event.stream,
        event.trace_id,
        event.request_bytes,
        event.response_bytes,
        int(event.request_cut),
        int(event.response_cut),
        event.dropped,
        _json(event.sse_events),
        event.note,
    )


def _json(numbers: list[int]) -> str | None:
    return orjson.dumps(numbers).decode() if numbers else None


# --------------------------------------------------------------------------------------------------------- bodies

_ASKED: Final = Side.REQUEST
_BODY: Final = ("timeline", "side", "codec", "data", "masked")
_EITHER: Final = _Form(upsert("body", dict.fromkeys(_BODY, "?"), "timeline, side", frozenset(_BODY[:2])), "", 5)
_NEW: Final = _new("body", _BODY, "(?, ?, ?, ?, ?)")
_BOTH: Final = _new("body", _BODY, "(?, 'request', ?, ?, ?), (?, 'response', ?, ?, ?)")


def body_statements(bodies: Iterable[Body], first: int) -> Statements:
    """Return what writes bodies; those of lines numbered ``first`` and above are surely new."""
    requests: dict[int, Body] = {}
    responses: dict[int, Body] = {}
    for body in bodies:
        (requests if body.side is _ASKED else responses)[body.event.pk] = body
    both: list[Any] = []
    new: list[Any] = []
    either: list[Any] = []
    for pk, asked in requests.items():
        if pk < first:
            either += (pk, "request", asked.codec._value_, asked.data, asked.masked)
        elif (answered := responses.pop(pk, None)) is None:
            new += (pk, "request", asked.codec._value_, asked.data, asked.masked)
        else:
            both += (
                pk, asked.codec._value_, asked.data, asked.masked,
                pk, answered.codec._value_, answered.data, answered.masked,
            )  # fmt: skip
    for pk, answered in responses.items():
        alone = either if pk < first else new
        alone += (pk, "response", answered.codec._value_, answered.data, answered.masked)
    return [*_BOTH.statements(both), *_NEW.statements(new), *_EITHER.statements(either)]
