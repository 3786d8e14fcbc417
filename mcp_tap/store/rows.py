"""Rows as people see them, made from the live objects.

The live view and JSON lines show a row in the moment in which it happens, pages and commands read it from a store:
both have the same columns, in the same order, with the same values as the views `sessions` and `events`.
"""

from __future__ import annotations

import time
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mcp_tap.model import Kind

if TYPE_CHECKING:
    from mcp_tap.model import Connection, Event
    from mcp_tap.store import Row

#: The kinds of lines that are a message on the wire, and so have a message id.
MESSAGES: Final = frozenset({Kind.REQUEST, Kind.NOTIFICATION, Kind.RESPONSE})

#: Digits of a number inside an id; with leading zeros, so that ids of one recording sort by time as text.
DIGITS: Final = 12


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    # Nearly all rows of a batch fall into the same second or two.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def iso(at_us: int) -> str:
    """Return microseconds since the epoch as UTC text with milliseconds: ``2026-03-14T10:08:44.998Z``."""
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{us // 1000:03d}Z"


def microseconds(text: str) -> int:
    """Return what `iso` was made of, to the millisecond."""
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1000


def started_us(connection: Connection) -> int:
    """When it started: the successful initialize, else the first contact."""
    return connection.created_us if connection.started_us is None else connection.started_us


def last_active_us(connection: Connection) -> int:
    """When it was last used: at the latest known moment, at least when it was made."""
    return connection.last_active_us or connection.created_us


def session_row(connection: Connection) -> Row:
    """Return what the view `sessions` shows for a connection."""
    started = started_us(connection)
    last_active = last_active_us(connection)
    ended = connection.ended_us
    return {
        "session_id": connection.session_id,
        "client_name": connection.client_name,
        "client_version": connection.client_version,
        "started": iso(started),
        "duration_ms": max((last_active if ended is None else ended) - started, 0) // 1000,
        "calls": connection.calls,
        "errors": connection.errors,
        "status": connection.status.value,
        "tools": ", ".join(connection.tools) or None,
        "server_name": connection.server_name,
        "server_version": connection.server_version,
        "ended": None if ended is None else iso(ended),
        "end_reason": connection.end_reason and connection.end_reason.value,
        "last_active": iso(last_active),
        "connection_state": connection.state.value,
        "open_calls": connection.open_calls,
        "open_streams": connection.open_streams,
        "messages": connection.messages,
        "dropped": connection.dropped,
        "truncated": connection.truncated,
        "request_bytes": connection.request_bytes,
        "response_bytes": connection.response_bytes,
        "era": connection.era and connection.era.value,
        "protocol_version": connection.protocol_version,
        "transport": connection.transport,
        "origin": connection.origin.value,
        "origin_note": connection.origin_note,
        "connection_id": connection.id,
        "mcp_session_id": connection.mcp_session_id,
        "upstream": connection.upstream,
        "client_address": connection.client_address,
        "user_agent": connection.user_agent,
        "replaces": connection.replaces,
        "change": connection.change,
        "pk": connection.pk,
    }


def event_row(event: Event, replica: str) -> Row:
    """Return what the view `events` shows for a line of the timeline; ``replica`` is that of the recording."""
    connection, parent = event.connection, event.parent
    message = event.kind in MESSAGES
    return {
        "time": iso(event.at_us),
        "seq": event.seq,
        "type": event.type,
        "name": event.name,
        "direction": event.direction and event.direction.value,
        "status": event.status and event.status.value,
        "latency_ms": _ms(event.duration_us),
        "first_byte_ms": _ms(event.first_byte_us),
        "failure_reason": event.failure_reason and event.failure_reason.value,
        "error_code": event.code,
        "error_message": event.message,
        "outcome": event.outcome and event.outcome.value,
        "attempt": event.attempt,
        "request_bytes": event.request_bytes,
        "response_bytes": event.response_bytes,
        "truncated": event.request_cut + event.response_cut,
        "dropped": event.dropped,
        "kind": event.kind.value,
        "http_status": event.http_status,
        "trace_id": event.trace_id,
        "note": event.note,
        "event_id": number_id("sev_", replica, event.pk),
        "message_id": number_id("smg_", replica, event.pk) if message else None,
        "operation_id": number_id("smg_", replica, (event.operation or event).pk) if message else None,
        "parent_id": None if parent is None else number_id("smg_", replica, parent.pk),
        "connection_id": None if connection is None else connection.id,
        "session_id": None if connection is None else connection.session_id,
        "change": event.change,
        "pk": event.pk,
    }


def number_id(prefix: str, replica: str, pk: int) -> str:
    """Return the public id of a numbered row: prefix, replica, and the number with leading zeros."""
    return f"{prefix}{replica}{pk:0{DIGITS}d}"


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000
