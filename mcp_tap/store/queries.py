"""The read queries, once, over the views `sessions` and `events`: portable SQL with `:name` binds.

Every one of them walks an index and stops at its limit, however long the recording is.
"""

from __future__ import annotations

from typing import Final

SUMMARY: Final = """
SELECT
    (SELECT count(*) FROM connection) AS sessions,
    (SELECT count(*) FROM connection WHERE status = 'active') AS active,
    (SELECT count(*) FROM timeline) AS events
"""

SESSION: Final = "SELECT * FROM sessions WHERE pk = :pk"

#: Which sessions a reference can mean, best match first: `rank` 0 is an exact match. A prefix is a range, so that
#: the indices serve it; `:end` is the first text behind everything that begins with `:ref`.
SESSIONS_NAMED: Final = """
SELECT pk, id AS name, id <> :ref AS rank FROM connection WHERE id >= :ref AND id < :end
UNION
SELECT connection.pk, connection.id, session.id <> :ref FROM session
JOIN connection ON connection.session = session.pk WHERE session.id >= :ref AND session.id < :end
UNION
SELECT pk, id, mcp_session_id <> :ref FROM connection WHERE mcp_session_id >= :ref AND mcp_session_id < :end
UNION
SELECT pk, id, 0 FROM connection WHERE mcp_session_id = :hashed
ORDER BY rank, pk DESC LIMIT :limit
"""

EVENT: Final = "SELECT * FROM events WHERE pk = :pk"

EVENTS_NUMBERED: Final = "SELECT pk FROM timeline WHERE pk BETWEEN :first AND :last ORDER BY pk LIMIT :limit"

#: What `Reader.event` knows beyond the view.
EVENT_DETAILS: Final = """
SELECT http_method, path, peer, stream, jsonrpc_id, headers_us / 1000.0 AS headers_ms,
    first_event_us / 1000.0 AS first_event_ms, last_byte_us / 1000.0 AS last_byte_ms, sse_events,
    coalesce(operation, pk) AS operation_pk
FROM timeline WHERE pk = :pk
"""

#: Every leg of an operation, and what the server asked for inside them. One session's timeline is read for it.
OPERATION: Final = """
WITH legs AS (
    SELECT pk FROM timeline WHERE connection = (SELECT connection FROM timeline WHERE pk = :pk)
        AND (pk = :pk OR operation = :pk) AND kind = 'request'
)
SELECT pk, type, at_us, duration_us, outcome, note, direction = 'server_to_client' AS nested FROM timeline
WHERE connection = (SELECT connection FROM timeline WHERE pk = :pk) AND kind = 'request'
    AND (pk IN (SELECT pk FROM legs) OR (parent IN (SELECT pk FROM legs) AND direction = 'server_to_client'))
"""

BODIES: Final = "SELECT side, codec, data, masked FROM body WHERE timeline = :pk"
BODIES_OF: Final = """
SELECT timeline, side, codec, data, masked FROM body WHERE timeline IN (SELECT value FROM json_each(:numbers))
"""

CHANGES: Final = "SELECT * FROM events WHERE change > :after ORDER BY change LIMIT :limit"

#: What a late request may still belong to. The last line of the timeline may be newer than the connection's row.
RECENT: Final = """
SELECT connection.*, session.id AS session_id, provider.url AS upstream,
    (SELECT max(seq) FROM timeline WHERE timeline.connection = connection.pk) AS last_seq
FROM connection
JOIN session ON session.pk = connection.session
JOIN provider ON provider.pk = connection.provider
WHERE last_active >= :since AND (status = 'active' OR end_reason IN ('idle_timeout', 'shutdown'))
ORDER BY last_active DESC LIMIT :limit
"""
