"""The statements that write a batch, and the values of a live row in the order in which they take them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import orjson

from mcp_tap.model import new_id
from mcp_tap.store.rows import iso, last_active_us, started_us

if TYPE_CHECKING:
    from mcp_tap.model import Connection, ToolSeen

#: The values of one row.
Values = tuple[Any, ...]
#: What one transaction runs: each statement with the values of each of its runs.
Statements = list[tuple[str, Sequence[Sequence[Any]]]]


def upsert(table: str, columns: dict[str, str], key: str, fixed: frozenset[str]) -> str:
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
CONNECTION: Final = upsert(
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

#: What moves while a connection is used. All else stands still once it has begun.
_MOVING: Final = """
    change status state end_reason last_active_us ended_us last_active ended seq messages calls open_calls errors
    dropped truncated open_streams request_bytes response_bytes tools
"""
#: A connection that is stored and differs in nothing but that: a third of the work of the whole row.
CONNECTION_MOVED: Final = f"UPDATE connection SET {' = ?, '.join(_MOVING.split())} = ? WHERE pk = ?"  # noqa: S608

_SESSION: Final = "INSERT INTO session (id, origin, created) VALUES (?, 'implicit', ?) ON CONFLICT (id) DO NOTHING"
_PROVIDER: Final = "INSERT INTO provider (id, url, created) VALUES (?, ?, ?) ON CONFLICT (url) DO NOTHING"
_PARTICIPANT: Final = """
INSERT INTO participant (id, type, identifier, name, version, provider, created)
VALUES (?, ?, ?, ?, ?, (SELECT pk FROM provider WHERE url = ?), ?) ON CONFLICT (type, identifier) DO NOTHING
"""
_DEFINITION: Final = """
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
#: What writes a row in every run, if all is there that is known to be.
_SURE: Final = frozenset({CONNECTION_MOVED, TOOL_SEEN})


#: The counters of a connection, in the order of both statements.
_counted: Final[Callable[[Connection], Values]] = attrgetter(
    "seq", "messages", "calls", "open_calls", "errors", "dropped", "truncated", "open_streams", "request_bytes",
    "response_bytes",
)  # fmt: skip


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
        *_counted(connection),
        orjson.dumps(connection.tools).decode(),
    )


#: All of a connection that does not move.
fixed_values: Final[Callable[[Connection], Values]] = attrgetter(
    *(name for name in _CONNECTION_COLUMNS.split() if name not in {*_MOVING.split(), "started"}), "upstream"
)


def moved_values(connection: Connection, change: int) -> Values:
    """Return the values of CONNECTION_MOVED."""
    last_active, ended, reason = last_active_us(connection), connection.ended_us, connection.end_reason
    return (
        change,
        connection.status._value_,
        connection.state._value_,
        None if reason is None else reason._value_,
        last_active,
        ended,
        iso(last_active),
        None if ended is None else iso(ended),
        *_counted(connection),
        orjson.dumps(connection.tools).decode(),
        connection.pk,
    )


def _client(connection: Connection) -> str | None:
    """What tells one client from another: its name, and its version where it says one."""
    if connection.client_name is None or connection.client_version is None:
        return connection.client_name
    return f"{connection.client_name}@{connection.client_version}"


def seen_values(tool: ToolSeen) -> Values:
    """Return the values of TOOL_SEEN."""
    at = iso(tool.at_us)
    return (tool.connection.pk, at, at, tool.connection.upstream, tool.name, tool.hash)


class Surroundings:
    """The small rows that connections point to: those that are not surely stored yet."""

    def __init__(self, stored: set[tuple[str, str]]) -> None:
        self._stored = stored
        self._rows: dict[str, list[Values]] = {_SESSION: [], _PROVIDER: [], _PARTICIPANT: [], _DEFINITION: []}
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

    def add_definition(self, tool: ToolSeen) -> None:
        """Note a definition: it is told again with every list of tools."""
        self.add(tool.connection)
        if self._new("tool", f"{tool.connection.upstream} {tool.name} {tool.hash}"):
            values = (tool.connection.upstream, tool.name, tool.hash, tool.definition, iso(tool.at_us))
            self._rows[_DEFINITION].append(values)

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
    """Run statements in one transaction, all of them or none; raise IntegrityError where something stored is gone."""
    db.execute("BEGIN IMMEDIATE")
    try:
        cursor = db.cursor()
        for sql, rows in work:
            if rows:
                cursor.executemany(sql, rows)
                if sql in _SURE and cursor.rowcount < len(rows):
                    raise sqlite3.IntegrityError("what was stored is gone")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has already rolled it back
            db.execute("ROLLBACK")
        raise
