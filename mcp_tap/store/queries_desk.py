"""The queries of the desk: lists and figures under a filter, put together from portable pieces.

A filter's condition names the tables `timeline`, `connection`, `session` and `provider` and holds a `?` for each value
in turn (`mcp_tap.store.filters`); it stands where `{where}` stands.
"""

from __future__ import annotations

from typing import Final

from mcp_tap.protocol.revisions import LASTING

_CONNECTION: Final = "LEFT JOIN connection ON connection.pk = timeline.connection"
_SESSION: Final = "LEFT JOIN session ON session.pk = connection.session"
_PROVIDER: Final = "LEFT JOIN provider ON provider.pk = connection.provider"
#: Lines with what they belong to. Those before any session belong to none.
EVENTS: Final = f"timeline {_CONNECTION} {_SESSION} {_PROVIDER}"


def events(*named: str) -> str:
    """Return the tables that conditions on lines name: a join that nobody asks for would be done for every line."""
    text = " ".join(named)
    joins = [join for table, join in (("session.", _SESSION), ("provider.", _PROVIDER)) if table in text]
    return " ".join(["timeline", *([_CONNECTION] if joins or "connection." in text else []), *joins])


def sessions(*named: str) -> str:
    """Return the tables that conditions on connections name; each belongs to a session and has a provider."""
    text = " ".join(named)
    joins = [join for table, join in (("session.", _SESSION), ("provider.", _PROVIDER)) if table in text]
    return " ".join(["connection", *(join.removeprefix("LEFT ") for join in joins)])


CONTEXTS: Final = "session"

#: A context fits when one of its connections does.
CONTEXT_FITS: Final = """EXISTS (SELECT 1 FROM connection JOIN provider ON provider.pk = connection.provider
    WHERE connection.session = session.pk AND {where})"""

#: The time of a line in a range, counted from its end.
HORIZON: Final = "SELECT time FROM timeline WHERE time >= ? AND time < ? ORDER BY time DESC LIMIT 1 OFFSET ?"

#: The rows of a list by their numbers, a JSON array.
EVENT_ROWS: Final = """
SELECT events.*, connection.client_name, connection.client_version, connection.mcp_session_id
FROM events LEFT JOIN connection ON connection.id = events.connection_id
WHERE events.pk IN (SELECT value FROM json_each(?))
"""
SESSION_ROWS: Final = """
SELECT sessions.*, connection.created_us, connection.client_capabilities, connection.server_capabilities,
    connection.instructions, provider.id AS provider_id, participant.id AS participant_id,
    connection.tools AS tool_calls
FROM sessions
JOIN connection ON connection.pk = sessions.pk
JOIN provider ON provider.pk = connection.provider
LEFT JOIN participant ON participant.pk = connection.participant
WHERE sessions.pk IN (SELECT value FROM json_each(?))
"""
CONTEXT_ROWS: Final = """
SELECT pk, id AS session_id, created, origin FROM session WHERE pk IN (SELECT value FROM json_each(?))
"""

#: Connections that an id or a raw mcp-session-id names to the letter.
EXACTLY: Final = """
SELECT pk FROM connection WHERE id = :ref
UNION SELECT connection.pk FROM session JOIN connection ON connection.session = session.pk WHERE session.id = :ref
UNION SELECT pk FROM connection WHERE mcp_session_id IN (:ref, :hashed)
LIMIT 100
"""

CHANGES_TO: Final = """
SELECT max(change) FROM (SELECT change FROM timeline WHERE change > ? ORDER BY change LIMIT ?)
"""
CHANGES: Final = """
SELECT events.* FROM events WHERE events.pk IN (
    SELECT timeline.pk FROM {source} WHERE timeline.change > ? AND timeline.change <= ? AND {where}
) ORDER BY events.change
"""
SESSION_CHANGES: Final = "SELECT * FROM sessions WHERE change > ? ORDER BY change LIMIT ?"

