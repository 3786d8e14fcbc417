"""What stands around one thing: a message's session, its operation and its like; a tool's definitions."""

from __future__ import annotations

import difflib
import sqlite3
from collections import Counter
from typing import Any, Final

import orjson

from mcp_tap.model import NotFoundError
from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.sqlite import lists
from mcp_tap.store.sqlite.figures import tools
from mcp_tap.store.sqlite.pool import rows
from mcp_tap.store.sqlite.tallies import Asked

#: How many calls with the same arguments are named.
_ALIKE: Final = 10


def context(db: sqlite3.Connection, pk: int, before: int, after: int) -> list[Row]:
    """Return the requests around a line, and the line; none when there is no such line."""
    place = rows(db, queries.PLACE, (pk,))
    if not place:
        return []
    connection, seq = place[0]["connection"], place[0]["seq"]
    around = {"connection": connection, "seq": seq}
    earlier = rows(db, queries.BEFORE, {**around, "limit": before})
    later = rows(db, queries.AFTER, {**around, "limit": after})
    begun = {row["pk"]: row["at_us"] for row in [*earlier[::-1], *place, *later]}
    found = lists.event_rows(db, list(begun))
    for row in found:
        row["offset_ms"] = (begun[row["pk"]] - begun[pk]) / 1000
    return found


def related(db: sqlite3.Connection, pk: int) -> Row | None:
    """Return what belongs to a message; None when there is no such line."""
    place = rows(db, queries.PLACE, (pk,))
    if not place:
        return None
    of = place[0]
    inside = {"connection": of["connection"]}
    legs = _numbers(db, queries.LEGS, {**inside, "first": of["operation"] or pk})
    parent = lists.event_rows(db, [of["parent"]]) if of["parent"] is not None and _there(db, of["parent"]) else []
    return {
        "operation": lists.event_rows(db, legs) if len(legs) > 1 else [],
        "children": lists.event_rows(db, _numbers(db, queries.CHILDREN, {**inside, "pk": pk})),
        "parent": parent[0] if parent else None,
        "same_arguments": lists.event_rows(db, _alike(db, of)),
    }


def _numbers(db: sqlite3.Connection, sql: str, values: dict[str, Any]) -> list[int]:
    return [pk for (pk,) in db.execute(sql, values)]


def _there(db: sqlite3.Connection, pk: int) -> bool:
    return db.execute("SELECT 1 FROM timeline WHERE pk = ?", (pk,)).fetchone() is not None


def _alike(db: sqlite3.Connection, of: Row) -> list[int]:
    """Return other calls of the same tool with the same arguments: ids and tokens of requests always differ."""
    if of["type"] != "tools/call" or of["name"] is None:
        return []
    own = db.execute("SELECT data FROM body WHERE timeline = ? AND side = 'request'", (of["pk"],)).fetchone()
    if own is None:
        return []
    arguments = _arguments(own[0])
    if arguments is None:
        return []
    others = db.execute(queries.CALLS_WITH_ARGUMENTS, (of["name"],))
    return [pk for pk, data in others if pk != of["pk"] and _arguments(data) == arguments][:_ALIKE]


def _arguments(data: str) -> dict[str, Any] | None:
    """Return the arguments of a call from its stored request, None where it cannot be read."""
    try:
        arguments = orjson.loads(data)["params"].get("arguments", {})
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        return None
    return arguments if isinstance(arguments, dict) else None


def waterfall(db: sqlite3.Connection, connection: int) -> list[Row]:
    """Return the whole timeline of a connection."""
    found = rows(db, queries.WATERFALL, (connection,))
    for row in found:
        row["sse_events"] = orjson.loads(row["sse_events"] or "[]")
    return found


def tool(db: sqlite3.Connection, asked: Asked, name: str) -> Row:
    """Return one tool, its definitions, and the arguments it is called with."""
    asked = asked._replace(where=asked.where.without("tool", "name"), tool=name)
    found = {row["name"]: row for row in tools(db, asked)}
    if name not in found:
        known = [row["name"] for row in tools(db, asked._replace(tool=None))]
        close = difflib.get_close_matches(name, known, n=1)
        raise NotFoundError(
            f'no tool "{name}"', hint=f"did you mean {close[0]}?" if close else "list them:  mcp-tap tools"
        )
    return {**found[name], "definitions": _definitions(db, name), "arguments": _keys(db, name)}


def _definitions(db: sqlite3.Connection, name: str) -> list[Row]:
    found = []
    for version, row in enumerate(rows(db, queries.DEFINITIONS, (name,)), 1):
        number = row.pop("pk")
        text = db.execute(queries.DEFINITION, (number,)).fetchone()[0]
        try:
            definition = orjson.loads(text)
        except orjson.JSONDecodeError:
            definition = None
        seen_by = rows(db, queries.SEEN_BY, (number,))
        found.append({"version": version, **row, "definition": definition, "seen_by": seen_by})
    return found


def _keys(db: sqlite3.Connection, name: str) -> list[Row]:
    counted = Counter(
        key for _, data in db.execute(queries.CALLS_WITH_ARGUMENTS, (name,)) for key in _arguments(data) or ()
    )
    return [{"key": key, "calls": calls} for key, calls in counted.most_common()]


def participants(db: sqlite3.Connection, session: str) -> list[Row]:
    """Return who takes part in a runtime context: its clients, then the server."""
    found: dict[str, Row] = {}
    for sql in (queries.PARTICIPANTS, queries.SERVERS):
        for row in rows(db, sql, {"session": session}):
            connection = row.pop("connection_id")
            if row["id"] is None:  # it never said its name: every connection may be another one
                row |= {"id": f"spt_{connection[4:]}", "type": "unknown"}
            found.setdefault(row["id"], {**row, "connection_ids": []})["connection_ids"].append(connection)
    return list(found.values())
