"""Lines of timelines and their bodies as statements: where nearly all of a writer's time goes.

Nearly all lines are answered calls. What is the same in all of them stands in a statement of their own, because each
value that is bound costs as much as storing it, and eight rows share a run of that statement, because beginning and
ending a run costs a third of a row. Whatever is unusual, and whatever was written before, is an upsert of all columns.
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


_ANY: Final = _Form(
    upsert(
        "timeline", dict.fromkeys(_COLUMNS.split(), "?"), "pk", frozenset({"pk", "at_us", "time", "stream", "peer"})
    ),
    "",
    len(_COLUMNS.split()),
)

#: What an answered call has in common with all others; columns that are not named are empty.
_USUAL: Final = {
    "kind": "'request'",
    "direction": "'client_to_server'",
    "status": "'succeeded'",
    "attempt": "1",
    "http_method": "'POST'",
    "http_status": "200",
    "request_cut": "0",
    "response_cut": "0",
    "dropped": "0",
}
_CALL: Final = """
    pk change connection seq at_us time type name duration_us headers_us first_byte_us last_byte_us jsonrpc_id path
    stream request_bytes response_bytes
"""


def _usual(columns: str) -> _Form:
    names = columns.split()
    return _new("timeline", [*names, *_USUAL], f"({', '.join([*'?' * len(names), *_USUAL.values()])})")


_ANSWERED: Final = _usual(_CALL)
_STREAMED: Final = _usual(_CALL + "first_event_us trace_id sse_events")

# a member of an enumeration costs as much to look up as a column to store
_REQUEST, _TO_SERVER, _SUCCEEDED = Kind.REQUEST, Direction.TO_SERVER, Status.SUCCEEDED


def line_statements(events: Iterable[Event], change: int, first: int) -> Statements:
    """Return what writes lines, in their order, and give each the next number after ``change``.

    Those numbered ``first`` and above are surely new.
    """
    runs: list[tuple[_Form, list[Any]]] = []
    form: _Form | None = None
    values: list[Any] = []
    moment, time = -1, ""
    for event in events:
        event.change = change = change + 1
        at_us, connection, sse = event.at_us, event.connection, event.sse_events
        if at_us // 1000 != moment:  # many lines share a millisecond
            moment, time = at_us // 1000, iso(at_us)
        if (
            event.pk >= first
            and event.status is _SUCCEEDED
            and event.kind is _REQUEST
            and event.direction is _TO_SERVER
            and event.http_status == 200
            and event.http_method == "POST"
            and event.attempt == 1
            and event.outcome is None
            and event.failure_reason is None
            and event.code is None
            and event.message is None
            and event.operation is None
            and event.parent is None
            and event.peer is None
            and event.note is None
            and not event.request_cut
            and not event.response_cut
            and not event.dropped
        ):
            row: Values = (
                event.pk,
                change,
                None if connection is None else connection.pk,
                event.seq,
                at_us,
                time,
                event.type,
                event.name,
                event.duration_us,
                event.headers_us,
                event.first_byte_us,
                event.last_byte_us,
                event.jsonrpc_id,
                event.path,
                event.stream,
                event.request_bytes,
                event.response_bytes,
            )
            its = _ANSWERED
            if sse or event.trace_id is not None or event.first_event_us is not None:
                row = (*row, event.first_event_us, event.trace_id, _json(sse))
                its = _STREAMED
        else:
            row, its = _values(event, time), _ANY
        if its is not form:
            form, values = its, []
            runs.append((form, values))
        values += row
    return list(chain.from_iterable(form.statements(values) for form, values in runs))


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

_BODY: Final = ("timeline", "side", "codec", "data", "masked")
_EITHER: Final = _Form(upsert("body", dict.fromkeys(_BODY, "?"), "timeline, side", frozenset(_BODY[:2])), "", 5)
_BOTH: Final = _new("body", _BODY, "(?, 'request', ?, ?, ?), (?, 'response', ?, ?, ?)")


def body_statements(bodies: Iterable[Body], first: int) -> Statements:
    """Return what writes bodies; those of lines numbered ``first`` and above are surely new."""
    requests: dict[int, Body] = {}
    responses: dict[int, Body] = {}
    for body in bodies:
        (requests if body.side is Side.REQUEST else responses)[body.event.pk] = body
    both: list[Any] = []
    either: list[Any] = []
    for pk, asked in requests.items():
        answered = responses.pop(pk, None) if pk >= first else None
        if answered is not None:
            both += (
                pk, asked.codec._value_, asked.data, asked.masked,
                pk, answered.codec._value_, answered.data, answered.masked,
            )  # fmt: skip
        else:
            either += (pk, "request", asked.codec._value_, asked.data, asked.masked)
    for pk, answered in responses.items():
        either += (pk, "response", answered.codec._value_, answered.data, answered.masked)
    return [*_BOTH.statements(both), *_EITHER.statements(either)]