PARTICIPANTS: Final = """
SELECT participant.id, participant.type, participant.identifier, participant.name, participant.version,
    participant.created, connection.id AS connection_id
FROM connection JOIN session ON session.pk = connection.session
LEFT JOIN participant ON participant.pk = connection.participant
WHERE session.id = :session ORDER BY connection.pk
"""
SERVERS: Final = """
SELECT participant.id, participant.type, participant.identifier, connection.server_name AS name,
    connection.server_version AS version, participant.created, connection.id AS connection_id
FROM connection JOIN session ON session.pk = connection.session
JOIN participant ON participant.type = 'provider' AND participant.provider = connection.provider
WHERE session.id = :session ORDER BY connection.pk
"""

#: Finished requests of clients. What listens lasts by design: it counts, and its time does not.
CALL: Final = """timeline.kind = 'request' AND timeline.direction = 'client_to_server'
    AND timeline.status IN ('succeeded', 'failed')"""
_LASTING: Final = ", ".join(f"'{method}'" for method in sorted(LASTING))
DURATION: Final = f"CASE WHEN timeline.type NOT IN ({_LASTING}) THEN timeline.duration_us END"

#: Calls between two times in their order: what they are, when, whether they failed, how long they took.
_BETWEEN: Final = f"timeline.time >= ? AND timeline.time < ? AND {CALL} AND {{where}}"
CALLS: Final = f"""
SELECT {{columns}}timeline.at_us, timeline.status = 'failed', {DURATION} FROM {{source}}
WHERE {_BETWEEN} ORDER BY timeline.time
"""
#: The same as a row of JSON arrays, in the order in which an index finds them. The tool is null where none was called.
CALLS_BY_COLUMN: Final = f"""
SELECT json_group_array(timeline.connection),
    json_group_array(CASE WHEN timeline.type = 'tools/call' THEN coalesce(timeline.name, '') END),
    json_group_array(timeline.at_us), json_group_array(timeline.status = 'failed'), json_group_array({DURATION})
FROM {{source}} WHERE {_BETWEEN}
"""
#: The same as one row: their number and how many failed, and JSON of how long each took and whether it failed.
CALLS_AT_ONCE: Final = f"""
SELECT count(*), coalesce(sum(timeline.status = 'failed'), 0), coalesce(sum(timeline.type = 'tools/call'), 0),
    json_group_array({DURATION}), json_group_array(timeline.status = 'failed')
FROM {{source}} WHERE {_BETWEEN}
"""

#: The same of hours and days that were counted ahead. All that a condition can name here is in the one table.
_COUNTED: Final = "FROM tally AS timeline WHERE span = ? AND start_us >= ? AND start_us < ? AND {where}"
TALLIES: Final = f"SELECT {{by}}, calls, errors, last_us, streak, latency, NULL {_COUNTED} ORDER BY start_us"
TALLIES_FAILED: Final = TALLIES.replace("NULL", "latency_failed")
#: Their sums, for which no latency is read.
TALLIES_TOGETHER: Final = f"""
SELECT {{by}}, sum(calls), sum(errors), max(last_us), 0, NULL, NULL {_COUNTED} GROUP BY {{by}}
"""
FOLDED: Final = "SELECT start_us FROM folded WHERE span = ? AND start_us >= ? AND start_us < ? ORDER BY start_us"

CONNECTIONS: Final = """
SELECT count(*) AS sessions, coalesce(sum(connection.status = 'active'), 0) AS active,
    coalesce(sum(connection.dropped), 0) AS dropped
FROM {source} WHERE {where}
"""
#: What was lost that belongs to no connection.
DROPPED: Final = "SELECT coalesce(sum(dropped), 0) FROM timeline WHERE connection IS NULL AND dropped > 0 AND {where}"

BOUNDS: Final = "SELECT (SELECT min(time) FROM timeline), (SELECT max(time) FROM timeline)"

CLIENTS: Final = """
SELECT connection.client_name AS name, connection.client_version AS version, count(*) AS sessions,
    min(connection.started) AS first_seen, max(connection.last_active) AS last_seen,
    group_concat(DISTINCT connection.protocol_version) AS revisions
FROM {source} WHERE {where} GROUP BY connection.client_name, connection.client_version
"""

