"""The tables of a recording, as the ordered list of texts that lead to them.

A database of version n has run the first n texts; `PRAGMA user_version` holds n. A text that was released is never
edited: what follows it is a new text. Names are documented, column by column, in docs/schema.md.

Every index on `timeline` costs about a microsecond per event, so each has to say what it is for.
"""

from __future__ import annotations

import sqlite3
from typing import Final

#: "mtap" in ASCII: tells a recording from any other SQLite file (https://www.sqlite.org/fileformat2.html §1.3.20).
APPLICATION_ID: Final = 0x6D746170

_V1: Final = """
PRAGMA application_id = 1836343664;

CREATE TABLE store (
    pk INTEGER PRIMARY KEY CHECK (pk = 1),
    replica TEXT NOT NULL,
    created TEXT NOT NULL,
    session_key BLOB NOT NULL
) STRICT;

CREATE TABLE provider (
    pk INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL
) STRICT;

CREATE TABLE participant (
    pk INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    identifier TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    provider INTEGER REFERENCES provider,
    created TEXT NOT NULL,
    UNIQUE (type, identifier)
) STRICT;

CREATE TABLE session (
    pk INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    created TEXT NOT NULL
) STRICT;

CREATE TABLE connection (
    pk INTEGER PRIMARY KEY,
    change INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE,
    session INTEGER NOT NULL REFERENCES session,
    provider INTEGER NOT NULL REFERENCES provider,
    participant INTEGER REFERENCES participant,
    replaces TEXT,
    origin TEXT NOT NULL,
    origin_note TEXT,
    mcp_session_id TEXT,
    era TEXT,
    protocol_version TEXT,
    transport TEXT,
    client_name TEXT,
    client_version TEXT,
    client_capabilities TEXT,
    client_address TEXT,
    user_agent TEXT,
    server_name TEXT,
    server_version TEXT,
    server_capabilities TEXT,
    instructions TEXT,
    status TEXT NOT NULL,
    state TEXT NOT NULL,
    end_reason TEXT,
    created_us INTEGER NOT NULL,
    started_us INTEGER,
    last_active_us INTEGER NOT NULL,
    ended_us INTEGER,
    started TEXT NOT NULL,
    last_active TEXT NOT NULL,
    ended TEXT,
    seq INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    open_calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    truncated INTEGER NOT NULL,
    open_streams INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    tools TEXT NOT NULL
) STRICT;

-- live pages, tail and shipping: everything after a change number
CREATE UNIQUE INDEX connection_change ON connection (change);
-- the Sessions page: newest first
CREATE INDEX connection_started ON connection (started);
-- "since": what was in use in a time range; and what a restart continues
CREATE INDEX connection_last_active ON connection (last_active);
-- an id copied from a server's log
CREATE INDEX connection_mcp_session_id ON connection (mcp_session_id) WHERE mcp_session_id IS NOT NULL;
-- the connections of one session stand together
CREATE INDEX connection_session ON connection (session);

CREATE TABLE timeline (
    pk INTEGER PRIMARY KEY,
    change INTEGER NOT NULL,
    connection INTEGER REFERENCES connection,
    seq INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    time TEXT NOT NULL,
    kind TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT,
    direction TEXT,
    status TEXT,
    outcome TEXT,
    failure_reason TEXT,
    code TEXT,
    message TEXT,
    duration_us INTEGER,
    headers_us INTEGER,
    first_byte_us INTEGER,
    first_event_us INTEGER,
    jsonrpc_id TEXT,
    operation INTEGER REFERENCES timeline,
    attempt INTEGER NOT NULL,
    parent INTEGER REFERENCES timeline,
    http_method TEXT,
    http_status INTEGER,
    path TEXT,
    peer TEXT,
    stream INTEGER NOT NULL,
    trace_id TEXT,
    request_bytes INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    request_cut INTEGER NOT NULL,
    response_cut INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    sse_events TEXT,
    note TEXT
) STRICT;

-- live pages, tail and shipping: everything after a change number
CREATE UNIQUE INDEX timeline_change ON timeline (change);
-- one session's timeline, in order
CREATE INDEX timeline_connection ON timeline (connection, seq);
-- what happened around 10:08
CREATE INDEX timeline_time ON timeline (time);
-- calls without an answer: asked for at every start; holds only those, so it costs the others nothing
CREATE INDEX timeline_waiting ON timeline (at_us) WHERE status = 'waiting_for_response';

CREATE TABLE body (
    timeline INTEGER NOT NULL REFERENCES timeline,
    side TEXT NOT NULL,
    codec TEXT NOT NULL,
    data TEXT NOT NULL,
    masked INTEGER NOT NULL,
    PRIMARY KEY (timeline, side)
) STRICT;

CREATE TABLE tool_definition (
    pk INTEGER PRIMARY KEY,
    provider INTEGER NOT NULL REFERENCES provider,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    definition TEXT NOT NULL,
    first_seen TEXT NOT NULL,
    UNIQUE (provider, name, hash)
) STRICT;

CREATE TABLE tool_seen (
    definition INTEGER NOT NULL REFERENCES tool_definition,
    connection INTEGER NOT NULL REFERENCES connection,
    first_seen TEXT NOT NULL,
    last_seen TEXT NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (definition, connection)
) STRICT, WITHOUT ROWID;

CREATE VIEW sessions AS
SELECT
    session.id AS session_id,
    connection.client_name,
    connection.client_version,
    connection.started,
    max(coalesce(ended_us, last_active_us) - coalesce(started_us, created_us), 0) / 1000 AS duration_ms,
    connection.calls,
    connection.errors,
    connection.status,
    (SELECT group_concat(key, ', ') FROM json_each(connection.tools)) AS tools,
    connection.server_name,
    connection.server_version,
    connection.ended,
    connection.end_reason,
    connection.last_active,
    connection.state AS connection_state,
    connection.open_calls,
    connection.open_streams,
    connection.messages,
    connection.dropped,
    connection.truncated,
    connection.request_bytes,
    connection.response_bytes,
    connection.era,
    connection.protocol_version,
    connection.transport,
    connection.origin,
    connection.origin_note,
    connection.id AS connection_id,
    connection.mcp_session_id,
    provider.url AS upstream,
    connection.client_address,
    connection.user_agent,
    connection.replaces,
    connection.change,
    connection.pk
FROM connection
JOIN session ON session.pk = connection.session
JOIN provider ON provider.pk = connection.provider;

CREATE VIEW events AS
SELECT
    timeline.time,
    timeline.seq,
    timeline.type,
    timeline.name,
    timeline.direction,
    timeline.status,
    timeline.duration_us / 1000.0 AS latency_ms,
    timeline.first_byte_us / 1000.0 AS first_byte_ms,
    timeline.failure_reason,
    timeline.code AS error_code,
    timeline.message AS error_message,
    timeline.outcome,
    timeline.attempt,
    timeline.request_bytes,
    timeline.response_bytes,
    timeline.request_cut + timeline.response_cut AS truncated,
    timeline.dropped,
    timeline.kind,
    timeline.http_status,
    timeline.trace_id,
    timeline.note,
    'sev_' || (SELECT replica FROM store) || printf('%012d', timeline.pk) AS event_id,
    CASE WHEN timeline.kind IN ('request', 'notification', 'response')
        THEN 'smg_' || (SELECT replica FROM store) || printf('%012d', timeline.pk) END AS message_id,
    CASE WHEN timeline.kind IN ('request', 'notification', 'response')
        THEN 'smg_' || (SELECT replica FROM store) || printf('%012d', coalesce(timeline.operation, timeline.pk))
        END AS operation_id,
    CASE WHEN timeline.parent IS NOT NULL
        THEN 'smg_' || (SELECT replica FROM store) || printf('%012d', timeline.parent) END AS parent_id,
    connection.id AS connection_id,
    session.id AS session_id,
    timeline.change,
    timeline.pk
FROM timeline
LEFT JOIN connection ON connection.pk = timeline.connection
LEFT JOIN session ON session.pk = connection.session;
"""

