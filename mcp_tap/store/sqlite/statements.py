"""The statements that write a batch, and the values of a live row in the order in which they take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from mcp_tap.model import Side, new_id
from mcp_tap.store.rows import iso, last_active_us, started_us

if TYPE_CHECKING:
    import sqlite3

    from mcp_tap.model import Body, Connection, Event, ToolSeen

#: The values of one row.
Values = tuple[Any, ...]
#: What one transaction runs: each statement with all of its rows.
Statements = list[tuple[str, list[Values]]]


def _upsert(table: str, columns: dict[str, str], key: str, fixed: frozenset[str]) -> str:
    """Return the statement that writes a whole row, new or known; ``columns`` maps names to value expressions."""
    names, values = ", ".join(columns), ", ".join(columns.values())
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in fixed)
    return f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {updates}"  # noqa: S608


_CONNECTION_COLUMNS: Final = """
    change replaces origin origin_note mcp_session_id era protocol_version transport client_name client_version
    client_capabilities client_address user_agent server_name server_version server_capabilities instructions status
    state end_reason created_us started_us last_active_us ended_us started last_active ended seq messages calls
    open_calls errors dropped truncated open_streams request_bytes response_bytes tools
"""
CONNECTION: Final = _upsert(
    "connection",
    {
        "pk": "?",
        "id": "?",
        "session": "(SELECT pk FROM session WHERE id = ?)",
        "provider": "(SELECT pk FROM provider WHERE url = ?)",
        "participant": "(SELECT pk FROM participant WHERE type = 'mcp_client' AND identifier = ?)",
        **dict.fromkeys(_CONNECTION_COLUMNS.split(), "?"),
    },
    "pk",
    frozenset({"pk", "id", "session", "created_us"}),
)

_TIMELINE_COLUMNS: Final = """
    pk change connection seq at_us time kind type name direction status outcome failure_reason code message
    duration_us headers_us first_byte_us first_event_us last_byte_us jsonrpc_id operation attempt parent http_method
    http_status path peer stream trace_id request_bytes response_bytes request_cut response_cut dropped sse_events note