VERSIONS: Final = "SELECT name, hash, first_seen FROM tool_definition ORDER BY first_seen, pk"
DEFINITIONS: Final = """
SELECT tool_definition.pk, provider.url AS upstream, tool_definition.hash, tool_definition.first_seen,
    max(tool_seen.last_seen) AS last_seen, coalesce(sum(tool_seen.times), 0) AS times
FROM tool_definition
JOIN provider ON provider.pk = tool_definition.provider
LEFT JOIN tool_seen ON tool_seen.definition = tool_definition.pk
WHERE tool_definition.name = ? GROUP BY tool_definition.pk ORDER BY tool_definition.first_seen, tool_definition.pk
"""
DEFINITION: Final = "SELECT definition FROM tool_definition WHERE pk = ?"
SEEN_BY: Final = """
SELECT connection.id AS connection_id, session.id AS session_id, connection.client_name, connection.client_version,
    tool_seen.first_seen, tool_seen.last_seen
FROM tool_seen JOIN connection ON connection.pk = tool_seen.connection
JOIN session ON session.pk = connection.session
WHERE tool_seen.definition = ? ORDER BY tool_seen.last_seen DESC LIMIT 100
"""

#: The newest calls of a tool that have their request stored, among the newest lines of all.
CALLS_WITH_ARGUMENTS: Final = """
SELECT timeline.pk, body.data FROM timeline
JOIN body ON body.timeline = timeline.pk AND body.side = 'request'
WHERE timeline.pk > (SELECT max(pk) FROM timeline) - 50000 AND timeline.type = 'tools/call' AND timeline.name = ?
ORDER BY timeline.pk DESC LIMIT 200
"""

_GROUPED: Final = ("type", "name", "failure_reason", "code", "message", "pk", "at_us", "connection")
#: Failed messages, for their groups: a row of JSON arrays, in the order in which an index finds them.
FAILED: Final = f"""
SELECT {", ".join(f"json_group_array(timeline.{column})" for column in _GROUPED)}
FROM {{source}} WHERE timeline.status = 'failed' AND {{where}}
"""
CLIENTS_OF: Final = """
SELECT pk, client_name, client_version FROM connection WHERE pk IN (SELECT value FROM json_each(?))
"""

#: Requests of a session around a line of it.
BEFORE: Final = """
SELECT pk, at_us FROM timeline WHERE connection = :connection AND seq < :seq AND kind = 'request'
ORDER BY seq DESC LIMIT :limit
"""
AFTER: Final = """
SELECT pk, at_us FROM timeline WHERE connection = :connection AND seq > :seq AND kind = 'request'
ORDER BY seq LIMIT :limit
"""

PLACE: Final = "SELECT pk, connection, seq, at_us, type, name, operation, parent FROM timeline WHERE pk = ?"
LEGS: Final = """
SELECT pk FROM timeline WHERE connection = :connection AND (pk = :first OR operation = :first) ORDER BY seq
"""
CHILDREN: Final = "SELECT pk FROM timeline WHERE connection = :connection AND parent = :pk ORDER BY seq LIMIT 500"

WATERFALL: Final = """
SELECT events.*, timeline.at_us, timeline.duration_us, timeline.headers_us, timeline.first_byte_us,
    timeline.last_byte_us, timeline.sse_events, timeline.operation, timeline.parent
FROM events JOIN timeline ON timeline.pk = events.pk
WHERE timeline.connection = ? ORDER BY timeline.seq LIMIT 5000
"""

FACTS: Final = """
SELECT (SELECT count(*) FROM timeline WHERE pk > :counted) AS events, (SELECT count(*) FROM connection) AS sessions,
    (SELECT coalesce(max(pk), 0) FROM timeline) AS last,
    (SELECT pruned_before FROM store) AS pruned_before,
    (SELECT min(time) FROM timeline) AS oldest, (SELECT max(time) FROM timeline) AS newest,
    max((SELECT coalesce(max(change), 0) FROM timeline), (SELECT coalesce(max(change), 0) FROM connection)) AS change
"""
UPSTREAMS: Final = "SELECT url FROM provider ORDER BY pk"