#: When an answer's last byte came, so far: a stream that stalls shows while it is still open.
_V2: Final = """
ALTER TABLE timeline ADD COLUMN last_byte_us INTEGER;
"""

#: What the pages of a long recording need: short ways to what failed and what was slow, and figures counted ahead.
#: Both indices hold few rows, so they cost the others nothing. Figures are a cache: without them nothing is missing.
_V3: Final = """
ALTER TABLE store ADD COLUMN pruned_before TEXT;

-- what failed in a time range, with all that groups of errors are made of: few rows, far apart in the table
CREATE INDEX timeline_failed
    ON timeline (time, pk, at_us, connection, type, name, failure_reason, code, message, status)
    WHERE status = 'failed';
-- the slowest in a time range: the index alone decides which
CREATE INDEX timeline_slow ON timeline (duration_us, time) WHERE duration_us >= 100000;

CREATE TABLE folded (
    span TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    PRIMARY KEY (span, start_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (
    pk INTEGER PRIMARY KEY,
    span TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT,
    client_name TEXT,
    client_version TEXT,
    calls INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    streak INTEGER NOT NULL,
    latency BLOB,
    latency_failed BLOB
) STRICT;

-- the figures of some hours or days
CREATE INDEX tally_start ON tally (span, start_us);
"""

MIGRATIONS: Final[tuple[str, ...]] = (_V1, _V2, _V3)

#: The version that this program reads and writes.
LATEST: Final = len(MIGRATIONS)


def migrate(db: sqlite3.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> int:
    """Bring the database up to date and return the version it had; raise sqlite3.Error with that step undone.

    Each text runs in a transaction of its own together with its version number, so a database is always at one of
    the versions and never between two.
    """
    before: int = db.execute("PRAGMA user_version").fetchone()[0]
    for version, text in enumerate(migrations[before:], before + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {text} PRAGMA user_version = {version}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.rollback()
            raise
    return before