"""
TIMELINE: Final = _upsert(
    "timeline",
    dict.fromkeys(_TIMELINE_COLUMNS.split(), "?"),
    "pk",
    frozenset({"pk", "at_us", "time", "stream", "peer"}),
)

BODY: Final = """
INSERT INTO body (timeline, side, codec, data, masked) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (timeline, side) DO UPDATE SET codec = excluded.codec, data = excluded.data, masked = excluded.masked
"""
_SIDE: Final = {Side.REQUEST: "request", Side.RESPONSE: "response"}

_SESSION: Final = "INSERT INTO session (id, origin, created) VALUES (?, 'implicit', ?) ON CONFLICT (id) DO NOTHING"
_PROVIDER: Final = "INSERT INTO provider (id, url, created) VALUES (?, ?, ?) ON CONFLICT (url) DO NOTHING"
_PARTICIPANT: Final = """
INSERT INTO participant (id, type, identifier, name, version, provider, created)
VALUES (?, ?, ?, ?, ?, (SELECT pk FROM provider WHERE url = ?), ?) ON CONFLICT (type, identifier) DO NOTHING
"""
TOOL_DEFINITION: Final = """
INSERT INTO tool_definition (provider, name, hash, definition, first_seen)
VALUES ((SELECT pk FROM provider WHERE url = ?), ?, ?, ?, ?) ON CONFLICT (provider, name, hash) DO NOTHING
"""
TOOL_SEEN: Final = """
INSERT INTO tool_seen (definition, connection, first_seen, last_seen, times)
SELECT tool_definition.pk, ?, ?, ?, 1 FROM tool_definition
JOIN provider ON provider.pk = tool_definition.provider
WHERE provider.url = ? AND tool_definition.name = ? AND tool_definition.hash = ?
ON CONFLICT (definition, connection) DO UPDATE SET last_seen = excluded.last_seen, times = times + 1
"""


def connection_values(connection: Connection, change: int) -> Values:
    """Return the values of CONNECTION."""
    started, last_active, ended = started_us(connection), last_active_us(connection), connection.ended_us
    return (
        connection.pk,
        connection.id,
        connection.session_id,
        connection.upstream,
        _client(connection),
        change,
        connection.replaces,
        connection.origin._value_,
        connection.origin_note,
        connection.mcp_session_id,
        connection.era and connection.era._value_,
        connection.protocol_version,
        connection.transport,
        connection.client_name,
        connection.client_version,
        connection.client_capabilities,
        connection.client_address,
        connection.user_agent,
        connection.server_name,
        connection.server_version,
        connection.server_capabilities,
        connection.instructions,
        connection.status._value_,
        connection.state._value_,
        connection.end_reason and connection.end_reason._value_,
        connection.created_us,
        connection.started_us,
        last_active,
        ended,
        iso(started),
        iso(last_active),
        None if ended is None else iso(ended),
        connection.seq,
        connection.messages,
        connection.calls,
        connection.open_calls,
        connection.errors,
        connection.dropped,
        connection.truncated,
        connection.open_streams,
        connection.request_bytes,
        connection.response_bytes,
        orjson.dumps(connection.tools).decode(),
    )


def timeline_values(event: Event, change: int) -> Values:
    """Return the values of TIMELINE."""
    # `_value_` and `int()`: the driver binds plain text and numbers by a shorter way than their subclasses.
    connection, operation, parent = event.connection, event.operation, event.parent
    return (
        event.pk,
        change,
        None if connection is None else connection.pk,
        event.seq,
        event.at_us,
        iso(event.at_us),
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
        orjson.dumps(event.sse_events).decode() if event.sse_events else None,
        event.note,
    )


def _client(connection: Connection) -> str | None:
    """What tells one client from another: its name, and its version where it says one."""
    if connection.client_name is None or connection.client_version is None:
        return connection.client_name
    return f"{connection.client_name}@{connection.client_version}"


def body_values(body: Body) -> Values:
    """Return the values of BODY."""
    return (body.event.pk, _SIDE[body.side], body.codec._value_, body.data, body.masked)


def definition_values(tool: ToolSeen) -> Values:
    """Return the values of TOOL_DEFINITION."""
    return (tool.connection.upstream, tool.name, tool.hash, tool.definition, iso(tool.at_us))


def seen_values(tool: ToolSeen) -> Values:
    """Return the values of TOOL_SEEN."""
    at = iso(tool.at_us)
    return (tool.connection.pk, at, at, tool.connection.upstream, tool.name, tool.hash)


class Surroundings:
    """The small rows that connections point to: those that are not surely stored yet."""

    def __init__(self, stored: set[tuple[str, str]]) -> None:
        self._stored = stored
        self._rows: dict[str, list[Values]] = {_SESSION: [], _PROVIDER: [], _PARTICIPANT: []}
        self.added: set[tuple[str, str]] = set()

    def add(self, connection: Connection) -> None:
        """Note what a connection points to."""
        at_us, at = connection.created_us, iso(connection.created_us)
        if self._new("session", connection.session_id):
            self._rows[_SESSION].append((connection.session_id, at))
        url = connection.upstream
        if self._new("provider", url):
            self._rows[_PROVIDER].append((new_id("pde_", at_us), url, at))
            self._rows[_PARTICIPANT].append((new_id("spt_", at_us), "provider", url, url, None, url, at))
        client = _client(connection)
        if client is not None and self._new("participant", client):
            named = (connection.client_name, connection.client_version)
            self._rows[_PARTICIPANT].append((new_id("spt_", at_us), "mcp_client", client, *named, None, at))

    def statements(self) -> Statements:
        """Return what stores them."""
        return list(self._rows.items())

    def _new(self, table: str, identity: str) -> bool:
        key = (table, identity)
        if key in self._stored or key in self.added:
            return False
        self.added.add(key)
        return True


def transaction(db: sqlite3.Connection, work: Statements) -> None:
    """Run statements in one transaction, all of them or none."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for sql, rows in work:
            if rows:
                db.executemany(sql, rows)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has already rolled it back
            db.execute("ROLLBACK")
        raise
